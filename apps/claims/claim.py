"""What a claim is: which runs it needs, what one run measures, what they say together."""

import dataclasses
from collections.abc import Callable
from typing import NamedTuple


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """What the user asked for.

    Args:
        quick: minutes in place of hours: fewer seeds, smaller networks, fewer epochs. Its verdicts prove little.
        seeds: number of seeds; None for the claim's own.
        data: name of the images to learn from, or of the trunk; None for the claim's own.
        recipe: `"short"`, or `"paper"` for the paper's own schedule, which takes days on a processor.
    """

    quick: bool = False
    seeds: int | None = None
    data: str | None = None
    recipe: str = "short"

    def count(self, own):
        """Return the number of seeds, where a claim has so many of its own."""
        return self.seeds or (1 if self.quick else own)


class Finding(NamedTuple):
    """One sentence that was tested, one of `verdicts.VERDICTS`, and what was measured, with its interval."""

    claim: str
    verdict: str
    numbers: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class Claim:
    """A claim, its experiment and its reading.

    A *setting* is a dict of plain values that says all of one run; equal settings are run once, so whatever changes the
    outcome must be in it. A *row* is a setting together with numbers measured in it, a line of the CSV.

    Args:
        title: the claim in one sentence.
        source: arXiv id and section.
        settings: `(options, rows) -> list of settings` that are needed, given the rows so far; asked again until all it
            asks for is there, so that a second phase may depend on the first (the rate that was best, then more seeds).
        measure: `setting -> list of dicts` of numbers, one dict a row (an epoch, a block ...).
        findings: `(options, rows)`; gives `Finding`s.
        draw: `(options, rows, path)`; writes a PNG of less than 300 kB.
        cost: `setting -> number`, how long a run takes in any unit, for the time left.
        keeps: whether `measure` is given a folder as its second argument, in which it keeps files that other settings
            and other claims read, whole or not at all.
        committed: whether its finished runs are kept in the repository too, and read from there.
        notes: sentences that belong under the findings, or a function from the `Options` to them.
        data, recipes: what `--data` and `--recipe` may be; () where it cannot be chosen.
    """

    title: str
    source: str
    settings: Callable
    measure: Callable
    findings: Callable
    draw: Callable
    cost: Callable = lambda setting: 1.0
    keeps: bool = False
    committed: bool = False
    notes: tuple[str, ...] | Callable = ()
    data: tuple[str, ...] = ("digits", "patches", "cifar10")
    recipes: tuple[str, ...] = ("short",)
