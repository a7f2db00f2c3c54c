"""Optimizer surgery: another set of variables, or another rate for each, inside one running `fit`.

A Keras optimizer is built once, on a fixed list of variables, and knows one learning rate. Two things are done to it
here, on the very object that the model and the user hold: `rebuild` gives it another list and keeps the state of all
that stays; `scale_updates` and `ramp_updates` multiply each variable's update. Keras has no public door for either,
so its private names appear in this file and no other; tests/test_keras_hooks.py fails when Keras changes them.
"""

import contextlib
import dataclasses
import functools

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
            "keras.optimizers.MultiOptimizer fixes its variables and rates when it is built: compile with one "
            "optimizer and let StagedUnfreezing and LayerwiseLearningRate give each group its own rate."
        )


def check_scales(optimizer, ratios):
    """Raise a ValueError where an optimizer cannot learn at a share of its rate, and one of these is asked for.

    FTRL computes each weight anew from the sum of all gradients, as if it had begun at 0 (McMahan et al. 2013): it
    pulls a pretrained weight there in its first steps, however low the rate.
    """
    if isinstance(core(optimizer), keras.optimizers.Ftrl) and any(ratio not in (0, 1) for ratio in ratios):
        raise ValueError(
            "keras.optimizers.Ftrl pulls weights towards 0 at any rate, so that no group can learn at a share of it: "
            "take another optimizer, such as 'adamw', or ratio 1 (and 0 for what is to stay)."
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


def rebuild(model, rate=None):
    """Build the model's optimizer on exactly `model.trainable_variables`, in place, keeping the state of those that it
    knew; and, where a `rate` is given, with this constant learning rate in place of its schedule.

    Iterations, learning rate, slots, accumulated gradients, moving averages and loss scale stay; a variable that
    joins starts with empty slots (its moving average at its own value).

    Returns:
        Whether anything had to change.
    """
    optimizer, variables = model.optimizer, model.trainable_variables
    if (
        rate is None
        and optimizer.built
        and [id(v) for v in core(optimizer)._trainable_variables] == [id(v) for v in variables]
    ):
        return False
    before = _snapshot(optimizer)
    try:
        with scope(model):
            _forget_build(optimizer)
            if rate is not None:  # before the slots, where Keras has it: files know an optimizer's variables by order
                core(optimizer)._learning_rate = fresh_copy(core(optimizer), rate)._learning_rate
            optimizer.build(variables)
            if before["built"]:
                _carry(before, optimizer)
    except BaseException:
        _restore(optimizer, before)
        raise
    return True


def scope(model):
    """Return the context in which new variables belong to the devices of a model."""
    strategy = getattr(model, "distribute_strategy", None)  # TensorFlow's trainer has one
    return strategy.scope() if strategy else contextlib.nullcontext()


def compile_alike(source, target, origin, like):
    """Compile a model as another one is compiled, its optimizer with the state of that one's where variables are alike.

    Loss functions are the same objects; the optimizer and the metrics are made again.

    Args:
        source: a compiled Keras model.
        target: the model to compile, which has all of the source's variables and more.
        origin: function from a variable of the target to the source's that it stands for; a new one, which starts with
            empty slots, to itself.
        like: function from a variable of the target to the source's after which it was made, or to itself: weight decay
            leaves both out, or none.

    Raises:
        ValueError: for an optimizer or a metric that cannot be made again.
    """
    check_supported(source.optimizer)
    arguments = dict(source._compile_config.config)  # as the user gave it: `get_compile_config` knows no lambda
    again = {name: keras.tree.map_structure(_again, arguments[name]) for name in ("metrics", "weighted_metrics")}
    # The source's loss is scaled already where it should be.
    target.compile(**arguments | again | {"optimizer": _optimizer_again(source.optimizer), "auto_scale_loss": False})
    leave_out_alike(source.optimizer, target.optimizer, [(variable, like(variable)) for variable in target.variables])
    target.optimizer.build(target.trainable_variables)
    if source.optimizer.built:
        _carry(_snapshot(source.optimizer), target.optimizer, origin)


def _optimizer_again(optimizer):
    try:
        return fresh_copy(optimizer)
    except Exception as error:  # a user's own may raise anything, and Keras refuses a lambda
        raise ValueError(
            f"The optimizer {optimizer.name!r} ({type(optimizer).__name__}) cannot be made again from its config "
            f"({' '.join(str(error).split())[:150] or type(error).__name__}): give it and its schedule a `get_config` "
            "that "
            "tells all arguments of their `__init__` (a schedule class in place of a lambda), or do this before you "
            "compile the model."
        ) from error


def _again(metric):
    if not isinstance(metric, keras.metrics.Metric):
        return metric
    try:
        return type(metric).from_config(metric.get_config())
    except Exception as error:  # a user's own may raise anything
        raise ValueError(
            f"The metric {metric.name!r} ({type(metric).__name__}) cannot be made again from its config: give it a "
            "`get_config` that tells all arguments of its `__init__`, or do this before you compile the model."
        ) from error


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


def _carry(before, optimizer, origin=lambda variable: variable):
    """Give the newly built optimizer the state that `before`, a snapshot, had of the same variables, or of their
    `origin`s."""
    known = {optimizer._var_key(v): index for index, v in enumerate(before["_trainable_variables"])}
    origins = [origin(variable) for variable in optimizer._trainable_variables]
    position = [None if one is None else known.get(optimizer._var_key(one)) for one in origins]
    carried = set()
    for name, value in list(vars(optimizer).items()):
        if isinstance(value, keras.Variable):
            carried.add(id(value))
            if before.get(name) is not value and isinstance(before.get(name), keras.Variable):
                _copy(before[name], value)
        elif isinstance(value, keras.optimizers.Optimizer):
            _carry(before[name], value, origin)
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
            f"{type(optimizer).__name__} keeps state that cannot be carried over when a group is unfrozen "
            f"({', '.join(left[:3])}, ...): "
            "keep one list entry a trainable variable, as Keras's own optimizers do."
        )


