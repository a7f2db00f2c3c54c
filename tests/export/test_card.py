"""The model card of an exported version, read by those who know only files and hashes."""

import hashlib
import io
import json
import math
import subprocess

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

import kresnets
from kresnets.export import Classifier, export_saved_model, read_card
from kresnets.export.card import OF_THE_EXPORT, OF_THE_USER


@pytest.fixture(scope="module")
def model():
    keras.utils.set_random_seed(1)
    x = inputs = keras.Input((16, 16, 3))
    x = keras.layers.Conv2D(8, 3, use_bias=False)(x)
    x = keras.layers.Activation("relu")(keras.layers.BatchNormalization()(x))
    x = keras.layers.Dense(3, kernel_initializer=keras.initializers.RandomNormal(stddev=3))(
        keras.layers.GlobalAveragePooling2D()(x)
    )
    return keras.Model(inputs, keras.layers.Activation("softmax")(x), name="tiny")


@pytest.fixture(scope="module")
def photographs():
    random = np.random.default_rng(0)
    files = []
    for number in range(20):
        colours = random.integers(0, 256, (2, 2, 3), dtype="uint8")
        stream = io.BytesIO()
        Image.fromarray(colours).resize((30, 20 + number)).save(stream, "PNG")
        files.append(stream.getvalue())
    return files


@pytest.fixture(scope="module")
def said():
    return {"weights": "none", "licence": "MIT", "data": {"source": "größe"}, "metrics": {"accuracy": 0.5}, "by": "me"}


@pytest.fixture(scope="module")
def folder(model, photographs, said, tmp_path_factory):
    path = tmp_path_factory.mktemp("served") / "tiny"
    return export_saved_model(
        model, path, ["a", "b", "c"], kresnets.Preprocessing("torch", crop=0.9), card=said, verify_on=photographs
    )


def test_what_was_said_and_what_was_found(folder, model, said):
    card = json.loads((folder / "assets" / "model_card.json").read_text(encoding="utf-8"))
    assert card == read_card(folder)
    assert {name: card[name] for name in said} == said
    assert card["classes"] == ["a", "b", "c"] and card["top"] == 3 and card["input_size"] == 16
    assert card["preprocessing"] == {"mode": "torch", "crop": 0.9, "mean": None, "std": None}
    assert (card["network"], card["parameters"], card["dtype"]) == ("tiny", model.count_params(), "float32")
    assert card["batch_norms_folded"] == 1 and card["kresnets"] == kresnets.__version__
    assert set(card) == {*OF_THE_USER, *OF_THE_EXPORT, "by"}


def test_the_hashes_are_those_of_the_files(folder):
    """By another program, and of every file but the card itself."""
    hashes = read_card(folder)["sha256"]
    files = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert set(hashes) == files - {"assets/model_card.json"} and "saved_model.pb" in hashes
    listed = "".join(f"{digest}  {name}\n" for name, digest in hashes.items())
    subprocess.run(["sha256sum", "--check", "--strict", "--quiet"], input=listed, text=True, cwd=folder, check=True)
    assert hashes["saved_model.pb"] == hashlib.sha256((folder / "saved_model.pb").read_bytes()).hexdigest()


def test_photographs_are_asked_of_both(folder, model, photographs):
    """The difference is found once more, through Pillow-made pixels of the answers' own labels."""
    verified = read_card(folder)["verified"]
    served = tf.saved_model.load(str(folder)).signatures["serving_default"]
    from kresnets.data.images import load_image

    images = np.stack([load_image(file, 16, 0.9) for file in photographs])
    expected = model.predict(kresnets.preprocess_input(images, mode="torch"), verbose=0)
    answer = served(image_bytes=tf.constant(photographs))
    differences = np.abs(answer["scores"].numpy() - -np.sort(-expected, axis=1))
    assert verified["photographs"] == 20 and verified["same_first_label"] == 1
    assert verified["largest_difference"] == pytest.approx(differences.max(), abs=2e-6)
    assert verified["largest_difference"] < 1e-4


