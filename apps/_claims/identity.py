"""A block that starts as F(x) = 0 starts as the identity, so a deeper network starts equal to a shallower one."""

import dataclasses
import re

import numpy as np

from _claims import rates
from _claims.claim import Claim, Finding
from _claims.degradation import spec as cifar
from _claims.verdicts import above, exactly, interval, paired

# Deepened step by step; of the last depth from the start, without and with zero-gamma; of the first depth to the end.
WAYS = {
    "grown": "#1d4ed8",
    "scratch": "#c2410c",
    "scratch, zero-gamma": "#a16207",
    "shallow": "#64748b",
}
RATES = (0.03, 0.1)


def _settings(options, rows):
    quick, network = options.quick, rates.images(options, size=8)
    depths = "8 14" if quick else "20 32 56"
    seeds = range(options.seeds or (1 if quick else 5))
    starts = [network | {"part": "start", "depth": 14 if quick else 56, "seed": seed} for seed in seeds]
    plain = [network | {"part": "plain", "depths": depths, "epochs": 3 if quick else 10, "rate": 0.03, "seed": 0}]
    ways = [network | {"part": "train", "way": way, "depths": depths, "epochs": 3 if quick else 30} for way in WAYS]
    tried = (0.1,) if quick else RATES
    trained = [row for row in rows if row["part"] == "train"]
    return starts + plain + rates.tuned(ways, tried, len(seeds), trained)


def _measure(setting):
    return {"start": _start, "plain": _plain, "train": _train}[setting["part"]](setting)


def _start(setting):
    """Return, of a network that has learned nothing, each block's share of F(x) in x + F(x) and its gradient."""
    import keras
    import tensorflow as tf

    import kresnets
    from _claims import pictures

    data, rows = pictures.pictures(setting["data"], setting["size"], setting.get("limit")), []
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
        gradients = dict(
            zip((v.path for v in model.trainable_variables), tape.gradient(value, model.trainable_weights))
        )
        for number, (name, (shortcut, branch)) in enumerate(zip(names, ends), start=1):
            own = [gradient for path, gradient in gradients.items() if path.startswith(f"{name}_")]
            rows.append(
                {
                    "zero_gamma": zero,
                    "block": number,
                    "name": name,
                    "branch": float(tf.norm(branch) / tf.norm(shortcut)),
                    "gradient": float(tf.linalg.global_norm(own)),
                }
            )
    return rows


def _plain(setting):
    """Return what becomes of a trained plain network when blocks of F(x) = 0 are put into it."""
    import kresnets
    from _claims import pictures, training

    data = pictures.pictures(setting["data"], setting["size"], setting.get("limit"))
    shallow, *_, deep = map(int, setting["depths"].split())
    model = training.fresh(cifar("plain", shallow), data, setting["seed"])
    training.learn(model, data, training.Cosine(setting["rate"], setting["epochs"]), setting["seed"])
    deeper = training.fresh(cifar("plain", deep), data, setting["seed"])
    for layer in deeper.layers:
        if layer.name in {each.name for each in model.layers}:
            layer.set_weights(model.get_layer(layer.name).get_weights())
        elif re.fullmatch(r"stage\d_block\d+_bn2", layer.name):
            layer.gamma.assign(np.zeros(layer.gamma.shape))
    try:
        kresnets.deepen(model, {"stage3": 1})
        refused = ""
    except ValueError as error:
        refused = str(error)
    before, after = training.judged(model, data), training.judged(deeper, data)
    return [{"error_before": before["train_error"], "error_after": after["train_error"], "refused": refused}]


@dataclasses.dataclass(frozen=True)
class Stretch:
    """A part of one cosine: from the share `begin` of all computing to the share `end`, in `epochs` of equal length."""

    whole: object
    begin: float
    end: float
    epochs: int

    @property
    def batch(self):
        return self.whole.batch

    @property
    def augment(self):
        return self.whole.augment

    def rate(self, epoch):
        """Return the rate at a moment, in epochs since the stretch began."""
        share = self.begin + (self.end - self.begin) * epoch / self.epochs
        return self.whole.rate(min(share, 1.0) * self.whole.epochs)


