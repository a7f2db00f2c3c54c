"""The claims about transfer: what is true by construction in their quick versions."""

import json

import claims
import numpy as np
import pytest
from claims import early_layers, freeze_or_finetune, head_first, runner, transfer
from claims.claim import Options
from quick_claims import run

import kresnets


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
    settings = _all_settings("freeze-or-finetune")
    compared = {(one["target"], one["method"], one["n"], one["seed"]) for one in settings if one["seed"] < 1000}
    wanted = {
        (target, method, n, seed)
        for seed in range(5)
        for target in ("cifar10", "elpv/mono")
        for n in (75, 250, 640)
        for method in ("head", "stages", "whole", "layerwise", "norms", "scratch")
        if n != 250 or method not in ("norms", "scratch")
    }
    assert compared == wanted
    assert {one["trunk"] == "none" for one in settings if one["method"] == "scratch"} == {True}
    # Each cell tried two rates, with a seed that is not compared.
    tried = {(one["target"], one["method"], one["n"], one["rate"]) for one in settings if one["seed"] == 1000}
    assert len(tried) == 2 * len(wanted) / 5


def test_methods_have_equal_passes():
    groups = (*transfer.GROUPS, "head")
    for passes in freeze_or_finetune.PASSES.values():
        for method in freeze_or_finetune.METHODS:
            setting = {"method": method, "rate": 1e-3, "passes": passes, "seed": 0, "augment": "light"}
            assert freeze_or_finetune.recipe(setting).epochs(groups) == passes


@pytest.mark.everything
def test_freeze_or_finetune(tmp_path):
    folder = tmp_path / "freeze-or-finetune"
    findings, rows, said = run("freeze-or-finetune", folder)
    assert {(row["target"], row["method"], row["trunk"]) for row in rows} == {
        ("elpv/mono", "head", "kresnets/distilled"), ("elpv/mono", "whole", "kresnets/distilled"),
        ("elpv/mono", "scratch", "none"),
    }  # fmt: skip
    for row in rows:
        assert 0 <= row["test_accuracy"] <= 1
        assert 0 < row["test_balanced_accuracy"] <= 1
        assert 1 <= row["best_epoch"] <= row["passes"] and row["validation_loss"] > 0
    assert {finding.verdict for finding in findings} == {"not decidable here"}  # one seed proves nothing

    # A run that was killed goes on: what is done is not done again.
    done = folder / runner.RUNS
    lines = done.read_text().splitlines()
    (lost,) = (line for line in lines if json.loads(line)["setting"]["method"] == "head")
    told = json.loads(lost)["rows"]
    done.write_text("\n".join(line for line in lines if line != lost))
    _, again, said = run("freeze-or-finetune", folder)
    assert said[0].startswith("1 runs to go")
    assert next(row for row in again if row["method"] == "head")["test_accuracy"] == told[0]["test_accuracy"]


@pytest.mark.everything
def test_head_first(tmp_path):
    findings, rows, _ = run("head-first", tmp_path / "head-first")
    still = [row for row in rows if row["thawed"] == 0]
    learned = [row for row in rows if row["thawed"]]
    assert {row["way"] for row in still} == {"head first"}
    assert {row["way"] for row in learned} == {"whole", "head first"}
    assert all(row["relative"] == 0 and row["unlike"] == pytest.approx(0, abs=1e-6) for row in still)
    assert all(row["relative"] > 0 and row["unlike"] > 1e-6 for row in learned)
    # The old head on features that have not moved answers as it did, and better than one that guesses.
    assert all(row["knows"] == row["knew"] > 0.3 for row in still)
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
def test_early_layers(tmp_path):
    findings, rows, _ = run("early-layers", tmp_path / "early-layers")
    still = {(row["task"], row["moved_group"]) for row in rows if row["moved"] == 0}
    # Of head and stage2 alone, and of the stem and stage1 kept.
    assert still == {("thaw", group) for group in ("stem", "stage1", "stage3", "stage4")} | {
        ("keep", "stem"), ("keep", "stage1"),
    }  # fmt: skip
    assert [finding.verdict for finding in findings] == ["confirmed"]


@pytest.mark.everything
def test_groups_that_are_kept_are_the_trunks():
    setting = {"seed": 0, "groups_kept": 2} | transfer.common(quick=True)
    taught = kresnets.groups(kresnets.ResNet18DThin(weights="kresnets/distilled", input_shape=(32, 32, 3), classes=2))
    kept = kresnets.groups(early_layers.partly(setting, 2))
    fresh = kresnets.groups(transfer.build(setting | {"trunk": "none"}, 2))
    for group, mine in kept.items():
        wanted = taught[group] if group in ("stem", "stage1") else fresh[group]
        for one, other in zip(mine, wanted, strict=True):
            for ours, theirs in zip(one.get_weights(), other.get_weights(), strict=True):
                np.testing.assert_array_equal(ours, theirs)


def test_all_of_early_layers():
    settings = _all_settings("early-layers")
    thawed = {(one["way"], one["group"], one["ratio"], one["seed"]) for one in settings if one["task"] == "thaw"}
    kept = {(one["target"], one["groups_kept"], one["seed"]) for one in settings if one["task"] == "keep"}
    assert len(thawed) == 5 * (1 + 5 + 4 + 1) and len(kept) == 5 * 2 * 6
    for one in settings:
        recipe, groups = early_layers.recipe(one)
        assert recipe.epochs(tuple(groups or (*transfer.GROUPS, "head"))) == one["passes"]


@pytest.mark.everything
def test_recipe(tmp_path):
    _, rows, _ = run("recipe", tmp_path / "recipe")
    rates = {row["way"]: row["learning_rate"] for row in rows}
    assert rates == {"textbook": 1e-3, "measured": kresnets.Recipe.for_images(75).learning_rate}


def test_the_textbook_stays_what_it_was_whatever_the_defaults_become():
    from claims import recipe

    assert recipe.fields("textbook", 75) == recipe.fields("textbook", 2000)
    assert recipe.fields("more epochs", 75)["head_epochs"] == 15
    assert recipe.fields("higher rates", 75) | recipe.fields("more epochs", 75) != recipe.fields("textbook", 75)
    # None of what the recipe was chosen by is judged here.
    assert "elpv/mono" not in recipe.TARGETS
