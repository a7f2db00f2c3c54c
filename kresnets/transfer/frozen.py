"""What can be told from what the pretrained trunk made of the images before it learned from them.

Logistic regression on these features takes seconds where a training takes minutes, and it never saw the labels that it
is asked about: each image is judged by a fit on the other folds.
"""

import dataclasses
import functools

import numpy as np

from kresnets.groups import layout
from kresnets.preprocess import Preprocessing
from kresnets.transfer.head import below_head, features_of, regression

FOLDS = 5
MOST = 5000  # images that are looked at
_TO_CHOOSE = 1000  # of them, by which the strength of the regression is chosen
STRENGTHS = (1e-4, 1e-3, 1e-2, 1e-1)


@dataclasses.dataclass(eq=False)
class Frozen:
    """Images as the trunk of a run saw them at first.

    Args:
        features: float array `(images, d)`.
        labels: integers `(images,)`.
        parts: which part each is of: `"train"`, `"validation"` or `"test"`.
        rows: integers `(images,)`, its row there.
        groups: integers `(images,)`, equal for images that must stay in one fold.
    """

    features: np.ndarray
    labels: np.ndarray
    parts: np.ndarray
    rows: np.ndarray
    groups: np.ndarray

    def of(self, *names):
        """Return the images of some parts."""
        mine = np.isin(self.parts, names)
        return Frozen(*(getattr(self, field.name)[mine] for field in dataclasses.fields(self)))

    @functools.cached_property
    def strength(self):
        """C of the regression, chosen on some of the images."""
        some = np.random.default_rng(0).permutation(len(self.labels))[:_TO_CHOOSE]
        return regression(self.features[some], self.labels[some], self.labels.max() + 1, strengths=STRENGTHS)[2]

    def folds(self, seed=0):
        """Return pairs of rows to learn from and rows to judge, stratified; no group is in both."""
        from sklearn.model_selection import StratifiedGroupKFold

        count = min(FOLDS, np.bincount(self.labels).min())
        if count < 2:
            return []
        made = StratifiedGroupKFold(int(count), shuffle=True, random_state=seed)
        return list(made.split(self.features, self.labels, self.groups))

    def chances(self, learn, judged):
        """Return the probabilities, `(judged, classes)`, of a fit on some rows for others."""
        from scipy.special import softmax

        classes = int(self.labels.max()) + 1
        kernel, bias, _ = regression(self.features[learn], self.labels[learn], classes, strengths=(self.strength,))
        return softmax(self.features[judged] @ kernel + bias, axis=1)

    def out_of_fold(self):
        """Return the probabilities of each image by a fit on the other folds, or None where a class has too few."""
        found = np.full((len(self.labels), int(self.labels.max()) + 1), np.nan)
        for learn, judged in self.folds():
            found[judged] = self.chances(learn, judged)
        return None if np.isnan(found).any() else found


def frozen(model, config, data):
    """Return the `Frozen` images of a run by a model whose trunk is as it was when the run began; None where its head
    is no plain Dense layer.

    Args:
        model: a Keras model.
        config: what the run's config.json holds.
        data: `kresnets.data.Data`.
    """
    below = below_head(model, layout(model))
    if below is None:
        return None
    preprocessing = Preprocessing.of_data(config["preprocess"])
    parts = {"train": data.train, "validation": data.validation, "test": data.test}
    total, found, names = sum(map(len, parts.values())), [], {}
    for name, part in parts.items():
        rows = np.arange(len(part))
        if total > MOST:
            share = max(1, MOST * len(part) // total)
            rows = np.sort(np.random.default_rng(0).permutation(rows)[:share])
            part = part.subset(rows)
        drawn = part.arrays(config["size"], preprocessing.crop)
        batches = ((preprocessing(images, "channels_last"), labels) for images, labels in drawn)
        features, labels, _ = features_of(below, batches)
        groups = [names.setdefault(group, len(names)) for group in part.groups or [(name, row) for row in rows]]
        found.append((features, labels, np.full(len(rows), name), rows, np.array(groups)))
    return Frozen(*map(np.concatenate, zip(*found)))
