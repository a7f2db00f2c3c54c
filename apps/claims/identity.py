"""A block that starts as F(x) = 0 starts as the identity, so a deeper network starts equal to a shallower one."""

import dataclasses
import re

import keras
import numpy as np
import tensorflow as tf

import kresnets
from claims import scratch
from claims.claim import IMAGES, Claim, Finding, Panel, by_part, grid
from claims.degradation import spec as cifar
from claims.judge import exactly, gap, paired, pick, tested

# Deepened step by step; of the last depth from the start, without and with zero-gamma; of the first depth to the end.
WAYS = ("grown", "scratch", "scratch, zero-gamma", "shallow")


def _settings(options, rows):
    quick, seeds, network = options.quick, options.count(5), scratch.data_of(options, size=8)
    depths, depth, epochs, rates = ("8 14", 14, 3, (0.1,)) if quick else ("20 32 56", 56, 30, (0.03, 0.1))
    starts = grid(**network, part="start", depth=depth, seed=range(seeds))
    plain = [network | {"part": "plain", "depths": depths, "epochs": 3 if quick else 10, "rate": 0.03, "seed": 0}]
    ways = grid(**network, part="train", way=WAYS, depths=depths, epochs=epochs)
    return starts + plain + scratch.tuned(ways, rates, seeds, rows)


def _start(setting):
    """Return, of a network that has learned nothing, each block's share of F(x) in x + F(x) and its gradient."""
    data, rows = scratch.pictures_of(setting), []
    images, labels = data.train[:256], data.train_labels[:256]
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    for zero in (False, True):
        keras.utils.set_random_seed(setting["seed"])
        spec = dataclasses.replace(cifar("residual", setting["depth"]), zero_gamma=zero)
        model = kresnets.build(spec, input_shape=images.shape[1:], classes=data.classes, classifier_activation=None)
        names = [layer.name.removesuffix("_add") for layer in model.layers if layer.name.endswith("_add")]
        sums = keras.Model(model.inputs, [model.get_layer(f"{name}_add").input for name in names] + [model.output])
        with tf.GradientTape() as tape:
            *ends, scores = sums([images], training=True)
            value = loss(labels, scores)
        paths = [variable.path for variable in model.trainable_variables]
        gradients = list(zip(paths, tape.gradient(value, model.trainable_weights)))
        for number, (name, (shortcut, branch)) in enumerate(zip(names, ends), start=1):
            own = tf.linalg.global_norm([gradient for path, gradient in gradients if path.startswith(f"{name}_")])
            share = float(tf.norm(branch) / tf.norm(shortcut))
            told = {"zero_gamma": zero, "block": number, "name": name}
            rows.append(told | {"branch": share, "gradient": float(own)})
    return rows


def _plain(setting):
    """Return what becomes of a trained plain network when blocks of F(x) = 0 are put into it."""
    data, (shallow, *_, deep) = scratch.pictures_of(setting), map(int, setting["depths"].split())
    model = scratch.fresh(cifar("plain", shallow), data, setting["seed"])
    rate = scratch.cosine(setting["rate"], setting["epochs"])
    scratch.learn(model, data, rate, setting["epochs"], setting["seed"])
    deeper = scratch.fresh(cifar("plain", deep), data, setting["seed"])
    for layer in deeper.layers:
        if layer.name in {each.name for each in model.layers}:
            layer.set_weights(model.get_layer(layer.name).get_weights())
        elif re.fullmatch(r"stage\d_block\d+_bn2", layer.name):
            layer.gamma.assign(np.zeros(layer.gamma.shape))
    refused = ""
    try:
        kresnets.deepen(model, {"stage3": 1})
    except ValueError as error:
        refused = str(error)
    before, after = scratch.judged(model, data), scratch.judged(deeper, data)
    return [{"error_before": before["train_error"], "error_after": after["train_error"], "refused": refused}]


