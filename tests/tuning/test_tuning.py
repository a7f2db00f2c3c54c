"""The search over recipes: against Keras Tuner's own tuners with the same hypermodel, `fine_tune`, and hand-made
counts."""

import dataclasses
import errno
import fcntl
import itertools
import json
import os
import pathlib
import statistics
import subprocess
import sys
import types

import keras
import keras_tuner
import numpy as np
import pytest
from places import python_path

import kresnets
from kresnets.tuning import RecipeHyperModel, RecipeTuner, read_records
from kresnets.tuning.prune import Pruning, best_so_far

ROW = dataclasses.replace(kresnets.SPECS["CifarResNet20"], name="Tiny", depths=(1, 1, 1), widths=(4, 6, 8), params=None)
BASE = kresnets.Recipe.textbook(augment="none", head_epochs=1, epochs_per_stage=1)
RATES = {"thaw": "head", "learning_rate": [1e-3, 1e-2, 0.1]}
TOLERANCE = 1e-3
# Tracing a function of TensorFlow's takes longer than a few steps of a small network.
pytestmark = [pytest.mark.usefixtures("eager"), pytest.mark.filterwarnings("ignore:Even though the .tf.config")]


def images(count=40, seed=0):
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % 2
    return np.clip(rng.normal(100 + 40 * labels[:, None, None, None], 40, (count, 16, 16, 3)), 0, 255), labels


TRAIN, VALIDATION = images(), images(24, seed=1)


OWN = {"groups": {"low": "low.*", "high": "high.*", "head": "top"}, "preprocess": "torch"}


def residual():
    return kresnets.build(ROW, weights=None, classes=2, input_shape=(16, 16, 3))


def own():
    """Build a model that is none of kresnets, which is quick."""
    return keras.Sequential(
        [
            keras.layers.Input((16, 16, 3)),
            keras.layers.Conv2D(4, 3, strides=4, name="low"),
            keras.layers.Conv2D(4, 3, name="high"),
            keras.layers.BatchNormalization(name="high_bn"),
            keras.layers.GlobalAveragePooling2D(),
            keras.layers.Dense(2, name="top"),  # logits
        ]
    )


class Listed(keras_tuner.Oracle):
    """A user's own oracle: it gives the values of a list, one after the other."""

    def __init__(self, values, objective="val_loss", **arguments):
        super().__init__(objective, max_trials=len(values), **arguments)
        self.values = values

    def populate_space(self, trial_id):
        if int(trial_id) >= len(self.values):
            return {"status": "STOPPED", "values": None}
        return {"status": "RUNNING", "values": dict(self.values[int(trial_id)])}


def hypermodel(space, base=BASE, epochs=None, make=own):
    return RecipeHyperModel(make, space, base, epochs, **({} if make is residual else OWN))


def recipe_tuner(folder, oracle, space, base=BASE, epochs=None, make=own, **options):
    return RecipeTuner(hypermodel(space, base, epochs, make), oracle, directory=str(folder), **options)


def search(tuner, *data, **options):
    tuner.search(*(data or (TRAIN, VALIDATION)), verbose=0, **options)
    return read_records(tuner.project_dir)


def plainly(folder, oracle, *space, **options):
    """Search with Keras Tuner's own tuner; return it with `{id: trial}`."""
    made = keras_tuner.Tuner(oracle, hypermodel(*space, **options), directory=str(folder), project_name="p")
    made.search(TRAIN, VALIDATION, verbose=0)
    return made, made.oracle.trials


def tuned(recipe, train=TRAIN, validation=VALIDATION, make=own):
    """Return the history of `fine_tune` itself."""
    keras.utils.set_random_seed(recipe.seed)
    options = {} if make is residual else OWN
    return kresnets.fine_tune(make(), train, validation, recipe, cache=False, verbose=0, **options).history


def evaluated(model, data=VALIDATION):
    prepare = kresnets.preprocessing_of(model) or kresnets.Preprocessing("torch")
    return model.evaluate(prepare(data[0].astype("float32")), data[1], verbose=0, return_dict=True)


# The same space with and without sharing.

