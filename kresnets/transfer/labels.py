"""What the labels of a model are, and the loss that goes with them: cross-entropy, of classes or of each label, or the
distance of numbers."""

import dataclasses
from typing import Any

import keras
import numpy as np

from kresnets.keras_hooks.graph import last_activation
from kresnets.task import Scores, check_softmax, check_task, scores_of, task_of


@dataclasses.dataclass(frozen=True)
class Labels:
    """What the labels of a source are to a model, and what the model is trained on.

    They come as whole numbers `(batch,)` or `(batch, 1)`, the class of each image (bool and float ones too), or as rows
    `(batch, classes)` of numbers 0..1: one-hot, smoothed or mixed ones of classes, which sum to 1, or a 1 for each
    label that an image has; or as numbers `(batch,)` or `(batch, numbers)`.

    Args:
        scores: how the model's outputs are read, see `kresnets.task.Scores`.
        given: whether they come as rows.
        rows: whether the model is trained on rows; else on whole numbers, or, with one output, on a column of 0..1.
        scale: of numbers, how much each of them varies, by which the loss divides it.
    """

    scores: Scores
    given: bool = False
    rows: bool = False
    scale: tuple[float, ...] = ()

    @classmethod
    def of(cls, model: keras.Model, labels: Any = None, task: str = "auto", loss: Any = None) -> "Labels":
        """Find out what labels are to a model.

        Args:
            model: a Keras model from images to scores.
            labels: what `first_labels` gives of a source; None for whole numbers. Defaults to None.
            task: `"classes"`, `"labels"`, `"numbers"`, or `"auto"` to tell by the model's end, what it carries, and
                the labels. Defaults to `"auto"`.
            loss: the user's own, which may take what none of ours would. Defaults to None.

        Raises:
            ValueError: where the task stays open, or does not go with the model or its labels.
        """
        check_task(task)
        if task == "numbers" or task == "auto" and task_of(model) == "numbers":
            last = model.layers[-1]
            scale = last.scale if isinstance(last, keras.layers.Rescaling) else 1.0
            scores = scores_of(model, "numbers")
            return cls(scores, given=True, rows=True, scale=tuple(np.broadcast_to(scale, scores.units).tolist()))
        activation = _squashing(model, ask=loss is None)
        if activation == "softmax" and loss is None:
            check_softmax(model, task)
        rows = _are_rows(labels)
        if task == "auto":
            task = _task(model, activation, labels if rows else None, loss)
        found = cls(Scores(task, model.output_shape[-1], activation), rows)
        return dataclasses.replace(found, rows=rows and found.scores.units > 1)

    @property
    def classes(self) -> int:
        """Number of classes, or of labels."""
        return self.scores.classes

    @property
    def kind(self) -> str:
        """The labels in words, of an error."""
        if self.scores.numbers:
            return f"{self.classes} number{'s' * (self.classes > 1)} an image, (n, {self.classes})"
        if self.scores.independent and not self.scores.two and self.classes > 1:
            return f"rows (n, {self.classes}) of a 1 for each label that an image has"
        return f"one integer label each (n,), or one-hot rows (n, {self.classes})"

    def as_rows(self) -> "Labels":
        """Return the same, trained on rows where the scores are several: for what blends or smooths them."""
        return dataclasses.replace(self, rows=self.scores.numbers or self.scores.units > 1)

    def like(self, labels: Any) -> "Labels":
        """Return what the labels of another source are, which may come in the other form, for the same training."""
        if self.scores.numbers:
            return self
        return dataclasses.replace(self, given=_are_rows(labels))

    def check(self, labels: Any, argument: str = "") -> None:
        """Raise a ValueError where labels in numpy are none of these.

        Args:
            labels: array.
            argument: what they belong to, for the sentence. Defaults to none.
        """
        labels, what = np.asarray(labels), argument and f"{argument}: "
        if not labels.size:
            return
        numeric = labels.dtype == bool or np.issubdtype(labels.dtype, np.number)
        self.check_shape(labels.shape, what)
        if self.scores.numbers:
            if not numeric or not np.isfinite(labels).all():
                raise ValueError(f"{what}{_FINITE}")
            return
        if self.given:
            good = numeric and np.isfinite(labels).all() and labels.min() >= 0 and labels.max() <= 1
            if not good or self._sums and np.abs(labels.sum(axis=1, dtype="float64") - 1).max() > _OFF:
                raise ValueError(f"{what}{self._row_sentence}")
            return
        sentence = _ALLOWED.format(self._highest, self.classes)
        if not numeric:
            raise ValueError(f"{what}{sentence} Received: {labels.dtype} such as {labels.ravel()[0]!r}")
        if not 0 <= labels.min() <= labels.max() <= self._highest:
            raise ValueError(f"{what}{sentence} Received: {labels.min()} to {labels.max()}")
        if np.issubdtype(labels.dtype, np.floating) and np.any(labels != np.round(labels)):
            raise ValueError(f"{what}{sentence} Received: {labels[labels != np.round(labels)][0]}")

    def check_shape(self, shape: tuple[int, ...], what: str = "") -> None:
        """Raise a ValueError where labels of a shape are none of these."""
        if not self._fits(shape):
            raise ValueError(f"{what}labels must be {self.kind}. Received shape: {shape}")

    def __call__(self, labels: Any) -> Any:
        """Return a batch of labels as the model is trained on them; raise where one is none. (JAX would take a class
        that is none for a loss of 0.)"""
        if self.scores.numbers:
            return self._checked_numbers(labels)
        if isinstance(labels, np.ndarray):
            self.check(labels)
            labels = labels.astype("int32") if labels.dtype == bool else labels
            if self.given:
                labels = labels.astype("float32")
                return labels if self.rows else labels[:, 1:] if self._column else labels.argmax(-1)
            if self._column:
                return labels.astype("float32").reshape(-1, 1)
            return np.eye(self.classes, dtype="float32")[labels.astype("int64").reshape(-1)] if self.rows else labels
        import tensorflow as tf

        labels = tf.convert_to_tensor(labels)
        labels = tf.cast(labels, tf.int32) if labels.dtype == tf.bool else labels
        if self.given:
            labels = tf.cast(tf.ensure_shape(labels, (None, self.classes)), tf.float32)
            fits = tf.reduce_all((labels >= 0) & (labels <= 1))
            if self._sums:
                fits &= tf.reduce_all(tf.abs(tf.reduce_sum(labels, axis=1) - 1) <= _OFF)
            sentence = self._row_sentence
        else:
            fits = (tf.cast(tf.reduce_max(labels), tf.int64) <= self._highest) & (tf.reduce_min(labels) >= 0)
            if labels.dtype.is_floating:
                fits &= tf.reduce_all(labels == tf.round(labels))
            sentence = _ALLOWED.format(self._highest, self.classes)
        with tf.control_dependencies([tf.debugging.Assert(fits, [sentence])]):
            labels = tf.identity(labels)
        if self.given:
            return labels if self.rows else labels[:, 1:] if self._column else tf.argmax(labels, -1)
        if self._column:
            return tf.cast(tf.reshape(labels, (-1, 1)), tf.float32)
        return tf.one_hot(tf.reshape(labels, (-1,)), self.classes) if self.rows else labels

    def _checked_numbers(self, labels):
        if isinstance(labels, np.ndarray):
            self.check(labels)
            return labels.astype("float32").reshape(-1, self.classes)
        import tensorflow as tf

        labels = tf.reshape(tf.cast(labels, tf.float32), (-1, self.classes))
        with tf.control_dependencies([tf.debugging.assert_all_finite(labels, _FINITE)]):
            return tf.identity(labels)

    def numbers(self, labels: Any) -> Any:
        """Return the class of each image, integers `(n,)`, of labels in any of these forms; the likeliest of soft
        ones."""
        labels = np.asarray(labels)
        return labels.argmax(-1) if _are_rows(labels) else np.round(labels.reshape(-1)).astype("int64")

    def loss(self, label_smoothing: float = 0.0, of_numbers: str = "mse") -> keras.Loss:
        """Return the Keras loss: on probabilities or on logits, whichever the model gives; of numbers `"mse"`, `"mae"`
        or `"huber"`, each in units of how much it varies."""
        if self.scores.numbers:
            return Standardized(of_numbers, self.scale)
        from_logits = self.scores.activation == "linear"
        if self.scores.independent:
            return keras.losses.BinaryCrossentropy(from_logits=from_logits, label_smoothing=label_smoothing)
        if self.rows:
            return keras.losses.CategoricalCrossentropy(from_logits=from_logits, label_smoothing=label_smoothing)
        return keras.losses.SparseCategoricalCrossentropy(from_logits=from_logits)

    def metrics(self, monitor: str = "val_loss") -> list[Any]:
        """Return the accuracy; of labels the share of them that are answered right, as Keras has it; of numbers the
        mean absolute error, in their own units. And what is monitored, where that is another one."""
        wanted = monitor.removeprefix("val_")
        if self.scores.numbers:
            return ["mae"]
        more = [Watched(wanted, **dataclasses.asdict(self.scores))] if wanted in WATCHED else []
        if not self.scores.independent:
            return ["accuracy", *more]
        return [LabelAccuracy("accuracy", threshold=0.0 if self.scores.activation == "linear" else 0.5), *more]

    @property
    def _column(self):
        return self.scores.units == 1

    @property
    def _highest(self):
        return 1 if self._column else self.classes - 1

    @property
    def _sums(self):
        return self.scores.task == "classes"

    def _fits(self, shape):
        if self.scores.numbers:
            return len(shape) == 2 and shape[1] == self.classes or len(shape) == 1 and self.classes == 1
        if self.given:
            return len(shape) == 2 and shape[1] == self.classes
        return (self.scores.task == "classes" or self._column) and (len(shape) == 1 or tuple(shape[1:]) == (1,))

    @property
    def _row_sentence(self):
        if not self._sums:
            return f"Labels in rows must be numbers 0 to 1, {self.classes} an image: a 1 for each label that it has."
        return (
            f"Labels in rows must be numbers 0 to 1 that sum to 1, {self.classes} an image; where an image may have "
            "several labels, or none, give task='labels'."
        )


