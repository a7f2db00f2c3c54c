"""Can scores be trusted: how often answers of a probability are right, and the temperature that mends it."""

import numpy as np

from kresnets.report import figures

_BINS = 10
_FEWEST = 50  # validation images to fit a temperature to


def calibration_error(labels, probabilities, bins=_BINS):
    """Return the expected calibration error (arXiv 1706.04599 section 2) in bins of as many images each, and the bins.

    Args:
        labels: integers `(images,)`.
        probabilities: floats `(images, classes)`.
        bins: int, how many bins; fewer where there are fewer images. Defaults to 10.

    Returns:
        float 0..1, and a list of `(mean probability, share that is right, count)`.

    Example:
        >>> from kresnets.report.calibration import calibration_error
        >>> round(calibration_error([0, 0, 1, 1], [[0.9, 0.1]] * 4, bins=1)[0], 3)
        0.4
    """
    labels, probabilities = np.asarray(labels), np.nan_to_num(np.asarray(probabilities, "float64"))
    sure, right = probabilities.max(1), probabilities.argmax(1) == labels
    parts = np.array_split(np.argsort(sure, kind="stable"), min(bins, len(labels)))
    found = [(float(sure[part].mean()), float(right[part].mean()), len(part)) for part in parts]
    return float(sum(count * abs(said - is_) for said, is_, count in found) / len(labels)), found


def temperature(labels, probabilities):
    """Return the number that logarithms of probabilities are divided by to fit images best (arXiv 1706.04599 section
    4.2): above 1 where the model is too sure of itself.

    Args:
        labels: integers `(images,)` of images that were not learned from.
        probabilities: floats `(images, classes)`.

    Example:
        >>> from kresnets.report.calibration import temperature
        >>> temperature([0, 0, 0, 1], [[0.9, 0.1]] * 4) > 1
        True
    """
    from scipy.optimize import minimize_scalar

    logs, rows = np.log(np.clip(probabilities, 1e-12, 1)), np.arange(len(labels))

    def loss(log_temperature):
        return -np.log(np.maximum(softened(logs, np.exp(log_temperature))[rows, labels], 1e-12)).mean()

    return float(np.exp(minimize_scalar(loss, bounds=(np.log(0.1), np.log(10)), method="bounded").x))


def softened(logs, by):
    """Return probabilities of logarithms of such, at a temperature."""
    from scipy.special import softmax

    return softmax(np.asarray(logs, "float64") / by, axis=-1)


def answer(run, said):
    """Return whether scores can be trusted, for the page and for metrics.json; draw `calibration.png`.

    Args:
        run: a `kresnets.runs.folder.RunFolder`.
        said: dict `validation`, `test` -> (`kresnets.data.Part`, float array `(images, classes)` of probabilities).
    """
    (validation, before), (test, probabilities) = said["validation"], said["test"]
    if not (np.isfinite(before).all() and np.isfinite(probabilities).all()):
        return ["Not told: some answers are no finite numbers."], {}
    error, bins = calibration_error(test.labels, probabilities)
    numbers = {"error": error}
    surer = sum(count * (mean - right) for mean, right, count in bins) / len(test)
    told = f"On the test images the model is {probabilities.max(1).mean():.0%} sure on average and right in "
    told += (
        f"{np.mean(probabilities.argmax(1) == test.labels):.0%}: too {'sure' if surer > 0 else 'unsure'} of itself by "
    )
    told += f"{abs(surer):.1%}; expected calibration error {error:.3f}."
    curves = {"as it is": bins}
    if len(validation) >= _FEWEST:
        by = temperature(validation.labels, before)
        mended, curves["with the temperature"] = calibration_error(
            test.labels, softened(np.log(np.clip(probabilities, 1e-12, 1)), by)
        )
        numbers |= {"temperature": by, "error_with_temperature": mended}
        told += f" A temperature of {by:.2f}, fitted to the {len(validation)} validation images, makes it {mended:.3f}."
    else:
        told += f" {len(validation)} validation images are too few to fit a temperature to ({_FEWEST} would do)."
    _draw(curves, run / "calibration.png")
    return [told, run / "calibration.png"], numbers


def _draw(curves, path):
    made = figures.figure(340, 340, layout="constrained")
    axes = made.subplots()
    axes.plot([0, 1], [0, 1], color="#888", linestyle="--", linewidth=1)
    for (name, bins), colour in zip(curves.items(), ("#b3261e", "#1f4e9c")):
        axes.plot(*zip(*((said, right) for said, right, _ in bins)), marker="o", label=name, color=colour)
    axes.set_xlim(0, 1.02)
    axes.set_ylim(0, 1.02)
    axes.set_xlabel("probability of the answer", fontsize=figures.TEXT)
    axes.set_ylabel("share that is right", fontsize=figures.TEXT)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=figures.TEXT)
    figures.save(made, path)
