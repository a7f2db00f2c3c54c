"""A search for a recipe against Keras Tuner used as its documentation shows, with keras.applications."""

import logging
import pathlib
import statistics
import tempfile
import time

from _bench.rounds import write

SPACES = {"to stage3": ("head", "stage4", "stage3"), "to stage4": ("head", "stage4")}
REACH = {("to stage3", None): 4, ("to stage3", "pruned"): 7, ("to stage4", None): 6, ("to stage4", "pruned"): 10}
EPOCHS, HEAD_EPOCHS = 6, 2


def bench_search(options):
    """Run searches ours whole, and of Keras Tuner's one trial of each depth; print seconds, ratios, and what was saved."""
    import kresnets  # noqa: F401  its layers too
    from kresnets.data import load_data
    from kresnets.hardware import fast_dtype

    logging.getLogger("absl").setLevel("ERROR")  # the file that hands the weights over is of the format called legacy
    data = load_data("elpv", options.images, 0, "error")
    fast, rows = fast_dtype(), []
    print(
        f"ResNet50, {options.size} pixels, {len(data.train)} photographs, {len(data.validation)} to validate, {fast}; "
        f"{options.trials} trials of {EPOCHS} epochs"
    )
    with tempfile.TemporaryDirectory() as folder:
        path = _weights(folder, options.size)
        theirs = _keras_tuner(data, path, options, folder)
        for depth, seconds in theirs.items():
            rows.append(
                {"what": "a trial of Keras Tuner, keras.applications, float32", "thaw": depth, "seconds": seconds}
            )
            print(f"A trial of Keras Tuner with keras.applications, float32, {depth}: {seconds:.1f} s", flush=True)
        for name in options.spaces:
            trials = _trials(SPACES[name], options.trials)
            whole = sum(theirs[trial["thaw"]] for trial in trials)
            for way in (None, "pruned"):
                row = _ours(trials, data, path, options, fast, f"{folder}/{name}-{way}", way)
                row |= {"space": name, "way": way or "all", "theirs": whole, "ratio": whole / row["seconds"]}
                row["to_reach"] = REACH[name, way]
                rows.append(row)
                print(
                    f"{name}, {way or 'all trials whole'}: {row['seconds']:.0f} s against {whole:.0f} (each of its trials as long "
                    f"as the one of its depth): {row['ratio']:.1f} times faster; to reach: {row['to_reach']}. Best "
                    f"validation loss {row['best']:.4f}. {row['told']}",
                    flush=True,
                )
    return write(options, rows)


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
            rates = np.geomspace(3e-4, 1e-2, max(1, each // 2)).round(6).tolist()
            pairs = [(rate, trunk) for rate in rates for trunk in (3e-5, 3e-4)][:each]
            found += [
                {"thaw": d, "learning_rate": r, "trunk_learning_rate": t} for d, (r, t) in zip([depth] * each, pairs)
            ]
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


def _hypermodel(trials, path, size):
    import kresnets
    from kresnets.tuning import RecipeHyperModel

    base = kresnets.Recipe(augment="none", head_epochs=HEAD_EPOCHS, ratio=1.0)
    return RecipeHyperModel(
        lambda: kresnets.ResNet50(weights=path, classes=2, input_shape=(size, size, 3)), _space(trials), base, EPOCHS
    )


def _ours(trials, data, path, options, dtype, folder, way):
    """Run a search; return its seconds, its best score, and what was not done twice."""
    import keras

    from kresnets.tuning import RecipeTuner, read_records

    keras.mixed_precision.set_dtype_policy(dtype)
    try:
        train = data.train.batches(options.batch_size, options.size, shuffle_seed=0)
        validation = data.validation.batches(options.batch_size, options.size)
        began = time.perf_counter()
        hypermodel = _hypermodel(trials, path, options.size)
        tuner = RecipeTuner(hypermodel, _listed(trials), directory=folder, prune=options.prune if way else None)
        tuner.search(train, validation, verbose=0)
        seconds = time.perf_counter() - began
    finally:
        keras.mixed_precision.set_dtype_policy("float32")
    records = read_records(tuner.project_dir)
    trained = sum(record["epochs"] for record in records)
    shared = sum(len(record["history"]) - record["epochs"] for record in records)
    fitting = sum(row["seconds"] for record in records for row in record["history"][-record["epochs"] :])
    by_depth = {}
    for record in records:
        by_depth.setdefault(record["values"]["thaw"], []).append(record["seconds"])
    medians = {depth: round(statistics.median(times), 2) for depth, times in by_depth.items()}
    return {
        "seconds": seconds,
        "best": min(record["score"] for record in records if record["score"] is not None),
        "medians": medians,
        "trained_epochs": trained,
        "shared_epochs": shared,
        "pruned_epochs": len(trials) * EPOCHS - trained - shared,
        "epochs_seconds": fitting,
        "failed": [record["reason"] for record in records if record["status"] == "failed"],
        "told": f"Of {len(trials) * EPOCHS} epochs {trained} were trained in {fitting:.0f} s, {shared} taken over, "
        f"{len(trials) * EPOCHS - trained - shared} pruned; median seconds a trial: {medians}.",
    }


def _keras_tuner(data, path, options, folder):
    """Return depth -> seconds of one trial of Keras Tuner: the base frozen, then part of it unfrozen and compiled anew, in
    `HyperModel.fit`, as keras.io's guides to Keras Tuner and to transfer learning do."""
    import keras
    import keras_tuner

    recipes = _hypermodel(_trials(SPACES["to stage3"], 6), path, options.size)
    size = options.size

    class Guide(keras_tuner.HyperModel):
        def build(self, hp):
            hp.Choice("thaw", list(SPACES["to stage3"]))
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

        def fit(self, hp, model, *args, **kwargs):
            recipe, done = recipes.space.recipe(hp.values), 0
            for group, epochs in recipe.staging(recipes.names).stages:
                if group != "head":
                    thawed = {"stage4": ("conv5",), "stage3": ("conv4", "conv5")}[group]
                    self.base.trainable = True
                    for layer in self.base.layers:
                        norm = isinstance(layer, keras.layers.BatchNormalization)
                        layer.trainable = layer.name.startswith(thawed) and not norm
                    rate = hp.get("trunk_learning_rate")
                    model.compile(keras.optimizers.Adam(rate), "sparse_categorical_crossentropy", metrics=["accuracy"])
                history = model.fit(*args, initial_epoch=done, epochs=done + epochs, **kwargs)
                done += epochs
            return history

    class Timed(keras_tuner.Tuner):
        seconds = {}

        def on_trial_begin(self, trial):
            self.began = time.perf_counter()

        def on_trial_end(self, trial):
            super().on_trial_end(trial)
            self.seconds[trial.hyperparameters.values["thaw"]] = time.perf_counter() - self.began

    trials = [{"thaw": depth, "learning_rate": 1e-3, "trunk_learning_rate": 1e-4} for depth in SPACES["to stage3"]]
    tuner = Timed(_listed(trials), Guide(), directory=folder, project_name="keras_tuner")
    train = data.train.batches(options.batch_size, size, shuffle_seed=0)
    validation = data.validation.batches(options.batch_size, size)
    tuner.search(train, validation_data=validation, verbose=0, shuffle=False)
    failed = [trial.message for trial in tuner.oracle.trials.values() if trial.status != "COMPLETED"]
    if failed:
        raise RuntimeError(f"A trial of Keras Tuner failed: {failed[0][-300:]}")
    return Timed.seconds
