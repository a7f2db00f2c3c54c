"""The frozen part once against every epoch: fine-tuning with the feature cache, without, and as Keras's guide does
it."""

import logging
import pathlib
import statistics
import tempfile
import time

from bench.rounds import write

RECIPES = {
    "feature extraction, 20 epochs": {"head_epochs": 20, "stages": ()},
    "head 5 epochs, then stage4 5": {"head_epochs": 5, "stages": ("stage4",), "epochs_per_stage": 5},
}
REACH = {"feature extraction, 20 epochs": (12, 18), "head 5 epochs, then stage4 5": (2.5, 5)}
WAYS = ("cached", "uncached", "Keras's guide, float32")


def bench_finetune(options):
    """Train one network each way on the same photographs; print seconds, ratios and the best validation accuracy."""
    import kresnets  # noqa: F401  its layers too
    from kresnets.data import load_data
    from kresnets.devices.hardware import fast_dtype

    logging.getLogger("absl").setLevel("ERROR")  # the file that hands the weights over is of the format called legacy
    fast = fast_dtype()
    data = load_data("elpv", options.images, 0, "error")
    print(f"ResNet50, {options.size} pixels, {len(data.train)} photographs, {len(data.validation)} to validate, {fast}")
    print(f"{'':34}{'':26}{'seconds':>9}{'accuracy':>10}   (range over {options.seeds} seeds)")
    rows = []
    for name in options.recipes:
        taken = {way: [] for way in WAYS if way == WAYS[0] or way in options.ways}
        for seed in range(options.seeds):
            with tempfile.TemporaryDirectory() as folder:
                path = _weights(folder, options.size, seed)
                for way in taken:
                    taken[way].append(_train(way, RECIPES[name], data, path, options, fast, seed))
        for way, runs in taken.items():
            seconds, accuracies = zip(*runs)
            row = {
                "what": name,
                "way": way,
                "seconds": statistics.median(seconds),
                "each": seconds,
                "accuracy": accuracies,
            }
            rows.append(row)
            print(
                f"{name:34}{way:26}{row['seconds']:9.1f}{statistics.mean(accuracies):10.3f}"
                f"   ({min(accuracies):.3f} to {max(accuracies):.3f})",
                flush=True,
            )
        cached = statistics.median(second for second, _ in taken["cached"])
        for way, reach in zip(WAYS[1:], REACH[name]):
            if way not in taken:
                continue
            ratio = statistics.median(second for second, _ in taken[way]) / cached
            rows.append({"what": name, "against": way, "ratio": ratio, "to_reach": reach})
            print(f"    {ratio:.1f} times faster than {way}; to reach: {reach}", flush=True)
    return write(options, rows)


def _weights(folder, size, seed):
    """Write a random trunk in keras.applications' layout: the same start for every way."""
    import keras

    keras.utils.set_random_seed(seed)
    path = pathlib.Path(folder) / "resnet50_notop.weights.h5"
    keras.applications.ResNet50(weights=None, include_top=False, input_shape=(size, size, 3)).save_weights(path)
    return path


def _train(way, recipe, data, path, options, fast, seed):
    """Return the seconds of training, building the model and decoding the photographs not counted, and the best
    accuracy."""
    import keras

    ours = way in ("cached", "uncached")
    keras.mixed_precision.set_dtype_policy(fast if ours else "float32")
    keras.utils.set_random_seed(seed)
    train = data.train.batches(options.batch_size, options.size, shuffle_seed=seed)
    validation = data.validation.batches(options.batch_size, options.size)
    try:
        if ours:
            return _with_kresnets(way == "cached", recipe, train, validation, path, options.size, seed)
        return _as_the_guide(recipe, train, validation, path, options.size)
    finally:
        keras.mixed_precision.set_dtype_policy("float32")


def _with_kresnets(cached, recipe, train, validation, path, size, seed):
    import kresnets

    model = kresnets.ResNet50(weights=path, classes=2, input_shape=(size, size, 3))
    recipe = kresnets.Recipe.textbook(**recipe, augment="none", seed=seed)
    began = time.perf_counter()
    history = kresnets.fine_tune(model, train, validation, recipe, cache=cached, verbose=0)
    return time.perf_counter() - began, max(history.history["val_accuracy"])


def _as_the_guide(recipe, train, validation, path, size):
    """Train as keras.io/guides/transfer_learning does: the base in inference mode, then part of it unfrozen."""
    import keras

    base = keras.applications.ResNet50(weights=None, include_top=False, input_shape=(size, size, 3))
    base.load_weights(path)
    base.trainable = False
    inputs = keras.Input((size, size, 3))
    x = keras.applications.resnet.preprocess_input(inputs)
    x = keras.layers.GlobalAveragePooling2D()(base(x, training=False))
    model = keras.Model(inputs, keras.layers.Dense(2, activation="softmax")(x))
    best, began = [], time.perf_counter()
    for rate, epochs in ((1e-3, recipe["head_epochs"]), (1e-4, recipe.get("epochs_per_stage", 0))):
        if not epochs:
            continue
        if rate == 1e-4:
            base.trainable = True
            for layer in base.layers:
                layer.trainable = layer.name.startswith("conv5") and not isinstance(
                    layer, keras.layers.BatchNormalization
                )
        model.compile(keras.optimizers.Adam(rate), "sparse_categorical_crossentropy", metrics=["accuracy"])
        history = model.fit(train, epochs=epochs, validation_data=validation, verbose=0, shuffle=False)
        best += history.history["val_accuracy"]
    return time.perf_counter() - began, max(best)
