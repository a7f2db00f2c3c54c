"""`kresnets finetune --folds`: each image is tested once, and the page sums up what the folds' runs say."""

import csv
import json
import shutil

import numpy as np
import pytest
from cells import copy_to
from commands import finish, rows_of, small_run
from sklearn.metrics import accuracy_score
from sklearn.model_selection import StratifiedKFold

from kresnets.data import load_data


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return copy_to(tmp_path_factory.mktemp("photographs"))


def test_each_image_tests_once_and_classes_are_even(folder):
    loads = [load_data(folder, fold=(number, 4), progress=False) for number in range(1, 5)]
    tested = [set(data.test.ids) for data in loads]
    everything = set().union(*tested)
    assert sum(map(len, tested)) == len(everything) == 60
    # As even as scikit-learn's, which deals out in another order.
    labels = np.repeat([0, 1], 30)
    wanted = sorted(tuple(np.bincount(labels[rows])) for _, rows in StratifiedKFold(4).split(labels, labels))
    assert sorted(tuple(np.bincount(data.test.labels)) for data in loads) == wanted
    for data in loads:
        parts = [set(part.ids) for part in (data.train, data.validation, data.test)]
        assert set().union(*parts) == everything and sum(map(len, parts)) == 60 and parts[1]
    assert load_data(folder, fold=(2, 4), progress=False).test.ids == loads[1].test.ids


def test_groups_and_copies_stay_in_one_fold(folder, tmp_path):
    files = sorted(path.relative_to(folder) for path in folder.rglob("*.png"))
    said = {path.as_posix(): f"cell {number // 3}" for number, path in enumerate(files)}
    with open(folder / "list.csv", "w", newline="") as file:
        csv.writer(file).writerows([("path", "label", "cell"), *((p, p.split("/")[0], g) for p, g in said.items())])
    seen = {}
    for number in range(1, 4):
        data = load_data(folder / "list.csv", columns={"group": "cell"}, fold=(number, 3), progress=False)
        for name in data.test.ids:
            assert seen.setdefault(said[name], number) == number
    (folder / "list.csv").unlink()
    for bad in ((0, 3), (4, 3), (1, 1), (1, 2.5)):
        with pytest.raises(ValueError, match="`fold` must be one of two or more"):
            load_data(folder, fold=bad, progress=False)
    with pytest.raises(ValueError, match="too few images for 50 folds"):
        load_data(folder, fold=(1, 50), progress=False)
    for part in ("train", "test"):
        (tmp_path / part / "a").mkdir(parents=True), (tmp_path / part / "b").mkdir()
        for number, path in enumerate(files[:8]):
            (tmp_path / part / "ab"[number % 2] / f"{number}.png").write_bytes((folder / path).read_bytes())
    with pytest.raises(ValueError, match="this source has parts of its own"):
        load_data(tmp_path, fold=(1, 2), progress=False)


def test_the_command_sums_up_and_goes_on(folder, tmp_path):
    out = tmp_path / "all"
    done = small_run(folder, out, "--folds", 2)
    assert done.returncode == 0, done.stderr
    rows, numbers = rows_of(out / "predictions.csv"), json.loads((out / "folds.json").read_text())
    assert len(rows) == len({row["file"] for row in rows}) == 60 and {row["fold"] for row in rows} == {"1", "2"}
    each = [json.loads((out / f"fold-{number}" / "metrics.json").read_text())["accuracy"] for number in (1, 2)]
    assert numbers["accuracy_of_folds"] == each and numbers["accuracy"] == pytest.approx(np.mean(each))
    low, high = numbers["accuracy_interval"]
    assert low < numbers["accuracy"] < high or high == 1  # also where both folds came to the same
    pooled = accuracy_score([row["label"] for row in rows], [row["prediction"] for row in rows])
    assert pooled == pytest.approx(numbers["accuracy"])  # folds of one size
    page = (out / "report.html").read_text()
    assert "2 folds" in page and "Are labels wrong?" in page and page.count("<img") == 2
    before = {path: path.stat().st_mtime_ns for path in out.rglob("fold-*/*")}
    shutil.copytree(out / "fold-2", out / "fold-3")  # as runs of more folds left it, which these replaced
    assert not (out / ".shared").exists()
    again = small_run(folder, out, "--folds", 2, "--overwrite")
    assert {path.name for path in out.glob("fold-*")} == {"fold-1", "fold-2"}
    assert again.returncode == 0 and again.stdout.count("is finished; nothing was changed") == 2
    assert before == {path: path.stat().st_mtime_ns for path in out.rglob("fold-*/*")}
    other = small_run(folder, out, "--folds", 3)
    assert other.returncode == 2 and "--folds (2, now 3)" in other.stderr
    exported = finish("export", out, tmp_path / "served")
    assert exported.returncode == 2 and "give one of them, such as" in exported.stderr
    (tmp_path / "other" / "images").mkdir(parents=True)
    taken = small_run(folder, tmp_path / "other", "--folds", 2)
    assert taken.returncode == 2 and "holds 'images'" in taken.stderr and (tmp_path / "other" / "images").is_dir()
    inside = small_run(folder, out / "fold-1", "--folds", 2)
    assert inside.returncode == 2 and "with --folds it holds their runs alone" in inside.stderr
