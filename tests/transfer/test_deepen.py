"""A deepened network computes what it did, trains on as it did, and learns in its new blocks."""

import dataclasses
import functools
import os
import subprocess
import sys
import warnings

import keras
import numpy as np
import pytest
from families import SMALL, images, smallest
from lively import make_lively
from nets import TINY, data, photographs, tiny, weights
from places import python_path

import kresnets
from kresnets.keras_hooks import optimizer as optimizer_hooks
from kresnets.keras_hooks.graph import graph_nodes, layer_computation


def _some(names, chosen):
    """Parameters, those not chosen for the few that run everything."""
    return [pytest.param(name, marks=() if name in chosen else pytest.mark.everything) for name in names]


V2 = {"preactivation": True}
BOTTLENECK = {"block": "bottleneck", "shortcut": "B"}
ROWS = {
    "padded shortcut": {},
    "projected everywhere": {"shortcut": "C", "depths": (1, 1, 1)},
    "bottleneck A": BOTTLENECK | {"stride_on": "1x1", "depths": (1, 1, 1)},
    "bottleneck D": BOTTLENECK | {"avg_shortcut": True, "depths": (1, 1, 1)},
    "resnext, dropping": BOTTLENECK | {"cardinality": 2, "stochastic_depth": 0.5, "dropout": 0.3, "depths": (1, 1, 1)},
    "v2, normed stem": V2 | {"depths": (1, 1, 1)},
    "v2, stride first": V2 | {"stem_norm": False, "shortcut": "B", "depths": (1, 1, 1)},
    "v2, stride last": V2 | BOTTLENECK | {"downsample_in": "last", "bias_without_norm": True, "stem_norm": False},
    "v2, dropping": V2 | {"stochastic_depth": 0.5},
}


def added(deeper, model):
    """Names of the blocks that the one has and the other has not."""
    blocks = [{name.rsplit("_", 1)[0] for name in weighted(one)} for one in (deeper, model)]
    return sorted(blocks[0] - blocks[1])


def weighted(model):
    return {
        layer.name: layer for layer in model._flatten_layers() if not isinstance(layer, keras.Model) and layer.weights
    }


def graph(model):
    """What each layer computes and whose outputs it takes."""
    return {
        node.operation.name: (
            layer_computation(node.operation),
            [t._keras_history.operation.name for t in node.input_tensors],
        )
        for node in graph_nodes(model)
    }


def ends(model):
    return keras.Model(model.input, {name: feature.output for name, feature in kresnets.features(model).items()})


def assert_alike(deeper, model, x, training=(False, True)):
    for mode in training:
        for one, other in ((deeper, model), (ends(deeper), ends(model))):
            # Both draw from their own random layers: the same, or the next comparison would fail.
            found, expected = (keras.tree.map_structure(np.asarray, net(x, training=mode)) for net in (one, other))
            keras.tree.map_structure(lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=1e-6), found, expected)


QUICK = ("padded shortcut", "projected everywhere", "resnext, dropping", "v2, normed stem", "v2, stride last")


@pytest.mark.parametrize("row", _some(ROWS, QUICK))
def test_every_kind_of_block_computes_what_it_did(row):
    model = make_lively(tiny(**ROWS[row]))
    deeper = kresnets.deepen(model, {"stage1": 1, "stage2": 2, "stage3": 1})
    last = ROWS[row].get("depths", TINY.depths)
    assert added(deeper, model) == sorted(
        f"stage{stage}_block{last[stage - 1] + nth}" for stage, nth in ((1, 1), (2, 1), (2, 2), (3, 1))
    )
    assert set(weighted(model)) < set(weighted(deeper))
    assert deeper.count_params() > model.count_params()
    assert_alike(deeper, model, data(4)[0])


@pytest.mark.parametrize("family", ["v1", "d", "v2", "resnext", "cifar", "inception-resnet"])
@pytest.mark.everything
def test_every_family_computes_what_it_did(family):
    shape = smallest(SMALL[family], channels=2)
    model = make_lively(kresnets.build(SMALL[family], input_shape=shape))
    assert_alike(kresnets.deepen(model, {"stage2": 1, "stage3": 2}), model, images(shape))


