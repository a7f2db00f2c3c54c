"""Several labels and numbers through the command: run, page, prediction, export."""

import csv
import json

import numpy as np
import pytest
import tensorflow as tf
from commands import finish, finish_alone, rows_of, small_run
from PIL import Image


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """60 pictures of which some have a red and some a blue square, brighter or darker; lists of both."""
    folder, rng = tmp_path_factory.mktemp("pictures"), np.random.default_rng(0)
    labels, numbers = [], []
    for n in range(60):
        image, has = rng.integers(0, 60, (32, 32, 3), dtype="uint8"), []
        for name, place, colour in (("red", slice(2, 14), (255, 0, 0)), ("blue", slice(18, 30), (0, 0, 255))):
            if rng.random() < 0.5:
                image[place, place] = colour
                has.append(name)
        light = rng.uniform(0.3, 1)
        Image.fromarray((image * light).astype("uint8")).save(folder / f"{n}.png")
        labels.append((f"{n}.png", "|".join(has)))
        numbers.append((f"{n}.png", f"{100 * light:.1f}"))
    for name, column, rows in (("labels.csv", "label", labels), ("numbers.csv", "label", numbers)):
        with open(folder / name, "w", newline="") as file:
            csv.writer(file).writerows([("path", column), *rows])
    return folder


def test_labels_through_the_whole_path(pictures, tmp_path):
    out = tmp_path / "run"
    done = small_run(pictures / "labels.csv", out, "--task", "labels", epochs=4, size=32)
    assert done.returncode == 0 and "mAP" in done.stdout, done.stderr
    numbers, page = json.loads((out / "metrics.json").read_text()), (out / "report.html").read_text()
    assert numbers["mAP"] > 0.5 and {*numbers["per_label"]} == {"blue", "red"}
    assert "Precision and recall" in page and "Labels" in page and "Confusion" not in page
    for row in rows_of(out / "predictions.csv"):
        at = {name: numbers["per_label"][name]["threshold"] - 1e-6 for name in ("blue", "red")}  # as the file rounds
        said = [name for name in at if float(row[f"p({name})"]) >= at[name]]
        assert abs(np.subtract([float(row[f"p({n})"]) for n in said], 0.5)).size == len(said)
        assert row["prediction"] == "|".join(said) and int(row["correct"]) == (row["prediction"] == row["label"])
    again = small_run(pictures / "labels.csv", out, "--task", "labels", epochs=4, size=32)
    assert again.returncode == 0 and "is finished" in again.stdout
    other = small_run(pictures / "labels.csv", out, "--label-separator", "|", epochs=4, size=32)
    assert other.returncode == 2 and "--task" in other.stderr
    exported = finish("export", out, tmp_path / "served")
    assert exported.returncode == 0, exported.stderr
    card = json.loads((tmp_path / "served" / "1" / "assets" / "model_card.json").read_text())
    assert card["task"] == "labels" and {*card["thresholds"]} == {"blue", "red"}
    served = tf.saved_model.load(str(tmp_path / "served" / "1")).signatures["serving_default"]
    row = rows_of(out / "predictions.csv")[0]
    answer = served(image_bytes=tf.constant([(pictures / row["file"]).read_bytes()]))
    scores = dict(zip((name.decode() for name in answer["labels"].numpy()[0]), answer["scores"].numpy()[0]))
    assert scores == pytest.approx({name: float(row[f"p({name})"]) for name in scores}, abs=1e-4)


def test_numbers_through_the_whole_path(pictures, tmp_path):
    out = tmp_path / "run"
    done = small_run(pictures / "numbers.csv", out, "--loss", "mae", epochs=4, size=32)
    assert done.returncode == 0 and "mae" in done.stdout and "r2" in done.stdout, done.stderr
    numbers, page = json.loads((out / "metrics.json").read_text()), (out / "report.html").read_text()
    rows = [row for row in rows_of(out / "predictions.csv") if row["part"] == "test"]
    errors = [abs(float(row["label"]) - float(row["predicted label"])) for row in rows]
    assert numbers["mae"] == pytest.approx(np.mean(errors), rel=1e-3)
    assert "Answers against the truth" in page and "Always answering the mean" in page
    assert finish("export", out, tmp_path / "served", "--verify", 5).returncode == 0
    asked = finish("predict", tmp_path / "served", pictures / rows[0]["file"], "--csv", tmp_path / "a.csv")
    (answer,) = rows_of(tmp_path / "a.csv")
    assert asked.returncode == 0 and answer["label"] == "label"
    assert float(answer["score"]) == pytest.approx(float(rows[0]["predicted label"]), rel=1e-3)


def test_what_does_not_go_together_is_refused(pictures, tmp_path):
    asked = ["--data", pictures / "labels.csv", "--task", "labels", "--model", "SmallResNet20", "--weights", "none"]
    searched = finish_alone("search", *asked, "--out", tmp_path / "search")
    assert searched.returncode == 2 and "A search compares recipes on classes" in searched.stderr
    wrong = small_run(pictures / "labels.csv", tmp_path / "run", "--task", "labels", "--loss", "mae", epochs=4, size=32)
    assert wrong.returncode == 2 and "--loss mae is for numbers" in wrong.stderr
    silent = small_run(pictures / "labels.csv", tmp_path / "run", epochs=4, size=32)
    assert silent.returncode == 2 and "look like several labels" in silent.stderr + silent.stdout
    assert not (tmp_path / "run").exists() or not any((tmp_path / "run").iterdir())
