"""The claims about the parts of residual networks: what is counted is asserted against arithmetic that is not
theirs."""

import keras
import numpy as np
import pytest
from claims import bottleneck, degradation, inception, norms, probes, relu_before_addition, scratch, variants
from claims.judge import CONFIRMED
from quick_claims import run

import kresnets


def times_are_whole(rows, networks, rounds=1):
    timed = [row for row in rows if row["part"] == "time"]
    assert {(row["network"], row["work"]) for row in timed} == {
        (network, work) for network in networks for work in ("training", "prediction")
    }
    assert len(timed) == 2 * len(networks) * rounds and all(row["ms"] > 0 for row in timed)


def learned_something(rows, part="learning"):
    ends = [row for row in rows if row["part"] == part and "test_error" in row]
    assert ends and all(0 <= row["test_error"] <= 1 and np.isfinite(row["test_loss"]) for row in ends)
    return ends


@pytest.mark.everything
def test_variants(tmp_path):
    findings, rows, _ = run("variants", tmp_path)
    read = {(row["variant"], row["path"]): row["share"] for row in rows if row.get("block", "").startswith("stage")}
    # Of a grid with even sides, every other row and every other column.
    assert {path: read["A", path] for path in ("branch", "shortcut", "block")} == dict.fromkeys(
        ("branch", "shortcut", "block"), 0.25
    )
    for variant in "BC":
        assert (read[variant, "branch"], read[variant, "shortcut"], read[variant, "block"]) == (1, 0.25, 1)
    assert (read["D", "branch"], read["D", "shortcut"], read["D", "block"]) == (1, 1, 1)
    single = [(row["variant"], row["share"]) for row in rows if row.get("block") == "1x1 with stride 2"]
    assert sorted(single) == [("A", 0.25)] * 6 + [("B", 0.25)] * 3 + [("C", 0.25)] * 3
    assert [found.verdict for found in findings[:2]] == [CONFIRMED] * 2
    times_are_whole(rows, "AD")
    assert {row["variant"] for row in learned_something(rows)} == {"A", "D"}


def test_rows_of_the_variants_are_those_of_the_builders():
    shape = (32, 32, 3)
    for variant in "BCD":
        name = f"ResNet50{variant}"
        assert variants.spec(variant) == variants.dataclasses.replace(
            kresnets.SPECS[name], name="ResNet50B", reference=kresnets.SPECS["ResNet50B"].reference, params=None
        )
    ours, theirs = variants.spec("A"), kresnets.SPECS["ResNet50"]
    assert (ours.stride_on, ours.deep_stem, ours.avg_shortcut) == (theirs.stride_on, False, False)
    slim = [kresnets.build(variants.spec(kind, 1), input_shape=shape) for kind in ("A", "B", "A + pool")]
    assert len({model.count_params() for model in slim}) == 1  # moving a stride or a pool costs no weight


@pytest.mark.everything
def test_bottleneck(tmp_path):
    findings, rows, _ = run("bottleneck", tmp_path)
    counted = {(row["kind"], row["channels"]): row for row in rows if row["part"] == "counting"}
    for channels in (16, 32, 64):
        basic, narrow = counted["basic", channels], counted["bottleneck", channels]
        assert basic["adds"] == basic["weights"] == 2 * 3 * 3
        assert narrow["adds"] == narrow["weights"] == 4 * 1 + 3 * 3 + 1 * 4
        assert (basic["layers"], narrow["layers"]) == (2, 3)
    assert [found.verdict for found in findings[:2]] == [CONFIRMED] * 2
    times_are_whole(rows, ("basic 1", "basic 3", "bottleneck 1", "bottleneck 3"))
    assert {row["kind"] for row in learned_something(rows)} == {"basic", "bottleneck"}


def test_a_block_has_the_weights_that_are_counted():
    def kernels(kind):
        model = kresnets.build(bottleneck.stack(kind, 8, 2), input_shape=(8, 8, 3))
        block = [layer for layer in model.layers if layer.name.startswith("stage1_block2_conv")]
        assert not any("shortcut" in layer.name for layer in model.layers)
        return [tuple(layer.kernel.shape) for layer in block]

    assert kernels("basic") == [(3, 3, 8, 8)] * 2
    assert kernels("bottleneck") == [(1, 1, 32, 8), (3, 3, 8, 8), (1, 1, 8, 32)]


def test_a_blocks_time_is_what_the_longer_stack_takes_more():
    rows = [
        {"part": "time", "blocks": [2, 8], "channels": 16, "network": f"{kind} {blocks}", "work": "training"}
        | {"round": 0, "ms": 5 + blocks * each}
        for kind, each in (("basic", 2.0), ("bottleneck", 3.0))
        for blocks in (2, 8)
    ]
    assert bottleneck.block_times(rows, "bottleneck", "training", 16) == {0: 3.0}
    found = probes.ratios(bottleneck.block_times, ("bottleneck", "basic"), rows, "training", channels=16)
    assert found == {0: 1.5}


