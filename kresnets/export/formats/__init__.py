"""A Keras classifier as one file for another runtime, which runs it before anybody gets it.

Pixels go in and probabilities come out, with the preprocessing inside; files of images are decoded by whoever asks.
"""

import dataclasses
import errno
import json
import os
import pathlib
import shutil
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from kresnets._util.types import Array, PathLike
from kresnets.data.check import MAX_PIXELS
from kresnets.decoding import Decoding
from kresnets.export.classifier import Classifier
from kresnets.export.formats import litert, onnx, openvino
from kresnets.export.formats.network import Network
from kresnets.export.signatures import Signatures
from kresnets.export.verification import probes
from kresnets.export.versions import flush, folder_beside, local, writing
from kresnets.preprocess import Preprocessing

FORMATS = {
    "onnx": onnx.FORMAT,
    "litert": litert.FLOAT32,
    "litert-int8": litert.INT8,
    "openvino": openvino.FORMAT,
}
_ALLOWED = 1e-4
_ALLOWED_LOG, _LEAST = 0.05, 1e-12  # of the logarithms of probabilities, but for the smallest
_BATCH = 32
_DOUBTFUL = 0.9  # share of labels that int8 should keep, or it is said


@dataclasses.dataclass(frozen=True)
class Exported:
    """A file for another runtime, and how its answers compare with the Keras model's.

    Args:
        path: pathlib.Path of the file.
        labels: pathlib.Path of the text with one label a line.
        difference: float, the largest difference of a probability, over the images that both were asked about:
            noise and patches of colour, or the calibration images of an int8 file.
        agreement: float, the share of these images to which both give the same label.
    """

    path: pathlib.Path
    labels: pathlib.Path
    difference: float
    agreement: float


def export_file(
    model: keras.Model,
    path: PathLike,
    format: str | None = "onnx",
    labels: Sequence[str] | None = None,
    preprocess: Any = None,
    calibration: Array | None = None,
    fold: bool = True,
    task: str | None = None,
) -> Any:
    """Write a classifier as one file for another runtime: ONNX, LiteRT (TensorFlow Lite) or OpenVINO.

    The file takes `images`, `(batch, size, size, channels)`, RGB 0..255 of the model's size, any number of them, and
    gives `probabilities`, float32 `(batch, classes)`. Preprocessing is inside; decoding and resizing are not, so
    whoever asks resizes the short side to the model's size (bilinear, antialiased) and cuts out the centre, as
    `kresnets.data.load_image` does. It is written beside and renamed once its own runtime has run it, in batches of 1
    and more, and answered as the Keras model does (probabilities to 1e-4, their logarithms to 0.05, in float32).
    `NAME.labels.txt` beside it has one label a line, `NAME.images.json` how an image file becomes its pixels;
    `kresnets predict` reads both. Nothing that exists is replaced.

    - `"onnx"` (`NAME.onnx`): run by onnxruntime; the labels are in its metadata too, as a JSON list.
    - `"litert"` (`NAME.tflite`): of LiteRT's own operations only. It takes one image until its input is resized.
    - `"litert-int8"` (`NAME.tflite`): weights and arithmetic in 8 bits, a quarter of the size. `images` are uint8, the
      pixels as a camera gives them (scale 1, zero point 0); probabilities are float32 in steps of 1/256.
    - `"openvino"` (`NAME.xml` and `NAME.bin`).

    Args:
        model: a Keras model as `kresnets.export_saved_model` takes it.
        path: the file; its name ends as above.
        format: `"onnx"`, `"litert"`, `"litert-int8"` or `"openvino"`. Defaults to `"onnx"`.
        labels: sequence of str, the name of each class in the order of the outputs. Defaults to None: ImageNet's
            for its published weights, else the indices.
        preprocess: `"caffe"`, `"tf"`, `"torch"`, `"none"`, a `Preprocessing`, or None for what the model carries.
            Defaults to None.
        calibration: for `"litert-int8"`, images of the kind that it will see, array `(images, size, size, 3)`, RGB
            0..255: what they make of each layer decides how its values are spread over 8 bits. 100 to 500 do. Defaults
            to None.
        fold: bool, put batch norms into the convolutions before them. Defaults to True.
        task: as of `kresnets.export_saved_model`. Defaults to None.

    Returns:
        An `Exported`.

    Raises:
        ValueError: for a model, path, format, labels, preprocessing or calibration images that cannot be used.
        ImportError: where a library that the format needs is missing.
        OSError: where the file cannot be written.
        RuntimeError: with another Keras backend, where the model has what the format has not, or where the file
            answers differently.

    Example:
        >>> import keras, tempfile
        >>> from kresnets.export import export_file
        >>> model = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.GlobalAveragePooling2D(),
        ...                           keras.layers.Dense(2, activation="softmax")])
        >>> exported = export_file(model, tempfile.mkdtemp() + "/pets.tflite", "litert", ["cat", "dog"], "torch")
        >>> exported.path.name, exported.labels.read_text().split(), exported.difference < 1e-4
        ('pets.tflite', ['cat', 'dog'], True)
    """
    if not isinstance(format, str) or format not in FORMATS:
        raise ValueError(f"`format` must be one of {', '.join(map(repr, FORMATS))}. Received: format={format!r}")
    target = FORMATS[format]
    file: pathlib.Path = local(path, "file")
    _check_path(file, target)
    target.require_libraries()
    classifier = Classifier.of(model, labels, preprocess, task=task).computing_in("float32", fold=False)
    if classifier.scores.numbers:
        raise ValueError(
            f"{model.name!r} says numbers, which are exported as a SavedModel alone (kresnets.export_saved_model): a "
            f"file of format {format!r} is read as probabilities by all that reads it here."
        )
    beside = {
        _labels_name(file): _lines(classifier.labels),
        _images_name(file): json.dumps(_wants(classifier)),
    }
    _names(file, target, beside)  # before anything is computed
    images = _images(target, calibration, classifier.shape)
    expected = _answers_of_keras(classifier, images)
    network = Network(classifier.computing_in("float32", fold))
    with folder_beside(file.parent, "model") as folder:
        with writing(file, "model"):
            answers = _written_and_asked(target, network, folder / file.name, classifier.labels, images)
            for name, text in beside.items():
                (folder / name).write_text(text, encoding="utf-8")
        difference, agreement = _compared(target, answers, expected)
        with writing(file, "model"):
            flush(folder)
            for name in _names(file, target, beside):
                (folder / name).rename(file.with_name(name))
    return Exported(file, file.with_name(_labels_name(file)), difference, agreement)


