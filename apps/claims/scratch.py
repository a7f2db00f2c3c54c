"""Small networks trained from scratch and compared, each at its own best rate, in one loop that is the same for all."""

import functools
import math

import keras
import numpy as np
from scipy.special import log_softmax

import kresnets
from claims import images
from claims.claim import TUNING_SEED
from claims.judge import gap, pick


def data_of(options, size=16, own="digits"):
    """Return the part of a setting that says what is learned from: the claim's own unless told otherwise; of CIFAR-10
    10,000 images; at 16 pixels a side, a quarter of the computing of 32."""
    data = options.data or own
    return {"data": data, "size": 8 if options.quick else size} | ({} if data == "digits" else {"limit": 10_000})


def tuned(networks, rates, seeds, rows, by="train_loss"):
    """Return the settings that are needed: each network, a setting without `rate` and `seed`, at each rate with one
    seed, then at that with the least `by` in the rows so far with all seeds; a single rate needs no trials."""
    if len(rates) == 1:
        return [network | {"rate": rates[0], "seed": seed} for seed in range(seeds) for network in networks]
    trials = [network | {"rate": rate, "seed": TUNING_SEED} for network in networks for rate in rates]
    found = [best(rows, by, **network) for network in networks]
    if None in found:
        return trials
    chosen = [network | {"rate": one["rate"]} for network, one in zip(networks, found)]
    return trials + [network | {"seed": seed} for seed in range(seeds) for network in chosen]


def best(rows, by, **where):
    """Return the row of the trial with the least number in a column, None where there is no trial yet."""
    trials = [row for row in pick(rows, seed=TUNING_SEED, **where) if by in row]
    return min(trials, key=lambda row: row[by]) if trials else None


def learner(spec, *names, counted=False, rewired=None):
    """Return the `measure` of a claim whose networks are rows of kresnets that `spec` returns for these of a setting,
    which also has `data`, `size`, `epochs`, `rate` and `seed`; `counted` adds parameters and multiply-adds to the rows
    of `learn`; `rewired`, a function of a layer and the setting's `kind`, returns what stands in the layer's place."""

    def measure(setting, kept=None):
        row, data = spec(*(setting[name] for name in names)), pictures_of(setting)
        change = (rewired, setting["kind"]) if rewired else ()
        model, epochs, seed = fresh(row, data, setting["seed"], *change), setting["epochs"], setting["seed"]
        rows = learn(model, data, cosine(setting["rate"], epochs), epochs, seed)
        if not counted:
            return rows
        counts = kresnets.summarize(kresnets.build(row, input_shape=data.train.shape[1:]))
        return [row | {"parameters": counts.parameters, "multiply_adds": counts.multiply_adds} for row in rows]

    return measure


def saved(rows, column, one, other):
    """Return the `Interval` by which one value of a column has a smaller test error than another, and it in words."""
    errors, losses = (gap(rows, what, {column: other}, {column: one}) for what in ("test_error", "test_loss"))
    return errors, f"Test error, {other} less {one}: {errors.points(2)}; test loss: {losses.text(digits=4)}."


def pictures_of(setting):
    """Return the `images.Pictures` of a setting."""
    return images.small(setting["data"], setting["size"], setting.get("limit"))


@functools.lru_cache(maxsize=8)
def _network(*what):
    """Return a compiled network that is used for every seed and rate: tracing takes longer than some trainings.

    It learns as in arXiv 1512.03385 section 4.2, by SGD with momentum 0.9 and a weight decay of 1e-4, of kernels only;
    there the decay is part of the gradient, which the momentum multiplies by 10, so Keras's is made as large."""
    model = _built(*what)
    optimizer = keras.optimizers.SGD(0.1, momentum=0.9, weight_decay=1e-3)
    optimizer.exclude_from_weight_decay(var_names=["gamma", "beta", "bias"])
    model.compile(optimizer, keras.losses.SparseCategoricalCrossentropy(from_logits=True), metrics=["accuracy"])
    return model


def _built(spec, shape, classes, rewired=None, kind=None):
    model = kresnets.build(spec, input_shape=shape, classes=classes, classifier_activation=None)
    if rewired is None:
        return model
    return keras.models.clone_model(model, clone_function=lambda layer: rewired(layer, kind))


def fresh(spec, data, seed, *rewired):
    """Return the compiled network of a row, drawn anew: the same object at each call with the same row and data;
    `rewired`, where it is, is that of `learner` and the kind."""
    what = (spec, data.train.shape[1:], data.classes, *rewired)
    model = _network(*what)
    keras.utils.set_random_seed(seed)
    model.set_weights(_built(*what).get_weights())
    for variable in model.optimizer.variables:  # the rate too, which `learn` sets in each step
        variable.assign(np.zeros(variable.shape, variable.dtype))
    return model


def cosine(peak, epochs):
    """Return a learning rate as a function of the share of a training that is done, 0..1: it rises to its peak in the
    first epoch, then falls to 0 as a cosine."""
    return lambda share: peak * min(1.0, share * epochs + 0.1) * 0.5 * (1 + math.cos(math.pi * share))


def learn(model, data, rate, epochs, seed, batch=64):
    """Train, and return a dict an epoch: `epoch`, `loss` and `error` of the images as they came; the last also has
    what `judged` gives. Where the loss is no number any more, training ends and the error is that of guessing."""
    steps = math.ceil(len(data.train) / batch)
    step = iter(range(steps * epochs))

    def follow(batch, logs):
        model.optimizer.learning_rate = rate(next(step) / steps / epochs)

    keras.utils.set_random_seed(seed)
    callbacks = [keras.callbacks.LambdaCallback(on_train_batch_begin=follow), keras.callbacks.TerminateOnNaN()]
    how = {"batch_size": batch, "epochs": epochs, "verbose": 0, "callbacks": callbacks}
    history = model.fit(data.train, data.train_labels, **how).history
    ends = enumerate(zip(history["loss"], history["accuracy"]), start=1)
    rows = [{"epoch": epoch, "loss": loss, "error": 1 - accuracy} for epoch, (loss, accuracy) in ends]
    rows[-1] |= judged(model, data)
    return rows


def judged(model, data):
    """Return `train_loss`, `train_error`, `test_loss` and `test_error`, in inference."""
    found = {}
    for part in ("train", "test"):
        images, labels = getattr(data, part), getattr(data, f"{part}_labels")
        scores = model.predict(images, batch_size=256, verbose=0).astype("float64")
        if not np.isfinite(scores).all():
            scores = np.zeros_like(scores)
        losses = -log_softmax(scores, axis=1)[np.arange(len(labels)), labels]
        wrong = scores.argmax(1) != labels if np.ptp(scores) else np.full(len(labels), 1 - 1 / data.classes)
        found |= {f"{part}_loss": float(losses.mean()), f"{part}_error": float(np.mean(wrong))}
    return found