@pytest.mark.everything
@pytest.mark.parametrize(
    "family, stage", [("plain", "stage2"), ("inception", "stage2"), ("inception-resnet", "stage1")]
)
def test_a_block_without_a_shortcut_is_refused(family, stage):
    model = kresnets.build(SMALL[family])
    with pytest.raises(ValueError, match=f"{stage}_block. of .* is no residual block"):
        kresnets.deepen(model, {stage: 1})


def test_a_deepened_cifar_resnet_20_is_the_builders_56():
    model = make_lively(kresnets.CifarResNet20())
    deeper = kresnets.deepen(model, {"stage1": 6, "stage2": 6, "stage3": 6})
    built = kresnets.CifarResNet56()
    assert [layer.name for layer in deeper.layers] == [layer.name for layer in built.layers]
    assert graph(deeper) == graph(built)
    assert deeper.count_params() == built.count_params()
    make_lively(built, seed=1)
    for layer in built.layers:
        layer.set_weights(deeper.get_layer(layer.name).get_weights())
    x = images((32, 32, 3))
    np.testing.assert_allclose(built(x), model(x), rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    "name, knobs, stages",
    [
        ("ResNet50D", {}, {"stage1": 1, "stage2": 2, "stage4": 1}),
        ("ResNet18V2", {"bias_without_norm": True}, {"stage1": 1, "stage3": 1}),
        ("CifarResNet110V2", {"widths": (4, 6, 8)}, {"stage1": 2, "stage3": 1}),
    ],
)
def test_it_has_the_graph_of_the_row_with_larger_depths(name, knobs, stages):
    spec = kresnets.SPECS[name]
    small = {"widths": (4, 8, 8, 16), "params": None, "depths": (1,) * len(spec.depths)} | knobs
    depths = tuple(1 + stages.get(f"stage{stage}", 0) for stage in range(1, len(spec.depths) + 1))
    shallow, deep = (
        kresnets.build(dataclasses.replace(spec, **small | {"depths": d})) for d in (small["depths"], depths)
    )
    deeper = kresnets.deepen(shallow, stages)
    assert graph(deeper) == graph(deep)
    assert [layer.name for layer in deeper.layers] == [layer.name for layer in deep.layers]


OUT = "stage1_block1_out"


def with_end(end):
    """A v1 network whose first stage ends with another layer, or with its sum where that is None."""
    model = make_lively(tiny())

    def call(layer, *args, **kwargs):
        return args[0] if end is None and layer.name == OUT else layer(*args, **kwargs)

    def clone(layer):
        return end if end is not None and layer.name == OUT else type(layer).from_config(layer.get_config())

    changed = keras.models.clone_model(model, clone_function=clone, call_function=call)
    for layer in model.layers:
        if layer.weights:
            changed.get_layer(layer.name).set_weights(layer.get_weights())
    return changed


@pytest.mark.parametrize(
    "end",
    [
        lambda: None,
        pytest.param(lambda: keras.layers.Activation("linear", name=OUT), marks=pytest.mark.everything),
        pytest.param(lambda: keras.layers.Activation("relu6", name=OUT), marks=pytest.mark.everything),
        lambda: keras.layers.ReLU(max_value=1.5, name=OUT),
    ],
)
def test_a_stage_that_ends_otherwise_stays_exact(end):
    model = with_end(end())
    assert_alike(kresnets.deepen(model, {"stage1": 2}), model, data(4)[0])


@pytest.mark.parametrize(
    "end",
    [
        lambda: keras.layers.Activation("tanh", name=OUT),
        lambda: keras.layers.LeakyReLU(name=OUT),
        lambda: keras.layers.ReLU(negative_slope=0.1, name=OUT),
        lambda: keras.layers.PReLU("ones", name=OUT),
    ],
)
def test_an_end_that_changes_its_own_outputs_is_refused(end):
    model = with_end(end())
    if model.get_layer(OUT).weights:
        model.get_layer(OUT).set_weights([np.full((12, 12, 4), 0.25)])  # learned meanwhile
    with pytest.raises(ValueError, match="stage1_block1 goes on after its sum with 'stage1_block1_out'"):
        kresnets.deepen(model, {"stage1": 1})
    given = np.asarray(ends(model)(data(4)[0])["stage1"])
    again = np.asarray(model.get_layer(OUT)(given))
    assert np.abs(again - given).max() > 1e-3  # what an added block would have done


