"""The pictures of what a classifier answered: the confusion matrix and the worst mistakes."""

import math
from collections.abc import Sequence

import numpy as np

from kresnets._util.types import Array, PathLike
from kresnets.report import figures
from kresnets.report.metrics import predict_classes

_LINE = 22  # pixels, the height of a line of text
_PHOTO, _GAP, _CAPTION, _TITLE = 205, 10, 2 * _LINE + 2, 44  # pixels, of the worst mistakes
_RIGHT, _WRONG = "#1a7f37", "#b3261e"


def confusion(labels: Array, predictions: Array, class_names: Sequence[str], path: PathLike) -> None:
    """Draw the confusion matrix as a PNG: the shares of each true class, with counts where they fit.

    Args:
        labels: integers `(images,)`, the true classes.
        predictions: integers `(images,)`, the answers; -1 is no answer.
        class_names: list of strings; long ones are shortened, and of many every second, third ... is written.
        path: where the PNG goes.

    Raises:
        ValueError: for labels and predictions of different lengths, none, or without a name.

    Example:
        >>> from kresnets.report import confusion
        >>> confusion([0, 0, 1, 1], [0, 1, 1, 1], ["whole", "cracked"], "/tmp/confusion.png")
    """
    from sklearn.metrics import confusion_matrix

    labels, predictions = np.asarray(labels), np.asarray(predictions)
    if not len(labels) or labels.shape != predictions.shape:
        raise ValueError(f"There must be a prediction for each label. Received: {predictions.shape}, {labels.shape}")
    if labels.min() < 0 or max(labels.max(), predictions.max()) >= len(class_names):
        raise ValueError(
            f"Labels and predictions must be from 0 to {len(class_names) - 1}, the last of `class_names`. Received: "
            f"{labels.min()} to {max(labels.max(), predictions.max())}"
        )
    # The last column counts the images without an answer.
    answers = np.where(predictions < 0, len(class_names), predictions)
    counts = confusion_matrix(labels, answers, labels=range(len(class_names) + 1))[:-1]
    figures.save(_draw_confusion(counts[:, :-1], counts[:, -1].sum(), class_names), path)


def _draw_confusion(counts, unanswered, class_names):
    from matplotlib import colormaps

    classes = len(counts)
    cell = min(110, max(45, 440 / classes)) if classes <= 20 else min(_LINE, 1000 / classes)
    side = cell * classes
    made = figures.figure(100, 100)  # its canvas measures the names; then it takes the size they need
    names = figures.fitted_names(made.canvas, [str(name) for name in class_names], 230)
    widest = max(figures.text_width(made.canvas, name) for name in names)
    upright = widest > cell - 6  # names as wide as a column are turned
    left, bottom, right, top = widest + 50, (widest if upright else 20) + 50, 110, 20
    width, height = left + side + right, bottom + side + top
    made.set_size_inches(width / figures.DOTS, height / figures.DOTS)
    axes = made.add_axes((left / width, bottom / height, side / width, side / height))
    totals = counts.sum(axis=1, keepdims=True)
    shares = np.divide(counts, totals, out=np.full(counts.shape, np.nan), where=totals > 0)
    colours = colormaps["Blues"].with_extremes(bad="#dddddd")  # grey: no image of that class
    image = axes.imshow(shares, cmap=colours, vmin=0, vmax=1, interpolation="nearest", aspect="auto")
    step = math.ceil(_LINE / cell)
    shown, written = range(0, classes, step), {"fontsize": figures.TEXT, "parse_math": False}
    axes.set_xticks(shown, names[::step], rotation=90 if upright else 0, **written)
    axes.set_yticks(shown, names[::step], **written)
    axes.set_ylabel("true class" + (f" (one in {step} named)" if step > 1 else ""), fontsize=figures.TEXT + 1)
    axes.set_xlabel(
        "answer" + (f" ({unanswered} without one left out)" if unanswered else ""), fontsize=figures.TEXT + 1
    )
    _write_counts(made, axes, counts, shares, cell)
    bar = made.colorbar(
        image, cax=made.add_axes(((left + side + 15) / width, bottom / height, 15 / width, side / height))
    )
    bar.set_ticks([0, 0.25, 0.5, 0.75, 1], labels=["0", "¼", "½", "¾", "1"], fontsize=figures.TEXT)
    bar.set_label("share of the true class", fontsize=figures.TEXT)
    return made


def _write_counts(made, axes, counts, shares, cell):
    """Write each count into its cell, if all fit; a count of 0 only where there are few cells to read."""
    size = min(figures.TEXT + 2, figures.TEXT * 0.85 * cell / figures.text_width(made.canvas, str(counts.max())))
    if cell < 40 or size < 9:
        return
    for (row, column), count in np.ndenumerate(counts):
        if count or len(counts) <= 5:
            colour = "white" if shares[row, column] > 0.55 else "#222"
            axes.text(column, row, str(count), ha="center", va="center", color=colour, fontsize=size)


