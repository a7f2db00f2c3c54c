"""Networks trained from scratch and compared, each at its own best rate: settings, measurement, columns and curves."""

import numpy as np

TUNING_SEED = 1000  # of none of the runs that are compared afterwards


def images(options, size=16):
    """Return the part of a setting that says what is learned from: digits unless told otherwise, of others 5,000.

    Args:
        options: the `Options`; quick takes 8 pixels a side.
        size: pixels a side. Defaults to 16: a quarter of the computing of 32.
    """
    data = options.data or "digits"
    return {"data": data, "size": 8 if options.quick else size} | ({} if data == "digits" else {"limit": 5000})


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


def mean(rows, column, **where):
    """Return the mean over the seeds that are compared, see `compared`."""
    return float(np.mean(list(compared(rows, column, **where).values())))


def learned(spec, setting):
    """Train the network of a row as a setting says; return its rows, see `training.learn`.

    Args:
        spec: a row of kresnets.
        setting: with `data`, `size`, `epochs`, `rate` and `seed`; where `recipe` is `"paper"`, by the paper's schedule.
    """
    from _claims import pictures, training

    data = pictures.pictures(setting["data"], setting["size"], setting.get("limit"))
    model = training.fresh(spec, data, setting["seed"])
    paper = setting.get("recipe") == "paper"
    schedule = training.Paper() if paper else training.Cosine(setting["rate"], setting["epochs"])
    return training.learn(model, data, schedule, setting["seed"])


def curves(axis, rows, style, colour, label, **where):
    """Draw the training loss over the epochs, a line a seed."""
    losses = {}
    for row in rows:
        if row["seed"] != TUNING_SEED and all(row.get(name) == value for name, value in where.items()):
            losses.setdefault(row["seed"], []).append(row["loss"])
    for number, curve in enumerate(losses.values()):
        shown = None if number else label
        axis.plot(range(1, len(curve) + 1), curve, style, color=colour, alpha=0.6, label=shown)


def by_column(axis, rows, x, y, kind, colours):
    """Draw the end of the training by a column of numbers: a line through the means a kind, a dot a seed."""
    places = sorted({row[x] for row in rows})
    for name, colour in colours.items():
        ends = [list(compared(rows, y, **{x: place, kind: name}).values()) for place in places]
        axis.plot(places, [np.mean(each) for each in ends], "-", color=colour, label=name)
        for place, each in zip(places, ends):
            axis.plot([place] * len(each), each, "o", color=colour, alpha=0.5)
    axis.set_xticks(places)
    axis.legend(frameon=False)
