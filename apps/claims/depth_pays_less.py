"""More layers make a residual network better, and each further one by less."""

import math

from claims import degradation, scratch
from claims.claim import IMAGES, Claim, Panel, grid
from claims.judge import gap, mean, paired, tested


def _settings(options, rows):
    depths, epochs, rates = ((8, 14, 20), 2, (0.1,)) if options.quick else ((20, 32, 44, 56, 110), 15, (0.1,))
    data = scratch.data_of(options, own="digits" if options.quick else "cifar10")
    networks = grid(**data, epochs=epochs, depth=depths)
    return scratch.tuned(networks, rates, options.count(3), rows)


def _findings(options, rows):
    depths = sorted({row["depth"] for row in rows})
    means = ", ".join(f"{depth} {mean(rows, 'test_error', depth=depth):.4f}" for depth in depths)
    gains = []  # of each step, over doublings
    for fewer, more in zip(depths, depths[1:]):
        saved = gap(rows, "test_error", {"depth": fewer}, {"depth": more})
        gains.append([value / math.log2(more / fewer) for value in saved.values])
        claim = f"{more} layers make fewer errors than {fewer} on images they have not seen."
        yield tested(claim, saved, f"Test error, {fewer} less {more}: {saved.points(2)}.")
    less = paired(*(dict(enumerate(gain)) for gain in (gains[0], gains[-1])))
    claim = "A doubling of the layers pays less at the end of the row than at its beginning."
    yield tested(claim, less, f"Points that a doubling saves, first step less last: {less.points(2)}. Means: {means}.")


PANELS = (Panel("loss", "epoch", "depth", curve=True, log=True), Panel("test_error", "depth"))
learn = scratch.learner(lambda depth: degradation.spec("residual", depth), "depth")
CLAIM = Claim(_settings, learn, _findings, PANELS, IMAGES[::-1])
