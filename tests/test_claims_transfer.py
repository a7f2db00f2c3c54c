"""The claims about transfer: what is true by construction in their quick versions."""

import json
import pathlib
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent / "apps"))

import _claims  # noqa: E402
from _claims import freeze_or_finetune, runner  # noqa: E402
from _claims.claim import Options  # noqa: E402

QUICK = Options(quick=True)


def _run(name, folder):
    said = []
    findings = runner.run(name, QUICK, folder / name, jobs=1, say=said.append)
    rows = [
        row for one in runner.read_done(folder / name).values() for row in [one["setting"] | r for r in one["rows"]]
    ]
    assert (folder / name / runner.PICTURE).stat().st_size < 300_000
    return findings, rows, said


def _all_settings(name):
    """Return all settings that a claim would run in full, its own rates being the first of those tried."""
    claim, rows = _claims.find(name), []
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
    # Each cell tried three rates, with a seed that is not compared.
    tried = {(one["source"], one["method"], one["n"], one["rate"]) for one in settings if one["seed"] == 1000}
    assert len(tried) == 3 * len(wanted) / 3


def test_methods_have_equal_passes():
    for n, passes in freeze_or_finetune.PASSES.items():
        for method in freeze_or_finetune.METHODS:
            recipe = freeze_or_finetune.recipe(
                {"method": method, "rate": 1e-3, "passes": passes, "seed": 0, "augment": "light"}
            )
            assert recipe.epochs(("stem", "stage1", "stage2", "stage3", "head")) == passes


@pytest.mark.slow
def test_freeze_or_finetune(tmp_path):
    findings, rows, said = _run("freeze-or-finetune", tmp_path)
    assert said[0].startswith("2 runs to go")  # the trunk, and what needs none
    carried = [row for row in rows if row["task"] == "carry"]
    assert {(row["source"], row["method"]) for row in carried} == {
        ("digits", "head"), ("digits", "whole"), ("none", "scratch"),
    }  # fmt: skip
    for row in rows:
        assert 0 <= row["test_accuracy"] <= 1
        assert 0 < row["test_balanced_accuracy"] <= 1
    assert all(1 <= row["best_epoch"] <= row["passes"] and row["validation_loss"] > 0 for row in carried)
    assert {finding.verdict for finding in findings} == {"not decidable here"}  # one seed proves nothing
    assert len(list((tmp_path / "kept").iterdir())) == 1

    # A run that was killed goes on: the trunk is not taught again, and what is done is not done again.
    (kept,) = (tmp_path / "kept").iterdir()
    before = kept.stat().st_mtime_ns
    done = sorted((tmp_path / "freeze-or-finetune" / runner.RUNS).iterdir())
    lost = next(path for path in done if json.loads(path.read_text())["setting"].get("method") == "head")
    told = json.loads(lost.read_text())["rows"]
    lost.unlink()
    _, again, said = _run("freeze-or-finetune", tmp_path)
    assert said[0].startswith("1 runs to go")
    assert kept.stat().st_mtime_ns == before
    assert next(row for row in again if row.get("method") == "head")["test_accuracy"] == told[0]["test_accuracy"]