@pytest.mark.everything
def test_inception(tmp_path):
    findings, rows, _ = run("inception", tmp_path)
    counted = {(row["kind"], row["channels"]): row for row in rows if row["part"] == "counting"}
    for channels in (16, 64):
        one, two = counted["5x5", channels], counted["two 3x3", channels]
        assert one["adds"] == one["weights"] == 25 and two["adds"] == two["weights"] == 18
        assert one["field"] == two["field"] == "5x5"
    assert [found.verdict for found in findings[:2]] == [CONFIRMED] * 2
    times_are_whole(rows, ("5x5", "two 3x3"))
    assert {row["kind"] for row in learned_something(rows)} == {"5x5", "two 3x3"}
    assert {row["scale"] for row in learned_something(rows, "scale")} == {1.0, 0.1}


def test_networks_differ_in_their_5x5_alone():
    ends = []
    for kind in inception.KINDS:
        model = kresnets.build(inception.network(kind), input_shape=(16, 16, 3), classes=10)
        kernels = [layer.kernel.shape[0] for layer in model.layers if isinstance(layer, keras.layers.Conv2D)]
        assert kernels == [3, *([5] * 6 if kind == "5x5" else [3] * 12)]
        ends.append([model.get_layer("head_pool").input.shape, model.get_layer("stage1_block1_relu1").output.shape])
    assert ends[0] == ends[1]


def test_a_scaled_branch_counts_by_its_scale():
    image = np.random.default_rng(0).normal(size=(1, 8, 8, 3)).astype("float32")
    models = [kresnets.build(inception.scaled(scale, 1), False, input_shape=(8, 8, 3)) for scale in (1.0, 0.1)]
    models[1].set_weights(models[0].get_weights())
    part = [keras.Model(model.input, model.get_layer("stage1_block1_add").output)(image) for model in models]
    stem = keras.Model(models[0].input, models[0].get_layer("stem_relu1").output)(image)
    np.testing.assert_allclose(part[1] - stem, 0.1 * (part[0] - stem), atol=1e-5)


def test_a_training_that_failed_is_told_from_one_that_learned():
    rows = [
        {"part": "scale", "scale": 1.0, "rate": 3.0, "seed": seed, "train_error": error}
        for seed, error in enumerate((0.9, 0.1))
    ]
    assert inception.failed(rows, 1.0, 3.0) == {0: True, 1: False}


def test_what_is_read_is_what_a_convolution_covers():
    image = keras.Input((9, 9, 2))
    window = keras.layers.Conv2D(3, (3, 5), padding="same")(image)
    strided = keras.layers.Conv2D(3, 1, strides=3)(image)
    model = probes.averaging(keras.Model(image, [window, strided]))
    assert probes.field(model.inputs[0], model.outputs[0]) == (3, 5)
    grid = np.zeros((9, 9), bool)
    grid[::3, ::3] = True
    np.testing.assert_array_equal(probes.read(model.inputs[0], model.outputs[1]), grid)


def test_a_time_is_measured_with_nothing_beside_it():
    timed = [{"part": "time", "channels": channels} for channels in (16, 32)]
    then = lambda: [{"part": "other"}]
    assert probes.undisturbed(timed, [], then) == timed[:1]
    assert probes.undisturbed(timed, [timed[0] | {"ms": 1.0}], then) == timed
    assert probes.undisturbed(timed, [each | {"ms": 1.0} for each in timed], then) == timed + then()


@pytest.mark.everything
@pytest.mark.parametrize("name", ["norms", "relu-before-addition", "depth-pays-less", "distilled"])
def test_quick_ones_learn_something(name, tmp_path):
    findings, rows, _ = run(name, tmp_path)
    assert findings and all(found.numbers for found in findings)
    assert all(0 <= row.get("test_error", 0) <= 1 for row in rows)
    assert any("test_error" in row or "test_auc" in row for row in rows)


def rewired(module, kind):
    return scratch._built(degradation.spec("residual", 8), (16, 16, 3), 4, module.rewired, kind)


def output_of(model, layer, images):
    return np.asarray(keras.Model(model.input, model.get_layer(layer).output)(images))


def test_what_is_rewired_is_what_the_claims_say():
    images = np.random.default_rng(0).normal(size=(2, 16, 16, 3)).astype("float32")
    norm = keras.layers.BatchNormalization
    normed, bare, zero = (rewired(norms, kind) for kind in norms.KINDS)
    assert [sum(isinstance(layer, norm) for layer in model.layers) for model in (normed, bare, zero)] == [7, 0, 0]
    assert all(layer.use_bias for layer in bare.layers if isinstance(layer, keras.layers.Conv2D))
    for block in ("stage1_block1", "stage3_block1"):
        assert np.ptp(output_of(bare, f"{block}_bn2", images)) > 0
        np.testing.assert_array_equal(output_of(zero, f"{block}_bn2", images), 0)
    after, before = (rewired(relu_before_addition, kind) for kind in relu_before_addition.KINDS)
    assert after.count_params() == before.count_params() == normed.count_params()
    assert (
        output_of(before, "stage1_block1_bn2", images).min() == 0 > output_of(after, "stage1_block1_bn2", images).min()
    )
    ends = [output_of(before, f"stage1_block1_{end}", images) for end in ("add", "out")]
    np.testing.assert_array_equal(*ends)
