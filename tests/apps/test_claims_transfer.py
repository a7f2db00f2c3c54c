"""The claims about transfer: what is true by construction in their quick versions."""

import json

import claims
import numpy as np
import pytest
from claims import early_layers, freeze_or_finetune, head_first, runner, transfer
from claims.claim import Options
from quick_claims import run

import kresnets


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Where all claims run, so that they share the trunk."""
    return tmp_path_factory.mktemp("claims")


def _all_settings(name):
    """Return all settings that a claim would run in full, its own rates being the first of those tried."""
    claim, rows = claims.find(name), []
    while True:
        wanted = claim.settings(Options(), rows)
        told = [setting | {"validation_loss": 1.0, "test_accuracy": 0.5} for setting in wanted]
        if told == rows:
            return wanted
        rows = told


def test_the_grid_is_whole():
    settings = [one for one in _all_settings("freeze-or-finetune") if one["task"] == "carry"]
    compared = {(one["source"], one["method"], one["n"], one["seed"]) for one in settings if one["seed"] < 1000}
    carried = ("head", "stages", "whole", "layerwise", "norms")
    wanted = {
        (source, method, n, seed)
        for seed in range(3)
        for n in (75, 250, "all")
        for source, method in [(s, m) for s in ("elpv/poly", "digits") for m in carried] + [("none", "scratch")]
        if (method, n) != ("norms", 250)
    }
    assert compared == wanted
    # Each cell tried two rates, with a seed that is not compared.
    tried = {(one["source"], one["method"], one["n"], one["rate"]) for one in settings if one["seed"] == 1000}
    assert len(tried) == 2 * len(wanted) / 3


def test_methods_have_equal_passes():
    groups = ("stem", "stage1", "stage2", "stage3", "head")
    for passes in freeze_or_finetune.PASSES.values():
        for method in freeze_or_finetune.METHODS:
            setting = {"method": method, "rate": 1e-3, "passes": passes, "seed": 0, "augment": "light"}
            assert freeze_or_finetune.recipe(setting).epochs(groups) == passes


@pytest.mark.everything
def test_freeze_or_finetune(folder):
    findings, rows, said = run("freeze-or-finetune", folder / "freeze-or-finetune")
    carried = [row for row in rows if row["task"] == "carry"]
    assert {(row["source"], row["method"]) for row in carried} == {
        ("digits", "head"), ("digits", "whole"), ("none", "scratch"),
    }  # fmt: skip
    for row in rows:
        assert 0 <= row["test_accuracy"] <= 1
        assert 0 < row["test_balanced_accuracy"] <= 1
    assert all(1 <= row["best_epoch"] <= row["passes"] and row["validation_loss"] > 0 for row in carried)
    assert {finding.verdict for finding in findings} == {"not decidable here"}  # one seed proves nothing
    assert len(list((folder / "kept").iterdir())) == 1

    # A run that was killed goes on: the trunk is not taught again, and what is done is not done again.
    (kept,) = (folder / "kept").iterdir()
    before = kept.stat().st_mtime_ns
    done = folder / "freeze-or-finetune" / runner.RUNS
    lines = done.read_text().splitlines()
    (lost,) = (line for line in lines if json.loads(line)["setting"].get("method") == "head")
    told = json.loads(lost)["rows"]
    done.write_text("\n".join(line for line in lines if line != lost))
    _, again, said = run("freeze-or-finetune", folder / "freeze-or-finetune")
    assert said[0].startswith("1 runs to go")
    assert kept.stat().st_mtime_ns == before
    assert next(row for row in again if row.get("method") == "head")["test_accuracy"] == told[0]["test_accuracy"]


@pytest.mark.everything
def test_head_first(folder):
    findings, rows, _ = run("head-first", folder / "head-first")
    carried = [row for row in rows if row["task"] == "carry"]
    still = [row for row in carried if row["thawed"] == 0]
    learned = [row for row in carried if row["thawed"]]
    assert {row["way"] for row in still} == {"head first"}
    assert {row["way"] for row in learned} == {"whole", "head first"}
    assert all(row["relative"] == 0 and row["unlike"] == pytest.approx(0, abs=1e-6) for row in still)
    assert all(row["relative"] > 0 and row["unlike"] > 1e-6 for row in learned)
    # The source's old head on features that have not moved answers as the taught network did.
    (taught,) = (row for row in rows if row["task"] == "teach")
    assert {row["source_accuracy"] for row in still} == {taught["test_accuracy"]}
    assert [finding.verdict for finding in findings][0] == "confirmed"


def test_alike_and_relative():
    random = np.random.default_rng(0)
    features = random.normal(size=(50, 6))
    turned = 3 * features @ np.linalg.qr(random.normal(size=(6, 6)))[0] + 5
    assert head_first.alike(features, turned) == pytest.approx(1)  # linear CKA knows neither turn, scale nor shift
    assert head_first.alike(features, random.normal(size=(50, 6))) < 0.5
    # The definition by centred Gram matrices (arXiv 1905.00414, equation 3), which is another way to compute it.
    other = np.tanh(features) ** 2
    centre = np.eye(50) - 1 / 50
    one, two = centre @ features @ features.T @ centre, centre @ other @ other.T @ centre
    wanted = np.sum(one * two) / np.sqrt(np.sum(one**2) * np.sum(two**2))
    assert head_first.alike(features, other) == pytest.approx(wanted)
    assert head_first.relative(features, features) == 0
    assert head_first.relative(features, 2 * features - features.mean(0)) == pytest.approx(1)


@pytest.mark.everything
def test_early_layers(folder):
    findings, rows, _ = run("early-layers", folder / "early-layers")
    moved = {(row["task"], row["moved_group"]): row["moved"] for row in rows if row["task"] != "teach"}
    still = {place for place, distance in moved.items() if distance == 0}
    # Of head and stage2 alone, and of the stem and stage1 kept.
    assert still == {("thaw", "stem"), ("thaw", "stage1"), ("thaw", "stage3"), ("keep", "stem"), ("keep", "stage1")}
    assert [finding.verdict for finding in findings] == ["confirmed"]


@pytest.mark.everything
def test_groups_that_are_kept_are_the_trunks(tmp_path):
    setting = {"seed": 0, "groups_kept": 2} | transfer.common(quick=True)
    taught = transfer.build(setting | {"seed": 5}, 3)
    taught.save_weights(tmp_path / "trunk.weights.h5")
    kept = kresnets.groups(early_layers.partly(setting, 2, str(tmp_path / "trunk.weights.h5")))
    fresh = kresnets.groups(transfer.build(setting, 2))
    for group, layers in kresnets.groups(taught).items():
        wanted = layers if group in ("stem", "stage1") else fresh[group]
        for one, other in zip(kept[group], wanted, strict=True):
            for ours, theirs in zip(one.get_weights(), other.get_weights(), strict=True):
                np.testing.assert_array_equal(ours, theirs)


def test_all_of_early_layers():
    settings = _all_settings("early-layers")
    thawed = {(one["way"], one["group"], one["seed"]) for one in settings if one["task"] == "thaw"}
    kept = {(one["source"], one["groups_kept"], one["seed"]) for one in settings if one["task"] == "keep"}
    assert len(thawed) == 3 * (1 + 4 + 3) and len(kept) == 3 * (1 + 2 * 4)
    for one in settings:
        if one["task"] != "teach":
            recipe, groups = early_layers.recipe(one)
            assert recipe.epochs(tuple(groups or ("stem", "stage1", "stage2", "stage3", "head"))) == one["passes"]


@pytest.mark.everything
def test_recipe(folder):
    _, rows, _ = run("recipe", folder / "recipe")
    rates = {row["way"]: row["learning_rate"] for row in rows if row["task"] == "carry"}
    assert rates == {"textbook": 1e-3, "measured": kresnets.Recipe.for_images(100).learning_rate}


def test_the_textbook_stays_what_it_was_whatever_the_defaults_become():
    from claims import recipe

    assert recipe.fields("textbook", 75) == recipe.fields("textbook", 2000)
    assert recipe.fields("more epochs", 75)["head_epochs"] == 15
    assert recipe.fields("higher rates", 75) | recipe.fields("more epochs", 75) != recipe.fields("textbook", 75)
    # None of what the recipe was chosen by is judged here.
    assert transfer.TARGET not in {target for _, target in recipe.PAIRS}
