"""What a search hands over: only what is better than the default by more than chance, as a file that says no more than
that."""

import dataclasses
import json
import statistics

import keras
import keras_tuner
import numpy as np
import pytest
import test_tuning as t
from scipy import stats

import kresnets
from kresnets.transfer import trunk
from kresnets.transfer.default import RULE, Facts
from kresnets.transfer.plan import resolve
from kresnets.tuning import RecipeHyperModel, RecipeTuner, Space, choose, folds, read_records
from kresnets.tuning.choice import differing

LOSS, ACCURACY = keras_tuner.Objective("val_loss", "min"), keras_tuner.Objective("val_accuracy", "max")
NAMES = ("stem", "stage1", "stage2", "stage3", "head")
# Tracing a function of TensorFlow's takes longer than a few steps of a small network.
pytestmark = [pytest.mark.usefixtures("eager"), pytest.mark.filterwarnings("ignore:Even though the .tf.config")]
rng = np.random.default_rng(0)


def facts(**changes):
    known = dict(groups=NAMES, images=64, steps=2, validation=11, classes=2, pretrained=True, why="")
    return Facts(**known | changes)


def record(trial_id, scores, accuracies=None, default=False, **more):
    measures = [{"val_accuracy": one} for one in accuracies or ()]
    fields = {"trial_id": str(trial_id), "status": "completed", "whole": True, "default": default, "values": {}}
    return fields | {"score": statistics.mean(scores), "scores": list(scores), "measures": measures} | more


# The rule.


def search_of_noise(trials, splits, seed, gain=0.0):
    """Trials as good as the default, or one of them better, on splits that are not equally hard."""
    draw = np.random.default_rng(seed)
    hard = draw.normal(0.6, 0.2, splits)
    rows = hard + draw.normal(0, 0.05, (trials + 1, splits))
    rows[1] -= gain
    return [record(index, row, default=not index) for index, row in enumerate(rows)]


@pytest.mark.everything
def test_of_searches_without_a_better_trial_few_hand_one_over():
    for splits in (5, 10):
        won = sum(not choose(search_of_noise(23, splits, seed), LOSS).record["default"] for seed in range(100))
        assert won / 100 < 1 / 6


def test_a_gain_above_the_noise_is_found_whatever_the_splits_have_in_common():
    found = [choose(search_of_noise(23, 10, seed, gain=0.2), LOSS).record["trial_id"] for seed in range(50)]
    assert found.count("1") >= 48


def test_the_rule_by_hand():
    first, other = [0.5, 0.4, 0.6, 0.7], [0.2, 0.15, 0.3, 0.45]
    gains = np.array(first) - other
    error = np.std(gains, ddof=1) * np.sqrt(1 / 4 + 1 / 4)
    for count in (1, 10):
        rest = [record(2 + index, [9.0] * 4) for index in range(count - 1)]
        choice = choose([record(0, first, default=True), record(1, other), *rest], LOSS)
        assert choice.gain == pytest.approx(np.mean(gains)) and choice.error == pytest.approx(error)
        assert choice.needed == pytest.approx(stats.t.isf(1 / 6 / count, 3) * error)
        assert choice.record["trial_id"] == "1" and choice.compared
    upwards = choose([record(0, other, default=True), record(1, first)], ACCURACY)
    assert upwards.record["trial_id"] == "1" and upwards.gain == pytest.approx(np.mean(gains))


def test_of_one_split_the_images_say_what_noise_is():
    records = [record(0, [0.5], default=True), record(1, [0.45])]
    assert choose(records, LOSS).record["trial_id"] == "1"
    assert choose(records, LOSS, validation=25).record["default"]  # 0.5 / 5 is the error
    assert choose(records, LOSS, validation=2500).record["trial_id"] == "1"
    shares = [record(0, [0.5], default=True), record(1, [0.55])]
    assert choose(shares, ACCURACY, validation=25).record["default"]
    assert not choose(shares, ACCURACY, validation=2500).record["default"]


