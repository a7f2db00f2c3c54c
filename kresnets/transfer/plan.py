"""What a recipe comes to for a model and its data: its stages, in epochs, steps and rates."""

import dataclasses
from typing import Any

import keras
import numpy as np

from kresnets._util.checks import is_whole
from kresnets._util.types import Dataset, Patterns
from kresnets.callbacks import StagedUnfreezing
from kresnets.callbacks.schedule import Plateau, Schedule
from kresnets.groups import Layout, layout
from kresnets.transfer.checks import checked_data
from kresnets.transfer.default import RULE, Facts, default_fields
from kresnets.transfer.head import solvable
from kresnets.transfer.inputs import is_dataset, rows_of
from kresnets.transfer.labels import Labels
from kresnets.transfer.lr_schedule import StagedCosine
from kresnets.transfer.recipe import Recipe
from kresnets.weights.origin import is_pretrained

_COUNTED = 32  # batches up to which a dataset's images are counted one by one


@dataclasses.dataclass(frozen=True, kw_only=True)
class Stage:
    """A stage of a plan.

    Args:
        group: the group or block from which on layers learn.
        first_epoch: its first epoch, from 0; the latest that can be, where stages wait for a plateau.
        epochs: how many it takes, at most.
        steps: the same in steps.
        peak: the highest learning rate of the head in it.
        rates: dict group -> peak learning rate, that of the head times the group's ratio; 0 where nothing learns. The
            rate in an epoch: `Plan.rate`.
    """

    group: str
    first_epoch: int
    epochs: int
    steps: int
    peak: float
    rates: dict[str, float]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    """A recipe with every field resolved, and what it comes to.

    Args:
        recipe: a `kresnets.Recipe` without `"auto"`.
        facts: what it was resolved by.
        given: names of the fields that the user gave.
        schedule: what is unfrozen when, for `StagedUnfreezing`.
        stages: tuple of `Stage`: the same, in epochs, steps and rates.
        begin: epoch at which `fine_tune` begins, for who brings the state of those before it (`dataclasses.replace`;
            with a `state_dir` it knows by itself). Defaults to 0.

    Example:
        >>> import kresnets, numpy as np
        >>> data = np.zeros((40, 32, 32, 3)), np.arange(40) % 2
        >>> plan = kresnets.plan(kresnets.CifarResNet20(classes=2), data)
        >>> plan.facts.images, plan.facts.pretrained, plan.recipe.batchnorm
        (40, False, 'train')
    """

    recipe: Recipe
    facts: Facts
    given: tuple[str, ...]
    schedule: Schedule
    stages: tuple[Stage, ...]
    begin: int = 0

    @property
    def epochs(self) -> int:
        """Number of epochs in all; the most that there can be, where stages wait for a plateau."""
        return sum(stage.epochs for stage in self.stages)

    def lasting(self, epochs: int) -> "Plan":
        """Return the same plan with its stages shortened or lengthened in proportion, to so many epochs in all.

        Args:
            epochs: whole number, at least 1 for each stage.

        Raises:
            ValueError: for fewer, and where a stage waits for a plateau.

        Example:
            >>> import kresnets, numpy as np
            >>> data = np.zeros((40, 32, 32, 3)), np.arange(40) % 2
            >>> plan = kresnets.plan(kresnets.CifarResNet20(classes=2), data, recipe=kresnets.Recipe.textbook())
            >>> [(stage.group, stage.epochs) for stage in plan.lasting(5).stages]
            [('head', 2), ('stage3', 2), ('stage2', 1)]
        """
        if self.schedule.waits:
            raise ValueError("Stages that wait for a plateau last as long as it takes: give `max_epochs_per_stage`.")
        least = len(self.stages)
        if not is_whole(epochs, least):
            each = f"at least {least}, 1 for each stage ({', '.join(stage.group for stage in self.stages)})"
            raise ValueError(f"`epochs` must be a whole number, {each}. Received: {epochs!r}")
        lengths, rest = _in_proportion([stage.epochs for stage in self.stages], epochs), self.schedule.stages
        stages = tuple((group, _of_length(before, length)) for (group, before), length in zip(rest, lengths))
        schedule = dataclasses.replace(self.schedule, stages=stages)
        given = tuple(dict.fromkeys((*self.given, "epochs")))
        return dataclasses.replace(
            self, given=given, schedule=schedule, stages=_stages(self.recipe, self.facts, schedule)
        )

    def learning_rate(self) -> Any:
        """Return the rate that the optimizer gets, which is the head's: a `StagedCosine`, or the first stage's peak."""
        if self.recipe.rate != "cosine":
            return self.stages[0].peak
        starts = [stage.first_epoch * self.facts.steps for stage in self.stages]
        return StagedCosine(
            starts, [stage.peak for stage in self.stages], self.epochs * self.facts.steps, self.recipe.warmup
        )

    def rate(self, group: str, epoch: int) -> float:
        """Return the learning rate of a group in the middle step of an epoch, as the history will show it.

        It is the head's (`learning_rate`) times the group's ratio (`LayerwiseLearningRate`); 0 while it is frozen.
        A `Recipe.ramp` and callbacks of one's own come on top.

        Args:
            group: one of `facts.groups`.
            epoch: from 0.

        Raises:
            ValueError: for another group or epoch, and where stages wait for a plateau: their history tells.

        Example:
            >>> import kresnets, numpy as np
            >>> data = np.zeros((40, 32, 32, 3)), np.arange(40) % 2
            >>> plan = kresnets.plan(kresnets.CifarResNet20(classes=2), data, recipe=kresnets.Recipe.textbook())
            >>> plan.rate("stage2", 2), f"{plan.rate('head', 4) / plan.rate('stage3', 4):.2f}"
            (0.0, '2.00')
        """
        if self.schedule.waits:
            raise ValueError("Stages that wait for a plateau have no rate before they begin: see the history.")
        if group not in self.facts.groups or not is_whole(epoch, 0) or epoch >= self.epochs:
            raise ValueError(
                f"`group` must be one of {', '.join(self.facts.groups)} and `epoch` from 0 to {self.epochs - 1}. "
                f"Received: {group!r}, {epoch!r}"
            )
        stage = next(stage for stage in reversed(self.stages) if stage.first_epoch <= epoch)
        rate, middle = self.learning_rate(), (2 * epoch + 1) * self.facts.steps // 2
        heads = float(rate(middle)) if callable(rate) else stage.peak
        return heads * stage.rates[group] / stage.peak if stage.peak else 0.0

    def table(self) -> str:
        """Return the plan as lines of text to read."""
        rows = self.rows()
        widths = [max(map(len, column)) for column in zip(*rows)]
        lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in rows]
        return "\n".join([*self.sentences(), *lines])

    def rows(self) -> list[tuple[str, ...]]:
        """Return the stages as rows of text, the first of headings."""
        groups = self.facts.groups[::-1]
        head = ("stage", "epochs", "steps", *(f"rate of {group}" for group in groups))
        at_most = "up to " * (self.recipe.advance == "plateau")
        return [head] + [
            (
                stage.group,
                f"{at_most}{stage.epochs}",
                f"{at_most}{stage.steps}",
                *(f"{stage.rates[group]:.3g}" if stage.rates[group] else "frozen" for group in groups),
            )
            for stage in self.stages
        ]

    def sentences(self) -> list[str]:
        """Return what the stages do not say, a sentence a line."""
        facts, recipe = self.facts, self.recipe
        head = (
            "begins as the logistic regression on the trunk's features"
            if recipe.head == "solved"
            else "begins at random"
        )
        kept = "the last epoch"
        if recipe.keep == "best" and facts.validation:
            kept = "the epoch with the lowest validation loss"
            if recipe.monitor != "val_loss":
                kept = (
                    f"the epoch with the {'highest' if Plateau(recipe.monitor).rises() else 'lowest'} {recipe.monitor}"
                )
        average = "" if recipe.ema is None else f", as a moving average of momentum {recipe.ema:g}"
        changed = "as they are" if recipe.augment == "none" else f"changed ({recipe.augment_told})"
        copies: Any = recipe.views
        views = f", {copies} copies of each" if copies > 1 else ", anew in each epoch"
        mixed = f", mixup {recipe.mixup:g}" * bool(recipe.mixup)
        smoothed = f", labels smoothed by {recipe.label_smoothing:g}" * bool(recipe.label_smoothing)
        given = f" Given: {', '.join(self.given)}; the rest is" if self.given else " All of it is"
        alone = any(stage.group == facts.groups[-1] for stage in self.stages)
        # A range test gives both rates.
        idle = {"learning_rate", "trunk_learning_rate"} & set(self.given) == {"learning_rate"} and not alone
        return [
            f"{facts.images} images to learn from, {facts.steps} steps an epoch, {facts.validation or 'none'} to "
            f"validate with, {facts.classes} {facts.task if facts.classes > 1 else facts.task[:-1]}.",
            f"The trunk, which is all below the head, is taken for {'pretrained' if facts.pretrained else 'fresh'}: "
            f"{facts.why} (`pretrained` says otherwise).",
            f"The head {head}.",
            f"Images are taken {changed}{views * (recipe.augment != 'none')}{mixed}{smoothed}; the trunk's norms "
            f"{'stay frozen' if recipe.batchnorm == 'frozen' else 'learn'}; {recipe.optimizer}, {recipe.rate} rate.",
            f"Kept: {kept}{average}.{given} by the default, rule {RULE} (kresnets.readthedocs.io/default).",
            *["`learning_rate` plays no role: no stage trains the head alone."] * idle,
        ]

    def as_data(self) -> dict[str, Any]:
        """Return the plan as JSON can hold it."""
        stages = [dataclasses.asdict(stage) for stage in self.stages]
        facts = dataclasses.asdict(self.facts)
        return {"rule": RULE, "recipe": self.recipe.as_data(), "facts": facts, "given": self.given, "stages": stages}


