"""The cells in which a default recipe is chosen and judged: a task and a number of images, drawn by the seed."""

import contextlib
import dataclasses
import functools
import gc
import os

import numpy as np

from kresnets.data.split import take

VALIDATION = 0.15  # of the images that a user has, as apps/finetune.py parts them
_TEST = 1000  # of CIFAR-10's 10,000
CIFAR = "cifar10"


@dataclasses.dataclass(frozen=True)
class Cell:
    """A task at one number of images.

    Args:
        target: `"cifar10"`, or a key of `targets.TARGETS`.
        n: images in all that a user has, those to validate by included.
        size: pixels a side.
    """

    target: str
    n: int
    size: int


# What a recipe is chosen by, the two small ones first; then what it is judged by, once, after the choice.
CHOOSE = (Cell("elpv/poly", 100, 128), Cell(CIFAR, 100, 96), Cell("elpv/poly", 400, 128), Cell(CIFAR, 2000, 96))
JUDGE = (
    Cell("elpv/mono", 75, 128),
    Cell("elpv/mono", 250, 128),
    Cell("elpv/mono", 806, 128),
    Cell(CIFAR, 400, 96),
    Cell("digits", 100, 96),
)
QUICK = (Cell("digits", 60, 32), Cell("faces", 40, 32))
# A network whose trunk is taught here, on CIFAR-10, and where it is carried.
PUPIL = "ResNet18DThin"
TAUGHT = (Cell("elpv/mono", 75, 128), Cell("elpv/mono", 250, 128))
TEACHING = {"size": 48, "epochs": 6, "rate": 3e-3, "augment": "light"}


@dataclasses.dataclass(frozen=True, eq=False)
class Pictures:
    """A cell's images as one seed draws them: uint8 RGB `(n, size, size, 3)`, and int64 labels `(n,)`."""

    classes: int
    train: np.ndarray
    train_labels: np.ndarray
    validation: np.ndarray
    validation_labels: np.ndarray
    test: np.ndarray
    test_labels: np.ndarray

    @property
    def majority(self):
        """The share of the largest class among the test images, 0..1."""
        return float(np.bincount(self.test_labels).max() / len(self.test_labels))


def learning(n):
    """Return how many of a user's `n` images are left to learn from.

    Example:
        >>> learning(75)
        64
    """
    return n - int(VALIDATION * n + 0.5)


@functools.lru_cache(maxsize=2)
def draw(cell, seed, judged):
    """Draw a cell's images: the same test images for each seed, the user's other ones.

    Args:
        cell: a `Cell`.
        seed: of the draw, from 0.
        judged: whether a recipe is judged by them. CIFAR-10's images are then others than those it is chosen by, to
            learn from and to test; of the other tasks none is in both phases.

    Returns:
        `Pictures`, the classes in proportion in each part.
    """
    labels, test_labels = _labels(cell.target, judged)
    order = np.random.default_rng((seed, int(judged))).permutation(len(labels))
    chosen = take(order.tolist(), labels.tolist(), cell.n)
    again = np.random.default_rng((seed, cell.n)).permutation(chosen)
    validation = take(again.tolist(), labels.tolist(), cell.n - learning(cell.n))
    train = np.setdiff1d(chosen, validation)
    read = functools.partial(_images, cell.target, cell.size, judged)
    return Pictures(
        int(labels.max()) + 1,
        read("rest", train),
        labels[train],
        read("rest", np.array(validation)),
        labels[validation],
        read("test", np.arange(len(test_labels))),
        test_labels,
    )


def _labels(task, judged):
    if task == CIFAR:
        _, labels, _, test_labels = _cifar(judged)
        return labels, test_labels
    drawn = _target(task, 32)  # at any size
    return np.concatenate([drawn.train_labels, drawn.validation_labels]), drawn.test_labels


def _images(task, size, judged, part, rows):
    if task == CIFAR:
        from PIL import Image

        images = _cifar(judged)[0 if part == "rest" else 2][rows]
        return np.stack([np.asarray(Image.fromarray(image).resize((size, size))) for image in images])
    drawn = _target(task, size)
    return (np.concatenate([drawn.train, drawn.validation]) if part == "rest" else drawn.test)[rows]


@functools.lru_cache(maxsize=4)
def _target(task, size):
    from _claims import targets

    return targets.target(task, size, None, seed=0)


@functools.lru_cache(maxsize=1)
def _cifar_whole():
    from _claims.cifar10 import cifar10

    return cifar10()