def test_a_lower_loss_at_no_better_accuracy_is_no_gain():
    first, better = [0.5, 0.4, 0.6], [0.2, 0.1, 0.3]
    same, more, uneven = [0.8, 0.7, 0.8], [0.9, 0.81, 0.9], [0.8, 0.9, 0.7]
    default = record(0, first, same, default=True)
    for accuracies, won in ((same, False), (uneven, False), (more, True)):
        choice = choose([default, record(1, better, accuracies)], LOSS)
        assert choice.record["default"] is not won
        assert won or "gained no accuracy above noise" in choice.sentence
    # A worse one that is fair is found behind a better one that is not.
    assert choose([default, record(1, [0.1, 0.0, 0.2], same), record(2, better, more)], LOSS).record["trial_id"] == "2"


def test_what_did_not_come_to_its_end_is_not_handed_over():
    first = record(0, [0.5, 0.4], default=True)
    for state in ({"status": "pruned"}, {"status": "failed", "score": None}, {"status": "running", "score": None}, {}):
        assert choose([first, record(1, [0.1, 0.0], **state, whole=False)], LOSS).record["default"]
    failed = record(0, [0.5], default=True, status="failed", score=None, whole=False)
    choice = choose([failed, record(1, [0.3]), record(2, [0.2])], LOSS)
    assert choice.record["trial_id"] == "2" and "failed" in choice.sentence
    assert choose([failed], LOSS).record is None and choose([], LOSS).record is None
    legacy = choose([record(1, [0.3]), record(2, [0.2])], LOSS)
    assert legacy.record["trial_id"] == "2" and not legacy.compared


# The file.


@pytest.mark.parametrize("pretrained", (True, False))
@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"ratio": 0.3},
        {"stages": (), "head_epochs": 7},
        {"stages": ("stage3", "stage2"), "head_epochs": 2, "epochs_per_stage": 4, "learning_rate": 0.02},
        {"weight_decay": None, "ema": 0.9, "keep": "best", "optimizer": "sgd", "augment": "none"},
        {"learning_rate": 0.05},
        {"patience": 7},
    ],
)
def test_a_file_brings_the_very_recipe_back(fields, pretrained, tmp_path):
    known = facts(pretrained=pretrained)
    recipe = resolve(kresnets.Recipe(**fields), known).recipe
    file = differing(recipe, known)
    assert file["rule"] == RULE and set(fields) <= set(file) and "seed" not in file
    (tmp_path / "best_recipe.json").write_text(json.dumps(file))
    read = trunk.read_recipe(tmp_path / "best_recipe.json")
    assert resolve(kresnets.Recipe(**read), known).recipe == recipe
    if not fields:
        assert file == {"rule": RULE}


OLD = {
    "head_epochs": 3, "stages": ["stage4"], "epochs_per_stage": 3, "learning_rate": 1e-3, "trunk_learning_rate": 1e-4,
    "ratio": 0.5,
    "batchnorm": "frozen", "optimizer": "adamw", "weight_decay": 1e-4, "schedule": "cosine", "warmup": 0.1,
    "augment": "none",
    "views": 1, "label_smoothing": 0.0, "mixup": 0.0, "ema": None, "seed": 1, "advance": "epochs", "patience": 2,
    "max_epochs_per_stage": 10, "restore_best": None, "ramp": None, "timetable": None,
}  # fmt: skip


