"""What recipes resolve to, by which facts, and that every route comes to the same."""

import dataclasses
import json
import logging

import keras
import numpy as np
import pytest
import tensorflow as tf
from nets import tiny

import kresnets
from kresnets import Recipe
from kresnets.callbacks import Progress, Schedule
from kresnets.transfer.default import Facts
from kresnets.transfer.head import regression
from kresnets.transfer.plan import resolve
from kresnets.transfer.recipe import RESOLVED
from kresnets.weights import origin
from kresnets.weights.origin import is_pretrained

NAMES = ("stem", "stage1", "stage2", "stage3", "stage4", "head")
rng = np.random.default_rng(0)


def facts(**changes):
    told = dict(groups=NAMES, images=64, steps=2, validation=11, classes=2, pretrained=True, why="")
    return Facts(**told | changes)


def photographs(count=12, size=12):
    labels = np.arange(count) % 2
    return rng.integers(0, 256, (count, size, size, 3), dtype="uint8"), labels


def taught(model):
    """Give the norms statistics, as training would."""
    for layer in model.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.moving_mean.assign(np.full(layer.moving_mean.shape, 0.1, "float32"))
    return model


@pytest.mark.parametrize("pretrained", (True, False))
def test_every_field_is_resolved_and_a_given_one_stays(pretrained):
    default = resolve(Recipe(), facts(pretrained=pretrained)).recipe
    assert default.unresolved == ()
    others = dict(
        head_epochs=2, stages=("stage4",), epochs_per_stage=7, learning_rate=0.5, trunk_learning_rate=0.25, ratio=0.9,
        batchnorm="train",
        optimizer="sgd", weight_decay=None, schedule="constant", warmup=0.0, augment="strong", views=3,
        label_smoothing=0.3, mixup=0.2,
        ema=0.5, keep="best", head="trained",
    )  # fmt: skip
    assert set(others) == set(RESOLVED)
    for name, value in others.items():
        plan = resolve(Recipe(**{name: value}), facts(pretrained=pretrained))
        assert getattr(plan.recipe, name) == value and plan.given == (name,)
        if name not in ("head_epochs", "stages", "learning_rate", "head"):  # on which other fields hang
            assert dataclasses.replace(plan.recipe, **{name: getattr(default, name)}) == default
    whole = Recipe.textbook()
    assert resolve(whole, facts(pretrained=pretrained)).recipe == whole


def test_none_keeps_its_meaning():
    plan = resolve(Recipe(stages=None, weight_decay=None, ema=None, head="trained"), facts())
    assert [stage.group for stage in plan.stages] == ["head", "stage4", "stage3", "stage2"]
    assert plan.recipe.weight_decay is None and plan.recipe.ema is None


def test_the_head_is_solved_unless_the_recipe_says_how_it_trains():
    assert resolve(Recipe(), facts()).recipe.head == "solved"
    for given in (
        dict(head_epochs=3),
        dict(learning_rate=1e-3),
        dict(stages=()),
        dict(advance="plateau"),
        dict(timetable=(("head", 2),)),
    ):
        assert resolve(Recipe(**given), facts()).recipe.head == "trained", given
    for other in (dict(images=10**6, steps=40000), dict(solvable=False), dict(pretrained=False)):
        assert resolve(Recipe(), facts(**other)).recipe.head == "trained"
    waiting = resolve(Recipe(advance="plateau"), facts())
    assert [stage.group for stage in waiting.stages] == [
        "head",
        "stage4",
        "stage3",
        "stage2",
    ] and "up to 10" in waiting.table()


def test_a_fresh_trunk_learns_from_the_first_epoch_on_with_its_norms():
    plan = resolve(Recipe(), facts(pretrained=False))
    assert [stage.group for stage in plan.stages] == ["stem"] and plan.recipe.batchnorm == "train"
    assert len(set(plan.stages[0].rates.values())) == 1