LOSSES = ("mse", "mae", "huber")  # of numbers
_FINITE = "Labels must be finite numbers, of task='numbers'; leave out images without, or mend them."
_OFF = 0.01  # of a row's sum: half precision has three digits
_ALLOWED = (
    "Labels must be whole numbers 0 to {} for a model of {} classes; mend the labels, or build the model "
    "with more classes."
)


@keras.saving.register_keras_serializable(package="kresnets")
class Standardized(keras.losses.Loss):
    """A loss of numbers in units of how much each of them varies, so that dollars and millimetres learn alike.

    Args:
        kind: `"mse"`, `"mae"` or `"huber"` (linear beyond one such unit).
        scale: a number above 0 for each output.
        **kwargs: those of `keras.losses.Loss`.

    Example:
        >>> from kresnets.transfer.labels import Standardized
        >>> float(Standardized("mae", (10.0,))([[5.0]], [[25.0]]))
        2.0
    """

    def __init__(self, kind, scale, name="standardized", **kwargs):
        super().__init__(name=name, **kwargs)
        self.kind, self.scale = kind, tuple(scale)

    def call(self, y_true, y_pred):
        # By a product: what is rounded to bfloat16 must be small already.
        inverse = 1.0 / np.asarray(self.scale, "float32")
        loss = getattr(
            keras.losses, {"mse": "mean_squared_error", "mae": "mean_absolute_error"}.get(self.kind, self.kind)
        )
        return loss(y_true * inverse, y_pred * inverse)

    def get_config(self):
        return super().get_config() | {"kind": self.kind, "scale": list(self.scale)}


