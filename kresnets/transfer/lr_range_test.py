"""`find_learning_rate`: the learning-rate range test, on a copy."""

import contextlib
import dataclasses
import itertools
import math
import random
from typing import Any

import keras
import numpy as np

from kresnets._util.checks import is_number, is_whole
from kresnets._util.types import Array, Dataset, PathLike, Patterns
from kresnets.callbacks import LayerwiseLearningRate
from kresnets.groups import layout
from kresnets.keras_hooks import optimizer as optimizer_hooks
from kresnets.networks.copying import copy_flags
from kresnets.preprocess import preprocessing_for
from kresnets.transfer.checks import check_pixels
from kresnets.transfer.inputs import BATCH_SIZE, is_dataset, rows_of
from kresnets.transfer.labels import Labels, first_labels
from kresnets.transfer.recipe import optimizer_class

_LEAST = 10  # steps from which a rate can be read off


@dataclasses.dataclass(frozen=True)
class RangeTest:
    """Hold what `find_learning_rate` found.

    Args:
        rates: learning rate of each step taken.
        losses: loss of each step's batch, before the step.
        smoothed: their exponential moving average.
        diverged: whether the test stopped before `end`.
        suggestions: `{"steepest": rate, "valley": rate}`, see `find_learning_rate`.

    Example:
        >>> import numpy as np
        >>> from kresnets.transfer.lr_range_test import suggest
        >>> rates = np.geomspace(1e-6, 1, 61)
        >>> {rule: round(rate, 4) for rule, rate in suggest(rates, 1 - np.exp(-((np.log10(rates) + 2) ** 2))).items()}
        {'steepest': 0.0016, 'valley': 0.0001}
    """

    rates: np.ndarray
    losses: np.ndarray
    smoothed: np.ndarray
    diverged: bool
    suggestions: dict[str, float | None]

    def plot(self, path: PathLike, choice: str = "valley") -> None:
        """Draw loss against rate with the suggestions marked, the chosen one in full, as a PNG file at `path`."""
        from kresnets.report.rate import range_test

        if choice not in self.suggestions:
            raise ValueError(f"`choice` must be one of {', '.join(self.suggestions)}. Received: choice={choice!r}")
        range_test(self.rates, self.losses, self.smoothed, self.suggestions, choice, path)


