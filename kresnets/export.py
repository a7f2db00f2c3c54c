"""A Keras classifier as a SavedModel that TF Serving serves: bytes of image files in, labels out.

Decoding, resizing and preprocessing are inside, by the very functions that training uses.
"""

import contextlib
import dataclasses
import errno
import os
import pathlib
import re
import shutil
import socket
import time
import uuid

import keras
import numpy as np
import tensorflow as tf

from kresnets.data.images import load_image
from kresnets.preprocess import Preprocessing, resolve

_TEMPORARY = re.compile(r"\.tmp-(?P<host>.+)-(?P<pid>\d+)-[0-9a-f]+")
_ABANDONED_AFTER = 24 * 3600  # seconds; no export takes that long
_PYTHON_OPS = {"PyFunc", "PyFuncStateless", "EagerPyFunc"}


def export_saved_model(model, path, labels=None, preprocess=None, top=5):
    """Write a classifier as a new version of a SavedModel for TF Serving.

    The version folder appears in one step, after the written model was loaded again and found to answer as the Keras
    model does (probabilities to 1e-4; 2e-2 where layers compute in half precision): a server that polls never sees half
    a version, two exporters never get the same number, and whatever fails leaves nothing behind.

    The SavedModel needs neither Keras nor kresnets. Its signatures, all with a free batch dimension:

    - `serving_default`: `image_bytes` (string `(batch,)`, each the content of a JPEG, PNG, GIF or BMP file) ->
      `labels` (string `(batch, top)`), `scores` (float32 `(batch, top)`, falling) and `valid` (bool `(batch,)`). Bytes
      that are no image get `valid` false, labels "" and scores 0, and leave the rest of the batch alone.
    - `predict_tensor`: `images` (float32 `(batch, size, size, 3)`, RGB 0..255) -> `probabilities` (float32
      `(batch, classes)`).
    - `features`: `images` -> `features` (float32): what the last Dense layer takes, usually the pooled output of the
      trunk; without a Dense layer at the end, the output of the last global pooling layer.

    Args:
        model: a Functional or Sequential Keras model (TensorFlow backend, channels last) from square RGB images,
            preprocessed, to one vector per image. Its last activation decides what is served: softmax and sigmoid
            outputs as they are, a linear output (logits) through a softmax. One sigmoid unit becomes two classes, the
            one it speaks for being the second.
        path: folder of the model, the parent of the versions: `saved_models/name`. Created where missing.
        labels: sequence of str, the name of each class in the order of the outputs; two classes may share a name.
            Defaults to None: the indices `"0"`, `"1"`, ...
        preprocess: `"caffe"`, `"tf"`, `"torch"`, a `Preprocessing`, or None for what the model carries
            (`preprocessing_of`). Where the model carries another one, a warning names both and yours is served.
            Defaults to None.
        top: int >= 1, labels and scores per image, cut to the number of classes. Defaults to 5.

    Returns:
        pathlib.Path of the version folder, `path/<version>`, one above the highest that is there.

    Raises:
        ValueError: for a model, labels, a preprocessing or a `top` that cannot be served.
        OSError: when the folder cannot be written.
        RuntimeError: with another Keras backend, or when the written model answers differently.

    Example:
        >>> import keras, kresnets, tempfile
        >>> model = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.GlobalAveragePooling2D(),
        ...                           keras.layers.Dense(2, activation="softmax")])
        >>> folder = kresnets.export_saved_model(model, tempfile.mkdtemp(), labels=["cat", "dog"], preprocess="torch")
        >>> folder.name
        '1'
    """
    classifier = Classifier.of(model, labels, preprocess, top)
    path = pathlib.Path(path)
    with _folder_beside(path) as folder:
        with _writing(path):
            classifier.save(folder)
        _verify(folder, classifier)
        with _writing(path):
            return _publish(folder, path)


