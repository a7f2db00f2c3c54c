"""`kresnets finetune --channels`: run, page, export and prediction of images that are not RGB."""

import json

import numpy as np
import pytest
import tensorflow as tf
from commands import finish, rows_of, small_run
from PIL import Image


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """16 grey pictures of 12 bits and 16 arrays of six bands, of two classes each."""
    folder, rng = tmp_path_factory.mktemp("pictures"), np.random.default_rng(0)
    for kind, channels in (("grey", 1), ("six", 6)):
        for label, name in enumerate("ab"):
            (folder / kind / name).mkdir(parents=True)
            for number in range(8):
                values = rng.integers(0, 2000, (40, 50, channels), dtype="uint16")
                values[:, : 10 + 20 * label] += 2000
                if channels == 1:
                    Image.fromarray(values[..., 0]).save(folder / kind / name / f"{number}.png")
                else:
                    np.save(folder / kind / name / f"{number}.npy", values)
    return folder


@pytest.mark.always("six-6")
@pytest.mark.parametrize(("kind", "channels"), [("grey", 1), ("six", 6)])
def test_the_whole_path(pictures, tmp_path, kind, channels):
    data, out, served = pictures / kind, tmp_path / "run", tmp_path / "served"
    done = small_run(data, out, "--channels", channels)
    assert done.returncode == 0 and "read as 12 bits" in done.stdout, done.stderr
    assert "Worst mistakes" in (out / "report.html").read_text()
    config = json.loads((out / "config.json").read_text())
    assert config["preprocess"]["decoding"]["channels"] == channels
    again = small_run(data, out, "--channels", channels)
    assert again.returncode == 0 and "is finished" in again.stdout
    other = small_run(data, out)
    assert other.returncode == 2 and f"--channels ({channels}, now 3)" in other.stderr

    exported = finish("export", out, served)
    assert exported.returncode == 0, exported.stderr
    card = json.loads((served / "1" / "assets" / "model_card.json").read_text())
    assert card["decoding"]["channels"] == channels and bool(card["reads"]) == (channels == 1)
    row = next(row for row in rows_of(out / "predictions.csv") if row["part"] == "test")
    wanted = {name: float(row[f"p({name})"]) for name in "ab"}
    for model in (out, served):
        asked = finish("predict", model, data / row["file"], "--csv", tmp_path / "answers.csv")
        assert asked.returncode == 0, asked.stdout
        found = {one["label"]: float(one["score"]) for one in rows_of(tmp_path / "answers.csv")}
        assert found == pytest.approx(wanted, abs=1e-4)
    signatures = tf.saved_model.load(str(served / "1")).signatures
    if channels == 1:  # a server decodes the file by itself
        answer = signatures["serving_default"](image_bytes=tf.constant([(data / row["file"]).read_bytes()]))
        scores = dict(zip((name.decode() for name in answer["labels"].numpy()[0]), answer["scores"].numpy()[0]))
        assert scores == pytest.approx(wanted, abs=1e-4)
    else:
        shape = signatures["serving_default"].structured_input_signature[1]["images"].shape
        assert shape.as_list() == [None, 48, 48, 6]


def test_what_does_not_go_with_channels_is_refused(pictures, tmp_path):
    strong = small_run(pictures / "six", tmp_path / "run", "--channels", 6, "--augment", "strong", "--dry-run")
    assert strong.returncode == 2 and "'strong' does not take images of 6 channels" in strong.stderr
    three = small_run(pictures / "six", tmp_path / "run")
    assert three.returncode == 2 and "not (height, width, 3)" in three.stderr
    assert not (tmp_path / "run" / "config.json").exists()
