"""The numbers of several labels and of regressions, against scikit-learn's."""

import numpy as np
import pytest
from sklearn import metrics

from kresnets.report import feature_map, multilabel, regression
from kresnets.transfer.frozen import Frozen

rng = np.random.default_rng(0)
TRUTH = rng.random((80, 3)) < (0.5, 0.3, 0.1)
SCORES = np.clip(TRUTH * 0.3 + rng.random((80, 3)) * 0.7, 0, 1)
NAMES = ["cat", "dog", "bird"]


def test_thresholds_are_where_f1_is_highest():
    at = multilabel.thresholds(TRUTH, SCORES)
    for n in range(3):
        precision, recall, _ = metrics.precision_recall_curve(TRUTH[:, n], SCORES[:, n])
        highest = np.nanmax(2 * precision * recall / np.maximum(precision + recall, 1e-9))
        assert metrics.f1_score(TRUTH[:, n], SCORES[:, n] >= at[n]) == pytest.approx(highest)
    assert multilabel.thresholds([[1, 0], [1, 0]], [[0.2, 0.9], [0.4, 0.1]]).tolist() == [0.5, 0.5]


def test_the_numbers_of_labels_are_scikit_learns():
    at = multilabel.thresholds(TRUTH, SCORES)
    found, said = multilabel.evaluate(TRUTH, SCORES, NAMES, at), np.greater_equal(SCORES, at)
    assert found["mAP"] == pytest.approx(metrics.average_precision_score(TRUTH, SCORES, average="macro"))
    assert found["f1"] == pytest.approx(metrics.f1_score(TRUTH, said, average="macro"))
    assert found["accuracy"] == pytest.approx(metrics.accuracy_score(TRUTH, said))
    for n, name in enumerate(NAMES):
        row = found["per_label"][name]
        assert row["auc"] == pytest.approx(metrics.roc_auc_score(TRUTH[:, n], SCORES[:, n]))
        assert row["recall"] == pytest.approx(metrics.recall_score(TRUTH[:, n], SCORES[:, n] >= at[n]))
    once = multilabel._average_precisions(TRUTH[:, 0], SCORES[:, 0].round(1), np.ones((1, 80), int))
    assert once[0] == pytest.approx(metrics.average_precision_score(TRUTH[:, 0], SCORES[:, 0].round(1)))
    for name in ("mAP", "accuracy"):
        low, high = found[f"{name}_interval"]
        assert low <= found[name] <= high and high - low < 0.3


def test_a_label_that_no_test_image_has_is_left_out_and_said():
    truth = TRUTH & (True, True, False)
    found = multilabel.evaluate(truth, SCORES, NAMES, np.full(3, 0.5))
    assert found["per_label"]["bird"]["average_precision"] is None and "'bird'" in found["notes"][0]
    assert found["mAP"] == pytest.approx(metrics.average_precision_score(truth[:, :2], SCORES[:, :2], average="macro"))


def test_the_interval_of_map_holds_the_true_one():
    """Images drawn again and again from what a model says of very many."""
    many = rng.random((20_000, 2)) < (0.4, 0.3)
    says = np.clip(many * 0.3 + rng.random(many.shape) * 0.7, 0, 1)
    true, held = metrics.average_precision_score(many, says, average="macro"), 0
    for _ in range(40):
        rows = rng.integers(0, len(many), 100)
        low, high = multilabel.evaluate(many[rows], says[rows], NAMES[:2], np.full(2, 0.5))["mAP_interval"]
        held += low <= true <= high
    assert held >= 33  # of 95 % in the mean; fewer than that in one of a thousand such tests


def test_the_numbers_of_regressions_are_scikit_learns():
    truth = rng.normal(50, 10, (60, 2))
    answers = truth + rng.normal(0, 4, (60, 2))
    found = regression.evaluate(truth, answers, ["age", "height"], [50, 50])
    assert found["r2"] == pytest.approx(metrics.r2_score(truth, answers))
    row = found["per_number"]["age"]
    assert row["mae"] == pytest.approx(metrics.mean_absolute_error(truth[:, 0], answers[:, 0]))
    assert row["rmse"] == pytest.approx(metrics.root_mean_squared_error(truth[:, 0], answers[:, 0]))
    assert row["mae_interval"][0] < row["mae"] < row["mae_interval"][1]
    alone = regression.evaluate(truth[:, :1], answers[:, :1], ["age"], [50])
    assert alone["mae"] == row["mae"] and "mae" not in found
    broken = np.where(np.arange(60)[:, None] == 3, np.nan, answers)
    assert regression.evaluate(truth, broken, ["age", "height"], [50, 50])["per_number"]["age"]["r2"] is None


def test_names_that_are_formulas_or_hidden_are_drawn_as_they_are(tmp_path):
    names = ["$\\frac$", "_hidden", "a|b"]
    multilabel.precision_recall(TRUTH, SCORES, names, tmp_path / "a.png")
    seen = Frozen(
        rng.normal(size=(30, 8)),
        np.arange(30) % 3,
        np.array(["train"] * 20 + ["test"] * 10),
        np.arange(30),
        np.arange(30),
    )
    feature_map._draw_map(seen, names, tmp_path / "b.png")
    assert (tmp_path / "a.png").stat().st_size and (tmp_path / "b.png").stat().st_size


def test_a_trunk_that_sees_no_difference_has_no_map(tmp_path):
    dead = Frozen(np.zeros((12, 8)), np.arange(12) % 2, np.full(12, "train"), np.arange(12), np.arange(12))
    told, numbers = feature_map.answer(tmp_path, None, {}, dead, None)
    assert "Not drawn" in told[0] and numbers == {}