def _train(setting):
    """Train one way, all ways with the computing of the deepest network's epochs; the rate falls with computing
    spent."""
    import kresnets
    from _claims import pictures, training

    data = pictures.pictures(setting["data"], setting["size"], setting.get("limit"))
    depths = [int(depth) for depth in setting["depths"].split()]
    grown, way, epochs = setting["way"] == "grown", setting["way"], setting["epochs"]
    spec = cifar("residual", depths[0] if way in ("grown", "shallow") else depths[-1])
    spec = dataclasses.replace(spec, zero_gamma=way == "scratch, zero-gamma")
    model, rows, spent = training.fresh(spec, data, setting["seed"]), [], 0.0
    cosine = training.Cosine(setting["rate"], epochs)
    steps = depths if grown else [depths[0] if way == "shallow" else depths[-1]]
    whole = epochs * _multiply_adds(cifar("residual", depths[-1]), data)
    for place, depth in enumerate(steps):
        difference = None
        if place:
            before = model.predict(data.test, verbose=0)
            model = kresnets.deepen(model, _added(steps[place - 1], depth))
            difference = float(abs(model.predict(data.test, verbose=0) - before).max())
        cost = _multiply_adds(cifar("residual", depth), data)
        # Rounded down: what is grown never gets more.
        passes = max(1, int((whole - spent) / (len(steps) - place) / cost + 1e-9))
        stretch = Stretch(cosine, spent / whole, (spent + passes * cost) / whole, passes)
        learned = training.learn(model, data, stretch, setting["seed"])
        for row in learned:
            spent += cost
            row |= {"depth": depth, "compute": spent / whole}
        rows += learned
        if difference is not None:
            learned[0]["difference"] = difference
        if place < len(steps) - 1:  # judged on the way, but not the end
            for column in ("train_loss", "train_error", "test_loss", "test_error"):
                rows[-1][f"way_{column}"] = rows[-1].pop(column)
    return rows


