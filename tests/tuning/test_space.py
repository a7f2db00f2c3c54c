"""The space of recipes: against Keras Tuner's own hyperparameters, counts made by hand, and the rules of `Recipe`."""

import collections
import dataclasses
import itertools
import math

import keras
import keras_tuner
import pytest

import kresnets
from kresnets.callbacks import StagedUnfreezing
from kresnets.groups import layout
from kresnets.tuning import Range, RecipeHyperModel, Space

NAMES = ("stem", "stage1", "stage2", "stage3", "head")
BASE = kresnets.Recipe.textbook(augment="none")


def drawn(space, count=300):
    """Return the distinct dicts of values that Keras Tuner draws from a space, each with its active ones alone."""
    oracle = keras_tuner.oracles.RandomSearchOracle("val_loss", max_trials=count, seed=0)
    hp = keras_tuner.HyperParameters()
    space.declare(hp)
    oracle.update_space(hp)
    found = []
    for number in range(count):
        drawn = oracle.populate_space(str(number))
        trial = keras_tuner.engine.trial.Trial(hp.copy())
        trial.hyperparameters.values = drawn["values"]
        found.append({name: drawn["values"][name] for name in drawn["values"] if trial.hyperparameters.is_active(name)})
    return list({frozen(one): one for one in found}.values())


def grid(space, folder):
    """Return the values of all trials of Keras Tuner's grid search."""

    class Made(keras_tuner.HyperModel):
        def build(self, hp):
            space.declare(hp)
            model = keras.Sequential([keras.layers.Input((1,)), keras.layers.Dense(1)])
            model.compile(loss="mse")
            return model

    class Tuner(keras_tuner.engine.base_tuner.BaseTuner):
        def run_trial(self, trial):
            return {"score": 0.5}

    oracle = keras_tuner.oracles.GridSearchOracle(keras_tuner.Objective("score", "max"))
    tuner = Tuner(oracle, Made(), directory=str(folder), project_name="grid")
    tuner.oracle.verbose = 0
    tuner.search()
    return [trial.hyperparameters.values for trial in oracle.trials.values()]


def frozen(values):
    return tuple(sorted(values.items()))


def test_conditions_leave_no_trial_without_a_difference(tmp_path):
    space = Space({"thaw": ["head", "stage3", "stage1"], "ratio": [0.1, 0.5, 1.0], "batchnorm": ["frozen", "train"],
                   "learning_rate": [1e-3, 1e-2], "trunk_learning_rate": [1e-4, 1e-5]}, NAMES, BASE)  # fmt: skip
    by_hand = 2 * (1 + 2 * (3 * 2 * 2))  # both rates of the head; the head alone, and two depths with all of the rest
    for values in (drawn(space), grid(space, tmp_path)):
        assert len(values) == by_hand
        assert len({frozen(one) for one in values}) == by_hand
        assert len({dataclasses.astuple(space.recipe(one)) for one in values}) == by_hand
        assert all(space.active(one) == one for one in values)
        assert {len(one) for one in values if one["thaw"] == "head"} == {2}


def test_each_condition_by_hand(tmp_path):
    space = Space(
        {
            "schedule": ["constant", "cosine"],
            "warmup": [0.0, 0.2],
            "head_epochs": [0, 1, 2],
            "learning_rate": [1e-3, 1e-2],
            "augment": ["none", "light"],
            "views": [1, 2],
        },
        NAMES,
        BASE,
    )
    by_hand = (1 + 2) * (1 + 2 * 2) * (1 + 2)
    assert len({frozen(one) for one in drawn(space)}) == by_hand == len(grid(space, tmp_path))


def test_what_the_base_decides_is_a_condition_too():
    fields = {"ratio": [0.1, 1.0], "trunk_learning_rate": [1e-4, 1e-5], "learning_rate": [1e-3, 1e-2]}
    assert len(drawn(Space(fields, NAMES, dataclasses.replace(BASE, stages=())))) == 2
    assert len(drawn(Space(fields, NAMES, dataclasses.replace(BASE, head_epochs=0)))) == 4
    assert len(drawn(Space(fields, NAMES, BASE))) == 8
    with pytest.raises(ValueError, match="one recipe alone"):
        Space({"ratio": [0.1, 1.0]}, NAMES, dataclasses.replace(BASE, stages=()))
    with pytest.raises(ValueError, match="one recipe alone"):
        Space({"thaw": "head", "ratio": [0.1, 1.0]}, NAMES, BASE)
    with pytest.raises(ValueError, match="one recipe alone"):
        Space({"views": [1, 2]}, NAMES, BASE)


