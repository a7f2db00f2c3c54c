"""Deeper plain networks are worse, on the very images that they learn from; residual ones are not."""

import dataclasses

import numpy as np

from _claims import rates
from _claims.claim import Claim, Finding
from _claims.verdicts import above, paired

KINDS = {"plain": "CifarPlainNet20", "residual": "CifarResNet20"}
RATES = (0.01, 0.03, 0.1, 0.3)
COLOURS = {"plain": "#c2410c", "residual": "#1d4ed8"}
# What the paper gives for CIFAR-10, test error in percent (table 6).
PUBLISHED = {20: 8.75, 32: 7.51, 44: 7.17, 56: 6.97, 110: 6.43}


def spec(kind, depth):
    """Return the row of a CIFAR network: 6n + 2 layers, n blocks in each of three stages (arXiv 1512.03385 section
    4.2)."""
    import kresnets

    row = kresnets.SPECS[KINDS[kind]]
    return dataclasses.replace(row, depths=((depth - 2) // 6,) * 3, min_size=8, params=None)


def _settings(options, rows):
    data = options.data or "digits"
    if options.recipe == "paper":  # its schedule is of as many steps as CIFAR-10 makes
        network = {"data": options.data or "cifar10", "size": 32, "recipe": "paper", "epochs": 164, "rate": 0.1}
        seeds, depths = range(options.seeds or 3), (20, 56)
        return [network | {"kind": k, "depth": d, "seed": seed} for seed in seeds for k in KINDS for d in depths]
    depths = (20, 56) if options.quick or data != "digits" else (8, 14, 20, 32, 56)
    network = rates.images(options) | {"recipe": "short"}
    network["epochs"] = 3 if options.quick else 30 if data == "digits" else 15
    networks = [network | {"kind": kind, "depth": depth} for kind in KINDS for depth in depths]
    tried = (0.03,) if options.quick else RATES if data == "digits" else RATES[1:]
    return rates.tuned(networks, tried, options.seeds or (1 if options.quick else 5 if data == "digits" else 3), rows)


def _measure(setting):
    return rates.learned(spec(setting["kind"], setting["depth"]), setting)


def _findings(options, rows):
    def deeper(kind, column):
        ends = (rates.compared(rows, column, kind=kind, depth=depth) for depth in (56, 20))
        return paired(*ends)

    def both(column):
        wheres = [{"kind": kind, "depth": depth} for kind in KINDS for depth in (20, 56)]
        return ", ".join(
            f"{where['kind']} {where['depth']} {rates.mean(rows, column, **where):.4f}" for where in wheres
        )

    def times(kind):
        """Return log10 of how many times the loss of 20 layers that of 56 is."""
        ends = (rates.compared(rows, "train_loss", kind=kind, depth=depth) for depth in (56, 20))
        return paired(*({seed: float(np.log10(loss)) for seed, loss in each.items()} for each in ends))

    plain, ratio, residual = deeper("plain", "train_loss"), times("plain"), times("residual")
    gap = paired(dict(enumerate(ratio.values)), dict(enumerate(residual.values)))
    shallow = deeper("plain", "test_error")
    errors = {depth: rates.compared(rows, "train_error", kind="residual", depth=depth) for depth in (20, 56)}
    saved = paired(errors[20], errors[56])
    return [
        Finding(
            claim="A plain network of 56 layers ends above one of 20 on its own training images.",
            verdict=above(ratio),
            numbers=f"log10 of the training loss, 56 less 20 layers: {ratio.text(digits=2)}; the loss itself: "
            f"{plain.text(digits=4)}, which alone would be {above(plain)}. Means: {both('train_loss')}.",
        ),
        Finding(
            claim="Depth costs a plain network more than a residual one.",
            verdict=above(gap),
            numbers=f"log10 of the training loss, (plain 56 - 20) less (residual 56 - 20): {gap.text(digits=2)}.",
        ),
        Finding(
            claim=(
                "A residual network of 56 layers makes at most 1 point more errors on its training images than "
                "one of 20."
            ),
            verdict=above(saved, -0.01),
            numbers=f"Training error, 20 less 56 layers: {saved.text(' points', 2, 100)}.",
        ),
        Finding(
            claim="A plain network of 56 layers makes more errors than one of 20 on images it has not seen.",
            verdict=above(shallow),
            numbers=f"Test error: {shallow.text(' points', 2, 100)}. Means: {both('test_error')}.",
        ),
    ]


def _draw(options, rows, path):
    from kresnets.report import figures

    made = figures.figure(1100, 420, layout="constrained")
    left, middle, right = made.subplots(1, 3)
    middle.sharey(left)
    for axis, kind in ((left, "plain"), (middle, "residual")):
        for depth, style in ((20, "--"), (56, "-")):
            rates.curves(axis, rows, style, COLOURS[kind], f"{depth} layers", kind=kind, depth=depth)
        axis.set(title=kind, xlabel="epoch", yscale="log", ylabel="training loss" if axis is left else None)
        axis.legend(frameon=False)
    rates.by_column(right, rows, "depth", "train_loss", "kind", COLOURS)
    right.set(title="at the end, in inference", xlabel="layers", yscale="log", ylabel="loss on training images")
    for axis in (left, middle, right):
        axis.spines[["top", "right"]].set_visible(False)
    figures.save(made, path)


CLAIM = Claim(
    title="plain networks get worse when they are deeper, on their training images too; residual ones do not",
    source="arXiv 1512.03385 section 4.2, figure 6",
    settings=_settings,
    measure=_measure,
    findings=_findings,
    draw=_draw,
    cost=lambda setting: setting["depth"] + 6.0,
    recipes=("short", "paper"),
    notes=(
        "Training losses lie on a scale of powers of ten, as in the picture, so they are compared by their "
        "logarithms; the "
        "plain difference is given beside. (Decided after the first three seeds, in which the difference varied most.)",
        "SGD with momentum 0.9. Unless by --recipe paper, each network learns at its own best rate of the same few (by "
        "the training loss of one more seed), with a cosine and no augmentation.",
        "The paper's test errors on CIFAR-10 with its full recipe (--data cifar10 --recipe paper): "
        + ", ".join(f"{depth} layers {error} %" for depth, error in PUBLISHED.items())
        + "; plain networks are worse at 56 layers than at 20 in its figure 6.",
    ),
)
