"""What is served: a Keras classifier, checked, with all that lies between an image and a label."""

import contextlib
import dataclasses
import re
import warnings

import keras
import numpy as np
import tensorflow as tf

from kresnets._util.checks import is_whole
from kresnets.data.check import MAX_PIXELS
from kresnets.data.images import load_image
from kresnets.decoding import CHANNELS, Decoding
from kresnets.export.card import is_unicode
from kresnets.export.fold import fold_batchnorms
from kresnets.export.precision import DTYPES, in_bfloat16, in_float32, in_half
from kresnets.export.signatures import Signatures
from kresnets.export.views import VIEWS, mean, views
from kresnets.keras_hooks.graph import layers_in_order
from kresnets.preprocess import Preprocessing, imagenet_names, preprocessing_for, preprocessing_of
from kresnets.task import Scores, scores_of


@dataclasses.dataclass(frozen=True)
class Classifier:
    """A Keras model and all that lies between the bytes of a file and a label.

    Its functions take and give tensors and run eagerly too, which is how `kresnets predict` answers from a run.

    Args:
        max_pixels: how many pixels an image file may unpack to, by its header.
        tta: over which views of an image the answer is the mean, see `kresnets.export.views`.
    """

    model: keras.Model
    labels: tuple[str, ...]
    preprocessing: Preprocessing
    top: int
    scores: Scores
    feature_layer: keras.layers.Layer
    max_pixels: int = MAX_PIXELS
    tta: str = "none"

    @classmethod
    def of(cls, model, labels=None, preprocess=None, top=5, max_pixels=MAX_PIXELS, task=None, tta="none"):
        """Check the arguments of `export_saved_model` and bind them."""
        if tta not in VIEWS:
            raise ValueError(f"`tta` must be one of {', '.join(map(repr, VIEWS))}. Received: tta={tta!r}")
        _check_model(model)
        preprocessing = preprocessing_for(model, preprocess)
        _check_size(model, preprocessing)
        decoding = preprocessing.decoding or Decoding()
        if model.input_shape[3] != decoding.channels:
            decoding = dataclasses.replace(decoding, channels=model.input_shape[3], padding=None)
            preprocessing = dataclasses.replace(preprocessing, decoding=decoding)
        scores = scores_of(model, task)
        classes = scores.classes
        for name, value in (("top", top), ("max_pixels", max_pixels)):
            if not is_whole(value, 1):
                raise ValueError(f"`{name}` must be an int of at least 1. Received: {name}={value!r}")
        if max_pixels > tf.int64.max:
            raise ValueError(f"`max_pixels` must be below 2**63. Received: max_pixels={max_pixels}")
        side = model.input_shape[1] or preprocessing.size
        if max_pixels < side * side:
            raise ValueError(
                f"`max_pixels` must be at least the {side * side:,} pixels that the model itself takes. Received: "
                f"max_pixels={max_pixels}"
            )
        return cls(
            model=model,
            labels=_labels(model, classes) if labels is None else _checked_labels(labels, classes),
            preprocessing=preprocessing,
            top=min(top, classes),
            scores=scores,
            feature_layer=_feature_layer(model),
            max_pixels=max_pixels,
            tta=tta,
        )

    @property
    def size(self):
        """Side of the images in pixels: the model's own, or that of its weights where the model leaves it free."""
        return self.model.input_shape[1] or self.preprocessing.size

    @property
    def decoding(self):
        """How files become pixels."""
        return self.preprocessing.decoding or Decoding()

    @property
    def shape(self):
        """`(size, size, channels)` of an image."""
        return self.size, self.size, self.model.input_shape[3]

    def computing_in(self, dtype="float32", fold=True):
        """Return the same classifier on a copy of the model made for answering; see `export_saved_model`.

        A model that cannot be copied answers as it is, with a warning, unless bfloat16 is asked for.
        """
        if not isinstance(dtype, str) or dtype not in DTYPES:  # tf.bfloat16 equals its name, and is none
            raise ValueError(f"`dtype` must be {' or '.join(map(repr, DTYPES))}. Received: dtype={dtype!r}")
        steps = [in_float32] * in_half(self.model) + [fold_batchnorms] * bool(fold)
        served = self
        try:
            for step in steps:
                served = served._on(step(served.model))
        except ValueError as error:
            if dtype == "bfloat16":
                raise
            warnings.warn(f"The model is served as it is, its batch norms not folded: {error}", stacklevel=3)
        return served._on(in_bfloat16(served.model, served.feature_layer)) if dtype == "bfloat16" else served

    def _on(self, model):
        return dataclasses.replace(self, model=model, feature_layer=_feature_layer(model))

    def image(self, image_bytes):
        """Return the pixels that a file becomes, as in training."""
        how = self.preprocessing
        return load_image(image_bytes, self.size, how.crop, decoding=how.decoding)

    def serving_default(self, image_bytes):
        """Map the bytes of image files, `(batch,)`, to labels, scores and valid; or to values and valid."""
        return self.signatures(self.network, arrays=self.shape[2] != 3).serving_default(image_bytes)

    def signatures(self, network, arrays=False):
        """Return what a server answers by a network, a function such as this classifier's own."""
        return Signatures(
            network, self.labels, self.top, self.size, self.preprocessing, self.max_pixels, self.scores.numbers, arrays
        )

    def network(self, images):
        """Map images 0..255, `(batch, size, size, channels)`, to `probabilities` and the `features` they come from."""
        with _recorded(self.feature_layer) as calls:
            outputs = self.outputs(views(images, self.tta))
        inputs, features = calls[-1]
        features = inputs if isinstance(self.feature_layer, keras.layers.Dense) else features
        return {
            "probabilities": mean(self.scores.probabilities(outputs), self.tta),
            # Of the image as it is, which comes first.
            "features": tf.cast(features[: tf.shape(images)[0]], tf.float32),
        }

    def outputs(self, images):
        """Map RGB images 0..255 to the model's own outputs."""
        # oneDNN's convolution gives an empty batch the wrong shape: such a batch is computed with one black row.
        count = tf.shape(images)[0]
        images = tf.pad(images, [[0, tf.cast(count == 0, tf.int32)], [0, 0], [0, 0], [0, 0]])
        return self.raw_outputs(images)[:count]

    def raw_outputs(self, images):
        """Map RGB images 0..255, at least one, to the model's own outputs."""
        return self.model(self.preprocessing(images, "channels_last"), training=False)


