"""Fine-tuning with the feature cache (the frozen part once), without (in every epoch), and as Keras's guide does it."""

import tempfile
import time

from bench import guide
from bench.rounds import tell, write

RECIPES = {
    "feature extraction, 20 epochs": {"head_epochs": 20, "stages": ()},
    "head 5 epochs, then stage4 5": {"head_epochs": 5, "stages": ("stage4",), "epochs_per_stage": 5},
}
REACH = {"feature extraction, 20 epochs": (12, 18), "head 5 epochs, then stage4 5": (2.5, 5)}
WAYS = ("cached", "uncached", "Keras's guide, float32")


def bench_finetune(options):
    """Train one network each way on the same photographs; tell seconds, best validation accuracy and ratios."""
    import keras

    from kresnets.data import load_data
    from kresnets.devices.hardware import fast_dtype

    data, rows = load_data("elpv", options.images, 0, "error"), []
    with tempfile.TemporaryDirectory() as folder:
        path = guide.weights(folder, options.size)
        for name, recipe in RECIPES.items():
            for way in WAYS:
                keras.mixed_precision.set_dtype_policy("float32" if way == WAYS[-1] else fast_dtype())
                keras.utils.set_random_seed(0)
                train = data.train.batches(options.batch_size, options.size, shuffle_seed=0)
                validation = data.validation.batches(options.batch_size, options.size)
                run = _as_the_guide if way == WAYS[-1] else _with_kresnets
                seconds, accuracy = run(recipe, train, validation, path, options.size, way == "cached")
                rows.append(tell({"what": name, "way": way, "seconds": seconds, "accuracy": accuracy}))
            keras.mixed_precision.set_dtype_policy("float32")
            cached, *others = rows[-len(WAYS) :]
            for other, reach in zip(others, REACH[name]):
                times = other["seconds"] / cached["seconds"]
                rows.append(tell({"what": name, "against": other["way"], "ratio": times, "to_reach": reach}))
    return write(options, rows)


# Both return the seconds of training, without building the model or decoding, and the best validation accuracy.


def _with_kresnets(recipe, train, validation, path, size, cached):
    import kresnets

    model = kresnets.ResNet50(weights=path, classes=2, input_shape=(size, size, 3))
    recipe = kresnets.Recipe.textbook(**recipe, augment="none", seed=0)
    began = time.perf_counter()
    history = kresnets.fine_tune(model, train, validation, recipe, cache=cached, verbose=0)
    return time.perf_counter() - began, max(history.history["val_accuracy"])


def _as_the_guide(recipe, train, validation, path, size, cached):
    base, model = guide.build(path, size)
    best, began = [], time.perf_counter()
    for prefixes, rate, epochs in (
        ((), 1e-3, recipe["head_epochs"]),
        (("conv5",), 1e-4, recipe.get("epochs_per_stage")),
    ):
        if epochs:
            guide.compile_to_train(base, model, prefixes, rate)
            history = model.fit(train, epochs=epochs, validation_data=validation, verbose=0, shuffle=False)
            best += history.history["val_accuracy"]
    return time.perf_counter() - began, max(best)
