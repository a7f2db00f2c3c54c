"""What a shortcut does where shapes differ: zero-padded identity (A), projection there (B) or everywhere (C)."""

import dataclasses

from claims import degradation, scratch
from claims.claim import IMAGES, Claim, Finding, Panel, grid
from claims.judge import exactly, gap, tested

KINDS = ("plain", "A", "B", "C")


def spec(kind, depth):
    """Return the row of a CIFAR network with this shortcut, or its plain twin."""
    if kind == "plain":
        return degradation.spec("plain", depth)
    return dataclasses.replace(degradation.spec("residual", depth), shortcut=kind)


def _settings(options, rows):
    depth, epochs, rates = (8, 3, (0.1,)) if options.quick else (20, 30, (0.1, 0.3))
    networks = grid(**scratch.data_of(options), depth=depth, kind=KINDS, epochs=epochs)
    return scratch.tuned(networks, rates, options.count(5), rows)


def _findings(options, rows):
    cost = {row["kind"]: (row["parameters"], row["multiply_adds"]) for row in rows}
    told = ", ".join(f"{kind} {weights:,} and {adds:,}" for kind, (weights, adds) in cost.items())
    claim = "A shortcut that pads with zeros costs neither parameters nor multiply-adds, and C costs more than B."
    holds = cost["A"] == cost["plain"] and cost["A"] < cost["B"] < cost["C"]
    yield Finding(claim, exactly(holds), f"Parameters and multiply-adds: {told}.")
    for one, other in (("A", "plain"), ("B", "A"), ("C", "B")):
        saved = gap(rows, "test_error", {"kind": other}, {"kind": one})
        claim = f"{one} makes fewer errors than {other} on images it has not seen."
        yield tested(claim, saved, f"Test error, {other} less {one}: {saved.points(2)}.")


PANELS = (Panel("test_error", "kind"), Panel("loss", "epoch", "kind", curve=True, log=True))
CLAIM = Claim(_settings, scratch.learner(spec, "kind", "depth", counted=True), _findings, PANELS, IMAGES)
