"""How good a network is that ends in class probabilities."""

import numpy as np
from sklearn.metrics import balanced_accuracy_score, roc_auc_score

import kresnets

_BATCH = 64


def outputs(model, images):
    """Return what a model gives for images 0..255 in inference, float64 `(n, outputs)`."""
    # Not traced: networks are asked a few times only, and tracing takes longer.
    images = (kresnets.preprocessing_of(model) or kresnets.preprocess_input)(np.float32(images))
    parts = (images[start : start + _BATCH] for start in range(0, len(images), _BATCH))
    return np.concatenate([np.asarray(model(part, training=False)) for part in parts]).astype("float64")


def judged(model, images, labels):
    """Return `measured` of what a model gives for images 0..255."""
    return measured(outputs(model, images), labels)


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
    found = np.mean(scores.argmax(1) == labels), auc, balanced_accuracy_score(labels, scores.argmax(1))
    return dict(zip(("test_accuracy", "test_auc", "test_balanced_accuracy"), map(float, found)))
