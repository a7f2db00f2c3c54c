"""What StagedUnfreezing and LayerwiseLearningRate promise, in `model.fit`, beside Keras's own callbacks."""

import copy
import csv
import os
import re
import subprocess
import sys

import keras
import numpy as np
import pytest
from nets import data, tiny, unchanged_groups, weights
from places import SUPPORT, TESTS

import kresnets
from kresnets import LayerwiseLearningRate, StagedUnfreezing

STAGES = {0: "head", 1: "stage3", 2: "stage2"}


def compiled(optimizer=None, **knobs):
    model = tiny(**knobs)
    model.compile(
        optimizer or keras.optimizers.AdamW(0.01, weight_decay=0.01),
        "sparse_categorical_crossentropy",
        metrics=["accuracy"],
    )
    return model


def fit(model, callbacks, epochs=3, **options):
    x, y = data()
    return model.fit(x, y, batch_size=6, epochs=epochs, shuffle=False, verbose=0, callbacks=callbacks, **options)


def trained_paths(model):
    return [v.path for v in model.trainable_variables]


class At(keras.callbacks.Callback):
    """Call a function at each epoch's end."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def on_epoch_end(self, epoch, logs=None):
        self.function(epoch, self.model)


class Stop(Exception):
    pass


class StopAt(keras.callbacks.Callback):
    def __init__(self, epoch):
        super().__init__()
        self.epoch = epoch

    def on_epoch_begin(self, epoch, logs=None):
        if epoch == self.epoch:
            raise Stop


@pytest.mark.parametrize("batchnorm", ["frozen", "train"])
def test_a_frozen_group_is_bit_equal_and_a_thawed_one_is_not(batchnorm):
    model = compiled()
    before, untouched = weights(model), {}
    fit(
        model,
        [StagedUnfreezing(STAGES, batchnorm), At(lambda e, m: untouched.update({e: unchanged_groups(m, before)}))],
    )
    assert untouched == {
        0: ["stem", "stage1", "stage2", "stage3"],
        1: ["stem", "stage1", "stage2"],
        2: ["stem", "stage1"],
    }
    norms = [path for path in before if path.startswith("stage3") and "_bn" in path]
    same = [np.array_equal(before[path], weights(model)[path]) for path in norms]
    assert all(same) if batchnorm == "frozen" else not any(same)


def test_the_witness_is_keras_recompiled_by_hand():
    # The Keras guide's way: flags, then compile, which loses the optimizer's state; so with plain SGD, which has none.
    mine = compiled(keras.optimizers.SGD(0.05))
    fit(mine, [StagedUnfreezing({0: "head", 1: "stage3"}, "train")], epochs=2)
    by_hand = tiny()
    for trained in (("head",), ("head", "stage3")):
        for layer in by_hand.layers:
            layer.trainable = layer.name.startswith(trained)
        by_hand.compile(keras.optimizers.SGD(0.05), "sparse_categorical_crossentropy")
        fit(by_hand, [], epochs=1)
    for path, value in weights(by_hand).items():
        np.testing.assert_allclose(weights(mine)[path], value, rtol=1e-5, atol=1e-6, err_msg=path)


def test_slots_and_iterations_survive_each_unfreezing():
    # Against a run without stages: where the trunk never learns anything, the head's Adam must not notice the thawing.
    plain = compiled(keras.optimizers.Adam(0.01))
    fit(kresnets.freeze(plain, "stage3"), [])
    staged = compiled(keras.optimizers.Adam(0.01))
    fit(staged, [StagedUnfreezing(STAGES), LayerwiseLearningRate({"stage3": 0, "stage2": 0})])
    for path, value in weights(plain).items():
        np.testing.assert_allclose(weights(staged)[path], value, rtol=1e-5, atol=1e-7, err_msg=path)
    assert int(keras.ops.convert_to_numpy(staged.optimizer.iterations)) == 12


def test_the_optimizer_holds_exactly_what_trains_and_stays_the_one_compiled():
    optimizer = keras.optimizers.Adam(0.01)
    model = compiled(optimizer)
    fit(model, [StagedUnfreezing(STAGES)])
    assert model.optimizer is optimizer
    assert [v.path for v in optimizer._trainable_variables] == trained_paths(model)
    assert len(optimizer.variables) == 2 + 2 * len(model.trainable_variables)
    assert all(path.startswith(("stage2", "stage3", "head")) and "_bn" not in path for path in trained_paths(model))


def test_a_second_fit_starts_afresh_and_a_resumed_one_in_its_stage():
    model = compiled()
    fit(model, [StagedUnfreezing(STAGES)])
    seen = []
    fit(model, [StagedUnfreezing(STAGES), At(lambda e, m: seen.append(len(m.trainable_variables)))])
    assert seen[0] == 2 < seen[1] < seen[2]
    model, seen = compiled(), []
    fit(model, [StagedUnfreezing(STAGES), At(lambda e, m: seen.append(trained_paths(m)[0]))], initial_epoch=2)
    assert seen == ["stage2_block1_conv1/kernel"]


def test_the_order_of_the_two_does_not_matter():
    model = compiled()
    both = [StagedUnfreezing(STAGES), LayerwiseLearningRate(0.5)]
    history = fit(model, both).history
    assert history["learning_rate/head"] == pytest.approx([0.01] * 3)
    assert history["learning_rate/stage3"] == pytest.approx([0, 0.005, 0.005])
    assert history["learning_rate/stage2"] == pytest.approx([0, 0, 0.0025])
    assert history["learning_rate/stem"] == [0, 0, 0]
    expected = weights(model)
    again = compiled()
    fit(again, both[::-1])
    for path, value in weights(again).items():
        np.testing.assert_array_equal(value, expected[path], err_msg=path)


def test_the_scaling_ends_with_the_fit():
    twice = compiled(keras.optimizers.SGD(0.01))
    fit(twice, [LayerwiseLearningRate(0.0)], epochs=1)
    before = weights(twice)
    fit(twice, [], epochs=1)
    assert unchanged_groups(twice, before) == []


def test_an_interrupted_fit_leaves_nothing_that_the_next_does_not_take_back():
    model = compiled(keras.optimizers.SGD(0.05))
    with pytest.raises(Stop):
        fit(model, [LayerwiseLearningRate({"stem": 0, "stage1": 0}), StagedUnfreezing({0: "stem"}), StopAt(1)])
    before = weights(model)
    fit(model, [], epochs=1)
    assert not {"update_step", "kresnets_ratio_of"} & set(vars(model.optimizer))
    assert not np.array_equal(before["stem_conv1/kernel"], weights(model)["stem_conv1/kernel"])
    model.evaluate(*data(), verbose=0, callbacks=[StagedUnfreezing(STAGES)])
    fit(model, [StagedUnfreezing(STAGES)], epochs=1)
    assert not {"load_weights", "make_train_function", "kresnets_callbacks"} & set(vars(model))


@pytest.mark.parametrize("make", [lambda: LayerwiseLearningRate(0.5), lambda: StagedUnfreezing(STAGES)])
def test_two_of_a_kind_are_refused(make):
    with pytest.raises(ValueError, match="One fit takes one"):
        fit(compiled(), [make(), make()])


@pytest.mark.always("plateau")
@pytest.mark.parametrize("kind", ["scheduler", "plateau", "schedule"])
def test_the_base_learning_rate_stays_one_knob(kind):
    rate = keras.optimizers.schedules.PiecewiseConstantDecay([4, 8], [0.1, 0.01, 0.001]) if kind == "schedule" else 0.1
    model = compiled(keras.optimizers.SGD(rate))
    knob = {
        "scheduler": keras.callbacks.LearningRateScheduler(lambda epoch, _: 0.1 / 10**epoch),
        "plateau": keras.callbacks.ReduceLROnPlateau(monitor="loss", factor=0.1, patience=0, min_delta=1e9, cooldown=0),
        "schedule": keras.callbacks.Callback(),
    }[kind]
    for callbacks in ([knob, StagedUnfreezing(STAGES), LayerwiseLearningRate({"head": 0.5})],):
        history = fit(model, callbacks).history
    # ReduceLROnPlateau lets the first epoch pass as the best one so far.
    expected = [0.05, 0.05, 0.005] if kind == "plateau" else [0.05, 0.005, 0.0005]
    assert history["learning_rate/head"] == pytest.approx(expected)


def test_metrics_csv_and_tensorboard_see_the_logs(tmp_path):
    model = compiled()
    log, board = tmp_path / "log.csv", tmp_path / "board"
    fit(model, [StagedUnfreezing(STAGES), keras.callbacks.CSVLogger(log), keras.callbacks.TensorBoard(board)])
    with open(log, newline="") as file:
        rows = list(csv.DictReader(file))
    assert [int(float(row["trainable_parameters"])) for row in rows] == sorted(
        {int(float(r["trainable_parameters"])) for r in rows}
    )
    assert float(rows[1]["learning_rate/stage3"]) == pytest.approx(0.01)
    assert "accuracy" in rows[0]
    if keras.config.backend() == "tensorflow":
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

        events = EventAccumulator(str(board / "train"))
        events.Reload()
        assert "epoch_learning_rate/stage3" in events.Tags()["tensors"]


def test_one_trace_a_stage():
    traces = []

    class Counting(keras.Model):
        def train_step(self, *args):
            traces.append(1)
            return super().train_step(*args)

    net = tiny()
    model = Counting(net.inputs, net.outputs)
    model.compile(keras.optimizers.Adam(0.01), "sparse_categorical_crossentropy")
    fit(model, [StagedUnfreezing({0: "head", 3: "stage3"}), LayerwiseLearningRate(0.5)], epochs=6)
    assert len(traces) == 2


@pytest.mark.everything
@pytest.mark.parametrize("epochs", [1, 2, 3])
def test_a_keras_file_saved_in_any_stage_loads_with_its_optimizer_and_trains_on(tmp_path, epochs):
    model = compiled()
    callbacks = [StagedUnfreezing(STAGES), LayerwiseLearningRate(0.5)]
    fit(model, callbacks, epochs=epochs)
    path = tmp_path / "model.keras"
    model.save(path)
    loaded = keras.saving.load_model(path)
    assert trained_paths(loaded) == trained_paths(model)
    assert len(loaded.optimizer.variables) == len(model.optimizer.variables)
    for one, other in zip(model.optimizer.variables, loaded.optimizer.variables):
        np.testing.assert_array_equal(keras.ops.convert_to_numpy(one.value), keras.ops.convert_to_numpy(other.value))
    fit(model, callbacks, epochs=4, initial_epoch=epochs)
    fit(loaded, callbacks, epochs=4, initial_epoch=epochs)
    for path, value in weights(model).items():
        np.testing.assert_allclose(weights(loaded)[path], value, rtol=1e-5, atol=1e-6, err_msg=path)


@pytest.mark.parametrize(
    ("stop", "first"),
    [
        (3, True),
        *(
            pytest.param(*each, marks=pytest.mark.everything)
            for each in [(1, True), (1, False), (2, True), (2, False), (3, False)]
        ),
    ],
)  # fmt: skip
def test_backup_and_restore_resumes_in_the_right_stage(tmp_path, first, stop):
    stages = {0: "head", 1: "stage3", 3: "stage2"}

    def callbacks(backup):
        ours = [StagedUnfreezing(stages), LayerwiseLearningRate(0.5)]
        return [backup, *ours] if first else [*ours, backup]

    whole = compiled()
    fit(whole, callbacks(keras.callbacks.BackupAndRestore(tmp_path / "whole")), epochs=4)
    broken = compiled()
    with pytest.raises(Stop):
        fit(
            broken,
            [*callbacks(keras.callbacks.BackupAndRestore(tmp_path / "b", delete_checkpoint=False)), StopAt(stop)],
            epochs=4,
        )
    resumed = compiled()
    history = fit(resumed, callbacks(keras.callbacks.BackupAndRestore(tmp_path / "b")), epochs=4)
    assert history.epoch == list(range(stop, 4))
    for path, value in weights(whole).items():
        np.testing.assert_allclose(weights(resumed)[path], value, rtol=1e-5, atol=1e-6, err_msg=path)
    assert "load_weights" not in vars(resumed)


@pytest.mark.everything
def test_early_stopping_checkpoints_and_averages_go_along(tmp_path):
    model = compiled(keras.optimizers.Adam(0.01, use_ema=True))
    kept = tmp_path / "best.keras"
    callbacks = [
        keras.callbacks.SwapEMAWeights(swap_on_epoch=True),
        StagedUnfreezing(STAGES),
        LayerwiseLearningRate(0.5),
        keras.callbacks.ModelCheckpoint(kept, monitor="loss", save_best_only=True),
        keras.callbacks.EarlyStopping(monitor="loss", patience=5, restore_best_weights=True),
        keras.callbacks.TerminateOnNaN(),
    ]
    before = weights(model)
    x, y = data()
    history = fit(model, callbacks, epochs=4, validation_data=(x, y))
    assert np.isfinite(history.history["val_loss"]).all()
    assert unchanged_groups(model, before) == ["stem", "stage1"]
    assert keras.saving.load_model(kept).count_params() == model.count_params()


@pytest.mark.everything
def test_dropout_models_accumulation_and_loss_scale_train_through_all_stages():
    for optimizer in (
        keras.optimizers.AdamW(0.01, gradient_accumulation_steps=3),
        keras.optimizers.LossScaleOptimizer(keras.optimizers.Adam(0.01), initial_scale=8.0),
    ):
        model = compiled(optimizer, dropout=0.2)
        before = weights(model)
        fit(model, [StagedUnfreezing(STAGES)])
        assert unchanged_groups(model, before) == ["stem", "stage1"]
    assert float(keras.ops.convert_to_numpy(optimizer.dynamic_scale)) == 8.0
    assert int(keras.ops.convert_to_numpy(optimizer.step_counter)) == 12


@pytest.mark.everything
def test_deepcopy_before_fit_and_configuration_stays():
    callbacks = [StagedUnfreezing(STAGES, "train"), LayerwiseLearningRate({"stem": 0.1})]
    copies = copy.deepcopy(callbacks)
    assert copies[0].stages == STAGES and copies[1].ratios == {"stem": 0.1}
    model = compiled()
    fit(model, copies)
    fit(compiled(), copies)  # and again with another model


def test_a_keras_model_that_is_not_ours():
    base = keras.applications.MobileNet(weights=None, alpha=0.25, input_shape=(32, 32, 3), classes=3)
    groups = {
        "early": r"conv1.*|conv_(dw|pw)_[1-9]_?.*|conv_pad_[1-9]",
        "late": r"conv_(dw|pw)_1[0-3].*|conv_pad_1.",
        "head": r"global.*|drop.*|conv_preds|reshape.*|pred.*",
    }
    groups["early"] = r"conv1.*|conv_(dw|pw)_[1-9](_.*)?|conv_pad_[1-9]"
    base.compile("sgd", "sparse_categorical_crossentropy")
    before = weights(base)
    x, y = data(12, size=32)
    history = base.fit(
        x,
        y,
        epochs=2,
        verbose=0,
        callbacks=[StagedUnfreezing({0: "head", 1: "late"}, groups=groups), LayerwiseLearningRate(0.5, groups=groups)],
    )
    changed = {path.split("/")[0] for path, value in weights(base).items() if not np.array_equal(before[path], value)}
    assert changed and all(
        name.startswith(("conv_preds", "conv_pw_1", "conv_dw_1")) and name not in ("conv_pw_1", "conv_dw_1")
        for name in changed
    )
    assert list(history.history) == [
        "loss",
        "learning_rate/early",
        "learning_rate/late",
        "learning_rate/head",
        "trainable_parameters",
    ]


def test_a_nested_trunk_with_a_head_of_ones_own():
    trunk = kresnets.CifarResNet20(include_top=False, pooling="avg", input_shape=(16, 16, 3))
    model = keras.Sequential(
        [
            keras.Input((16, 16, 3)),
            keras.layers.RandomFlip(),
            trunk,
            keras.layers.BatchNormalization(),
            keras.layers.Dense(3),
        ]
    )
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    before = weights(trunk)
    x, y = data(size=16)
    model.fit(x, y, epochs=2, verbose=0, callbacks=[StagedUnfreezing({0: "head", 1: "stage3_block3"})])
    changed = {
        path.split("_conv")[0] for path, value in weights(trunk).items() if not np.array_equal(before[path], value)
    }
    assert changed == {"stage3_block3"}
    assert model.layers[-2].trainable  # a norm of the head always learns


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: StagedUnfreezing({1: "head"}), "first stage must start at epoch 0"),
        (lambda: StagedUnfreezing(["head", "stage3"]), "how long .head. takes"),
        (lambda: StagedUnfreezing({0: "head", -1: "stage3"}), "must be a dict"),
        (lambda: StagedUnfreezing({0: "head", 1.5: "stage3"}), "must be a dict"),
        (lambda: StagedUnfreezing({0: "head"}, batchnorm="eval"), "'frozen' or 'train'"),
        (lambda: StagedUnfreezing({0: "stage3", 2: "head"}), "must go deeper"),
        (lambda: StagedUnfreezing({0: "head", 2: "stage9"}), "no group or block 'stage9'"),
        (lambda: StagedUnfreezing({0: "head", 2: "stage2_block9"}), "blocks 1 to 2"),
        (lambda: LayerwiseLearningRate(-0.5), "number from 0"),
        (lambda: LayerwiseLearningRate(float("nan")), "number from 0"),
        (lambda: LayerwiseLearningRate({"stage3": "slow"}), "number from 0"),
        (lambda: LayerwiseLearningRate({"stage7": 0.1}), "names 'stage7'"),
    ],
)
def test_bad_input_gets_a_sentence_and_nothing_is_trained(make, sentence):
    model = compiled()
    before, flags = weights(model), [layer.trainable for layer in model.layers]
    with pytest.raises(ValueError, match=sentence):
        fit(model, [make()])
    assert len(unchanged_groups(model, before)) == 5
    assert flags == [layer.trainable for layer in model.layers]


@pytest.mark.slow
@pytest.mark.jax
@pytest.mark.parametrize(
    ("chosen", "least"),
    [
        ("survive or 3-True", 2),
        pytest.param(
            "frozen_group and frozen] or order or stages_follow and adam or second or [2] and file or nested or "
            "averages_go or interrupted and plain or kick or killed_run and 4",
            8,
            marks=pytest.mark.everything,
        ),
    ],
    ids=["most", "the rest"],
)
def test_the_same_promises_on_jax(chosen, least):
    environment = {**os.environ, "KERAS_BACKEND": "jax"}
    files = [
        __file__,
        str(TESTS / "transfer" / "test_fine_tune.py"),
        str(TESTS / "callbacks" / "test_plateau.py"),
    ]
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-x",
        "-p",
        "no:cacheprovider",
        *files,
        "-m",
        "not slow and not everything",
        "-k",
        chosen,
    ]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-3000:]
    assert int(re.search(r"(\d+) passed", done.stdout)[1]) >= least


DISTRIBUTED = """
import sys, keras, numpy as np, tensorflow as tf
sys.path.insert(0, {tests!r})
from nets import data, tiny, weights, unchanged_groups
import kresnets
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
def train(strategy):
    with strategy.scope():
        model = tiny()
        model.compile(keras.optimizers.{optimizer}, "sparse_categorical_crossentropy")
    before = weights(model)
    x, y = data()
    ours = [kresnets.StagedUnfreezing({{0: "head", 1: "stage3", 2: "stage2"}}), kresnets.LayerwiseLearningRate(0.5)]
    model.fit(x, y, batch_size=8, epochs=3, shuffle=False, verbose=0, callbacks=ours)
    assert unchanged_groups(model, before) == ["stem", "stage1"], unchanged_groups(model, before)
    return weights(model)
two = train(tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"]))
one = train(tf.distribute.get_strategy())
for path, value in one.items():
    np.testing.assert_allclose(two[path], value, rtol=2e-4, atol=2e-5, err_msg=path)
print("equal")
"""


@pytest.mark.everything
@pytest.mark.slow
@pytest.mark.parametrize(
    "optimizer",
    [
        "AdamW(0.01, weight_decay=0.1)",
        pytest.param("SGD(0.05, momentum=0.9, weight_decay=0.1)", marks=pytest.mark.everything),
    ],
)
def test_two_devices_equal_one(optimizer):
    if keras.config.backend() != "tensorflow":
        pytest.skip("MirroredStrategy is TensorFlow's")
    code = DISTRIBUTED.format(tests=str(SUPPORT), optimizer=optimizer)
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True)
    assert done.stdout.strip().endswith("equal"), done.stderr[-3000:]
