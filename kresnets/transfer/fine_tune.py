"""`fine_tune`: the recipe, run."""

import dataclasses
import logging
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras

from kresnets import devices
from kresnets._util.types import Dataset, PathLike, Patterns
from kresnets.callbacks import LayerwiseLearningRate, Plateau, Progress, StagedUnfreezing
from kresnets.decoding import Decoding
from kresnets.groups import Layout, layout
from kresnets.keras_hooks.optimizer import check_scales, rebuild
from kresnets.preprocess import Preprocessing, preprocessing_for, set_preprocessing
from kresnets.runs.state import BestWeights, RunState, StopAtNaN, check_same_run, note_down, noted
from kresnets.task import set_task
from kresnets.transfer import notes
from kresnets.transfer.cache.choice import cached_fit, check_cache
from kresnets.transfer.checks import checked_class_weight, checked_data, decoding_of
from kresnets.transfer.head import solve
from kresnets.transfer.inputs import Batches, EpochSeeds, Preparation, is_dataset, rows_of
from kresnets.transfer.labels import LOSSES, Labels, first_labels
from kresnets.transfer.plan import Plan, make_plan
from kresnets.transfer.recipe import Recipe, optimizer_class
from kresnets.weights.origin import TRAINED, note, origin_of

_LOG = logging.getLogger("kresnets")
_SETS_THE_RATE = (keras.callbacks.ReduceLROnPlateau, keras.callbacks.LearningRateScheduler)
_BELOW_CHANCE = 0.9  # a share of the loss by chance; a tenth above it a stage counts as diverged


