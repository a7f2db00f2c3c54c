"""A head that is solved instead of trained: logistic regression on what the trunk makes of the images.

Fine-tuning that begins from a fitted head distorts the trunk less (LP-FT, arXiv 2202.10054 section 3); a regression
fits it in seconds, without a rate, and chooses by folds how strongly to hold it back.
"""

import warnings

import keras
import numpy as np

from kresnets.freezing import set_trainable
from kresnets.keras_hooks.graph import with_inner
from kresnets.transfer.cache import cut as cutting

STRENGTHS = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1)  # of C, scikit-learn's inverse of the penalty
MOST_IMAGES = 20_000  # beyond which steps are cheaper than a solution, and a penalty matters less
_FOLDS = 5


def solvable(model, model_layout):
    """Return the Dense layer that is all of a model's head, or None where the head is something else, or the model
    trains under a `keras.distribution`.

    Args:
        model: a Keras model from images to class scores.
        model_layout: its `kresnets.groups.Layout`.
    """
    if keras.distribution.distribution() is not None:  # of features each process would see only its share
        return None
    last, head = model.layers[-1], len(model_layout.names) - 1
    weighted = [layer for place, layer in model_layout.places if place[0] == head and layer.weights]
    plain = type(last) is keras.layers.Dense and last.use_bias and len(last.kernel.shape) == 2
    squashing = keras.activations.sigmoid if plain and last.units == 1 else keras.activations.softmax
    fits = plain and weighted == [last] and last.activation in (squashing, keras.activations.linear)
    return last if fits and _below(model, model_layout, last) is not None else None


def _below(model, model_layout, dense):
    """Return the part of a model that gives what enters its head, where nothing that is random, but for dropout, stands
    between; else None."""
    flags = [(layer, layer.trainable) for layer in with_inner(model)]
    try:
        set_trainable(model, model_layout, lambda place: place[0] == len(model_layout.names) - 1, "frozen")
        graph = cutting.open_graph(model)
        below, above = cutting.models_around(graph, cutting.find_cut(graph))
    except cutting.CannotCache:
        return None
    finally:
        for layer, flag in flags:  # the outer ones first: setting a model sets what it holds
            layer.trainable = flag
    between = [
        layer for layer in above.layers if not isinstance(layer, (keras.layers.InputLayer, keras.layers.Dropout))
    ]
    return below if between == [dense] else None


def solve(model, model_layout, batches, as_numbers, class_weight=None):
    """Give a model's head the logistic regression on the features of some images.

    Args:
        model: a Keras model whose head is `solvable`.
        model_layout: its `kresnets.groups.Layout`.
        batches: iterable of `(images, labels)` or `(images, labels, weights)` as the model takes them.
        as_numbers: function from labels in any form to the class of each image.
        class_weight: dict class -> weight, as in `model.fit`. Defaults to None.

    Returns:
        `(strength, loss)`: C, which the folds chose, and the loss of whoever knows nothing but how frequent each class
        is, which a training that begins here has to stay below; None for it where labels are soft.

    Raises:
        ValueError: for images that give no numbers, and for weights that are none.
    """
    dense = solvable(model, model_layout)
    features, given, weights = features_of(_below(model, model_layout, dense), batches)
    labels = as_numbers(given)
    if bad := np.flatnonzero(~np.isfinite(features).all(1)).size:
        raise ValueError(
            f"`train`: {bad} of {len(labels)} images give features that are no numbers (NaN or infinity): look for "
            "such pixels."
        )
    each = np.ones(len(labels)) if weights is None else weights
    if not (np.isfinite(each).all() and (each >= 0).all() and each.any()):
        raise ValueError("`train`: the weights of the images must be numbers from 0, and not all of them 0.")
    if class_weight is not None:
        each = each * np.array([class_weight.get(int(label), 1.0) for label in labels])
    kernel, bias, strength = regression(features, labels, max(2, dense.units), each)
    if dense.units == 1:  # the sigmoid of a difference is the softmax of two
        kernel, bias = kernel[:, 1:] - kernel[:, :1], bias[1:] - bias[:1]
    dense.kernel.assign(kernel.astype("float32"))
    dense.bias.assign(bias.astype("float32"))
    if not np.isin(given, (0, 1)).all() and given.ndim == 2:  # whose own entropy no training gets below
        return strength, None
    shares = np.bincount(labels, each) / each.sum()
    return strength, float(-np.sum(each * np.log(np.maximum(shares, 1e-12))[labels]) / len(labels))


