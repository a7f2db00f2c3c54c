"""The feature cache against the same training without it, and against what the files and the models it makes say."""

import dataclasses
import logging
import os
import shutil
import subprocess
import sys
import types

import keras
import numpy as np
import pytest
from nets import TINY, Stop, StopAfter, photographs, tiny, unchanged_groups, weights
from places import python_path

import kresnets
from kresnets import FeatureCache, Recipe, fine_tune
from kresnets._util import store
from kresnets.transfer.cache import features, fit

RECIPE = Recipe.textbook(
    head_epochs=2, epochs_per_stage=1, learning_rate=0.01, trunk_learning_rate=0.01, optimizer="sgd", augment="none"
)
HEAD = dataclasses.replace(RECIPE, stages=())
TWO = dataclasses.replace(RECIPE, stages=("stage3",))


@pytest.fixture
def passes(monkeypatch):
    """List how many images each pass through a frozen part saw."""
    seen, original = [], features._fill

    def counting(head, targets, source, views, *rest):
        seen.append(views * source.count)
        return original(head, targets, source, views, *rest)

    monkeypatch.setattr(features, "_fill", counting)
    return seen


def compare(train, validation, recipe=RECIPE, make=tiny, **options):
    """Fine-tune without and with the cache; hold weights and histories against each other; return model and history."""
    plain, cached = make(), make()
    before = weights(plain)
    expected = fine_tune(plain, train, validation, recipe, cache=False, verbose=0, **options)
    history = fine_tune(cached, train, validation, recipe, cache=True, verbose=0, **options)
    assert list(history.history) == list(expected.history) and history.epoch == expected.epoch
    for name, column in expected.history.items():
        np.testing.assert_allclose(history.history[name], column, rtol=1e-5, atol=1e-5, err_msg=name)
    for path, value in weights(plain).items():
        np.testing.assert_allclose(weights(cached)[path], value, atol=1e-5, err_msg=path)
    assert unchanged_groups(cached, before) == unchanged_groups(plain, before)
    return cached, history


@pytest.mark.always("knobs1")
@pytest.mark.parametrize(
    "knobs",
    [
        dict(),
        dict(optimizer="adamw", ema=0.8, label_smoothing=0.1, batchnorm="train", stages=("stage3",)),
    ],
)
def test_training_on_features_equals_training_on_images(passes, knobs):
    x, y = photographs(40)
    sample_weight = np.linspace(0.5, 2, 40).astype("float32")
    recipe = dataclasses.replace(RECIPE, **knobs)
    # Dropout before the head draws in each step, so the curves are equal only if it draws the same.
    model, history = compare((x, y, sample_weight), photographs(20, seed=1), recipe, lambda: tiny(dropout=0.4))
    assert passes == [40, 20]  # one pass fed all stages
    assert len(set(history.history["trainable_parameters"])) == (2 if knobs else 3)
    assert "train_step" not in vars(model) and "finalize_variable_values" not in vars(model.optimizer)


def test_folds_share_one_pass(passes, tmp_path):
    tf = pytest.importorskip("tensorflow")
    images, _ = photographs(24)
    contents = [tf.io.encode_png(image.astype("uint8")).numpy() for image in images]
    names = [f"{row:02d}.png" for row in range(24)]
    whole = kresnets.data.Part(names, np.arange(24) % 2, contents, ["a", "b"], progress=False)
    held, size = [range(8), range(8, 16)], images.shape[1]
    for shared, cache in ((False, lambda: False), (True, lambda: store.SharedStore(tmp_path))):
        curves = []
        for rows in held:
            learned = whole.subset([row for row in range(24) if row not in rows], shared)
            judged = whole.subset(rows, shared)
            train = learned.batches(4, size, shuffle_seed=0, epoch=kresnets.data.epoch_variable())
            curves.append(fine_tune(tiny(), train, judged.batches(4, size), HEAD, cache(), verbose=0).history)
        if not shared:
            expected, before = curves, list(passes)
    assert before == [] and passes == [24]  # one for both folds, for training and validation
    for one, other in zip(curves, expected):
        for name in one:
            np.testing.assert_allclose(one[name], other[name], rtol=1e-5, atol=1e-5, err_msg=name)