def fine_tune(
    model: keras.Model,
    train: Dataset,
    validation: Dataset = None,
    recipe: Recipe | Plan | None = None,
    cache: Any = "auto",
    callbacks: Sequence[keras.callbacks.Callback] = (),
    loss: Any = None,
    metrics: Any = None,
    *,
    preprocess: Any = None,
    task: str = "auto",
    groups: Patterns = None,
    class_weight: Mapping[int, float] | str | None = None,
    state_dir: PathLike | None = None,
    verbose: str | int = "auto",
    pretrained: bool | None = None,
    **deprecated: Any,
) -> keras.callbacks.History:
    """Fine-tune a model by a recipe: the head first, then the trunk, each earlier group at a smaller rate.

    Fields that the recipe leaves out are resolved by the data and the model, see `kresnets.plan`; the plan is logged as
    a table, and written to `plan.txt` in the `state_dir`.

    Preprocesses the images as the model's weights want, compiles, and runs one `model.fit` with `StagedUnfreezing`
    and `LayerwiseLearningRate`. Where the recipe waits for a plateau, the stages last as long as the validation loss
    improves, and `epochs` in the log are the most that there can be. A stage that ends with a
    higher training loss than it began with is undone, and training that ends while validation still improves says so.
    Afterwards the model has the weights that the recipe keeps (`Recipe.keep`), and its optimizer the peak rate of the
    last stage as a plain learning rate, the same for all that trains: a further `model.fit` (on preprocessed images)
    learns on; `LayerwiseLearningRate` gives the groups their own rates again. A loss or weights that are no numbers end
    the training at once.

    Args:
        model: a Keras model with its head on, from preprocessed images to scores: a softmax, sigmoids, or logits. One
            sigmoid unit speaks for the second of two classes.
        train: batches `(images, labels)` as a `tf.data.Dataset` or `keras.utils.PyDataset`, or a pair of arrays (32 a
            batch, shuffled). Images are RGB 0..255 `(batch, height, width, 3)` of the model's size. Labels are whole
            numbers `(batch,)`, or rows `(batch, classes)`: one-hot or soft ones that sum to 1, or, for
            `task="labels"`, a 1 for each label that an image has; or, for `task="numbers"`, numbers `(batch,)` or
            `(batch, numbers)`.
        validation: the same, or None. Defaults to None.
        recipe: a `kresnets.Recipe`, the `Plan` that `kresnets.plan` made of one for this very model and data, or None
            for `Recipe()`. Defaults to None.
        cache: whether what the frozen layers of a stage give is computed once and kept: `"auto"` where that saves time
            and changes nothing (so not under augmentation with `views=1`, nor mixup), True wherever the model can be
            cut, False nowhere; or a folder, as True, in which they are kept for later runs too. In memory up to a
            quarter of what is free, then in `state_dir` until the run ends. See `kresnets.FeatureCache`. Defaults to
            `"auto"`.
        callbacks: further Keras callbacks; they see the logs of the stages. Defaults to ().
        loss: a Keras loss in place of the cross-entropy that goes with the task and the labels: sparse, categorical,
            or binary for one output and for `task="labels"` (from logits, unless the model ends in a softmax or
            sigmoid, however that is said). Of numbers `"mse"` (what None is), `"mae"` or `"huber"`, each number in
            units of the `Rescaling` that ends the model, if one does. Defaults to None.
        metrics: list of Keras metrics. Defaults to None for the accuracy; of numbers the mean absolute error.
        preprocess: a mode or a `kresnets.Preprocessing`, for a model that carries none (`preprocessing_of`). Where the
            model carries another one, a warning names both, yours is used, and the model carries it from then on.
            Defaults to None, what the model carries.
        task: what the scores mean: `"classes"` (an image is of one), `"labels"` (it has each or not; trained by binary
            cross-entropy), `"numbers"` (regression), or `"auto"` for what the model's end, an earlier `fine_tune`
            (`kresnets.task_of`) and the labels tell. The model carries it from then on, beside its preprocessing, so
            that export knows. Defaults to `"auto"`.
        groups: for models that are not of kresnets, an ordered dict `{group: regex}`; see `kresnets.groups`. Defaults
            to None.
        class_weight: dict class -> weight, as in `model.fit`; or `"balanced"`: a class counts the more, the fewer
            images it has. Defaults to None.
        state_dir: folder in which the run's state is kept after each epoch, so that the same call, after an
            interruption at any moment, goes on where it was; at the end `schedule.toml` there says which stage took
            how long (see `Recipe.with_schedule`). Defaults to None.
        verbose: as in `model.fit`. Defaults to `"auto"`.
        pretrained: whether the trunk was trained, see `kresnets.plan`. Defaults to None, what the model tells.
        **deprecated: `epoch`, the variable that `train` reads (what `Part.batches` makes says it by itself; for a
            pipeline of your own give a callback that assigns it), and `initial_epoch` (now `Plan.begin`).

    Returns:
        A Keras `History` over all epochs, those before an interruption included, with three attributes more: `plan`,
        the `Plan`; `kept`, the epoch (from 0) whose weights the model has; and `notes`, a list of sentences about what
        went otherwise than planned.

    Raises:
        ValueError: for data, a model or a recipe that do not fit each other; the sentence says what is allowed.
        FloatingPointError: where the loss or a weight is no number any more; the sentence says since when, and what to
            try. The model has the weights of the last good epoch (those that it came with, where there is none). The
            same call with the same `state_dir` says it again.

    Example:
        >>> import kresnets, numpy as np
        >>> model = kresnets.CifarResNet20(classes=2)
        >>> images, labels = np.random.default_rng(0).integers(0, 256, (8, 32, 32, 3)), np.arange(8) % 2
        >>> recipe = kresnets.Recipe(head_epochs=1, stages=None, epochs_per_stage=1, batchnorm="frozen", augment="none")
        >>> history = kresnets.fine_tune(model, (images, labels), recipe=recipe, verbose=0)
        >>> history.history["trainable_parameters"]
        [130, 202882, 253570]
    """
    epoch, begin = _deprecated(deprecated)
    if isinstance(recipe, Plan):
        task, begin = recipe.facts.task if task == "auto" else task, begin or recipe.begin
    if begin and state_dir is not None:
        raise ValueError("A Plan with `begin` does not go with `state_dir`, which knows where to go on: leave one out.")
    wanted = preprocessing_for(model, preprocess)  # which warns whoever calls
    data = _checked(model, train, validation, callbacks, loss, wanted, task, groups, class_weight, state_dir)
    plan = _planned(model, data, recipe, pretrained, state_dir, loss)
    check_cache(cache, plan.recipe)
    run = _prepared(model, data, plan, cache, groups, loss, metrics, state_dir, begin, epoch, verbose)
    return _fitted(model, data, plan, run, verbose)


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Checked:
    """What `fine_tune` was given, once it is known to fit together."""

    train: Dataset
    steps: int
    validation: Dataset
    judging_steps: int
    labels: Labels
    preprocessing: Preprocessing
    layout: Layout
    class_weight: Mapping[int, float] | None
    callbacks: list[keras.callbacks.Callback]


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Prepared:
    """What `model.fit` is about to run; `compile` begins anew, with a rate."""

    batches: Any
    judged: Any
    cached: Any
    begin: int
    state: RunState | None
    unfreezing: StagedUnfreezing
    callbacks: list[keras.callbacks.Callback]
    division: devices.Division
    compile: Callable[[Any], None]


