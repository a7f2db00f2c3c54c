"""Would more photographs help: the accuracy of a fit on a part of them, and what twice as many would give."""

import numpy as np

from kresnets.report import figures

SHARES = (1 / 8, 1 / 4, 1 / 2, 1.0)
_ROUNDS = 2  # of folds
_FEWEST = 2  # images of the rarest class in the smallest draw


def learning_curve(frozen):
    """Return the accuracy on images that a fit did not see, by how many it learned from.

    Args:
        frozen: `kresnets.transfer.frozen.Frozen`, without the test part.

    Returns:
        `(counts, accuracies)`: integers `(shares,)` and floats `(folds, shares)`; None where images are too few.
    """
    pairs = [pair for seed in range(_ROUNDS) for pair in frozen.folds(seed)]
    if not pairs:
        return None
    rarest = np.bincount(frozen.labels).min() * len(pairs[0][0]) / len(frozen.labels)
    shares = [share for share in SHARES if share * rarest >= _FEWEST]
    if len(shares) < 3:
        return None
    found = np.empty((len(pairs), len(shares)))
    for fold, (learn, judged) in enumerate(pairs):
        order = _in_proportion(np.random.default_rng(fold).permutation(learn), frozen.labels)
        for place, share in enumerate(shares):
            chances = frozen.chances(order[: round(share * len(order))], judged)
            found[fold, place] = np.mean(chances.argmax(1) == frozen.labels[judged])
    return np.array([round(share * len(pairs[0][0])) for share in shares]), found


def _in_proportion(rows, labels):
    from kresnets.data.split import take

    return np.array(take(rows.tolist(), labels.tolist(), len(rows)))


def doubled(counts, accuracies):
    """Return what twice as many images than the last count would give: mean, low, high (95 %).

    Errors fall as a power of the count to what no number of images takes away, `error = a + b count^-c` (arXiv
    1712.00409): fitted to the mean curve, `c` from 0.1 to 1; the interval is that of the folds' own last point, moved.

    Example:
        >>> import numpy as np
        >>> counts = np.array([50, 100, 200, 400])
        >>> [round(float(end), 3) for end in doubled(counts, 1 - (0.05 + 2 * counts ** -0.5)[None].repeat(5, 0))]
        [0.879, 0.879, 0.879]
    """
    from scipy import stats
    from scipy.optimize import nnls

    errors, best = 1 - accuracies.mean(0), None
    for power in np.linspace(0.1, 1, 91):
        design = np.stack([np.ones(len(counts)), counts**-power], axis=1)
        weights = np.sqrt(counts)[:, None]  # the larger a draw, the surer
        solved, left = nnls(design * weights, errors * weights[:, 0])
        if best is None or left < best[0]:
            best = left, 1 - solved @ [1, (2 * counts[-1]) ** -power]
    last = accuracies[:, -1]
    # Folds share images: their spread alone would promise too much (Nadeau and Bengio, Mach. Learn. 52, 2003).
    spread = np.std(last, ddof=1) * np.sqrt(1 / len(last) + 1 / 4) if len(last) > 1 else 0.0
    reach = stats.t.ppf(0.975, max(1, len(last) - 1)) * spread
    return best[1], max(0.0, best[1] - reach), min(1.0, best[1] + reach)


def answer(run, frozen):
    """Return whether more photographs would help, for the page and for metrics.json; draw `learning_curve.png`.

    Args:
        run: a `kresnets.runs.folder.RunFolder`.
        frozen: `kresnets.transfer.frozen.Frozen`, of all parts.
    """
    curve = learning_curve(frozen.of("train", "validation"))
    if curve is None:
        return ["Not told: there are too few images to draw a curve of."], {}
    counts, accuracies = curve
    mean, low, high = doubled(counts, accuracies)
    _draw(counts, accuracies, (mean, low, high), run / "learning_curve.png")
    now = accuracies[:, -1].mean()
    told = (
        f"By logistic regression on what the pretrained trunk makes of the images: {now:.3f} with {counts[-1]} images, "
        f"and with twice as many about {mean:.3f} (95 %: {low:.3f} to {high:.3f}). Fine-tuning starts higher or lower, "
        "but gains alike."
    )
    numbers = {"counts": counts.tolist(), "accuracy": accuracies.mean(0).tolist(), "doubled": [mean, low, high]}
    return [told, run / "learning_curve.png"], numbers


def _draw(counts, accuracies, expected, path):
    made = figures.figure(640, 380, layout="constrained")
    axes = made.subplots()
    mean, low, high = expected
    for row in accuracies:
        axes.plot(counts, row, color="#9db4d6", linewidth=0.8)
    axes.plot(counts, accuracies.mean(0), color="#1f4e9c", marker="o", label="mean of the folds")
    axes.errorbar([2 * counts[-1]], [mean], [[mean - low], [high - mean]], fmt="o", color="#b3261e", capsize=4,
                  label="expected of twice as many")  # fmt: skip
    axes.set_xscale("log")
    ticks = [*counts.tolist(), 2 * int(counts[-1])]
    axes.set_xticks(ticks, [f"{tick:,}" for tick in ticks])
    axes.minorticks_off()
    axes.set_xlabel("images to learn from", fontsize=figures.TEXT)
    axes.set_ylabel("accuracy on other images", fontsize=figures.TEXT)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=figures.TEXT)
    figures.save(made, path)