def find_learning_rate(
    model: keras.Model,
    train: Dataset,
    *,
    optimizer: Any = None,
    loss: Any = None,
    preprocess: Any = None,
    ratios: Any = None,
    groups: Patterns = None,
    start: float = 1e-6,
    end: float = 10.0,
    steps: int = 100,
    smoothing: float = 0.98,
    stop: float = 4.0,
) -> "RangeTest":
    """Find a learning rate for what trains now: the range test (arXiv 1506.01186 section 3.3, as fastai runs it).

    Trains a copy of the model for `steps` batches, at rates that rise from `start` to `end` by the same factor each,
    and watches the loss. The model, its optimizer and its random state stay bit-equal whatever happens; the copy
    takes as much memory once more.

    Args:
        model: a Functional or Sequential Keras model, its `trainable` flags as they will be (`kresnets.freeze`).
        train: batches `(images, labels)` or `(images, labels, weights)` as a `tf.data.Dataset` or
            `keras.utils.PyDataset`, or arrays (32 a batch, shuffled). Where they are fewer than `steps` they come
            again.
        optimizer: name of a Keras optimizer, or one, of which a copy is used. Defaults to None, a copy of the
            compiled one, with its state.
        loss: a Keras loss. Defaults to None, the compiled one; for a model that is not compiled, the cross-entropy that
            `fine_tune` would take.
        preprocess: None for batches as `model.fit` takes them; for RGB images 0..255 as `fine_tune` takes them, True
            (what the model's weights want), a mode or a `kresnets.Preprocessing`. Defaults to None.
        ratios: as in `LayerwiseLearningRate`, for the rate of the head where other groups will learn at other rates.
            Defaults to None, one rate.
        groups: for `ratios` and models that are not of kresnets, an ordered dict `{group: regex}`. Defaults to None.
        start: lowest rate, above 0. Defaults to 1e-6.
        end: highest rate, above `start`. Defaults to 10.
        steps: whole number from 20. Defaults to 100.
        smoothing: weight of the past in the moving average of the loss (its start corrected), 0 <= smoothing < 1.
            Defaults to 0.98.
        stop: the test ends when the smoothed loss is above `stop` times its least, above 1. Defaults to 4.

    Returns:
        A `RangeTest` with `rates`, `losses`, `smoothed`, `suggestions` and `plot(path)`. `suggestions["steepest"]` is
        the rate at which the smoothed loss falls fastest over the logarithm of the rate; `["valley"]` the one in the
        middle of the longest descent, as many steps long as the longest falling subsequence of the smoothed loss
        (`steep` and `valley` of fastai/callback/schedule.py). The first tenth of the steps and the last five count
        for neither.

    Raises:
        ValueError: for arguments out of their range, a model that cannot be copied, has nothing to train or no loss,
            and where the loss is not finite, or diverges, before a rate can be read off.

    Example:
        >>> import kresnets, numpy as np
        >>> model = kresnets.freeze(kresnets.CifarResNet20(classes=2), through="stage3")
        >>> model.compile("sgd", "sparse_categorical_crossentropy")
        >>> images, labels = np.random.default_rng(0).normal(size=(64, 32, 32, 3)), np.arange(64) % 2
        >>> found = kresnets.find_learning_rate(model, (images, labels), end=0.1, steps=20)
        >>> sorted(found.suggestions)
        ['steepest', 'valley']
    """
    _check_numbers(start, end, steps, smoothing, stop)
    preprocessing = None if preprocess is None else preprocessing_for(model, None if preprocess is True else preprocess)
    with _same_random_state(), optimizer_hooks.scope(model):
        copy = _copy(model, optimizer, loss, start, train)
        if ratios is not None:
            _scale(copy, ratios, groups)
        batches = _batches(train, preprocessing)
        rates = np.geomspace(start, end, steps)
        losses, smoothed = _climb(copy, batches, rates, smoothing, stop)
    rates = rates[: len(losses)]
    if len(losses) < steps // 10 + 5 + _LEAST:
        raise ValueError(
            f"The loss diverged at rate {rates[-1] if len(rates) else start:.1e} after {len(losses)} steps, too early "
            f"to read a rate off: give more `steps` than {steps}, or a lower `start` than {start:g}."
        )
    kept = slice(steps // 10, -5)
    return RangeTest(rates, losses, smoothed, len(losses) < steps, suggest(rates[kept], smoothed[kept]))


def suggest(rates: Array, losses: Array) -> dict[str, float | None]:
    """Return `{"steepest": rate, "valley": rate}` for rising rates and smoothed losses; see `find_learning_rate`."""
    slopes = np.diff(losses) / np.diff(np.log(rates))
    steps = [1] * len(losses)  # of the longest falling subsequence that ends at each point
    for i, loss in enumerate(losses):
        steps[i] += max((steps[j] for j in range(i) if losses[j] > loss), default=0)
    end, length = int(np.argmax(steps)), max(steps)
    valley = max(0, end - length) + int(length / 3) + int(length / 6)
    return {"steepest": float(rates[int(np.argmin(slopes))]), "valley": float(rates[valley])}


def _check_numbers(start, end, steps, smoothing, stop):
    rules = (
        ("start", start, is_number(start) and start > 0, "a number above 0"),
        ("end", end, is_number(end) and is_number(start) and end > start, f"a number above `start`, {start}"),
        ("steps", steps, is_whole(steps, 20), "a whole number from 20"),
        ("smoothing", smoothing, is_number(smoothing) and 0 <= smoothing < 1, "from 0 to below 1"),
        ("stop", stop, is_number(stop) and stop > 1, "a number above 1"),
    )
    for name, value, fits, allowed in rules:
        if not fits:
            raise ValueError(f"find_learning_rate: `{name}` must be {allowed}. Received: {name}={value!r}")


@contextlib.contextmanager
def _same_random_state():
    # Layers draw their seeds from Python when they are made, and the copy's are made here.
    python, numpy = random.getstate(), np.random.get_state()
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)


def _copy(model, optimizer, loss, rate, train):
    """Return a compiled copy with the same weights, flags, seeds and, where it takes over the optimizer, its state."""
    if not isinstance(getattr(model, "inputs", None), list):
        raise ValueError(
            "find_learning_rate takes a Functional or Sequential Keras model that has been built. Received: "
            f"{type(model).__name__}"
        )
    if not model.trainable_variables:
        raise ValueError(f"{model.name!r} has nothing that trains: unfreeze something (kresnets.freeze) first.")
    copy = keras.models.clone_model(model)
    copy_flags(model, copy)
    described = [[(v.name, tuple(v.shape), v.trainable) for v in one.variables] for one in (model, copy)]
    if described[0] != described[1]:
        raise ValueError(
            f"{model.name!r} cannot be copied: keras.models.clone_model gives another set of variables (a layer whose "
            "get_config does not say all, or one used in two places?)."
        )
    for one, other in zip(model.variables, copy.variables):
        other.assign(np.array(one.numpy()))
    compiled = getattr(model, "compiled", False)
    source = _chosen(optimizer, model)
    copy.compile(
        optimizer_hooks.fresh_copy(source, rate),
        _loss(model, loss, train),
        run_eagerly=bool(compiled and model.run_eagerly),
    )
    optimizer_hooks.leave_out_alike(source, copy.optimizer, list(zip(copy.variables, model.variables)))
    copy.optimizer.build(copy.trainable_variables)
    if source is getattr(model, "optimizer", None) and source.built:
        optimizer_hooks.put_back(copy, optimizer_hooks.capture(model))
    return copy


