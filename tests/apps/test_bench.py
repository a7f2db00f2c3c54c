"""The bench runs, writes what it measured and says whether limits are kept; the numbers are the machine's."""

import json
import time

import numpy as np
import pytest
from bench import __main__ as bench

import kresnets


def rows(path):
    return json.loads(path.read_text())["rows"]


@pytest.mark.everything
def test_build(tmp_path, capsys):
    code = bench.main(["build", "--rounds", "1", "--out", str(tmp_path / "build.json")])
    (row,) = rows(tmp_path / "build.json")
    assert row["a"] > 0 and row["b"] > 0 and row["ratios"] == [row["a"] / row["b"]] and row["limit"] == 1.0
    assert row["kept"] is (row["a"] / row["b"] <= 1.0) and code == (0 if row["kept"] else 1)
    assert ("kept" if row["kept"] else "MISSED") in capsys.readouterr().out


@pytest.mark.everything
@pytest.mark.parametrize("command", [["load", "--model", "ResNet50"], ["import"]])
def test_what_is_measured_in_processes_of_its_own(command, tmp_path):
    bench.main([*command, "--rounds", "1", "--out", str(tmp_path / "out.json")])
    found = rows(tmp_path / "out.json")
    assert len(found) == (3 if command[0] == "load" else 1)
    assert all(row["a"] > 0 and row["b"] > 0 for row in found)


def test_a_network_of_kresnets_alone_is_refused():
    with pytest.raises(ValueError, match="--model must be a network of both .*ResNet50.* Received: ResNet50D"):
        bench.main(["build", "--model", "ResNet50D"])


def test_a_trace_names_the_kinds_of_operations():
    from bench import trace
    from claims.degradation import spec

    model = kresnets.build(spec("residual", 8))
    model.compile("sgd", "sparse_categorical_crossentropy")
    batch = np.zeros((2, 32, 32, 3), "float32"), np.zeros(2)
    model.train_on_batch(*batch)
    seconds = trace.trace(lambda: model.train_on_batch(*batch))
    kinds = {
        "convolution forward",
        "convolution by input",
        "convolution by filter",
        "batch norm",
        "optimizer",
        "elementwise",
    }
    assert kinds <= set(seconds) and min(seconds.values()) >= 0
    assert seconds.get("other", 0) < 0.05 * sum(seconds.values())


def test_peaks_are_of_both_kinds():
    from bench import peak

    found = peak.peaks("float32", batch_size=1, rounds=1, repeats=1)
    assert found["convolution"] == max(value for name, value in found.items() if name.startswith("3x3"))
    assert min(found.values()) > 1e8 and len(found) == 6


def test_what_no_operation_covers_is_idle():
    from bench import trace

    assert trace._covered([(3.0, 4.0), (0.0, 1.0), (0.5, 2.0), (0.6, 0.7)]) == 3.0
    seconds = trace.trace(lambda: time.sleep(0.2))
    assert 0.2 <= seconds[trace.IDLE] < 1


@pytest.mark.everything
def test_step_tells_rates_shares_and_ratios(tmp_path, capsys):
    small = ["--size", "32", "--batch-size", "2", "--rounds", "1", "--steps", "1", "--dtype", "float32"]
    assert bench.main(["step", "--model", "ResNet50", *small, "--out", str(tmp_path / "step.json")]) == 0
    found = {(row["what"], row.get("library")): row for row in rows(tmp_path / "step.json")}
    peak = json.loads((tmp_path / "step.json").read_text())["peak"]["float32"]
    operations = 2 * 3.858e9 * (32 / 224) ** 2  # Keras's own count of ResNet50, in keras_hub's and others' tables
    for what, passes in (("training", 3), ("prediction", 1)):
        ours, theirs = found[what, "kresnets"], found[what, "keras.applications"]
        assert theirs["ratio"] == pytest.approx(ours["images_per_second"] / theirs["images_per_second"])
        share = ours["images_per_second"] * passes * operations / (peak * 1e9)
        assert ours["share_of_peak"] == pytest.approx(share, rel=0.02)
    assert (tmp_path / "step.png").read_bytes().startswith(b"\x89PNG") and "of peak" in capsys.readouterr().out
    assert ("callbacks", None) in found