SPACE = {
    "thaw": ["head", "high", "low"],
    "batchnorm": ["frozen", "train"],
    "augment": ["none", "light"],
    "views": [1, 2],
    "label_smoothing": [0.0, 0.1],
    "mixup": [0.0, 0.2],
}
USUAL = {"augment": "none", "label_smoothing": 0.0, "mixup": 0.0}
DEEPER = {**USUAL, "thaw": "high", "batchnorm": "frozen"}
SHARED = [
    {**USUAL, "thaw": "head"},
    DEEPER,
    {**DEEPER, "batchnorm": "train"},
    {**DEEPER, "thaw": "low", "batchnorm": "train", "label_smoothing": 0.1},
    {**DEEPER, "augment": "light", "views": 2},
    {**DEEPER, "mixup": 0.2},
    DEEPER,
]


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    tuner = recipe_tuner(tmp_path_factory.mktemp("shared"), Listed(SHARED), SPACE)
    return tuner, search(tuner)


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    return plainly(tmp_path_factory.mktemp("plain"), Listed(SHARED[:-1]), SPACE)


def test_scores_are_those_of_keras_tuners_own_tuner(shared, plain):
    tuner, records = shared
    _, trials = plain
    assert len(trials) == len(SHARED) - 1 and all(trial.status == "COMPLETED" for trial in trials.values())
    for trial_id, trial in trials.items():
        mine = tuner.oracle.trials[trial_id]
        assert mine.hyperparameters.values == trial.hyperparameters.values
        assert mine.score == pytest.approx(trial.score, abs=TOLERANCE)
        assert mine.best_step == trial.best_step
        for metric in ("loss", "accuracy", "val_accuracy"):
            values = [one.metrics.get_best_value(metric) for one in (mine, trial)]
            assert values[0] == pytest.approx(values[1], abs=TOLERANCE), metric
    assert [record["score"] for record in records] == [tuner.oracle.trials[one["trial_id"]].score for one in records]


@pytest.mark.everything
@pytest.mark.slow
def test_a_network_of_kresnets_scores_as_in_keras_tuners_own_tuner(tmp_path):
    space = {"thaw": ["head", "stage3", "stage2"], "batchnorm": ["frozen", "train"]}
    values = [{"thaw": "stage3", "batchnorm": "frozen"}, {"thaw": "stage2", "batchnorm": "train"}]
    tuner = recipe_tuner(tmp_path, Listed(values), space, make=residual)
    records = search(tuner)
    _, trials = plainly(tmp_path, Listed(values), space, make=residual)
    assert [one["score"] for one in records] == pytest.approx([t.score for t in trials.values()], abs=TOLERANCE)
    assert [record["epochs"] for record in records] == [2, 2]
    for trial in tuner.oracle.trials.values():
        assert evaluated(tuner.load_model(trial))["loss"] == pytest.approx(trial.score, abs=TOLERANCE)


def test_a_common_stage_is_trained_once(shared):
    _, records = shared
    # The head's epoch of trials 1 and 2 is that of trial 0; with other smoothing, views or mixup it is another one.
    assert [record["epochs"] for record in records] == [1, 1, 1, 3, 2, 2, 0]
    assert [len(record["history"]) for record in records] == [1, 2, 2, 3, 2, 2, 0]
    assert [[row["stage"] for row in records[n]["history"]] for n in (2, 3)] == [
        ["head", "high"],
        ["head", "high", "low"],
    ]
    assert [row["epoch"] for row in records[2]["history"]] == [0, 1]
    assert records[0]["history"][0]["val_loss"] == records[2]["history"][0]["val_loss"]


def test_an_equal_trial_is_not_trained_again(shared):
    tuner, records = shared
    assert [record["status"] for record in records] == ["completed"] * 6 + ["repeated"]
    assert records[6]["score"] == records[1]["score"] and "trial 1" in records[6]["reason"].replace("0", "")
    trial = tuner.oracle.trials[records[6]["trial_id"]]
    loaded = tuner.load_model(trial)
    assert evaluated(loaded)["loss"] == pytest.approx(trial.score, abs=TOLERANCE)