def test_the_end_of_a_stage_is_rectified_in_v1_and_not_in_v2():
    x = data(4)[0]
    for knobs, rectified in (({}, True), (V2, False)):
        model = make_lively(tiny(**knobs))
        kinds = ends(kresnets.deepen(model, {"stage1": 1, "stage2": 1}))(x)
        assert all((np.asarray(kinds[stage]).min() >= 0) == rectified for stage in ("stage1", "stage2"))


def test_only_what_is_zeroed_moves_at_the_first_step_and_all_of_it_after_two():
    for knobs, zeroed in (({}, "bn2/gamma"), (V2, "conv2/kernel")):
        model = make_lively(tiny(**knobs))
        deeper = kresnets.deepen(model, {"stage2": 1})
        deeper.compile(keras.optimizers.SGD(0.05), "sparse_categorical_crossentropy", run_eagerly=True)
        x, y = data()
        block = [v for v in deeper.trainable_variables if v.path.startswith("stage2_block3_")]
        start = {v.path: np.array(v.numpy()) for v in block}
        steps = []
        for _ in range(2):
            deeper.train_on_batch(x, y)
            steps.append({v.path for v in block if np.abs(v.numpy() - start[v.path]).max() > 0})
        first = {path for path in steps[0] if not path.endswith("/beta")}
        assert first == {f"stage2_block3_{zeroed}"}
        assert steps[1] == set(start) if knobs == {} else steps[1] >= {path for path in start if "conv" in path}
        both = keras.Model(
            deeper.input, [deeper.get_layer("stage2_block3_add").input[1], deeper.get_layer("stage2_block3_add").output]
        )
        branch, total = (np.abs(np.asarray(value)).max() for value in both(x))
        assert branch > 1e-4 * total


@pytest.mark.everything
def test_a_gamma_frozen_at_zero_keeps_its_block_the_identity_and_is_warned_of():
    # As the docstring warns: the default of the callbacks is to keep norms frozen.
    x, y = data()
    for batchnorm, learns in (("frozen", False), ("train", True)):
        deeper = kresnets.deepen(tiny(), {"stage3": 1})
        deeper.compile("sgd", "sparse_categorical_crossentropy", run_eagerly=True)
        before = weights(deeper)
        thaw = kresnets.StagedUnfreezing({0: "head", 1: "stage3_block2", 3: "stage3_block1"}, batchnorm=batchnorm)
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            deeper.fit(x, y, epochs=4, verbose=0, callbacks=[thaw])
        assert any("stage3_block2_bn2 would learn but" in str(each.message) for each in told) != learns
        after = weights(deeper)
        moved = {path for path in after if not np.array_equal(before[path], after[path])}
        assert ("stage3_block2_conv1/kernel" in moved) == learns
        assert "stage3_block1_conv1/kernel" in moved and "stage2_block2_conv1/kernel" not in moved


O = keras.optimizers  # noqa: E741
OPTIMIZERS = {
    "adamw": lambda: O.AdamW(O.schedules.ExponentialDecay(0.01, 3, 0.7), weight_decay=0.1),
    "averages": lambda: O.Adam(0.01, use_ema=True, ema_momentum=0.7, ema_overwrite_frequency=5),
    "accumulation": lambda: O.SGD(0.05, momentum=0.9, gradient_accumulation_steps=3),
    "loss scale": lambda: O.LossScaleOptimizer(O.RMSprop(0.005, momentum=0.5), dynamic_growth_steps=3),
}