@dataclasses.dataclass(frozen=True)
class Classifier:
    """A Keras model and all that lies between the bytes of a file and a label: the functions the SavedModel holds.

    They take and give tensors and run eagerly too, which is how `apps/predict.py` answers from a run.
    """

    model: keras.Model
    labels: tuple
    preprocessing: Preprocessing
    top: int
    activation: str
    feature_layer: keras.layers.Layer

    @classmethod
    def of(cls, model, labels=None, preprocess=None, top=5):
        """Check the arguments of `export_saved_model` and bind them."""
        _check_model(model)
        preprocessing = resolve(model, preprocess)
        _check_size(model, preprocessing)
        activation = _last_activation(model)
        units = model.output_shape[-1]
        classes = 2 if units == 1 and activation == "sigmoid" else units
        if classes == 1:
            raise ValueError(
                f"The model has one output with a {activation} activation, which names no class: end it with "
                "Dense(1, activation='sigmoid') or Dense(2, activation='softmax')."
            )
        if isinstance(top, bool) or not isinstance(top, int) or top < 1:
            raise ValueError(f"`top` must be an int of at least 1. Received: top={top!r}")
        return cls(
            model=model,
            labels=_checked_labels(labels, classes),
            preprocessing=preprocessing,
            top=min(top, classes),
            activation=activation,
            feature_layer=_feature_layer(model),
        )

    @property
    def size(self):
        """Side of the images in pixels: the model's own, or that of its weights where the model leaves it free."""
        return self.model.input_shape[1] or self.preprocessing.size

    def serving_default(self, image_bytes):
        """Map the bytes of image files, `(batch,)`, to labels, scores and valid."""
        images, valid = self._load(image_bytes)
        scores, indices = tf.math.top_k(self.predict_tensor(images)["probabilities"], self.top)
        row = valid[:, tf.newaxis]
        return {
            "labels": tf.where(row, tf.gather(tf.constant(self.labels), indices), ""),
            "scores": tf.where(row, scores, 0.0),
            "valid": valid,
        }

    def predict_tensor(self, images):
        """Map RGB images 0..255, `(batch, size, size, 3)`, to the probability of each class."""
        return {"probabilities": self.probabilities(self._call(images))}

    def features(self, images):
        """Map RGB images 0..255, `(batch, size, size, 3)`, to what the classifying layer sees."""
        with _recorded(self.feature_layer) as calls:
            self._call(images)
        inputs, outputs = calls[-1]
        features = inputs if isinstance(self.feature_layer, keras.layers.Dense) else outputs
        return {"features": tf.cast(features[: tf.shape(images)[0]], tf.float32)}

    def probabilities(self, outputs):
        """Turn the model's own outputs into float32 probabilities, `(batch, classes)`."""
        outputs = tf.cast(outputs, tf.float32)
        if self.activation == "linear":
            outputs = tf.nn.softmax(outputs)
        return tf.concat([1.0 - outputs, outputs], axis=-1) if outputs.shape[-1] == 1 else outputs

    def save(self, folder):
        """Write the SavedModel into `folder`."""
        image_bytes = tf.TensorSpec((None,), tf.string, name="image_bytes")
        images = tf.TensorSpec((None, self.size, self.size, 3), tf.float32, name="images")
        archive = keras.export.ExportArchive()
        archive.add_endpoint("serving_default", self.serving_default, [image_bytes])
        archive.add_endpoint("predict_tensor", self.predict_tensor, [images])
        archive.add_endpoint("features", self.features, [images])
        archive.write_out(str(folder), verbose=False)

    def _call(self, images):
        # oneDNN's convolution gives an empty batch the wrong shape: such a batch is computed with one black row.
        count = tf.shape(images)[0]
        images = tf.pad(images, [[0, tf.cast(count == 0, tf.int32)], [0, 0], [0, 0], [0, 0]])
        inputs = self.preprocessing(images, "channels_last")
        return self.model(inputs, training=False)[:count]

    def _load(self, image_bytes):
        """Decode in parallel; a row that cannot be decoded stays black and is marked as not valid."""
        count = tf.size(image_bytes, out_type=tf.int64)
        shape = (self.size, self.size, 3)
        loaded = (
            tf.data.Dataset.from_tensor_slices((tf.range(count), image_bytes))
            .map(
                lambda row, data: (row, load_image(data, self.size, self.preprocessing.crop)),
                num_parallel_calls=tf.data.AUTOTUNE,
                deterministic=False,
            )
            .ignore_errors()
            # One row past the end, cut off below: a batch without any image must still give an element.
            .concatenate(tf.data.Dataset.from_tensors((count, tf.zeros(shape))))
        )
        # One batch put in place at once: to update the rows one by one would copy the whole batch for each.
        rows, images = loaded.batch(count + 1).get_single_element()
        images = tf.scatter_nd(rows[:, tf.newaxis], images, tf.stack([count + 1, *shape]))[:-1]
        valid = tf.scatter_nd(rows[:, tf.newaxis], tf.ones_like(rows), [count + 1])[:-1] > 0
        return tf.ensure_shape(images, (None, *shape)), valid


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
    if len(model.output_shape) != 2 or model.output_shape[-1] is None:
        raise ValueError(f"The model must give one vector per image. Received: output shape {model.output_shape}.")
    for variable in model.variables:
        if keras.backend.is_float_dtype(variable.dtype) and not np.all(np.isfinite(variable.numpy())):
            raise ValueError(f"The weights {variable.path!r} hold NaN or infinite values: this model cannot be served.")


