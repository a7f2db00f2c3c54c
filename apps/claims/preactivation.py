"""Norm and ReLU before the convolution (v2) against after it (v1), as depth grows."""

import dataclasses

import kresnets
from claims import degradation, scratch
from claims.claim import IMAGES, Claim, Panel, grid
from claims.judge import gap, paired, pick, tested

KINDS = ("v1", "v2")


def spec(kind, depth):
    """Return the row of a CIFAR network of 6n + 2 layers, both kinds with the same blocks and shortcuts."""
    row, theirs = degradation.spec("residual", depth), kresnets.SPECS["CifarResNet110V2"]
    knobs = ("preactivation", "stem_norm", "bias_without_norm", "block") if kind == "v2" else ()
    return dataclasses.replace(row, **{knob: getattr(theirs, knob) for knob in knobs})


def _settings(options, rows):
    depths, epochs, rates = ((8, 20), 3, (0.1,)) if options.quick else ((20, 56, 110), 20, (0.03, 0.1))
    networks = grid(**scratch.data_of(options, size=8), epochs=epochs, kind=KINDS, depth=depths)
    return scratch.tuned(networks, rates, options.count(5), rows)


def _findings(options, rows):
    depths = sorted({row["depth"] for row in rows})
    early = max(row["epoch"] for row in rows) // 3
    v1, v2 = {"kind": "v1"}, {"kind": "v2"}
    for depth in depths:
        sooner = gap(pick(rows, epoch=early), "loss", v1, v2, depth=depth)
        numbers = f"Training loss of epoch {early}, v1 less v2: {sooner.text(digits=4)}."
        yield tested(f"With {depth} layers v2 learns faster.", sooner, numbers)
        better = gap(rows, "test_error", v1, v2, depth=depth)
        claim = f"With {depth} layers v2 makes fewer errors on images it has not seen."
        yield tested(claim, better, f"Test error, v1 less v2: {better.points(2)}.")
    for column, what in (("train_loss", "training loss at the end"), ("test_error", "test error")):
        first, last = (gap(rows, column, v1, v2, depth=depth).values for depth in (depths[0], depths[-1]))
        grown = paired(dict(enumerate(last)), dict(enumerate(first)))
        claim = f"What v2 gains over v1 grows from {depths[0]} to {depths[-1]} layers."
        yield tested(claim, grown, f"Growth of the gap in {what}: {grown.text(digits=4)}.")


PANELS = (
    Panel("loss", "epoch", ("kind", "depth"), curve=True, log=True),
    Panel("train_loss", "depth", "kind", log=True),
    Panel("test_error", "depth", "kind"),
)
CLAIM = Claim(_settings, scratch.learner(spec, "kind", "depth"), _findings, PANELS, IMAGES)