def trained_on(name, eager=True):
    """Train a network, deepen it, freeze the new blocks and go on; return the weights of both, and of one that forgot
    the optimizer's state."""
    x, y = data(12, seed=1)
    fit = {"batch_size": 6, "shuffle": False, "verbose": 0}
    told = {"loss": "sparse_categorical_crossentropy", "run_eagerly": eager}
    model = tiny(stochastic_depth=0.3)
    model.compile(OPTIMIZERS[name](), **told)
    model.fit(x, y, epochs=2, **fit)
    deeper, forgetful = (kresnets.deepen(model, {"stage1": 1, "stage3": 2}) for _ in range(2))
    np.testing.assert_allclose(deeper.predict(x, verbose=0), model.predict(x, verbose=0), rtol=0, atol=1e-6)
    forgetful.compile(OPTIMIZERS[name](), **told)
    for one in (deeper, forgetful):
        for layer in one.layers:
            layer.trainable = not layer.name.startswith(tuple(added(deeper, model)))
    optimizer_hooks.rebuild(deeper)
    for one in (model, deeper, forgetful):
        one.fit(x, y, epochs=1, **fit)
    return weights(model), weights(deeper), weights(forgetful)


def assert_goes_on(name, eager=True):
    expected, found, forgotten = trained_on(name, eager)
    for path, value in expected.items():
        np.testing.assert_allclose(found[path], value, rtol=0, atol=1e-6, err_msg=path)
    # What tells: without its state the optimizer ends elsewhere.
    assert max(np.abs(forgotten[path] - value).max() for path, value in expected.items()) > 1e-3


@pytest.mark.parametrize("name", _some(OPTIMIZERS, ("adamw",)))
def test_training_goes_on_as_if_nothing_had_been_added(name):
    assert_goes_on(name)


def test_slots_are_carried_by_path_and_new_ones_are_empty():
    model = tiny()
    model.compile(O.Adam(0.01, use_ema=True), "sparse_categorical_crossentropy", run_eagerly=True)
    x, y = data()
    model.fit(x, y, verbose=0)
    deeper = kresnets.deepen(model, {"stage2": 1})
    assert optimizer_hooks.steps(deeper.optimizer) == optimizer_hooks.steps(model.optimizer) > 0
    slots = [
        {
            name: dict(zip((v.path for v in one.trainable_variables), values, strict=True))
            for name, values in vars(one.optimizer).items()
            if name in ("_momentums", "_velocities", "_model_variables_moving_average")
        }
        for one in (deeper, model)
    ]
    assert len(slots[0]) == len(slots[1]) == 3
    for name, found in slots[0].items():
        for variable in deeper.trainable_variables:
            slot, old = np.asarray(found[variable.path]), slots[1][name].get(variable.path)
            start = variable.numpy() if "average" in name else 0 * slot
            np.testing.assert_array_equal(slot, start if old is None else np.asarray(old), err_msg=variable.path)
    assert all(np.abs(slots[0]["_momentums"][v.path]).max() > 0 for v in model.trainable_variables)


def test_it_is_compiled_alike():
    model = tiny()
    optimizer = O.AdamW(0.01, weight_decay=0.5, clipnorm=0.7)
    optimizer.exclude_from_weight_decay(var_names=["gamma"])
    metrics = ["accuracy", keras.metrics.SparseTopKCategoricalAccuracy(k=2, name="top2")]
    model.compile(
        optimizer, lambda y, p: keras.losses.sparse_categorical_crossentropy(y, p), metrics=metrics, run_eagerly=True
    )
    model.optimizer.learning_rate = 0.125
    deeper = kresnets.deepen(model, {"stage3": 1})
    x, y = data(6)
    expected, found = (one.evaluate(x, y, verbose=0, return_dict=True) for one in (model, deeper))
    assert found.keys() == expected.keys() == {"loss", "accuracy", "top2"}
    np.testing.assert_allclose([*found.values()], [*expected.values()], rtol=1e-6)
    assert deeper.optimizer is not model.optimizer and deeper.optimizer.get_config() == model.optimizer.get_config()
    assert deeper.optimizer._use_weight_decay(deeper.trainable_variables[0])
    assert not any(deeper.optimizer._use_weight_decay(v) for v in deeper.trainable_variables if "gamma" in v.path)
    assert len(optimizer_hooks.core(deeper.optimizer)._trainable_variables) == len(deeper.trainable_variables)
    assert not kresnets.deepen(tiny(), {"stage3": 1}).compiled


