"""A schedule that listens: when stages end, what comes back, how rates rise, and a run that was killed. (On JAX by
test_callbacks.py.)"""

import os
import subprocess
import sys

import keras
import numpy as np
import pytest
from nets import weights
from optimizers import OPTIMIZERS
from places import python_path

from kresnets import LayerwiseLearningRate, Plateau, StagedUnfreezing

GROUPS = {"early": "early.*", "late": "late.*", "head": "head.*"}
STEPS = 4


def compiled(optimizer=None, cls=keras.Model, **options):
    keras.utils.set_random_seed(0)
    inputs = keras.Input((6,))
    x = inputs
    for name in ("early", "late"):
        x = keras.layers.Dense(5, name=f"{name}_dense")(x)
        x = keras.layers.Activation("tanh", name=f"{name}_tanh")(keras.layers.BatchNormalization(name=f"{name}_bn")(x))
    model = cls(inputs, keras.layers.Dense(3, activation="softmax", name="head")(x))
    model.compile(optimizer or keras.optimizers.Adam(0.01), "sparse_categorical_crossentropy", **options)
    return model


def fit(model, callbacks, epochs=20, **options):
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(STEPS * 8, 6)).astype("float32"), np.arange(STEPS * 8) % 3
    return model.fit(x, y, batch_size=8, epochs=epochs, shuffle=False, verbose=0, callbacks=callbacks, **options)


def staged(stages=("head", "late", "early"), **options):
    return StagedUnfreezing(stages, groups=GROUPS, **options)


class Says(keras.callbacks.Callback):
    """Put scripted values into the logs, as if they had been measured."""

    def __init__(self, values, name="val_loss"):
        super().__init__()
        self.values, self.name = values, name

    def on_epoch_end(self, epoch, logs=None):
        logs[self.name] = self.values[min(epoch, len(self.values) - 1)]


class Watch(keras.callbacks.Callback):
    """Note the state at each first batch (after our callbacks began the epoch) and after each last one."""

    def __init__(self):
        super().__init__()
        self.begun, self.ended, self.trained = [], [], []

    def state(self):
        slots = {v.path: np.array(v.numpy()) for v in self.model.optimizer.variables if "learning_rate" not in v.path}
        return weights(self.model) | slots

    def on_train_batch_begin(self, batch, logs=None):
        if batch == 0:
            self.begun.append(self.state())
            self.trained.append(len(self.model.trainable_variables))

    def on_epoch_end(self, epoch, logs=None):
        self.ended.append(self.state())


