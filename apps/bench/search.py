"""A search for a recipe against Keras Tuner used as its documentation shows, with keras.applications."""

import collections
import contextlib
import itertools
import logging
import math
import pathlib
import shutil
import statistics
import tempfile
import time

from bench.rounds import write

SPACES = {"to stage3": ("head", "stage4", "stage3"), "to stage4": ("head", "stage4")}
WAYS = ("whole", "pruned")
REACH = {("to stage3", "whole"): 4, ("to stage3", "pruned"): 7, ("to stage4", "whole"): 6, ("to stage4", "pruned"): 10}
EPOCHS, HEAD_EPOCHS = 6, 2
# Whose layers the guide unfreezes, by the names that keras.applications gives them.
_THAWED = {"head": (), "stage4": ("conv5",), "stage3": ("conv4", "conv5")}


def bench_search(options):
    """Run searches ours whole, and of Keras Tuner's one trial of each depth; print seconds, ratios, and what was
    saved."""
    from kresnets.data import load_data
    from kresnets.devices.hardware import fast_dtype

    depths = tuple(dict.fromkeys(depth for name in options.spaces for depth in SPACES[name]))
    if options.trials < len(depths):
        raise ValueError(f"--trials must be at least {len(depths)}, one of each depth. Received: {options.trials}")
    logging.getLogger("absl").setLevel("ERROR")  # the file that hands the weights over is of the format called legacy
    data = load_data("elpv", options.images, 0, "error")
    fast, theirs, ours = fast_dtype(), collections.defaultdict(list), collections.defaultdict(list)
    print(
        f"ResNet50, {options.size} pixels, {len(data.train)} photographs, {len(data.validation)} to validate, {fast}; "
        f"trials of {EPOCHS} epochs: {HEAD_EPOCHS} of the head, the rest in equal parts to what thaws, or all of the "
        "head"
    )
    with tempfile.TemporaryDirectory() as folder:
        path = _weights(folder, options.size)
        bench = _Bench(data, path, options, fast)
        for number in range(options.rounds):
            for depth, trial in bench.keras_tuner(depths, f"{folder}/keras_tuner-{number}").items():
                theirs[depth].append(trial)
                print(f"(round {number + 1}: a trial of Keras Tuner, {depth}, in {trial['seconds']:.0f} s)", flush=True)
            for name in options.spaces:
                for way in options.ways:
                    ours[name, way].append(bench.ours(name, way, f"{folder}/{number}-{name}-{way}"))
                    print(f"(round {number + 1}: {name}, {way}, in {ours[name, way][-1]['seconds']:.0f} s)", flush=True)
        step = bench.uncached(depths[-1])
    return write(options, _told_theirs(theirs, step, ours) + _told_ours(theirs, ours, options))


def _told_theirs(theirs, step, ours):
    """Print what a trial of Keras Tuner takes, and what an epoch takes each way; return rows."""
    rows = []
    for depth, trials in theirs.items():
        seconds = [trial["seconds"] for trial in trials]
        rows.append({"what": "a trial of Keras Tuner", "thaw": depth, "seconds": seconds})
        print(
            f"A trial of Keras Tuner with keras.applications, float32, {depth}: {statistics.median(seconds):.1f} s, "
            f"its best validation loss {trials[0]['best']:.4f}"
        )
    cached = _steady(run for searches in ours.values() for search in searches for run in search["trained_rows"])
    whole = _steady(trial["rows"] for trials in theirs.values() for trial in trials)
    for stage in (stage for stage in whole if stage in cached and stage in step):
        row = {"keras_tuner": whole[stage], "without_features": step[stage], "on_features": cached[stage]}
        rows.append({"what": "an epoch", "stage": stage, **row})
        print(
            f"An epoch from {stage} on: {whole[stage]:.2f} s of Keras Tuner, {step[stage]:.2f} ours without features "
            "(step: "
            f"{whole[stage] / step[stage]:.1f}x), {cached[stage]:.2f} on features ({step[stage] / cached[stage]:.1f}x)"
        )
    return rows


