"""When a claim is confirmed: differences paired by seed, with an interval."""

import dataclasses

import numpy as np
from scipy import stats

CONFIRMED, NOT_CONFIRMED, UNDECIDED = VERDICTS = ("confirmed", "not confirmed", "not decidable here")
FEWEST = 3  # seeds; fewer prove nothing


@dataclasses.dataclass(frozen=True)
class Interval:
    """The mean of some differences, one a seed.

    `low` and `high` are its 95 % interval: on each side the wider one of the bootstrap's (percentile, over seeds) and
    Student's. Of three values a bootstrap knows no more than their range, so alone it would promise too much.
    """

    mean: float
    low: float
    high: float
    values: tuple[float, ...]

    def text(self, unit="", digits=3, scale=1.0, each="seed"):
        """Return it as text, such as `+0.021 (95 %: +0.010 to +0.032; 5 of 5 seeds)`; `each` says what a value is
        of."""
        if len(self.values) < 2:
            return f"{scale * self.mean:+.{digits}f}{unit} ({'one' if self.values else 'no'} {each}: no interval)"
        mean, low, high = (f"{scale * number:+.{digits}f}" for number in (self.mean, self.low, self.high))
        agreeing = sum(np.sign(self.values) == np.sign(self.mean))
        return f"{mean}{unit} (95 %: {low} to {high}; {agreeing} of {len(self.values)} {each}s)"

    def points(self, digits=1):
        """Return it as text in points: hundredths of a share."""
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


def paired(ones, others):
    """Return the `Interval` of `ones - others`, dicts seed -> number; only seeds that are in both count."""
    return interval([ones[seed] - others[seed] for seed in sorted(ones.keys() & others.keys())])


def above(found, least=0.0):
    """Judge the claim that a difference is above `least`: confirmed where the whole interval is, not confirmed where it
    is below, not decidable where `least` lies within, or where the seeds are too few."""
    if len(found.values) < FEWEST or found.low == found.high == least:  # equal to the last digit is no difference shown
        return UNDECIDED
    return CONFIRMED if found.low > least else NOT_CONFIRMED if found.high <= least else UNDECIDED


def exactly(holds):
    """Judge what is counted or true by construction."""
    return CONFIRMED if holds else NOT_CONFIRMED


def everywhere(found, least=0.0):
    """Judge the claim that each of some differences is above `least`: confirmed where all are, not confirmed where one
    is not, else not decidable."""
    verdicts = {above(one, least) for one in found}
    return next(verdict for verdict in (NOT_CONFIRMED, UNDECIDED, CONFIRMED) if verdict in verdicts)