def _checked(model, train, validation, callbacks, loss, preprocessing, task, groups, class_weight, state_dir):
    callbacks = _checked_callbacks(callbacks)
    labels, (train, steps), (validation, judging_steps) = checked_data(
        model, train, validation, task, loss, preprocessing
    )
    if (decoding := decoding_of(train, validation)) is not None:
        preprocessing = dataclasses.replace(preprocessing, decoding=decoding)
        _check_decoding(state_dir, decoding)
    return _Checked(
        train=train, steps=steps, validation=validation, judging_steps=judging_steps, labels=labels,
        preprocessing=preprocessing, layout=layout(model, groups), callbacks=callbacks,
        class_weight=checked_class_weight(class_weight, train, labels),
    )  # fmt: skip


def _planned(model, data, recipe, pretrained, state_dir, loss):
    """Return the plan, of a recipe that these data and callbacks can follow."""
    if not isinstance(recipe, Plan):
        if pretrained is None and state_dir is not None:
            pretrained = noted(state_dir, "pretrained")  # as it was when the run began
        learned, judged = (data.train, data.steps), (data.validation, data.judging_steps)
        plan = make_plan(model, data.layout, data.labels, learned, judged, recipe, pretrained, loss)
    elif recipe.facts.steps != data.steps:
        raise ValueError(
            f"`recipe` is a Plan made for {recipe.facts.steps} steps an epoch, and `train` has {data.steps}: make it "
            "of these data."
        )
    else:
        plan = recipe
    for callback in data.callbacks:
        if plan.recipe.rate == "cosine" and isinstance(callback, _SETS_THE_RATE):
            raise ValueError(
                f"`callbacks` has a {type(callback).__name__}, which cannot set a rate that follows a cosine: leave it "
                "out, or give a Recipe with schedule='constant'."
            )
    StagedUnfreezing(plan.schedule, plan.recipe.batchnorm).check(data.layout)
    if plan.schedule.listens and data.validation is None:
        raise ValueError(
            "The recipe's stages listen to the validation: give `validation`, or a Recipe with advance='epochs' and "
            "restore_best=False."
        )
    return plan


