"""Optimizer surgery: another set of variables, or another rate for each, inside one running `fit`.

A Keras optimizer is built once, on a fixed list of variables, and knows one learning rate. Two things are done to it
here, on the very object that the model and the user hold: `rebuild` gives it another list and keeps the state of all
that stays; `scale_updates` multiplies each variable's update. Keras has no public door for either, so its private
names appear in this file and no other; tests/test_optimizer.py fails when Keras changes them.
"""

import contextlib

import keras
import numpy as np

_OWN_LISTS = ("_variables", "_trainable_variables")  # not slots
_AVERAGES = "_model_variables_moving_average"


def core(optimizer):
    """Return the optimizer that makes the updates: what a LossScaleOptimizer wraps, else the optimizer itself."""
    return core(optimizer.inner_optimizer) if isinstance(optimizer, keras.optimizers.LossScaleOptimizer) else optimizer


def check_supported(optimizer):
    """Raise a ValueError for an optimizer that cannot be rebuilt or scaled."""
    if not isinstance(optimizer, keras.optimizers.Optimizer):
        raise ValueError(f"Compile the model with a Keras optimizer first. Received: optimizer={optimizer!r}")
    if isinstance(core(optimizer), keras.optimizers.MultiOptimizer):
        raise ValueError(
            "keras.optimizers.MultiOptimizer fixes its variables and rates when it is built: compile with one optimizer and let "
            "StagedUnfreezing and LayerwiseLearningRate give each group its own rate."
        )


def steps(optimizer):
    """Return the number of steps taken, those that only accumulated gradients included."""
    return int(core(optimizer)._iterations.numpy())


def has_schedule(optimizer):
    """Whether the learning rate is a schedule of the steps."""
    return isinstance(core(optimizer)._learning_rate, keras.optimizers.schedules.LearningRateSchedule)


def learning_rate(optimizer, step=None):
    """Return the learning rate of the moment, or that of a step where it is a schedule."""
    rate = optimizer.learning_rate if step is None else core(optimizer)._learning_rate(step)
    return float(rate.numpy() if isinstance(rate, keras.Variable) else keras.ops.convert_to_numpy(rate))


def rebuild(model):
    """Build the model's optimizer on exactly `model.trainable_variables`, in place, keeping the state of those that it
    knew.

    Iterations, learning rate, slots, accumulated gradients, moving averages and loss scale stay; a variable that
    joins starts with empty slots (its moving average at its own value).

    Returns:
        Whether anything had to change.
    """
    optimizer, variables = model.optimizer, model.trainable_variables
    if optimizer.built and [id(v) for v in core(optimizer)._trainable_variables] == [id(v) for v in variables]:
        return False
    before = _snapshot(optimizer)
    strategy = getattr(model, "distribute_strategy", None)  # TensorFlow's trainer: new variables belong to its devices
    try:
        with strategy.scope() if strategy else contextlib.nullcontext():
            _forget_build(optimizer)
            optimizer.build(variables)
            if before["built"]:
                _carry(before, optimizer)
    except BaseException:
        _restore(optimizer, before)
        raise
    return True


def _snapshot(optimizer):
    """Return the attributes of an optimizer, lists copied, those of an inner optimizer in `inner_optimizer`."""
    attributes = {name: list(value) if isinstance(value, list) else value for name, value in vars(optimizer).items()}
    if core(optimizer) is not optimizer:
        attributes["inner_optimizer"] = _snapshot(optimizer.inner_optimizer)
    return attributes


def _restore(optimizer, before):
    _forget_build(optimizer)
    inner = getattr(optimizer, "inner_optimizer", None)
    if inner is not None:
        _restore(inner, before["inner_optimizer"])
    for variable in before["_variables"]:
        if not any(variable is known for known in optimizer._variables):
            optimizer._track_variable(variable)
    kept = {"inner_optimizer", "_variables"}  # the tracker holds on to the list of variables itself
    vars(optimizer).update({name: value for name, value in before.items() if name not in kept})


def _forget_build(optimizer):
    """Take back what `build` did: only the step count and the learning rate were there before it."""
    if core(optimizer) is not optimizer:
        _forget_build(optimizer.inner_optimizer)
    for variable in optimizer.variables if core(optimizer) is optimizer else list(optimizer._variables):
        if variable is not optimizer._iterations and variable is not optimizer._learning_rate:
            optimizer._untrack_variable(variable)
    optimizer._trainable_variables = []
    optimizer._trainable_variables_indices = {}
    optimizer.built = False