@keras.saving.register_keras_serializable(package="kresnets")
class LabelAccuracy(keras.metrics.BinaryAccuracy):
    """Keras's binary accuracy, of labels that may be blended or smoothed: each counts as the nearer of 0 and 1.

    Example:
        >>> from kresnets.transfer.labels import LabelAccuracy
        >>> float(LabelAccuracy()([[0.9], [0.1]], [[0.7], [0.6]]))
        0.5
    """

    def update_state(self, y_true, y_pred, sample_weight=None):
        super().update_state(keras.ops.round(y_true), y_pred, sample_weight)


WATCHED = ("auc", "f1", "mAP")
_BINS, _REACH = 4096, 16.0  # of logits, beyond which float32 knows no probability


@keras.saving.register_keras_serializable(package="kresnets")
class Watched(keras.metrics.Metric):
    """Measure probabilities over a whole epoch, whatever the labels and outputs of a model look like.

    As scikit-learn has it, to the width of a bin: Keras's areas have thresholds evenly over 0..1, between which all
    that is very sure or very unsure lies in one. Here the bins are even in the logit. Classes that no image has are
    left out.

    Args:
        kind: `"auc"` (area under the ROC; of more than two classes the mean of one against the rest), `"f1"` (mean over
            classes; of several labels at 0.5) or `"mAP"` (average precision, the mean over classes).
        task, units, activation: those of `kresnets.task.Scores`.
        name: Defaults to the kind.
        **kwargs: those of `keras.metrics.Metric`.

    Example:
        >>> from kresnets.transfer.labels import Watched
        >>> float(Watched("auc", "classes", 2, "softmax")([0, 1, 1], [[0.9, 0.1], [0.2, 0.8], [0.6, 0.4]]))
        1.0
    """

    def __init__(self, kind, task, units, activation, name=None, **kwargs):
        super().__init__(name=name or kind, **kwargs)
        self._kind, self._scores = kind, Scores(task, units, activation)
        classes = self._scores.classes
        # Of two classes the second alone tells.
        self._second = classes == 2 and task == "classes" and kind != "f1"
        self._bins = 2 if kind == "f1" else _BINS  # said, or not
        shape = (1 if self._second else classes, self._bins)
        self._with, self._without = (
            self.add_variable(shape, "zeros", name=f"{part}_it") for part in ("with", "without")
        )

    def update_state(self, y_true, y_pred, sample_weight=None):
        ops, classes = keras.ops, self._scores.classes
        chances = self._scores.probabilities(y_pred)
        y_true = ops.cast(y_true, "float32")
        if len(y_true.shape) < 2 or y_true.shape[-1] == 1 < classes:
            y_true = ops.one_hot(ops.cast(ops.reshape(y_true, (-1,)), "int32"), classes)
        y_true = ops.round(y_true)
        if self._kind == "f1":
            said = ops.one_hot(ops.argmax(chances, -1), classes)
            places = ops.cast(chances > 0.5 if self._scores.task == "labels" else said > 0.5, "int32")
        else:
            logits = ops.log(ops.maximum(chances, 1e-30)) - ops.log(ops.maximum(1.0 - chances, 1e-30))
            places = ops.cast(ops.clip((logits / _REACH + 1.0) / 2.0, 0.0, 1.0) * (self._bins - 1) + 0.5, "int32")
        if self._second:
            y_true, places = y_true[:, 1:], places[:, 1:]
        count = places.shape[1]
        rows = ops.reshape(places + self._bins * ops.arange(count, dtype="int32"), (-1,))
        weight = 1.0 if sample_weight is None else ops.reshape(ops.cast(sample_weight, "float32"), (-1, 1))
        for variable, which in ((self._with, y_true), (self._without, 1.0 - y_true)):
            added = ops.segment_sum(ops.reshape(which * weight, (-1,)), rows, num_segments=count * self._bins)
            variable.assign_add(ops.reshape(added, (count, self._bins)))

    def result(self):
        ops = keras.ops
        having, others = ops.convert_to_tensor(self._with), ops.convert_to_tensor(self._without)
        total, rest = ops.sum(having, 1), ops.sum(others, 1)
        least = lambda value: ops.maximum(value, 1e-12)
        if self._kind == "f1":
            values = 2 * having[:, 1] / least(total + having[:, 1] + others[:, 1])
            known = total > 0
        elif self._kind == "auc":
            above = rest[:, None] - ops.cumsum(others, 1)  # of the others, those that are higher
            values = 1 - ops.sum(having * (above + others / 2), 1) / least(total * rest)
            known = (total > 0) & (rest > 0)
        else:
            found, taken = (ops.flip(ops.cumsum(ops.flip(x, 1), 1), 1) for x in (having, having + others))
            values = ops.sum(having * found / least(taken), 1) / least(total)
            known = total > 0
        known = ops.cast(known, "float32")
        return ops.sum(values * known) / least(ops.sum(known))

    def get_config(self):
        return super().get_config() | {"kind": self._kind, **dataclasses.asdict(self._scores)}