class AfterBatch(keras.callbacks.Callback):
    """Call a function with the model after each batch."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def on_train_batch_end(self, batch, logs=None):
        if keras.config.backend() == "jax":
            self.model.jax_state_sync()
        self.function(self.model)


class Killed(BaseException):
    pass


class Kill(keras.callbacks.Callback):
    def __init__(self, epoch, when):
        super().__init__()
        self.epoch, self.when = epoch, when

    def _kill(self, when, epoch):
        if (when, epoch) == (self.when, self.epoch):
            raise Killed

    def on_epoch_begin(self, epoch, logs=None):
        self._kill("begin", epoch)

    def on_epoch_end(self, epoch, logs=None):
        self._kill("end", epoch)


# Stage 1 is best at 1 and over after 3, stage 2 best at 4 and over after 6, stage 3 best at 8 and over after 10.
SCRIPT = [0.9, 0.5, 0.6, 0.7, 0.4, 0.5, 0.45, 0.44, 0.3, 0.31, 0.32, 0.0]
PATIENT = {"advance": Plateau(patience=2), "restore_best": True}


@pytest.mark.parametrize("kind", ["adam", "schedule"])
def test_stages_follow_the_plateaus_and_the_best_comes_back_with_its_optimizer(kind):
    rate = keras.optimizers.schedules.ExponentialDecay(0.01, 10, 0.9) if kind == "schedule" else 0.01
    model, ours, watch = compiled(keras.optimizers.Adam(rate)), staged(**PATIENT), Watch()
    history = fit(model, [Says(SCRIPT), ours, watch])
    assert history.epoch == list(range(11)) and ours.progress.starts == (0, 4, 7) and ours.progress.finished
    assert watch.trained == [2] * 4 + [4] * 3 + [6] * 4
    for first, best in ((4, 1), (7, 4)):
        for path, value in watch.ended[best].items():
            if "iteration" in path and kind == "schedule":  # its clock goes on
                assert watch.begun[first][path] == STEPS * first
            else:
                np.testing.assert_array_equal(watch.begun[first][path], value, err_msg=path)
    for path, value in weights(model).items():
        np.testing.assert_array_equal(value, watch.ended[8][path], err_msg=path)
    frozen = [path for path in watch.ended[0] if path.startswith("early")]
    assert frozen and all(np.array_equal(watch.ended[6][path], watch.begun[0][path]) for path in frozen)


@pytest.mark.parametrize("first", [True, False])
def test_averages_go_along_on_either_side(first):
    model = compiled(keras.optimizers.Adam(0.01, use_ema=True))
    swap, ours, watch = keras.callbacks.SwapEMAWeights(swap_on_epoch=True), staged(**PATIENT), Watch()

    raw = []
    note = AfterBatch(lambda model: raw.append(watch.state()))
    x = np.random.default_rng(0).normal(size=(8, 6))
    both = [swap, ours] if first else [ours, swap]
    fit(model, [Says(SCRIPT), *both, watch, note], validation_data=(x, np.arange(8) % 3))
    for first_epoch, best in ((4, 1), (7, 4)):
        for path, value in raw[STEPS * best + 3].items():
            if keras.config.backend() == "tensorflow" and "iteration" not in path:
                # Keras swaps on TensorFlow by adding and subtracting, which rounds.
                np.testing.assert_allclose(watch.begun[first_epoch][path], value, atol=1e-6, err_msg=path)
            else:
                assert np.shape(watch.begun[first_epoch][path]) == np.shape(value)
    averages = [value for path, value in raw[STEPS * 8 + 3].items() if "average" in path and value.shape == (5, 3)]
    np.testing.assert_allclose(averages[0], model.get_layer("head").kernel.numpy(), atol=1e-6)


def test_the_schedule_as_it_happened_repeats_the_run(tmp_path):
    stages = [("head", 3), ("late", Plateau("val_accuracy", patience=1, min_delta=0.01)), "early"]
    model, ours = compiled(), staged(stages, advance=Plateau(patience=None, max_epochs=2), restore_best=True, ramp=1.5)
    script = [Says([0.5, 0.4, 0.6, 0.5, 0.1, 0.3]), Says([0.5, 0.5, 0.5, 0.7, 0.6, 0.7], "val_accuracy")]
    first = fit(model, [*script, ours])
    assert ours.progress.starts == (0, 3, 5) and len(first.epoch) == 7
    ours.write_schedule(tmp_path / "schedule.toml")
    again, other = compiled(), StagedUnfreezing.from_file(tmp_path / "schedule.toml", groups=GROUPS)
    assert [name for name, _ in other.stages] == ["head", "late", "early"] and other.schedule.ramp == 1.5
    assert [other.schedule.most_epochs(stage) for stage in range(3)] == [3, 2, 2]
    second = fit(again, [*script, other])
    assert second.history == first.history
    for path, value in weights(model).items():
        np.testing.assert_array_equal(value, weights(again)[path], err_msg=path)
    assert other.history_as_stages == ours.history_as_stages


@pytest.mark.everything
def test_a_second_fit_starts_afresh_and_a_list_of_fixed_epochs_equals_the_dict():
    ours, model = staged([("head", 1), ("late", 2), "early"], advance=1), compiled()
    by_list = fit(model, [ours]).history
    by_dict = fit(compiled(), [staged({0: "head", 1: "late", 3: "early"})], epochs=4).history
    assert by_list == by_dict
    assert len(fit(model, [ours]).epoch) == 4 and ours.progress.starts == (0, 1, 3)
    seen = staged({0: "head", 1: "late"})
    assert [seen.stage_of(epoch) for epoch in range(3)] == ["head", "late", "late"]
    listening = staged(advance=Plateau(max_epochs=2))
    assert [listening.stage_of(epoch) for epoch in range(6)] == ["head"] * 2 + ["late"] * 2 + ["early"] * 2


class Rising(keras.optimizers.schedules.LearningRateSchedule):
    def __call__(self, step):
        return 0.1 * keras.ops.minimum((keras.ops.cast(step, "float32") + 1) / 10, 1.0)


@pytest.mark.parametrize("decay", [None, 0.1])
def test_a_ramp_equals_a_run_at_rising_rates_by_hand(decay):
    model = compiled(keras.optimizers.SGD(0.1, momentum=0.9, weight_decay=decay))
    alone = LayerwiseLearningRate({"head": 0}, groups=GROUPS)
    logs = fit(model, [alone, staged({0: "head", 1: "late"}, ramp=2.5)], epochs=5).history
    by_hand = compiled(keras.optimizers.SGD(Rising(), momentum=0.9, weight_decay=decay))
    for layer in by_hand.layers:
        layer.trainable = layer.name == "late_dense"
    by_hand.compile(by_hand.optimizer, "sparse_categorical_crossentropy")
    fit(by_hand, [], epochs=4)
    for path, value in weights(by_hand).items():
        np.testing.assert_allclose(weights(model)[path], value, rtol=1e-5, atol=1e-6, err_msg=path)
    assert logs["learning_rate/late"] == pytest.approx([0, 0.03, 0.07, 0.1, 0.1])
    assert logs["learning_rate/head"] == [0.0] * 5


@pytest.mark.parametrize("order", [1, -1])
def test_a_ramp_and_ratios_in_any_order(order):
    both = [staged({0: "head", 2: "late"}, ramp=2), LayerwiseLearningRate(0.5, groups=GROUPS)]
    model = compiled(keras.optimizers.AdamW(0.01))
    logs = fit(model, both[::order], epochs=5).history
    assert logs["learning_rate/late"] == pytest.approx([0, 0, 0.005 * 3 / 8, 0.005 * 7 / 8, 0.005])
    assert logs["learning_rate/head"] == pytest.approx([0.01] * 5)
    assert not {"update_step", "kresnets_scaling", "kresnets_mark"} & set(vars(model.optimizer))


def test_a_ramp_takes_the_kick_out_of_adams_first_step():
    moved = {}
    for ramp in (0, 5):
        model, kernels = compiled(keras.optimizers.Adam(1e-3, epsilon=1e-12)), []
        model.optimizer.iterations.assign(10_000)  # as after a long first stage
        note = AfterBatch(lambda m, found=kernels: found.append(np.array(m.get_layer("late_dense").kernel.numpy())))
        fit(model, [staged({0: "head", 1: "late"}, ramp=ramp), note], epochs=2)
        moved[ramp] = np.abs(np.diff(kernels[STEPS - 1 :], axis=0)).max(axis=(1, 2)) / 1e-3
    assert moved[0][0] == pytest.approx(0.1 / np.sqrt(0.001), rel=0.01)  # (1 - beta_1) / sqrt(1 - beta_2)
    assert moved[5][0] == pytest.approx(moved[0][0] / (5 * STEPS), rel=0.01)


def test_one_trace_a_stage_with_ramps_and_plateaus():
    traces = []

    class Counting(keras.Model):
        def train_step(self, *args):
            traces.append(1)
            return super().train_step(*args)

    ours = [staged(ramp=3, **PATIENT), LayerwiseLearningRate(0.5, groups=GROUPS)]
    fit(compiled(cls=Counting), [Says(SCRIPT), *ours])
    assert len(traces) == 3


KILLS = [(4, "begin"), (10, "end")]  # between two stages, after the last epoch
MORE_KILLS = [(1, "begin"), (2, "end"), (3, "end"), (5, "begin"), (7, "begin"), (8, "end"), (9, "begin")]


@pytest.mark.always("10-end")
@pytest.mark.parametrize(
    ("epoch", "when"), [*KILLS, *(pytest.param(*kill, marks=pytest.mark.everything) for kill in MORE_KILLS)]
)
def test_a_killed_run_goes_on_in_its_stage_with_its_patience_its_best_and_its_ramp(tmp_path, epoch, when):
    def run(model, name, *others):
        ours = staged(ramp=1.5, folder=tmp_path / name, **PATIENT)
        backup = keras.callbacks.BackupAndRestore(tmp_path / f"{name}-backup", delete_checkpoint=False)
        history = fit(model, [Says(SCRIPT), ours, LayerwiseLearningRate(0.5, groups=GROUPS), backup, *others])
        return history, ours

    whole, broken, resumed = compiled(), compiled(), compiled()
    run(whole, "whole")
    with pytest.raises(Killed):
        run(broken, "broken", Kill(epoch, when))
    history, ours = run(resumed, "broken")
    assert ours.progress.starts == (0, 4, 7) and ours.progress.epoch == 11
    assert history.epoch == (list(range(epoch + (when == "end"), 11)) or [11])
    for path, value in weights(whole).items():
        np.testing.assert_allclose(weights(resumed)[path], value, rtol=1e-5, atol=1e-6, err_msg=path)
    for one, other in zip(whole.optimizer.variables, resumed.optimizer.variables):
        np.testing.assert_allclose(other.numpy(), one.numpy(), rtol=1e-5, atol=1e-6, err_msg=one.path)


def test_a_run_goes_on_by_rows_of_a_history_and_never_by_guesses(tmp_path):
    rows = [{"epoch": epoch, "val_loss": value, "stage": "head"} for epoch, value in enumerate(SCRIPT)]
    ours, seen = staged(advance=Plateau(patience=2)), Watch()
    ours.recall(rows)
    fit(compiled(), [Says(SCRIPT), ours, seen], initial_epoch=6)
    assert ours.progress.starts == (0, 4, 7) and seen.trained[:2] == [4, 6]
    for make, sentence in (
        (lambda: staged(advance=Plateau()), "'val_loss' of epoch 1 is not known here"),
        (lambda: staged({0: "head", 4: "late"}, restore_best=True), "what epoch 6 measured"),
        (lambda: staged(folder=tmp_path, **PATIENT), "other stages or another network"),
    ):
        staged_run = staged(folder=tmp_path, advance=Plateau(patience=1))
        fit(compiled(), [Says(SCRIPT), staged_run], epochs=1)
        before = weights(model := compiled())
        with pytest.raises(ValueError, match=sentence):
            fit(model, [Says(SCRIPT), make()], initial_epoch=6)
        assert all(np.array_equal(before[path], value) for path, value in weights(model).items())
    late = staged({0: "head", 4: "late"}, restore_best=True)
    with pytest.raises(ValueError, match="'val_loss', which the logs of epoch 1 lack"):
        fit(compiled(), [late], epochs=1)


def test_an_interrupted_ramp_is_taken_back_by_the_next_fit():
    model, x = compiled(keras.optimizers.SGD(0.1)), np.zeros((4, 6))
    with pytest.raises(Killed):
        ramped = staged({0: "head", 1: "late"}, ramp=100)
        fit(model, [ramped, Kill(1, "end")], validation_data=(x, np.zeros(4)))
    fit(model, [], epochs=1)
    assert not {"update_step", "kresnets_scaling"} & set(vars(model.optimizer))


@pytest.mark.everything
@pytest.mark.parametrize("name", [name for name in OPTIMIZERS if name != "ftrl"])  # which takes no share of a rate
def test_every_optimizer_ramps_and_comes_back(name):
    model, watch = compiled(OPTIMIZERS[name](0.01)), Watch()
    fit(model, [Says(SCRIPT), staged(ramp=2, **PATIENT), LayerwiseLearningRate(0.5, groups=GROUPS), watch])
    for first, best in ((4, 1), (7, 4)):
        for path, value in watch.ended[best].items():
            if not path.startswith("variable"):  # Nadam's product has no name of its own, and another one each time
                np.testing.assert_array_equal(watch.begun[first][path], value, err_msg=path)
    assert all(np.isfinite(value).all() for value in weights(model).values())


DISTRIBUTED = """
import keras, numpy as np, tensorflow as tf
from test_plateau import PATIENT, SCRIPT, GROUPS, LayerwiseLearningRate, Says, compiled, fit, staged, weights
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
def train(strategy):
    with strategy.scope():
        model = compiled(keras.optimizers.AdamW(0.01, weight_decay=0.1))
    ours = staged(ramp=1.5, **PATIENT)
    fit(model, [Says(SCRIPT), ours, LayerwiseLearningRate(0.5, groups=GROUPS)])
    assert ours.progress.starts == (0, 4, 7)
    return weights(model)
two = train(tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"]))
one = train(tf.distribute.get_strategy())
for path, value in one.items():
    np.testing.assert_allclose(two[path], value, rtol=2e-4, atol=2e-5, err_msg=path)
print("equal")
"""


@pytest.mark.everything
def test_two_devices_equal_one():
    if keras.config.backend() != "tensorflow":
        pytest.skip("MirroredStrategy is TensorFlow's")
    environment = os.environ | {"PYTHONPATH": python_path(__file__)}
    command = [sys.executable, "-W", "ignore", "-c", DISTRIBUTED]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.stdout.strip().endswith("equal"), done.stderr[-3000:]
