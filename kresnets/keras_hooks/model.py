"""What is done to a live `keras.Model`: functions that take the place of its methods, on the object alone, for a while.

Keras calls these methods by name on the model, so that an attribute of the object wins over its class. All of it is
taken back when the fit, or the context, ends; tests/test_keras_hooks.py fails when Keras calls otherwise.
"""

import contextlib
import functools

import keras

from kresnets.keras_hooks.optimizer import unscale_updates

_STEPS = ("train_step", "test_step")


def watch_start(model, callback=None):
    """Until a fit starts, note which of our callbacks it has; when it does, refuse two of a kind, and take back what
    an interrupted fit left on the optimizer (Keras calls `on_train_end` only after a fit that ends well)."""
    waiting = [*(vars(model).get("kresnets_callbacks") or ()), *([] if callback is None else [callback])]
    vars(model)["kresnets_callbacks"] = waiting

    def make_train_function(force=False):
        if not force:  # fit() itself, once, after every callback has its model and before any begins
            waiting = vars(model).pop("kresnets_callbacks")
            vars(model).pop("make_train_function")
            unscale_updates(model.optimizer)
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


def before_load_weights(model, prepare):
    """Until `end_watch`, or the next call of this, have `prepare(path)` called before weights are loaded into a
    model."""
    original = type(model).load_weights

    def load_weights(filepath, *args, **kwargs):
        prepare(filepath)
        return original(model, filepath, *args, **kwargs)

    vars(model)["load_weights"] = load_weights


def forget_load_weights(model):
    """Take `before_load_weights` back."""
    vars(model).pop("load_weights", None)


@contextlib.contextmanager
def one_fit(model):
    """Keep fit() from doing at the end of each call what belongs to the end of the last one, and from starting what
    waits for the first."""
    waiting = vars(model).pop("make_train_function", None)
    vars(model.optimizer)["finalize_variable_values"] = lambda variables: None
    try:
        yield
    finally:
        vars(model.optimizer).pop("finalize_variable_values")
        if waiting is not None and "kresnets_callbacks" in vars(model):
            vars(model)["make_train_function"] = waiting


@contextlib.contextmanager
def through(model, tail, features):
    """Yield a double of the model, of the same state, whose `fit` sends batches that are a dict with `features` through
    `tail`; all other batches go through the model."""
    kind = type(model)

    class Double(kind):
        def __call__(self, inputs, *args, **kwargs):
            seen = isinstance(inputs, dict) and features in inputs
            return tail(inputs[features], *args, **kwargs) if seen else model(inputs, *args, **kwargs)

        call = __call__

    double = object.__new__(Double)
    object.__setattr__(double, "__dict__", vars(model))
    vars(model).update({step: functools.partial(getattr(kind, step), double) for step in ("train_step", "test_step")})
    model.train_function = model.test_function = None
    try:
        yield double
    finally:
        del vars(model)["train_step"], vars(model)["test_step"]
        model.train_function = model.test_function = None


@contextlib.contextmanager
def steps_through(model, whole, weighted):
    """Have the model's own steps called through `whole(step, has weights)`, that of training and that of testing."""
    vars(model).update({name: whole(getattr(model, name), has) for name, has in zip(_STEPS, weighted, strict=True)})
    model.train_function = model.test_function = None
    try:
        yield
    finally:
        for name in _STEPS:
            del vars(model)[name]
        model.train_function = model.test_function = None


@contextlib.contextmanager
def loss_scaled(optimizer, weight):
    """Have the loss that is differentiated, and not the one that is logged, multiplied by `weight()`.

    Keras's own step calls `scale_loss` for what it differentiates, and for nothing that it logs.
    """

    def scale_loss(loss):
        return type(optimizer).scale_loss(optimizer, loss) * keras.ops.cast(weight(), loss.dtype)

    vars(optimizer)["scale_loss"] = scale_loss
    try:
        yield
    finally:
        vars(optimizer).pop("scale_loss", None)


def take_initial_epoch(model):
    """Return the epoch at which BackupAndRestore wants the fit to begin, or None, and have the model forget it: each
    call of `fit` would begin there."""
    epoch, model._initial_epoch = model._initial_epoch, None
    return epoch