def test_files_of_before_and_of_other_rules(tmp_path, caplog):
    path = tmp_path / "recipe.json"

    def read(fields):
        path.write_text(json.dumps(fields))
        caplog.clear()
        return kresnets.Recipe(**trunk.read_recipe(path))

    old = read(OLD)
    assert old.unresolved == () and old.keep == "best" and not caplog.records
    assert old == kresnets.Recipe.textbook(stages=("stage4",), augment="none", seed=1)
    assert read({}) == read({"rule": RULE}) == kresnets.Recipe() and not caplog.records
    assert read({"ratio": 0.3}).unresolved and read({"rule": RULE, "ratio": 0.3}) == kresnets.Recipe(ratio=0.3)
    assert read({"rule": RULE + 1, "ratio": 0.3}) == kresnets.Recipe(ratio=0.3)
    (warning,) = caplog.records
    assert f"rule {RULE + 1}; what it leaves out is resolved by rule {RULE}" in warning.getMessage()
    for wrong in ("one", 0, True, 1.5):
        with pytest.raises(ValueError, match="rule is the version of one"):
            read({"rule": wrong})
    with pytest.raises(ValueError, match="it holds rate"):
        read({"rule": RULE, "rate": 0.3})


# The folds.


def test_folds_deal_out_each_class_evenly_and_keep_duplicates_together():
    labels = rng.permutation([0] * 22 + [1] * 53)
    together = list(range(75))
    twins = np.flatnonzero(labels == 0)[:3]
    for row in twins:
        together[row] = "twin"
    dealt = folds(labels, 5, rounds=2, seed=3, together=together)
    assert len(dealt) == 10
    for number in (0, 1):
        held = [validation for _, validation in dealt[5 * number : 5 * number + 5]]
        assert sorted(sum(held, [])) == list(range(75))
        counts = [[int(np.sum(labels[fold] == label)) for label in (0, 1)] for fold in held]
        assert {ones for _, ones in counts} == {10, 11} and all(3 <= zeros <= 6 for zeros, _ in counts)
        assert sum(set(twins) <= set(fold) for fold in held) == 1
    for train, validation in dealt:
        assert sorted([*train, *validation]) == list(range(75))
    assert dealt[0] != dealt[5] and dealt == folds(labels, 5, rounds=2, seed=3, together=together)
    assert folds(labels, 5, seed=4, together=together) != dealt[:5]
    assert len(folds([0, 0, 0, 1, 1], 5)) == 2 and folds([0, 0, 1], 5) == []  # as many as the smallest class has
    with pytest.raises(ValueError, match="two folds or more"):
        folds(labels, 1)


# The search.


def whole_search(folder, space, values, base=None, epochs=2, splits=None, oracle=None, **options):
    made = RecipeHyperModel(t.own, space, base, epochs, **t.OWN)
    tuner = RecipeTuner(made, oracle or t.Listed([{}, *values]), directory=str(folder), **options)
    tuner.search(*(() if splits else (t.TRAIN, t.VALIDATION)), splits=splits, verbose=0)
    return tuner, read_records(tuner.project_dir)


SMALL = kresnets.Recipe(augment="none", head="trained", batchnorm="frozen")


def test_the_first_trial_is_the_default_as_fine_tune_resolves_it(tmp_path):
    base = dataclasses.replace(SMALL, epochs_per_stage=2)
    tuner, records = whole_search(tmp_path, {"thaw": ["low", "high"]}, [{"thaw": "high"}], base, epochs=None)
    plan = kresnets.plan(t.own(), t.TRAIN, t.VALIDATION, base, groups=t.OWN["groups"])
    assert tuner.hypermodel.plan.recipe == plan.recipe and tuner.hypermodel.space.recipe({}) == plan.recipe
    assert [one["default"] for one in records] == [True, False] and records[0]["values"] == {}
    history = t.tuned(plan.recipe)
    assert [row["val_loss"] for row in records[0]["history"]] == pytest.approx(history["val_loss"], abs=t.TOLERANCE)
    # Scored by the epoch that the recipe keeps.
    assert plan.recipe.keep == "last" and records[0]["score"] == records[0]["history"][-1]["val_loss"]
    model = tuner.load_model(tuner.oracle.trials["0"])
    assert t.evaluated(model)["loss"] == pytest.approx(records[0]["score"], abs=t.TOLERANCE)
    assert tuner.choice().compared and tuner.best_recipe() in (
        plan.recipe,
        tuner.hypermodel.space.recipe(records[1]["values"]),
    )


