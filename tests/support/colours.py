"""A classifier whose answer to a picture of one colour can be worked out by hand, for tests of what serves it."""

import io

import keras
import numpy as np
from PIL import Image

import kresnets

LABELS = ("red", "grün", "<b>blue</b>")
COLOURS = {"red": (250, 10, 20), "green": (5, 200, 30), "blue": (0, 20, 255), "grey": (120, 128, 130)}


def export(path, scale=2.0, **arguments):
    """Export a net that takes the mean of each channel, times `scale`, as logits; return the version's folder."""
    dense = keras.layers.Dense(3, activation="softmax")
    model = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.GlobalAveragePooling2D(), dense])
    dense.set_weights([scale * np.eye(3), np.zeros(3)])
    return kresnets.export_saved_model(model, path, labels=LABELS, preprocess="tf", **arguments)


def export_numbers(path):
    """Export a net that takes the mean of red and of green, 0..255, as two numbers."""
    dense = keras.layers.Dense(2)
    model = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.GlobalAveragePooling2D(), dense])
    dense.set_weights([np.eye(3)[:, :2], np.zeros(2)])
    return kresnets.export_saved_model(model, path, labels=("red", "<i>green"), preprocess="none", task="numbers")


def export_bands(path):
    """Export a net of six channels, whose files no server decodes."""
    layers = [keras.Input((8, 8, 6)), keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(2, "softmax")]
    how = kresnets.Preprocessing("none", decoding=kresnets.Decoding(channels=6))
    return kresnets.export_saved_model(keras.Sequential(layers), path, labels=("a", "b"), preprocess=how)


def picture(colour, format="PNG", size=(30, 20)):
    """Return the bytes of a picture of one colour."""
    file = io.BytesIO()
    Image.new("RGB", size, COLOURS[colour]).save(file, format)
    return file.getvalue()


def expected(colour, scale=2.0):
    """Work out the answer: dict label -> score, best first."""
    logits = scale * (np.array(COLOURS[colour]) / 127.5 - 1)  # mode "tf": from -1 to 1
    scores = np.exp(logits) / np.exp(logits).sum()
    return {LABELS[index]: scores[index] for index in np.argsort(-scores)}


def agrees(prediction, colour, scale=2.0, tolerance=1e-4):
    """Say whether a served row is the answer to a colour."""
    wanted = expected(colour, scale)
    return (
        prediction["valid"] is True
        and prediction["labels"] == list(wanted)
        and np.allclose(prediction["scores"], list(wanted.values()), atol=tolerance)
    )
