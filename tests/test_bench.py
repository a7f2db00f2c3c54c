"""The bench runs, writes what it measured and says whether limits are kept; the numbers are the machine's."""

import json
import pathlib
import sys

import numpy as np
import pytest

sys.path.insert(0, str(pathlib.Path(__file__).parents[1] / "apps"))
import bench

import kresnets


def rows(path):
    return json.loads(path.read_text())["rows"]


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
    import _trace

    model = kresnets.CifarResNet20()
    model.compile("sgd", "sparse_categorical_crossentropy")
    batch = np.zeros((2, 32, 32, 3), "float32"), np.zeros(2)
    model.train_on_batch(*batch)
    seconds = _trace.trace(lambda: model.train_on_batch(*batch))
    kinds = {
        "convolution forward",
        "convolution by input",
        "convolution by filter",
        "batch norm",
        "optimizer",
        "elementwise",
    }
    assert kinds <= set(seconds) and min(seconds.values()) > 0
    assert seconds.get("other", 0) < 0.05 * sum(seconds.values())


def test_peaks_are_of_both_kinds():
    import _peak

    found = _peak.peaks("float32", batch_size=1, rounds=1)
    assert found["convolution"] == max(value for name, value in found.items() if name.startswith("3x3"))
    assert min(found.values()) > 1e8 and len(found) == 6
