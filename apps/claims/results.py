"""Reading what was measured: rows that fit, numbers by seed, differences paired by seed."""

import numpy as np

from claims.verdicts import interval, paired

TUNING_SEED = 1000  # of the runs that choose a rate, which are not compared


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


def gap(rows, column, one, other, **where):
    """Return the `Interval` of one less another, dicts of what their rows have; `where` is what both have."""
    return paired(*(of(rows, column, **where, **each) for each in (one, other)))


def gap_over(rows, column, one, other, cells):
    """Return the `Interval` of each seed's mean difference over cells, dicts too; of the seeds that all have."""
    return mean_of(
        [{seed: ones[seed] - others[seed] for seed in ones.keys() & others.keys()}
         for ones, others in ([of(rows, column, **cell | each) for each in (one, other)] for cell in cells)]
    )  # fmt: skip


def mean_of(gaps):
    """Return the `Interval` of each seed's mean over dicts seed -> number; of the seeds that all have."""
    seeds = set.intersection(*map(set, gaps)) if gaps else ()
    return interval([np.mean([each[seed] for each in gaps]) for seed in sorted(seeds)])
