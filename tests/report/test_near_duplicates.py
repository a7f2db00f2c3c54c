"""Test images that are nearly training images: planted copies of real photographs are found, others are left alone."""

import csv
import io
import json

import numpy as np
import pytest
from claims import images
from commands import ask
from PIL import Image, ImageEnhance

from kresnets.data import Part
from kresnets.report.near_duplicates import near_duplicates, signatures


def saved_anew(image):
    file = io.BytesIO()
    image.save(file, "JPEG", quality=70)
    return Image.open(file)


COPIES = {
    "saved anew": saved_anew,
    "smaller": lambda image: image.resize((48, 48), Image.Resampling.BICUBIC),
    "brighter": lambda image: ImageEnhance.Brightness(image).enhance(1.2),
    "paler": lambda image: ImageEnhance.Contrast(image).enhance(0.7),
}


def png(image):
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


def part(pictures):
    return Part(list(map(str, range(len(pictures)))), [0] * len(pictures), list(map(png, pictures)), ["a"], False)


@pytest.fixture(scope="module")
def tiles():
    """Real photographs' tiles, of which the first teach and the last, of other photographs' places, judge."""
    pytest.importorskip("skimage", reason="its photographs are not installed")
    found = [image for _, image, _ in images.TARGETS["tiles"][1]()]
    order = np.random.default_rng(0).permutation(len(found))
    return [found[i] for i in order[:300]], [found[i] for i in order[300:]]


@pytest.mark.everything
def test_planted_copies_are_found_and_little_else(tiles):
    learned, judged = tiles
    learned_signatures = signatures(part(learned), 64)
    natural = set(near_duplicates(signatures(part(judged), 64), learned_signatures).rows.tolist())
    assert len(natural) <= 0.03 * len(judged)  # tiles of a clear sky or of even grass
    planted = np.random.default_rng(1).choice(300, 40, replace=False)
    for name, copy in COPIES.items():
        both = judged + [copy(learned[place].convert("RGB")) for place in planted]
        found = near_duplicates(signatures(part(both), 64), learned_signatures)
        said = dict(zip(found.rows.tolist(), found.like.tolist()))
        right = sum(said.get(len(judged) + number) == place for number, place in enumerate(planted))
        assert right >= 34, (name, right)
        assert {row for row in said if row < len(judged)} == natural


@pytest.mark.everything
@pytest.mark.slow
def test_cells_that_were_photographed_twice_are_found():
    """Of ELPV's cells 1508 to 1510 and 1549 to 1551 are one cell each, as one sees; others only look alike."""
    elpv = (
        pytest.importorskip("elpv_dataset", reason="its photographs are not installed") and images.TARGETS["elpv/mono"]
    )
    cells = {name: image for name, image, _ in elpv[1]()}
    judged = ["cell1508.png", "cell1549.png", "cell0001.png", "cell0437.png"]
    learned = [name for name in cells if name not in judged]
    found = near_duplicates(*(signatures(part([cells[name] for name in names]), 96) for names in (judged, learned)))
    assert [(judged[row], learned[like]) for row, like in zip(found.rows, found.like)] == [
        ("cell1508.png", "cell1509.png"), ("cell1549.png", "cell1550.png"),
    ]  # fmt: skip


def test_too_few_to_compare_with_are_left_alone():
    few = np.ones((3, 2560), "float16")
    assert not len(near_duplicates(few, few).rows) and not len(near_duplicates(few[:0], few).rows)


@pytest.mark.everything
def test_a_run_says_it(tiles, tmp_path, capsys):
    """Parts that share photographs, saved anew in the test: the page, the table and metrics.json tell."""
    learned, judged = tiles
    for name, pictures in (
        ("train", learned[:40]),
        ("val", judged[20:30]),
        ("test", [*map(saved_anew, learned[:5]), *judged[:15]]),
    ):
        for number, image in enumerate(pictures):
            path = tmp_path / "photos" / name / "ab"[number % 2] / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            image.convert("RGB").save(path)
    options = "--model CifarResNet8 --weights none --size 32 --batch-size 8 --epochs 1 --dtype float32".split()
    assert ask("finetune", "--data", tmp_path / "photos", "--out", tmp_path / "run", *options) == 0
    assert "Nearly the same as a training image: 5 of them; without these accuracy " in capsys.readouterr().out
    with open(tmp_path / "run" / "near_duplicates.csv", newline="") as file:
        pairs = {(row["test_file"], row["training_file"]) for row in csv.DictReader(file)}
    assert pairs == {(f"test/{'ab'[n % 2]}/{n}.png", f"train/{'ab'[n % 2]}/{n}.png") for n in range(5)}
    found = json.loads((tmp_path / "run" / "metrics.json").read_text())["near_duplicates"]
    with open(tmp_path / "run" / "predictions.csv", newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["part"] == "test"]
    others = [int(row["correct"]) for row in rows if row["file"] not in {name for name, _ in pairs}]
    assert found == {"count": 5, "accuracy_without": pytest.approx(np.mean(others))}
    page = (tmp_path / "run" / "report.html").read_text()
    assert "5 of 20 test images (25%) are nearly the same as a training image" in page
    assert page.count("data:image/png") == len(list((tmp_path / "run").glob("*.png")))