def test_each_stage_has_its_own_pass_where_memory_is_short(passes, monkeypatch, tmp_path):
    monkeypatch.setattr(store, "memory_limit", lambda: 0)
    monkeypatch.setattr(fit, "memory_limit", lambda: 0)
    seen = []
    watch = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: seen.append(len(list((tmp_path / "features").glob("features-*.npy"))))
    )
    x, y = photographs(20)
    fine_tune(tiny(), (x, y), (x, y), TWO, cache=True, state_dir=tmp_path, callbacks=[watch], verbose=0)
    assert passes == [20] * 2  # one a stage: validation is the training set, whose file is found
    assert seen == [1] * 3 and not (tmp_path / "features").exists()


@pytest.mark.everything
@pytest.mark.parametrize("kind", ["dataset", "part", "pydataset"])
def test_any_source_is_drawn_in_its_own_order(kind, passes):
    tf = pytest.importorskip("tensorflow")
    x, y = photographs(40)
    if kind == "dataset":
        compare(tf.data.Dataset.from_tensor_slices((x, y)).batch(16), None, TWO)
    elif kind == "pydataset":
        compare(Slices(x, y), None, HEAD)
    else:
        from kresnets.data import Part, epoch_variable

        epoch = epoch_variable()
        part = Part(map(str, range(40)), y, [tf.io.encode_png(image).numpy() for image in x], "abc", progress=False)
        train = part.batches(16, 12, shuffle_seed=3, epoch=epoch)
        compare(train, part.batches(16, 12), TWO, epoch=epoch)
        orders = []
        for number in range(2):
            epoch.assign(number)
            orders.append(np.concatenate(list(train.kresnets_rows.order.as_numpy_iterator())))
            np.testing.assert_array_equal(y[orders[-1]], np.concatenate([labels for _, labels in train]))
        assert orders[0].tolist() != orders[1].tolist()


class Slices(keras.utils.PyDataset):
    def __init__(self, x, y, change=None):
        super().__init__()
        self.x, self.y, self.change = x, y, change

    def __len__(self):
        return 3

    def __getitem__(self, index):
        images = self.x[index::3] if self.change is None else self.change(self.x[index::3])
        return images.astype("float32"), self.y[index::3]


@pytest.mark.everything
def test_a_pipeline_that_shuffles_is_kept_and_one_that_changes_its_images_is_not(passes, caplog):
    tf = pytest.importorskip("tensorflow")
    caplog.set_level(logging.INFO, "kresnets")
    x, y = photographs(24)
    slices = tf.data.Dataset.from_tensor_slices((x, y))
    fine_tune(tiny(), slices.shuffle(24).batch(8), recipe=HEAD, cache=True, verbose=0)
    assert passes == [24] and "shuffled by the recipe's seed" in caplog.text
    rng = np.random.default_rng(0)
    spec = (tf.TensorSpec((12, 12, 3), tf.float32), tf.TensorSpec((), tf.int64))
    noisy = tf.data.Dataset.from_generator(lambda: ((a + rng.random(), b) for a, b in zip(x, y)), output_signature=spec)
    for changing in (noisy.batch(8), Slices(x, y, lambda images: images + rng.random())):
        caplog.clear()
        fine_tune(tiny(), changing, recipe=HEAD, cache=True, verbose=0)
        assert passes == [24] and "goes uncached" in caplog.text


class Counting(keras.layers.Layer):
    """Count the batches that pass."""

    def build(self, shape):
        self.count = self.add_weight(shape=(), dtype="int32", initializer="zeros", trainable=False)

    def call(self, inputs):
        self.count.assign_add(1)
        return inputs + 0.0


@pytest.mark.parametrize("cache", [False, True])
def test_the_frozen_part_runs_once_for_each_batch(cache):
    keras.utils.set_random_seed(0)
    images = keras.Input((12, 12, 3))
    counter = Counting()
    model = kresnets.build(TINY, input_tensor=counter(images), classes=3)
    recipe = dataclasses.replace(RECIPE, head_epochs=2, stages=("stage3",))
    before = int(counter.count.numpy())
    fine_tune(model, photographs(70), photographs(20), recipe, cache=cache, verbose=0)
    # 3 batches of 70 and 1 of 20; and two looks each at whether a layer of unknown make does the same in training.
    assert int(counter.count.numpy()) - before == (4 + 2 * 2 if cache else 3 * 4)


