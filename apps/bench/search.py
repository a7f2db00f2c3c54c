"""A search for a recipe against Keras Tuner used as its documentation shows, with keras.applications."""

import collections
import itertools
import math
import statistics
import tempfile
import time

from bench import guide
from bench.rounds import tell, write

SPACES = {"to stage3": ("head", "stage4", "stage3"), "to stage4": ("head", "stage4")}
WAYS = ("whole", "pruned")
REACH = {("to stage3", "whole"): 4, ("to stage3", "pruned"): 7, ("to stage4", "whole"): 6, ("to stage4", "pruned"): 10}
EPOCHS, HEAD_EPOCHS, PRUNE = 6, 2, 0.5
# Whose layers the guide unfreezes, by the names that keras.applications gives them.
_THAWED = {"head": (), "stage4": ("conv5",), "stage3": ("conv4", "conv5")}


def bench_search(options):
    """Run searches ours whole, and of Keras Tuner's one trial of each depth; tell seconds, ratios, and what was
    saved."""
    depths = tuple(dict.fromkeys(depth for name in options.spaces for depth in SPACES[name]))
    if options.trials < len(depths):
        raise ValueError(f"--trials must be at least {len(depths)}, one of each depth. Received: {options.trials}")
    theirs, ours = collections.defaultdict(list), collections.defaultdict(list)
    with tempfile.TemporaryDirectory() as folder:
        bench = _Bench(guide.weights(folder, options.size), options)
        for number in range(options.rounds):
            for depth, trial in bench.keras_tuner(depths, f"{folder}/keras_tuner-{number}").items():
                theirs[depth].append(trial)
            for name, way in itertools.product(options.spaces, options.ways):
                ours[name, way].append(bench.ours(name, way, f"{folder}/{number}-{name}-{way}"))
        step = bench.uncached(depths[-1])
    rows = [
        tell({"what": "a trial of Keras Tuner", "thaw": depth, "seconds": [trial["seconds"] for trial in trials]})
        for depth, trials in theirs.items()
    ]
    rows += _of_an_epoch(theirs, step, ours)
    for (name, way), searches in ours.items():
        row, trials = dict(searches[0]), _trials(SPACES[name], options.trials)
        del row["trained_rows"]
        row["seconds"] = statistics.median(search["seconds"] for search in searches)
        # Each trial of theirs is taken to last as long as the one of its depth that was measured.
        row["theirs"] = sum(statistics.median(run["seconds"] for run in theirs[trial["thaw"]]) for trial in trials)
        row = {"what": "search", "space": name, "way": way} | row
        row |= {"ratio": row["theirs"] / row["seconds"], "to_reach": REACH[name, way]}
        if way == "pruned" and (name, "whole") in ours:  # whether it has lost the best trial, by more than noise
            whole = ours[name, "whole"][0]
            error = math.sqrt(whole["accuracy"] * (1 - whole["accuracy"]) / len(bench.data.validation))
            row |= {"same_best_trial": row["best_trial"] == whole["best_trial"], "standard_error": error}
        rows.append(tell(row))
    return write(options, rows)


def _of_an_epoch(theirs, step, ours):
    """Yield what an epoch takes each way, by the stage from which on it learns."""
    cached = _steady(run for searches in ours.values() for search in searches for run in search["trained_rows"])
    whole = _steady(trial["rows"] for trials in theirs.values() for trial in trials)
    for stage in (stage for stage in whole if stage in cached and stage in step):
        row = {"keras_tuner": whole[stage], "without_features": step[stage], "on_features": cached[stage]}
        yield tell({"what": "an epoch", "stage": stage, **row})


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


