"""The numbers of a run against scikit-learn and scipy; its intervals against a plain bootstrap, and what they hold."""

import json
import time

import numpy as np
import pytest
import scipy.optimize
import scipy.stats
import sklearn.metrics

from kresnets.report.metrics import difference, evaluate, predict_classes


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


@pytest.mark.everything
def test_intervals_are_those_of_a_plain_bootstrap_over_images():
    labels, probabilities = answers(650, 2)
    result = evaluate(labels, probabilities, names(2))
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
    np.testing.assert_allclose(got, expected, atol=0.008)
    widths = np.diff(expected)
    assert (widths > 0.03).all()  # so the tolerance says something


def held(draw, truth, times=400):
    """The share of drawn samples whose interval holds the truth."""
    intervals = np.array([draw() for _ in range(times)])
    return np.mean((intervals[:, 0] <= truth) & (truth <= intervals[:, 1]))


@pytest.mark.parametrize(("negatives", "positives", "auc"), [(10, 10, 0.95), (5, 15, 0.99), (40, 20, 0.7)])
def test_the_interval_of_an_auc_holds_the_true_one(negatives, positives, auc):
    rng, labels = np.random.default_rng(0), np.repeat([0, 1], (negatives, positives))
    apart = np.sqrt(2) * scipy.stats.norm.ppf(auc)  # of two normal distributions with that AUC

    def draw():
        scores = scipy.stats.norm.cdf(rng.normal(size=len(labels)) + apart * labels)
        return evaluate(labels, np.stack([1 - scores, scores], axis=1), names(2))["auc_interval"]

    assert 0.93 <= held(draw, auc) <= 0.995  # a bootstrap's: 0.81, 0.31, 0.93


def test_the_interval_of_a_balanced_accuracy_and_of_a_difference_hold_the_true_one():
    rng, labels, shares = np.random.default_rng(0), np.repeat([0, 1, 2], (4, 8, 30)), np.array([0.99, 0.9, 0.7])

    def answered():
        right = rng.random(len(labels)) < shares[labels]
        return np.eye(3)[np.where(right, labels, (labels + 1) % 3)]

    assert held(lambda: evaluate(labels, answered(), names(3))["balanced_accuracy_interval"], shares.mean()) >= 0.93
    assert held(lambda: difference(labels, answered(), answered())["interval"], 0) >= 0.93


def test_where_all_is_right_the_intervals_say_of_how_few():
    """20 images: a proportion's is scipy's Wilson; an AUC's, by its definition, from Hanley and McNeil's variance."""
    labels = np.arange(20) % 2
    result = evaluate(labels, np.eye(2)[labels], names(2))
    wilson = scipy.stats.binomtest(20, 20).proportion_ci(method="wilson")
    np.testing.assert_allclose(result["accuracy_interval"], wilson)

    def deviations(auc):
        q1, q2 = auc / (2 - auc), 2 * auc**2 / (1 + auc)
        more = 9  # (10 + 10) / 2 - 1, for both sides
        variance = (auc * (1 - auc) + more * (q1 - auc**2) + more * (q2 - auc**2)) / 100
        return (1 - auc) / np.sqrt(variance) - scipy.stats.norm.ppf(0.975)

    low = scipy.optimize.brentq(deviations, 0.1, 0.999)
    np.testing.assert_allclose(result["auc_interval"], [low, 1])
    assert result["auc_interval"][0] < 0.81 and result["balanced_accuracy_interval"][0] < 0.85
    same = difference(labels, np.eye(2)[labels], np.eye(2)[labels])
    assert same["accuracy"] == 0 and same["interval"][0] < -0.1 and same["interval"][1] > 0.1


def test_intervals_of_a_class_are_scipys_wilson():
    labels, probabilities = answers(60, 3)
    matrix = sklearn.metrics.confusion_matrix(labels, probabilities.argmax(1))
    for i, row in enumerate(evaluate(labels, probabilities, names(3))["per_class"].values()):
        for name, total in (("recall", matrix[i].sum()), ("precision", matrix[:, i].sum())):
            expected = scipy.stats.binomtest(int(matrix[i, i]), int(total)).proportion_ci(method="wilson")
            np.testing.assert_allclose(row[f"{name}_interval"], expected)


def test_is_quick_and_json():
    labels, probabilities = answers(650, 2)
    start = time.process_time()
    result = evaluate(labels, probabilities, names(2))
    assert time.process_time() - start < 2
    assert json.loads(json.dumps(result, allow_nan=False)) == result == evaluate(labels, probabilities, names(2))


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
    assert result["auc"] is None and result["accuracy"] == 1 and "one class" in " ".join(result["notes"])
    few = evaluate([0, 1, 1], [[0.9, 0.1], [0.2, 0.8], [0.6, 0.4]], names(2))
    assert few["auc"] == 1 and few["auc_interval"][0] < 0.5


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