def _told_ours(theirs, ours, options):
    """Print each search of ours beside the whole search of theirs; return rows."""
    rows = []
    for (name, way), searches in ours.items():
        trials = _trials(SPACES[name], options.trials)
        whole = sum(statistics.median(run["seconds"] for run in theirs[trial["thaw"]]) for trial in trials)
        seconds = statistics.median(search["seconds"] for search in searches)
        row = {
            "what": "search",
            "space": name,
            "way": way,
            "seconds": seconds,
            "theirs": whole,
            "ratio": whole / seconds,
        }
        row |= {"each": [search["seconds"] for search in searches], "to_reach": REACH[name, way]}
        row |= {key: value for key, value in searches[0].items() if key not in ("trained_rows", "seconds")}
        rows.append(row)
        print(
            f"{len(trials)} trials {name}, {way}: {seconds:.0f} s against {whole:.0f} (each trial as long as the one "
            f"of its depth that was measured): {whole / seconds:.1f} times faster; to reach: {REACH[name, way]}\n"
            f"    best validation loss {row['best']:.4f} (accuracy {row['accuracy']:.3f}): {row['best_trial']}\n"
            f"    {_sentence(row)}",
            flush=True,
        )
        if way == "pruned" and (name, "whole") in ours:
            _tell_noise(row, ours[name, "whole"][0], rows)
    return rows


def _tell_noise(pruned, whole, rows):
    """Say whether pruning has lost the best trial, by the standard error of an accuracy on so few photographs."""
    same = pruned["best_trial"] == whole["best_trial"]
    error = math.sqrt(whole["accuracy"] * (1 - whole["accuracy"]) / whole["validation_images"])
    rows[-1] |= {"same_best_trial": same, "standard_error": error, "loss_of_pruning": pruned["best"] - whole["best"]}
    print(
        f"    {'the same best trial' if same else 'another best trial'} as without pruning: loss {whole['best']:.4f}, "
        f"accuracy {whole['accuracy']:.3f}, whose standard error is {error:.3f}",
        flush=True,
    )


def _sentence(row):
    parts = ", ".join(f"{name} {seconds:.0f} s" for name, seconds in row["parts"].items())
    failed = f" FAILED: {row['failed']}" if row["failed"] else ""
    return (
        f"where it went: {parts}\n    of {row['all_epochs']} epochs {row['trained']} were trained; {row['shared']} "
        "taken over saved "
        f"{row['saved_by_sharing']:.0f} s, {row['pruned']} given up {row['saved_by_pruning']:.0f} s.{failed}"
    )


def _weights(folder, size):
    """Write a random trunk in keras.applications' layout: the same start for both."""
    import keras

    keras.utils.set_random_seed(0)
    path = pathlib.Path(folder) / "resnet50_notop.weights.h5"
    keras.applications.ResNet50(weights=None, include_top=False, input_shape=(size, size, 3)).save_weights(path)
    return path


