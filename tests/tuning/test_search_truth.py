"""A search finds how deep one must thaw, where that is known: against a built problem, see tests/truth.py."""

import collections

import keras_tuner
import pytest
import truth

import kresnets
from kresnets.tuning import RecipeHyperModel, RecipeTuner, read_records


def search(target, folder, seed, rates):
    """Search over depths and rates; return the tuner, and the record of each depth's best trial."""
    recipe = kresnets.Recipe.textbook(
        head_epochs=3, learning_rate=1e-2, ratio=1.0, schedule="constant", augment="none", seed=seed
    )
    space = {"thaw": list(truth.DEPTHS), "trunk_learning_rate": rates}
    hypermodel = RecipeHyperModel(target.build, space, recipe, epochs=15)
    oracle = keras_tuner.oracles.GridSearchOracle("val_accuracy", max_trials=20)
    tuner = RecipeTuner(hypermodel, oracle, directory=folder)
    tuner.search(target.train, target.validation, verbose=0)
    records = read_records(tuner.project_dir)
    assert len(records) == 1 + 2 * len(rates)  # the trunk's rate makes no difference where nothing of it thaws
    assert {record["status"] for record in records} == {"completed"}
    return tuner, {r["values"]["thaw"]: r for r in sorted(records, key=lambda record: record["score"])}


def answers(seed, name, folder, rates):
    """Return the depth that the search's validation says, and the one that pictures say which no choice has seen."""
    target = truth.problem(seed).target(name)
    tuner, best = search(target, folder, seed, rates)
    models = {depth: tuner.load_model(tuner.oracle.get_trial(record["trial_id"])) for depth, record in best.items()}
    unseen = {depth: truth.accuracy(model, target.test) for depth, model in models.items()}
    print(seed, name, {depth: round(best[depth]["score"], 3) for depth in truth.DEPTHS}, unseen, flush=True)
    return truth.shallowest({depth: record["score"] for depth, record in best.items()}), truth.shallowest(unseen)


@pytest.mark.slow
@pytest.mark.parametrize(
    "seed, name",
    [pytest.param(seed, name, marks=pytest.mark.everything) for seed in (0, 1) for name in truth.ANSWERS],
)
def test_a_search_finds_how_deep_to_thaw(seed, name, tmp_path):
    _, best = search(truth.problem(seed).target(name), tmp_path, seed, rates=[1e-2])
    assert truth.shallowest({depth: record["score"] for depth, record in best.items()}) == truth.ANSWERS[name]


@pytest.mark.everything
def test_a_search_finds_how_deep_to_thaw_with_8_of_10_seeds(tmp_path):
    found, true = collections.Counter(), collections.Counter()
    for seed in range(10):
        for name, answer in truth.ANSWERS.items():
            chosen, right = answers(seed, name, tmp_path / f"{name}-{seed}", rates=[1e-2, 3e-3])
            found[name] += chosen == answer
            true[name] += right == answer
    print(found, true)
    assert all(found[name] >= 8 for name in truth.ANSWERS), found
    assert all(true[name] >= 8 for name in truth.ANSWERS), true  # the problem is built as it says
