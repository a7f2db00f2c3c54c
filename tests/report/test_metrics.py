"""The numbers of a run against scikit-learn, scipy and a plain bootstrap."""

import json
import time

import numpy as np
import pytest
import scipy.stats
import sklearn.metrics

from kresnets.report.metrics import _auc_of_cells, evaluate, predict_classes


def answers(images, classes, seed=0, strength=0.4):
    """Labels and probabilities of a classifier that is often right; scores are rounded so that ties occur."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, images)
    probabilities = rng.dirichlet(np.ones(classes), images).round(2)
    probabilities[np.arange(images), labels] += strength
    return labels, probabilities / probabilities.sum(axis=1, keepdims=True)


def names(classes):
    return [f"class {i}" for i in range(classes)]


@pytest.mark.parametrize("classes", [2, 10])
def test_point_values_are_scikit_learns(classes):
    labels, probabilities = answers(650, classes)
    predictions = probabilities.argmax(axis=1)
    result = evaluate(labels, probabilities, names(classes))
    assert result["accuracy"] == pytest.approx(sklearn.metrics.accuracy_score(labels, predictions))
    assert result["balanced_accuracy"] == pytest.approx(sklearn.metrics.balanced_accuracy_score(labels, predictions))
    precision, recall, _, support = sklearn.metrics.precision_recall_fscore_support(labels, predictions)
    table = list(result["per_class"].values())
    assert list(result["per_class"]) == names(classes)
    np.testing.assert_allclose([row["precision"] for row in table], precision)
    np.testing.assert_allclose([row["recall"] for row in table], recall)
    assert [row["count"] for row in table] == support.tolist()
    if classes == 2:
        assert result["auc"] == pytest.approx(sklearn.metrics.roc_auc_score(labels, probabilities[:, 1]))
    else:
        assert "auc" not in result


def test_intervals_are_those_of_a_plain_bootstrap_over_images():
    labels, probabilities = answers(650, 2)
    result = evaluate(labels, probabilities, names(2), resamples=4000)
    rng, drawn = np.random.default_rng(1), []
    for _ in range(1500):
        some = rng.integers(0, 650, 650)
        y, p = labels[some], probabilities[some]
        drawn.append([
            sklearn.metrics.accuracy_score(y, p.argmax(1)),
            sklearn.metrics.balanced_accuracy_score(y, p.argmax(1)),
            sklearn.metrics.roc_auc_score(y, p[:, 1]),
        ])  # fmt: skip
    expected = np.percentile(drawn, [2.5, 97.5], axis=0).T
    got = [result[f"{name}_interval"] for name in ("accuracy", "balanced_accuracy", "auc")]
    np.testing.assert_allclose(got, expected, atol=0.006)
    widths = np.diff(expected)
    assert (widths > 0.03).all()  # so the tolerance says something


def test_fast_auc_is_scikit_learns_ties_included():
    rng = np.random.default_rng(0)
    cells = rng.integers(0, 4, (5, 30, 2))  # (resamples, scores ascending, negatives and positives)
    for drawn, auc in zip(cells, _auc_of_cells(cells)):
        scores = np.concatenate([np.repeat(np.arange(30), drawn[:, label]) for label in (0, 1)])
        labels = np.repeat([0, 1], drawn.sum(axis=0))
        assert auc == pytest.approx(sklearn.metrics.roc_auc_score(labels, scores))


def test_intervals_of_a_class_are_scipys_wilson():
    labels, probabilities = answers(60, 3)
    matrix = sklearn.metrics.confusion_matrix(labels, probabilities.argmax(1))
    for i, row in enumerate(evaluate(labels, probabilities, names(3))["per_class"].values()):
        for name, total in (("recall", matrix[i].sum()), ("precision", matrix[:, i].sum())):
            expected = scipy.stats.binomtest(int(matrix[i, i]), int(total)).proportion_ci(method="wilson")
            np.testing.assert_allclose(row[f"{name}_interval"], expected)


def test_is_seeded_quick_and_json():
    labels, probabilities = answers(650, 2)
    start = time.process_time()
    result = evaluate(labels, probabilities, names(2))
    assert time.process_time() - start < 2
    assert json.loads(json.dumps(result, allow_nan=False)) == result == evaluate(labels, probabilities, names(2))
    assert result["accuracy_interval"] != evaluate(labels, probabilities, names(2), seed=1)["accuracy_interval"]


def test_a_class_without_a_test_image_is_unknown_and_said():
    labels, probabilities = answers(200, 4)
    labels = np.where(labels == 2, 0, labels)
    with pytest.warns(UserWarning):  # scikit-learn's way to say the same
        expected = sklearn.metrics.balanced_accuracy_score(labels, probabilities.argmax(1))
    result = evaluate(labels, probabilities, names(4))
    assert result["per_class"]["class 2"]["recall"] is None and result["per_class"]["class 2"]["precision"] == 0
    assert result["balanced_accuracy"] == pytest.approx(expected)
    assert "'class 2'" in result["notes"][0]


def test_answers_that_are_not_finite_count_as_wrong():
    labels, probabilities = answers(100, 2)
    right = (probabilities.argmax(1) == labels).sum()
    broken = np.flatnonzero(probabilities.argmax(1) == labels)[:5]
    probabilities[broken, 0] = np.nan
    result = evaluate(labels, probabilities, names(2))
    assert result["accuracy"] == pytest.approx((right - 5) / 100)
    assert result["auc"] is None and len(result["notes"]) == 2 and "5 of 100" in result["notes"][0]
    assert (predict_classes(probabilities)[broken] == -1).all()
    nothing = evaluate(labels, np.full((100, 2), np.nan), names(2))
    assert nothing["accuracy"] == 0 and nothing["per_class"]["class 0"]["precision"] is None


def test_one_class_or_one_image_gives_what_can_be_known():
    result = evaluate([1], [[0.2, 0.8]], names(2))
    assert result["auc"] is None and result["accuracy"] == 1 and "Wilson" in " ".join(result["notes"])
    few = evaluate([0, 1, 1], [[0.9, 0.1], [0.2, 0.8], [0.6, 0.4]], names(2))
    assert few["auc"] == 1 and "one class only" in " ".join(few["notes"])


@pytest.mark.parametrize(
    ("labels", "probabilities", "class_names", "sentence"),
    [
        ([], np.zeros((0, 2)), ["a", "b"], "at least one image"),
        ([0, 1], [[0.5, 0.5]], ["a", "b"], r"\(2,\), \(1, 2\), 2 names"),
        ([0, 2], [[0.5, 0.5]] * 2, ["a", "b"], "integers from 0 to 1"),
        ([0.0, 1.0], [[0.5, 0.5]] * 2, ["a", "b"], "integers"),
        ([0, 1], [[3.0, -1.0]] * 2, ["a", "b"], "apply softmax"),
        ([0, 1], [[0.5, 0.5]] * 2, ["a", "a"], "different"),
    ],
)
def test_bad_input_gets_a_sentence(labels, probabilities, class_names, sentence):
    with pytest.raises(ValueError, match=sentence):
        evaluate(labels, probabilities, class_names)