def _carry(before, optimizer):
    """Give the newly built optimizer the state that `before`, its snapshot, had of the same variables."""
    known = {optimizer._var_key(v): index for index, v in enumerate(before["_trainable_variables"])}
    position = [known.get(optimizer._var_key(v)) for v in optimizer._trainable_variables]
    carried = set()
    for name, value in list(vars(optimizer).items()):
        if isinstance(value, keras.Variable):
            carried.add(id(value))
            if before.get(name) is not value and isinstance(before.get(name), keras.Variable):
                _copy(before[name], value)
        elif isinstance(value, keras.optimizers.Optimizer):
            _carry(before[name], value)
            carried.update(id(v) for v in value.variables)
    for name, slots in _slots(optimizer):
        for slot, index, variable in zip(slots, position, optimizer._trainable_variables, strict=True):
            if slot is None:
                continue
            carried.add(id(slot))
            if index is not None:
                _copy(before[name][index], slot)
            elif name == _AVERAGES:
                _copy(variable, slot)
    left = [v.path for v in optimizer.variables if id(v) not in carried]
    if left:
        raise TypeError(
            f"{type(optimizer).__name__} keeps state that cannot be carried over when a group thaws ({', '.join(left[:3])}, ...): "
            "keep one list entry a trainable variable, as Keras's own optimizers do."
        )


def _slots(optimizer):
    count = len(optimizer._trainable_variables)
    for name, value in vars(optimizer).items():
        if name not in _OWN_LISTS and isinstance(value, list) and len(value) == count:
            if all(slot is None or isinstance(slot, keras.Variable) for slot in value):
                yield name, value


def _copy(source, target):
    # Through numpy: on JAX two variables must not share a buffer that the step is about to give away.
    target.assign(np.array(source.numpy()))


def scale_updates(optimizer, variables):
    """Multiply the update of each variable, and its decoupled weight decay, by a ratio.

    Args:
        optimizer: a Keras optimizer, built or not.
        variables: list of `(keras.Variable, ratio)`; a variable not listed has ratio 1. At ratio 0 nothing changes the
            variable.
    """
    optimizer = core(optimizer)
    cls = type(optimizer)
    ratios = {optimizer._var_key(variable): ratio for variable, ratio in variables}

    def ratio_of(variable):
        return ratios.get(optimizer._var_key(variable), 1.0)

    def update_step(gradient, variable, learning_rate):
        # The rate, not the gradient: Adam and its kin divide a gradient's scale away.
        if ratio := ratio_of(variable):
            cls.update_step(optimizer, gradient, variable, learning_rate * ratio)

    def apply_weight_decay(variables):
        # Keras decays by the one learning rate, which is therefore another one while each group decays.
        for ratio in sorted({ratio_of(variable) for variable in variables} - {0.0}):
            optimizer._get_current_learning_rate = lambda ratio=ratio: cls._get_current_learning_rate(optimizer) * ratio
            cls._apply_weight_decay(optimizer, [variable for variable in variables if ratio_of(variable) == ratio])
        optimizer._get_current_learning_rate = lambda: cls._get_current_learning_rate(optimizer)

    def update_averages(variables):
        cls._update_model_variables_moving_average(optimizer, variables)
        for variable, average in zip(optimizer._trainable_variables, getattr(optimizer, _AVERAGES), strict=True):
            if ratio_of(variable) == 0 and average is not None:
                average.assign(variable)  # exactly: the average of a constant is rounded otherwise

    _set(
        optimizer,
        update_step=update_step,
        _apply_weight_decay=apply_weight_decay,
        _update_model_variables_moving_average=update_averages,
    )
    _set(optimizer, kresnets_ratio_of=ratio_of)


def unscale_updates(optimizer):
    """Take `scale_updates` back."""
    names = (
        "update_step",
        "_apply_weight_decay",
        "_update_model_variables_moving_average",
        "_get_current_learning_rate",
        "kresnets_ratio_of",
    )
    for name in names:
        vars(core(optimizer)).pop(name, None)


def ratio_of(optimizer, variable):
    """Return the ratio that `scale_updates` gave a variable, 1 where it gave none."""
    scaled = vars(core(optimizer)).get("kresnets_ratio_of")
    return scaled(variable) if scaled else 1.0


def _set(optimizer, **attributes):
    # Past TensorFlow's attribute tracking: functions are no state.
    vars(optimizer).update(attributes)
