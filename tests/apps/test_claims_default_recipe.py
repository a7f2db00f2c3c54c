"""The claim default-recipe: its cells, its settings, its solved heads, and its kept weights."""

import json

import claims
import keras
import numpy as np
import pytest
from claims import cells, default_recipe, peers, runner, scores
from claims.claim import Options
from quick_claims import run

import kresnets

DIGITS = cells.Cell("digits", 60, 32)


def _whole():
    """Return all settings that are asked for, and rows: each way measured as good as its place in the list is early."""
    claim, rows = claims.find("default-recipe"), []
    while True:
        wanted = claim.settings(Options(), rows)
        told = [
            setting | {"keep": keep, "test_accuracy": 1 / (1 + place), "test_auc": 0.5, "majority": 0.1}
            for place, setting in enumerate(wanted)
            for keep in ("last", "best loss")
        ]
        if told == rows:
            return wanted, rows
        rows = told


def test_settings_are_told_apart_and_do_not_change():
    wanted, _ = _whole()
    assert len({runner.key(setting) for setting in wanted}) == len(wanted)
    assert all(json.loads(json.dumps(setting)) == setting for setting in wanted)
    assert _whole()[0] == wanted


def test_all_that_is_asked_for_is_in_the_repository_and_says_what_the_page_says():
    done = runner.read_runs(runner.ledger("default-recipe"))
    wanted, _ = _whole()
    assert all(runner.key(setting) in done for setting in wanted)
    rows = [setting | row for setting in wanted for row in done[runner.key(setting)]["rows"]]
    page = (runner.ledger("default-recipe").with_suffix(".md")).read_text()
    for found in default_recipe.CLAIM.findings(Options(), rows):
        assert f"- **{found.verdict}**: {found.claim} {found.numbers}\n" in page


def test_every_number_that_a_recipe_has_is_in_the_setting():
    for way, fields in (cells.PEERS | cells.SCRATCH).items():
        setting = cells.setting_of(way, fields, DIGITS, 1)
        if setting["rule"] == "recipe":
            recipe = peers.recipe_of(setting)
            left = [name for name, value in vars(recipe).items() if value == "auto"]
            assert left == [], (way, left)


@pytest.mark.parametrize("seed", range(2))
def test_the_parts_of_a_cell_share_no_image(seed):
    drawn = cells.draw(DIGITS, seed)
    assert [len(drawn.train), len(drawn.validation)] == [cells.learning(60), 9]
    found = [{image.tobytes() for image in part} for part in (drawn.train, drawn.validation, drawn.test)]
    # scikit-learn's digits hold no two alike; what seeds draw differs, the test images do not
    assert sum(map(len, found)) == len(found[0] | found[1] | found[2])
    assert set(drawn.train_labels) == set(range(10))
    assert np.array_equal(cells.draw(DIGITS, 7).test, drawn.test)
    assert not np.array_equal(cells.draw(DIGITS, 7).train, drawn.train)


@pytest.mark.parametrize("dtype", ("float32", "mixed_bfloat16"))
def test_all_images_are_asked_for(dtype):
    model = kresnets.build(kresnets.SPECS["SmallResNet20"], input_shape=(32, 32, 3), classes=10, dtype=dtype)
    images = np.random.default_rng(0).integers(0, 256, (150, 32, 32, 3), np.uint8)
    made, prepared = scores.outputs(model, images), kresnets.preprocessing_of(model)(np.float32(images))
    assert made.dtype == np.float64
    np.testing.assert_allclose(made, model.predict(prepared, verbose=0), atol=1e-2 if "16" in dtype else 1e-5)


class _Steps(keras.callbacks.Callback):
    def __init__(self):
        super().__init__()
        self.after = []

    def on_epoch_end(self, epoch, logs=None):
        self.after.append((logs["val_loss"], float(self.model.get_weights()[0][0, 0])))


def test_kept_weights_are_what_their_names_say():
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1, use_bias=False)])
    model.set_weights([np.array([[1.0]])])
    model.compile(keras.optimizers.SGD(0.1), "mse")
    steps, record, x = _Steps(), peers.Record(model), np.ones((10, 1))
    # What learns 0 is to be 0.5 in what validates: on the way the loss is best.
    data = {"validation_data": (x, 0.5 * x), "batch_size": 2, "epochs": 7, "verbose": 0}
    model.fit(x, 0 * x, callbacks=[steps, record], **data)
    found = {name: float(weights[0][0, 0]) for name, (weights, _) in record.kept.items()}
    assert found == {"last": steps.after[-1][1], "best loss": min(steps.after)[1]}
    assert record.kept["best loss"][1] == {"epoch": steps.after.index(min(steps.after)) + 1}


def test_rates_of_the_rules():
    cycle, drops = peers.one_cycle(1.0, 101, 0.3, 5.0), peers.drops(1.0, 500)
    assert [float(cycle(step)) for step in (0, 30, 100)] == pytest.approx([0.2, 1.0, 1e-5], abs=1e-6)
    wanted = [0.5, 1.0, 1.0, 0.1, 0.01, 0.001]
    assert [float(drops(step)) for step in (50, 100, 199, 200, 300, 499)] == pytest.approx(wanted)


def test_judging_tells_every_target():
    _, rows = _whole()
    findings = list(claims.find("default-recipe").findings(Options(), rows))
    told = " ".join(found.claim for found in findings)
    assert len(findings) == 2 + 7 + 1 + 3
    assert "0.835" in told and "trained here" in told and "a point of AUC" in told


@pytest.mark.everything
def test_quick_runs_end_to_end(tmp_path):
    _, rows, _ = run("default-recipe", tmp_path / "default-recipe-quick")
    assert {row["keep"] for row in rows} == {"last", "best loss"}
