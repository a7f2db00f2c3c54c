"""`kresnets compare`: its table, CSV, picture and errors."""

import csv

import keras
import pytest
from commands import ask
from PIL import Image

import kresnets


@pytest.fixture
def compare(monkeypatch, capsys):
    """Run the verb in this process: its exit code, and what it wrote to stdout and stderr."""
    monkeypatch.setenv("KERAS_BACKEND", "tensorflow")  # put back afterwards: the verb sets it

    def call(*arguments):
        code, captured = ask("compare", *arguments), capsys.readouterr()
        return code, captured.out, captured.err

    return call


def rows(path):
    with open(path, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_a_table_a_csv_and_a_picture(compare, tmp_path):
    names = ("ResNet50", "ResNet50D", "InceptionV4", "AlexNet", "CifarResNet20")
    code, out, err = compare(*names, "--csv", tmp_path / "new/costs.csv", "--picture", tmp_path / "new/costs.png")
    assert (code, err) == (0, "")
    table = {line.split()[0]: line for line in out.splitlines() if line and line.split()[0] in names}
    assert list(table) == list(names)
    assert "25.58 M" in table["ResNet50D"] and "4.33 G" in table["ResNet50D"] and "60.97 M" in table["AlexNet"]
    found = {row["network"]: row for row in rows(tmp_path / "new/costs.csv")}
    assert int(found["ResNet50"]["parameters"]) == 25_557_032 and found["CifarResNet20"]["pixels"] == "32"
    # keras.io/api/applications and timm's results-imagenet.csv
    assert float(found["ResNet50"]["top1"]) == 74.9 and float(found["InceptionV4"]["top1"]) == 80.14
    assert found["InceptionV4"]["top1_from"] and found["AlexNet"]["top1"] == ""
    assert "Not in the picture" in out and out.rstrip().endswith("AlexNet, CifarResNet20.")
    with Image.open(tmp_path / "new/costs.png") as image:
        assert image.size == (1200, 800) and len(image.convert("RGB").getcolors(1 << 20)) > 10
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == ["costs.csv", "costs.png"]


@pytest.mark.everything
def test_patterns_and_sizes(compare, tmp_path):
    code, out, _ = compare("ResNet18*", "ResNet18", "--size", 96, "--csv", tmp_path / "costs.csv")
    found = rows(tmp_path / "costs.csv")
    assert code == 0 and [row["network"] for row in found] == [
        name for name in kresnets.SPECS if name.startswith("ResNet18")
    ]
    model = kresnets.ResNet18D(weights=None, input_shape=(96, 96, 3))
    row = next(row for row in found if row["network"] == "ResNet18D")
    assert int(row["multiply_adds"]) == kresnets.summarize(model).multiply_adds
    # The picture's are those at the size that the accuracy is of.
    assert int(row["multiply_adds_at_top1"]) == kresnets.summarize(model, (224, 224, 3)).multiply_adds


def test_the_blocks(compare):
    code, out, _ = compare("--blocks")
    shares = [(line.split()[-3], line.split()[-1]) for line in out.splitlines()[2:]]
    assert code == 0 and shares == [("18", "36"), ("17", "34"), ("288", "576")]


@pytest.mark.everything
def test_times_are_measured(compare, tmp_path):
    measure = ("--measure", "--batch-size", 2, "--rounds", 1, "--steps", 2, "--dtype", "mixed_bfloat16")
    code, out, _ = compare("CifarResNet20", "CifarPlainNet20", *measure, "--csv", tmp_path / "times.csv")
    found = rows(tmp_path / "times.csv")
    assert code == 0 and " ms" in out and keras.mixed_precision.dtype_policy().name == "float32"
    for row in found:
        assert float(row["predict_ms"]) > 0 and float(row["step_ms"]) > 0
        assert (row["batch_size"], row["dtype"]) == ("2", "mixed_bfloat16")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("ResNet55",), "There is no network 'ResNet55': close names are ResNet50"),
        (("resnet50d",), "ResNet50D"),
        (("VGG*",), "there are ResNet18, "),
        (("ResNet18", "--size", "8"), "at least 32 pixels"),
        (("ResNet18", "--size", "0"), "Must be >= 1"),
        (("CifarResNet20", "--picture", "no.png"), "needs a published accuracy, and there is none for CifarResNet20"),
    ],
)
def test_misuse_is_one_sentence(compare, tmp_path, monkeypatch, arguments, words):
    monkeypatch.chdir(tmp_path)
    code, _, err = compare(*arguments)
    assert code == 2 and words in err and err.count("\n") == 1 and not list(tmp_path.iterdir())