def test_a_search_for_nothing_keeps_the_default(tmp_path, formula):
    x, y = t.TRAIN
    splits = [((x[rows], y[rows]), (x[held], y[held])) for rows, held in folds(y, 3)]
    space = {"thaw": ["head", "high"], "ratio": [0.4, 0.45, 0.5]}
    values = [{"thaw": "high", "ratio": ratio} for ratio in (0.4, 0.45, 0.5)]
    tuner, records = whole_search(tmp_path, space, values, SMALL, splits=splits)
    assert all(len(one["scores"]) == len(one["measures"]) == 3 for one in records)
    assert tuner.best_recipe() == tuner.hypermodel.plan.recipe and "first" in tuner.choice().sentence
    assert differing(tuner.best_recipe(), tuner.hypermodel.plan.facts).keys() == {"rule", "augment", "batchnorm"}


def test_a_better_choice_than_a_crippled_base_is_handed_over(tmp_path, formula):
    x, y = t.TRAIN
    splits = [((x[rows], y[rows]), (x[held], y[held])) for rows, held in folds(y, 4)]
    base = dataclasses.replace(SMALL, learning_rate=1e-7, stages=(), head_epochs=10, seed=2)
    tuner, records = whole_search(
        tmp_path, {"learning_rate": [1e-7, 0.3]}, [{"learning_rate": 0.3}], base, epochs=None, splits=splits
    )
    choice = tuner.choice()
    assert choice.record["trial_id"] == "1" and choice.gain > choice.needed > 0
    assert tuner.best_recipe().learning_rate == 0.3
    file = differing(tuner.best_recipe(), tuner.hypermodel.plan.facts)
    assert file["learning_rate"] == 0.3 and file["stages"] == ()


@pytest.mark.parametrize("kind", ["RandomSearch", "BayesianOptimization", "Hyperband", "GridSearch"])
def test_the_default_comes_first_with_each_oracle_and_after_a_kill(tmp_path, formula, kind):
    def oracle():
        if kind == "Hyperband":
            made = keras_tuner.oracles.HyperbandOracle("val_loss", max_epochs=2, factor=2)
            made.max_trials = 5
            return made
        more = {"num_initial_points": 2} if kind == "BayesianOptimization" else {}
        return getattr(keras_tuner.oracles, f"{kind}Oracle")("val_loss", max_trials=5, **more)

    space = {"thaw": ["head", "high"], "learning_rate": [1e-3, 1e-2], "ratio": [0.3, 1.0]}
    stop = iter([False, False, True])
    whole_search(tmp_path, space, [], SMALL, oracle=oracle(), seed=0, leave=lambda: next(stop))
    first = read_records(tmp_path / "search")
    assert len(first) == 2 and [one["default"] for one in first] == [True, False]
    tuner, records = whole_search(tmp_path, space, [], SMALL, oracle=oracle(), seed=0)
    assert [one["default"] for one in records] == [True] + [False] * 4
    assert records[0]["started"] == first[0]["started"]
    assert all(one["values"] for one in records[1:]) and len({str(one["values"]) for one in records[1:]}) >= 3
    assert records[0]["whole"]


def test_a_trial_that_is_behind_on_the_first_splits_is_given_up(tmp_path, formula):
    x, y = t.TRAIN
    splits = [((x[rows], y[rows]), (x[held], y[held])) for rows, held in folds(y, 3)]
    base = dataclasses.replace(SMALL, learning_rate=0.1, stages=(), head_epochs=10)
    tuner, records = whole_search(
        tmp_path,
        {"learning_rate": [1e-7, 0.1]},
        [{"learning_rate": 1e-7}, {"learning_rate": 0.1}],
        base,
        None,
        splits,
        race=1,
    )
    assert [one["status"] for one in records] == ["completed", "pruned", "repeated"]
    assert len(records[1]["scores"]) == 1 and records[1]["reason"].startswith("Given up after 1 of 3 splits: ")
    assert [one["whole"] for one in records] == [True, False, True]
    assert tuner.best_recipe() == tuner.hypermodel.plan.recipe


