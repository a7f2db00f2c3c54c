"""When a trial is given up: the median rule (Golovin et al. 2017, "Google Vizier", section 3.2.2)."""

import statistics

LEAST_TRIALS = 4


def best_so_far(history, objective):
    """Return the best value of the objective up to each epoch of a history (list of rows)."""
    found = []
    for row in history:
        value = objective.get_value(row)
        found.append(value if not found or objective.better_than(value, found[-1]) else found[-1])
    return found


class Pruning:
    """Give up a trial whose best value so far is worse than what most others had by the same epoch.

    Args:
        objective: Keras Tuner's.
        curves: list of what `best_so_far` returned for trials that ended, pruned ones included.
        share: share of the others, above 0 and up to 1, that may be better: 0.5 is the median rule, less gives up more.
        first: the epochs that every trial may train.
    """

    def __init__(self, objective, curves, share, first):
        self._objective, self._curves, self._share, self._first = objective, curves, share, first

    def verdict(self, value, epochs):
        """Return why a trial of this best value after so many epochs is hopeless, or None."""
        others = [curve[epochs - 1] for curve in self._curves if len(curve) >= epochs]
        if epochs < self._first or len(others) < LEAST_TRIALS:
            return None
        small_is_good = self._objective.better_than(0, 1)
        limit = _quantile(sorted(others, reverse=not small_is_good), self._share)
        if not self._objective.better_than(limit, value):
            return None
        return (
            f"Given up after {epochs} epochs: its best {value:.4g} was worse than the {limit:.4g} that "
            f"{self._share:.0%} of {len(others)} others had by then."
        )


def _quantile(best_first, share):
    if share == 0.5:
        return statistics.median(best_first)
    return best_first[min(len(best_first) - 1, int(share * len(best_first)))]