def open_file(path: PathLike, top: int = 5) -> Callable:
    """Open a file that `export_file` wrote, by its own runtime.

    Args:
        path: the `.onnx`, `.tflite` or `.xml`; what was written beside it must lie there still.
        top: labels and scores an image, at most. Defaults to 5.

    Returns:
        A function from a string tensor of image files' bytes, `(batch,)`, to a dict of `labels`, `scores` and `valid`,
        as the `serving_default` of an exported SavedModel.

    Raises:
        ValueError: for a file of another kind, one that is damaged or none of `export_file`'s, and where a file beside
            it is missing or of another network.
        ImportError: without the runtime; says how to install it.

    Example:
        >>> from kresnets.export.formats import open_file
        >>> open_file("pets.onnx")
        Traceback (most recent call last):
        ValueError: There is no file pets.onnx.
    """
    path = pathlib.Path(path)
    target = next((one for one in FORMATS.values() if one.suffixes[0] == path.suffix), None)
    if target is None:
        known = ", ".join(dict.fromkeys(one.suffixes[0] for one in FORMATS.values()))
        raise ValueError(f"{path} is no file that `kresnets export` writes: {known}.")
    if not path.is_file():
        raise ValueError(f"There is no file {path}.")
    target.require_libraries(target.libraries[-1:])
    labels, wants = path.with_name(_labels_name(path)), path.with_name(_images_name(path))
    try:
        names = labels.read_text(encoding="utf-8").splitlines()
        images = json.loads(wants.read_text(encoding="utf-8"))
        size, decoding = int(images["size"]), Decoding.of_data(images["decoding"])
        preprocessing = Preprocessing("none", crop=float(images["crop"]), decoding=decoding)  # the file has the mode
    except FileNotFoundError as error:
        raise ValueError(
            f"There is no {error.filename} beside {path.name}, which `kresnets export` writes: put it there, or export "
            "the run again."
        ) from None
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{labels} or {wants} is damaged ({error}): export the run again.") from None
    try:
        ask = target.open(path)
        classes = ask(np.zeros((1, size, size, decoding.channels), "float32")).shape[-1]
    except Exception as error:  # each runtime has errors of its own
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise ValueError(f"{path} cannot be run by {target.title} as a file of `kresnets export`: {reason}") from error
    if classes != len(names):
        raise ValueError(f"{path} knows {classes} classes, and {labels} has {len(names)} lines, of another network.")
    network = lambda pixels: {"probabilities": tf.constant(ask(pixels.numpy()), tf.float32)}
    return Signatures(
        network, tuple(names), min(top, classes), size, preprocessing, MAX_PIXELS, arrays=decoding.channels != 3
    ).serving_default


def _check_path(path, target):
    if path.suffix != target.suffixes[0]:
        raise ValueError(
            f"A file of {target.title} must be called NAME{target.suffixes[0]}. Received: {path.name or str(path)!r}"
        )


def _labels_name(path):
    return f"{path.stem}.labels.txt"


