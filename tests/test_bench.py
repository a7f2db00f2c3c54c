"""The bench runs, writes what it measured and says whether limits are kept; the numbers are the machine's."""

import json
import pathlib
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).parents[1] / "apps"))
import bench


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
