"""Residual blocks without batch norm do not learn when they are many, unless they start at F(x) = 0."""

import keras

from claims import degradation, scratch
from claims.claim import IMAGES, Claim, Panel, grid
from claims.judge import gap, mean, paired, tested

NORMED, BARE, FROM_ZERO = KINDS = ("normed", "bare", "bare, from F(x) = 0")
# The last: that of a network without norm may have to be that small.
RATES = (0.3, 0.1, 0.03, 0.01, 0.003, 0.001)


class _NoNorm(keras.layers.Layer):
    def call(self, inputs, training=None, mask=None):
        return inputs


def rewired(layer, kind):
    """Return what stands in a layer's place: no norm but a bias; the last convolution of a branch starts at 0 where
    the kind says so (Fixup, arXiv 1901.09321; there it has scales too)."""
    if kind != NORMED and isinstance(layer, keras.layers.BatchNormalization):
        return _NoNorm(name=layer.name)
    config = layer.get_config()
    if kind != NORMED and isinstance(layer, keras.layers.Conv2D):
        config["use_bias"] = True
        if kind == FROM_ZERO and layer.name.endswith("_conv2") and "block" in layer.name:
            config["kernel_initializer"] = "zeros"
    return type(layer).from_config(config)


def _settings(options, rows):
    depths, epochs, rates = ((8, 20), 3, (0.03,)) if options.quick else ((20, 56), 20, RATES)
    networks = grid(**scratch.data_of(options), epochs=epochs, kind=KINDS, depth=depths)
    return scratch.tuned(networks, rates, options.count(5), rows)


def _findings(options, rows):
    shallow, deep = ({"depth": depth} for depth in sorted({row["depth"] for row in rows}))
    error = {kind: gap(rows, "test_error", deep, shallow, kind=kind) for kind in KINDS}
    for depth in (shallow, deep):
        worse = gap(rows, "test_error", {"kind": BARE}, {"kind": NORMED}, **depth)
        means = ", ".join(f"{kind} {mean(rows, 'test_error', kind=kind, **depth):.4f}" for kind in KINDS)
        claim = (
            f"Without norm a residual network of {depth['depth']} layers makes more errors on images it has not seen."
        )
        yield tested(claim, worse, f"Test error, bare less normed: {worse.points(2)}. Means: {means}.")
    more = paired(*(dict(enumerate(error[kind].values)) for kind in (BARE, NORMED)))
    claim = "Depth costs a residual network without norm more than one with it."
    yield tested(claim, more, f"Test error, (bare deep - shallow) less (normed deep - shallow): {more.points(2)}.")
    kinds = {"kind": BARE}, {"kind": FROM_ZERO}
    saved = gap(rows, "test_error", *kinds, **deep)
    claim = f"With {deep['depth']} layers and no norm, a start at F(x) = 0 saves errors."
    yield tested(claim, saved, f"Test error, bare less from F(x) = 0: {saved.points(2)}.")
    left = gap(rows, "test_error", {"kind": NORMED}, {"kind": FROM_ZERO}, **deep)
    claim = "Started so, it makes at most 1 point more errors than the normed one."
    yield tested(claim, left, f"Test error, normed less from F(x) = 0: {left.points(2)}.", least=-0.01)


PANELS = (
    Panel("loss", "epoch", ("kind", "depth"), curve=True, log=True),
    Panel("test_error", "depth", "kind"),
)
learn = scratch.learner(lambda kind, depth: degradation.spec("residual", depth), "kind", "depth", rewired=rewired)
CLAIM = Claim(_settings, learn, _findings, PANELS, IMAGES)