def _slots(optimizer):
    count = len(optimizer._trainable_variables)
    for name, value in vars(optimizer).items():
        listed = name not in _OWN_LISTS and isinstance(value, list) and len(value) == count
        if listed and all(slot is None or isinstance(slot, keras.Variable) for slot in value):
            yield name, value


def _copy(source, target):
    # Through numpy: on JAX two variables must not share a buffer that the step is about to give away.
    target.assign(np.array(source.numpy()))


@dataclasses.dataclass(frozen=True)
class Ramp:
    """Rise linearly over `steps` steps of the optimizer, of which `start` is the first: 1 / steps there, 1 at the last.

    A function of the optimizer's step count, so that one traced step serves the whole rise.
    """

    start: int
    steps: int

    def __call__(self, step):
        risen = keras.ops.cast(step - self.start + 1, "float32") / self.steps
        return keras.ops.clip(risen, 0.0, 1.0)


class _Scaling:
    """By what each variable's update is multiplied: a ratio, 1 unless told, and a ramp, if any."""

    def __init__(self, optimizer):
        self._optimizer, self.ratios, self.ramps = optimizer, {}, {}

    def of(self, variable):
        key = self._optimizer._var_key(variable)
        return self.ratios.get(key, 1.0), self.ramps.get(key)

    def scaled(self, rate, ratio, ramp):
        rate = rate * ratio
        return rate if ramp is None else rate * keras.ops.cast(ramp(self._optimizer._iterations), rate.dtype)


def scale_updates(optimizer, variables):
    """Multiply the update of each variable, and its decoupled weight decay, by a ratio.

    Args:
        optimizer: a Keras optimizer, built or not.
        variables: list of `(keras.Variable, ratio)`; a variable not listed has ratio 1. At ratio 0 nothing changes the
            variable.
    """
    optimizer = core(optimizer)
    _scaling(optimizer).ratios = {optimizer._var_key(variable): ratio for variable, ratio in variables}


def ramp_updates(optimizer, variables):
    """Multiply the update of each variable, and its decoupled weight decay, by a `Ramp`, beside any ratio.

    Args:
        optimizer: a Keras optimizer, built or not.
        variables: list of `(keras.Variable, Ramp)`; a variable not listed has none.
    """
    optimizer = core(optimizer)
    _scaling(optimizer).ramps = {optimizer._var_key(variable): ramp for variable, ramp in variables}


def _scaling(optimizer):
    """Return the scaling of an optimizer, put in place where there is none yet."""
    if found := vars(optimizer).get("kresnets_scaling"):
        return found
    cls, scaling = type(optimizer), _Scaling(optimizer)

    def update_step(gradient, variable, learning_rate):
        # The rate, not the gradient: Adam and its kin divide a gradient's scale away.
        ratio, ramp = scaling.of(variable)
        if ratio:
            cls.update_step(optimizer, gradient, variable, scaling.scaled(learning_rate, ratio, ramp))

    def apply_weight_decay(variables):
        # Keras decays by the one learning rate, which is therefore another one while each group decays. It asks for it
        # once for each variable, which would put a schedule's arithmetic a hundred times into each step.
        now, alike = functools.cache(lambda: cls._get_current_learning_rate(optimizer)), {}
        for variable in variables:
            alike.setdefault(scaling.of(variable), []).append(variable)
        for (ratio, ramp), members in alike.items():
            if ratio:
                optimizer._get_current_learning_rate = functools.cache(
                    lambda ratio=ratio, ramp=ramp: scaling.scaled(now(), ratio, ramp)
                )
                cls._apply_weight_decay(optimizer, members)
        optimizer._get_current_learning_rate = lambda: cls._get_current_learning_rate(optimizer)

    def update_averages(variables):
        cls._update_model_variables_moving_average(optimizer, variables)
        for variable, average in zip(optimizer._trainable_variables, getattr(optimizer, _AVERAGES), strict=True):
            if scaling.of(variable)[0] == 0 and average is not None:
                average.assign(variable)  # exactly: the average of a constant is rounded otherwise

    _set(
        optimizer,
        kresnets_scaling=scaling,
        update_step=update_step,
        _apply_weight_decay=apply_weight_decay,
        _update_model_variables_moving_average=update_averages,
    )
    return scaling