def _prepared(model, data, plan, cache, groups, loss, metrics, state_dir, begin, epoch, verbose):
    how, labels = plan.recipe, data.labels
    if loss is None and (how.label_smoothing or how.mixup):
        labels = labels.as_rows()

    def compile_with(rate):
        _compile(model, plan, rate, labels, loss, metrics)

    compile_with(plan.learning_rate())
    unfreezing = StagedUnfreezing(plan.schedule, how.batchnorm, groups, folder=state_dir)
    state = None
    if state_dir is not None:
        check_same_run(state_dir, _description(plan, model, data, loss, metrics))
        state = RunState(state_dir, unfreezing.stage_of)
        unfreezing.recall(state.rows)
    begins = begin if state is None else state.initial_epoch
    division = devices.Division.of(model)
    learning, judging = _preparations(how, data.preprocessing, labels, data.validation, division)
    batches, clock = _training_batches(data.train, learning, how.seed)
    if how.head == "solved" and not begin:
        unfreezing.schedule = dataclasses.replace(
            plan.schedule, enters=_solved(model, data, plan, learning, state, begins)
        )
    cached = cached_fit(
        cache, model, data.layout, unfreezing, how, (data.train, data.validation), (learning, judging),
        (data.steps, data.judging_steps), data.preprocessing.as_data(), state_dir, verbose,
    )  # fmt: skip
    epoch = getattr(rows_of(data.train), "epoch", None) if epoch is None else epoch
    clocks = [one for one in (clock, epoch, cached) if one is not None]
    # Keras would put the bar last, where it also has a dozen learning rates to show.
    bar = [keras.callbacks.ProgbarLogger()] if verbose and not any(map(_is_bar, data.callbacks)) else []
    stop = StopAtNaN(unfreezing.stage_of, notes.advice(model, plan, loss), state)
    over = state is not None and _is_over(unfreezing, state)
    return _Prepared(
        batches=batches,
        judged=None if data.validation is None else _judged_batches(data.validation, judging),
        cached=cached,
        begin=plan.epochs if over else begins,
        state=state,
        unfreezing=unfreezing,
        callbacks=[*bar, stop, *_callbacks(plan, unfreezing, state, groups, clocks), *data.callbacks],
        division=division,
        compile=compile_with,
    )


def _fitted(model, data, plan, run, verbose):
    _say_plan(plan, run.state)
    _carry(model, data)
    try:
        with devices.in_shares(model, run.division, run.batches, run.judged, data.class_weight) as shares:
            batches, judged, class_weight = shares
            history = (run.cached or model).fit(
                batches,
                epochs=plan.epochs,
                initial_epoch=run.begin,
                validation_data=judged,
                callbacks=run.callbacks,
                class_weight=class_weight,
                shuffle=False,
                verbose=verbose,
            )
    except FloatingPointError:  # the optimizer's state is no good either
        run.compile(plan.stages[0].peak)
        raise
    if run.state is not None and devices.is_first():
        progress = Progress.replay(run.unfreezing.schedule, run.state.rows)
        progress.happened().write(run.state.folder / "schedule.toml")
    if origin_of(model) is None:
        note(model, TRAINED)
    history = _whole_history(history, run.state)
    if plan.recipe.rate == "cosine":  # which has ended at 0
        last = max(history.epoch, default=0)
        rebuild(model, next(stage.peak for stage in reversed(plan.stages) if stage.first_epoch <= last))
    best = next((one.epoch for one in run.callbacks if isinstance(one, BestWeights)), None)
    history.kept = max(history.epoch, default=-1) if best is None else best
    history.plan, history.notes = plan, notes.of(plan, run.unfreezing.schedule, history)
    for sentence in history.notes:
        _LOG.warning(sentence)
    return history


def _carry(model, data):
    """Have the model say how its images are to be prepared and what its scores mean: before the first file is written,
    since from now on the weights learn to want them."""
    decoding = data.preprocessing.decoding
    if not set_preprocessing(model, data.preprocessing) and decoding not in (None, Decoding()):
        _LOG.warning(
            "%r cannot carry how its images are decoded: give exports preprocess=kresnets.Preprocessing(%r, decoding="
            "data.decoding).", model.name, data.preprocessing.mode,
        )  # fmt: skip
    set_task(model, data.labels.scores.task)


def _checked_callbacks(callbacks):
    if isinstance(callbacks, keras.callbacks.CallbackList):
        callbacks = callbacks.callbacks
    callbacks = [] if callbacks is None else list(callbacks) if isinstance(callbacks, (list, tuple)) else [callbacks]
    for callback in callbacks:
        if isinstance(callback, (StagedUnfreezing, LayerwiseLearningRate)):
            raise ValueError(
                f"`callbacks` has a {type(callback).__name__}, which the recipe brings already: say it in the recipe."
            )
    return callbacks


