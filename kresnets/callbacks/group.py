"""What the callbacks share: they know the groups of the model during `fit`, and log the learning rate of each."""

import math

import keras

from kresnets.callbacks import optimizer_surgery as surgery
from kresnets.groups import layout


class GroupCallback(keras.callbacks.Callback):
    """Know the groups of the model during `fit`, and log the learning rate of each."""

    def __init__(self, groups):
        super().__init__()
        self.groups = groups
        self._layout, self._began = None, False

    def set_model(self, model):
        super().set_model(model)
        surgery.check_supported(model.optimizer)
        self._layout, self._began = layout(model, self.groups), False
        watch_start(model, self)

    def on_test_begin(self, logs=None):
        self._leave_evaluation()

    def on_predict_begin(self, logs=None):
        self._leave_evaluation()

    def _leave_evaluation(self):
        # evaluate() and predict() hand over the model too, without a fit that would begin and end.
        if any(one is self for one in vars(self.model).get("kresnets_callbacks") or ()):
            end_watch(self.model)

    def on_train_batch_begin(self, batch, logs=None):
        if not self._began:
            # Here, since by now every callback has set the rate of this epoch, and none yet that of the next.
            surgery.mark(self.model.optimizer)
            self._began = True

    def on_epoch_end(self, epoch, logs=None):
        if logs is None or not self._began:
            return
        self._began = False
        optimizer = self.model.optimizer
        first, rate = surgery.marked(optimizer)
        middle = (first + surgery.steps(optimizer)) // 2
        if surgery.has_schedule(optimizer):
            rate = surgery.learning_rate(optimizer, middle)
        trained = {id(v) for v in self.model.trainable_variables}
        for name, layers in self._layout.groups().items():
            variables = [v for layer in layers for v in layer.variables if id(v) in trained]
            ratios = [surgery.ratio_of(optimizer, v, middle) for v in variables]
            logs[f"learning_rate/{name}"] = rate * max(ratios, default=0.0)
        logs["trainable_parameters"] = sum(math.prod(v.shape) for v in self.model.trainable_variables)

    def on_train_end(self, logs=None):
        self._layout, self._began = None, False
        end_watch(self.model)


def watch_start(model, callback=None):
    """Until a fit starts, note which of our callbacks it has; when it does, refuse two of a kind, and take back what
    an interrupted fit left on the optimizer (Keras calls `on_train_end` only after a fit that ends well)."""
    waiting = [*(vars(model).get("kresnets_callbacks") or ()), *([] if callback is None else [callback])]
    vars(model)["kresnets_callbacks"] = waiting

    def make_train_function(force=False):
        if not force:  # fit() itself, once, after every callback has its model and before any begins
            waiting = vars(model).pop("kresnets_callbacks")
            vars(model).pop("make_train_function")
            surgery.unscale_updates(model.optimizer)
            model.train_function = None
            kinds = [one.kind for one in waiting]
            for kind in kinds:
                if kinds.count(kind) > 1:
                    raise ValueError(
                        f"One fit takes one {kind}: they would undo each other's work. Received: 2 or more; join them."
                    )
        return type(model).make_train_function(model, force=force)

    vars(model)["make_train_function"] = make_train_function


def end_watch(model):
    """Leave nothing of ours on the model."""
    for name in ("make_train_function", "kresnets_callbacks", "load_weights"):
        vars(model).pop(name, None)