def plan(
    model: keras.Model,
    train: Dataset,
    validation: Dataset = None,
    recipe: Recipe | None = None,
    *,
    pretrained: bool | None = None,
    groups: Patterns = None,
    loss: Any = None,
    task: str = "auto",
) -> Plan:
    """Resolve a recipe for a model and its data, as `fine_tune` does; nothing is trained.

    Args:
        model: as of `fine_tune`.
        train: as of `fine_tune`. The images of a `tf.data.Dataset` of one's own of up to 32 batches are counted one by
            one, which reads them once; a longer one's by the size of its first batch.
        validation: as of `fine_tune`. Defaults to None.
        recipe: a `kresnets.Recipe`, or None for `Recipe()`. Defaults to None.
        pretrained: whether the trunk was trained; None for what the model tells: a tag or file that its weights came
            from, else the statistics of its norms. Defaults to None.
        groups: as of `fine_tune`. Defaults to None.
        loss: as of `fine_tune`. Defaults to None.
        task: as of `fine_tune`. Defaults to `"auto"`.

    Returns:
        A `Plan`; `print(plan.table())` shows it, and `fine_tune` takes it as its recipe.

    Raises:
        ValueError: for data or a recipe that is none.

    Example:
        >>> import kresnets, numpy as np
        >>> model = kresnets.CifarResNet20(classes=2)
        >>> data = np.zeros((40, 32, 32, 3)), np.arange(40) % 2
        >>> [stage.group for stage in kresnets.plan(model, data, recipe=kresnets.Recipe(head_epochs=2)).stages]
        ['head', 'stem']
    """
    labels, learned, judged = checked_data(model, train, validation, task, loss)
    model_layout = layout(model, groups)
    made = make_plan(model, model_layout, labels, learned, judged, recipe, pretrained, loss)
    StagedUnfreezing(made.schedule, made.recipe.batchnorm, groups).check(model_layout)
    return made


