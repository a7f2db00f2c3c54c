"""What the page answers besides how good the model is, where the truth is known: labels flipped on purpose, a curve
whose next point is then measured, probabilities miscalibrated by a known temperature."""

import csv
import json
import re

import numpy as np
import pytest
import tensorflow as tf
from commands import ask
from scipy.special import softmax
from sklearn import metrics
from sklearn.calibration import calibration_curve
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.manifold import trustworthiness
from sklearn.neighbors import NearestNeighbors

from kresnets import Recipe
from kresnets.data import Part
from kresnets.report.augmented import sheet
from kresnets.report.calibration import calibration_error, temperature
from kresnets.report.feature_map import mapped, neighbours
from kresnets.report.label_issues import label_issues
from kresnets.report.learning_curve import doubled, learning_curve
from kresnets.report.threshold import choices
from kresnets.transfer.frozen import Frozen

DIGITS = load_digits()
RNG = np.random.default_rng(0)


def seen(labels=DIGITS.target, rows=None):
    """Handwritten digits as a trunk might see them: their pixels."""
    rows = np.arange(len(labels)) if rows is None else rows
    parts, groups = np.full(len(rows), "train"), np.arange(len(rows))
    return Frozen(DIGITS.data[rows], labels[rows], parts, np.arange(len(rows)), groups)