def _added(shallow, deep):
    return {f"stage{stage}": (deep - shallow) // 6 for stage in (1, 2, 3)}


def _multiply_adds(spec, data):
    import keras

    import kresnets

    with keras.StatelessScope(initialize_variables=False):
        model = kresnets.build(spec, input_shape=data.train.shape[1:], classes=data.classes)
    return kresnets.summarize(model).multiply_adds


def _findings(options, rows):
    trained = [row for row in rows if row["part"] == "train"]
    plain = next(row for row in rows if row["part"] == "plain")
    starts = [row for row in rows if row["part"] == "start"]
    moved = max(row["difference"] for row in trained if "difference" in row)
    still = max(row["branch"] for row in starts if row["zero_gamma"])
    moving = [row["branch"] for row in starts if not row["zero_gamma"]]

    def less(one, other, column):
        return paired(*(rates.compared(trained, column, way=way) for way in (other, one)))

    def spread(zero):
        """Return by how much the first block's gradient is above the last one's, as a power of 10, for each seed."""
        found = {}
        for row in starts:
            if row["zero_gamma"] == zero:
                found.setdefault(row["seed"], []).append(row["gradient"])
        return {seed: float(np.log10(each[0] / each[-1])) for seed, each in found.items()}

    ratios = [10 ** np.mean(list(spread(zero).values())) for zero in (False, True)]
    uneven = [{seed: abs(value) for seed, value in spread(zero).items()} for zero in (False, True)]
    found = [
        Finding(
            claim="A trained network with added blocks of F(x) = 0 gives the same scores.",
            verdict=exactly(moved <= 1e-6),
            numbers=f"Largest difference of a score: {moved:.1e}.",
        ),
        Finding(
            claim="With zero-gamma each block starts as its shortcut; without, it does not.",
            verdict=exactly(still == 0 and min(moving) > 0),
            numbers=f"|F(x)| / |x| at the start: {still:.0e} with, {min(moving):.2f} to {max(moving):.2f} without.",
        ),
        Finding(
            claim="At the start the gradients of first and last block differ less with zero-gamma.",
            verdict=above(paired(*uneven)),
            numbers=f"First over last: {ratios[0]:.2f} without, {ratios[1]:.2f} with.",
        ),
        Finding(
            claim="A plain network cannot be deepened so: F(x) = 0 makes it forget all.",
            verdict=exactly(bool(plain["refused"]) and plain["error_after"] > 0.8),
            numbers=(
                f"Error on its training images {plain['error_before']:.3f} before, {plain['error_after']:.3f} after."
            ),
        ),
    ]
    for other in ("scratch", "scratch, zero-gamma", "shallow"):
        for column, what in (("train_loss", "a lower training loss"), ("test_error", "fewer errors on unseen images")):
            gain = less("grown", other, column)
            scale, unit, digits = (100, " points", 2) if column == "test_error" else (1, "", 5)
            found.append(
                Finding(
                    claim=f"With equal computing, the grown network ends with {what} than '{other}'.",
                    verdict=above(gain),
                    numbers=f"'{other}' less 'grown': {gain.text(unit, digits, scale)}.",
                )
            )
    return found


def _draw(options, rows, path):
    from kresnets.report import figures

    made = figures.figure(1100, 420, layout="constrained")
    left, middle, right = made.subplots(1, 3)
    for zero, colour in ((False, WAYS["scratch"]), (True, WAYS["grown"])):
        for axis, column in ((left, "branch"), (middle, "gradient")):
            mine = [row for row in rows if row["part"] == "start" and row["zero_gamma"] == zero]
            blocks = sorted({row["block"] for row in mine})
            means = [interval([row[column] for row in mine if row["block"] == block]).mean for block in blocks]
            axis.plot(blocks, means, "o-", color=colour, label="zero-gamma" if zero else "gamma = 1", markersize=4)
    left.set(title="at the start", xlabel="block", ylabel="|F(x)| / |x|")
    middle.set(title="at the start", xlabel="block", ylabel="norm of the block's gradient", yscale="log")
    for axis in (left, middle):
        axis.legend(frameon=False)
    trained = [row for row in rows if row["part"] == "train" and row["seed"] != rates.TUNING_SEED]
    for way, colour in WAYS.items():
        for seed in sorted({row["seed"] for row in trained}):
            mine = [row for row in trained if (row["way"], row["seed"]) == (way, seed)]
            label = way if seed == 0 else None
            right.plot([r["compute"] for r in mine], [r["loss"] for r in mine], color=colour, alpha=0.6, label=label)
    right.set(title="equal computing", xlabel="share of the computing", ylabel="training loss", yscale="log")
    right.legend(frameon=False)
    for axis in (left, middle, right):
        axis.spines[["top", "right"]].set_visible(False)
    figures.save(made, path)


CLAIM = Claim(
    title="blocks of F(x) = 0 can be added to a trained residual network without changing what it computes",
    source="arXiv 1511.05641 section 2.3 (deepening), 1706.02677 section 5.1 (zero-gamma), 1512.03385 section 1",
    settings=_settings,
    measure=_measure,
    findings=_findings,
    draw=_draw,
    cost=lambda setting: 1.0 if setting["part"] == "start" else 5.0,
    notes=(
        "'grown' starts with the fewest layers and is deepened by `kresnets.deepen`, its optimizer's state with it, "
        "after "
        "each equal share of the computing (multiply-adds times images; rounded down to whole epochs). All ways follow "
        "one cosine over the computing, each at its own best rate of the same few.",
    ),
)