@pytest.mark.parametrize("epochs", [3, 6, 7, 12])
def test_a_number_of_epochs_holds_for_every_trial(epochs):
    fields = {"thaw": [*NAMES[1:], "stem"] if epochs > 6 else ["stage2", "stage3", "head"], "head_epochs": [0, 1]}
    space = Space(fields, NAMES, BASE, epochs)
    for thaw, head in itertools.product(fields["thaw"], fields["head_epochs"]):
        recipe = space.recipe({"thaw": thaw, "head_epochs": head})
        lengths = collections.Counter(length for name, length in recipe.staging(NAMES).stages if name != "head")
        assert len(lengths) <= 1
        assert bool(recipe.head_epochs) == (head > 0 or thaw == "head")
        # A rest that there is no head's stage for is left out.
        trunk = NAMES.index("head") - NAMES.index(thaw)
        assert recipe.epochs(NAMES) == (epochs if recipe.head_epochs else epochs // trunk * trunk)


def test_stages_thaw_from_the_end():
    model = kresnets.CifarResNet20(classes=2)
    hypermodel = RecipeHyperModel(model, {"thaw": ["stage2", "stage3_block2", "head"]}, BASE)
    space = hypermodel.space
    assert space.recipe({"thaw": "stage2"}).stages == ("stage3", "stage2")
    assert space.recipe({"thaw": "stage3_block2"}).stages == ("stage3_block2",)
    assert space.recipe({"thaw": "head"}).stages == ()
    assert space.stages("stage2_block3") == ("stage3", "stage2_block3")
    for thaw in ("stage2", "stage3_block2", "head"):  # each is a recipe that `fine_tune` takes
        staging = space.recipe({"thaw": thaw}).staging(hypermodel.names)
        StagedUnfreezing(staging).check(layout(model))


def test_ranges_are_those_of_keras_tuner():
    space = Space(
        {
            "learning_rate": {"min": 1e-4, "max": 1e-2, "log": True},
            "ratio": {"min": 0, "max": 1, "step": 0.25},
            "epochs_per_stage": Range(1, 9, 4),
            "head_epochs": {"min": 1, "max": 10, "log": True},
            "views": {"min": 1, "max": 9, "step": 3, "log": True},
            "augment": "light",
        },
        NAMES,
    )
    hp = keras_tuner.HyperParameters()
    space.declare(hp)
    seen = {one.name: {one.random_sample(seed) for seed in range(400)} for one in hp.space}
    assert all(1e-4 <= rate <= 1e-2 for rate in seen["learning_rate"])
    middle = sorted(math.log10(rate) for rate in seen["learning_rate"])[200]
    assert abs(middle + 3) < 0.1  # the median of what is even in the logarithm from -4 to -2
    assert seen["ratio"] == {0.0, 0.25, 0.5, 0.75, 1.0}
    assert seen["epochs_per_stage"] == {1, 5, 9} == set(space.fields["epochs_per_stage"].values())
    assert seen["head_epochs"] == set(range(1, 11)) == set(space.fields["head_epochs"].values())
    assert seen["views"] == {1, 3, 9} == set(space.fields["views"].values())
    for name in ("head_epochs", "epochs_per_stage", "views"):
        for value in seen[name]:
            recipe = space.recipe({"augment": "light", "head_epochs": 1, "learning_rate": 5e-3, name: value})
            assert getattr(recipe, name) == value and recipe.learning_rate == 5e-3


def test_toml_and_dict_are_the_same(tmp_path):
    path = tmp_path / "space.toml"
    path.write_text(
        'thaw = ["head", "stage3"]\nratio = [1, 0.5]\noptimizer = "sgd"\n'
        "[learning_rate]\nmin = 1e-4\nmax = 1e-2\nlog = true\n"
    )
    fields = {
        "thaw": ("head", "stage3"),
        "ratio": [1.0, 0.5],
        "optimizer": ["sgd"],
        "learning_rate": Range(1e-4, 1e-2, log=True),
    }
    assert Space(str(path), NAMES).fields == Space(path, NAMES).fields == Space(fields, NAMES).fields
    again = Space(Space(fields, NAMES).as_data(), NAMES)
    assert again.fields == Space(fields, NAMES).fields


def test_the_default_fits_each_network():
    for names in (NAMES, ("stem", *(f"stage{i}" for i in range(1, 5)), "head"), ("body", "head"), ("a", "b", "c")):
        space = Space(None, names)
        assert space.fields["thaw"] == (names[-1], *reversed(names[1:-1]))
    assert len({frozen(one) for one in drawn(space, 20)}) == 20


def test_the_same_training_in_other_words():
    space = Space({"thaw": ["head", "stage3", "stage2"], "head_epochs": [0, 1, 2], "learning_rate": [1e-3, 1e-2]},
                  NAMES, BASE, epochs=6)  # fmt: skip
    one = {"thaw": "stage2", "head_epochs": 1, "learning_rate": 1e-3}
    # One epoch of 6 leaves 5, 2 for each of two stages: the rest goes to the head, which then has 2.
    assert space.same(one, {**one, "head_epochs": 2})
    assert not space.same({**one, "thaw": "stage3"}, {**one, "thaw": "stage3", "head_epochs": 2})
    assert not space.same(one, {**one, "learning_rate": 1e-2})
    without = {"thaw": "stage3", "head_epochs": 0}
    assert space.same({**without, "learning_rate": 1e-3}, {**without, "learning_rate": 1e-2})
    assert not space.same({"thaw": "head", "learning_rate": 1e-3}, {"thaw": "head", "learning_rate": 1e-2})


@pytest.fixture(scope="module")
def where():
    return layout(kresnets.CifarResNet20(classes=2))


NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize(
    "fields, said",
    [
        ({}, "at least one field"),
        ([], "at least one field"),
        ("", "cannot be read"),
        (3, "at least one field"),
        ({"dropout": [0.1, 0.2]}, "'dropout', which is no field: use thaw, "),
        ({"seed": [0, 1]}, "'seed', which is no field"),
        ({"stages": ["stage3"]}, "'stages', which is no field"),
        ({3: [0, 1]}, "3, which is no field"),
        ({"thaw": ["head", "stage4"]}, "stage4"),
        ({"thaw": ["head", "stage3_block7"]}, "stage3_block7"),
        ({"thaw": [1, 2]}, "group"),
        ({"thaw": []}, "to choose from"),
        ({"thaw": {"min": 0, "max": 3}}, "no range"),
        ({"thaw": "head"}, "one recipe alone"),
        ({"ratio": 0.5}, "one recipe alone"),
        ({"ratio": [0.5, 0.5]}, "one recipe alone"),
        ({"ratio": [0.5, -0.1]}, "`ratio` must be a number from 0"),
        ({"ratio": {"min": -0.5, "max": 1.0}}, "`ratio` must be a number from 0"),
        ({"ratio": [0.5, NAN]}, "`ratio` must be"),
        ({"ratio": [0.5, INF]}, "`ratio` must be"),
        ({"ratio": [0.5, True]}, "to choose from"),
        ({"ratio": [False, True]}, "to choose from"),
        ({"ratio": ["small", "large"]}, "`ratio` must be"),
        ({"ratio": ["small", 0.5]}, "of one kind"),
        ({"ratio": [[0.1], [0.2]]}, "to choose from"),
        ({"ratio": None}, "to choose from"),
        ({"ratio": {"min": 0.1}}, "must have min and max"),
        ({"ratio": {"min": 0.1, "max": 0.2, "mean": 0.15}}, "may have step and log"),
        ({"ratio": {"min": 1.0, "max": 0.1}}, "rise from min to max"),
        ({"ratio": {"min": 0.1, "max": 0.1}}, "rise from min to max"),
        ({"ratio": {"min": 0.0, "max": 1.0, "log": True}}, "above 0"),
        ({"ratio": {"min": 0.1, "max": 1.0, "log": "yes"}}, "`log`"),
        ({"ratio": {"min": 0.1, "max": 1.0, "step": 0}}, "by a step"),
        ({"ratio": {"min": 0.1, "max": 1.0, "step": 1.0, "log": True}}, "by a step above 1"),
        ({"ratio": {"min": NAN, "max": 1.0}}, "must be numbers"),
        ({"ratio": {"min": 0.1, "max": INF}}, "must be numbers"),
        ({"ratio": {"min": 0.1, "max": 1.0, "step": NAN}}, "must be numbers"),
        ({"ratio": {"min": False, "max": True}}, "must be numbers"),
        ({"ratio": {"min": "0.1", "max": 1.0}}, "must be numbers"),
        ({"head_epochs": [1, 2.5]}, "`head_epochs` must be a whole number"),
        ({"head_epochs": [-1, 2]}, "`head_epochs` must be a whole number"),
        ({"head_epochs": {"min": 1.0, "max": 2.0}}, "whole numbers"),
        ({"head_epochs": [True, 2]}, "to choose from"),
        ({"batchnorm": ["frozen", "thawed"]}, "`batchnorm` must be one of"),
        ({"batchnorm": {"min": 0, "max": 1}}, "no range"),
        ({"optimizer": ["adamw", "adamwww"]}, "`optimizer` must be the name"),
        ({"label_smoothing": {"min": 0.0, "max": 1.0}}, "`label_smoothing` must be"),
        ({"ema": [0.9, NAN]}, "`ema` must be"),
        ({"mixup": [0, 2]}, "`mixup` must be"),
        ({"thaw": ["head", "stage3"], "head_epochs": [0, 1]}, "nothing would learn"),
    ],
)
def test_a_bad_space_gets_one_sentence_before_any_trial(where, fields, said):
    with pytest.raises(ValueError) as error:
        Space(fields, NAMES, check=where.first)
    assert said in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize(
    "fields, base, epochs, said",
    [
        ({"thaw": ["head", "stage1"]}, {"head_epochs": 3}, 5, "too short"),
        ({"thaw": ["head", "stage3"], "head_epochs": [1, 6]}, {}, 6, "too short"),
        ({"ratio": [0.1, 1.0]}, {"head_epochs": 3}, 4, "too short"),
        ({"ratio": [0.1, 1.0], "epochs_per_stage": [1, 2]}, {}, 9, "leave one of them out"),
        ({"ratio": [0.1, 1.0]}, {}, 1, "whole number from 2"),
        ({"ratio": [0.1, 1.0]}, {}, True, "whole number from 2"),
        ({"ratio": [0.1, 1.0]}, {}, 6.0, "whole number from 2"),
        ({"ratio": [0.1, 1.0]}, {"advance": "plateau"}, None, "fixed epochs"),
        ({"ratio": [0.1, 1.0]}, {"timetable": (("head", 1),)}, None, "fixed epochs"),
        ({"ratio": [0.1, 1.0]}, {"stages": ("stage7",)}, None, "stage7"),
        ({"learning_rate": [0.1, 1.0], "head_epochs": [0, 1]}, {"stages": ()}, None, "nothing would learn"),
    ],
)
def test_bad_epochs_and_bases(fields, base, epochs, said):
    with pytest.raises(ValueError) as error:
        Space(fields, NAMES, dataclasses.replace(BASE, **base), epochs)
    assert said in str(error.value) and "\n" not in str(error.value)


def test_as_many_epochs_as_there_are_stages_are_enough():
    """The default stages of a recipe end at stage2: two, and one epoch of the head."""
    assert (
        Space({"ratio": [0.1, 1.0]}, NAMES, dataclasses.replace(BASE, head_epochs=1), 3).recipe({}).epochs(NAMES) == 3
    )


@pytest.mark.parametrize("text", [b"thaw = [", b"\xff\xfe\x00", b"a b c", b"thaw = 1\nthaw = 2"])
def test_damaged_toml(tmp_path, text):
    path = tmp_path / "space.toml"
    path.write_bytes(text)
    with pytest.raises(ValueError, match="space.toml is no TOML file") as error:
        Space(path, NAMES)
    assert "\n" not in str(error.value)
    with pytest.raises(ValueError, match="cannot be read"):
        Space(tmp_path / "absent.toml", NAMES)
    with pytest.raises(ValueError, match="cannot be read"):
        Space(tmp_path, NAMES)


def test_other_bad_arguments():
    with pytest.raises(ValueError, match="`base` must be a kresnets.Recipe"):
        Space({"ratio": [0.1, 1.0]}, NAMES, {"head_epochs": 1})
    with pytest.raises(ValueError, match="`build` must be a function"):
        RecipeHyperModel("ResNet50")
    with pytest.raises(ValueError, match="`build` must return a Keras model"):
        RecipeHyperModel(lambda: None)
    with pytest.raises(ValueError, match="no group or block 'stage4'"):
        RecipeHyperModel(kresnets.CifarResNet20(classes=2), {"thaw": ["head", "stage4"]})
    model = keras.Sequential([keras.layers.Input((4, 4, 3)), keras.layers.Flatten(), keras.layers.Dense(2)])
    with pytest.raises(ValueError, match="groups"):
        RecipeHyperModel(model)
    alone = RecipeHyperModel(model, {"learning_rate": [0.1, 1.0]}, BASE, groups={"head": ".*"})
    assert alone.names == ("head",)


def test_what_thaws_at_once_is_one_stage_and_plays_no_part_where_one_group_thaws():
    space = Space({"thaw": ["head", "stage3", "stage1"], "unfreeze": ["gradual", "at_once"]}, NAMES, BASE, epochs=9)
    gradual, at_once = (space.recipe({"thaw": "stage1", "unfreeze": way}) for way in ("gradual", "at_once"))
    # Three stages of the trunk share the 6 epochs after the head's 3; one has them all.
    assert gradual.plan(NAMES) == {0: "head", 3: "stage3", 5: "stage2", 7: "stage1"}
    assert at_once.plan(NAMES) == {0: "head", 3: "stage1"} and at_once.epochs(NAMES) == 9
    assert space.active({"thaw": "stage3", "unfreeze": "at_once"}) == {"thaw": "stage3"}


@pytest.mark.parametrize(
    "fields", [{"unfreeze": ["gradual", "at_once"]}, {"thaw": ["head", "stage1"], "unfreeze": "slowly"}]
)
def test_an_unfreezing_that_cannot_be_is_refused(fields):
    with pytest.raises(ValueError, match="unfreeze goes with thaw, and is 'gradual' or 'at_once'"):
        Space(fields, NAMES)