def test_stages_last_by_steps_not_by_epochs():
    for images, batch in ((64, 32), (64, 8), (340, 32), (340, 16), (5000, 32)):
        plan = resolve(Recipe(), facts(steps=-(-images // batch), images=images))
        assert abs(plan.stages[-1].steps - 10 * images**0.5) < plan.facts.steps + 1
        three = resolve(Recipe(stages=None), facts(steps=-(-images // batch), images=images))
        assert three.stages[-1].steps < plan.stages[-1].steps or three.stages[-1].epochs == 3
    assert resolve(Recipe(), facts(steps=3125, images=100_000)).stages[-1].epochs == 3


def test_rates_and_table():
    plan = resolve(
        Recipe(head_epochs=2, stages=("stage3_block2",), epochs_per_stage=3, trunk_learning_rate=0.1, ratio=0.5),
        facts(),
    )
    assert plan.stages[1].rates == {"stem": 0, "stage1": 0, "stage2": 0, "stage3": 0.025, "stage4": 0.05, "head": 0.1}
    assert [(stage.first_epoch, stage.epochs, stage.steps) for stage in plan.stages] == [(0, 2, 4), (2, 3, 6)]
    table = plan.table()
    assert "64 images" in table and "Given: head_epochs, stages" in table
    assert table.splitlines()[-1].split() == ["stage3_block2", "3", "6", "0.1", "0.05", "0.025", *["frozen"] * 3]
    json.dumps(plan.as_data())


def test_an_unresolved_recipe_says_what_it_lacks():
    for ask in (lambda: Recipe().epochs(NAMES), lambda: Recipe().peak_rates(NAMES), lambda: Recipe().rate):
        with pytest.raises(ValueError, match=r"kresnets.plan\(model, train, validation, recipe\)"):
            ask()


def test_every_form_of_the_data_comes_to_the_same_plan(tmp_path):
    images, labels = photographs(75)
    for index, (image, label) in enumerate(zip(images, labels)):
        folder = tmp_path / "train" / str(label)
        folder.mkdir(parents=True, exist_ok=True)
        keras.utils.save_img(folder / f"{index}.png", image)
    from kresnets.data import load_data

    data = load_data(str(tmp_path / "train"))
    model = taught(tiny())
    part, arrays = (
        data.train.batches(32, size=12, shuffle_seed=0),
        (data.train.pixels(12, range(len(data.train))), data.train.labels),
    )
    own = tf.data.Dataset.from_tensor_slices(arrays).batch(32)

    class Sequence(keras.utils.PyDataset):
        def __len__(self):
            return -(-len(arrays[1]) // 32)

        def __getitem__(self, index):
            return tuple(one[index * 32 : (index + 1) * 32] for one in arrays)

    plans = [kresnets.plan(model, source, arrays) for source in (arrays, part, own, Sequence())]
    assert plans[0].facts.images == len(data.train)
    assert all(plan == plans[0] for plan in plans)
    assert kresnets.plan(model, arrays, arrays, Recipe()) == plans[0]


def test_fine_tune_runs_the_plan_and_keeps_its_table(tmp_path, caplog):
    caplog.set_level(logging.INFO, "kresnets")
    data, recipe = photographs(), Recipe(head_epochs=1, epochs_per_stage=1, learning_rate=1e-2)
    model = taught(tiny())
    plan = kresnets.plan(model, data, data, recipe)
    start = model.get_weights()
    history = kresnets.fine_tune(model, data, data, recipe, state_dir=tmp_path, verbose=0)
    assert history.plan == plan
    assert (tmp_path / "plan.txt").read_text() == plan.table() + "\n" and plan.table() in caplog.text
    model.set_weights(start)
    again = kresnets.fine_tune(model, data, data, plan, verbose=0)
    np.testing.assert_allclose(again.history["loss"], history.history["loss"], rtol=1e-5)
    # What the table says is what was done, group by group.
    for stage in plan.stages:
        for group, rate in stage.rates.items():
            logged = history.history[f"learning_rate/{group}"][stage.first_epoch]
            assert (logged > 0) == (rate > 0) and logged <= rate * 1.0001


def test_pretrained_is_what_the_weights_tell(tmp_path):
    fresh = kresnets.SmallResNet20(classes=3)
    known = kresnets.SmallResNet20(weights="kresnets/drawn48", classes=3)
    assert not is_pretrained(fresh)[0] and "kresnets/drawn48" in is_pretrained(known)[1]
    # A mark survives where the statistics would not tell.
    for layer in known.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            layer.moving_mean.assign(np.zeros(layer.moving_mean.shape))
            layer.moving_variance.assign(np.ones(layer.moving_variance.shape))
    for name, model in (("fresh", fresh), ("known", known)):
        model.save(tmp_path / f"{name}.keras")
        model.save_weights(tmp_path / f"{name}.weights.h5")
        assert is_pretrained(keras.saving.load_model(tmp_path / f"{name}.keras"))[0] == (name == "known")
        loaded = kresnets.SmallResNet20(classes=3)
        loaded.load_weights(tmp_path / f"{name}.weights.h5")
        assert is_pretrained(loaded)[0] == (name == "known")
        assert not is_pretrained(keras.models.clone_model(model))[0]  # which starts at random
        assert is_pretrained(kresnets.copy_trunk(model, kresnets.SmallResNet20(classes=2)))[0] == (name == "known")
    # Others are told by their statistics; where there are none, in doubt they are pretrained.
    other = keras.applications.MobileNetV2(weights=None, input_shape=(32, 32, 3), classes=2)
    assert not is_pretrained(other)[0]
    assert is_pretrained(taught(other))[0]
    assert is_pretrained(keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Flatten(), keras.layers.Dense(2)]))[0]
    data = photographs(8, 48)
    for said in (True, False):
        plan = kresnets.plan(fresh, data, pretrained=said)
        assert plan.facts.pretrained == said and "as was said" in plan.table()


@pytest.mark.parametrize("knobs", [{}, {"norm": "group"}, {"norm": "none"}], ids=str)
def test_a_model_that_was_trained_is_pretrained(knobs):
    """Without batch norms' statistics, what group norms and convolutions add tells: 0 until the first step."""
    model = kresnets.build(
        dataclasses.replace(kresnets.SPECS["SmallResNet20"], zero_gamma=False, depths=(1, 1, 1), **knobs)
    )
    assert not is_pretrained(model)[0]
    kresnets.fine_tune(model, photographs(size=48), recipe=Recipe.from_scratch(1), verbose=0)
    assert is_pretrained(model)[0]
    origin.note(model, None)
    assert is_pretrained(model)[0]


@pytest.mark.parametrize(
    ("images", "steps", "mixup"), [(75, 500, 0), (19_999, 500, 0), (20_000, 10_000, 0.1), (500_000, 20_000, 0.1)]
)
def test_bits_rule_is_the_authors(images, steps, mixup):
    """google-research/big_transfer, bit_hyperrule.py: steps, mixup, 0.003 at 512, momentum 0.9."""
    recipe = Recipe.bit(images, 512)
    assert abs(recipe.epochs_per_stage * -(-images // 512) - steps) <= -(-images // 512) / 2
    assert (recipe.mixup, recipe.learning_rate, recipe.optimizer, recipe.momentum) == (mixup, 0.003, "sgd", 0.9)


def test_momentum_reaches_the_optimizer():
    model = tiny()
    kresnets.fine_tune(model, photographs(), recipe=Recipe.bit(8, epochs_per_stage=1, momentum=0.5), verbose=0)
    assert type(model.optimizer).__name__ == "SGD" and model.optimizer.momentum == 0.5
    with pytest.raises(ValueError, match="momentum=0.9 is for an optimizer that has one"):
        Recipe(momentum=0.9, optimizer="adamw")
    with pytest.raises(ValueError, match="momentum=0.9 is for an optimizer that has one"):
        Recipe(momentum=0.9)
    assert "momentum" not in Recipe().as_data() and Recipe(**Recipe.bit(8).as_data()) == Recipe.bit(8)


def test_the_last_epoch_or_the_best_is_kept():
    (x, y), found = photographs(16), {}
    for keep in ("last", "best"):
        model, seen = taught(tiny()), []
        recipe = Recipe(head_epochs=1, epochs_per_stage=4, trunk_learning_rate=3e-2, augment="none", keep=keep, seed=1)
        note = keras.callbacks.LambdaCallback(
            on_epoch_end=lambda epoch, logs: seen.append((logs["val_loss"], model.get_weights()))
        )
        keras.utils.set_random_seed(0)
        kresnets.fine_tune(model, (x, y), (x[::2], 1 - y[::2]), recipe, callbacks=[note], verbose=0)
        wanted = seen[-1] if keep == "last" else min(seen, key=lambda one: one[0])
        found[keep] = seen.index(wanted)
        for mine, theirs in zip(model.get_weights(), wanted[1], strict=True):
            np.testing.assert_array_equal(mine, theirs)
    assert found["last"] != found["best"]  # else the test would tell nothing


DIVERGING = Recipe(
    head_epochs=2,
    stages=("stage3", "stem"),
    epochs_per_stage=2,
    trunk_learning_rate=1e3,
    augment="none",
    optimizer="sgd",
)


@pytest.mark.always("None")
@pytest.mark.parametrize("cut", (None, 4, *(pytest.param(n, marks=pytest.mark.everything) for n in (3, 5))))
def test_a_stage_that_diverges_is_undone_and_said_also_after_a_kill(tmp_path, cut):
    data = photographs(16)

    class Stop(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            if epoch == cut:
                raise KeyboardInterrupt

    def run(callbacks=()):
        keras.utils.set_random_seed(0)
        model, kept = taught(tiny()), []
        note = keras.callbacks.LambdaCallback(
            on_epoch_end=lambda epoch, logs: kept.append(model.get_weights()) if epoch == 1 else None
        )
        history = kresnets.fine_tune(
            model, data, recipe=DIVERGING, callbacks=[note, *callbacks], state_dir=tmp_path, verbose=0
        )
        return model, history, kept

    if cut is not None:
        with pytest.raises(KeyboardInterrupt):
            run([Stop()])
    model, history, kept = run()
    assert [note.split("'")[1] for note in history.notes] == ["stage3", "stem"]
    assert all("was undone" in note and "lower trunk_learning_rate" in note for note in history.notes)
    if kept:
        for mine, theirs in zip(model.get_weights(), kept[0], strict=True):
            np.testing.assert_array_equal(mine, theirs)
    assert all(np.isfinite(weights).all() for weights in model.get_weights())
    again, _, _ = run()  # of a finished run, the same
    for mine, theirs in zip(again.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_array_equal(mine, theirs)


def test_what_counts_as_diverging():
    schedule = Schedule((("head", 2), ("stage4", 2)), undo=True)
    for losses, undone in (
        ((0.7, 0.5, 0.4, 0.3), ()),
        ((0.7, 0.5, 0.6, 0.64), (1,)),
        ((0.7, 0.5, 0.9, 0.54), ()),  # it recovered, within a tenth
        ((0.7, 0.9, 0.6, 0.5), (0,)),
        ((0.7, 0.001, 0.02, 0.009), ()),  # no loss left to speak of
        ((0.7, 0.5, 0.4, float("nan")), (1,)),
    ):
        rows = [{"epoch": epoch, "loss": loss} for epoch, loss in enumerate(losses)]
        assert tuple(index for index, *_ in Progress.replay(schedule, rows).undone) == undone, losses
    plain = dataclasses.replace(schedule, undo=False)
    assert Progress.replay(plain, [{"epoch": e, "loss": float(e)} for e in range(4)]).undone == ()


def test_training_that_ends_too_early_says_so():
    from kresnets.transfer.notes import still_improves

    assert still_improves([1.0, 0.9, 0.8, 0.7, 0.6])
    assert not still_improves([1.0, 0.5, 0.4, 0.41, 0.40001])
    assert not still_improves([1.0, 0.9]) and not still_improves([])
    data = photographs(40)
    x, y = (np.float32(data[0]) * 0.2 + 150 * data[1][:, None, None, None]).clip(0, 255).astype("uint8"), data[1]
    model = taught(tiny())
    recipe = Recipe(head_epochs=4, stages=(), learning_rate=1e-2, schedule="constant", augment="none")
    history = kresnets.fine_tune(model, (x, y), (x, y), recipe, verbose=0)
    assert history.history["val_loss"][-1] == min(history.history["val_loss"])
    (note,) = history.notes
    assert "still improved" in note and "head_epochs=8" in note


@pytest.mark.parametrize(
    "wrong", (dict(recipe="best"), dict(recipe=Recipe(), pretrained="yes"), dict(recipe=Recipe(), train=3))
)
def test_bad_input_gets_a_sentence(wrong):
    wanted = {"train": "`train` must be", "pretrained": "`pretrained` must be", "recipe": "`recipe` must be"}[
        list(wrong)[-1]
    ]
    with pytest.raises(ValueError, match=wanted):
        kresnets.plan(**{"model": tiny(), "train": photographs(), **wrong})


# --- the head that is solved ---


@pytest.mark.parametrize(("n", "classes"), ((60, 2), (60, 4), (200, 4)))
def test_a_solved_head_gives_the_probabilities_of_scikit_learn(n, classes):
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    labels = np.arange(n) % classes
    features = rng.normal(size=(n, 96)) + np.eye(classes, 96)[labels] * 2
    features[:, 7] = 3.0  # one that never changes
    weights = rng.uniform(0.5, 2, n)
    kernel, bias, strength = regression(features, labels, classes, weights)
    theirs = make_pipeline(StandardScaler(), LogisticRegression(C=strength, max_iter=5000, tol=1e-6))
    theirs.fit(features, labels, logisticregression__sample_weight=weights)
    logits = features @ kernel + bias
    ours = np.exp(logits - logits.max(1, keepdims=True))
    np.testing.assert_allclose(ours / ours.sum(1, keepdims=True), theirs.predict_proba(features), atol=1e-3)


def test_a_class_without_images_gets_next_to_no_probability():
    kernel, bias, _ = regression(rng.normal(size=(20, 5)), 2 * (np.arange(20) % 2), 4)
    logits = rng.normal(size=(50, 5)) @ kernel + bias
    assert set(logits.argmax(1)) == {0, 2}


@pytest.mark.always("dataset")
@pytest.mark.parametrize("form", (pytest.param("arrays", marks=pytest.mark.everything), "dataset", "logits", "weights"))
def test_fine_tune_begins_at_the_solved_head(form):
    x, y = photographs(24)
    y = np.arange(24) % 3
    x = np.float32(x) * np.float32(0.3) + np.float32(50) * y[:, None, None, None].astype("float32")
    model = taught(tiny())
    if form == "logits":
        model.get_layer("head_dense").activation = keras.activations.linear
    source = tf.data.Dataset.from_tensor_slices((x, y)).batch(10) if form == "dataset" else (x, y)
    weights = {0: 1.0, 1: 5.0} if form == "weights" else None
    pooled = keras.Model(model.input, model.get_layer("head_pool").output)
    features = pooled.predict(kresnets.preprocessing_of(model)(x), verbose=0).astype("float64")
    kernel, bias, _ = regression(
        features, y, 3, None if weights is None else np.array([weights.get(one, 1.0) for one in y])
    )
    seen = []
    look = keras.callbacks.LambdaCallback(
        on_train_begin=lambda logs: seen.append(model.get_layer("head_dense").get_weights())
    )
    recipe = Recipe(head="solved", stages=("stage3",), epochs_per_stage=1)
    history = kresnets.fine_tune(model, source, recipe=recipe, callbacks=[look], class_weight=weights, verbose=0)
    for mine, wanted in zip(seen[0], (kernel, bias)):
        np.testing.assert_allclose(mine, wanted, rtol=1e-3, atol=1e-3 * np.abs(wanted).max())
    assert history.plan.recipe.head_epochs == 0


def test_a_head_that_cannot_be_solved_is_trained_or_refused():
    base = taught(kresnets.CifarResNet8(include_top=False, pooling="avg", input_shape=(12, 12, 3)))
    hidden = keras.layers.Dense(4, activation="relu", name="head_hidden")(base.output)
    model = keras.Model(base.input, keras.layers.Dense(2, activation="softmax", name="head_dense")(hidden))
    plan = kresnets.plan(model, photographs())
    assert plan.recipe.head == "trained" and plan.recipe.head_epochs > 0
    with pytest.raises(ValueError, match="head='trained'"):
        kresnets.fine_tune(model, photographs(), recipe=Recipe(head="solved"), verbose=0)
    own = keras.losses.SparseCategoricalCrossentropy()
    assert kresnets.plan(taught(tiny()), photographs(), loss=own).recipe.head == "trained"


def test_a_random_layer_before_the_head_is_no_dead_end():
    base = taught(kresnets.CifarResNet8(include_top=False, pooling="avg", input_shape=(12, 12, 3)))
    noisy = keras.layers.GaussianNoise(0.1, name="head_noise")(base.output)
    model = keras.Model(base.input, keras.layers.Dense(2, activation="softmax", name="head_dense")(noisy))
    flags = [layer.trainable for layer in model.layers]
    assert kresnets.plan(model, photographs()).recipe.head == "trained"
    assert [layer.trainable for layer in model.layers] == flags  # to look changes nothing
    dropped = keras.Model(
        base.input,
        keras.layers.Dense(2, activation="softmax", name="head_dense")(keras.layers.Dropout(0.5)(base.output)),
    )
    assert kresnets.plan(dropped, photographs()).recipe.head == "solved"


@pytest.mark.always("False")
@pytest.mark.parametrize("resumed", (False, True))
def test_a_solved_head_that_is_ruined_in_its_first_epoch_comes_back(tmp_path, resumed):
    x, y = photographs(24)
    x[y == 1] //= 4
    model, seen = taught(tiny(classes=2)), []

    class Stop(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            if resumed and epoch == 1:
                raise KeyboardInterrupt

    recipe = Recipe(epochs_per_stage=3, trunk_learning_rate=1e3, optimizer="sgd", augment="none", warmup=0.0)
    look = keras.callbacks.LambdaCallback(on_train_begin=lambda logs: seen.append(model.get_weights()))

    def run(*callbacks):
        return kresnets.fine_tune(model, (x, y), recipe=recipe, callbacks=callbacks, state_dir=tmp_path, verbose=0)

    if resumed:
        with pytest.raises(KeyboardInterrupt):
            run(look, Stop())
    history = run(look)
    (note,) = history.notes
    assert "no better than chance" in note and "undone" in note
    for mine, wanted in zip(model.get_weights(), seen[0], strict=True):
        np.testing.assert_array_equal(mine, wanted)
    answers = model.predict(kresnets.preprocessing_of(model)(x.astype("float32")), verbose=0)
    assert np.mean(answers.argmax(1) == y) > 0.9


def test_what_a_stage_after_a_solved_head_has_to_stay_below():
    labels = np.array([0] * 18 + [1] * 6)
    schedule = Schedule((("stem", 2),), undo=True, enters=0.9 * -(0.75 * np.log(0.75) + 0.25 * np.log(0.25)))
    # 0.5623: of whoever knows the shares alone
    for loss, undone in ((0.3, False), (0.5, False), (0.5623, True), (40.0, True)):
        rows = [{"epoch": epoch, "loss": loss} for epoch in range(2)]
        assert bool(Progress.replay(schedule, rows).undone) == undone, loss
    model = taught(tiny(classes=2))
    kresnets.fine_tune(model, (photographs(24)[0], labels), recipe=Recipe(epochs_per_stage=1), verbose=0)


@pytest.mark.everything
def test_a_fresh_model_goes_on_in_the_same_process(tmp_path):
    model, data, recipe = tiny(classes=2), photographs(), Recipe(epochs_per_stage=2, augment="none")

    class Stop(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        kresnets.fine_tune(model, data, recipe=recipe, callbacks=[Stop()], state_dir=tmp_path, verbose=0)
    history = kresnets.fine_tune(model, data, recipe=recipe, state_dir=tmp_path, verbose=0)
    assert history.epoch == [0, 1] and not history.plan.facts.pretrained


@pytest.mark.everything
def test_training_with_frozen_norms_is_training_too(tmp_path):
    model = tiny(classes=2)
    kresnets.fine_tune(
        model, photographs(), recipe=Recipe(batchnorm="frozen", epochs_per_stage=1), pretrained=False, verbose=0
    )
    assert is_pretrained(model)[0]
    again = kresnets.CifarResNet8(classes=2, input_shape=(16, 16, 3))
    kresnets.fine_tune(again, photographs(8, 16), recipe=Recipe(batchnorm="frozen", epochs_per_stage=1), verbose=0)
    again.save_weights(tmp_path / "m.weights.h5")
    assert is_pretrained(kresnets.CifarResNet8(classes=2, input_shape=(16, 16, 3), weights=tmp_path / "m.weights.h5"))[
        0
    ]
    assert not is_pretrained(keras.models.clone_model(kresnets.CifarResNet8()))[0]


def test_of_a_fresh_trunk_the_head_alone_can_train():
    assert resolve(Recipe(stages=()), facts(pretrained=False)).recipe.head_epochs > 0


def test_few_images_leave_the_early_layers_alone():
    few, many = (resolve(Recipe(), facts(images=n, steps=-(-n // 32))).recipe.stages for n in (85, 1700))
    assert (few, many) == (("stage3",), ("stem",))
    for names in (("head",), ("body", "head"), ("a", "b", "head")):
        assert resolve(Recipe(), facts(groups=names)).recipe.stages == names[-2:-1]


def test_arrays_and_datasets_of_many_batches_come_to_the_same_plan():
    x, y = np.zeros((1217, 12, 12, 3), "uint8"), np.arange(1217) % 3
    model = taught(tiny())
    plans = [kresnets.plan(model, source) for source in ((x, y), tf.data.Dataset.from_tensor_slices((x, y)).batch(32))]
    assert plans[0].recipe == plans[1].recipe and plans[0].facts.images == 1217


def test_a_dataset_of_bytes_is_augmented():
    x, y = photographs()
    dataset = tf.data.Dataset.from_tensor_slices((x, y)).batch(4)
    history = kresnets.fine_tune(
        tiny(classes=2), dataset, recipe=Recipe(epochs_per_stage=1, augment="light"), verbose=0
    )
    assert np.isfinite(history.history["loss"]).all()


@pytest.mark.parametrize(
    ("recipe", "longer"),
    (
        (dict(advance="plateau", max_epochs_per_stage=4, patience=3, stages=()), "max_epochs_per_stage=8"),
        (dict(timetable=(("head", 4),)), "a longer last stage"),
    ),
)
def test_the_advice_to_go_on_names_what_makes_a_stage_longer(recipe, longer):
    x, y = photographs(40)
    x = (np.float32(x) * 0.2 + 150 * y[:, None, None, None]).clip(0, 255).astype("uint8")
    told = Recipe(**recipe, learning_rate=1e-2, schedule="constant", augment="none", head="trained")
    (note,) = kresnets.fine_tune(taught(tiny()), (x, y), (x, y), told, verbose=0).notes
    assert longer in note


X, Y = photographs(16)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    (
        (dict(recipe=Recipe(stages=("nope",))), "no group or block 'nope'"),
        (dict(recipe=Recipe(stages=("stage3", "stage3"))), "must go deeper"),
        (dict(model=3), "Keras model"),
        (dict(train=(X[:, :8], Y)), "takes images of shape"),
        (dict(train=(np.where(X > 250, np.nan, X), Y)), "holds NaN or infinity"),
        (dict(train=(X, Y + 0.5)), "Labels must be whole numbers 0 to 2.*Received: 0.5"),
        (dict(train=(X, Y + 9)), "Labels must be whole numbers 0 to 2"),
        (dict(validation=(X, Y + 9)), "Labels must be whole numbers 0 to 2"),
        (dict(train=tf.data.Dataset.from_tensor_slices(X).batch(4)), "must give batches"),
        (dict(train=tf.data.Dataset.from_tensor_slices((X, Y))), "put them into batches"),
        (dict(train=tf.data.Dataset.from_tensor_slices({"x": X, "y": Y}).batch(4)), "must give batches"),
        (
            dict(train=tf.data.Dataset.from_tensor_slices((X, Y.astype(str))).batch(4)),
            "labels must be numbers. Received: string",
        ),
    ),
)
def test_a_plan_checks_what_fine_tune_checks(arguments, sentence):
    given = {"model": taught(tiny()), "train": (X, Y)} | arguments
    with pytest.raises(ValueError, match=sentence):
        kresnets.plan(**given)
    with pytest.raises(ValueError, match=sentence):
        kresnets.fine_tune(**given, verbose=0)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    (
        (dict(class_weight="uniform"), "`class_weight` must be a dict"),
        (dict(class_weight={"0": 1.0}), "`class_weight` must be a dict"),
        (dict(class_weight={0: -1.0}), "`class_weight` must be a dict"),
        (dict(class_weight={7: 1.0}), "`class_weight` must be a dict"),
        (dict(train=(X, Y, -np.ones(16))), "weights of the images must be numbers from 0"),
        (dict(train=(X, Y, np.zeros(16))), "weights of the images must be numbers from 0"),
    ),
)
def test_weights_that_are_none_get_a_sentence(arguments, sentence):
    with pytest.raises(ValueError, match=sentence):
        kresnets.fine_tune(**{"model": taught(tiny()), "train": (X, Y)} | arguments, verbose=0)


def test_numbers_of_numpy_are_numbers():
    recipe = Recipe(head_epochs=np.int64(3), ratio=np.float32(0.5), ema=np.float64(0.9))
    assert (recipe.head_epochs, recipe.ratio) == (3, 0.5) and json.dumps(dataclasses.asdict(recipe))
    for wrong in (dict(ratio=10**400), dict(augment=np.array(["a", "b"])), dict(timetable=(("head", {"x": 1}),))):
        with pytest.raises(ValueError, match="Recipe: `"):
            Recipe(**wrong)


class Stopped(keras.callbacks.Callback):
    def on_epoch_end(self, epoch, logs=None):
        raise KeyboardInterrupt


@pytest.mark.everything
def test_an_augmentation_of_ones_own_goes_on_after_a_kill_as_if_there_had_been_none(tmp_path):
    def run(folder, *callbacks):
        keras.utils.set_random_seed(0)
        flip = keras.layers.RandomFlip("horizontal")  # another object in each process
        recipe = Recipe(epochs_per_stage=3, augment=flip, batchnorm="train")
        model = tiny(classes=2)
        history = kresnets.fine_tune(
            model, (X, Y), recipe=recipe, state_dir=folder, callbacks=callbacks, pretrained=False, verbose=0
        )
        return model, history

    whole, history = run(tmp_path / "whole")
    assert "RandomFlip(data_format=channels_last, mode=horizontal)" in history.plan.table()
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "cut", Stopped())
    resumed, _ = run(tmp_path / "cut")
    for mine, wanted in zip(resumed.get_weights(), whole.get_weights(), strict=True):
        np.testing.assert_array_equal(mine, wanted)
    json.dumps(history.plan.as_data())


def test_a_plan_of_so_many_epochs(tmp_path):
    model = taught(tiny())
    plan = kresnets.plan(model, (X, Y), recipe=Recipe.textbook(head_epochs=6, stages=("stage3", "stem")))
    assert [stage.epochs for stage in plan.stages] == [6, 3, 3]
    for epochs, wanted in ((12, [6, 3, 3]), (24, [12, 6, 6]), (5, [2, 2, 1]), (3, [1, 1, 1])):
        lasting = plan.lasting(epochs)
        assert [stage.epochs for stage in lasting.stages] == wanted and lasting.epochs == epochs
    with pytest.raises(ValueError, match="at least 3, 1 for each stage \\(head, stage3, stem\\)"):
        plan.lasting(2)
    with pytest.raises(ValueError, match="wait for a plateau"):
        kresnets.plan(model, (X, Y), recipe=Recipe(advance="plateau")).lasting(9)
    history = kresnets.fine_tune(model, (X, Y), recipe=plan.lasting(5), verbose=0)
    counts = history.history["trainable_parameters"]  # of the head alone, of stage3 and above, of all
    assert counts[0] == counts[1] < counts[2] == counts[3] < counts[4] and len(counts) == 5
    with pytest.raises(ValueError, match="Plan made for 1 steps an epoch, and `train` has 2"):
        kresnets.fine_tune(model, (np.repeat(X, 3, 0), np.repeat(Y, 3)), recipe=plan, verbose=0)


# --- callbacks and class weights of one's own ---


@pytest.mark.always("arrays")
@pytest.mark.parametrize("kind", ["arrays", "dataset"])
def test_balanced_is_scikit_learns_balanced(kind):
    images, labels = photographs(12)
    labels = np.array([0] * 9 + [1] * 3)
    source = (images, labels) if kind == "arrays" else tf.data.Dataset.from_tensor_slices((images, labels)).batch(4)
    recipe = Recipe(head="trained", head_epochs=2, stages=(), learning_rate=1e-2, augment="none")
    found = []
    for weight in ("balanced", {0: 12 / 18, 1: 12 / 6}, None):
        keras.utils.set_random_seed(0)
        found.append(kresnets.fine_tune(tiny(), source, recipe=recipe, class_weight=weight, verbose=0).history["loss"])
    np.testing.assert_allclose(found[0], found[1], rtol=1e-6)
    assert not np.allclose(found[0], found[2], rtol=1e-3)


def test_a_callback_that_cannot_work_is_refused_and_one_that_stops_early_is_said():
    recipe = Recipe(head="trained", head_epochs=2, stages=("stage2",), epochs_per_stage=2, learning_rate=1e-2)
    reduce = keras.callbacks.ReduceLROnPlateau(monitor="loss")
    schedule = keras.callbacks.LearningRateScheduler(lambda epoch: 1e-3)
    for given in ([reduce], keras.callbacks.CallbackList([reduce]), schedule):
        with pytest.raises(ValueError, match="has a (Red|Lea).*, which cannot set a rate that follows a cosine"):
            kresnets.fine_tune(tiny(), photographs(), recipe=recipe, callbacks=given, verbose=0)
    constant = dataclasses.replace(recipe, schedule="constant")
    kresnets.fine_tune(tiny(), photographs(), recipe=constant, callbacks=[reduce], verbose=0)

    class StopsAfter(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            self.model.stop_training = epoch == 1

    stopped = kresnets.fine_tune(tiny(), photographs(), recipe=recipe, callbacks=[StopsAfter()], verbose=0)
    assert stopped.notes[0].startswith("A callback stopped the training after 2 of 4 epochs, before the stage 'stage2'")
    whole = kresnets.fine_tune(tiny(), photographs(), recipe=recipe, verbose=0)
    assert not any("A callback" in note for note in whole.notes)


@pytest.mark.always("cosine")
@pytest.mark.parametrize("schedule", ["cosine", "constant"])
def test_the_plan_tells_the_rates_that_the_history_shows(schedule):
    recipe = Recipe.textbook(head_epochs=2, epochs_per_stage=2, schedule=schedule, stages=("stage3", "stage2"))
    history = kresnets.fine_tune(tiny(), photographs(40), recipe=recipe, verbose=0)
    for group in history.plan.facts.groups:
        told = [history.plan.rate(group, epoch) for epoch in range(history.plan.epochs)]
        np.testing.assert_allclose(told, history.history[f"learning_rate/{group}"], rtol=1e-5, err_msg=group)
    with pytest.raises(ValueError, match="`group` must be one of stem, .* and `epoch` from 0 to 5"):
        history.plan.rate("stage2", 6)


def test_a_rate_that_plays_no_role_is_said():
    for given, said in (({"learning_rate": 0.1}, True), ({"learning_rate": 0.1, "trunk_learning_rate": 0.1}, False)):
        made = kresnets.plan(tiny(), photographs(), recipe=Recipe(**given), pretrained=False)
        assert ("`learning_rate` plays no role" in made.table()) == said


def test_data_that_are_no_batches_yet_get_a_hint():
    from kresnets.data import Part

    images, labels = photographs(4)
    encoded = [tf.io.encode_png(image.astype("uint8")).numpy() for image in images]
    part = Part([f"{number}.png" for number in range(4)], labels, encoded, ("a", "b"))
    with pytest.raises(
        ValueError, match=r"`train` must come in batches: give part.batches\(32, size=224\), of the size"
    ):
        kresnets.fine_tune(tiny(), part, verbose=0)
