"""What a claim is: which runs it needs, what one run measures, what they say together."""

import dataclasses
import itertools
from collections.abc import Callable
from typing import NamedTuple

TUNING_SEED = 1000  # of the runs that choose a rate, which are not compared
IMAGES = ("digits", "cifar10")  # what small networks may learn from by `--data`, the claim's own first


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """What the user asked for."""

    quick: bool = False  # minutes in place of hours: fewer seeds, smaller networks, fewer epochs; proves little
    seeds: int | None = None  # None for the claim's own number
    data: str | None = None  # name of the images to learn from; None for the claim's own

    def count(self, own):
        """Return the number of seeds, where a claim has so many of its own."""
        return self.seeds or (1 if self.quick else own)


class Finding(NamedTuple):
    """One sentence that was tested, one of `judge.VERDICTS`, and what was measured, with its interval."""

    claim: str
    verdict: str
    numbers: str


class Panel(NamedTuple):
    """A panel of the picture: each seed as a dot beside the mean, or as a curve."""

    y: str  # column that is shown, of the rows that have it
    x: str | tuple[str, ...]  # column, or columns that make a place together
    by: str | tuple[str, ...] = ()  # columns of the colours; () for one
    where: dict | Callable = {}  # what the rows have, or a function that says whether a row belongs
    curve: bool = False  # each seed as a curve over x
    log: bool = False  # y on a scale of powers of ten
    each: str = ""  # column of which every value has a panel of its own


class Claim(NamedTuple):
    """An experiment and its reading; what is told of it in words is in its page, `docs/claims/NAME.md`.

    A *setting* is a dict of plain values that says all of one run; equal settings are run once, so whatever changes the
    outcome must be in it. A *row* is a setting together with numbers measured in it, a line of the CSV.
    """

    # (options, rows) -> settings that are needed, given the rows so far; asked again until all is there, so that a
    # second phase may depend on the first (the rate that was best, then more seeds).
    settings: Callable
    # (setting, folder) -> dicts of numbers, one a row (an epoch, a block ...). In the folder it may keep files that
    # other settings and other claims read, whole or not at all.
    measure: Callable
    findings: Callable  # (options, rows) -> `Finding`s
    panels: tuple[Panel, ...]
    data: tuple[str, ...] = ()  # what `--data` may be; () where it cannot be chosen


def by_part(**parts):
    """Return the `measure` of a claim whose settings name, as their `part`, the function of a setting that measures."""
    return lambda setting, kept: parts[setting["part"]](setting)


def grid(**axes):
    """Return settings for all combinations of values: of a tuple, list or range one each, all else is in each."""
    values = (value if isinstance(value, tuple | list | range) else (value,) for value in axes.values())
    return [dict(zip(axes, each)) for each in itertools.product(*values)]