def _train(setting):
    """Train one way, all with the computing of the deepest network's epochs; the rate falls with computing spent."""
    data, way, epochs = scratch.pictures_of(setting), setting["way"], setting["epochs"]
    depths = [int(depth) for depth in setting["depths"].split()]
    steps = {"grown": depths, "shallow": depths[:1]}.get(way, depths[-1:])
    spec = dataclasses.replace(cifar("residual", steps[0]), zero_gamma=way == "scratch, zero-gamma")
    model, rows, spent = scratch.fresh(spec, data, setting["seed"]), [], 0.0
    whole, cosine = epochs * _multiply_adds(depths[-1], data), scratch.cosine(setting["rate"], epochs)
    for place, depth in enumerate(steps):
        difference = {}
        if place:
            before = model.predict(data.test, verbose=0)
            model = kresnets.deepen(model, {f"stage{n}": (depth - steps[place - 1]) // 6 for n in (1, 2, 3)})
            difference = {"difference": float(abs(model.predict(data.test, verbose=0) - before).max())}
        cost = _multiply_adds(depth, data)
        # Rounded down: what is grown never gets more.
        passes = max(1, int((whole - spent) / (len(steps) - place) / cost + 1e-9))
        rate = lambda share: cosine(min((spent + share * passes * cost) / whole, 1.0))
        for row in scratch.learn(model, data, rate, passes, setting["seed"]):
            spent += cost
            rows.append(row | {"depth": depth, "compute": spent / whole} | difference)
            difference = {}
        if place < len(steps) - 1:  # judged on the way, but not the end
            rows[-1] = {f"way_{name}" if name[:5] in ("train", "test_") else name: v for name, v in rows[-1].items()}
    return rows


def _multiply_adds(depth, data):
    with keras.StatelessScope(initialize_variables=False):
        model = kresnets.build(cifar("residual", depth), input_shape=data.train.shape[1:], classes=data.classes)
    return kresnets.summarize(model).multiply_adds


def _findings(options, rows):
    (plain,) = pick(rows, part="plain")
    with_zero, without = (pick(rows, part="start", zero_gamma=zero) for zero in (True, False))
    moved = max(row["difference"] for row in rows if "difference" in row)
    claim = "A trained network with added blocks of F(x) = 0 gives the same scores."
    yield Finding(claim, exactly(moved <= 1e-6), f"Largest difference of a score: {moved:.1e}.")
    still, moving = max(row["branch"] for row in with_zero), [row["branch"] for row in without]
    claim = "With zero-gamma each block starts as its shortcut; without, it does not."
    told = f"|F(x)| / |x| at the start: {still:.0e} with, {min(moving):.2f} to {max(moving):.2f} without."
    yield Finding(claim, exactly(still == 0 and min(moving) > 0), told)
    # By how much the first block's gradient is above the last one's, as a power of 10, for each seed.
    spread = []
    for mine in (without, with_zero):
        norms = {seed: [row["gradient"] for row in pick(mine, seed=seed)] for seed in {row["seed"] for row in mine}}
        spread.append({seed: float(np.log10(each[0] / each[-1])) for seed, each in norms.items()})
    ratios = [10 ** np.mean(list(each.values())) for each in spread]
    uneven = paired(*({seed: abs(value) for seed, value in each.items()} for each in spread))
    claim = "At the start the gradients of first and last block differ less with zero-gamma."
    yield tested(claim, uneven, f"First over last: {ratios[0]:.2f} without, {ratios[1]:.2f} with.")
    claim = "A plain network cannot be deepened so: F(x) = 0 makes it forget all."
    told = f"Error on its training images {plain['error_before']:.3f} before, {plain['error_after']:.3f} after."
    yield Finding(claim, exactly(bool(plain["refused"]) and plain["error_after"] > 0.8), told)
    for other in WAYS[1:]:
        for column, what in (("train_loss", "a lower training loss"), ("test_error", "fewer errors on unseen images")):
            gain = gap(rows, column, {"way": other}, {"way": "grown"})
            told = gain.points(2) if column == "test_error" else gain.text(digits=5)
            claim = f"With equal computing, the grown network ends with {what} than '{other}'."
            yield tested(claim, gain, f"'{other}' less 'grown': {told}.")


PANELS = (
    Panel("branch", "block", "zero_gamma"),
    Panel("gradient", "block", "zero_gamma", log=True),
    Panel("loss", "compute", "way", curve=True, log=True),
)
CLAIM = Claim(_settings, by_part(start=_start, plain=_plain, train=_train), _findings, PANELS, IMAGES)
