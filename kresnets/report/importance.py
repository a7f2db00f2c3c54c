"""Which hyperparameters moved the score of a search, and how sure that is."""

import numpy as np

FEWEST = 10  # completed trials; below, a forest has nothing to learn from
_BOOTSTRAPS, _REPEATS, _TREES = 20, 3, 30


def importance(columns, scores, seed=0):
    """Return how much each hyperparameter moved the score: permutation importance on a random forest.

    The forest (scikit-learn) learns the rank of a trial's score from its values: of ranks, since one diverged trial
    would drown all others. It is taught on a resample of the trials and judged on those left out of it: a parameter's
    importance is half of what R² loses there once the parameter's values are shuffled, which is the share of the ranks'
    variance that goes through it, alone or with others (total Sobol index): about 0..1. This is done on 20 resamples,
    whose spread is the uncertainty.

    Args:
        columns: dict name -> sequence of one value a trial: numbers (the logarithm, where that is the scale), or NaN
            where the parameter played no role in the trial: then it counts as the median of the others, so that what
            made it idle gets the credit.
        scores: sequence of one finite number a trial.
        seed: int, of resamples, forests and shuffles. Defaults to 0.

    Returns:
        `(explained, rows)`: R² on the trials left out, mean over resamples (below 0: worse than knowing nothing), and a
        list of `{"name", "mean", "low", "high"}`, the most important first, with the interval that holds 90 % of the
        resamples; `(None, [])` where there are fewer than 10 trials, equal scores alone, or no column that varies.

    Example:
        >>> from kresnets.report.importance import importance
        >>> rates = [0.1 * step for step in range(20)]
        >>> importance({"rate": rates, "noise": rates[::-1][10:] + rates[10:]}, rates)[1][0]["name"]
        'rate'
    """
    from scipy.stats import rankdata

    names = [name for name, values in columns.items() if len(np.unique(_filled(values))) > 1]
    if len(scores) < FEWEST or not names or len(set(scores)) < 2:
        return None, []
    table = np.stack([_filled(columns[name]) for name in names], axis=1)
    ranks = (rankdata(scores) - 1) / (len(scores) - 1)  # 0..1; equal scores share theirs
    rng = np.random.default_rng(seed)
    explained, drops = zip(*(_resample(table, ranks, rng) for _ in range(_BOOTSTRAPS)))
    low, high = np.percentile(drops, (5, 95), axis=0)
    mean = np.mean(drops, axis=0)
    rows = [
        {"name": names[i], "mean": float(mean[i]), "low": float(low[i]), "high": float(high[i])}
        for i in np.argsort(-mean, kind="stable")
    ]
    return float(np.mean(explained)), rows


def _filled(values):
    values = np.asarray(values, float)
    known = np.isfinite(values)
    return np.where(known, values, np.median(values[known]) if known.any() else 0.0)


def _resample(table, ranks, rng):
    """Return R² on the trials left out of a resample, and how much of it each column's shuffle shows to carry."""
    from sklearn.ensemble import RandomForestRegressor
    from sklearn.inspection import permutation_importance

    while True:  # at least two, of two scores: R² of fewer is not defined
        taken = rng.integers(len(ranks), size=len(ranks))
        left = np.setdiff1d(np.arange(len(ranks)), taken)
        if len(set(ranks[left])) > 1:
            break
    state = int(rng.integers(2**31))
    forest = RandomForestRegressor(_TREES, min_samples_leaf=2, random_state=state).fit(table[taken], ranks[taken])
    result = permutation_importance(forest, table[left], ranks[left], n_repeats=_REPEATS, random_state=state)
    # A shuffle puts two independent values in one place, so the error grows by twice the variance that they carry.
    return forest.score(table[left], ranks[left]), result.importances_mean / 2