def test_callbacks_see_one_whole_model_in_one_training(tmp_path):
    x, y = photographs(40)
    calls, model = [], tiny()
    told = keras.callbacks.LambdaCallback(
        on_train_begin=lambda logs: calls.append("begin"),
        on_epoch_begin=lambda epoch, logs: calls.append(epoch),
        on_epoch_end=lambda epoch, logs: calls.append(
            (told.model is model, told.model.evaluate(x, y, verbose=0) and told.model.predict(x[:2], verbose=0).shape)
        ),
        on_train_end=lambda logs: calls.append("end"),
    )  # fmt: skip
    saved = keras.callbacks.ModelCheckpoint(tmp_path / "{epoch}.keras")
    history = fine_tune(model, (x, y), (x, y), TWO, cache=True, callbacks=[told, saved], verbose=0)
    assert calls == ["begin", 0, (True, (2, 3)), 1, (True, (2, 3)), 2, (True, (2, 3)), "end"]
    assert history is model.history and history.epoch == [0, 1, 2]
    loaded = keras.models.load_model(tmp_path / "3.keras")
    assert [layer.name for layer in loaded.layers] == [layer.name for layer in model.layers]
    best = keras.models.load_model(tmp_path / f"{1 + int(np.argmin(history.history['val_loss']))}.keras")
    prepared = kresnets.preprocess_input(x[:4].astype("float32"))
    np.testing.assert_allclose(best.predict(prepared, verbose=0), model.predict(prepared, verbose=0), atol=1e-5)
    model.fit(prepared, y[:4], verbose=0)  # an ordinary fit follows


def test_early_stopping_ends_all_stages():
    stop = keras.callbacks.EarlyStopping("loss", min_delta=100, patience=1)
    history = fine_tune(tiny(), photographs(), recipe=RECIPE, cache=True, callbacks=stop, verbose=0)
    assert history.epoch == [0, 1]


@pytest.mark.everything
def test_interrupted_anywhere_a_cached_run_goes_on_to_the_same(tmp_path, passes, monkeypatch):
    monkeypatch.setattr(store, "memory_limit", lambda: 1000)
    monkeypatch.setattr(fit, "memory_limit", lambda: 1000)
    x, y = photographs(70)
    whole = tiny(dropout=0.3)
    expected = fine_tune(whole, (x, y), (x, y), TWO, cache=False, verbose=0)
    for batches in (5, 4, 100):
        model = tiny(dropout=0.3)
        stop = StopAfter(batches)
        try:
            history = fine_tune(model, (x, y), (x, y), TWO, cache=True, callbacks=[stop], state_dir=tmp_path, verbose=0)
        except Stop:
            assert "train_step" not in vars(model)
    np.testing.assert_allclose(history.history["loss"], expected.history["loss"], rtol=1e-5)
    for path, value in weights(whole).items():
        np.testing.assert_allclose(weights(model)[path], value, atol=1e-6, err_msg=path)
    assert len(passes) == 2  # once for each stage, however often interrupted


@pytest.mark.everything
def test_a_second_run_finds_the_features_of_the_first(tmp_path, passes):
    recipe = dataclasses.replace(HEAD, head_epochs=1)
    (x, y), other = photographs(20), photographs(20, seed=5)
    for model, train in ((tiny(), (x, y)), (tiny(), (x, y)), (tiny(seed=1), (x, y)), (tiny(), other), (tiny(), (x, y))):
        fine_tune(model, train, recipe=recipe, cache=tmp_path / "kept", verbose=0)
    assert passes == [20] * 3
    assert len(list((tmp_path / "kept").iterdir())) == 3