def below_head(model, model_layout):
    """Return the model of what enters a head that is `solvable`, None where it is not.

    Args:
        model: a Keras model from images to class scores.
        model_layout: its `kresnets.groups.Layout`.
    """
    dense = solvable(model, model_layout)
    return None if dense is None else _below(model, model_layout, dense)


def features_of(below, batches):
    """Return what a model gives for batches as it takes them, float64 `(images, d)`, with their labels, and their
    weights or None.

    Args:
        below: a Keras model from images to one vector each.
        batches: iterable of `(images, labels)` or `(images, labels, weights)`.
    """
    size, found = None, []
    for images, labels, *weights in batches:
        images = np.asarray(images)
        size = size or len(images)
        # A smaller batch is filled up, so that nothing is traced anew for it.
        filled = (
            np.concatenate([images, np.repeat(images[-1:], size - len(images), axis=0)])
            if len(images) < size
            else images
        )
        outputs = np.asarray(keras.ops.convert_to_numpy(below.predict_on_batch(filled)), "float64")[: len(images)]
        found.append((outputs.reshape(len(outputs), -1), *map(np.asarray, (labels, *weights))))
    features, labels, *weights = (np.concatenate(parts) for parts in zip(*found, strict=True))
    return features, labels, weights[0].astype("float64").reshape(-1) if weights else None


def regression(features, labels, classes, weights=None, strengths=STRENGTHS):
    """Solve multinomial logistic regression on standardised features, its strength chosen by stratified folds.

    Args:
        features: array `(n, d)`.
        labels: integers `(n,)`, 0 to `classes - 1`; a class that none has gets a low bias.
        classes: number of classes.
        weights: array `(n,)` of the images' weights. Defaults to None, 1 each.
        strengths: values of C to choose from, by the log loss of 5 folds (fewer where a class has fewer images).

    Returns:
        `(kernel, bias, strength)`: `features @ kernel + bias` `(n, classes)` are logits whose softmax is
        scikit-learn's `predict_proba`.

    Example:
        >>> import numpy as np
        >>> from kresnets.transfer.head import regression
        >>> kernel, bias, _ = regression(np.array([[0.0], [0.1], [1.0], [1.1]]), np.array([0, 0, 1, 1]), 2)
        >>> (np.array([[0.0], [1.0]]) @ kernel + bias).argmax(1)
        array([0, 1])
    """
    from sklearn.model_selection import StratifiedKFold

    weights = np.ones(len(labels)) if weights is None else weights
    present = np.unique(labels)
    mean, scale = features.mean(0), features.std(0)
    scale[scale == 0] = 1.0
    plain = (features - mean) / scale
    # The penalty does not see a rotation, so that few images need no more dimensions than there are images.
    turn = np.linalg.svd(plain, full_matrices=False)[2].T if len(plain) < plain.shape[1] else np.eye(plain.shape[1])
    turned = plain @ turn
    kernel, bias = np.zeros((features.shape[1], classes)), np.full(classes, -20.0)
    strength = strengths[len(strengths) // 2]
    if len(present) == 1:  # nothing to tell apart
        bias[present] = 0.0
        return kernel, bias, strength
    folds = min(_FOLDS, np.bincount(labels)[present].min())
    if folds > 1 and len(strengths) > 1:
        losses = dict.fromkeys(sorted(strengths), 0.0)
        for learn, check in StratifiedKFold(folds, shuffle=True, random_state=0).split(turned, labels):
            for one in losses:
                chances = _fitted(one, turned[learn], labels[learn], weights[learn]).predict_proba(turned[check])
                right = chances[np.arange(len(check)), np.searchsorted(present, labels[check])]
                losses[one] -= (weights[check] * np.log(np.maximum(right, 1e-12))).sum()
        strength = min(losses, key=losses.get)
    found = _fitted(strength, turned, labels, weights, max_iter=2000, tol=1e-5)
    solved, shift = turn @ found.coef_.T, found.intercept_
    if solved.shape[1] == 1:  # of two classes scikit-learn gives the difference of the logits
        solved, shift = np.hstack([-solved / 2, solved / 2]), np.concatenate([-shift / 2, shift / 2])
    kernel[:, present] = solved / scale[:, None]
    bias[present] = shift - mean @ kernel[:, present]
    return kernel, bias, strength


def _fitted(strength, features, labels, weights, **options):
    from sklearn.linear_model import LogisticRegression

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that it stopped before the last digit
        return LogisticRegression(C=strength, **{"max_iter": 200} | options).fit(
            features, labels, sample_weight=weights
        )