def _check_decoding(state_dir, decoding):
    """Refuse to go on with a run of before decoding was noted on images that are decoded otherwise than then."""
    older = state_dir is not None and noted(state_dir, "recipe") is not None and noted(state_dir, "decoding") is None
    if older and decoding != Decoding.before():
        raise ValueError(
            f"{state_dir} holds the state of a run of an older version, which decoded images in its own way: load them "
            "by load_data(..., decoding=kresnets.Decoding.before()) to go on with it, or give another folder."
        )


def _description(plan, model, data, loss, metrics):
    """Return what makes a run this one, so that no other one is gone on with."""
    return {
        "recipe": plan.recipe.as_data(),
        "stages": [[stage.group, stage.epochs] for stage in plan.stages],
        "network": [v.path for v in model.weights],
        "batches": plan.facts.steps,
        "preprocess": {name: value for name, value in data.preprocessing.as_data().items() if name != "decoding"},
        "decoding": str(data.preprocessing.decoding),
        "class_weight": str(data.class_weight),
        "loss": str(loss),
        "metrics": str(metrics),
        "pretrained": plan.facts.pretrained,
        "task": plan.facts.task,
    }


def _deprecated(given):
    """Return `epoch` and `initial_epoch`, with a warning where one is given still."""
    instead = {
        "epoch": "`train` says it where it comes from `Part.batches(epoch=)`; else give a callback that assigns it",
        "initial_epoch": "give a Plan with it: dataclasses.replace(plan, begin=...)",
    }
    for name in given:
        if name not in instead:
            raise TypeError(f"fine_tune() got an unexpected keyword argument {name!r}")
        warnings.warn(f"fine_tune({name}=) will go: {instead[name]}.", DeprecationWarning, stacklevel=3)
    return given.get("epoch"), given.get("initial_epoch", 0)


def _preparations(recipe, preprocessing, labels, validation, division):
    """Return what turns a batch into what the model trains on, and into what it is judged by."""
    # Of several processes each prepares its own share, and draws numbers of its own for it.
    share = division if division.processes > 1 else None
    seed = recipe.seed * division.processes + division.process
    learning = Preparation(preprocessing, labels, recipe.augment, recipe.mixup, seed, share)
    judged = labels if validation is None else labels.like(first_labels(validation))
    return learning, Preparation(preprocessing, judged, share=share)


def _callbacks(plan, unfreezing, state, groups, clocks):
    """Return the callbacks of a plan, in the order in which they have to stand."""
    recipe = plan.recipe
    averages = None if recipe.ema is None else keras.callbacks.SwapEMAWeights(swap_on_epoch=True)
    run = [
        EpochSeeds(recipe.seed, clocks),
        # First of those that log, so that the state's history has its columns.
        LayerwiseLearningRate(recipe.ratio, groups),
        state,
        # After the state, which keeps the weights that learn; before the unfreezing, which rebuilds their averages.
        averages,
        unfreezing,
        _ConstantRates({stage.group: stage.peak for stage in plan.stages}, unfreezing)
        if recipe.rate == "constant"
        else None,
        BestWeights(state, averages, recipe.monitor, Plateau(recipe.monitor).rises())
        if recipe.keep == "best"
        else None,
    ]
    return [callback for callback in run if callback is not None]


class _ConstantRates(keras.callbacks.Callback):
    """Set the learning rate where a stage begins; between, it belongs to whoever else sets it.

    Args:
        rates: dict of stage -> rate.
        unfreezing: the `StagedUnfreezing` that stands before this one.
    """

    def __init__(self, rates, unfreezing):
        super().__init__()
        self._rates, self._unfreezing = rates, unfreezing

    def on_epoch_begin(self, epoch, logs=None):
        if epoch == self._unfreezing.progress.starts[-1]:
            self.model.optimizer.learning_rate = self._rates[self._unfreezing.stage_of(epoch)]