def _cifar(judged):
    """Return a half of CIFAR-10: images to learn from and labels, test images and labels."""
    images, labels, test, test_labels = _cifar_whole()
    half = slice(len(labels) // 2) if judged else slice(len(labels) // 2, None)
    tested = slice(_TEST) if judged else slice(_TEST, 2 * _TEST)
    return images[half], labels[half], test[tested], test_labels[tested]


@contextlib.contextmanager
def policy(name):
    """Begin anew under a dtype policy of Keras, for a while."""
    import keras

    before = keras.mixed_precision.dtype_policy()
    # What earlier runs of this process traced would fill the memory. It forgets the policy too, so first.
    keras.backend.clear_session()
    gc.collect()
    keras.mixed_precision.set_dtype_policy(name)
    try:
        yield
    finally:
        keras.mixed_precision.set_dtype_policy(before)


def network(setting, classes, kept):
    """Return the network of a setting with a new head.

    Args:
        setting: with `network`, `trunk` (`"open_nsfw"`, `"cifar10"`: taught here, `"none"`), `size` and `seed`.
        classes: number of its outputs.
        kept: folder in which a taught trunk is kept.
    """
    import keras

    import kresnets

    keras.utils.set_random_seed(setting["seed"])
    shape = (setting["size"], setting["size"], 3)
    weights = {"none": None, CIFAR: None}.get(setting["trunk"], setting["trunk"])
    if setting["trunk"] == CIFAR:
        weights = str(_taught(setting, kept))
    return kresnets.build(_row(setting["network"]), input_shape=shape, classes=classes, weights=weights)


def _row(name):
    import kresnets

    if name == PUPIL:
        row = kresnets.SPECS["ResNet18D"]
        return dataclasses.replace(row, widths=(32, 64, 128, 256), stem_width=32, params=None)
    return kresnets.SPECS[name]


def lesson(dtype):
    """Return the setting in which the trunk is taught that the judged cells carry too."""
    return {"task": "teach", "network": PUPIL, "trunk": "none", "dtype": dtype, "seed": 0} | {
        f"taught_{name}": value for name, value in TEACHING.items()
    }


def teach(setting, kept):
    """Teach the trunk, and measure how good it is, with its own head, on test images of CIFAR-10."""
    path = _file(setting, kept)
    images, labels, test, test_labels = _cifar_whole()
    at = {"network": setting["network"], "size": setting["taught_size"], "seed": setting["seed"]}
    if not path.exists():
        _learn(setting, at, path, images, labels)
    model = network({**at, "trunk": "none"}, 10, kept)
    model.load_weights(path)
    scores = outputs(asker(model), prepared(model, _resized(test[:_TEST], at["size"])))
    return [measured(scores, test_labels[:_TEST])]


def _learn(setting, at, path, images, labels):
    import kresnets

    model = network({**at, "trunk": "none"}, 10, path.parent)
    recipe = dataclasses.replace(
        kresnets.Recipe.from_scratch(setting["taught_epochs"], setting["taught_rate"], seed=setting["seed"]),
        augment=setting["taught_augment"],
    )
    kresnets.fine_tune(model, (_resized(images, at["size"]), labels), recipe=recipe, verbose=0)
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".tmp-{os.getpid()}-{path.name}")
    try:
        model.save_weights(beside)
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)


def _resized(images, size):
    from PIL import Image

    return np.stack([np.asarray(Image.fromarray(image).resize((size, size))) for image in images])


def _file(setting, kept):
    from _claims import runner

    return kept / f"trunk-{runner.key(setting)}.weights.h5"


def _taught(setting, kept):
    path = _file(lesson(setting["dtype"]), kept)
    if not path.exists():
        raise ValueError(f"{path} is not there, though its lesson is done: remove that run, and it is taught again.")
    return path


def prepared(model, images):
    """Return images 0..255 as the model wants them, float32."""
    import kresnets

    preprocess = kresnets.preprocessing_of(model) or kresnets.preprocess_input
    return preprocess(np.float32(images))


def outputs(ask, images):
    """Return what a network gives for prepared images, float64 `(n, outputs)`.

    Args:
        ask: an `asker`.
        images: float32 `(n, size, size, 3)`.
    """
    # All batches are of one length, so that the network is traced once; the last one overlaps the one before.
    batch = min(64, len(images))
    starts = [min(start, len(images) - batch) for start in range(0, len(images), batch)]
    made = None
    for start in starts:
        found = ask(images[start : start + batch])
        made = np.empty((len(images), found.shape[-1])) if made is None else made
        made[start : start + batch] = found
    return made


def asker(model):
    """Return a function from prepared images to what a model gives in inference, which is traced once a batch size."""
    import tensorflow as tf

    traced = tf.function(lambda images: tf.cast(model(images, training=False), tf.float32), autograph=False)
    return lambda images: traced(tf.constant(images)).numpy()


def measured(scores, labels):
    """Return how good class probabilities are.

    Args:
        scores: probabilities `(n, classes)`.
        labels: integers `(n,)`.

    Returns:
        Dict of `test_accuracy`, `test_auc` (two classes; else the mean of one against the rest) and
        `test_balanced_accuracy`, each 0..1.
    """
    from sklearn.metrics import balanced_accuracy_score, roc_auc_score

    scores = np.nan_to_num(np.asarray(scores, "float64"))
    scores /= np.maximum(scores.sum(1, keepdims=True), 1e-12)
    if scores.shape[1] == 2:
        auc = roc_auc_score(labels, scores[:, 1])
    else:
        scores[scores.sum(1) == 0] = 1 / scores.shape[1]  # no numbers any more
        auc = roc_auc_score(labels, scores, multi_class="ovr")
    return {
        "test_accuracy": float(np.mean(scores.argmax(1) == labels)),
        "test_auc": float(auc),
        "test_balanced_accuracy": float(balanced_accuracy_score(labels, scores.argmax(1))),
    }
