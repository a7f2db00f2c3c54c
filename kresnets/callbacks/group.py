"""What the callbacks share: they know the groups of the model during `fit`, and log the learning rate of each."""

import math

import keras

from kresnets.groups import layout
from kresnets.keras_hooks import optimizer as optimizer_hooks
from kresnets.keras_hooks.model import end_watch, watch_start


class GroupCallback(keras.callbacks.Callback):
    """Know the groups of the model during `fit`, and log the learning rate of each."""

    def __init__(self, groups):
        super().__init__()
        self.groups = groups
        self._layout, self._began = None, False

    def set_model(self, model):
        super().set_model(model)
        optimizer_hooks.check_supported(model.optimizer)
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
            optimizer_hooks.mark(self.model.optimizer)
            self._began = True

    def on_epoch_end(self, epoch, logs=None):
        if logs is None or not self._began:
            return
        self._began = False
        optimizer = self.model.optimizer
        first, rate = optimizer_hooks.marked(optimizer)
        middle = (first + optimizer_hooks.steps(optimizer)) // 2
        if optimizer_hooks.has_schedule(optimizer):
            rate = optimizer_hooks.learning_rate(optimizer, middle)
        trained = {id(v) for v in self.model.trainable_variables}
        for name, layers in self._layout.groups().items():
            variables = [v for layer in layers for v in layer.variables if id(v) in trained]
            ratios = [optimizer_hooks.ratio_of(optimizer, v, middle) for v in variables]
            logs[f"learning_rate/{name}"] = rate * max(ratios, default=0.0)
        logs["trainable_parameters"] = sum(math.prod(v.shape) for v in self.model.trainable_variables)

    def on_train_end(self, logs=None):
        self._layout, self._began = None, False
        end_watch(self.model)