def check_stages(recipe: Recipe, model_layout: Layout) -> None:
    """Hold a recipe's stages against a model's groups and blocks, before any image is looked at.

    Raises:
        ValueError: for a stage that the model does not have, or that comes too early.
    """
    facts = Facts(groups=model_layout.names, images=1, steps=1, validation=0, classes=2, pretrained=True, why="")
    recipe = resolve(recipe, facts).recipe
    StagedUnfreezing(recipe.staging(model_layout.names), recipe.batchnorm).check(model_layout)


def make_plan(
    model: keras.Model,
    model_layout: Layout,
    labels: Labels,
    train: tuple[Dataset, int],
    validation: tuple[Dataset, int],
    recipe: Recipe | None,
    pretrained: bool | None,
    loss: Any,
) -> Plan:
    """Resolve a recipe for a model and data that have been checked, see `plan`.

    Args:
        model: as of `plan`.
        model_layout: its `kresnets.groups.Layout`.
        labels: the `Labels` of the training data.
        train: pair of a source and its number of batches.
        validation: the same, or `(None, 0)`.
        recipe, pretrained, loss: as of `plan`.
    """
    recipe = Recipe() if recipe is None else recipe
    if labels.scores.numbers and isinstance(recipe, Recipe) and recipe.label_smoothing not in (0, 0.0, "auto"):
        raise ValueError("Recipe: `label_smoothing` is of classes and labels, and these are numbers: leave it out.")
    if not isinstance(recipe, Recipe):
        raise ValueError(f"`recipe` must be a kresnets.Recipe. Received: {recipe!r}")
    if pretrained not in (None, True, False):
        raise ValueError(f"`pretrained` must be True, False or None. Received: pretrained={pretrained!r}")
    known, why = is_pretrained(model)
    if pretrained is not None:
        known, why = pretrained, "as was said"
    facts = Facts(
        groups=tuple(model_layout.names),
        images=_images(*train),
        steps=train[1],
        validation=0 if validation[0] is None else _images(*validation),
        classes=labels.classes,
        pretrained=bool(known),
        why=why,
        solvable=loss is None and labels.scores.task == "classes" and solvable(model, model_layout) is not None,
        task=labels.scores.task,
    )
    made = resolve(recipe, facts)
    if made.recipe.augment != "none" and model.input_shape[-1] != 3:
        from kresnets.data.augment import check_channels

        check_channels(made.recipe.augment, model.input_shape[-1])
    return made