def first_labels(source: Any) -> Any:
    """Return the labels of arrays, or those of the first batch; None of a `tf.data.Dataset` whose are whole numbers by
    their shape."""
    if isinstance(source, tuple):
        return np.asarray(source[1]) if len(source) > 1 else None
    if isinstance(source, keras.utils.PyDataset):
        return np.asarray(source[0][1])
    if not hasattr(source, "element_spec"):  # nothing that could be trained on
        return None
    known = source.element_spec[1].shape
    if known.rank == 1 or known.rank == 2 and known[1] == 1:
        return None
    return next((np.asarray(labels) for _, labels, *_ in source.take(1)), None)


def _are_rows(labels):
    return labels is not None and labels.ndim == 2 and labels.shape[1] > 1


def _task(model, activation, rows, loss):
    """Return the task of a model by what can be known: its end, what it carries, the labels in rows if they are."""
    units = model.output_shape[-1]
    if activation == "softmax" or rows is None and units > 1:
        return "classes"
    if carried := task_of(model):
        return carried
    if activation == "sigmoid":
        return "classes" if units == 1 else "labels"
    if rows is not None:
        return "classes" if np.allclose(rows.sum(axis=1, dtype="float64"), 1, atol=_OFF) else "labels"
    if loss is not None:
        return "classes"
    raise ValueError(
        f"{model.name!r} has 1 output without a sigmoid, which may mean anything: end it with a sigmoid, give "
        "task='classes' if that output's sigmoid is the chance of the second of two classes, or pass your own `loss`."
    )


