"""What has changed among files since they were learned from, in words."""

import numpy as np
import pytest
from PIL import Image

from kresnets.data import load_data, manifest
from kresnets.data.sources import list_source


@pytest.fixture
def folder(tmp_path):
    for number in range(12):
        pixels = np.random.default_rng(number).integers(0, 256, (8, 8, 3), dtype=np.uint8)
        path = tmp_path / "pets" / ("cat", "dog")[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path)
    return tmp_path / "pets"


def test_a_label_that_was_corrected_is_a_file_that_moved(folder):
    noted = load_data(folder, progress=False).files
    (folder / "cat" / "0.png").rename(folder / "dog" / "0.png")
    (folder / "cat" / "2.png").unlink()
    Image.new("RGB", (8, 8)).save(folder / "dog" / "new.png")
    (folder / "dog" / "1.png").write_bytes((folder / "dog" / "3.png").read_bytes())
    assert manifest.changes(noted, list_source(folder)) == (
        "1 moved (cat/0.png to dog/0.png), 1 added (dog/new.png), 1 gone (cat/2.png), 1 changed (dog/1.png)"
    )


def test_of_equal_files_each_is_told_once(folder):
    (folder / "cat" / "copy.png").write_bytes((folder / "cat" / "0.png").read_bytes())
    noted = load_data(folder, progress=False).files
    for name in ("0.png", "copy.png"):
        (folder / "cat" / name).rename(folder / "cat" / f"new-{name}")
    assert manifest.changes(noted, list_source(folder)).startswith("2 moved (") and "gone" not in manifest.changes(
        noted, list_source(folder)
    )


def test_what_is_written_is_read_and_nothing_has_changed(folder, tmp_path):
    noted = load_data(folder, progress=False).files
    manifest.write(tmp_path / "files.csv", noted)
    assert manifest.read(tmp_path / "files.csv") == noted and manifest.changes(noted, list_source(folder)) == ""
