"""A ReLU at the end of the residual branch lets F(x) only add, and costs."""

import keras

import kresnets
from claims import degradation, scratch
from claims.claim import IMAGES, Claim, Panel, grid
from claims.judge import gap, mean, paired, tested

AFTER, BEFORE = KINDS = ("after the addition", "before it")


class _RectifiedNorm(kresnets.layers.BatchNormalization):
    def call(self, inputs, training=None, mask=None):
        return keras.ops.relu(super().call(inputs, training=training, mask=mask))


def rewired(layer, kind):
    """Return what stands in a layer's place: by the second kind the ReLU that follows a block's sum moves to the end
    of its branch (arXiv 1603.05027 figure 4c)."""
    if kind == BEFORE and layer.name.endswith("_out"):
        return keras.layers.Identity(name=layer.name)
    last = kind == BEFORE and "block" in layer.name and layer.name.endswith("_bn2")
    return (_RectifiedNorm if last else type(layer)).from_config(layer.get_config())


def _settings(options, rows):
    depths, epochs, rates = ((8, 20), 3, (0.1,)) if options.quick else ((20, 56, 110), 20, (0.03, 0.1))
    networks = grid(**scratch.data_of(options, size=8), epochs=epochs, kind=KINDS, depth=depths)
    return scratch.tuned(networks, rates, options.count(5), rows)


def _findings(options, rows):
    before, after = {"kind": BEFORE}, {"kind": AFTER}
    costs = {}
    for depth in sorted({row["depth"] for row in rows}):
        costs[depth] = gap(rows, "test_error", before, after, depth=depth)
        means = ", ".join(f"{kind} {mean(rows, 'test_error', kind=kind, depth=depth):.4f}" for kind in KINDS)
        claim = f"With {depth} layers a ReLU before the addition costs errors on images it has not seen."
        yield tested(claim, costs[depth], f"Test error, before less after: {costs[depth].points(2)}. Means: {means}.")
    least, *_, most = costs
    grown = paired(*(dict(enumerate(costs[depth].values)) for depth in (most, least)))
    claim = f"It costs more with {most} layers than with {least}."
    yield tested(claim, grown, f"Growth of the gap in test error: {grown.points(2)}.")


PANELS = (
    Panel("loss", "epoch", ("kind", "depth"), curve=True, log=True),
    Panel("test_error", "depth", "kind"),
)
learn = scratch.learner(lambda kind, depth: degradation.spec("residual", depth), "kind", "depth", rewired=rewired)
CLAIM = Claim(_settings, learn, _findings, PANELS, IMAGES)