def test_a_base_that_leaves_nothing_out_is_no_trial_unless_asked_for(tmp_path, formula):
    tuner, records = whole_search(tmp_path / "a", t.RATES, [], t.BASE, oracle=t.Listed([{"learning_rate": 0.1}]))
    assert not records[0]["default"] and not tuner.hypermodel.leaves_out and not tuner.choice().compared
    tuner, records = whole_search(tmp_path / "b", t.RATES, [{"learning_rate": 0.1}], t.BASE, begins=True)
    assert [one["default"] for one in records] == [True, False]
    with pytest.raises(ValueError, match="`race` must be a whole number"):
        t.recipe_tuner(tmp_path / "c", t.Listed([]), t.RATES, race=0)


def test_keras_tuners_own_tuner_resolves_in_fit(tmp_path):
    made = RecipeHyperModel(t.own, {"thaw": ["head", "high"]}, SMALL, 2, **t.OWN)
    plain = keras_tuner.RandomSearch(made, "val_loss", max_trials=2, directory=str(tmp_path))
    assert made.plan is None
    plain.search(t.TRAIN, t.VALIDATION, verbose=0)
    assert all(trial.status == "COMPLETED" for trial in plain.oracle.trials.values())
    assert made.plan.recipe.unresolved == () and made.recipe(plain.get_best_hyperparameters(1)[0]).unresolved == ()


# What trials are variations of.


def settled(space, base=None, epochs=None, known=None):
    """Return the space of a hypermodel once its base is resolved."""
    made = RecipeHyperModel(t.residual, space, base, epochs)
    made.plan = resolve(made.base, known or facts(groups=made.names))
    made._settle()
    return made.space


def test_the_default_space_lies_around_the_default():
    space = settled(None)
    base = space.base
    assert space.fields["trunk_learning_rate"].min == pytest.approx(base.trunk_learning_rate / 10)
    assert space.fields["trunk_learning_rate"].max == pytest.approx(base.trunk_learning_rate * 10)
    words = space.words()
    assert words["thaw"] in space.fields["thaw"] and words["unfreeze"] in space.fields["unfreeze"]
    values = {name: value for name, value in words.items() if name in space.fields}
    assert space.recipe(values) == space.recipe({}) == base
    # The textbook's are those of before.
    assert (
        Space(None, NAMES, kresnets.Recipe.textbook()).fields["learning_rate"]
        == Space(None, NAMES).fields["learning_rate"]
    )


def test_epochs_that_are_given_hold_for_the_default_too():
    whole = settled({"ratio": [0.3, 1.0]}, kresnets.Recipe(head="trained"))
    assert whole.epochs == whole.base.epochs(whole.names)
    short = settled({"ratio": [0.3, 1.0]}, kresnets.Recipe(head="trained"), epochs=20)
    recipe = short.recipe({})
    assert recipe.epochs(short.names) == 20
    assert recipe.head_epochs == round(20 * whole.base.head_epochs / whole.epochs)
    given = settled({"ratio": [0.3, 1.0]}, kresnets.Recipe(head_epochs=5), epochs=20)
    assert given.recipe({}).head_epochs == 5
    each = settled({"epochs_per_stage": [5, 10]}, kresnets.Recipe(head="trained"))
    assert each.epochs is None and each.recipe({"epochs_per_stage": 5}).epochs_per_stage == 5


def test_where_a_big_data_set_leaves_few_epochs_groups_thaw_at_once():
    space = settled(None, known=facts(groups=NAMES, images=64000, steps=2000, validation=5000))
    assert space.epochs == space.base.epochs(NAMES) and space.fields["unfreeze"] == ("at_once",)
    for thaw in space.fields["thaw"]:
        assert space.recipe({"thaw": thaw, "unfreeze": "at_once"}).epochs(NAMES) == space.epochs