@pytest.mark.always("bfloat16")
@pytest.mark.parametrize("dtype", [None, "bfloat16", "float16"])
def test_features_are_those_of_the_layer_and_lie_in_a_numpy_file(tmp_path, dtype):
    model = kresnets.freeze(tiny(), through="stage2")
    x = np.random.default_rng(0).normal(size=(10, 12, 12, 3)).astype("float32")
    witness = keras.Model(model.input, model.get_layer("stage2_block2_out").output).predict(x, verbose=0)
    cache = FeatureCache(model, through="stage2", folder=tmp_path, memory=0, dtype=dtype, progress=False)
    found, labels = cache.compute((x, np.arange(10)))
    assert cache.name == "stage2_block2_out" and found.dtype.name == (dtype or "float32")
    tolerance = dict(rtol=1e-5, atol=1e-5) if dtype in (None, "float32") else dict(rtol=1e-2, atol=1e-2)
    np.testing.assert_allclose(found.astype("float32"), witness, **tolerance)
    np.testing.assert_array_equal(labels, np.arange(10))
    (file,) = tmp_path.iterdir()
    assert file.suffix == ".npy" and np.load(file, allow_pickle=False).nbytes == found.nbytes
    if dtype is None:
        np.testing.assert_array_equal(np.load(file, allow_pickle=False), found)
    cache.tail.compile("sgd", "sparse_categorical_crossentropy")
    cache.tail.fit(found, labels % 3, verbose=0)
    joined = cache.tail.predict(cache.head.predict(x, verbose=0), verbose=0)
    np.testing.assert_allclose(model.predict(x, verbose=0), joined, atol=1e-6)


def test_a_stale_or_broken_file_is_never_used(tmp_path, passes):
    x = photographs(6)[0].astype("float32")

    def compute(model, images=x, **options):
        cache = FeatureCache(kresnets.freeze(model, "stage3"), folder=tmp_path, memory=0, progress=False, **options)
        return cache.compute(images)

    model = tiny()
    first = np.array(compute(model))
    np.testing.assert_array_equal(compute(model), first)
    assert len(passes) == 1
    norm = model.get_layer("stage1_block1_bn1")
    norm.set_weights([norm.get_weights()[0] + 1e-3, *norm.get_weights()[1:]])
    moved = compute(model)
    assert len(passes) == 2 and not np.array_equal(moved, first)
    assert not np.array_equal(compute(tiny(), x + 1), first) and len(passes) == 3
    compute(tiny(), dtype="float16")
    assert len(passes) == 4
    for file in tmp_path.iterdir():
        os.truncate(file, 200)
    np.testing.assert_array_equal(compute(tiny()), first)
    assert len(passes) == 5
    (tmp_path / f".tmp-{2**22 + 1}-0.npy").write_bytes(b"of a process that was killed")
    compute(tiny(), x + 2)
    assert not list(tmp_path.glob(".tmp-*"))


def test_a_full_disk_is_a_sentence_before_it_starts(tmp_path, monkeypatch, passes, caplog):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: types.SimpleNamespace(free=100))
    x, y = photographs(20)
    with pytest.raises(OSError, match="take 640 bytes, but .* has 100 bytes left: make room"):
        FeatureCache(kresnets.freeze(tiny(), "stage3"), folder=tmp_path, memory=0, progress=False).compute((x * 1.0, y))
    fine_tune(tiny(), (x, y), recipe=HEAD, cache=tmp_path / "full", verbose=0)
    assert "'head' goes uncached. The features take" in caplog.text and not passes
    assert not list(tmp_path.rglob("*.npy"))
    monkeypatch.undo()
    monkeypatch.setattr(store, "memory_limit", lambda: 100)
    with pytest.raises(OSError, match="take 640 bytes, above the 100 bytes that may stay in memory: give a folder"):
        FeatureCache(kresnets.freeze(tiny(), "stage3"), progress=False).compute((x * 1.0, y))


def test_a_model_that_does_not_cut_is_told_in_a_sentence_and_trains_uncached(caplog):
    def skipping():
        trunk = tiny()
        skip = keras.layers.GlobalAveragePooling2D()(trunk.get_layer("stem_conv1").output)
        top = keras.layers.Dense(4)(trunk.get_layer("head_pool").output)
        joined = keras.layers.Concatenate(name="join")([top, skip])
        return keras.Model(trunk.input, keras.layers.Dense(3, activation="softmax")(joined))

    kresnets.freeze(model := skipping(), "stage3")
    assert FeatureCache(model).name == "stem_conv1"  # the last place through which all passes
    trunk = tiny()
    early = keras.layers.Flatten(name="early")(trunk.input)
    both = keras.layers.Concatenate(name="join")([keras.layers.Dense(4)(trunk.get_layer("head_pool").output), early])
    model = keras.Model(trunk.input, keras.layers.Dense(3, activation="softmax")(both))
    kresnets.freeze(model, "stage3")
    with pytest.raises(ValueError, match="'join' takes the output of 'early' across the cut, beside 'head_pool'"):
        FeatureCache(model)
    fine_tune(model, photographs(8), recipe=HEAD, cache=True, verbose=0)
    assert "'head' goes uncached" in caplog.text and "across the cut" in caplog.text