def test_variables_that_weight_decay_was_told_to_leave_out_are_left_out():
    model = tiny()
    optimizer = O.AdamW(0.01, weight_decay=0.5)
    optimizer.exclude_from_weight_decay(var_list=[v for v in model.trainable_variables if "conv" not in v.path])
    model.compile(optimizer, "sparse_categorical_crossentropy")
    deeper = kresnets.deepen(model, {"stage3": 1})
    decayed = {v.path for v in deeper.trainable_variables if deeper.optimizer._use_weight_decay(v)}
    assert decayed == {v.path for v in deeper.trainable_variables if "conv" in v.path}
    assert "stage3_block2_conv1/kernel" in decayed


@pytest.mark.filterwarnings("ignore:The object being serialized includes a `lambda`")
def test_a_metric_that_cannot_be_made_again_and_a_multi_optimizer_are_refused_in_a_sentence():
    model = tiny()
    metric = keras.metrics.MeanMetricWrapper(lambda y, p: y, name="mine")
    model.compile("sgd", "sparse_categorical_crossentropy", metrics=[metric])
    with pytest.raises(ValueError, match="The metric 'mine' .* cannot be made again from its config"):
        kresnets.deepen(model, {"stage3": 1})
    model.compile(O.MultiOptimizer(O.OptimizerMap(O.SGD(0.1), {"stem_.*": O.SGD(0.01)})), "mse")
    with pytest.raises(ValueError, match="MultiOptimizer fixes its variables"):
        kresnets.deepen(model, {"stage3": 1})
    model.compile(O.SGD(lambda: 0.1), "mse")
    with pytest.raises(ValueError, match=r"The optimizer 'sgd.*' \(SGD\) cannot be made again"):
        kresnets.deepen(model, {"stage3": 1})


def test_half_precision_stays_half_whatever_is_set_later():
    keras.config.set_dtype_policy("mixed_float16")
    try:
        model = tiny()
    finally:
        keras.config.set_dtype_policy("float32")
    for copy in (kresnets.deepen(model, {"stage3": 1}), kresnets.as_plain_keras(model)):
        copy.compile("sgd", "mse")
        assert isinstance(copy.optimizer, O.LossScaleOptimizer)


class Stepping(keras.Model):
    """A user's own training step."""

    def train_step(self, *args):
        return super().train_step(*args)


class Scaled(keras.layers.Layer):
    """A user's own layer, which tells no config."""

    def __init__(self, by):
        super().__init__(name="scaled")
        self._by = by

    def call(self, x):
        return self._by * x


def _nested():
    trunk = tiny(**ROWS["v2, dropping"])
    trunk = keras.Model(trunk.input, trunk.get_layer("stage3_relu").output, name="trunk")
    pixels = keras.Input((12, 12, 3))
    x = trunk(keras.layers.RandomFlip(seed=3)(pixels * 2.0))
    x = keras.layers.GlobalAveragePooling2D()(x)
    return keras.Model(pixels, {"a": keras.layers.Dense(2)(x), "b": keras.layers.Dense(1)(x)}, name="outer")


def _own_head():
    trunk = tiny()
    x = keras.layers.Flatten()(trunk.get_layer("stage3_block1_out").output)
    return keras.Model(trunk.input, keras.layers.Dense(2, name="mine")(x))


def _sequential():
    trunk = kresnets.build(TINY, include_top=False, input_shape=(12, 12, 3))
    return keras.Sequential([keras.Input((12, 12, 3)), trunk, keras.layers.GlobalMaxPooling2D()], name="chain")


def _stepping():
    model = tiny()
    return Stepping(model.input, model.output, name="stepping")


def _grey():
    return kresnets.build(TINY, include_top=False, pooling="avg", input_shape=(None, None, 1))