@pytest.mark.everything
def test_finetune_trains_each_way(tmp_path):
    command = ["finetune", "--images", "24", "--size", "32", "--batch-size", "8", "--out", str(tmp_path / "out.json")]
    bench.main(command)
    found = [row for row in rows(tmp_path / "out.json") if "way" in row]
    assert len(found) == 6
    cached, uncached, guide, *_ = found
    assert cached["accuracy"] == uncached["accuracy"] and all(row["seconds"] > 0 for row in found)


def test_the_trials_of_a_search_are_in_equal_parts_and_no_two_alike():
    from bench import search

    for depths in search.SPACES.values():
        trials = search._trials(depths, 24)
        assert sorted(trial["thaw"] for trial in trials) == sorted(depths * (24 // len(depths)))
        assert len({tuple(trial.items()) for trial in trials}) == 24
        assert all(("trunk_learning_rate" in trial) is (trial["thaw"] != "head") for trial in trials)
    with pytest.raises(ValueError, match="--trials must be at least 3, one of each depth. Received: 2"):
        bench.main(["search", "--trials", "2"])


def test_where_the_seconds_of_a_search_went_adds_up():
    from bench import search

    first, other = (
        [{"stage": "head", "seconds": s} for s in seconds] + [{"stage": "stage4", "seconds": 6.0}] * 2
        for seconds in ([9.0, 1.0, 1.0], [3.0, 1.0, 1.0])
    )
    steady = search._steady([first, other])
    assert steady == {"head": 1.0, "stage4": 6.0}
    assert search._parts([first, other], steady) == {"epochs": 30.0, "features": 6.0, "tracing": 4.0}


@pytest.mark.everything
def test_a_search_is_measured_against_keras_tuner(tmp_path, monkeypatch, capsys):
    from bench import search

    monkeypatch.setitem(search.SPACES, "to stage4", ("head",))
    small = ["--images", "24", "--size", "32", "--batch-size", "8", "--trials", "2", "--ways", "whole"]
    bench.main(["search", *small, "--spaces", "to stage4", "--out", str(tmp_path / "search.json")])
    found = {row["what"]: row for row in rows(tmp_path / "search.json")}
    (theirs,), ours = found["a trial of Keras Tuner"]["seconds"], found["search"]
    assert ours["ratio"] == pytest.approx(2 * theirs / ours["seconds"]) and not ours["failed"]
    assert (ours["trained"], ours["shared"], ours["pruned"], ours["all_epochs"]) == (12, 0, 0, 12)
    assert sum(ours["parts"].values()) == pytest.approx(ours["seconds"], rel=0.01)
    assert "search: space to stage4, way whole" in capsys.readouterr().out


@pytest.mark.everything
@pytest.mark.parametrize(("seconds", "changes"), [(3, 1), (60, 3)])
def test_a_soak_of_the_server_keeps_every_promise(tmp_path, seconds, changes):
    """Load, change-overs and hostile requests; memory too, of which seconds say little."""
    out = tmp_path / "soak.json"
    arguments = ["--minutes", str(seconds / 60), "--changes", str(changes), "--hostile", "0.03", "--out", str(out)]
    code = bench.main(["soak", *arguments])
    rows = {row["what"]: row for row in json.loads(out.read_text())["rows"]}
    missed = {what for what, row in rows.items() if not row.get("kept", True)}
    assert missed <= ({"memory that grew, bytes"} if seconds < 60 else set()) and code == (1 if missed else 0)
    assert len(rows) == 8 and rows["good requests"]["value"] > 20


@pytest.mark.everything
def test_serving_tells_rates_and_times_by_clients(tmp_path):
    out = tmp_path / "serving.json"
    of = ["--parts", "server", "--model", "CifarResNet20", "--clients", "1", "4", "--seconds", "1", "--out", str(out)]
    assert bench.main(["serving", *of]) == 0
    rows = json.loads(out.read_text())["rows"]
    ways = [(row["what"], row["clients"]) for row in rows]
    assert ways == [(way, clients) for way in ("batching", "no batching") for clients in (1, 4)]
    assert all(0 < row["p50_ms"] <= row["p95_ms"] <= row["p99_ms"] and row["rate"] > 0 for row in rows)