def decoding_of(path: PathLike) -> Decoding:
    """Return how image files become the pixels that a file of `export_file` takes, as what lies beside it says."""
    path = pathlib.Path(path)
    return Decoding.of_data(json.loads(path.with_name(_images_name(path)).read_text(encoding="utf-8"))["decoding"])


def _wants(classifier):
    """Return what `NAME.images.json` says: how a file becomes the pixels 0..255 that the network takes."""
    how = classifier.preprocessing
    return {
        "size": classifier.size, "crop": how.crop, "decoding": dataclasses.asdict(how.decoding or Decoding())
    }  # fmt: skip


def _images_name(path):
    return f"{path.stem}.images.json"


def _lines(labels):
    for label in labels:
        if label.splitlines() != [label] or label.strip() != label:
            raise ValueError(
                "A label must be one line without spaces around it, for the file that has one label a line. Received: "
                f"{label!r}"
            )
    return "".join(f"{label}\n" for label in labels)


def _names(path, target, beside):
    """List the names of the files to write, the one that programs look for last; refuse to replace others.

    What lies beside it may be there already, for the same network in another format.
    """
    names = [*beside, *(path.stem + suffix for suffix in reversed(target.suffixes))]
    for name in names:
        place = path.with_name(name)
        if place.exists() and not (name in beside and place.is_file() and place.read_bytes() == beside[name].encode()):
            raise ValueError(
                f"{place} exists and is not replaced, since something may be reading it: give another name, or remove "
                "it."
            )
    return names


def _images(target, calibration, shape):
    """Return what both sides are asked about: the calibration images, or noise and colours where none are needed."""
    if not target.calibrated:
        if calibration is not None:
            raise ValueError(f"`calibration` is for format='litert-int8' alone; {target.title} takes none.")
        return probes(shape[0], shape[2]).astype("float32")
    what = f"`calibration` must be images as an array (images, {', '.join(map(str, shape))}) of RGB values 0..255"
    if calibration is None:
        raise ValueError(f"{what}: format='litert-int8' needs some, of the kind that the model will see.")
    images = np.asarray(calibration)
    if images.ndim != 4 or not len(images) or images.shape[1:] != shape:
        raise ValueError(f"{what}. Received: shape={images.shape}")
    if images.dtype.kind not in "fiu":
        raise ValueError(f"{what}. Received: values of dtype {images.dtype}")
    if not (images.min() >= 0 and images.max() <= 255):  # also where one is NaN
        raise ValueError(f"{what}. Received: values from {images.min()} to {images.max()}")
    if images.max() <= 1:
        raise ValueError(f"{what}. Received: values up to {images.max()}, which look scaled to 0..1 already")
    return np.round(images).astype("float32")  # what uint8 pixels can say


def _batches(images):
    """Cut images into batches, the first of a single image."""
    yield images[:1]
    for start in range(1, len(images), _BATCH):
        yield images[start : start + _BATCH]


def _answers_of_keras(classifier, images):
    outputs = np.concatenate([classifier.outputs(batch) for batch in _batches(images)])
    return classifier.scores.probabilities(outputs).numpy()


def _written_and_asked(target, network, file, labels, images):
    """Write the file, and return what its own runtime makes of the images."""
    try:
        target.write(network, file, images, labels)
        ask = target.open(file)
        return np.concatenate([ask(batch) for batch in _batches(images)])
    except (OSError, tf.errors.OpError):
        raise
    except Exception as error:  # each library has errors of its own
        # OpenVINO says no more than "iostream error" of a full disk.
        if shutil.disk_usage(file.parent).free < sum(variable.numpy().nbytes for variable in network.variables):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)) from error
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        raise RuntimeError(
            f"The model could not be written for {target.title}, or not be run by it ({reason}); nothing was exported. "
            "A layer of your own may compute what it has no operation for."
        ) from error


def _compared(target, answers, expected):
    difference = float(np.abs(answers - expected).max())
    agreement = float(np.mean(answers.argmax(axis=-1) == expected.argmax(axis=-1)))
    # A trained network is sure of noise, and two that are sure agree to the last digit whatever else they say: small
    # probabilities tell them apart, by their logarithms.
    logs = np.abs(np.log(np.maximum(answers, _LEAST)) - np.log(np.maximum(expected, _LEAST))).max()
    if not target.calibrated and not (difference <= _ALLOWED and logs <= _ALLOWED_LOG):  # also when one is NaN
        raise RuntimeError(
            f"The file answers differently from the Keras model (by {difference:.2g}, allowed {_ALLOWED:g}; in the "
            f"logarithm by {logs:.2g}, allowed {_ALLOWED_LOG:g}); nothing was exported."
        )
    if target.calibrated and agreement < _DOUBTFUL:
        warnings.warn(
            f"In int8 only {agreement:.0%} of the {len(answers)} calibration images keep their label: measure what "
            "that costs, or use format='litert'.",
            stacklevel=3,
        )
    return difference, agreement