def worst_mistakes(labels: Array, probabilities: Array, count: int = 8) -> Array:
    """Return the indices of the worst mistakes: the surest of the wrong answers first.

    Without any mistake the right answers of the lowest probability are returned, the least sure first.

    Args:
        labels: integers `(images,)`, the true classes.
        probabilities: floats `(images, classes)`; a row that is not finite is a mistake, and comes last.
        count: int, at most so many. Defaults to 8.

    Returns:
        Integers `(up to count,)`.

    Example:
        >>> from kresnets.report import worst_mistakes
        >>> worst_mistakes([0, 1, 1], [[0.4, 0.6], [0.9, 0.1], [0.2, 0.8]]).tolist()
        [1, 0]
    """
    probabilities, answers = np.asarray(probabilities, dtype="float64"), predict_classes(probabilities)
    scores = np.where(answers < 0, -1, np.nan_to_num(probabilities).max(axis=1))
    wrong = np.flatnonzero(answers != np.asarray(labels))
    if len(wrong):
        return wrong[np.argsort(-scores[wrong], kind="stable")][:count]
    return np.argsort(scores, kind="stable")[:count]


def mistakes(
    images: Array,
    labels: Array,
    probabilities: Array,
    heat: Array,
    class_names: Sequence[str],
    path: PathLike,
    count: int = 8,
) -> None:
    """Draw the worst mistakes as a PNG: image, true label, answer, score, and beside it what the answer rests on.

    Without any mistake it shows the right answers that were least sure, and says so.

    Args:
        images: pixels 0..255, `(images, height, width, channels)`, or a list of such: all of the test part, or
            those that `worst_mistakes` named.
        labels: integers `(images,)`, the true classes.
        probabilities: floats `(images, classes)`.
        heat: floats 0..1 `(images, height, width)`, as `grad_cam` gives them, or None for images alone.
        class_names: list of strings.
        path: where the PNG goes.
        count: int, at most so many. Defaults to 8.

    Raises:
        ValueError: for no images, arguments of different lengths, or a heat map of another size than its image.

    Example:
        >>> import numpy as np
        >>> from kresnets.report import mistakes
        >>> mistakes(np.zeros((1, 8, 8, 3)), [1], [[0.7, 0.3]], None, ["whole", "cracked"], "/tmp/mistakes.png")
    """
    lengths = [len(images), len(labels), len(probabilities), len(images if heat is None else heat)]
    if min(lengths) < 1 or len(set(lengths)) > 1:
        raise ValueError(
            f"`images`, `labels`, `probabilities`, `heat` must be as many, and one at least. Received: {lengths}"
        )
    probabilities = np.asarray(probabilities, dtype="float64")
    cards = [
        (np.asarray(images[i]), None if heat is None else np.asarray(heat[i]), labels[i], probabilities[i])
        for i in worst_mistakes(labels, probabilities, count)
    ]
    for image, warmth, _, _ in cards:
        if warmth is not None and warmth.shape != image.shape[:2]:
            raise ValueError(f"A heat map must be as large as its image. Received: {warmth.shape}, {image.shape}")
    figures.save(_draw_mistakes(cards, class_names), path)


def _draw_mistakes(cards, class_names):
    pictures = 1 if cards[0][1] is None else 2  # of a card
    columns = min(4 // pictures, len(cards))
    card_width, card_height = pictures * (_PHOTO + _GAP) - _GAP, _CAPTION + _PHOTO + 2 * _GAP
    width = max(2 * _PHOTO + 3 * _GAP, columns * (card_width + 2 * _GAP))
    height = _TITLE + math.ceil(len(cards) / columns) * card_height
    made = figures.figure(width, height)
    right = all(predict_classes(scores[None])[0] == label for _, _, label, scores in cards)
    title = "No mistakes: the right answers it was least sure of" if right else "The surest wrong answers"
    title = figures.fitted(made.canvas, title + (", and what they rest on" if pictures == 2 else ""), width - 2 * _GAP)
    made.text(_GAP / width, 1 - _TITLE / 2 / height, title, va="center", fontsize=figures.TEXT)
    for i, (image, heat, label, scores) in enumerate(cards):
        left = _GAP + (i % columns) * (card_width + 2 * _GAP)
        top = _TITLE + i // columns * card_height
        for line, text in enumerate(_captions(made, label, scores, class_names, card_width)):
            colour = _WRONG if line and not right else _RIGHT
            place = (left / width, 1 - (top + _LINE * line) / height)
            made.text(*place, text, fontsize=figures.TEXT, parse_math=False, va="top", color=colour)
        for j in range(pictures):
            x, y = left + j * (_PHOTO + _GAP), height - top - _CAPTION - _PHOTO
            axes = made.add_axes((x / width, y / height, _PHOTO / width, _PHOTO / height))
            axes.set_axis_off()
            _show(axes, image, heat if j else None)
    return made


def _captions(made, label, scores, class_names, pixels):
    answer = predict_classes(scores[None])[0]
    answered = (class_names[answer], f"  {scores[answer]:.2f}") if answer >= 0 else ("none, not a finite number", "")
    for lead, name, tail in (("true: ", class_names[label], ""), ("answer: ", *answered)):
        room = pixels - figures.text_width(made.canvas, lead) - figures.text_width(made.canvas, tail)
        yield lead + figures.fitted(made.canvas, name, room) + tail


def _show(axes, image, heat):
    from matplotlib import colormaps

    pixels = figures.colours(image)
    if heat is not None:  # over a grey image: the colours are the heat's alone
        grey = pixels @ np.array([0.299, 0.587, 0.114])[:, None]
        strength = 0.65 * heat[..., None]
        pixels = (1 - strength) * grey + strength * colormaps["inferno"](0.25 + 0.75 * heat)[..., :3]
    axes.imshow(pixels, interpolation="hanning")  # smooth both ways, for a small image and a large one
