"""What a search hands over: its winner, where that is better than what it began with by more than noise."""

import dataclasses
import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from kresnets.transfer.default import RULE
from kresnets.transfer.plan import resolve
from kresnets.transfer.recipe import Recipe
from kresnets.tuning.records import FAILED, RUNNING

LEVEL = 1 / 6  # how often chance exceeds one standard error
# Splits of the same images share most of what they train on: the corrected variance of Nadeau and Bengio (2003,
# "Inference for the generalization error"), for five folds, each of which validates on a quarter of what it trains on.
_SHARED = 0.25
ACCURACY = "val_accuracy"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Choice:
    """What is handed over, and why.

    Args:
        record: of the trial that is handed over, as of `read_records`; None where none was completed.
        sentence: why, for people.
        compared: whether there was a trial to compare with, `record["default"]`.
        gain: mean gain of the best trial over it, above 0 for better; None where nothing was compared.
        error: standard error of that.
        needed: the gain that it had to exceed.
    """

    record: dict | None
    sentence: str
    compared: bool = False
    gain: float | None = None
    error: float | None = None
    needed: float | None = None


def choose(records: Sequence[Mapping[str, Any]], objective: Any, validation: int | None = None) -> Choice:
    """Choose between what a search began with and the best of its trials.

    A trial is compared split by split with the one that the search began with. It is handed over if its mean gain in
    the objective exceeds t standard errors, and that in accuracy, where it is measured, one: a lower loss alone may be
    no more than less confidence. t is Student's for as many splits, such that if all trials were as good as the one
    that the search began with, chance would have one of them handed over in one search of six (for one trial that is
    about one standard error). Of a single split the standard error is taken for that of so many images whose losses
    vary as much as they are large, and for accuracy that of a share.

    Args:
        records: what `read_records` returns.
        objective: a `keras_tuner.Objective`.
        validation: number of validation images, for a single split; None takes any gain there. Defaults to None.

    Returns:
        A `Choice`.

    Example:
        >>> import keras_tuner
        >>> from kresnets.tuning.choice import choose
        >>> same = {"status": "completed", "whole": True, "values": {}, "measures": []}
        >>> first = same | {"trial_id": "0", "default": True, "score": 0.5, "scores": [0.5, 0.4, 0.6]}
        >>> other = same | {"trial_id": "1", "default": False, "score": 0.2, "scores": [0.2, 0.1, 0.31]}
        >>> choose([first, other], keras_tuner.Objective("val_loss", "min")).record["trial_id"]
        '1'
    """
    sign = 1 if objective.better_than(1, 0) else -1
    ended = [record for record in records if record["status"] not in (FAILED, RUNNING) and record["score"] is not None]
    whole = [record for record in ended if record["whole"]]

    def rank(record):
        return -sign * (statistics.mean(record["scores"]) if record["scores"] else record["score"]), record["trial_id"]

    others = sorted((record for record in whole if not record["default"]), key=rank)
    default, best = next((record for record in records if record["default"]), None), others[0] if others else None
    if default is None:
        sentence = f"The best trial is {best['trial_id']}." if best else "No trial was completed."
        return Choice(record=best, sentence=sentence)
    if default not in whole:
        why = "failed, so that there is nothing to compare with" if default["status"] == FAILED else "has not ended yet"
        sentence = f"Trial {default['trial_id']}, with which the search began, {why}."
        return Choice(record=best, sentence=sentence, compared=True)
    name = objective.name
    better = [record for record in others if statistics.mean(_gains(record["scores"], default["scores"], sign)) > 0]
    fair = [record for record in better if name == ACCURACY or _is_surer(record, default, validation)]
    if not fair:
        sentence = f"No trial did better in {name} than the first."
        if better:
            number = better[0]["trial_id"]
            sentence = f"Trial {number} did better in {name} than the first, but gained no accuracy above noise."
        return Choice(record=default, sentence=sentence, compared=True)
    count = sum(not record["default"] for record in ended)
    choices = [_compared(record, default, count, objective, sign, validation) for record in fair]
    return next((choice for choice in choices if choice.record is not default), choices[0])


def differing(recipe: Any, facts: Any) -> dict[str, Any]:
    """Return what a file has to say for a recipe to come back from it.

    Args:
        recipe: a `Recipe` without `"auto"`.
        facts: the `Facts` by which the rest will be resolved.

    Returns:
        Dict of the rule's version as `rule` and of the fields that differ from the default under these facts, but for
        the seed.

    Example:
        >>> import kresnets
        >>> from kresnets.transfer.default import Facts
        >>> from kresnets.transfer.plan import resolve
        >>> from kresnets.tuning.choice import differing
        >>> groups = ("stem", "stage1", "head")
        >>> facts = Facts(groups=groups, images=64, steps=2, validation=11, classes=2, pretrained=False, why="")
        >>> differing(resolve(kresnets.Recipe(ratio=0.3), facts).recipe, facts)
        {'rule': 1, 'ratio': 0.3}
    """
    fields = {}
    while True:  # again, since what is given may change what the rule says of the rest
        default = resolve(Recipe(**fields), facts).recipe
        names = [field.name for field in dataclasses.fields(Recipe) if field.name != "seed"]
        missing = {name: getattr(recipe, name) for name in names if getattr(recipe, name) != getattr(default, name)}
        if not missing:
            return {"rule": RULE} | {name: fields[name] for name in names if name in fields}
        fields |= missing


def _compared(record, default, count, objective, sign, validation):
    """Return the choice between a trial and the default."""
    from scipy import stats

    gains = _gains(record["scores"], default["scores"], sign)
    gain, splits = statistics.mean(gains), len(gains)
    error = _error(gains, default["scores"][0], sign > 0, validation)
    level = 1 - LEVEL / max(count, 1)  # of what the best of so many trials gains by chance
    needed = float(stats.t.ppf(level, splits - 1) if splits > 1 else stats.norm.ppf(level)) * error
    won = gain > needed
    return Choice(
        record=record if won else default,
        sentence=f"Trial {record['trial_id']} gained {gain:.3g} in {objective.name} over the first "
        f"({splits} split{'s' * (splits > 1)}, "
        f"standard error {error:.2g}): {'more than' if won else 'within'} the {needed:.2g} that chance gives the best "
        f"of {count}.",
        compared=True, gain=gain, error=error, needed=needed,
    )  # fmt: skip


def _gains(scores, others, sign=1):
    return [sign * (mine - other) for mine, other in zip(scores, others, strict=True)]


def accuracy_gains(record: Any, default: Any) -> Any:
    """Return what a trial gained in accuracy on each split over another one, None where that was not measured."""
    mine, other = ([measured.get(ACCURACY) for measured in each["measures"]] for each in (record, default))
    if not mine or len(mine) != len(other) or None in mine or None in other:
        return None
    return [round(gain, 6) for gain in _gains(mine, other)]  # shares of images, whose last digits are rounding


def _is_surer(record, default, validation):
    gains = accuracy_gains(record, default)
    if gains is None:
        return True
    gain, error = statistics.mean(gains), _error(gains, default["measures"][0][ACCURACY], True, validation)
    return gain > 0 and gain >= error


def _error(gains, value, share, validation):
    """Return the standard error of the mean gain over splits, of one split that of images."""
    if len(gains) > 1:
        return statistics.stdev(gains) * math.sqrt(1 / len(gains) + _SHARED)
    if not validation:
        return 0.0
    if share and 0 <= value <= 1:
        value = (value * validation + 1) / (validation + 2)  # of none or all of a few images too
        return math.sqrt(value * (1 - value) / validation)
    return abs(value) / math.sqrt(validation)