def _chosen(optimizer, model):
    if optimizer is None:
        optimizer = getattr(model, "optimizer", None)
        if optimizer is None:
            raise ValueError(f"{model.name!r} is not compiled: give `optimizer`, such as 'adamw', or compile it first.")
    if isinstance(optimizer, str):
        if optimizer_class(optimizer) is None:
            raise ValueError(
                f"`optimizer` must be a Keras optimizer or its name such as 'adamw'. Received: {optimizer!r}"
            )
        optimizer = optimizer_class(optimizer)()
    optimizer_hooks.check_supported(optimizer)
    return optimizer


def _loss(model, loss, train):
    if loss is not None:
        return loss
    if getattr(model, "compiled", False):
        if model.loss is None:
            raise ValueError(f"{model.name!r} was compiled without a loss: give `loss`.")
        return model.loss
    return Labels.of(model, first_labels(tuple(train) if isinstance(train, list) else train)).loss()


def _scale(copy, ratios, groups):
    model_layout = layout(copy, groups)
    ratio_of = LayerwiseLearningRate(ratios, groups).ratio_by_group(model_layout.names)
    variables = [
        (variable, ratio_of[name])
        for name, layers in model_layout.groups().items()
        for layer in layers
        for variable in layer.variables
    ]
    optimizer_hooks.scale_updates(copy.optimizer, variables)


def _batches(source, preprocessing):
    """Yield `(images, labels)` or `(images, labels, weights)`, from the beginning again at the end."""
    looked = preprocessing is None or rows_of(source) is not None
    for batch in _cycle(source):
        if not isinstance(batch, (tuple, list)) or len(batch) not in (2, 3):
            raise ValueError(f"`train` must give batches (images, labels). Received: {type(batch).__name__}")
        images, *others = batch if keras.backend.backend() == "tensorflow" else map(np.asarray, batch)
        if not looked:
            check_pixels([np.asarray(images)], "`train`", preprocessing)
            looked = True
        yield (images if preprocessing is None else preprocessing(images, "channels_last"), *others)


def _cycle(source):
    if isinstance(source, (tuple, list)) and len(source) in (2, 3) and all(hasattr(part, "shape") for part in source):
        lengths = [len(part) for part in source]
        if len(set(lengths)) != 1 or not lengths[0]:
            raise ValueError(f"`train`: the arrays must be of one length, above 0. Received lengths: {lengths}")
        rng = np.random.default_rng(0)
        while True:
            order = rng.permutation(lengths[0])
            for first in range(0, lengths[0], BATCH_SIZE):
                # sorted: h5py takes nothing else
                yield tuple(np.asarray(part[np.sort(order[first : first + BATCH_SIZE])]) for part in source)
    elif is_dataset(source) or isinstance(source, keras.utils.PyDataset):
        while True:
            count = 0
            for count, batch in enumerate(_one_pass(source), start=1):  # noqa: B007, it is looked at below
                yield batch
            if not count:
                raise ValueError("`train` has no batches: is the dataset empty?")
    else:
        raise ValueError(
            "`train` must be a tf.data.Dataset or keras.utils.PyDataset of batches (images, labels), or a pair of "
            f"arrays. Received: {type(source).__name__}"
        )


def _one_pass(source):
    if is_dataset(source):
        return iter(source)
    endless = source.num_batches is None
    return (source[index] for index in (itertools.count() if endless else range(source.num_batches)))


def _climb(copy, batches, rates, smoothing, stop):
    """Train one batch a rate until the loss diverges; return the losses and their moving average."""
    losses, smoothed, average, least = [], [], 0.0, math.inf
    for rate, (images, labels, *weights) in zip(rates, batches):
        copy.optimizer.learning_rate = rate
        copy.reset_metrics()
        loss = float(copy.train_on_batch(images, labels, *weights, return_dict=True)["loss"])
        if not math.isfinite(loss):
            break
        average = smoothing * average + (1 - smoothing) * loss
        losses.append(loss)
        smoothed.append(average / (1 - smoothing ** len(losses)))
        least = min(least, smoothed[-1])
        if smoothed[-1] > stop * least > 0:
            break
    return np.array(losses), np.array(smoothed)