def _steady(runs):
    """Return stage -> median seconds of an epoch that is not the first of its stage: that one traces, and keeps
    features; `runs` are the rows of each training, `stage` and `seconds` of an epoch."""
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
    """Return a callback that notes in its `rows` how long each epoch takes, and its stage by the plan of a recipe."""
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

    def __init__(self, path, options):
        from kresnets.data import load_data

        self.data = load_data("elpv", options.images, 0, "error")
        self._path, self._options = path, options

    def _batches(self):
        size = self._options.batch_size, self._options.size
        return self.data.train.batches(*size, shuffle_seed=0), self.data.validation.batches(*size)

    def _hypermodel(self, trials):
        import kresnets
        from kresnets.tuning import RecipeHyperModel

        size, names = self._options.size, dict.fromkeys(name for trial in trials for name in trial)
        space = {name: sorted({trial[name] for trial in trials if name in trial}) for name in names}
        # The guide's optimizer: Adam, at a rate that stays.
        recipe = {"optimizer": "adam", "weight_decay": None, "schedule": "constant", "ratio": 1.0}
        base = kresnets.Recipe.textbook(augment="none", head_epochs=HEAD_EPOCHS, **recipe)
        build = lambda: kresnets.ResNet50(weights=self._path, classes=2, input_shape=(size, size, 3))
        return RecipeHyperModel(build, space, base, EPOCHS)

    def ours(self, name, way, folder):
        """Run a whole search; return its seconds, its best trial, and where the time went."""
        from kresnets.tuning import RecipeTuner, read_records

        trials = _trials(SPACES[name], self._options.trials)
        _set_policy(fast=True)
        train, validation = self._batches()
        began = time.perf_counter()
        hypermodel = self._hypermodel(trials)
        tuner = RecipeTuner(hypermodel, _listed(trials), directory=folder, prune=PRUNE if way == "pruned" else None)
        tuner.search(train, validation, verbose=0)
        return _found(read_records(tuner.project_dir), hypermodel, time.perf_counter() - began)

    def uncached(self, depth):
        """Return stage -> seconds of an epoch of ours that computes every layer."""
        import kresnets

        _set_policy(fast=True)
        hypermodel = self._hypermodel(_trials(SPACES["to stage3"], len(SPACES["to stage3"])))
        recipe = hypermodel.space.recipe({"thaw": depth, "learning_rate": 1e-3, "trunk_learning_rate": 3e-5})
        clock, (train, validation) = _clock(recipe.plan(hypermodel.names)), self._batches()
        kresnets.fine_tune(hypermodel.make(0), train, validation, recipe, cache=False, callbacks=[clock], verbose=0)
        _set_policy(fast=False)
        return _steady([clock.rows])

    def keras_tuner(self, depths, folder):
        """Return depth -> one trial of Keras Tuner, from building the network on: its seconds, and those of its
        epochs."""
        import keras_tuner

        _set_policy(fast=False)
        hypermodel = _guide(self._hypermodel(_trials(SPACES["to stage3"], 6)), self._path, self._options.size)
        trials = [{"thaw": depth, "learning_rate": 1e-3, "trunk_learning_rate": 3e-5} for depth in depths]
        train, validation = self._batches()
        tuner = keras_tuner.Tuner(_listed(trials), hypermodel, directory=folder)
        tuner.search(train, validation_data=validation, verbose=0, shuffle=False)
        if failed := set(depths) - hypermodel.trials.keys():
            raise RuntimeError(f"Trials of Keras Tuner failed: {', '.join(sorted(failed))}.")
        return hypermodel.trials


def _set_policy(fast):
    import keras

    from kresnets.devices.hardware import fast_dtype

    keras.mixed_precision.set_dtype_policy(fast_dtype() if fast else "float32")


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
    within, fitting = sum(record["seconds"] for record in records), sum(row["seconds"] for rows in runs for row in rows)
    return {
        "seconds": seconds,
        "best": best["score"],
        "accuracy": min(best["history"], key=lambda row: row["val_loss"])["val_accuracy"],
        "best_trial": best["values"],
        "all_epochs": len(records) * EPOCHS,
        "trained": sum(map(len, runs)),
        "shared": len(taken_over),
        "pruned": len(given_up),
        "saved_by_sharing": sum(steady.get(stage, 0.0) for stage in taken_over),
        "saved_by_pruning": sum(steady.get(stage, 0.0) for stage in given_up),
        "parts": _parts(runs, steady) | {"building and files": within - fitting, "between trials": seconds - within},
        "failed": [record["reason"] for record in records if record["status"] == "failed"],
        "trained_rows": runs,
    }


def _guide(recipes, path, size):
    """Return a HyperModel as keras.io's guides to Keras Tuner and to transfer learning have it: `build` a head on a
    frozen base, `fit` it, then unfreeze part of the base and compile anew, when the `RecipeHyperModel` says so."""
    import keras_tuner

    class Guide(keras_tuner.HyperModel):
        def __init__(self):
            super().__init__()
            self.trials = {}

        def build(self, hp):
            self.began = time.perf_counter()
            hp.Choice("thaw", list(_THAWED))
            rate = hp.Float("learning_rate", 1e-4, 1e-1)
            hp.Float("trunk_learning_rate", 1e-6, 1e-2)
            self.base, model = guide.build(path, size)
            guide.compile_to_train(self.base, model, (), rate)
            return model

        def fit(self, hp, model, *args, callbacks=(), **kwargs):
            recipe, done = recipes.space.recipe(hp.values), 0
            clock = _clock(recipe.plan(recipes.names))
            for stage, epochs in recipe.staging(recipes.names).stages:
                if _THAWED[stage]:
                    guide.compile_to_train(self.base, model, _THAWED[stage], hp.get("trunk_learning_rate"))
                told = {"initial_epoch": done, "epochs": done + epochs, "callbacks": [*callbacks, clock]}
                history = model.fit(*args, **told, **kwargs)
                done += epochs
            self.trials[hp.get("thaw")] = {"seconds": time.perf_counter() - self.began, "rows": clock.rows}
            return history

    return Guide()
