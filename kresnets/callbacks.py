"""Callbacks for any `model.fit`: unfreezing in stages, and a learning rate for each group.

In any order and combination with each other and with Keras's own (those that write logs, such as CSVLogger, come
after, or they do not see what these add).
"""

import math
import numbers

import h5py
import keras

from kresnets.groups import layout
from kresnets.transfer import optimizer as surgery
from kresnets.transfer.freezing import check_batchnorm, set_trainable


class _GroupCallback(keras.callbacks.Callback):
    """Know the groups of the model during `fit`, and log the learning rate of each."""

    def __init__(self, groups):
        super().__init__()
        self.groups = groups
        self._layout = self._began = None

    def set_model(self, model):
        super().set_model(model)
        surgery.check_supported(model.optimizer)
        self._layout, self._began = layout(model, self.groups), None
        _watch_start(model, self)

    def on_test_begin(self, logs=None):
        self._leave_evaluation()

    def on_predict_begin(self, logs=None):
        self._leave_evaluation()

    def _leave_evaluation(self):
        # evaluate() and predict() hand over the model too, without a fit that would begin and end.
        if vars(self.model).get("kresnets_callbacks") is not None:
            _end_watch(self.model)

    def on_train_batch_begin(self, batch, logs=None):
        if self._began is None:
            # Here, since by now every callback has set the rate of this epoch, and none yet that of the next.
            self._began = surgery.steps(self.model.optimizer), surgery.learning_rate(self.model.optimizer)

    def on_epoch_end(self, epoch, logs=None):
        if logs is None or self._began is None:
            return
        first, rate = self._began
        self._began = None
        if surgery.has_schedule(self.model.optimizer):
            rate = surgery.learning_rate(self.model.optimizer, (first + surgery.steps(self.model.optimizer)) // 2)
        trained = {id(v) for v in self.model.trainable_variables}
        for name, layers in self._layout.groups().items():
            ratios = [
                surgery.ratio_of(self.model.optimizer, v)
                for layer in layers
                for v in layer.variables
                if id(v) in trained
            ]
            logs[f"learning_rate/{name}"] = rate * max(ratios, default=0.0)
        logs["trainable_parameters"] = sum(math.prod(v.shape) for v in self.model.trainable_variables)

    def on_train_end(self, logs=None):
        self._layout = self._began = None
        _end_watch(self.model)


def _watch_start(model, callback):
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
            for kind in (StagedUnfreezing, LayerwiseLearningRate):
                if sum(isinstance(one, kind) for one in waiting) > 1:
                    raise ValueError(
                        f"One fit takes one {kind.__name__}: they would undo each other's work. Received: 2 or more; join them."
                    )
        return type(model).make_train_function(model, force=force)

    vars(model)["make_train_function"] = make_train_function


def _end_watch(model):
    for name in ("make_train_function", "kresnets_callbacks", "load_weights"):
        vars(model).pop(name, None)


class StagedUnfreezing(_GroupCallback):
    """Train the head alone first, then thaw the trunk from its end (gradual unfreezing, arXiv 1801.06146 section 3.3).

    What is never listed stays frozen for good. The optimizer always holds exactly the trainable variables; the state
    of those that already trained (slots, iterations, averages, loss scale, accumulated gradients) survives each
    unfreezing. No recompile; the step is traced once more at each stage. After `fit`, flags and optimizer stay as the
    last stage left them; another `fit` starts afresh.

    Args:
        stages: dict `{epoch: group or block}`: from that epoch (counted from 0) on, this one and all above it train.
            The first epoch must be 0; later ones must go deeper.
        batchnorm: `"frozen"` keeps the trunk's batch norms (statistics, gamma, beta) as they are in thawed groups
            too; `"train"` thaws them with their group. Defaults to `"frozen"`.
        groups: for models that are not of kresnets, an ordered dict `{group: regex}`; see `kresnets.groups`. Defaults
            to None.

    Logs: `learning_rate/<group>` (that of the epoch's middle step; 0 where nothing trains) and `trainable_parameters`.

    Raises:
        ValueError: for stages that are no such dict, or name a group that the model lacks.

    Example:
        >>> import kresnets, numpy as np
        >>> model = kresnets.CifarResNet20(input_shape=(16, 16, 3))
        >>> model.compile("adam", "sparse_categorical_crossentropy")
        >>> x, y = np.zeros((4, 16, 16, 3)), np.zeros(4)
        >>> history = model.fit(x, y, epochs=2, verbose=0, callbacks=[kresnets.StagedUnfreezing({0: "head", 1: "stage3"})])
        >>> history.history["trainable_parameters"]
        [650, 203402]
    """

    def __init__(self, stages, batchnorm="frozen", groups=None):
        super().__init__(groups)
        whole = isinstance(stages, dict) and all(
            isinstance(e, numbers.Integral) and not isinstance(e, bool) and e >= 0 for e in stages
        )
        if not whole or not all(isinstance(name, str) for name in stages.values()):
            raise ValueError(
                f"`stages` must be a dict {{epoch: group}} such as {{0: 'head', 3: 'stage4'}}. Received: {stages!r}"
            )
        if 0 not in stages:
            raise ValueError(
                f"The first stage must start at epoch 0, for example {{0: 'head', ...}}. Received: {stages!r}"
            )
        check_batchnorm(batchnorm)
        self.stages = dict(sorted(stages.items()))
        self.batchnorm = batchnorm
        self._current = None

    def set_model(self, model):
        super().set_model(model)
        self.check(self._layout)
        self._current = None
        self._watch_restore(model)

    def check(self, where):
        """Raise a ValueError unless the stages are those of a model with this `kresnets.groups.Layout`."""
        for _, layer in where.places:
            if isinstance(layer, keras.layers.SpectralNormalization):
                raise ValueError(
                    f"{layer.name!r} is a SpectralNormalization, which rewrites its weights even when frozen: it cannot be staged."
                )
        starts = [where.first(name) for name in self.stages.values()]
        if any(later >= earlier for earlier, later in zip(starts, starts[1:])):
            raise ValueError(
                f"Each stage must go deeper than the one before it ({' > '.join(where.names[::-1])}). Received: {self.stages}"
            )

    def stage_of(self, epoch):
        """Return the group or block from which on layers train in this epoch."""
        return self.stages[max(start for start in self.stages if start <= epoch)]

    def on_epoch_begin(self, epoch, logs=None):
        vars(self.model).pop("load_weights", None)
        self._enter(self.stage_of(epoch))

    def _enter(self, name):
        if name == self._current:
            return
        start = self._layout.first(name)
        set_trainable(self.model, self._layout, lambda place: place >= start, self.batchnorm)
        surgery.rebuild(self.model)
        # fit() fetches the function anew for each step; the flags are read when it is traced.
        self.model.make_train_function(force=True)
        self._current = name

    def _watch_restore(self, model):
        # BackupAndRestore reads its file in on_train_begin, before anyone knows the epoch, and Keras skips (with a
        # warning) the state of an optimizer built on other variables than the file's. So until the first epoch
        # begins, whoever loads weights into the model finds it in the stage that the file was written in: the one
        # whose optimizer has as many variables.
        original = type(model).load_weights

        def load_weights(filepath, *args, **kwargs):
            count = _saved_optimizer_variables(filepath)
            for name in self.stages.values() if count else ():
                self._enter(name)
                if len(model.optimizer.variables) == count:
                    break
            return original(model, filepath, *args, **kwargs)

        vars(model)["load_weights"] = load_weights


class LayerwiseLearningRate(_GroupCallback):
    """Give each group its own learning rate (discriminative fine-tuning, arXiv 1801.06146 section 3.1).

    The ratio scales the update itself, so it is right for Adam as for SGD, and the decoupled weight decay with it.
    The optimizer's learning rate stays the one knob: schedules and Keras's callbacks work on it. Never touches
    `trainable`: at ratio 0 no trainable variable changes, while batch norms that are not frozen still move their
    statistics.

    Args:
        ratios: a number: the k-th group below the head learns at `ratios ** k` of the head's rate; or a dict `{group:
            ratio}`, in which a group not named has ratio 1. Ratios are at least 0.
        groups: for models that are not of kresnets, an ordered dict `{group: regex}`; see `kresnets.groups`. Defaults
            to None.

    Logs: `learning_rate/<group>` (that of the epoch's middle step; 0 where nothing trains) and `trainable_parameters`.

    Raises:
        ValueError: for negative or non-finite ratios, or a group that the model lacks.

    Example:
        >>> import kresnets
        >>> kresnets.LayerwiseLearningRate(0.3).ratios
        0.3
        >>> kresnets.LayerwiseLearningRate({"stem": 0, "stage4": 0.1}).ratios
        {'stem': 0, 'stage4': 0.1}
    """

    def __init__(self, ratios, groups=None):
        super().__init__(groups)
        values = ratios.values() if isinstance(ratios, dict) else (ratios,)
        if not all(
            isinstance(r, numbers.Real) and not isinstance(r, bool) and math.isfinite(r) and r >= 0 for r in values
        ):
            raise ValueError(
                f"`ratios` must be a number from 0 or a dict {{group: number from 0}}. Received: {ratios!r}"
            )
        self.ratios = dict(ratios) if isinstance(ratios, dict) else ratios

    def set_model(self, model):
        super().set_model(model)
        self.ratio_by_group(self._layout.names)

    def ratio_by_group(self, names):
        """Return `{group: ratio}` for the given groups, the head last."""
        if not isinstance(self.ratios, dict):
            return {name: float(self.ratios) ** (len(names) - 1 - index) for index, name in enumerate(names)}
        unknown = [name for name in self.ratios if name not in names]
        if unknown:
            raise ValueError(
                f"`ratios` names {', '.join(map(repr, unknown))}, but the model's groups are {', '.join(names)}."
            )
        return {name: float(self.ratios.get(name, 1.0)) for name in names}

    def on_train_begin(self, logs=None):
        ratios = self.ratio_by_group(self._layout.names)
        scaled = [
            (variable, ratios[name])
            for name, layers in self._layout.groups().items()
            for layer in layers
            for variable in layer.variables
            if ratios[name] != 1.0
        ]
        surgery.scale_updates(self.model.optimizer, scaled)
        self.model.make_train_function(force=True)
        _watch_start(self.model, None)  # should this fit be interrupted, the next one takes the scaling back

    def on_train_end(self, logs=None):
        super().on_train_end(logs)
        surgery.unscale_updates(self.model.optimizer)
        _end_watch(self.model)
        # What is traced still scales; the next fit traces anew.
        self.model.train_function = None


def _saved_optimizer_variables(filepath):
    """Count the optimizer's variables in a `.weights.h5` file; 0 where there are none."""
    if not str(filepath).endswith(".h5"):
        return 0
    with h5py.File(filepath, "r") as file:
        return len(file["optimizer/vars"]) if "optimizer/vars" in file else 0