def _trials(depths, count):
    """Return the trials, in equal parts to each depth, in an order that mixes them."""
    import numpy as np

    each, found = count // len(depths), []
    for depth in depths:
        if depth == "head":
            rates = np.geomspace(3e-4, 1e-2, each).round(6).tolist()
            found += [{"thaw": depth, "learning_rate": rate} for rate in rates]
        else:
            rates = np.geomspace(3e-4, 1e-2, -(-each // 2)).round(6).tolist()
            pairs = [(rate, trunk) for rate in rates for trunk in (3e-5, 3e-4)][:each]
            found += [{"thaw": depth, "learning_rate": rate, "trunk_learning_rate": trunk} for rate, trunk in pairs]
    return [found[index] for index in np.random.default_rng(0).permutation(len(found))]


def _listed(trials):
    """Return an oracle that hands out these trials."""
    import keras_tuner

    class Listed(keras_tuner.Oracle):
        def populate_space(self, trial_id):
            return {"status": "RUNNING", "values": dict(trials[int(trial_id)])}

    return Listed("val_loss", max_trials=len(trials))


def _space(trials):
    names = dict.fromkeys(name for trial in trials for name in trial)
    return {name: sorted({trial[name] for trial in trials if name in trial}) for name in names}


def _steady(runs):
    """Return stage -> median seconds of an epoch that is not the first of its stage: that one traces, and keeps
    features.

    Args:
        runs: the rows of each training, `stage` and `seconds` of an epoch.
    """
    found = collections.defaultdict(list)
    for rows in runs:
        for before, row in itertools.pairwise(rows):
            if before["stage"] == row["stage"]:
                found[row["stage"]].append(row["seconds"])
    return {stage: statistics.median(seconds) for stage, seconds in found.items()}


def _parts(runs, steady):
    """Return seconds of epochs, of what the first trial in a stage had to compute for all, and of tracing in all."""
    epochs, extra = 0.0, collections.defaultdict(list)
    for rows in runs:
        for before, row in zip([{"stage": None}, *rows], rows):
            lasting = row["seconds"]
            if before["stage"] != row["stage"]:
                lasting = min(lasting, steady.get(row["stage"], 0.0))
                extra[row["stage"]].append(row["seconds"] - lasting)
            epochs += lasting
    features = sum(max(0.0, first - statistics.median(others)) for first, *others in extra.values() if others)
    return {"epochs": epochs, "features": features, "tracing": sum(map(sum, extra.values())) - features}


def _clock(plan):
    """Return a callback that notes how long each epoch takes, by the stage that the plan of a recipe has it in."""
    import keras

    class Clock(keras.callbacks.Callback):
        def __init__(self):
            super().__init__()
            self.rows = []

        def on_epoch_begin(self, epoch, logs=None):
            self.began = time.perf_counter()

        def on_epoch_end(self, epoch, logs=None):
            stage = plan[max(first for first in plan if first <= epoch)]
            self.rows.append({"stage": stage, "seconds": time.perf_counter() - self.began})

    return Clock()


class _Bench:
    """Run what is measured on the same photographs from the same weights."""

    def __init__(self, data, path, options, dtype):
        self._data, self._path, self._options, self._dtype = data, path, options, dtype

    def _batches(self):
        size = self._options.batch_size, self._options.size
        return self._data.train.batches(*size, shuffle_seed=0), self._data.validation.batches(*size)

    def _hypermodel(self, trials):
        import kresnets
        from kresnets.tuning import RecipeHyperModel

        size = self._options.size
        # The guide's optimizer: Adam, at a rate that stays.
        recipe = {"optimizer": "adam", "weight_decay": None, "schedule": "constant", "ratio": 1.0}
        base = kresnets.Recipe.textbook(augment="none", head_epochs=HEAD_EPOCHS, **recipe)
        return RecipeHyperModel(
            lambda: kresnets.ResNet50(weights=self._path, classes=2, input_shape=(size, size, 3)),
            _space(trials),
            base,
            EPOCHS,
        )

    @contextlib.contextmanager
    def _fast(self):
        import keras

        keras.mixed_precision.set_dtype_policy(self._dtype)
        try:
            yield
        finally:
            keras.mixed_precision.set_dtype_policy("float32")

    def ours(self, name, way, folder):
        """Run a whole search; return its seconds, its best trial, and where the time went."""
        from kresnets.tuning import RecipeTuner, read_records

        trials, options = _trials(SPACES[name], self._options.trials), self._options
        prune = options.prune if way == "pruned" else None
        with self._fast():
            train, validation = self._batches()
            began = time.perf_counter()
            hypermodel = self._hypermodel(trials)
            tuner = RecipeTuner(hypermodel, _listed(trials), directory=folder, prune=prune)
            tuner.search(train, validation, verbose=0)
            seconds = time.perf_counter() - began
        found = _found(read_records(tuner.project_dir), hypermodel, seconds)
        shutil.rmtree(folder)
        return found | {"validation_images": len(self._data.validation)}

    def uncached(self, depth):
        """Return stage -> seconds of an epoch of ours that computes every layer."""
        import kresnets

        with self._fast():
            hypermodel = self._hypermodel(_trials(SPACES["to stage3"], len(SPACES["to stage3"])))
            recipe = hypermodel.space.recipe({"thaw": depth, "learning_rate": 1e-3, "trunk_learning_rate": 3e-5})
            clock, (train, validation) = _clock(recipe.plan(hypermodel.names)), self._batches()
            kresnets.fine_tune(hypermodel.make(0), train, validation, recipe, cache=False, callbacks=[clock], verbose=0)
        return _steady([clock.rows])

    def keras_tuner(self, depths, folder):
        """Return depth -> one trial of Keras Tuner: its seconds, its best validation loss, the seconds of its
        epochs."""
        import keras_tuner

        guide = _guide(self._hypermodel(_trials(SPACES["to stage3"], 6)), self._path, self._options.size)
        found = {}

        class Timed(keras_tuner.Tuner):
            def on_trial_begin(self, trial):
                self.began = time.perf_counter()

            def on_trial_end(self, trial):
                super().on_trial_end(trial)
                if trial.status != "COMPLETED":
                    raise RuntimeError(f"A trial of Keras Tuner failed: {(trial.message or '')[-300:]}")
                seconds = time.perf_counter() - self.began
                depth = trial.hyperparameters.values["thaw"]
                found[depth] = {"seconds": seconds, "best": trial.score, "rows": guide.clock.rows}

        trials = [{"thaw": depth, "learning_rate": 1e-3, "trunk_learning_rate": 3e-5} for depth in depths]
        train, validation = self._batches()
        tuner = Timed(_listed(trials), guide, directory=folder)
        tuner.search(train, validation_data=validation, verbose=0, shuffle=False)
        shutil.rmtree(folder)
        return found


def _found(records, hypermodel, seconds):
    """Return what the records of a search tell of it."""
    runs = [record["history"][-record["epochs"] :] if record["epochs"] else [] for record in records]
    steady, taken_over, given_up = _steady(runs), [], []
    for record in records:
        plan = hypermodel.space.recipe(record["values"]).staging(hypermodel.names).stages
        stages = [stage for stage, epochs in plan for _ in range(epochs)]
        taken_over += stages[: len(record["history"]) - record["epochs"]]
        given_up += stages[len(record["history"]) :] if record["status"] == "pruned" else []
    best = min((record for record in records if record["score"] is not None), key=lambda record: record["score"])
    of_best = min(best["history"], key=lambda row: row["val_loss"])
    within, fitting = sum(record["seconds"] for record in records), sum(row["seconds"] for rows in runs for row in rows)
    parts = _parts(runs, steady) | {"building and files": within - fitting, "between trials": seconds - within}
    return {
        "seconds": seconds,
        "best": best["score"],
        "accuracy": of_best["val_accuracy"],
        "best_trial": best["values"],
        "all_epochs": len(records) * EPOCHS,
        "trained": sum(map(len, runs)),
        "shared": len(taken_over),
        "pruned": len(given_up),
        "saved_by_sharing": sum(steady.get(stage, 0.0) for stage in taken_over),
        "saved_by_pruning": sum(steady.get(stage, 0.0) for stage in given_up),
        "parts": parts,
        "trial_seconds": [[record["values"]["thaw"], record["status"], record["seconds"]] for record in records],
        "failed": [record["reason"] for record in records if record["status"] == "failed"],
        "trained_rows": runs,
    }


def _guide(recipes, path, size):
    """Return a HyperModel as keras.io's guides to Keras Tuner and to transfer learning have it: `build` a head on a
    frozen
    base, `fit` it, then unfreeze part of the base and compile anew.

    Args:
        recipes: the `RecipeHyperModel` that says when what thaws.
    """
    import keras
    import keras_tuner

    class Guide(keras_tuner.HyperModel):
        def build(self, hp):
            hp.Choice("thaw", list(_THAWED))
            rate = hp.Float("learning_rate", 1e-4, 1e-1)
            hp.Float("trunk_learning_rate", 1e-6, 1e-2)
            self.base = keras.applications.ResNet50(weights=None, include_top=False, input_shape=(size, size, 3))
            self.base.load_weights(path)
            self.base.trainable = False
            inputs = keras.Input((size, size, 3))
            x = keras.applications.resnet.preprocess_input(inputs)
            x = keras.layers.GlobalAveragePooling2D()(self.base(x, training=False))
            model = keras.Model(inputs, keras.layers.Dense(2, activation="softmax")(x))
            model.compile(keras.optimizers.Adam(rate), "sparse_categorical_crossentropy", metrics=["accuracy"])
            return model

        def fit(self, hp, model, *args, callbacks=(), **kwargs):
            recipe, done = recipes.space.recipe(hp.values), 0
            self.clock = _clock(recipe.plan(recipes.names))
            for stage, epochs in recipe.staging(recipes.names).stages:
                if _THAWED[stage]:
                    self.base.trainable = True
                    for layer in self.base.layers:
                        norm = isinstance(layer, keras.layers.BatchNormalization)
                        layer.trainable = layer.name.startswith(_THAWED[stage]) and not norm
                    rate = hp.get("trunk_learning_rate")
                    model.compile(keras.optimizers.Adam(rate), "sparse_categorical_crossentropy", metrics=["accuracy"])
                history = model.fit(
                    *args, initial_epoch=done, epochs=done + epochs, callbacks=[*callbacks, self.clock], **kwargs
                )
                done += epochs
            return history

    return Guide()