def test_a_plan_is_taken_as_it_is():
    plan = resolve(kresnets.Recipe(ratio=0.3), facts(groups=NAMES))
    made = RecipeHyperModel(t.residual, {"batchnorm": ["frozen", "train"]}, plan)
    assert made.plan is plan and made.leaves_out and made.space.recipe({}) == plan.recipe
    assert made.resolve((np.zeros((4, 32, 32, 3)), np.arange(4) % 2)) is plan
    assert keras.config.dtype_policy().name == "float32"


@pytest.mark.everything
def test_a_stage_that_is_undone_is_not_what_a_trial_is_scored_by(tmp_path):
    base = dataclasses.replace(SMALL, head_epochs=2, learning_rate=0.1, stages=("high",), epochs_per_stage=3, ratio=1.0)
    values = [
        {"trunk_learning_rate": 5.0, "label_smoothing": 0.0},
        {"trunk_learning_rate": 5.0, "label_smoothing": 0.1},
    ]
    space = {"trunk_learning_rate": [1e-4, 5.0], "label_smoothing": [0.0, 0.1]}
    train = t.TRAIN[0], np.random.default_rng(1).permutation(t.TRAIN[1])  # which nothing explains
    tuner, records = whole_search(tmp_path, space, values, base, epochs=None, splits=[(train, t.VALIDATION)])
    for one in records[1:]:
        assert one["status"] == "completed", one["reason"]
        losses = [row["loss"] for row in one["history"]]
        assert losses[-1] > losses[1] + 0.1  # it diverged
        assert one["score"] == one["history"][1]["val_loss"]
    undone = tuner.load_model(tuner.oracle.trials[records[1]["trial_id"]])
    assert t.evaluated(undone)["loss"] == pytest.approx(records[1]["score"], abs=t.TOLERANCE)
    recipe = tuner.hypermodel.space.recipe(records[1]["values"])
    keras.utils.set_random_seed(0)
    trained = t.own()
    kresnets.fine_tune(trained, train, t.VALIDATION, recipe, verbose=0, **t.OWN)
    assert t.evaluated(trained)["loss"] == pytest.approx(records[1]["score"], abs=t.TOLERANCE)


class Interrupted(keras.callbacks.Callback):
    """Press Ctrl-C in the third training of the search. Keras Tuner copies callbacks for each."""

    seen = 0

    def on_train_begin(self, logs=None):
        Interrupted.seen += 1
        if Interrupted.seen == 3:
            raise KeyboardInterrupt


def test_a_trial_that_was_interrupted_goes_on_at_its_next_split(tmp_path, formula):
    x, y = t.TRAIN
    splits = [((x[rows], y[rows]), (x[held], y[held])) for rows, held in folds(y, 4)]
    base = dataclasses.replace(SMALL, learning_rate=0.1, stages=(), head_epochs=2)

    def records(name, *callbacks, leave=None):
        hypermodel = RecipeHyperModel(t.own, {"learning_rate": [0.1, 0.2]}, base, **t.OWN)
        made = RecipeTuner(hypermodel, t.Listed([{}]), directory=str(tmp_path / name), leave=leave)
        made.search(splits=splits, callbacks=callbacks, verbose=0)
        return read_records(made.project_dir)

    whole = records("whole")
    with pytest.raises(KeyboardInterrupt):
        records("cut", Interrupted())
    folder = tmp_path / "cut/search/trial_0"
    assert len(json.loads((folder / "splits.json").read_text())) == 2
    asked = iter([False, True])  # before the trial, and before its fourth split
    records("cut", leave=lambda: next(asked))
    assert len(json.loads((folder / "splits.json").read_text())) == 3
    cut = records("cut", Interrupted())
    assert Interrupted.seen == 3 + 1 and not (folder / "splits.json").exists()
    assert cut[0]["scores"] == pytest.approx(whole[0]["scores"], abs=t.TOLERANCE) and cut[0]["whole"]
    assert cut[0]["score"] == pytest.approx(whole[0]["score"], abs=t.TOLERANCE) and len(cut[0]["history"]) == 2
