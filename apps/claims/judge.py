"""What runs say together: differences paired by seed, their intervals, and when a claim is confirmed."""

import dataclasses
import math

import numpy as np
from scipy import stats

from claims.claim import TUNING_SEED, Finding

CONFIRMED, NOT_CONFIRMED, UNDECIDED = VERDICTS = ("confirmed", "not confirmed", "not decidable here")
FEWEST = 3  # seeds; fewer prove nothing
_MOST_SEEDS = 1000


@dataclasses.dataclass(frozen=True)
class Interval:
    """The mean of some differences, one a seed, and its 95 % interval: on each side the wider one of the bootstrap's
    (percentile, over seeds) and Student's. Of three values a bootstrap knows no more than their range, so alone it
    would promise too much."""

    mean: float
    low: float
    high: float
    values: tuple[float, ...]

    def text(self, unit="", digits=3, scale=1.0, each="seed"):
        """Return such as `+0.021 (95 %: +0.010 to +0.032; 5 of 5 seeds)`; `each` is what a value is of."""
        if len(self.values) < 2:
            return f"{scale * self.mean:+.{digits}f}{unit} ({'one' if self.values else 'no'} {each}: no interval)"
        mean, low, high = (f"{scale * number:+.{digits}f}" for number in (self.mean, self.low, self.high))
        agreeing = sum(np.sign(self.values) == np.sign(self.mean))
        return f"{mean}{unit} (95 %: {low} to {high}; {agreeing} of {len(self.values)} {each}s)"

    def points(self, digits=1):
        """Return it in points: hundredths of a share."""
        return self.text(" points", digits, 100)


def interval(values):
    """Return the `Interval` of the mean of these numbers; from -inf to inf where one is no proof."""
    values = tuple(map(float, values))
    mean = float(np.mean(values)) if values else float("nan")
    if len(values) < 2 or not np.isfinite(values).all():
        return Interval(mean, -np.inf, np.inf, values)
    if max(values) == min(values):
        return Interval(mean, mean, mean, values)
    bootstrap = stats.bootstrap((np.asarray(values),), np.mean, n_resamples=9999, method="percentile", rng=0)
    both = bootstrap.confidence_interval, stats.ttest_1samp(values, 0.0).confidence_interval()
    return Interval(mean, float(min(one.low for one in both)), float(max(one.high for one in both)), values)


def mean_of(pairs):
    """Return the `Interval` of each seed's mean difference over pairs of dicts; of the seeds that all of them have."""
    seeds = set.intersection(*(set(one) & set(other) for one, other in pairs)) if pairs else ()
    return interval([np.mean([one[seed] - other[seed] for one, other in pairs]) for seed in sorted(seeds)])


def paired(ones, others):
    """Return the `Interval` of `ones - others`, dicts seed -> number; only seeds that are in both count."""
    return mean_of([(ones, others)])


# Rows: what was measured, each a setting with numbers.


def pick(rows, **where):
    """Return the rows with these values."""
    return [row for row in rows if all(row.get(name) == value for name, value in where.items())]


def of(rows, column, **where):
    """Return dict seed -> number of the runs that are compared; a row without the column (an epoch before the last)
    does not count."""
    fitting = pick((row for row in rows if column in row), **where)
    return {row["seed"]: row[column] for row in fitting if row["seed"] != TUNING_SEED}


def mean(rows, column, **where):
    """Return the mean over the seeds that are compared; nan without any."""
    found = list(of(rows, column, **where).values())
    return float(np.mean(found)) if found else float("nan")


def gap(rows, column, one, other, cells=({},), **where):
    """Return the `Interval` of one less another, dicts of what their rows have, in the mean over the cells, dicts too;
    `where` is what all have."""
    return mean_of([[of(rows, column, **where, **cell, **each) for each in (one, other)] for cell in cells])


# Verdicts.


def above(found, least=0.0):
    """Judge the claim that a difference is above `least`: confirmed where the whole interval is, not confirmed where it
    is below, not decidable where `least` lies within, or where the seeds are too few."""
    if len(found.values) < FEWEST or found.low == found.high == least:  # equal to the last digit is no difference shown
        return UNDECIDED
    return CONFIRMED if found.low > least else NOT_CONFIRMED if found.high <= least else UNDECIDED


def tested(claim, found, numbers, least=0.0):
    """Return the `Finding` of the claim that a difference is above `least`; where the seeds do not decide it, with how
    many would, were the mean and the spread over the seeds what they are here."""
    verdict = above(found, least)
    return Finding(claim, verdict, numbers + (_seeds_it_takes(found, least) if verdict == UNDECIDED else ""))


def _seeds_it_takes(found, least):
    away, spread = abs(found.mean - least), np.std(found.values, ddof=1) if len(found.values) > 1 else np.nan
    if not np.isfinite([away, spread]).all():
        return ""
    enough = (n for n in range(FEWEST, _MOST_SEEDS) if stats.t.ppf(0.975, n - 1) * spread < away * math.sqrt(n))
    needed = next(enough, None)
    return f" About {needed} seeds would decide it." if needed else f" {_MOST_SEEDS} seeds would not decide it."


def exactly(holds):
    """Judge what is counted or true by construction."""
    return CONFIRMED if holds else NOT_CONFIRMED


def worst(verdicts):
    """Judge the claim that all of some hold: not confirmed where one is not, not decidable where one is not."""
    return max(verdicts, key=(CONFIRMED, UNDECIDED, NOT_CONFIRMED).index)