def _is_over(unfreezing, state):
    # It may have been cut off after the last plateau and before anything noted the end.
    return state.done or Progress.replay(unfreezing.schedule, state.rows, state.initial_epoch).finished


def _compile(model, plan, rate, labels, loss, metrics):
    recipe = plan.recipe
    if labels.scores.numbers and loss in (None, *LOSSES):
        loss = labels.loss(of_numbers=loss or LOSSES[0])
    loss = labels.loss(recipe.label_smoothing) if loss is None else loss
    config = {"learning_rate": rate}
    if recipe.weight_decay is not None:
        config["weight_decay"] = recipe.weight_decay
    if recipe.momentum is not None:
        config["momentum"] = recipe.momentum
    if recipe.ema is not None:
        config |= {"use_ema": True, "ema_momentum": recipe.ema}
    strategy = getattr(model, "distribute_strategy", None)
    if strategy is None:
        optimizer = _optimizer(recipe.optimizer, config)
    else:
        with strategy.scope():
            optimizer = _optimizer(recipe.optimizer, config)
    check_scales(optimizer, [recipe.ratio, plan.schedule.ramp and 0.5])
    model.compile(optimizer, loss=loss, metrics=labels.metrics(recipe.monitor) if metrics is None else metrics)


def _optimizer(name, config):
    optimizer = optimizer_class(name)(**config)
    # Decay pulls kernels towards 0; norms and biases have no reason to go there (arXiv 1812.01187 section 3.1).
    optimizer.exclude_from_weight_decay(var_names=["gamma", "beta", "bias"])
    return optimizer


def _solved(model, data, plan, learning, state, begins):
    """Solve the head where the run begins; return a loss that its first stage has to stay below, if one is known."""
    if begins:
        by_chance = noted(state.folder, "loss_by_chance")
    else:
        by_chance = _solve(model, data, plan, learning.plain())
        if state is not None:
            note_down(state.folder, "loss_by_chance", by_chance)
    return by_chance and _BELOW_CHANCE * by_chance


def _solve(model, data, plan, prepare):
    if not plan.facts.solvable:
        raise ValueError(
            f"Recipe(head='solved'): the head of {model.name!r} is not one Dense layer with softmax or logits, or one "
            "sigmoid, on the trunk's features, or the `loss` is your own: give Recipe(head='trained')."
        )
    batches = _judged_batches(data.train, prepare)
    one_pass = batches if is_dataset(data.train) else (batches[index] for index in range(len(batches)))
    strength, loss_by_chance = solve(model, data.layout, one_pass, prepare.labels.numbers, data.class_weight)
    _LOG.info("The head was solved on %d images, C = %g by folds.", plan.facts.images, strength)
    return loss_by_chance


def _judged_batches(source, prepare):
    return prepare.dataset(source) if is_dataset(source) else Batches(source, prepare)


def _training_batches(train, learning, seed):
    """Return what `fit` takes, and what must know the epoch."""
    if not is_dataset(train):
        batches = Batches(train, learning, seed)
        return batches, batches
    from kresnets.data.part import epoch_variable

    clock = epoch_variable()
    return learning.dataset(train, clock), clock


def _is_bar(callback):
    return isinstance(callback, keras.callbacks.ProgbarLogger)


def _say_plan(plan, state):
    table = plan.table()
    if state is not None:
        state.write("plan.txt", lambda path: path.write_text(table + "\n", encoding="utf-8"))
    _LOG.info("%s", table)
    if state is not None and state.initial_epoch:
        _LOG.info("Going on at epoch %d.", state.initial_epoch + 1)


def _whole_history(history, state):
    if state is not None:
        history.epoch = [row["epoch"] for row in state.rows]
        columns = dict.fromkeys(key for row in state.rows for key in row if key not in ("epoch", "stage"))
        history.history = {key: [row[key] for row in state.rows if key in row] for key in columns}
    return history