def test_layers_that_draw_at_random_stay_above_the_cut():
    images = keras.Input((12, 12, 3))
    flipped = keras.Sequential([images, keras.layers.RandomFlip(name="flip"), tiny()])
    with pytest.raises(ValueError, match="its first layer, 'flip', learns or draws at random"):
        FeatureCache(kresnets.freeze(flipped, "stage3"))
    deep = dataclasses.replace(TINY, stochastic_depth=0.5)
    model = kresnets.freeze(kresnets.build(deep, input_shape=(12, 12, 3), classes=3), "stage3")
    drawing = [layer.name for layer in model.layers if isinstance(layer, keras.layers.Dropout)]
    cache = FeatureCache(model)
    assert cache.name == "stem_relu1" and drawing[0] in [layer.name for layer in cache.tail.layers]
    assert not set(drawing) & {layer.name for layer in cache.head.layers}
    assert FeatureCache(kresnets.freeze(tiny(dropout=0.4), "stage3")).name == "head_pool"
    with pytest.raises(ValueError, match="call kresnets.freeze.model, through='stage3'. first"):
        FeatureCache(kresnets.freeze(tiny(), "stage2"), through="stage3")


class Sneaky(keras.layers.Layer):
    def call(self, inputs, training=False):
        return inputs * (2.0 if training else 1.0)


def test_a_layer_of_ones_own_that_differs_in_training_is_found_out():
    model = kresnets.build(TINY, input_tensor=Sneaky()(keras.Input((12, 12, 3))), classes=3)
    with pytest.raises(ValueError, match="computes something else in training"):
        FeatureCache(kresnets.freeze(model, "stage3"), progress=False).compute(np.ones((2, 12, 12, 3), "float32"))


def test_nested_models_are_cut_inside_as_the_keras_guide_calls_them():
    def nested():
        keras.utils.set_random_seed(0)
        trunk = kresnets.build(TINY, include_top=False, input_shape=(12, 12, 3))
        images = keras.Input((12, 12, 3))
        pooled = keras.layers.GlobalAveragePooling2D()(trunk(images, training=False))
        dropped = keras.layers.Dropout(0.3)(pooled)
        return keras.Model(images, keras.layers.Dense(3, activation="softmax", name="top")(dropped))

    compare(photographs(20), None, TWO, nested)
    assert FeatureCache(kresnets.freeze(nested(), "stage2"), "stage2").name == "stage2_block2_out"


@pytest.mark.everything
def test_bfloat16_features_train_the_same():
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        compare(photographs(20), photographs(8), HEAD)
    finally:
        keras.config.set_dtype_policy("float32")


