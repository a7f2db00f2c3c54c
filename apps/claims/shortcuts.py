"""What a shortcut does where shapes differ: zero-padded identity (A), projection there (B) or everywhere (C)."""

import dataclasses

from claims import degradation, plots, rates
from claims.claim import Claim, Finding
from claims.results import gap
from claims.verdicts import above, exactly

KINDS = ("plain", "A", "B", "C")
# Top-1 error on ImageNet of 34 layers, 10 crops, in percent (table 3).
PUBLISHED = {"plain": 28.54, "A": 25.03, "B": 24.52, "C": 24.19}


def spec(kind, depth):
    """Return the row of a CIFAR network with this shortcut, or its plain twin."""
    if kind == "plain":
        return degradation.spec("plain", depth)
    return dataclasses.replace(degradation.spec("residual", depth), shortcut=kind)


def _settings(options, rows):
    depth, epochs = (8, 3) if options.quick else (20, 30)
    networks = [rates.images(options) | {"depth": depth, "kind": kind, "epochs": epochs} for kind in KINDS]
    return rates.tuned(networks, (0.1,) if options.quick else (0.1, 0.3), options.count(5), rows)


def _findings(options, rows):
    cost = {row["kind"]: (row["parameters"], row["multiply_adds"]) for row in rows}
    told = ", ".join(f"{kind} {weights:,} and {adds:,}" for kind, (weights, adds) in cost.items())
    yield Finding(
        "A shortcut that pads with zeros costs neither parameters nor multiply-adds, and C costs more than B.",
        exactly(cost["A"] == cost["plain"] and cost["A"] < cost["B"] < cost["C"]),
        f"Parameters and multiply-adds: {told}.",
    )
    for one, other in (("A", "plain"), ("B", "A"), ("C", "B")):
        saved = gap(rows, "test_error", {"kind": other}, {"kind": one})
        claim = f"{one} makes fewer errors than {other} on images it has not seen."
        yield Finding(claim, above(saved), f"Test error, {other} less {one}: {saved.points(2)}.")


CLAIM = Claim(
    title=(
        "any shortcut is better than none; projections (B, C) are a little better than padding with zeros (A), at "
        "a cost"
    ),
    source="arXiv 1512.03385 section 4.1, table 3",
    settings=_settings,
    measure=lambda setting: rates.learned(spec(setting["kind"], setting["depth"]), setting, counted=True),
    findings=_findings,
    draw=plots.panels(plots.Panel("test_error", "kind"), plots.Panel("loss", "epoch", "kind", curve=True, log=True)),
    notes=(
        "CIFAR networks of 20 layers, each at its own best rate of the same few (by the training loss of one more "
        "seed).",
        "The paper's top-1 errors on ImageNet, 34 layers, 10 crops: "
        + ", ".join(f"{kind} {error} %" for kind, error in PUBLISHED.items())
        + ".",
    ),
)