def _squashing(model, ask=True):
    """Return `"softmax"`, `"sigmoid"` or `"linear"`: what a model's scores have been through, however it says it.

    Where its end does not tell (an operation of one's own), images of noise do, some of them far from any image: who
    gives probabilities gives rows of 0..1 that sum to 1, and logits do not stay within 0..1. What stays there and does
    not sum to 1 may be sigmoids, or similarities.

    Raises:
        ValueError: where that stays open, and `ask`.
    """
    activation = last_activation(model)
    if activation in ("softmax", "sigmoid", "linear"):
        return activation
    shape = [side or 64 for side in model.input_shape[1:]]
    count = model.input_shape[0] or 4
    noise = np.random.default_rng(0).uniform(-1, 1, (2, count, *shape)).astype("float32")
    scores = np.stack([
        keras.ops.convert_to_numpy(keras.ops.cast(model(images, training=False), "float32"))
        for images in (noise[0], 1000 * noise[1])
    ])  # fmt: skip
    within = scores.min() >= 0 and scores.max() <= 1
    if within and scores.shape[-1] > 1 and np.allclose(scores.sum(axis=-1), 1, atol=1e-2):
        return "softmax"
    if within and ask:
        raise ValueError(
            f"{model.name!r} ends in {activation}, and its scores stay within 0..1: they may be sigmoids or not. End "
            "it with keras.layers.Activation('sigmoid') or a Softmax in place of that, or pass your own `loss`."
        )
    return "linear"
