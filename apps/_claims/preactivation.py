"""Norm and ReLU before the convolution (v2) against after it (v1), as depth grows."""

import dataclasses

from _claims import rates
from _claims.claim import Claim, Finding
from _claims.degradation import spec as cifar
from _claims.verdicts import above, paired

KINDS = {"v1": "#c2410c", "v2": "#1d4ed8"}
RATES = (0.03, 0.1)


def spec(kind, depth):
    """Return the row of a CIFAR network of 6n + 2 layers, both kinds with the same blocks and shortcuts."""
    row = cifar("residual", depth)
    if kind == "v1":
        return row
    import kresnets

    theirs = kresnets.SPECS["CifarResNet110V2"]
    knobs = ("preactivation", "stem_norm", "bias_without_norm", "block")
    return dataclasses.replace(row, **{knob: getattr(theirs, knob) for knob in knobs})


def _settings(options, rows):
    depths, epochs = ((8, 20), 3) if options.quick else ((20, 56, 110), 20)
    network = rates.images(options, size=8) | {"epochs": epochs}
    networks = [network | {"kind": kind, "depth": depth} for kind in KINDS for depth in depths]
    tried = (0.1,) if options.quick else RATES
    return rates.tuned(networks, tried, options.seeds or (1 if options.quick else 5), rows)


def _findings(options, rows):
    depths = sorted({row["depth"] for row in rows})
    early = max(row["epoch"] for row in rows) // 3

    def gap(column, depth, epoch=None):
        chosen = rows if epoch is None else [row for row in rows if row["epoch"] == epoch]
        return paired(*(rates.compared(chosen, column, kind=kind, depth=depth) for kind in KINDS))

    found = []
    for depth in depths:
        sooner, better = gap("loss", depth, early), gap("test_error", depth)
        found += [
            Finding(
                claim=f"With {depth} layers v2 learns faster.",
                verdict=above(sooner),
                numbers=f"Training loss of epoch {early}, v1 less v2: {sooner.text(digits=4)}.",
            ),
            Finding(
                claim=f"With {depth} layers v2 makes fewer errors on images it has not seen.",
                verdict=above(better),
                numbers=f"Test error, v1 less v2: {better.text(' points', 2, 100)}.",
            ),
        ]
    for column, what in (("train_loss", "training loss at the end"), ("test_error", "test error")):
        ends = (dict(enumerate(gap(column, depth).values)) for depth in (depths[-1], depths[0]))
        grown = paired(*ends)
        found.append(
            Finding(
                claim=f"What v2 gains over v1 grows from {depths[0]} to {depths[-1]} layers.",
                verdict=above(grown),
                numbers=f"Growth of the gap in {what}: {grown.text(digits=4)}.",
            )
        )
    return found


def _draw(options, rows, path):
    from kresnets.report import figures

    made = figures.figure(1100, 420, layout="constrained")
    left, middle, right = made.subplots(1, 3)
    deepest = max(row["depth"] for row in rows)
    for kind, colour in KINDS.items():
        rates.curves(left, rows, "-", colour, kind, kind=kind, depth=deepest)
    left.set(title=f"{deepest} layers, a line a seed", xlabel="epoch", ylabel="training loss", yscale="log")
    left.legend(frameon=False)
    for axis, column in ((middle, "train_loss"), (right, "test_error")):
        rates.by_column(axis, rows, "depth", column, "kind", KINDS)
        axis.set(xlabel="layers", ylabel=column.replace("_", " "))
    middle.set_yscale("log")
    for axis in (left, middle, right):
        axis.spines[["top", "right"]].set_visible(False)
    figures.save(made, path)


CLAIM = Claim(
    title="pre-activation (v2) learns more easily than v1, the more so the deeper the network is",
    source=(
        "arXiv 1603.05027 section 4.1, table 2 (CIFAR-10, 110 layers: 6.61 to 6.37 % error; 1001 layers: 7.61 to "
        "4.92 %)"
    ),
    settings=_settings,
    measure=lambda setting: rates.learned(spec(setting["kind"], setting["depth"]), setting),
    findings=_findings,
    draw=_draw,
    cost=lambda setting: setting["depth"] + 10.0,
    notes=("Both kinds have the same blocks, widths and shortcuts (A), each at its own best rate of the same few.",),
)