def test_what_users_of_keras_tuner_expect(shared, plain, capsys):
    tuner, records = shared
    best = tuner.oracle.get_best_trials(1)[0]
    assert best.score == min(record["score"] for record in records)
    models = tuner.get_best_models(3)
    for model, trial in zip(models, tuner.oracle.get_best_trials(3)):
        if not trial.hyperparameters.values["label_smoothing"]:  # with it the loss of a training is another one
            assert evaluated(model)["loss"] == pytest.approx(trial.score, abs=TOLERANCE)
        assert evaluated(model)["accuracy"] == pytest.approx(
            trial.metrics.get_best_value("val_accuracy"), abs=TOLERANCE
        )
    theirs = plain[0].get_best_models(1)[0]
    assert evaluated(theirs)["loss"] == pytest.approx(evaluated(models[0])["loss"], abs=TOLERANCE)
    for mine, other in zip(models[0].get_weights(), theirs.get_weights()):
        np.testing.assert_allclose(mine, other, atol=TOLERANCE)
    capsys.readouterr()
    tuner.results_summary(2)
    printed = capsys.readouterr().out
    assert f"Trial {best.trial_id} summary" in printed and f"Score: {best.score}" in printed
    hp = tuner.get_best_hyperparameters(1)[0]
    assert tuner.best_recipe() == tuner.hypermodel.recipe(hp)
    assert tuned(tuner.best_recipe())["val_loss"][best.best_step] == pytest.approx(best.score, abs=TOLERANCE)


def test_records_are_read_by_others(shared):
    tuner, records = shared
    for record in records:
        folder = pathlib.Path(tuner.project_dir) / f"trial_{record['trial_id']}"
        assert json.loads((folder / "trial.json").read_text())["score"] == record["score"]
        assert json.loads((folder / "record.json").read_text())["epochs"] == record["epochs"]
    assert "ratio" not in records[0]["values"] and "batchnorm" not in records[0]["values"]


def test_averaged_weights(tmp_path):
    """Their average is what is judged, so it is what is kept; such trials are trained whole, see `stages.shares`."""
    space, values = {"thaw": ["head", "high"], "ema": [0.5, 0.9]}, [{"thaw": "high", "ema": 0.5}]
    tuner = recipe_tuner(tmp_path / "mine", Listed(values), space)
    record = search(tuner)[0]
    history = tuned(tuner.best_recipe())
    assert [row["val_loss"] for row in record["history"]] == pytest.approx(history["val_loss"], abs=TOLERANCE)
    assert evaluated(tuner.get_best_models()[0])["loss"] == pytest.approx(record["score"], abs=TOLERANCE)


# Grid search, bad luck, interruptions.


class Interrupted(keras.callbacks.Callback):
    """Press Ctrl-C in one epoch of the whole search. Keras Tuner copies callbacks for each trial."""

    seen = 0

    def on_epoch_end(self, epoch, logs=None):
        Interrupted.seen += 1
        if Interrupted.seen == 4:
            raise KeyboardInterrupt


def test_trials_compute_in_the_policy_that_the_user_has_set(tmp_path, formula):
    seen = []

    class Note(keras.callbacks.Callback):
        def on_train_begin(self, logs=None):
            seen.append({layer.compute_dtype for layer in self.model.layers})

    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        tuner = recipe_tuner(tmp_path, Listed([{"learning_rate": rate} for rate in (0.01, 0.1)]), RATES)
        search(tuner, callbacks=[Note()])
        assert seen == [{"bfloat16"}] * 2 and tuner.get_best_models()[0].compute_dtype == "bfloat16"
        assert keras.config.dtype_policy().name == "mixed_bfloat16"
    finally:
        keras.config.set_dtype_policy("float32")


def test_an_interrupted_search_goes_on(tmp_path, formula):
    def grid():
        return keras_tuner.oracles.GridSearchOracle("val_loss", max_trials=20)

    def tuner():
        return recipe_tuner(tmp_path, grid(), RATES, epochs=2)

    _, plain = plainly(tmp_path, grid(), RATES, epochs=2)  # by Keras Tuner's own
    scores = {trial.hyperparameters.values["learning_rate"]: trial.score for trial in plain.values()}

    with pytest.raises(KeyboardInterrupt):
        search(tuner(), callbacks=[Interrupted()])
    first = read_records(tmp_path / "search")
    assert [record["status"] for record in first] == ["completed", "running"]
    again = tuner()
    assert again.best_recipe().learning_rate == first[0]["values"]["learning_rate"]  # the best so far
    records = search(again)
    assert {one["values"]["learning_rate"]: one["score"] for one in records} == scores  # three trials exhaust the grid
    assert len(records) == 3 and [record["status"] for record in records] == ["completed"] * 3
    assert records[0]["started"] == first[0]["started"]
    assert again.finished and not os.path.exists(tmp_path / "search" / ".lock")


