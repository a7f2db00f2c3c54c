"""How good a model of numbers is (regression), with the picture of its answers against the truth."""

import numpy as np

from kresnets.report import figures
from kresnets.report.predictions import linked

_NORMAL = 1.959963984540054  # two-sided, 95 %
_DRAWN = 4  # numbers that have a panel
_MOST = 200  # mistakes on the page


def evaluate(truth, answers, names, usual):
    """Return the numbers of a regression on the test part, ready for JSON.

    Args:
        truth: floats `(images, numbers)`.
        answers: the same, what the model says.
        names: of the numbers.
        usual: floats `(numbers,)`, the mean of each over the training images, for whoever knows nothing else.

    Returns:
        A dict: `count`; `r2` (share of the variance that is explained, the mean over numbers; 0 for always answering
        the test images' own mean); for one number `mae` (mean absolute error) with its 95 % interval, by the normal
        distribution, and `rmse`; `per_number`, name -> `mae`, `mae_interval`, `rmse`, `r2`, `mae_of_the_mean`; `notes`.

    Example:
        >>> from kresnets.report.regression import evaluate
        >>> evaluate([[1.0], [3.0]], [[1.5], [2.5]], ["age"], [2.0])["mae"]
        0.5
    """
    from sklearn.metrics import r2_score

    truth, answers = np.asarray(truth, "float64"), np.asarray(answers, "float64")
    table, notes = {}, []
    for n, name in enumerate(names):
        errors = np.abs(answers[:, n] - truth[:, n])
        half = _NORMAL * errors.std(ddof=1) / np.sqrt(len(errors)) if len(errors) > 1 else np.inf
        mae, known = float(errors.mean()), np.isfinite(errors).all()
        if not known:
            notes.append(f"{(~np.isfinite(errors)).sum()} answers for {name!r} are not finite numbers.")
        table[name] = {
            "mae": mae, "mae_interval": [max(0.0, mae - half), mae + half], "rmse": float(np.sqrt((errors**2).mean())),
            "r2": float(r2_score(truth[:, n], answers[:, n])) if known and len(errors) > 1 else None,
            "mae_of_the_mean": float(np.abs(truth[:, n] - usual[n]).mean()),
        }  # fmt: skip
        notes.append(
            f"Always answering the mean of the training images ({usual[n]:.4g}) for {name!r} would be wrong by "
            f"{table[name]['mae_of_the_mean']:.4g} in the mean; this model is by {mae:.4g}."
        )
    explained = [row["r2"] for row in table.values() if row["r2"] is not None]
    first = next(iter(table.values()))
    alone = {key: first[key] for key in ("mae", "mae_interval", "rmse")} if len(names) == 1 else {}
    return {
        "count": len(truth), **alone, "r2": float(np.mean(explained)) if explained else None, "per_number": table,
        "notes": notes,
    }  # fmt: skip


def scatter(truth, answers, names, path):
    """Draw answers against the truth as a PNG, a panel for each of the first numbers."""
    truth, answers = np.asarray(truth, "float64"), np.asarray(answers, "float64")
    count = min(_DRAWN, len(names))
    columns = min(2, count)
    made = figures.figure(450 * columns, 430 * -(-count // columns), layout="constrained")
    for n, axes in enumerate(made.subplots(-(-count // columns), columns, squeeze=False).ravel()):
        if n >= count:
            axes.set_axis_off()
            continue
        ends = np.nanmin([truth[:, n], answers[:, n]]), np.nanmax([truth[:, n], answers[:, n]])
        axes.plot(ends, ends, color="#999", linewidth=1)
        axes.scatter(truth[:, n], answers[:, n], s=22, alpha=0.6, color="#1f77b4", edgecolors="none")
        name = figures.fitted(made.canvas, names[n], 250)
        axes.set_xlabel(f"{name}, as it is", fontsize=figures.TEXT, parse_math=False)
        axes.set_ylabel(f"{name}, as answered", fontsize=figures.TEXT, parse_math=False)
        axes.tick_params(labelsize=figures.TEXT - 1)
        axes.grid(color="#e4e4e4")
    figures.save(made, path)


def mistakes(run, part, answers):
    """Return rows for the page, the header first: the largest errors, each file linked."""
    errors = answers - part.labels
    worst = np.abs(errors / np.maximum(part.labels.std(0), 1e-12))
    order = np.argsort(-worst.max(1), kind="stable")[:_MOST]
    rows = [
        (
            linked(run, part, index),
            part.class_names[n],
            *(f"{one[index, n]:.5g}" for one in (part.labels, answers, errors)),
        )
        for index in order
        for n in [worst[index].argmax()]
    ]
    return [("file", "number", "as it is", "answer", "error"), *rows] if rows else []
