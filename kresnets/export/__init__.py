"""A Keras classifier as a SavedModel that TF Serving serves: bytes of image files in, labels out.

Decoding, resizing and preprocessing are inside, by the very functions that training uses.
"""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import keras

from kresnets._util.types import PathLike
from kresnets.data.check import MAX_PIXELS
from kresnets.export.calibrated import with_temperature
from kresnets.export.card import checked, read_card, write_card
from kresnets.export.classifier import Classifier
from kresnets.export.formats import FORMATS, export_file
from kresnets.export.saved import save
from kresnets.export.verification import read_images, verify
from kresnets.export.versions import folder_beside, folder_of_versions, publish, writing
from kresnets.export.warmup import write_warmup

__all__ = ["FORMATS", "Classifier", "export_file", "export_saved_model", "read_card", "with_temperature"]


def export_saved_model(
    model: keras.Model,
    path: PathLike,
    labels: Sequence[str] | None = None,
    preprocess: Any = None,
    top: int = 5,
    dtype: str = "float32",
    fold: bool = True,
    max_pixels: int = MAX_PIXELS,
    card: Mapping[str, Any] | None = None,
    verify_on: Sequence[Any] = (),
    task: str | None = None,
    tta: str = "none",
) -> pathlib.Path:
    """Write a classifier as a new version of a SavedModel for TF Serving.

    The version folder appears in one step, after the written model was loaded again and found to answer as the Keras
    model does in float32 (probabilities to 1e-4; 2e-2 in bfloat16): a server that polls never sees half a version, two
    exporters never get the same number, and whatever fails leaves nothing behind.

    The SavedModel needs neither Keras nor kresnets. Its signatures, all with a free batch dimension:

    - `serving_default`: `image_bytes` (string `(batch,)`, each the content of a JPEG, PNG, GIF or BMP file) ->
      `labels` (string `(batch, top)`), `scores` (float32 `(batch, top)`, falling) and `valid` (bool `(batch,)`). Bytes
      that are no image, or one of more than `max_pixels`, get `valid` false, labels "" and scores 0, and leave the rest
      of the batch alone.
    - `classify`: `inputs` (string `(batch,)`, each a serialized tf.Example with the file in `image/encoded`) ->
      `classes` and `scores`, as `labels` and `scores` above: TF Serving's Classify API.
    - `predict_tensor`: `images` (float32 `(batch, size, size, channels)`, RGB 0..255) -> `probabilities` (float32
      `(batch, classes)`). Of 2, or more than 4, channels a server decodes no file: this is `serving_default` then.
    - `features`: `images` -> `features` (float32): what the last Dense layer takes, usually the pooled output of the
      trunk; without a Dense layer at the end, the output of the last global pooling layer.

    The weights are constants of the graph, once for all signatures (above 1 GB variables beside it, which is slower).
    `assets.extra/tf_serving_warmup_requests` has a server trace the graph for batches of 1, 8 and 32 before it answers
    the first request; it is written where `tensorflow-serving-api` is installed (`pip install kresnets[serving]`).
    `assets/model_card.json` says what the version is; `kresnets.export.read_card` reads it.

    Args:
        model: a Functional or Sequential Keras model (TensorFlow backend, channels last) from square images, RGB or of
            1 to 8 channels, preprocessed, to one vector per image. Its last activation decides what is served: softmax
            and sigmoid outputs as they are, a linear output (logits) through the softmax or sigmoid of its task. One
            output becomes two classes, the one it speaks for being the second.
        path: folder of the model, the parent of the versions: `saved_models/name`. Created where missing.
        labels: sequence of str, the name of each class in the order of the outputs, each its own.
            Defaults to None: ImageNet's names for the 1000 classes of its published weights (fetched once, checked by
            their hash; with a warning their indices where that fails), else the indices `"0"`, `"1"`, ...
        preprocess: `"caffe"`, `"tf"`, `"torch"`, `"none"`, a `Preprocessing`, or None for what the model carries
            (`preprocessing_of`). Where the model carries another one, a warning names both and yours is served.
            Defaults to None.
        top: int >= 1, labels and scores per image, cut to the number of classes. Defaults to 5.
        dtype: what the graph computes in, whatever the model was trained in: `"float32"`, or `"bfloat16"`, which is
            faster where the server's processor has it and slower where it has not. Inputs, outputs and the layers from
            the last Dense or global pooling on are float32 in either. Layers of your own stay in the dtype they have.
            Defaults to `"float32"`.
        fold: bool, put batch norms into the convolutions before them: the same numbers from less work. Defaults to
            True.
        max_pixels: int, how many pixels an image file may unpack to, by its header (a few kB can claim gigabytes); at
            least as many as the model takes. Defaults to 50 million: about 200 MB, for progressive JPEGs 550 MB, while
            it is decoded.
        card: dict for the model card of what only you know: `network` (defaults to the model's name), `weights`,
            `licence`, `data`, `metrics`, and whatever else JSON can hold. Defaults to None.
        verify_on: sequence of image files, paths or bytes, that the written model and the Keras model are both asked
            before the version appears; the largest difference goes into the card. Defaults to none.
        task: what scores without a softmax mean: `"classes"` (an image is of one) or `"labels"` (it has each or not;
            `scores` are then each label's own probability). Defaults to None: what `fine_tune` has the model carry
            (`kresnets.task_of`), else several sigmoids are labels; logits that carry none are refused.
        tta: test-time augmentation, within the graph: `"flip"` answers by the mean over the image and its mirror image
            (twice the work), `"crops"` over it, its centre and corners at 7/8 of the sides, and the mirror images of
            all (12 times). Defaults to `"none"`.

    Returns:
        pathlib.Path of the version folder, `path/<version>`, one above the highest that is there.

    Raises:
        ValueError: for a path, a model, labels, a preprocessing, `top`, `dtype`, `max_pixels`, `card` or images
            that cannot be served.
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
    place, card_fields = folder_of_versions(path), checked(card)
    bound = Classifier.of(model, labels, preprocess, top, max_pixels, task, tta)
    images = read_images(verify_on, bound)
    classifier = bound.computing_in("float32", fold=False)
    served = classifier.computing_in(dtype, fold)
    with folder_beside(place) as folder:
        with writing(place):
            save(served, folder)
            if classifier.decoding.from_bytes:
                write_warmup(folder, place.name, classifier.size)
        verified = verify(folder, classifier, dtype, images)
        with writing(place):
            write_card(folder, classifier, served, dtype, card_fields, verified)
            return publish(folder, place)