def _check_size(model, preprocessing):
    shape = model.input_shape
    if len(shape) != 4 or (shape[1] or preprocessing.size) is None or shape[1] != shape[2] or shape[3] != 3:
        raise ValueError(
            "Only models of square RGB images of one size, channels last, can be exported. Received: input shape "
            f"{shape}; build the model with an `input_shape` like (224, 224, 3)."
        )


def _checked_labels(labels, classes):
    if labels is None:
        return tuple(str(index) for index in range(classes))
    labels = labels if isinstance(labels, str) else list(labels)
    if isinstance(labels, str) or not all(isinstance(label, str) and label for label in labels):
        raise ValueError(f"`labels` must be a sequence of non-empty names, one for each class. Received: {labels!r}")
    if len(labels) != classes:
        raise ValueError(f"The model has {classes} classes and `labels` names {len(labels)}: give one name for each.")
    return tuple(labels)


def _last_activation(model):
    """Return "softmax", "sigmoid" or "linear": how the model's outputs are to be read."""
    last = model
    while isinstance(last, keras.Model):
        # Sorted from input to output: with a single output, its operation is the last one.
        last = (getattr(last, "operations", None) or last.layers or [None])[-1]
    activation = getattr(last, "activation", last)  # a Softmax layer or operation is its own activation
    name = (getattr(activation, "__name__", None) or type(activation).__name__).lower()
    if name not in ("softmax", "sigmoid", "linear"):
        raise ValueError(
            f"The model ends in {getattr(last, 'name', last)!r} ({name}), which leaves open whether it gives "
            "probabilities: end it with a softmax, a sigmoid, or keras.layers.Activation('linear') for logits."
        )
    return name


def _feature_layer(model):
    """Return the layer whose input (Dense) or output (global pooling) is the image's features."""
    layers = list(model._flatten_layers(include_self=False))
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


