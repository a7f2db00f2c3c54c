"""`kresnets export` and `kresnets predict`, from a run to a table."""

import csv
import errno
import importlib.util
import json
import os
import pathlib
import re
import shlex
import shutil

import keras
import numpy as np
import pytest
import tensorflow as tf
from commands import ask
from PIL import Image

from kresnets.cli import predict
from kresnets.export import FORMATS, export_saved_model, with_temperature

LABELS = ["cat", "dog", "größe"]


@pytest.fixture(scope="module")
def model():
    keras.utils.set_random_seed(0)
    head = (keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(3, activation="softmax"))
    return keras.Sequential([keras.Input((16, 16, 3)), keras.layers.Conv2D(8, 3, activation="relu"), *head])


@pytest.fixture(scope="module")
def finished(model, tmp_path_factory):
    """A run as `kresnets finetune` leaves it, as far as these two verbs read it."""
    folder = tmp_path_factory.mktemp("runs") / "pets"
    folder.mkdir()
    config = {"class_names": LABELS, "preprocess": {"mode": "tf", "crop": 0.9}, "command": "kresnets finetune"}
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    model.save(folder / "model.keras")
    return folder


@pytest.fixture(scope="module")
def served(model, tmp_path_factory):
    return export_saved_model(model, tmp_path_factory.mktemp("served") / "pets", labels=LABELS, preprocess="tf").parent


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photos")
    random = np.random.default_rng(0)
    for name in ("one.png", "two.jpg", "three.gif"):
        Image.fromarray(random.integers(0, 256, (40, 50, 3), dtype="uint8")).save(folder / name)
    (folder / "four.jpg").write_text("no image")
    return folder


@pytest.fixture
def call(monkeypatch, capsys):
    """Run the command in this process: its exit code, and the lines it wrote to stdout and stderr."""
    monkeypatch.setenv("KERAS_BACKEND", "tensorflow")  # put back afterwards: these verbs set it

    def call(*arguments):
        code, output = ask(*arguments), capsys.readouterr()
        return code, output.out.splitlines(), output.err.splitlines()

    return call


def test_a_table_of_labels_with_a_line_for_each_bad_file(call, served, photos, monkeypatch):
    monkeypatch.chdir(photos)
    code, lines, errors = call("predict", served, "one.png", "four.jpg", "nowhere.jpg", "two.jpg", "--top", 2)
    assert (code, errors) == (1, [])
    assert lines[0].split() == ["file", "label", "score"]
    assert [line.split()[0] for line in lines if not line.startswith(" ")][1:] == [
        "one.png",
        "four.jpg",
        "nowhere.jpg",
        "two.jpg",
    ]
    none = "four.jpg     no image that can be decoded (JPEG, PNG, GIF or BMP): not an image"
    assert lines[3].startswith(none)
    assert lines[4] == "nowhere.jpg  No such file or directory"
    answer = tf.saved_model.load(str(served / "1")).signatures["serving_default"]
    answer = answer(image_bytes=tf.constant([pathlib.Path(name).read_bytes() for name in ("one.png", "two.jpg")]))
    for row, first in ((0, 1), (1, 5)):
        for rank in range(2):
            label, score = lines[first + rank].split()[-2:]
            assert label == answer["labels"].numpy()[row, rank].decode()
            assert float(score) == pytest.approx(answer["scores"].numpy()[row, rank], abs=1e-4)