@pytest.fixture(scope="module")
def flipped():
    """Labels of which one in ten is another one, and the probabilities by the other folds."""
    labels = DIGITS.target.copy()
    wrong = RNG.choice(len(labels), len(labels) // 10, replace=False)
    labels[wrong] = (labels[wrong] + RNG.integers(1, 10, len(wrong))) % 10
    return labels, set(wrong.tolist()), seen(labels).out_of_fold()


def test_flipped_labels_are_found_and_what_they_were(flipped):
    labels, wrong, chances = flipped
    found, rather = label_issues(labels, chances)
    right = [index in wrong for index in found.tolist()]
    assert sum(right) >= 0.7 * len(wrong) and np.mean(right) >= 0.9
    assert np.mean(right[: len(wrong) // 2]) >= 0.97  # the surest ones first
    restored = [other == DIGITS.target[index] for index, other in zip(found, rather) if index in wrong]
    assert np.mean(restored) >= 0.95


def test_they_are_those_of_cleanlab(flipped):
    count = pytest.importorskip("cleanlab.count", reason="cleanlab is an extra of the tests")
    labels, _, chances = flipped
    _, theirs = count.compute_confident_joint(
        labels, chances, calibrate=False, return_indices_of_off_diagonals=True
    )  # fmt: skip
    assert sorted(label_issues(labels, chances)[0].tolist()) == sorted(theirs)


def test_nothing_is_wrong_where_nothing_is():
    sure = np.eye(3)[[0, 1, 2, 0, 1, 2]] * 0.9 + 0.03
    assert not len(label_issues([0, 1, 2, 0, 1, 2], sure)[0])
    assert not len(
        label_issues([0, 0, 2, 2], [[0.5, 0.4, 0.1]] * 2 + [[0.1, 0.1, 0.8]] * 2)[0]
    )  # a class without image


def test_no_group_judges_itself():
    frozen = seen()
    frozen.groups = frozen.groups // 7
    for learn, judged in frozen.folds():
        assert not set(frozen.groups[learn]) & set(frozen.groups[judged])
    few = seen(rows=np.flatnonzero(DIGITS.target < 2)[:40])
    few.labels[:] = [1, *[0] * 39]
    assert few.folds() == [] and few.out_of_fold() is None and learning_curve(few) is None


@pytest.mark.parametrize("count", [200, 700])
def test_the_next_point_of_a_curve_is_within_its_band(count):
    """Twice as many images are then learned from, and judged on images that neither has seen."""
    order = np.random.default_rng(1).permutation(len(DIGITS.target))
    half, twice, others = order[:count], order[: round(count * 1.6)], order[1200:]
    counts, accuracies = learning_curve(seen(rows=half))
    assert counts.tolist() == [round(share * counts[-1]) for share in (1 / 8, 1 / 4, 1 / 2, 1)][-len(counts) :]
    mean, low, high = doubled(counts, accuracies)
    assert accuracies.mean(0)[-1] <= mean + 0.01 and 2 * counts[-1] == pytest.approx(len(twice), abs=8)
    frozen = seen(rows=np.concatenate([twice, others]))
    measured = frozen.chances(np.arange(len(twice)), np.arange(len(twice), len(frozen.labels)))
    accuracy = np.mean(measured.argmax(1) == frozen.labels[len(twice) :])
    assert low <= accuracy <= high and abs(mean - accuracy) < 0.025


@pytest.mark.parametrize("by", [0.5, 1.0, 2.5])
def test_a_known_temperature_is_found_and_mends_the_error(by):
    scores = RNG.normal(size=(20_000, 5)) * 2
    labels = (scores + RNG.gumbel(size=scores.shape)).argmax(1)  # drawn from the softmax of the scores
    said = softmax(scores * by, axis=1)
    assert temperature(labels, said) == pytest.approx(by, rel=0.04)
    error, bins = calibration_error(labels, said)
    assert sum(count for *_, count in bins) == len(labels)
    assert error < 0.01 if by == 1 else error > 0.03


def test_bins_are_those_of_scikit_learn():
    fit = LogisticRegression(max_iter=50).fit(DIGITS.data[:900] / 16, DIGITS.target[:900] > 4)
    said, labels = fit.predict_proba(DIGITS.data[900:] / 16), (DIGITS.target[900:] > 4).astype(int)
    right = (said.argmax(1) == labels).astype(int)
    theirs, means = calibration_curve(right, said.max(1), n_bins=9, strategy="quantile")
    error, bins = calibration_error(labels, said, bins=9)
    np.testing.assert_allclose([mean for mean, _, _ in bins], means, atol=0.005)
    np.testing.assert_allclose([share for _, share, _ in bins], theirs, atol=0.03)
    assert error == pytest.approx(np.mean(abs(theirs - means)), abs=0.005)


def test_thresholds_are_the_best_of_all():
    truth = RNG.random(60) < 0.3
    scores = np.clip(truth * 0.25 + RNG.random(60) * 0.75, 0, 1).round(2)
    found, every = choices(truth, scores), np.linspace(0, 1.001, 2003)
    for why, measure in (
        ("highest F1", lambda said: metrics.f1_score(truth, said, zero_division=0)),
        ("highest recall + specificity", lambda said: metrics.balanced_accuracy_score(truth, said)),
        ("least cost, a miss 5 : 1 a false alarm", lambda said: -5 * (truth & ~said).sum() - (said & ~truth).sum()),
    ):
        assert measure(scores >= found[why]) == pytest.approx(max(measure(scores >= cut) for cut in every)), why
    dear, cheap = (found[f"least cost, a miss {miss} : 1 a false alarm"] for miss in (10, 1))
    assert dear <= cheap <= found["least cost, a miss 1 : 10 a false alarm"]


def test_costs_are_said_of_either_class():
    """Which of the two is dear to miss depends on what they are, not on which name comes first in the alphabet."""
    truth = np.arange(40) % 2 == 1
    scores = np.clip(truth * 0.3 + RNG.random(40) * 0.7, 0, 1)
    found, turned = choices(truth, scores), choices(~truth, 1 - scores)
    for miss, alarm in ((5, 1), (1, 5), (10, 1)):
        cut = found[f"least cost, a miss {miss} : {alarm} a false alarm"]
        other = turned[f"least cost, a miss {alarm} : {miss} a false alarm"]
        cost = lambda said, a=miss, b=alarm: a * (truth & ~said).sum() + b * (said & ~truth).sum()
        assert cost(scores >= cut) == cost(1 - scores < other)


def test_neighbours_and_the_map_keep_who_is_near():
    features = DIGITS.data[:300]
    near = neighbours(features[:250], features[250:], 5)
    wanted = NearestNeighbors(n_neighbors=5, metric="cosine").fit(features[:250]).kneighbors(features[250:])[1]
    assert np.mean(near == wanted) > 0.99  # but for ties
    assert trustworthiness(features, mapped(features)) > 0.95
    assert mapped(features[:5]).shape == (5, 2)


@pytest.mark.parametrize("recipe", [Recipe.textbook(augment="none"), Recipe.textbook(augment="light")])
def test_the_sheet_shows_images_and_their_copies(recipe, tmp_path):
    png = tf.io.encode_png(RNG.integers(0, 256, (32, 32, 3), dtype="uint8")).numpy()
    part = Part(["a", "b"], [0, 1], [png] * 2, ["x", "y"], progress=False)
    drawn = sheet(part, recipe, 32, 1.0, tmp_path / "sheet.png")
    assert drawn == (recipe.augment != "none") == (tmp_path / "sheet.png").is_file()


@pytest.mark.slow
@pytest.mark.always("kresnets/distilled")
@pytest.mark.parametrize("weights", ["kresnets/distilled", "none"])
def test_a_run_answers_in_order(weights, tmp_path):
    """On real photographs with a trunk that transfers; a fresh trunk has nothing to be asked at the begin."""
    pytest.importorskip("elpv_dataset", reason="its photographs are not installed")
    options = "--data elpv/mono --limit 120 --model ResNet18DThin --size 64 --epochs 2 --dtype float32".split()
    headings = ["Are labels wrong?", "Is the test honest?", "Would more photographs help?", "Can scores be trusted?"]
    headings += ["Which threshold?", "What does it know?"]
    fresh = ["Is the test honest?", "Can scores be trusted?", "Which threshold?"]
    run = tmp_path / "run"
    assert ask("finetune", *options, "--weights", weights, "--out", run) == 0
    page = (run / "report.html").read_text()
    found = re.findall("<h2>([^<]*)</h2>", page)
    assert [heading for heading in found if heading in headings] == (fresh if weights == "none" else headings)
    assert (
        (run / "augmented.png").is_file()
        and (run / "threshold.png").is_file()
        and "Kept: epoch 2 of 2, the last." in page
        and "least cost, functional missed costs 5 times defective missed" in page
    )
    if weights == "none":
        return
    assert (run / "feature_map.png").is_file() and (run / "neighbours.png").is_file()
    numbers = json.loads((run / "metrics.json").read_text())
    with open(run / "label_issues.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == numbers["label_issues"]["count"] > 0
    assert all(row["label"] != row["rather"] and float(row["p(label)"]) <= float(row["p(rather)"]) for row in rows)
    curve = numbers["learning_curve"]
    assert len(curve["counts"]) == len(curve["accuracy"]) >= 3 and 0.5 < curve["doubled"][0] <= 1
    assert set(numbers["calibration"]) == {"error"}  # too few images validate