def test_a_second_search_in_the_folder_is_told(tmp_path, monkeypatch):
    tuner = recipe_tuner(tmp_path, keras_tuner.oracles.RandomSearchOracle("val_loss", max_trials=1), RATES, epochs=2)
    clock = types.SimpleNamespace(monotonic=itertools.count(step=10).__next__)  # a second look comes too late
    monkeypatch.setattr("kresnets._util.files.time", clock)
    holder = (
        f"import fcntl, os; d = os.open({tuner.project_dir!r}, os.O_RDONLY); fcntl.flock(d, fcntl.LOCK_EX); "
        "print(1, flush=True); input()"
    )
    with subprocess.Popen([sys.executable, "-c", holder], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        other.stdout.readline()
        with pytest.raises(ValueError, match="Another search is running in .*: wait for it"):
            search(tuner)
        other.stdin.write(b"\n")
        other.stdin.close()
        other.wait()
    assert not tuner.oracle.trials
    free = os.open(tuner.project_dir, os.O_RDONLY)
    fcntl.flock(free, fcntl.LOCK_EX | fcntl.LOCK_NB)  # the refused one left nothing locked
    os.close(free)


class Unlucky(keras.callbacks.Callback):
    """Run out of memory where the optimizer is one that a trial chose."""

    def on_train_begin(self, logs=None):
        if self.model.optimizer.name.startswith("sgd"):
            raise MemoryError("no room for 3 GiB")


FAILING = [
    *({"learning_rate": rate, "optimizer": "adamw"} for rate in (1e-1, 1e-2, 1e-3)),
    {"learning_rate": 1e-2, "optimizer": "sgd"},
    {"learning_rate": 1e30, "optimizer": "adamw"},
    {"learning_rate": 2e-2, "optimizer": "adamw"},  # whose network cannot be built
    {"learning_rate": 3e-2, "optimizer": "adamw"},
    {"learning_rate": 1e-9, "optimizer": "adamw"},
    {"learning_rate": 1e-9, "optimizer": "adamw"},
]


def test_failures_are_recorded_and_a_hopeless_trial_is_given_up(tmp_path, formula):
    """A search with a failure of each kind, and a trial that cannot come to anything."""
    built = []

    def make():
        built.append(1)
        if len(built) == 7:  # once for the space, then once a trial
            raise OSError("weights.h5 is damaged")
        return own()

    space = {"thaw": "head", "learning_rate": {"min": 1e-9, "max": 1e30}, "optimizer": ["adamw", "sgd"]}
    tuner = recipe_tuner(tmp_path, Listed(FAILING), space, epochs=4, make=make, prune=0.5)
    records = search(tuner, callbacks=[Unlucky()])
    ok = "completed"
    assert [one["status"] for one in records] == [ok, ok, ok, "failed", "failed", "failed", ok, "pruned", "repeated"]
    reasons = [record["reason"] for record in records[3:6]]
    assert reasons[0] == "OutOfMemory: no room for 3 GiB"
    assert reasons[1] == "NaN: the objective was not a number."
    assert reasons[2] == "OSError: weights.h5 is damaged"
    assert [record["score"] for record in records[3:6]] == [None] * 3
    assert all(reason.count("\n") == 0 for reason in reasons)
    assert tuner.oracle.stopped_because is None and tuner.finished
    assert tuner.oracle.get_best_trials(1)[0].score == min(r["score"] for r in records if r["score"] is not None)
    pruned, others = records[7], [record for record in records if record["status"] == "completed"]
    assert len(pruned["history"]) == pruned["epochs"] == 2  # half of its only stage, with four trials before it
    by_then = [min(row["val_loss"] for row in other["history"][:2]) for other in others]
    mine = min(row["val_loss"] for row in pruned["history"])
    assert len(others) == 4 and mine > statistics.median(by_then)
    assert pruned["reason"] == (
        f"Given up after 2 epochs: its best {mine:.4g} was worse than the {statistics.median(by_then):.4g} that 50% "
        "of 4 others had by then."
    )
    assert pruned["score"] == mine
    assert records[8]["epochs"] == 0 and records[8]["score"] == mine  # its repetition is as hopeless


@pytest.mark.parametrize("direction", ["min", "max"])
def test_the_rule_by_hand(direction):
    sign = 1 if direction == "min" else -1
    objective = keras_tuner.Objective("v", direction)
    histories = [[5, 3, 4], [4, 4, 2], [6, 2, 2], [7, 1], [9]]
    curves = [best_so_far([{"v": sign * v} for v in history], objective) for history in histories]
    assert [[sign * v for v in curve] for curve in curves] == [[5, 3, 3], [4, 4, 2], [6, 2, 2], [7, 1], [9]]

    def given_up(value, epochs, share=0.5, first=1):
        return Pruning(objective, curves, share, first).verdict(sign * value, epochs) is not None

    # By epoch 2 four have 3 4 2 1: the median is 2.5. By epoch 1 five have 5 4 6 7 9: 6. By epoch 3 there are three.
    assert [given_up(value, 2) for value in (2.4, 2.5, 2.6)] == [False, False, True]
    assert [given_up(value, 1) for value in (6, 6.1)] == [False, True]
    assert not given_up(100, 3) and not given_up(100, 1, first=2)
    # A quarter of four may be better, so two must be: 1 and 2. Three quarters: all four.
    assert [given_up(value, 2, share=0.25) for value in (2, 2.1)] == [False, True]
    assert [given_up(value, 2, share=0.75) for value in (4, 4.1)] == [False, True]


class NoRoom(keras.callbacks.Callback):
    def on_train_begin(self, logs=None):
        raise MemoryError("no room")


def test_three_failures_of_a_kind_stop_the_search(tmp_path, capsys, formula):
    def tuner():
        values = [{"learning_rate": rate} for rate in (1e-5, 1e-4, 1e-3, 1e-2, 1e-1)]
        return recipe_tuner(
            tmp_path, Listed(values), {"thaw": "head", "learning_rate": {"min": 1e-6, "max": 1.0}}, epochs=2
        )

    stopped = tuner()
    stopped.search(TRAIN, VALIDATION, callbacks=[NoRoom()], verbose=1)
    assert capsys.readouterr().out.endswith(f"{stopped.oracle.stopped_because}\n")
    records = read_records(stopped.project_dir)
    assert [(one["status"], one["reason"]) for one in records] == [("failed", "OutOfMemory: no room")] * 3
    assert "3 trials in a row failed in the same way" in stopped.oracle.stopped_because
    with pytest.raises(
        ValueError, match="No trial has been completed; 3 failed, the last one so: OutOfMemory: no room"
    ):
        stopped.best_recipe()
    mended = search(tuner())  # the same again, once the memory is there
    assert [record["status"] for record in mended] == ["failed"] * 3 + ["completed"] * 2


# Oracles.


PROMOTED = {"thaw": "high", "batchnorm": "train", "learning_rate": 1e-2}


LONG = dataclasses.replace(BASE, head_epochs=2, epochs_per_stage=3)
PROMOTIONS = [
    {**PROMOTED, "tuner/epochs": 1, "tuner/initial_epoch": 0},
    {**PROMOTED, "tuner/epochs": 4, "tuner/initial_epoch": 1, "tuner/trial_id": "0"},
    {**PROMOTED, "tuner/epochs": 5, "tuner/initial_epoch": 4, "tuner/trial_id": "1"},
]
PROMOTION_SPACE = {
    "thaw": ["head", "high"],
    "batchnorm": ["frozen", "train"],
    "learning_rate": {"min": 1e-4, "max": 1e-1},
}


@pytest.mark.everything
def test_a_promoted_trial_goes_on_within_a_stage(tmp_path):
    tuner = recipe_tuner(tmp_path, Listed(PROMOTIONS), PROMOTION_SPACE, LONG)
    records = search(tuner)
    whole = tuned(tuner.best_recipe())
    assert [record["epochs"] for record in records] == [1, 3, 1]
    for record, end in zip(records, (1, 4, 5)):
        assert [row["epoch"] for row in record["history"]] == list(range(end))
        for name in ("loss", "val_loss", "val_accuracy"):
            assert [row[name] for row in record["history"]] == pytest.approx(whole[name][:end], abs=TOLERANCE)
        assert record["score"] == pytest.approx(min(whole["val_loss"][:end]), abs=TOLERANCE)
    for trial in tuner.oracle.trials.values():
        assert evaluated(tuner.load_model(trial))["loss"] == pytest.approx(trial.score, abs=TOLERANCE)


@pytest.fixture(scope="module")
def hyperband(tmp_path_factory):
    oracle = keras_tuner.oracles.HyperbandOracle("val_loss", max_epochs=3, factor=3, seed=1)
    tuner = recipe_tuner(tmp_path_factory.mktemp("hyperband"), oracle, {"learning_rate": {"min": 1e-4, "max": 0.1}},
                         dataclasses.replace(BASE, stages=()), epochs=3)  # fmt: skip
    return tuner, search(tuner)


def test_hyperband(hyperband):
    tuner, records = hyperband
    values_of = {
        record["trial_id"]: tuner.oracle.trials[record["trial_id"]].hyperparameters.values for record in records
    }
    promoted = [record for record in records if "tuner/trial_id" in values_of[record["trial_id"]]]
    assert promoted and all(record["status"] == "completed" for record in records)
    for record in records:
        values = values_of[record["trial_id"]]
        assert record["epochs"] == values["tuner/epochs"] - values["tuner/initial_epoch"]
        assert len(record["history"]) == values["tuner/epochs"]
        assert not any(name.startswith("tuner/") for name in record["values"])
    for record in promoted:
        before = next(one for one in records if one["trial_id"] == values_of[record["trial_id"]]["tuner/trial_id"])
        assert before["values"] == record["values"]
        assert before["history"] == record["history"][: len(before["history"])]
    recipe = dataclasses.replace(BASE, stages=(), head_epochs=3, **promoted[0]["values"])
    assert [row["val_loss"] for row in promoted[0]["history"]] == pytest.approx(
        tuned(recipe)["val_loss"], abs=TOLERANCE
    )


@pytest.mark.everything
def test_keras_tuners_own_hyperband(tmp_path, hyperband):
    """Its first rounds score the same; what it promotes begins anew with another optimizer, so that differs."""
    space, base = {"learning_rate": {"min": 1e-4, "max": 0.1}}, dataclasses.replace(BASE, stages=())
    plain = keras_tuner.Hyperband(
        hypermodel(space, base, 3), "val_loss", max_epochs=3, factor=3, seed=1, directory=str(tmp_path)
    )
    plain.search(TRAIN, VALIDATION, verbose=0)
    mine = hyperband[0].oracle.trials
    compared = 0
    for trial_id, trial in plain.oracle.trials.items():
        assert trial.status == "COMPLETED"
        same = mine.get(trial_id)
        if (
            same
            and same.hyperparameters.values == trial.hyperparameters.values
            and "tuner/trial_id" not in trial.hyperparameters.values
        ):
            assert same.score == pytest.approx(trial.score, abs=TOLERANCE)
            compared += 1
    assert compared >= 3


def test_bayesian_optimization(tmp_path, formula):
    oracle = keras_tuner.oracles.BayesianOptimizationOracle("val_accuracy", max_trials=4, num_initial_points=2, seed=0)
    space = {"thaw": "head", "learning_rate": {"min": 1e-4, "max": 1e-1, "log": True}}
    records = search(recipe_tuner(tmp_path, oracle, space, epochs=2))
    assert [record["status"] for record in records] == ["completed"] * 4
    assert len({record["values"]["learning_rate"] for record in records}) == 4
    for record in records:
        assert record["score"] == max(row["val_accuracy"] for row in record["history"])


def test_several_objectives(tmp_path, formula):
    both = [keras_tuner.Objective("val_loss", "min"), keras_tuner.Objective("val_accuracy", "max")]
    tuner = recipe_tuner(tmp_path, Listed([{"learning_rate": 1e-2}], both), RATES, epochs=2)
    record = search(tuner)[0]
    # Keras Tuner's sum: what is to be small less what is to be large.
    assert record["score"] == pytest.approx(min(row["val_loss"] - row["val_accuracy"] for row in record["history"]))


def test_an_objective_that_nobody_measures(tmp_path, formula):
    tuner = recipe_tuner(
        tmp_path, Listed([{"learning_rate": 1e-2}], keras_tuner.Objective("val_f1", "max")), RATES, epochs=2
    )
    record = search(tuner)[0]
    assert record["status"] == "failed" and "'val_f1' is none of what is measured: " in record["reason"]


@pytest.mark.everything
def test_splits_and_repeats_give_the_mean(tmp_path):
    x, y = TRAIN
    splits = [((x[:20], y[:20]), VALIDATION), ((x[20:], y[20:]), VALIDATION)]
    tuner = recipe_tuner(tmp_path, Listed([{"learning_rate": 1e-2}]), RATES, epochs=2, executions_per_trial=2)
    tuner.search(splits=splits, verbose=0)
    record = read_records(tuner.project_dir)[0]
    recipes = [dataclasses.replace(tuner.best_recipe(), seed=seed) for seed in (0, 1)]
    by_hand = [min(tuned(recipe, *split)["val_loss"]) for recipe in recipes for split in splits]
    assert record["scores"] == pytest.approx(by_hand, abs=TOLERANCE)
    assert record["score"] == pytest.approx(statistics.mean(by_hand), abs=TOLERANCE)
    assert record["epochs"] == 8 and len(record["history"]) == 2


@pytest.mark.everything
def test_a_model_and_groups_of_the_users_own(tmp_path):
    keras.utils.set_random_seed(0)
    model = own()
    before = [weight.copy() for weight in model.get_weights()]
    made = RecipeHyperModel(model, {"thaw": ["head", "high", "low"]}, BASE, **OWN)
    tuner = RecipeTuner(made, keras_tuner.oracles.GridSearchOracle("val_loss"), directory=str(tmp_path))
    records = search(tuner)
    assert [record["values"]["thaw"] for record in records] == ["head", "high", "low"]
    assert [record["epochs"] for record in records] == [1, 1, 1]  # of one, two and three
    for mine, old in zip(model.get_weights(), before):
        assert np.array_equal(mine, old)  # each trial trains a copy
    history = tuned(made.space.recipe(records[2]["values"]))
    assert [row["val_loss"] for row in records[2]["history"]] == pytest.approx(history["val_loss"], abs=TOLERANCE)
    best = evaluated(tuner.get_best_models()[0])
    assert best["loss"] == pytest.approx(min(record["score"] for record in records), abs=TOLERANCE)
    with pytest.raises(ValueError, match="stage4"):
        RecipeHyperModel(model, {"thaw": ["head", "stage4"]}, **OWN)


def test_a_loss_and_metrics_of_the_users_own(tmp_path):
    """What Keras Tuner gives back is compiled with them: here the sum over a batch, not the mean."""
    compiled = {
        "loss": keras.losses.SparseCategoricalCrossentropy(from_logits=True, reduction="sum"),
        "metrics": ["sparse_categorical_accuracy"],
    }
    made = RecipeHyperModel(own, {"thaw": "head", "learning_rate": [1e-3, 1e-2]}, BASE, 2, **OWN, **compiled)
    tuner = RecipeTuner(made, keras_tuner.oracles.GridSearchOracle("val_loss"), directory=str(tmp_path))
    records = search(tuner)
    model = tuner.get_best_models()[0]
    best = evaluated(model)
    scores = model.predict(kresnets.preprocess_input(VALIDATION[0].astype("float32"), mode="torch"), verbose=0)
    by_hand = np.sum(np.log(np.exp(scores).sum(axis=1)) - scores[np.arange(len(scores)), VALIDATION[1]])
    assert [best["loss"], min(record["score"] for record in records)] == pytest.approx([by_hand] * 2, abs=0.01)
    row = min(min(records, key=lambda one: one["score"])["history"], key=lambda row: row["val_loss"])
    found = best["sparse_categorical_accuracy"]
    assert found == pytest.approx(row["val_sparse_categorical_accuracy"], abs=TOLERANCE)


def test_bad_arguments(tmp_path):
    oracle = keras_tuner.oracles.RandomSearchOracle("val_loss")
    with pytest.raises(ValueError, match="takes a RecipeHyperModel"):
        RecipeTuner(own, oracle, directory=str(tmp_path))
    for prune in (0, -0.5, 1.5, float("nan"), True):
        with pytest.raises(ValueError, match="`prune` must be"):
            recipe_tuner(tmp_path, oracle, RATES, epochs=2, prune=prune)
    tuner = recipe_tuner(tmp_path, oracle, RATES, epochs=2)
    with pytest.raises(ValueError, match="training and validation data"):
        tuner.search(TRAIN)
    with pytest.raises(ValueError, match="training and validation data"):
        tuner.search()
    assert not tuner.oracle.trials


ON_JAX = """
import sys
sys.modules["tensorflow"] = None  # as where it is not installed
import test_tuning as t
import keras, keras_tuner
tuner = t.recipe_tuner(sys.argv[1], t.Listed(t.PROMOTIONS), t.PROMOTION_SPACE, t.LONG)
records = t.search(tuner)
assert keras.backend.backend() == "jax"
whole = t.tuned(tuner.best_recipe())
assert [record["epochs"] for record in records] == [1, 3, 1]
worst = max(abs(row["val_loss"] - value) for row, value in zip(records[-1]["history"], whole["val_loss"]))
best = t.evaluated(tuner.get_best_models()[0])["loss"]
print(len(records[-1]["history"]), worst < 1e-3, abs(best - tuner.oracle.get_best_trials(1)[0].score) < 1e-3)
"""


@pytest.mark.everything
@pytest.mark.slow
@pytest.mark.jax
def test_on_jax(tmp_path):
    quick = {"KERAS_BACKEND": "jax", "XLA_FLAGS": "--xla_backend_optimization_level=0"}
    environment = {**os.environ, **quick, "PYTHONPATH": python_path(__file__)}
    done = subprocess.run(
        [sys.executable, "-c", ON_JAX, str(tmp_path)],
        env=environment,
        check=False,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.splitlines()[-1] == "5 True True"


class _Full(keras.callbacks.Callback):
    def on_epoch_end(self, epoch, logs=None):
        raise OSError(errno.ENOSPC, "No space left on device", "state.npz")


def test_a_full_disk_is_not_the_recipe_s_fault(tmp_path, formula):
    def tuner():
        return recipe_tuner(tmp_path, keras_tuner.oracles.GridSearchOracle("val_loss", max_trials=2), RATES)

    with pytest.raises(OSError, match="No space left"):
        tuner().search(TRAIN, VALIDATION, callbacks=[_Full()], verbose=0)
    tuner().search(TRAIN, VALIDATION, verbose=0)
    assert [record["status"] for record in read_records(tmp_path / "search")] == ["completed", "completed"]


def test_what_else_a_score_depends_on_is_said_alike_in_another_process():
    def training(**options):
        return RecipeHyperModel(own, RATES, BASE, **(OWN | options)).training()

    weighed = {"class_weight": {0: 1.0, 1: 2.0, 2: 1.0}, "loss": keras.losses.SparseCategoricalCrossentropy()}
    assert training(**weighed) == training(**weighed) != training() == training(class_weight=None)
    assert "0x" not in str(training(**weighed))


@pytest.mark.parametrize(
    ("what", "changed"),
    [
        ("objective", {"objective": "val_accuracy"}),
        ("space", {"space": RATES | {"learning_rate": [1e-3, 1e-2]}}),
        ("base", {"base": dataclasses.replace(BASE, weight_decay=0.1)}),
        ("data", {"data": (images(seed=7), VALIDATION)}),
        ("data", {"data": (TRAIN, images(20, seed=1))}),
    ],
)
def test_trials_of_another_search_are_not_mixed_with_these(tmp_path, formula, what, changed):
    def reopened(objective="val_loss", space=RATES, base=BASE, data=(TRAIN, VALIDATION), count=2, **options):
        oracle = Listed([{"thaw": "head", "learning_rate": rate} for rate in (1e-3, 1e-2)][:count], objective)
        return search(recipe_tuner(tmp_path, oracle, space, base, **options), *data)

    assert len(reopened(count=1)) == 1
    before = sorted(path.relative_to(tmp_path) for path in tmp_path.rglob("*"))
    with pytest.raises(ValueError, match=f"holds trials of a search with another {what}, whose scores"):
        reopened(**changed)
    assert sorted(path.relative_to(tmp_path) for path in tmp_path.rglob("*")) == before
    assert len(reopened()) == 2  # the same one goes on
    assert len(reopened(**changed, count=1, overwrite=True)) == 1