def test_views_are_cached_copies_drawn_anew_each_epoch(passes):
    pytest.importorskip("tensorflow")
    x, y = photographs(20)
    recipe = dataclasses.replace(RECIPE, augment="light", stages=(), views=3)
    one, two = (tiny(), tiny())
    histories = [fine_tune(model, (x, y), (x, y), recipe, verbose=0).history for model in (one, two)]
    assert passes == [60, 20] * 2 and histories[0] == histories[1]
    held = np.arange(60).reshape(3, 20)[:, :, None]
    source = types.SimpleNamespace(count=20, steps=1, order=lambda epoch: [np.arange(20)])
    rows = fit.Rows(held.reshape(60, 1), [y], source, seed=0, views=3)
    drawn = []
    for epoch in range(2):
        rows.assign(epoch)
        rows.on_epoch_begin()
        seen, labels = rows[0]
        np.testing.assert_array_equal(seen["features"][:, 0] % 20, np.arange(20))
        np.testing.assert_array_equal(labels, y)
        drawn.append(seen["features"][:, 0] // 20)
    assert set(drawn[0]) == {0, 1, 2} and drawn[0].tolist() != drawn[1].tolist()


@pytest.mark.everything
@pytest.mark.parametrize("below, verdict", [(1.0, "cached"), (1e-9, "uncached")])
def test_auto_follows_the_time_that_a_batch_takes(below, verdict, monkeypatch, caplog, passes):
    caplog.set_level(logging.INFO, "kresnets")
    original = fit._seconds
    monkeypatch.setattr(fit, "_seconds", lambda model, batch: (below, original(model, batch)[1]))
    recipe = dataclasses.replace(RECIPE, head_epochs=12, stages=())
    fine_tune(tiny(), photographs(40), recipe=recipe, verbose=0)
    assert bool(passes) == (verdict == "cached")
    assert "(after head_pool, 32 bytes an image)" in caplog.text and f"without: {verdict}." in caplog.text


@pytest.mark.parametrize(
    "cache, knobs, sentence",
    [
        (3, {}, "must be 'auto', True, False, or a folder"),
        ("", {}, "must be 'auto'"),
        (True, dict(augment="light"), "changes the images in each epoch"),
        (True, dict(mixup=0.2), "mixup=0.2 blends"),
    ],
)
def test_what_cannot_be_cached_is_refused_in_a_sentence(cache, knobs, sentence):
    with pytest.raises(ValueError, match=sentence):
        fine_tune(tiny(), photographs(8), recipe=dataclasses.replace(RECIPE, **knobs), cache=cache, verbose=0)


@pytest.mark.everything
def test_auto_leaves_augmentation_real(caplog, passes):
    pytest.importorskip("tensorflow")
    caplog.set_level(logging.INFO, "kresnets")
    recipe = dataclasses.replace(HEAD, augment="light")
    with pytest.raises(Stop):
        fine_tune(tiny(), photographs(8), recipe=recipe, callbacks=[StopAfter(0)], verbose=0)
    assert "Training goes uncached: augment='light' changes" in caplog.text
    caplog.clear()

    class Own(type(tiny())):
        pass

    plain = tiny()
    own = Own(plain.input, plain.output)
    with pytest.raises(Stop):
        fine_tune(own, photographs(8), recipe=HEAD, cache=True, callbacks=[StopAfter(0)], verbose=0)
    assert not passes and "Own is a class of its own" in caplog.text


@pytest.mark.everything
@pytest.mark.jax
def test_it_equals_the_uncached_training_on_jax():
    pytest.importorskip("jax")
    code = (
        "import dataclasses, test_cache as t; "
        "t.compare(t.photographs(40), t.photographs(20, seed=1), dataclasses.replace(t.RECIPE, ema=0.8, "
        "stages=('stage3',)), "
        "lambda: t.tiny(dropout=0.3)); print('equal')"
    )
    environment = {**os.environ, "KERAS_BACKEND": "jax", "PYTHONPATH": python_path(__file__)}
    run = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=600)
    assert run.stdout.endswith("equal\n"), run.stderr[-3000:]


@pytest.mark.everything
def test_killed_anywhere_a_cached_run_goes_on_to_the_same(tmp_path):
    code = (
        "import os, signal, sys, test_cache as t; t.store.memory_limit = t.fit.memory_limit = lambda: 1000; "
        "stop = t.StopAfter(int(sys.argv[1])); x, y = t.photographs(70); model = t.tiny(dropout=0.3)\n"
        "try: t.fine_tune(model, (x, y), (x, y), t.TWO, cache=True, callbacks=[stop], state_dir=sys.argv[2], "
        "verbose=0)\n"
        "except t.Stop: os.kill(os.getpid(), signal.SIGKILL)\n"
        "model.save_weights(sys.argv[3])"
    )
    environment = {**os.environ, "PYTHONPATH": python_path(__file__)}

    def run(batches, folder, file):
        arguments = [str(batches), str(tmp_path / folder), str(tmp_path / file)]
        return subprocess.run([sys.executable, "-c", code, *arguments], env=environment, timeout=600).returncode

    assert run(100, "whole", "whole.weights.h5") == 0
    assert [run(batches, "cut", "cut.weights.h5") for batches in (2, 5, 4, 100)] == [-9, -9, -9, 0]
    whole, cut = tiny(dropout=0.3), tiny(dropout=0.3)
    whole.load_weights(tmp_path / "whole.weights.h5")
    cut.load_weights(tmp_path / "cut.weights.h5")
    for path, value in weights(whole).items():
        np.testing.assert_allclose(weights(cut)[path], value, atol=1e-6, err_msg=path)