def _check_model(model):
    if keras.config.backend() != "tensorflow":
        raise RuntimeError(
            f"A SavedModel is written with the TensorFlow backend only, this process runs {keras.config.backend()!r}: "
            "save the model as .keras and export it with KERAS_BACKEND=tensorflow."
        )
    if not isinstance(model, keras.Sequential) and not hasattr(model, "operations"):
        raise ValueError(
            f"Only Functional and Sequential Keras models can be exported. Received: {type(model).__name__}; build one "
            "with keras.Model(inputs, outputs)."
        )
    if not model.built or len(model.inputs) != 1 or len(model.outputs) != 1:
        raise ValueError("The model must have one input of a known shape and one output: build it with `input_shape`.")
    if any(getattr(layer, "quantization_mode", None) for layer in layers_in_order(model)):
        raise ValueError(
            "The model was quantized by Keras, which cannot be served: export it as it was before `model.quantize`, "
            "and for 8 bits use export_file(..., format='litert-int8')."
        )
    if not isinstance(model, keras.Sequential) and isinstance(model.output, dict):
        raise ValueError(
            f"The model must give one vector per image, not a dict of {', '.join(map(repr, model.output))}: build it "
            "with keras.Model(inputs, output)."
        )
    if len(model.output_shape) != 2 or model.output_shape[-1] is None:
        raise ValueError(f"The model must give one vector per image. Received: output shape {model.output_shape}.")
    for variable in model.variables:
        if keras.backend.is_float_dtype(variable.dtype) and not np.all(np.isfinite(variable.numpy())):
            raise ValueError(f"The weights {variable.path!r} hold NaN or infinite values: this model cannot be served.")


def _check_size(model, preprocessing):
    shape = model.input_shape
    square = len(shape) == 4 and (shape[1] or preprocessing.size) is not None and shape[1] == shape[2]
    if not square or shape[3] not in CHANNELS:
        raise ValueError(
            "Only models of square images of one size and 1 to 8 channels, channels last, can be exported. Received: "
            f"input shape {shape}; build the model with an `input_shape` like (224, 224, 3)."
        )


def _labels(model, classes):
    """Name the classes where nobody did: ImageNet's for its published weights, else their indices."""
    carried = preprocessing_of(model)
    head = next((layer for layer in model.layers if layer.name == "head_dense"), None)
    if classes == 1000 and head is not None and carried is not None and carried.size:  # the size is of weights alone
        try:
            return tuple(imagenet_names())
        except RuntimeError as error:
            warnings.warn(f"The classes are served by their indices, or pass `labels`: {error}", stacklevel=4)
    return tuple(str(index) for index in range(classes))


def _checked_labels(labels, classes):
    # Of a set or a dict nobody knows whether its order is that of the outputs.
    ordered = np.iterable(labels) and not isinstance(labels, (str, bytes, set, frozenset, dict))
    names = list(labels) if ordered else []
    if not ordered or not all(isinstance(label, str) and label for label in names):
        raise ValueError(
            "`labels` must be a sequence of non-empty names, one for each class in the order of the outputs. "
            f"Received: {names or labels!r}"
        )
    for name in names:
        if not is_unicode(name):
            raise ValueError(f"`labels` must be text that UTF-8 can hold. Received: {name!r}")
    labels = names
    if len(labels) != classes:
        raise ValueError(f"The model has {classes} classes and `labels` names {len(labels)}: give one name for each.")
    if len(set(labels)) < classes:
        twice = next(name for name in labels if labels.count(name) > 1)
        raise ValueError(f"`labels` has {twice!r} twice, which no client could tell apart: rename one of them.")
    return tuple(labels)


def _feature_layer(model):
    """Return the layer whose input (Dense) or output (global pooling) is the image's features."""
    layers = list(layers_in_order(model))
    weighted = [layer for layer in layers if layer.weights and not isinstance(layer, keras.Model)]
    if weighted and isinstance(weighted[-1], keras.layers.Dense):
        return weighted[-1]
    pooling = [layer for layer in layers if re.fullmatch("Global(Average|Max)Pooling2D", type(layer).__name__)]
    if not pooling:
        raise ValueError(
            "The model ends neither in a Dense layer nor in global pooling, so there are no features to serve: use one."
        )
    return pooling[-1]


@contextlib.contextmanager
def _recorded(layer):
    """Keep what a layer takes and gives while the model is called.

    A new Keras model up to the layer would not do: the tensors within a nested model are not those of the outer one.
    """
    calls = []
    call = layer.call

    def recording_call(inputs, *args, **kwargs):
        outputs = call(inputs, *args, **kwargs)
        calls.append((inputs, outputs))
        return outputs

    layer.call = recording_call
    try:
        yield calls
    finally:
        del layer.call  # what remains is the method of the class