def unscale_updates(optimizer):
    """Take `scale_updates` and `ramp_updates` back."""
    names = (
        "kresnets_scaling",
        "kresnets_mark",
        "update_step",
        "_apply_weight_decay",
        "_update_model_variables_moving_average",
        "_get_current_learning_rate",
    )
    for name in names:
        vars(core(optimizer)).pop(name, None)


def ratio_of(optimizer, variable, step=None):
    """Return by what the update of a variable is multiplied, 1 where nothing was told; without a step, once risen."""
    scaling = vars(core(optimizer)).get("kresnets_scaling")
    ratio, ramp = scaling.of(variable) if scaling else (1.0, None)
    return ratio if ramp is None or step is None else ratio * float(keras.ops.convert_to_numpy(ramp(step)))


def fresh_copy(optimizer, rate=None):
    """Return an optimizer like another one, not built, at a constant learning rate; None for its own, or its
    schedule."""
    config = optimizer.get_config()
    if core(optimizer) is not optimizer:
        inner = fresh_copy(optimizer.inner_optimizer, rate)
        return type(optimizer)(inner, **{key: value for key, value in config.items() if key != "inner_optimizer"})
    made = type(optimizer).from_config(config if rate is None else {**config, "learning_rate": rate})
    for name in ("_exclude_from_weight_decay_pattern",):  # told by exclude_from_weight_decay, no part of the config
        if name in vars(optimizer):
            _set(made, **{name: vars(optimizer)[name]})
    return made


def leave_out_alike(source, target, variables):
    """Let weight decay leave out of an optimizer, not built yet, the variables that it leaves out of another one.

    (Those that `exclude_from_weight_decay` was told one by one; the names it was told are `fresh_copy`'s to copy.)

    Args:
        source, target: Keras optimizers.
        variables: list of `(variable of the target, its like of the source)`.
    """
    source, target = core(source), core(target)
    if left_out := vars(source).get("_exclude_from_weight_decay"):
        keys = {target._var_key(mine) for mine, its in variables if source._var_key(its) in left_out}
        _set(target, _exclude_from_weight_decay=keys)


def mark(optimizer):
    """Note the step and the learning rate at which an epoch begins, where all of our callbacks find it."""
    _set(core(optimizer), kresnets_mark=(steps(optimizer), learning_rate(optimizer)))


def marked(optimizer):
    """Return what `mark` noted last: `(step, learning rate)`."""
    return vars(core(optimizer))["kresnets_mark"]


def capture(model):
    """Return the state of a model and its optimizer, but for the learning rate, as a dict of arrays.

    The names say which weight of the model each array belongs to, so that `put_back` finds it in an optimizer that
    was rebuilt on more variables.
    """
    arrays = {f"weight/{index}": np.array(weight.numpy()) for index, weight in enumerate(model.weights)}
    return arrays | {name: np.array(variable.numpy()) for name, variable in _optimizer_state(model)}


def put_back(model, arrays, clock_too=False):
    """Give a model and its optimizer the state that `capture` returned; weights that it lacks, and variables that
    joined since, keep their own.

    The step count comes back too, to fit the slots, unless the learning rate is a schedule: its clock goes on, but for
    `clock_too`.
    """
    for index, weight in enumerate(model.weights):
        if f"weight/{index}" in arrays:
            _assign(weight, arrays[f"weight/{index}"])
    clock = core(model.optimizer)._iterations if has_schedule(model.optimizer) and not clock_too else None
    for name, variable in _optimizer_state(model):
        if name in arrays and variable is not clock:
            _assign(variable, arrays[name])


def _optimizer_state(model):
    """Yield `(name, variable)` of all that an optimizer keeps but the learning rate; slots by their weight's index."""
    optimizer = model.optimizer
    while optimizer is not None:
        kind = "inner/" if optimizer is not model.optimizer else ""
        index_of = {optimizer._var_key(weight): index for index, weight in enumerate(model.weights)}
        for name, value in vars(optimizer).items():
            if isinstance(value, keras.Variable) and value is not optimizer._learning_rate:
                yield f"{kind}{name}", value
        for name, slots in _slots(optimizer):
            for slot, variable in zip(slots, optimizer._trainable_variables, strict=True):
                if slot is not None:
                    yield f"{kind}{name}/{index_of[optimizer._var_key(variable)]}", slot
        optimizer = getattr(optimizer, "inner_optimizer", None)


def _assign(variable, array):
    # numpy's files know no bfloat16 and give bytes back.
    variable.assign(array.view(variable.numpy().dtype) if array.dtype.kind == "V" else array)


def _set(optimizer, **attributes):
    # Past TensorFlow's attribute tracking: functions are no state.
    vars(optimizer).update(attributes)
