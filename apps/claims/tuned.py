"""Fine-tune a network by the fields of a setting, and judge all weights that it might keep."""

import keras
import numpy as np

import kresnets
from claims import cells, peers, ways
from claims.keeps import ALL, PLAIN, Record, set_momentum
from kresnets.data.augment import augmentation
from kresnets.keras_hooks.optimizer import learning_rate, ratio_of

_FIELDS = (
    "head_epochs stages epochs_per_stage learning_rate trunk_learning_rate ratio batchnorm optimizer weight_decay "
    "schedule warmup augment label_smoothing mixup"
).split()


def recipe_of(setting):
    """Return the `kresnets.Recipe` of a setting, all that its numbers depend on written out."""
    rest = {"views": 1, "ema": None, "advance": "epochs", "restore_best": False, "ramp": 0.0, "keep": "last"}
    given = {name: setting[name] for name in _FIELDS if name in setting}
    return kresnets.Recipe(**given | rest | {"seed": setting["seed"], "head": "trained"})


def tuned(model, setting, pictures):
    """Fine-tune, and return a row for each kept weights."""
    found = {}
    if setting["head"] == "solved":
        change, views = augmentation(setting["augment"], setting["seed"]), setting.get("head_views", 1)
        changed = [np.asarray(change(pictures.train, -view)) for view in range(1, views)]
        labels = np.tile(pictures.train_labels, views)
        found["strength"] = peers.solved_head(model, np.concatenate([pictures.train, *changed]), labels)
    if setting["trunk"] != "none":
        set_momentum(model, setting["norm_momentum"])
    recipe, begins = recipe_of(setting), setting["head_epochs"] if setting["stages"] else 0
    record = Record(model, begins, recipe.epochs(tuple(kresnets.groups(model))))
    pull = [Pull(model, setting["pull"], begins)] if setting["pull"] else []
    kresnets.fine_tune(model, *pictures.both, recipe, callbacks=[record, *pull], verbose=0)
    rows = record.rows(pictures, ALL if setting["keeps"] == "all" else PLAIN)
    return [row | found for row in rows]


def by_default(model, setting, pictures):
    """Let `kresnets.fine_tune` do what it does by itself, and return a row; it must be what the setting says."""
    recipe, pretrained = kresnets.Recipe(seed=setting["seed"]), setting["trunk"] != "none"
    history = kresnets.fine_tune(model, *pictures.both, recipe, pretrained=pretrained, verbose=0)
    done, told = ways.plain(history.plan.recipe), setting["recipe"] | {"seed": setting["seed"]}
    if done != told:
        raise ValueError(f"The default was resolved to {done}, where the setting says {told}.")
    told = {"keep": "last", "notes": list(history.notes)}
    return [told | cells.judged(model, pictures.test, pictures.test_labels)]


class Pull(keras.callbacks.Callback):
    """Draw the trunk's kernels towards where they began after each step, by the share `strength` times their rate, as a
    decoupled weight decay does, from the epoch `begins` on."""

    def __init__(self, model, strength, begins):
        super().__init__()
        self._kernels = [v for v in model.trainable_variables if v.path.endswith("kernel") and "head" not in v.path]
        self._start = [np.array(v.numpy()) for v in self._kernels]
        self._strength, self._begins, self._learns = strength, begins, False

    def on_epoch_begin(self, epoch, logs=None):
        self._learns = epoch >= self._begins

    def on_train_batch_end(self, batch, logs=None):
        if self._learns:
            rate = self._strength * learning_rate(self.model.optimizer)
            for variable, start in zip(self._kernels, self._start, strict=True):
                share = min(rate * ratio_of(self.model.optimizer, variable), 1.0)
                variable.assign_sub(share * (variable - start))