def _twice():
    trunk = kresnets.build(TINY, include_top=False, pooling="avg", input_shape=(12, 12, 3))
    image = keras.Input((12, 12, 3))
    return keras.Model(image, keras.layers.Concatenate()([trunk(image), trunk(keras.layers.Rescaling(-1.0)(image))]))


AROUND = {
    "nested, several outputs": _nested,
    "own head": _own_head,
    "Sequential": _sequential,
    "own training step": _stepping,
    "one channel, free size": _grey,
    "recomputing": lambda: kresnets.recompute(tiny()),
    "trunk called twice": _twice,
    "plain Keras": lambda: kresnets.as_plain_keras(tiny()),
}


@pytest.mark.always("nested, several outputs-False", "own training step-True", "plain Keras-True")
@pytest.mark.parametrize(
    "which, compiled",
    [
        pytest.param(which, compiled, marks=() if compiled == bool(nth % 2) else pytest.mark.everything)
        for nth, which in enumerate(AROUND)
        for compiled in (False, True)
    ],
)
def test_what_is_built_around_a_trunk_stays(which, compiled):
    model = make_lively(AROUND[which]())
    if compiled:
        model.compile("adam", "mse", run_eagerly=True)
    frozen = next(layer for layer in weighted(model).values() if layer.name == "stage2_block2_conv1")
    frozen.trainable = False
    deeper = kresnets.deepen(model, {"stage2": 2, "stage3": 1})
    x = data(4)[0][..., : model.inputs[0].shape[-1]]
    for training in (False, True):
        found, expected = (keras.tree.flatten(one(x, training=training)) for one in (deeper, model))
        for one, other in zip(found, expected, strict=True):
            np.testing.assert_allclose(one, other, rtol=0, atol=1e-6)
    assert keras.tree.map_structure(lambda t: t.shape, deeper(x)) == keras.tree.map_structure(
        lambda t: t.shape, model(x)
    )
    assert type(deeper) is type(model) and deeper.name == model.name and deeper.compiled == compiled
    assert kresnets.preprocessing_of(deeper) == kresnets.preprocessing_of(model)
    flags = [{name: layer.trainable for name, layer in weighted(one).items()} for one in (deeper, model)]
    assert {name: flags[0][name] for name in flags[1]} == flags[1]
    assert sorted(name for name, flag in flags[0].items() if not flag) == [f"stage2_block{n}_conv1" for n in (2, 3, 4)]
    paths = [{v.path for v in one.weights} for one in (deeper, model)]
    assert paths[1] < paths[0]


def test_a_frozen_trunk_stays_frozen_with_its_new_blocks():
    deeper = kresnets.deepen(kresnets.freeze(tiny(), "stage3"), {"stage3": 1})
    assert {v.path for v in deeper.trainable_variables} == {"head_dense/kernel", "head_dense/bias"}


def test_a_frozen_model_within_another_stays_frozen():
    model = _nested()
    model.get_layer("trunk").trainable = False
    deeper = kresnets.deepen(model, {"stage3": 1})
    assert not deeper.get_layer("trunk").trainable
    assert [v.path for v in deeper.trainable_variables] == [v.path for v in model.trainable_variables]


@pytest.mark.parametrize("policy", _some(("mixed_bfloat16", "mixed_float16"), ("mixed_float16",)))
def test_layers_keep_their_precision(policy):
    keras.mixed_precision.set_dtype_policy(policy)
    try:
        model = make_lively(tiny(**V2))
        model.compile("sgd", "sparse_categorical_crossentropy")
    finally:
        keras.mixed_precision.set_dtype_policy("float32")
    deeper = kresnets.deepen(model, {"stage2": 1})
    assert {layer.dtype_policy.name for layer in deeper.layers if layer.name.startswith("stage2_")} == {policy}
    assert deeper.get_layer("head_dense").dtype_policy.name == "float32"
    assert type(deeper.optimizer) is type(model.optimizer)
    assert_alike(deeper, model, data(4)[0])


