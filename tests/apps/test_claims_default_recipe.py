"""The claim default-recipe: its cells, its settings, its solved heads, and its kept weights."""

import json

import claims
import keras
import numpy as np
import pytest
from claims import cells, default_recipe, keeps, peers, runner, scores, tuned, ways
from claims.claim import Options
from quick_claims import run

DIGITS = cells.Cell("digits", 60, 32)


def _whole(options):
    """Return all settings that are asked for, each way measured as good as its place in the grid is early."""
    claim, rows = claims.find("default-recipe"), []
    while True:
        wanted = claim.settings(options, rows)
        told = [
            setting | {"keep": "last", "test_accuracy": 1 / (1 + place), "test_auc": 0.5, "majority": 0.1}
            for place, setting in enumerate(wanted)
        ]
        if told == rows:
            return wanted, rows
        rows = told


@pytest.mark.parametrize("data", (None, "judge"))
def test_settings_are_told_apart_and_do_not_change(data):
    wanted, _ = _whole(Options(data=data))
    assert len({runner.key(setting) for setting in wanted}) == len(wanted)
    assert all(json.loads(json.dumps(setting)) == setting for setting in wanted)
    assert _whole(Options(data=data))[0] == wanted


def test_the_better_ones_go_on_and_the_best_few_reach_the_large_cells():
    wanted, _ = _whole(Options())
    found = {}
    for one in wanted:
        found.setdefault((ways.cell_of(one), one["seed"]), set()).add(one["way"])
    small, large = cells.CHOOSE[:2], cells.CHOOSE[2:]
    own, best = set(ways.WAYS), default_recipe.BETTER
    assert all(found[cell, 0] >= own for cell in small)
    assert all(len(found[cell, 1] & own) == best for cell in small)
    for cell in large:
        assert found[cell, 0] >= set(ways.LONG)
        beside = [found[cell, seed] - set(ways.LONG) - set(default_recipe.CHEAP) for seed in range(3)]
        assert beside[0] == beside[2] and len(beside[0]) <= default_recipe.FINALISTS


def test_what_judges_has_no_part_in_the_choice():
    chosen, judged = (_whole(Options(data=data))[0] for data in (None, "judge"))
    targets = [{one["target"] for one in settings if one["task"] == "tune"} for settings in (chosen, judged)]
    assert targets[0] & targets[1] == {cells.CIFAR}
    assert not any(one["judged"] for one in chosen) and all(one["judged"] for one in judged if one["task"] == "tune")


def test_every_number_that_a_recipe_has_is_in_the_setting():
    for way, fields in (ways.WAYS | ways.PEERS | ways.SCRATCH).items():
        setting = ways.setting_of(way, fields, DIGITS, 1, False)
        if setting["rule"] == "recipe":
            recipe = tuned.recipe_of(setting)
            left = [name for name, value in vars(recipe).items() if value == "auto"]
            assert left == [], (way, left)


@pytest.mark.parametrize("seed", range(2))
def test_the_parts_of_a_cell_share_no_image(seed):
    drawn = cells.draw(DIGITS, seed, False)
    assert [len(drawn.train), len(drawn.validation)] == [cells.learning(60), 9]
    found = [{image.tobytes() for image in part} for part in (drawn.train, drawn.validation, drawn.test)]
    # scikit-learn's digits hold no two alike; what seeds draw differs, the test images do not
    assert sum(map(len, found)) == len(found[0] | found[1] | found[2])
    assert set(drawn.train_labels) == set(range(10))
    assert np.array_equal(cells.draw(DIGITS, 7, False).test, drawn.test)
    assert not np.array_equal(cells.draw(DIGITS, 7, False).train, drawn.train)


def test_all_batches_are_asked_for():
    seen = []
    made = scores.outputs(lambda part: seen.append(len(part)) or part * 2.0, np.arange(150.0)[:, None])
    np.testing.assert_array_equal(made[:, 0], 2 * np.arange(150))
    assert seen == [64, 64, 64]


class _Steps(keras.callbacks.Callback):
    def __init__(self):
        super().__init__()
        self.after = []

    def on_train_batch_end(self, batch, logs=None):
        self.after.append(float(self.model.get_weights()[0][0, 0]))


def test_kept_weights_are_what_their_names_say():
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1, use_bias=False)])
    model.set_weights([np.array([[1.0]])])
    model.compile(keras.optimizers.SGD(0.1), "mse", metrics=["accuracy"])
    steps, record = _Steps(), keeps.Record(model, begins=1, epochs=7)
    x = np.ones((10, 1))
    model.fit(x, 0 * x, batch_size=2, epochs=7, validation_data=(x, 0 * x), callbacks=[steps, record], verbose=0)
    found = {name: float(weights[0][0, 0]) for name, weights in record.weights().items()}
    ends = steps.after[4::5]
    assert tuple(found) == keeps.ALL
    start, last = ends[0], ends[-1]
    average = start
    for end in ends[1:]:
        average += (1 - 0.98**keeps.EVERY) * (end - average)
    wanted = {"start": start, "last": last, "best loss": last, "average 0.98": average, "tail": np.mean(ends[-2:])}
    wanted |= {"mix 0.5": (start + last) / 2, "mix 0.75": 0.25 * start + 0.75 * last}
    assert {name: found[name] for name in wanted} == pytest.approx(wanted, rel=1e-5)
    assert record.epochs_kept["best loss"] == 7


def test_the_pull_leads_back_to_the_start():
    layers = [keras.layers.Dense(2, name="stem_dense"), keras.layers.Dense(2, name="head_dense")]
    model = keras.Sequential([keras.Input((3,)), *layers])
    pull = tuned.Pull(model, 10.0, begins=0)
    model.compile(keras.optimizers.SGD(0.05), "mse")
    model.optimizer.build(model.trainable_variables)
    pull.set_model(model)
    kernel, head = (layer.kernel for layer in layers)
    head.assign(head + 1.0)
    apart = head.numpy().copy()
    start = kernel.numpy().copy()
    kernel.assign(start + 1.0)
    pull.on_epoch_begin(0)
    pull.on_train_batch_end(0)
    np.testing.assert_allclose(kernel.numpy(), start + 0.5, atol=1e-5)
    np.testing.assert_array_equal(head.numpy(), apart)


def test_rates_of_the_rules():
    cycle, drops = peers.one_cycle(1.0, 101, 0.3, 5.0), peers.drops(1.0, 500)
    assert [float(cycle(step)) for step in (0, 30, 100)] == pytest.approx([0.2, 1.0, 1e-5], abs=1e-6)
    wanted = [0.5, 1.0, 1.0, 0.1, 0.01, 0.001]
    assert [float(drops(step)) for step in (50, 100, 199, 200, 300, 499)] == pytest.approx(wanted)


def test_judging_tells_every_target():
    _, rows = _whole(Options(data="judge"))
    findings = list(claims.find("default-recipe").findings(Options(data="judge"), rows))
    told = " ".join(found.claim for found in findings)
    assert len(findings) == 2 + 7 + 1 + 3
    assert "0.835" in told and "trained here" in told and "a point of AUC" in told


@pytest.mark.everything
def test_quick_runs_end_to_end(tmp_path):
    _, rows, _ = run("default-recipe", tmp_path / "default-recipe-quick")
    assert {row["keep"] for row in rows} >= set(keeps.ALL)
