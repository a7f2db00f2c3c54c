"""What the pretrained trunk knows: a map of the images in two dimensions, and what a mistake is like."""

import numpy as np

from kresnets.report import figures

_MAPPED = 1000  # images on the map
_FEWEST = 5  # images
_NAMED = 10  # classes with a colour of their own
_MISTAKES, _NEIGHBOURS = 4, 4


def answer(run, data, config, seen, probabilities):
    """Return what the trunk knows, for the page; draw `feature_map.png` and `neighbours.png`.

    Args:
        run: a `kresnets.runs.folder.RunFolder`.
        data: `kresnets.data.Data`.
        config: what the run's config.json holds.
        seen: `kresnets.transfer.frozen.Frozen`.
        probabilities: floats `(test images, classes)`.
    """
    from kresnets.report.answers import worst_mistakes
    from kresnets.report.metrics import predict_classes

    if len(seen.labels) < _FEWEST or not np.ptp(seen.features, axis=0).any():
        return ["Not drawn: there are too few images, or all are the same to the trunk."], {}
    _draw_map(seen, data.class_names, run / "feature_map.png")
    told = [
        "Each dot is an image, as the pretrained trunk sees it (t-SNE of its features): classes that lie apart are "
        "easy for it, dots among those of another class are hard, or labelled wrong.",
        run / "feature_map.png",
    ]
    answers = predict_classes(probabilities)
    wrong = [i for i in worst_mistakes(data.test.labels, probabilities, 20) if answers[i] != data.test.labels[i]]
    learned, tested = seen.of("train"), seen.of("test")
    places = {int(row): place for place, row in enumerate(tested.rows)}
    wrong = [i for i in wrong if int(i) in places][:_MISTAKES]
    if wrong and len(learned.labels) >= _NEIGHBOURS:
        near = neighbours(learned.features, tested.features[[places[int(i)] for i in wrong]], _NEIGHBOURS)
        _draw_neighbours(data, config, wrong, answers, learned, near, run / "neighbours.png")
        told += [
            "On the left mistakes, the surest first, answer above label; beside each the training images most like it.",
            run / "neighbours.png",
        ]
    return told, {}


def neighbours(learned, asked, count):
    """Return for each of some features, `(asked, d)`, the rows of the most similar of others, by their cosine.

    Example:
        >>> from kresnets.report.feature_map import neighbours
        >>> neighbours([[1.0, 0.0], [0.0, 1.0]], [[0.2, 0.9]], 1).tolist()
        [[1]]
    """
    one, other = (
        np.asarray(x, "float64") / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12) for x in (learned, asked)
    )
    return np.argsort(-(other @ one.T), axis=1, kind="stable")[:, :count]


def mapped(features):
    """Return features as points of a plane, `(images, 2)`, by t-SNE from the principal components."""
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE

    few = PCA(min(30, *features.shape), random_state=0).fit_transform(features)
    perplexity = max(2.0, min(30.0, (len(features) - 1) / 4))
    return TSNE(init="pca", perplexity=perplexity, random_state=0, max_iter=500).fit_transform(few)


def _draw_map(seen, names, path):
    rows = np.sort(np.random.default_rng(0).permutation(len(seen.labels))[:_MAPPED])
    points, labels, tests = mapped(seen.features[rows]), seen.labels[rows], seen.parts[rows] == "test"
    made = figures.figure(760, 560, layout="constrained")
    axes = made.subplots()
    frequent = np.argsort(-np.bincount(labels, minlength=len(names)), kind="stable")[:_NAMED]
    others = ~np.isin(labels, frequent)
    axes.scatter(*points[others].T, s=14, color="#bbb", edgecolors="none")
    for place, label in enumerate(frequent):
        mine, colour = labels == label, f"C{place}"
        axes.scatter(
            *points[mine & ~tests].T,
            s=26,
            color=colour,
            edgecolors="none",
            label=figures.name_of(made, names[label], 180),
        )
        axes.scatter(*points[mine & tests].T, s=30, facecolors="none", edgecolors=colour, linewidths=1.2)
    axes.scatter([], [], facecolors="none", edgecolors="#444", label="a ring: test image")
    axes.set_xticks([]), axes.set_yticks([])
    figures.legend(made, loc="outside right upper")
    figures.save(made, path)


def _draw_neighbours(data, config, wrong, answers, learned, near, path):
    size, crop = max(96, config["size"]), config["preprocess"]["crop"]
    asked = data.test.pixels(size, wrong, crop)
    names, photo, gap, text = data.class_names, 130, 10, 44
    columns = near.shape[1] + 1
    width, height = columns * (photo + gap) + 3 * gap, len(wrong) * (photo + text)
    made = figures.figure(width, height)
    for line, (row, like) in enumerate(zip(wrong, near)):
        pixels = [asked[line], *data.train.pixels(size, learned.rows[like], crop)]
        said = [names[label] for label in (data.test.labels[row], *learned.labels[like])]
        answer = names[answers[row]] if answers[row] >= 0 else "no finite number"
        for column, (image, caption) in enumerate(zip(pixels, said)):
            lines = [(caption, "#222")] if column else [(answer, "#b3261e"), (caption, "#1a7f37")]
            x, y = column * (photo + gap) + gap + 2 * gap * bool(column), height - (line + 1) * (photo + text)
            figures.photograph(made, (x, y, photo, photo), image)
            for nth, (text_line, colour) in enumerate(lines):
                made.text(
                    x / width, (y + photo + 6 + 19 * nth) / height, figures.fitted(made.canvas, text_line, photo),
                    parse_math=False, fontsize=figures.TEXT - 1, color=colour,
                )  # fmt: skip
    figures.save(made, path)