def test_channels_first():
    pytest.importorskip("tensorflow")
    keras.config.set_image_data_format("channels_first")
    try:
        for knobs in ({}, V2):
            keras.utils.set_random_seed(0)
            shallow, deep = (
                kresnets.build(dataclasses.replace(TINY, depths=depths, **knobs), input_shape=(3, 12, 12))
                for depths in ((1, 2, 1), (2, 2, 3))
            )
            deeper = kresnets.deepen(shallow, {"stage1": 1, "stage3": 2})
            assert graph(deeper) == graph(deep)
    finally:
        keras.config.set_image_data_format("channels_last")


@pytest.mark.everything
def test_files_and_plain_copies_and_a_second_deepening(tmp_path):
    model = make_lively(tiny(**ROWS["v2, dropping"]))
    model.compile(O.Adam(0.01), "sparse_categorical_crossentropy", run_eagerly=True)
    x, y = data()
    model.fit(x, y, verbose=0)
    model.save(tmp_path / "model.keras")
    deeper = kresnets.deepen(keras.models.load_model(tmp_path / "model.keras"), {"stage2": 1})
    deeper = kresnets.deepen(deeper, {"stage2": 1, "stage3": 1})
    deeper.save(tmp_path / "deeper.keras")
    loaded = keras.models.load_model(tmp_path / "deeper.keras")
    expected = model.predict(x, verbose=0)
    for one in (deeper, loaded, kresnets.as_plain_keras(deeper)):
        np.testing.assert_allclose(one.predict(x, verbose=0), expected, rtol=0, atol=1e-6)
    assert optimizer_hooks.steps(loaded.optimizer) == optimizer_hooks.steps(model.optimizer)
    assert list(kresnets.groups(loaded)) == list(kresnets.groups(model))
    names = [layer.name for layer in kresnets.groups(loaded)["stage2"]]
    assert "stage2_block4_conv2" in names and "stage2_block5_conv2" not in names
    assert kresnets.summarize(loaded).parameters == sum(int(np.prod(v.shape)) for v in loaded.trainable_variables)


def test_other_weights_of_new_blocks_start_as_the_builders():
    # Of a network that was trained, saved and loaded: a convolution as wide as He's rule says, statistics at 0 and 1.
    wide = dataclasses.replace(TINY, widths=(32, 32, 32))
    deeper = kresnets.deepen(make_lively(kresnets.build(wide, input_shape=(12, 12, 3))), {"stage2": 2})
    one, other = (deeper.get_layer(f"stage2_block{n}_conv1").get_weights()[0] for n in (3, 4))
    assert abs(one.std() / np.sqrt(2 / (9 * 32)) - 1) < 0.05 and np.abs(one - other).max() > 0.01
    gamma, beta, mean, variance = deeper.get_layer("stage2_block3_bn1").get_weights()
    assert set(gamma) == {1.0} and set(beta) == {0.0} and set(mean) == {0.0} and set(variance) == {1.0}
    gamma, beta, mean, variance = deeper.get_layer("stage2_block3_bn2").get_weights()
    assert set(gamma) == {0.0} and set(beta) == {0.0} and set(variance) == {1.0}


def test_the_model_itself_is_left_alone():
    model = make_lively(tiny())
    model.compile("adam", "sparse_categorical_crossentropy", run_eagerly=True)
    x, y = data()
    model.fit(x, y, verbose=0)
    before, state = weights(model), [np.array(v.numpy()) for v in model.optimizer.variables]
    optimizer, names = model.optimizer, [layer.name for layer in model.layers]
    deeper = kresnets.deepen(model, {"stage3": 1})
    deeper.fit(x, y, verbose=0)
    assert model.optimizer is optimizer and [layer.name for layer in model.layers] == names
    for path, value in weights(model).items():
        np.testing.assert_array_equal(value, before[path])
    for variable, value in zip(optimizer.variables, state, strict=True):
        np.testing.assert_array_equal(variable.numpy(), value)


