"""The claim small-weights, quick: a trunk is taught once, kept, carried, and judged by what would ship."""

import pytest
from claims import runner, small_weights
from claims.claim import TUNING_SEED, Options


@pytest.mark.everything
def test_a_trunk_is_taught_once_and_carried(tmp_path):
    lines = []
    runner.run("small-weights", Options(quick=True), tmp_path / "s", 1, lines.append)
    (path,) = (tmp_path / runner.KEPT).glob("small-*.weights.h5")
    assert path.stat().st_size < 3_000_000  # what a wheel may hold of it
    kept = path.stat().st_mtime_ns
    (tmp_path / "s" / runner.RUNS).unlink()
    runner.run("small-weights", Options(quick=True), tmp_path / "s", 1, lines.append)
    assert path.stat().st_mtime_ns == kept


NETWORKS = ("SmallResNet20", "SmallResNet18D")


def told(settings, gains):
    """Return rows for settings, the trunk of each network being better by that much."""
    rows = []
    for one in settings:
        gain = gains[one["network"]] if one.get("start") == "taught" else 0.0
        loss = one["rate"] + (one["method"] == "head") if one["task"] == "carry" else None
        rows.append(one | {"validation_loss": loss, "test_accuracy": 0.5 + gain + one["seed"] / 1e5})
    return rows


def test_the_settings_try_all_ways_by_one_more_seed_sift_by_three_and_end_with_five():
    teach = small_weights._settings(Options(), [])
    assert [(setting["task"], setting["network"]) for setting in teach] == [("teach", name) for name in NETWORKS]
    gains = {"SmallResNet20": 0.05, "SmallResNet18D": 0.01}
    trials = small_weights._settings(Options(), told(teach, gains))
    carried = [setting for setting in trials if setting["task"] == "carry"]
    assert {setting["seed"] for setting in carried} == {TUNING_SEED}
    assert len(carried) == 2 * 3 * 2 * 2 * 4  # networks, targets, sizes, starts, ways

    sifted = small_weights._settings(Options(), told(trials, gains))
    assert len(sifted) == len(trials) + 2 * 3 * 2 * 2 * 3 and "all" not in {s.get("n") for s in sifted}
    last = small_weights._settings(Options(), told(sifted, gains))
    assert small_weights._settings(Options(), told(last, gains)) == last
    compared = [one for one in last if one["task"] == "carry" and one["seed"] < 5]
    assert {name: sum(one["network"] == name for one in compared) for name in NETWORKS} == {
        "SmallResNet20": 3 * 3 * 2 * 5,
        "SmallResNet18D": 3 * 2 * 2 * 3,
    }
    assert {(s["method"], s["rate"]) for s in compared} == {("whole", 1e-3)}
    assert small_weights._settings(Options(seeds=3), told(sifted, gains)) == sifted


@pytest.mark.parametrize(
    ("few", "more", "ships"),
    [
        ((0.03, 0.04, 0.05), (0.0, 0.01, -0.01), True),
        ((0.01, 0.02, 0.015), (0.05, 0.05, 0.05), False),  # too little
        ((-0.2, 0.02, 0.3), (0.05, 0.05, 0.05), False),  # more than 2 points in the mean, and no more than noise
        ((0.03, 0.04, 0.05), (-0.005, -0.006, -0.004), False),  # a small loss that is sure
        ((0.03, 0.04, 0.05), (-0.09, -0.03, 0.05), False),  # a mean loss of above a point
    ],
)
def test_weights_ship_only_where_they_help_and_harm_nowhere(few, more, ships):
    rows = []
    for target, sizes in small_weights.TARGETS.items():
        for n, gains in zip(sizes, (few, more, more)):
            for seed, gain in enumerate((*gains, gains[1], gains[1])):
                row = {"task": "carry", "network": "SmallResNet18D", "target": target, "n": n, "seed": seed}
                rows += [row | {"start": "scratch", "test_accuracy": 0.5}]
                rows += [row | {"start": "taught", "test_accuracy": 0.5 + gain}]
    assert small_weights.worth_shipping(rows, "SmallResNet18D") is ships
    assert not small_weights.worth_shipping([row for row in rows if row["seed"] < 4], "SmallResNet18D")
    assert not small_weights.worth_shipping([row for row in rows if row["n"] != "all"], "SmallResNet18D")