@pytest.mark.everything
def test_half_precision_differs_and_says_by_how_much(model, photographs, tmp_path):
    arguments = {"preprocess": "torch", "dtype": "bfloat16", "verify_on": photographs}
    card = read_card(export_saved_model(model, tmp_path / "tiny", **arguments))
    assert card["dtype"] == "bfloat16" and 1e-5 < card["verified"]["largest_difference"] < 2e-2
    assert card["weights"] is card["metrics"] is None


def test_nobody_verified(model, tmp_path):
    assert read_card(export_saved_model(model, tmp_path / "tiny", preprocess="torch"))["verified"] is None


def test_a_model_that_answers_photographs_otherwise_is_not_published(model, photographs, tmp_path, monkeypatch):
    from kresnets.export import verification as proof

    real = proof._compare
    monkeypatch.setattr(proof, "_compare", lambda *arguments: None)
    monkeypatch.setattr(Classifier, "image", lambda self, file: tf.fill((self.size, self.size, 3), 9.0))  # another one
    assert real is not proof._compare
    with pytest.raises(RuntimeError, match="answers 20 images differently .* nothing was exported"):
        export_saved_model(model, tmp_path / "tiny", preprocess="torch", verify_on=photographs)
    assert list(tmp_path.iterdir()) == []


def nested(levels):
    value = []
    for _ in range(levels):
        value = [value]
    return value


REFUSED = {
    "no dict": ({"card": "me"}, "must be a dict"),
    "found by export": ({"card": {"classes": ["a"]}}, "'classes', which the export finds out"),
    "not JSON": ({"card": {"data": object()}}, "what JSON can hold"),
    "NaN": ({"card": {"metrics": {"auc": math.nan}}}, "without NaN"),
    "one file": ({"verify_on": "photo.jpg"}, "sequence of image files"),
    "no image": ({"verify_on": [b"<html>"]}, "number 0 cannot be compared"),
    "too large": (
        {"verify_on": "large", "max_pixels": 256},
        "refuses image number 0 .*max_pixels=256, or of too many",
    ),
    "numbers": ({"verify_on": [5]}, "path or its bytes. Received: int as number 0"),
    "no UTF-8": ({"card": {"data": "a\udcff"}}, "UTF-8"),
    "no UTF-8 in a name": ({"card": {"a\udcff": 1}}, "UTF-8"),
    "nested": ({"card": {"data": nested(120)}}, "nested more than 100 levels"),
    "nested past any stack": ({"card": {"data": nested(50_000)}}, "nested more than 100 levels"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refusals_say_why_and_leave_nothing(case, model, photographs, tmp_path):
    arguments, sentence = REFUSED[case]
    if arguments.get("verify_on") == "large":
        arguments = arguments | {"verify_on": photographs[:1]}
    with pytest.raises(ValueError, match=sentence) as raised:
        export_saved_model(model, tmp_path / "tiny", preprocess="torch", **arguments)
    assert "\n" not in str(raised.value) and list(tmp_path.iterdir()) == []


def test_a_photograph_that_is_not_there(model, tmp_path):
    with pytest.raises(FileNotFoundError, match="gone.jpg"):
        export_saved_model(model, tmp_path / "tiny", preprocess="torch", verify_on=[tmp_path / "gone.jpg"])
    assert list(tmp_path.iterdir()) == []


def test_cards_that_cannot_be_read(tmp_path):
    with pytest.raises(ValueError, match="holds no model card"):
        read_card(tmp_path)
    (tmp_path / "assets").mkdir()
    for text in ("{", "[1]", "\udcff"):
        (tmp_path / "assets" / "model_card.json").write_bytes(text.encode(errors="surrogateescape"))
        with pytest.raises(ValueError, match="is damaged"):
            read_card(tmp_path)