def _verify(folder, classifier):
    """Load the written model and compare each signature with the Keras model on pictures of noise."""
    served = tf.saved_model.load(str(folder))
    _refuse_python_operations(served)
    size = classifier.size
    pixels = np.random.default_rng(0).integers(0, 256, (2, size, size, 3)).astype("uint8")
    pngs = [tf.io.encode_png(image) for image in pixels]
    images = tf.stack([load_image(png, size, classifier.preprocessing.crop) for png in pngs])
    outputs = classifier._call(images)
    _refuse_double_softmax(classifier, outputs)
    expected = classifier.probabilities(outputs)
    answer = served.signatures["serving_default"](image_bytes=tf.stack([pngs[0], b"no image", pngs[1]]))
    features = classifier.features(images)["features"]
    scale = tf.maximum(1.0, tf.reduce_max(tf.abs(features)))
    differences = {
        "predict_tensor": served.signatures["predict_tensor"](images=images)["probabilities"] - expected,
        "features": (served.signatures["features"](images=images)["features"] - features) / scale,
        "serving_default": tf.gather(answer["scores"], [0, 2]) - tf.math.top_k(expected, classifier.top).values,
    }
    half = any(layer.compute_dtype in ("bfloat16", "float16") for layer in classifier.model._flatten_layers())
    allowed = 2e-2 if half else 1e-4
    for name, difference in differences.items():
        largest = float(tf.reduce_max(tf.abs(difference)))
        if not largest <= allowed:  # also when it is NaN
            raise RuntimeError(
                f"The written model answers differently from the Keras model ({name}: by {largest:.2g}, allowed "
                f"{allowed:g}); nothing was exported."
            )
    if answer["valid"].numpy().tolist() != [True, False, True]:
        raise RuntimeError("The written model does not tell images from other bytes; nothing was exported.")


def _refuse_python_operations(served):
    for signature in served.signatures.values():
        graph = signature.graph.as_graph_def()
        nodes = [*graph.node, *(node for function in graph.library.function for node in function.node_def)]
        if found := sorted({node.op for node in nodes} & _PYTHON_OPS):
            raise ValueError(
                f"The model calls Python while it runs ({', '.join(found)}), which no server can: remove that layer."
            )


def _refuse_double_softmax(classifier, outputs):
    # An Activation("linear", dtype="float32") behind a softmax reads as logits but is none.
    outputs = tf.cast(outputs, tf.float32).numpy()
    if classifier.activation == "linear" and outputs.min() >= 0 and np.allclose(outputs.sum(axis=-1), 1, atol=1e-2):
        raise ValueError(
            "The model ends in a linear activation but gives probabilities already: end it with the softmax itself, "
            "for example keras.layers.Activation('softmax', dtype='float32')."
        )


@contextlib.contextmanager
def _writing(path):
    try:
        yield
    except (OSError, tf.errors.OpError) as error:
        reason = (getattr(error, "strerror", None) or getattr(error, "message", None) or str(error)).splitlines()[0]
        raise OSError(
            f"The SavedModel could not be written to {path} ({reason}): choose a folder that can be written and has "
            "room for it; nothing was left there."
        ) from error


@contextlib.contextmanager
def _folder_beside(path):
    """Make a folder in `path` that no server takes for a version; remove it, if it was not renamed, when done."""
    missing = [parent for parent in (path, *path.parents) if not parent.exists()]
    folder = path / f".tmp-{socket.gethostname()}-{os.getpid()}-{uuid.uuid4().hex}"
    try:
        with _writing(path):
            folder.mkdir(parents=True)
            _clear_litter(path)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        with contextlib.suppress(OSError):  # not empty: this export, or another at the same time, succeeded
            for parent in missing:
                parent.rmdir()


def _clear_litter(path):
    """Remove what killed exporters left: on this host by their process number, from other hosts by age."""
    for folder in path.glob(".tmp-*"):
        with contextlib.suppress(FileNotFoundError):  # its owner was faster
            owner = _TEMPORARY.fullmatch(folder.name)
            if owner and (_is_dead(owner) or time.time() - folder.stat().st_mtime > _ABANDONED_AFTER):
                shutil.rmtree(folder, ignore_errors=True)


def _is_dead(owner):
    try:
        os.kill(int(owner["pid"]), 0)
    except ProcessLookupError:
        return owner["host"] == socket.gethostname()
    except PermissionError:  # alive, but another user's
        pass
    return False


def _publish(folder, path):
    """Rename `folder` to the next free version; the rename itself is the claim on the number."""
    taken = [int(child.name) for child in path.iterdir() if re.fullmatch("[0-9]+", child.name)]
    version = max(taken, default=0) + 1
    while True:
        try:
            os.rename(folder, path / str(version))  # fails where another exporter's folder, never empty, already is
            return path / str(version)
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
                raise
            version += 1
