"""Deeper plain networks are worse, on the very images that they learn from; residual ones are not."""

import dataclasses

import numpy as np

import kresnets
from claims import scratch
from claims.claim import IMAGES, Claim, Panel, grid
from claims.judge import above, gap, mean, paired, tested

KINDS = {"plain": "CifarPlainNet20", "residual": "CifarResNet20"}
RATES = (0.01, 0.03, 0.1, 0.3)


def spec(kind, depth):
    """Return the row of a CIFAR network: 6n + 2 layers, n blocks in each of three stages (1512.03385 section 4.2)."""
    row = kresnets.SPECS[KINDS[kind]]
    return dataclasses.replace(row, depths=((depth - 2) // 6,) * 3, min_size=8, params=None)


def _settings(options, rows):
    digits = options.data in (None, "digits")
    depths = (8, 14, 20, 32, 56) if digits and not options.quick else (20, 56)
    epochs = 3 if options.quick else 30 if digits else 15
    networks = grid(**scratch.data_of(options), epochs=epochs, kind=[*KINDS], depth=depths)
    tried = (0.03,) if options.quick else RATES if digits else RATES[1:]
    return scratch.tuned(networks, tried, options.count(5 if digits else 3), rows)


def _findings(options, rows):
    deep, shallow = {"depth": 56}, {"depth": 20}

    def means(column):
        return ", ".join(
            f"{kind} {d['depth']} {mean(rows, column, kind=kind, **d):.4f}" for kind in KINDS for d in (shallow, deep)
        )

    # The power of 10 by which the loss of 56 layers is that of 20.
    logs = [row | {"log": float(np.log10(row["train_loss"]))} for row in rows if "train_loss" in row]
    ratio, residual = (gap(logs, "log", deep, shallow, kind=kind) for kind in KINDS)
    plain = gap(rows, "train_loss", deep, shallow, kind="plain")
    claim = "A plain network of 56 layers ends above one of 20 on its own training images."
    told = f"log10 of the training loss, 56 less 20 layers: {ratio.text(digits=2)}; the loss itself: "
    told += f"{plain.text(digits=4)}, which alone would be {above(plain)}. Means: {means('train_loss')}."
    yield tested(claim, ratio, told)
    more = paired(dict(enumerate(ratio.values)), dict(enumerate(residual.values)))
    told = f"log10 of the training loss, (plain 56 - 20) less (residual 56 - 20): {more.text(digits=2)}."
    yield tested("Depth costs a plain network more than a residual one.", more, told)
    saved = gap(rows, "train_error", shallow, deep, kind="residual")
    claim = "A residual network of 56 layers makes at most 1 point more errors on its training images than one of 20."
    yield tested(claim, saved, f"Training error, 20 less 56 layers: {saved.points(2)}.", least=-0.01)
    errors = gap(rows, "test_error", deep, shallow, kind="plain")
    claim = "A plain network of 56 layers makes more errors than one of 20 on images it has not seen."
    yield tested(claim, errors, f"Test error: {errors.points(2)}. Means: {means('test_error')}.")


PANELS = (
    Panel("loss", "epoch", "depth", each="kind", curve=True, log=True),
    Panel("train_loss", "depth", "kind", log=True),
)
CLAIM = Claim(_settings, scratch.learner(spec, "kind", "depth"), _findings, PANELS, IMAGES)
