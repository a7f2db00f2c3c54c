"""Which threshold: at two classes, what each probability from which on the second one is said would find and cost."""

import numpy as np

from kresnets.report import figures

_COSTS = ((1, 1), (5, 1), (10, 1), (1, 5), (1, 10))  # of a miss, of a false alarm


def choices(truth, scores):
    """Return thresholds that validation images speak for, `{why: threshold}`.

    Args:
        truth: array `(images,)`, 1 or True where an image is of the second class.
        scores: floats `(images,)`, its probability.

    Returns:
        A dict: the highest F1, the highest sum of recall and specificity (Youden's J, Cancer 3, 1950), and the least
        cost where a miss costs 1, 5 and 10 times a false alarm, or the other way round.

    Example:
        >>> from kresnets.report.threshold import choices
        >>> round(choices([0, 0, 1, 1], [0.1, 0.3, 0.35, 0.9])["highest F1"], 3)
        0.325
    """
    truth, scores = np.asarray(truth, bool), np.asarray(scores, "float64")
    levels = np.unique(scores)
    cuts = np.concatenate(
        [[max(0.0, levels[0])], (levels[1:] + levels[:-1]) / 2, [min(1.0, np.nextafter(levels[-1], 2))]]
    )
    said = scores[:, None] >= cuts
    hits, alarms = (said & truth[:, None]).sum(0), (said & ~truth[:, None]).sum(0)
    misses, positives = truth.sum() - hits, truth.sum()
    worth = {
        "highest F1": 2 * hits / np.maximum(said.sum(0) + positives, 1),
        "highest recall + specificity": hits / max(1, positives) - alarms / max(1, (~truth).sum()),
    }
    for miss, alarm in _COSTS:
        worth[_costs(miss, alarm)] = -(miss * misses + alarm * alarms)
    found = {}
    for why, values in worth.items():
        best = np.flatnonzero(values == values.max())
        found[why] = float(cuts[best[np.argmin(np.abs(cuts[best] - 0.5))]])  # of equals the nearest to a half
    return found


def answer(run, said):
    """Return which threshold, for the page and for metrics.json, of two classes; draw `threshold.png`.

    Args:
        run: a `kresnets.runs.folder.RunFolder`.
        said: dict `validation`, `test` -> (`kresnets.data.Part`, float array `(images, 2)` of probabilities).
    """
    (validation, before), (test, after) = said["validation"], said["test"]
    known, name = (np.isfinite(before).all() and np.isfinite(after).all()), validation.class_names[1]
    if not known or len(set(validation.labels.tolist())) < 2 or len(set(test.labels.tolist())) < 2:
        return ["Not told: it takes finite answers and images of both classes in validation and test."], {}
    other = validation.class_names[0]
    rows = [("threshold by", "from", f"{name} found", f"{other} found", "rightly said", "accuracy")]
    words = {_costs(miss, alarm): _in_words(miss, alarm, name, other) for miss, alarm in _COSTS}
    found = choices(validation.labels == 1, before[:, 1])
    for why, cut in {"as it is": 0.5, **found}.items():
        rows.append((words.get(why, why), cut, *_judged(test.labels == 1, after[:, 1] >= cut)))
    _draw(test.labels == 1, after[:, 1], found, name, run / "threshold.png")
    told = (
        f"The {len(validation)} validation images choose from which probability on an image is called {name!r}; the "
        "test images judge that. What a mistake costs is yours to say: take the row of your case."
    )
    return [told, run / "threshold.png", rows], {"thresholds": found}


def _costs(miss, alarm):
    return f"least cost, a miss {miss} : {alarm} a false alarm"


def _in_words(miss, alarm, name, other):
    """Say costs of these two classes: a miss is one of the second, a false alarm is one of the first that is missed."""
    if miss == alarm:
        return "least cost, either missed costs the same"
    dear, cheap = (name, other) if miss > alarm else (other, name)
    return f"least cost, {dear} missed costs {max(miss, alarm)} times {cheap} missed"


def _judged(truth, said):
    hits = (truth & said).sum()
    precision = float(hits / said.sum()) if said.any() else None
    return (
        float(hits / truth.sum()),
        float((~truth & ~said).sum() / (~truth).sum()),
        precision,
        float((truth == said).mean()),
    )


def _draw(truth, scores, found, name, path):
    from sklearn.metrics import precision_recall_curve, roc_curve

    made = figures.figure(860, 420, layout="constrained")
    roc, precision = made.subplots(1, 2)
    alarms, recall, _ = roc_curve(truth, scores)
    roc.plot(alarms, recall, linewidth=2.2)
    roc.plot([0, 1], [0, 1], color="#999", linewidth=1)
    cut = found["highest F1"]
    _, specificity, exact, _ = _judged(truth, scores >= cut)
    hit = (truth & (scores >= cut)).sum() / truth.sum()
    roc.scatter([1 - specificity], [hit], s=70, color="#d95f02", zorder=3, label=f"from {cut:.2f} on")
    roc.set_xlabel("share of the others that are called so", fontsize=figures.TEXT)
    roc.set_ylabel(
        figures.fitted(made.canvas, f"share of {name} that is found", 330), fontsize=figures.TEXT, parse_math=False
    )
    exacts, recalls, _ = precision_recall_curve(truth, scores)
    precision.step(recalls, exacts, where="post", linewidth=2.2)
    if exact is not None:
        precision.scatter([hit], [exact], s=70, color="#d95f02", zorder=3)
    precision.set_xlabel("recall", fontsize=figures.TEXT)
    precision.set_ylabel("precision", fontsize=figures.TEXT)
    for axes in (roc, precision):
        axes.set_xlim(-0.02, 1.02), axes.set_ylim(-0.02, 1.02)
        axes.tick_params(labelsize=figures.TEXT)
        axes.grid(color="#e4e4e4")
    roc.legend(fontsize=figures.TEXT, loc="lower right")
    figures.save(made, path)
