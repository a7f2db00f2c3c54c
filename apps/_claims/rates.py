"""Each network at its own best rate: the first phase of every comparison of networks that are trained from scratch."""

TUNING_SEED = 1000  # of none of the runs that are compared afterwards


def tuned(networks, rates, seeds, rows, by="train_loss"):
    """Return the settings that are needed: each network at each rate with one seed, then at its best with all seeds.

    Args:
        networks: list of settings that lack `rate` and `seed`.
        rates: the same few rates for all; a single one needs no trials.
        seeds: number of seeds to compare with, 0, 1 ...
        rows: the rows so far.
        by: column by which a rate is best: the least of the last epoch's. Defaults to `"train_loss"`.
    """
    trials = [network | {"rate": rate, "seed": TUNING_SEED} for network in networks for rate in rates]
    found = rates * len(networks) if len(rates) == 1 else best(rows, networks, by)
    if len(found) < len(networks):
        return trials
    compared = [
        network | {"rate": rate, "seed": seed} for seed in range(seeds) for network, rate in zip(networks, found)
    ]
    return compared if len(rates) == 1 else trials + compared


def best(rows, networks, by="train_loss"):
    """Return the best rate of each network, as long as all its trials are there."""
    found = []
    for network in networks:
        trials = [
            row
            for row in rows
            if row["seed"] == TUNING_SEED and by in row and all(row.get(name) == network[name] for name in network)
        ]
        if trials:
            found.append(min(trials, key=lambda row: row[by])["rate"])
    return found


def compared(rows, column, **where):
    """Return dict seed -> number of the finished runs that are compared, those of the tuning left out.

    Args:
        rows: of a claim.
        column: what is asked for; a row without it (an epoch before the last) does not count.
        where: what the row's setting must be.
    """
    return {
        row["seed"]: row[column]
        for row in rows
        if row["seed"] != TUNING_SEED and column in row and all(row.get(name) == value for name, value in where.items())
    }