def resolve(recipe: Recipe, facts: Facts) -> Plan:
    """Return the `Plan` of a `Recipe` under `Facts`: a pure function of both."""
    missing = {name: value for name, value in default_fields(recipe, facts).items() if recipe.is_auto(name)}
    default = Recipe()
    names = [field.name for field in dataclasses.fields(Recipe)]
    given = tuple(name for name in names if name != "seed" and getattr(recipe, name) != getattr(default, name))
    resolved = dataclasses.replace(recipe, **missing)
    schedule = dataclasses.replace(resolved.staging(facts.groups), undo=True)
    return Plan(recipe=resolved, facts=facts, given=given, schedule=schedule, stages=_stages(resolved, facts, schedule))


def _in_proportion(lengths, total):
    """Return whole numbers from 1 that add up to `total`, in the proportion of `lengths` as far as that goes."""
    free, whole = total - len(lengths), sum(lengths)
    shares = [1 + free * length / whole for length in lengths]
    found = [int(share) for share in shares]
    for place in sorted(range(len(shares)), key=lambda place: found[place] - shares[place])[: total - sum(found)]:
        found[place] += 1
    return found


def _of_length(before, epochs):
    """Return a stage's length, see `Schedule`, with another number of epochs."""
    return dataclasses.replace(before, max_epochs=epochs) if isinstance(before, Plateau) else epochs


def _stages(recipe, facts, schedule):
    stages, epoch = [], 0
    for index, ((name, _), peak) in enumerate(zip(schedule.stages, recipe.peaks(facts.groups).values())):
        epochs = schedule.most_epochs(index)
        rates = _rates(name, peak, recipe.ratio, facts.groups)
        stages.append(
            Stage(group=name, first_epoch=epoch, epochs=epochs, steps=epochs * facts.steps, peak=peak, rates=rates)
        )
        epoch += epochs
    return tuple(stages)


def _rates(name, peak, ratio, groups):
    # A stage may begin at a block: its group learns, in part.
    group = name if name in groups else name.rpartition("_block")[0]
    start = groups.index(group) if group in groups else 0
    return {
        one: peak * ratio ** (len(groups) - 1 - place) if place >= start else 0.0 for place, one in enumerate(groups)
    }


def _images(source, steps):
    """Count the images of a source of so many batches."""
    if isinstance(source, tuple):
        return len(source[0])
    if not is_dataset(source):
        first = len(source[0][1])
        return first if steps == 1 else (steps - 1) * first + len(source[steps - 1][1])
    if (rows := rows_of(source)) is not None:
        return len(rows.part)
    if steps <= _COUNTED:
        return sum(int(np.shape(batch[1])[0]) for batch in source)
    return steps * next(int(np.shape(batch[1])[0]) for batch in source.take(1))