def test_a_folder_is_its_files_and_the_answers_are_a_csv_too(call, served, photos, tmp_path):
    code, lines, _ = call("predict", served, photos, photos / "one.png", "--csv", tmp_path / "answers.csv", "--top", 1)
    names = [str(photos / name) for name in ("four.jpg", "one.png", "three.gif", "two.jpg", "one.png")]
    assert code == 1 and [line.split()[0] for line in lines[1:]] == names
    with open(tmp_path / "answers.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["file"] for row in rows] == names and "no image" in rows[0]["reason"]
    for row, line in zip(rows[1:], lines[2:], strict=True):
        assert (row["rank"], row["label"], f"{float(row['score']):.4f}", row["reason"]) == ("1", *line.split()[1:], "")
    code, _, errors = call("predict", served, tmp_path / "none", "--csv", tmp_path / "no" / "answers.csv")
    assert code == 2 and "there is no folder" in errors[0]
    (tmp_path / "empty").mkdir()
    code, _, errors = call("predict", served, tmp_path / "empty")
    assert code == 2 and "There is no image in the folder" in errors[0]


@pytest.mark.everything
def test_a_csv_loses_nothing(call, served, photos, tmp_path, monkeypatch):
    """Strange names, somebody else's file, a full disk."""
    strange = tmp_path / "strange"
    strange.mkdir()
    for name in (b"two\nlines.png", b"\xff.png", "größe, ü.png".encode()):
        (strange / os.fsdecode(name)).write_bytes((photos / "one.png").read_bytes())
    table = tmp_path / "answers.csv"
    for _ in range(2):  # its own is replaced
        code, lines, errors = call("predict", served, strange, "--top", 1, "--csv", table)
        assert (code, len(lines), errors) == (0, 4, [])
    rows = list(csv.DictReader(table.open(encoding="utf-8", errors="surrogateescape", newline="")))
    assert {row["file"] for row in rows} == {str(path) for path in strange.iterdir()}
    before = table.read_bytes()
    theirs = tmp_path / "labels.csv"
    theirs.write_text("path,label\n")
    for given, said in ((theirs, "was not written by kresnets predict"), (tmp_path, "is a folder")):
        code, lines, errors = call("predict", served, strange, "--csv", given)
        assert (code, lines, len(errors)) == (2, [], 1) and said in errors[0]

    def full(path, answers):
        path.write_text("half")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(predict, "write_csv", full)
    code, lines, errors = call("predict", served, strange, "--csv", table)
    assert (code, errors) == (2, [f"kresnets predict: {table}: No space left on device"]) and len(lines) == 10
    assert table.read_bytes() == before and theirs.read_text() == "path,label\n"
    assert {path.name for path in tmp_path.iterdir()} == {"strange", "answers.csv", "labels.csv"}


def test_all_files_good_is_exit_code_0_however_many(call, served, photos):
    code, lines, _ = call("predict", served, *[photos / "one.png", photos / "three.gif"] * 10, "--top", 1)
    assert code == 0
    assert len(lines) == 21 and len(set(lines)) == 3


def test_a_run_and_its_export_give_the_same_table(call, finished, photos, tmp_path):
    path = tmp_path / "saved models" / "pets"
    code, lines, errors = call("export", finished, path, "--top", 3)
    assert (code, errors) == (0, [])
    assert lines[0] == str(path / "1")
    assert f"'type=bind,source={path},target=/models/pets' -e MODEL_NAME=pets -t tensorflow/serving" in lines[2]
    files = sorted(photos.iterdir())
    tables = [call("predict", model, *files)[1] for model in (finished, path, path / "1")]
    assert tables[0] == tables[1] == tables[2]
    assert len(tables[0]) == 1 + 3 * 3 + 1


@pytest.mark.always("onnx")
@pytest.mark.parametrize("format", ["onnx", "litert", "openvino"])
def test_a_run_and_its_file_for_another_runtime_give_the_same_answers(call, finished, photos, tmp_path, format):
    """The run cuts out the centre (crop 0.9) and wants the tf mode: the file has to be asked so."""
    path = tmp_path / f"größe 1.{ {'onnx': 'onnx', 'litert': 'tflite', 'openvino': 'xml'}[format] }"
    assert call("export", finished, path, "--format", format)[0] == 0
    answers = []
    for model in (finished, path):
        table = tmp_path / f"{len(answers)}.csv"
        assert call("predict", model, photos, "--csv", table)[0] == 1  # one is no image
        answers.append(list(csv.DictReader(table.open(encoding="utf-8", newline=""))))
    assert [row["label"] for row in answers[0]] == [row["label"] for row in answers[1]]
    scores = [[float(row["score"] or 0) for row in rows] for rows in answers]
    np.testing.assert_allclose(*scores, atol=1e-4)
    assert max(scores[0]) < 0.99
    if format != "onnx":
        return
    wants, labels = path.with_suffix(".images.json"), path.with_suffix(".labels.txt")
    for spoil, said in (
        (lambda: labels.write_text("cat\ndog\n"), "knows 3 classes, and .* has 2 lines"),
        (lambda: wants.write_text('{"size": 16}'), "is damaged"),
        (wants.unlink, "There is no .*images.json beside"),
        (lambda: path.write_bytes(b"no model"), "beside"),
    ):
        spoil()
        code, lines, errors = call("predict", path, photos / "one.png")
        assert (code, lines, len(errors)) == (2, [], 1) and re.search(said, errors[0])


def test_a_runtime_that_is_missing_is_named(call, photos, tmp_path, monkeypatch):
    (tmp_path / "net.tflite").write_bytes(b"")
    (tmp_path / "notes.txt").write_bytes(b"")
    find = importlib.util.find_spec
    monkeypatch.setattr("importlib.util.find_spec", lambda name, *more: None if "litert" in name else find(name, *more))
    code, _, errors = call("predict", tmp_path / "net.tflite", photos / "one.png")
    assert code == 2 and "LiteRT needs ai_edge_litert: pip install 'kresnets[litert]'." in errors[0]
    code, _, errors = call("predict", tmp_path / "notes.txt", photos / "one.png")
    assert code == 2 and "is no file that `kresnets export` writes: .onnx, .tflite, .xml." in errors[0]


def run_with(finished, folder, **config):
    """The run once more, with more in its config."""
    shutil.copytree(finished, folder)
    known = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    (folder / "config.json").write_text(json.dumps(known | config), encoding="utf-8")
    return folder


@pytest.mark.parametrize("format", ["saved-model", "onnx"])
def test_scores_are_at_the_runs_temperature(call, model, finished, tmp_path, format):
    """What is exported divides the run's own logits, the logarithms of its probabilities, by the temperature."""
    run, images = run_with(finished, tmp_path / "run"), np.random.default_rng(1).uniform(0, 255, (4, 16, 16, 3))
    code, lines, errors = call("export", run, tmp_path / "served", "--calibrate")
    assert code == 2 and "run has no temperature: one is fitted at the end of a run that has 50 valid" in errors[0]
    numbers = {"calibration": {"error": 0.2, "error_with_temperature": 0.1, "temperature": 2.5}}
    (run / "metrics.json").write_text(json.dumps(numbers))
    path = tmp_path / ("served" if format == "saved-model" else "pets.onnx")
    code, lines, errors = call("export", run, path, "--calibrate", "--format", format)
    assert code == 0 and lines[0].startswith("temperature 2.500: expected calibration error 0.200 before, 0.100 with")
    said = model.predict(images.round() / 127.5 - 1, verbose=0)
    wanted = said**0.4 / (said**0.4).sum(1, keepdims=True)
    if format == "saved-model":
        served = tf.saved_model.load(str(path / "1")).signatures["predict_tensor"]
        found = served(images=tf.constant(images.round(), tf.float32))["probabilities"]
        assert json.loads((path / "1" / "assets" / "model_card.json").read_text())["temperature"] == 2.5
    else:
        found = FORMATS["onnx"].open(path)(images.round().astype("float32"))
    np.testing.assert_allclose(found, wanted, atol=1e-5)


def test_an_end_without_logits_takes_no_temperature(model):
    with pytest.raises(ValueError, match="ends in GlobalAveragePooling2D, not in a Dense layer of logits: divide them"):
        with_temperature(keras.Sequential(model.layers[:-1]), 2)
    with pytest.raises(ValueError, match="`temperature` must be a number above 0. Received: temperature=0"):
        with_temperature(model, 0)


def test_damaged_numbers_are_named(call, finished, tmp_path):
    run = run_with(finished, tmp_path / "run")
    for damaged in (b"{", b"\xff", b"[" * 100_000):
        (run / "metrics.json").write_bytes(damaged)
        code, lines, errors = call("export", run, tmp_path / "served")
        assert (code, lines, len(errors)) == (2, [], 1)
        assert f"{run / 'metrics.json'} is damaged" in errors[0] and not (tmp_path / "served").exists()


def test_photographs_at_a_relative_path_are_looked_for_from_another_folder(call, finished, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    arguments = {"data": "photos/pets", "limit": None, "seed": 0, "bad_images": "error"}
    run = run_with(finished, tmp_path / "run", arguments=arguments)
    code, lines, errors = call("export", run, tmp_path / "served", "--verify", "all")
    assert (code, lines, len(errors)) == (2, [], 1)
    assert "'photos/pets'" in errors[0] and "relative to the folder in which `kresnets finetune` was run" in errors[0]


def test_the_mount_of_a_folder_with_a_comma(call, finished, tmp_path):
    code, lines, errors = call("export", finished, tmp_path / "cats, dogs")
    assert (code, errors) == (0, [])
    mount = shlex.split(lines[-1])[shlex.split(lines[-1]).index("--mount") + 1]
    fields = ["type=bind", f"source={tmp_path / 'cats, dogs'}", "target=/models/cats, dogs"]
    assert list(csv.reader([mount])) == [fields]


def test_the_highest_version_answers(call, model, photos, tmp_path):
    for labels in (["a", "b", "c"], ["d", "e", "f"]):
        folder = export_saved_model(model, tmp_path, labels=labels, preprocess="tf")
    folder.rename(tmp_path / "10")
    (tmp_path / "11").mkdir()  # no model
    _, lines, _ = call("predict", tmp_path, photos / "one.png", "--top", 1)
    assert lines[1].split()[1] in "def"


def half_a_run(folder):
    (folder / "config.json").write_text('{"command": "kresnets finetune --data pets"}')


def arguments_in_a_list(folder):
    (folder / "config.json").write_text('{"command": "", "arguments": ["--data", "pets"]}')


def not_json(folder):
    (folder / "config.json").write_text("{")


def another_saved_model(folder):
    tf.saved_model.save(tf.Module(), str(folder))


def damaged_saved_model(folder):
    (folder / "saved_model.pb").write_bytes(b"no model")


@pytest.mark.parametrize(
    ("verb", "make", "said"),
    [
        ("export", half_a_run, "not finished (no model.keras yet): go on with it by kresnets finetune --data pets"),
        ("export", not_json, "config.json is damaged"),
        ("export", arguments_in_a_list, "config.json is damaged"),
        ("export", lambda folder: None, "is no run: it has no config.json"),
        ("predict", half_a_run, "not finished"),
        ("predict", lambda folder: None, "is no run"),
        ("predict", lambda folder: folder.rmdir(), "There is no "),
        ("predict", another_saved_model, "has no signature from `image_bytes` to labels"),
        ("predict", damaged_saved_model, "saved_model.pb"),
    ],
)
def test_bad_input_gets_one_sentence(call, verb, make, said, tmp_path, photos):
    folder = tmp_path / "given"
    folder.mkdir()
    make(folder)
    code, lines, errors = call(verb, folder, photos / "one.png" if verb == "predict" else tmp_path / "served")
    assert (code, lines) == (2, [])
    assert len(errors) == 1 and errors[0].startswith(f"kresnets {verb}: ") and said in errors[0]
    assert not (tmp_path / "served").exists()


def test_top_must_count_something(call, served, photos):
    code, _, errors = call("predict", served, photos / "one.png", "--top", "0")
    assert code == 2 and len(errors) == 1 and '"0" for --top' in errors[0]