def test_fine_tune_takes_it():
    deeper = kresnets.deepen(tiny(), {"stage3": 1})
    recipe = kresnets.Recipe.textbook(
        head_epochs=0, stages=("stage3_block2",), epochs_per_stage=2, batchnorm="train", augment="none"
    )
    before = weights(deeper)
    x, y = photographs(12)
    history = kresnets.fine_tune(deeper, (x, y), recipe=recipe, verbose=0)
    assert len(history.history["loss"]) == 2
    after = weights(deeper)
    assert np.abs(after["stage3_block2_bn2/gamma"]).max() > 0 == np.abs(before["stage3_block2_bn2/gamma"]).max()
    assert np.array_equal(after["stage2_block2_conv1/kernel"], before["stage2_block2_conv1/kernel"])


_one = functools.cache(tiny)
SUBCLASSED = type("Own", (keras.Model,), {"call": lambda self, x: x})()


@pytest.mark.parametrize(
    "model, blocks, message",
    [
        (_one, {"stage4": 1}, "has no stage 'stage4' to deepen: use one of stage1, stage2, stage3"),
        (_one, {"head": 1}, "has no stage 'head' to deepen"),
        (_one, {"stem": 1}, "has no stage 'stem' to deepen"),
        (_one, {3: 1}, "has no stage 3 to deepen"),
        (_one, {"stage3": 0}, "stage3 can get a whole number of blocks from 1. Received: 0"),
        (_one, {"stage3": -1}, "Received: -1"),
        (_one, {"stage3": True}, "Received: True"),
        (_one, {"stage3": 1.0}, "Received: 1.0"),
        (_one, {}, "`blocks` must be a dict of how many blocks each stage gets"),
        (_one, [("stage3", 1)], "`blocks` must be a dict"),
        (lambda: "model", {"stage3": 1}, "`deepen` takes a Functional or Sequential .* Received: str"),
        (lambda: SUBCLASSED, {"stage3": 1}, "`deepen` takes a Functional or Sequential .* Received: Own"),
        (
            lambda: keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)]),
            {"stage3": 1},
            "has no stages as kresnets names them",
        ),
        (lambda: tiny(residual=False), {"stage3": 1}, "stage3_block1 .* is no residual block .* give 0, not x"),
    ],
)
def test_bad_input_gets_one_sentence(model, blocks, message):
    with pytest.raises(ValueError, match=message):
        kresnets.deepen(model(), blocks)


def test_two_trunks_and_strange_layers_are_refused_in_a_sentence():
    image = keras.Input((12, 12, 3))
    trunks = [
        kresnets.build(TINY, include_top=False, pooling="avg", input_shape=(12, 12, 3), name=name) for name in "ab"
    ]
    both = keras.Model(image, keras.layers.Add()([trunk(image) for trunk in trunks]), name="both")
    with pytest.raises(ValueError, match="'both' has several trunks with a stage3"):
        kresnets.deepen(both, {"stage3": 1})
    for layer, message in (
        (lambda: keras.layers.GaussianNoise(0.0, name="noise"), "more in its residual branch than layers called"),
        (
            lambda: keras.layers.Activation("relu", name="stage3_block1_squash"),
            "'stage3_block1_squash' .* can start at 0 only",
        ),
    ):
        strange = keras.models.clone_model(
            tiny(),
            clone_function=lambda layer: type(layer).from_config(layer.get_config()),
            call_function=lambda at, *args, **kw: (
                layer()(at(*args, **kw)) if at.name == "stage3_block1_bn2" else at(*args, **kw)
            ),
        )
        with pytest.raises(ValueError, match=message):
            kresnets.deepen(strange, {"stage3": 1})
    model = tiny()
    with pytest.raises(ValueError, match="The layer 'scaled' .* cannot be made again from its config"):
        kresnets.deepen(keras.Model(model.input, Scaled(2.0)(model.output)), {"stage3": 1})


@pytest.mark.jax
@pytest.mark.everything
def test_it_computes_and_trains_on_as_it_did_on_jax():
    pytest.importorskip("jax")
    code = "import test_deepen as t; t.assert_goes_on('adamw', eager=False); print('equal')"
    environment = {**os.environ, "KERAS_BACKEND": "jax", "PYTHONPATH": python_path(__file__)}
    run = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=600)
    assert run.stdout.endswith("equal\n"), run.stderr[-3000:]
