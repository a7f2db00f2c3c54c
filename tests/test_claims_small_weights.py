"""The claim small-weights, quick: a trunk is taught once, kept, carried, and judged by what would ship."""

import pathlib
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent / "apps"))

from _claims import rates, runner, small_weights, verdicts  # noqa: E402
from _claims.claim import Finding, Options  # noqa: E402


@pytest.mark.everything
def test_a_trunk_is_taught_once_and_carried(tmp_path):
    lines = []
    runner.run("small-weights", Options(quick=True), tmp_path / "s", 1, lines.append)
    (path,) = (tmp_path / runner.KEPT).glob("small-*.weights.h5")
    assert path.stat().st_size < 3_000_000  # what a wheel may hold of it
    kept = path.stat().st_mtime_ns
    for one in list((tmp_path / "s" / runner.RUNS).glob("*.json"))[:2]:
        one.unlink()
    runner.run("small-weights", Options(quick=True), tmp_path / "s", 1, lines.append)
    assert path.stat().st_mtime_ns == kept


def test_the_settings_try_all_ways_by_one_more_seed_and_compare_the_best():
    teach = small_weights._settings(Options(), [])
    assert [setting["task"] for setting in teach] == ["teach"]
    trials = small_weights._settings(Options(), [teach[0] | {"held_out_accuracy": 0.5}])
    carried = [setting for setting in trials if setting["task"] == "carry"]
    assert {setting["seed"] for setting in carried} == {rates.TUNING_SEED}
    assert len(carried) == 3 * 2 * 2 * 4  # targets, sizes, starts, ways
    rows = teach + [one | {"validation_loss": one["rate"] + (one["method"] == "head")} for one in carried]
    compared = [s for s in small_weights._settings(Options(seeds=5), rows) if s["seed"] in range(5)][1:]
    assert len(compared) == 3 * 3 * 2 * 5
    sifted = small_weights._settings(Options(), rows)
    assert len(sifted) == 1 + len(carried) + 3 * 2 * 2 * 3 and "all" not in {s.get("n") for s in sifted}
    assert {(s["start"], s["method"], s["rate"]) for s in compared} == {
        ("scratch", "whole", 1e-3),
        ("taught", "whole", 1e-3),
    }


@pytest.mark.parametrize(
    "first, second, ships",
    [
        (verdicts.CONFIRMED, verdicts.CONFIRMED, True),
        (verdicts.CONFIRMED, verdicts.UNDECIDED, False),
        (verdicts.UNDECIDED, verdicts.CONFIRMED, False),
    ],
)
def test_weights_ship_only_where_they_help_and_harm_nowhere(first, second, ships):
    findings = [Finding(claim="", verdict=verdict, numbers="") for verdict in (first, second)]
    assert small_weights.worth_shipping(findings) is ships
