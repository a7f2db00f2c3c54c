"""What is watched: metrics as scikit-learn has them, the epoch that is kept by them, and its place in what is told."""

import dataclasses
import math

import keras
import numpy as np
import pytest
from nets import SHORT, photographs, tiny, weights
from sklearn import metrics

import kresnets
from kresnets import Recipe
from kresnets.transfer.labels import Watched

rng = np.random.default_rng(0)
THREE = np.concatenate([np.arange(3), rng.integers(0, 3, 57)])
SOFT = rng.dirichlet(np.ones(3), 60).astype("float32")
AREA = metrics.roc_auc_score(THREE, SOFT / SOFT.sum(1, keepdims=True), multi_class="ovr")
MANY = (rng.random((60, 3)) < 0.4).astype("float32")
CHANCES = np.clip(MANY * 0.3 + rng.random((60, 3)) * 0.7, 0.01, 0.99).astype("float32")


ONE = metrics.roc_auc_score(MANY[:, 0], CHANCES[:, 0])


F1 = metrics.f1_score(THREE, SOFT.argmax(1), average="macro")


def logits(chances):
    return np.log(chances / (1 - chances))


@pytest.mark.parametrize(
    ("kind", "scores", "truth", "answers", "expected"),
    [
        ("auc", ("classes", 3, "softmax"), THREE, SOFT, AREA),
        ("auc", ("classes", 3, "linear"), np.eye(3)[THREE], np.log(SOFT), AREA),
        ("auc", ("classes", 1, "linear"), MANY[:, :1], logits(CHANCES[:, :1]), ONE),
        ("auc", ("labels", 3, "sigmoid"), MANY, CHANCES, metrics.roc_auc_score(MANY, CHANCES)),
        ("mAP", ("labels", 3, "linear"), MANY, logits(CHANCES), metrics.average_precision_score(MANY, CHANCES)),
        ("f1", ("labels", 3, "sigmoid"), MANY, CHANCES, metrics.f1_score(MANY, CHANCES > 0.5, average="macro")),
        ("f1", ("classes", 3, "softmax"), THREE[:, None], SOFT, F1),
    ],
    ids=["three", "three rows of logits", "one sigmoid", "labels", "mAP", "f1 of labels", "f1"],
)  # fmt: skip
def test_what_is_watched_is_scikit_learns(kind, scores, truth, answers, expected):
    metric = Watched(kind, *scores)
    for rows in np.array_split(np.arange(60), 4):
        metric.update_state(truth[rows], answers[rows])
    assert float(metric.result()) == pytest.approx(expected, abs=0.005)
    again = keras.metrics.deserialize(keras.metrics.serialize(metric))
    assert float(again(truth, answers)) == pytest.approx(float(metric.result()))
    metric.reset_state()
    assert float(metric(truth, answers)) == pytest.approx(expected, abs=0.01)


@pytest.mark.parametrize("reach", [-9.0, 0.0, 9.0], ids=["unsure", "usual", "sure"])
def test_rare_classes_and_answers_near_0_and_1_are_told_apart(reach):
    truth = np.arange(400) % 20 == 0
    chances = 1 / (1 + np.exp(-(reach + 1.2 * truth + rng.normal(size=400)).astype("float32")))
    for kind, known in (("auc", metrics.roc_auc_score), ("mAP", metrics.average_precision_score)):
        found = float(Watched(kind, "classes", 1, "sigmoid")(truth[:, None], chances[:, None].astype("float32")))
        assert found == pytest.approx(known(truth, chances), abs=0.01)


def test_what_no_image_has_is_left_out():
    truth = MANY * (1, 1, 0)
    for kind, known, answers in (
        ("auc", metrics.roc_auc_score, CHANCES),
        ("mAP", metrics.average_precision_score, CHANCES),
        ("f1", lambda y, p: metrics.f1_score(y, p > 0.5, average="macro"), CHANCES),
    ):
        found = float(Watched(kind, "labels", 3, "sigmoid")(truth, answers))
        assert found == pytest.approx(known(truth[:, :2], answers[:, :2]), abs=0.005)


def test_the_best_epoch_by_it_is_kept(tmp_path):
    x, y = photographs(60, classes=2)
    recipe = dataclasses.replace(SHORT, monitor="val_auc", keep="best", epochs_per_stage=2)
    model = tiny(classes=2)
    history = kresnets.fine_tune(model, (x, y), (x, y), recipe, state_dir=tmp_path, verbose=0)
    watched = history.history["val_auc"]
    assert history.kept == int(np.argmax(watched)) and "the epoch with the highest val_auc" in history.plan.table()
    answers = model.predict(kresnets.preprocessing_of(model)(x.astype("float32")), verbose=0)
    assert metrics.roc_auc_score(y, answers[:, 1]) == pytest.approx(max(watched), abs=0.01)
    again = tiny(classes=2)
    more = kresnets.fine_tune(again, (x, y), (x, y), recipe, state_dir=tmp_path, verbose=0)
    assert more.kept == history.kept
    for path, value in weights(model).items():
        np.testing.assert_array_equal(weights(again)[path], value, err_msg=path)


def test_naming_it_keeps_the_best_and_stages_wait_for_it():
    facts = kresnets.plan(tiny(), photographs(), photographs()).facts
    assert kresnets.transfer.plan.resolve(Recipe(monitor="val_f1"), facts).recipe.keep == "best"
    assert kresnets.transfer.plan.resolve(Recipe(monitor="val_f1", keep="last"), facts).recipe.keep == "last"
    stages = Recipe.textbook(monitor="val_f1", advance="plateau").staging(("stem", "stage1", "stage2", "head")).stages
    assert {plateau.monitor for _, plateau in stages} == {"val_f1"}
    assert "monitor" not in Recipe().as_data() and Recipe(**Recipe(monitor="val_f1").as_data()).monitor == "val_f1"


def test_a_name_that_is_none_gets_a_sentence():
    x, y = photographs(20)
    with pytest.raises(ValueError, match="'val_whatever' does not tell whether higher or lower"):
        Recipe(monitor="val_whatever")
    recipe = dataclasses.replace(SHORT, monitor="val_dice", keep="best")
    with pytest.raises(ValueError, match="must be a name of the log. Received: 'val_dice'; there are .*val_loss"):
        kresnets.fine_tune(tiny(), (x, y), (x, y), recipe, verbose=0)
    # One of one's own is as good.
    own = [keras.metrics.TopKCategoricalAccuracy(2, name="dice")]
    rows = x, np.eye(3)[y]
    history = kresnets.fine_tune(tiny(), rows, rows, recipe, metrics=own, verbose=0)
    assert not math.isnan(max(history.history["val_dice"]))
