"""Networks trained from scratch and compared, each at its own best rate: settings and measurement."""

import kresnets
from claims import training
from claims.results import TUNING_SEED, pick


def images(options, size=16):
    """Return the part of a setting that says what is learned from: digits unless told otherwise, of others 5,000; at 16
    pixels a side, a quarter of the computing of 32."""
    data = options.data or "digits"
    return {"data": data, "size": 8 if options.quick else size} | ({} if data == "digits" else {"limit": 5000})


def tuned(networks, rates, seeds, rows, by="train_loss"):
    """Return the settings that are needed: each network at each rate with one seed, then at its best with all seeds.

    The settings of `networks` lack `rate` and `seed`. A single rate needs no trials; the best of several is the one
    with the least `by` in the rows so far.
    """
    trials = [network | {"rate": rate, "seed": TUNING_SEED} for network in networks for rate in rates]
    if len(rates) == 1:
        return [network | {"rate": rates[0], "seed": seed} for seed in range(seeds) for network in networks]
    found = [best(rows, by, **network) for network in networks]
    if None in found:
        return trials
    return trials + [
        n | {"rate": one["rate"], "seed": seed} for seed in range(seeds) for n, one in zip(networks, found)
    ]


def best(rows, by, **where):
    """Return the row of the trial with the least number in a column, None where there is no trial yet."""
    trials = [row for row in pick(rows, seed=TUNING_SEED, **where) if by in row]
    return min(trials, key=lambda row: row[by]) if trials else None


def learned(spec, setting, counted=False):
    """Train the network of a row of kresnets as a setting says; return its rows, see `training.learn`.

    The setting has `data`, `size`, `epochs`, `rate` and `seed`; where `recipe` is `"paper"`, by the paper's schedule.
    `counted` adds the network's parameters and multiply-adds.
    """
    data = training.pictures_of(setting)
    model = training.fresh(spec, data, setting["seed"])
    paper = setting.get("recipe") == "paper"
    schedule = training.Paper() if paper else training.Cosine(setting["rate"], setting["epochs"])
    rows = training.learn(model, data, schedule, setting["seed"])
    if not counted:
        return rows
    counts = kresnets.summarize(kresnets.build(spec, input_shape=data.train.shape[1:]))
    return [row | {"parameters": counts.parameters, "multiply_adds": counts.multiply_adds} for row in rows]
