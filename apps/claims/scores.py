"""How good a network is that ends in class probabilities."""

import numpy as np
import tensorflow as tf
from sklearn.metrics import balanced_accuracy_score, roc_auc_score

import kresnets


def prepared(model, images):
    """Return images 0..255 as the model wants them, float32."""
    return (kresnets.preprocessing_of(model) or kresnets.preprocess_input)(np.float32(images))


def asker(model):
    """Return a function from prepared images to what a model gives in inference, which is traced once a batch size."""
    traced = tf.function(lambda images: tf.cast(model(images, training=False), tf.float32), autograph=False)
    return lambda images: traced(tf.constant(images)).numpy()


def outputs(ask, images):
    """Return what an `asker` gives for prepared images, float64 `(n, outputs)`."""
    # All batches are of one length, so that the network is traced once; the last one overlaps the one before.
    batch = min(64, len(images))
    made = None
    for start in (min(start, len(images) - batch) for start in range(0, len(images), batch)):
        found = ask(images[start : start + batch])
        made = np.empty((len(images), found.shape[-1])) if made is None else made
        made[start : start + batch] = found
    return made


def untraced(model, images):
    """Return what a model gives for images 0..255, for one that is asked once or twice only."""
    return outputs(lambda part: np.asarray(model(part, training=False)), prepared(model, images))


def measured(scores, labels):
    """Return how good class probabilities `(n, classes)` are: dict of `test_accuracy`, `test_auc` (two classes; else
    the mean of one against the rest) and `test_balanced_accuracy`, each 0..1."""
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
