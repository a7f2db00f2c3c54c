"""Optimizer surgery against other optimizer runs: a scaled rate equals a lower rate, a rebuilt optimizer one that
never was."""

import keras
import numpy as np
import pytest
from nets import data, tiny, weights
from optimizers import OPTIMIZERS

import kresnets
from kresnets.keras_hooks import optimizer as optimizer_hooks

O = keras.optimizers  # noqa: E741
QUICK = ("sgd", "adamw", "accumulation", "loss scale")  # the others differ in their arithmetic alone
SCALABLE = [name for name in OPTIMIZERS if name != "ftrl"]


def _mark(name):
    return () if name in QUICK else pytest.mark.everything


def _marked(names):
    return [pytest.param(name, marks=_mark(name)) for name in names]


def _fit(model, optimizer, epochs=2, callbacks=()):
    # Eagerly: the arithmetic is the same, and hundreds of traces are not made. tests/callbacks train in
    # graphs.
    model.compile(optimizer, "sparse_categorical_crossentropy", run_eagerly=True)
    x, y = data()
    model.fit(x, y, batch_size=6, epochs=epochs, shuffle=False, verbose=0, callbacks=list(callbacks))
    return model


def _moved(make, steps, start, scale=None):
    """By how much an optimizer moves variables in some steps, the second at `scale` times the rate."""
    variables = [keras.Variable(value) for value in start]
    optimizer = make(0.01)
    optimizer.build(variables)
    if scale is not None:
        optimizer_hooks.check_scales(optimizer, [scale])
        optimizer_hooks.scale_updates(optimizer, [(variables[1], scale)])
    for gradients in steps:
        optimizer.apply([keras.ops.convert_to_tensor(one) for one in gradients], variables)
    return [variable.numpy() - value for variable, value in zip(variables, start)]


@pytest.mark.parametrize(
    "kind", sorted({type(make(0.1)) for make in OPTIMIZERS.values()}, key=lambda one: one.__name__)
)
def test_every_optimizer_scales_as_a_second_one_at_the_lower_rate_or_is_refused(kind):
    if kind is O.LossScaleOptimizer:
        pytest.skip("it makes no updates of its own")
    rng = np.random.default_rng(0)
    start = [rng.normal(size=(4, 3)).astype("float32") for _ in range(2)]
    steps = [[rng.normal(size=(4, 3)).astype("float32") for _ in range(2)] for _ in range(2)]
    whole, lower = _moved(kind, steps, start), _moved(lambda rate: kind(rate / 4), steps, start)
    if np.abs(lower[1]).max() > 0.5 * np.abs(whole[1]).max():  # a quarter of the rate is no quarter of the way
        assert kind is O.Ftrl
        with pytest.raises(ValueError, match="Ftrl pulls weights towards 0 at any rate"):
            _moved(kind, steps, start, 0.25)
        return
    scaled = _moved(kind, steps, start, 0.25)
    np.testing.assert_allclose(scaled[0], whole[0], rtol=1e-5, atol=1e-8)
    np.testing.assert_allclose(scaled[1], lower[1], rtol=1e-5, atol=1e-8)


def test_ftrl_is_refused_before_anything_is_trained(tmp_path):
    x, y = np.random.default_rng(0).integers(0, 256, (8, 12, 12, 3)), np.arange(8) % 3
    recipe = kresnets.Recipe.textbook(optimizer="ftrl", head_epochs=1, stages=(), augment="none")
    with pytest.raises(ValueError, match="take another optimizer, such as 'adamw'"):
        kresnets.fine_tune(tiny(), (x, y), recipe=recipe, state_dir=tmp_path, verbose=0)
    assert not list(tmp_path.iterdir())
    model = tiny()
    model.compile(O.Ftrl(0.01), "sparse_categorical_crossentropy")
    for callback in (kresnets.LayerwiseLearningRate(0.5), kresnets.StagedUnfreezing({0: "head"}, ramp=1)):
        with pytest.raises(ValueError, match="Ftrl pulls"):
            model.fit(*data(), callbacks=[callback], verbose=0)


@pytest.mark.always("loss scale")
@pytest.mark.parametrize("name", _marked(SCALABLE))
def test_a_ratio_equals_a_lower_rate(name):
    lower = _fit(tiny(), OPTIMIZERS[name](0.0025))
    groups = kresnets.groups(lower)
    scaled = _fit(
        tiny(), OPTIMIZERS[name](0.01), callbacks=[kresnets.LayerwiseLearningRate(dict.fromkeys(groups, 0.25))]
    )
    for path, value in weights(lower).items():
        np.testing.assert_allclose(weights(scaled)[path], value, rtol=1e-5, atol=1e-6, err_msg=path)
    assert any(not np.array_equal(weights(lower)[path], value) for path, value in weights(tiny()).items())


@pytest.mark.always("adamw", "loss scale")
@pytest.mark.parametrize("name", _marked(OPTIMIZERS))
def test_ratio_zero_changes_no_trainable_variable_and_the_others_as_always(name):
    before = weights(tiny())
    trained = _fit(tiny(), OPTIMIZERS[name](0.01), callbacks=[kresnets.LayerwiseLearningRate({"stage2": 0, "stem": 0})])
    after = weights(trained)
    frozen = [v.path for v in trained.trainable_variables if v.path.startswith(("stage2", "stem"))]
    moving = [v.path for v in trained.trainable_variables if v.path not in frozen]
    assert all(np.array_equal(before[path], after[path]) for path in frozen)
    assert not any(np.array_equal(before[path], after[path]) for path in moving)
    statistics = [path for path in before if "moving_mean" in path]
    assert not any(
        np.array_equal(before[path], after[path]) for path in statistics
    )  # at ratio 0 norms still see the data


@pytest.mark.everything
@pytest.mark.parametrize("name", _marked(["sgd", "adam", "adamw", "rmsprop", "lion"]))
def test_keras_multi_optimizer_is_a_second_witness(name):
    mine = _fit(
        tiny(), OPTIMIZERS[name](0.01), callbacks=[kresnets.LayerwiseLearningRate({"stage3": 0.1, "stem": 0.5})]
    )
    by_path = O.OptimizerMap(
        OPTIMIZERS[name](0.01), {"stage3_.*": OPTIMIZERS[name](0.001), "stem_.*": OPTIMIZERS[name](0.005)}
    )
    theirs = _fit(tiny(), O.MultiOptimizer(by_path))
    for path, value in weights(theirs).items():
        np.testing.assert_allclose(weights(mine)[path], value, rtol=1e-5, atol=1e-6, err_msg=path)


@pytest.mark.always("adamw", "loss scale")
@pytest.mark.parametrize("name", _marked(OPTIMIZERS))
def test_all_state_goes_through_a_rebuild(name):
    model = kresnets.freeze(tiny(), "stage2", "train")
    _fit(model, OPTIMIZERS[name](0.01))
    optimizer = model.optimizer
    before = _values(optimizer)
    assert not optimizer_hooks.rebuild(model)  # on the same variables
    kresnets.freeze(model, "stem", "train")
    assert optimizer_hooks.rebuild(model)
    assert model.optimizer is optimizer
    assert len(optimizer_hooks.core(optimizer)._trainable_variables) == len(model.trainable_variables)
    kresnets.freeze(model, "stage2", "train")
    assert optimizer_hooks.rebuild(model)
    after = _values(optimizer)  # in the order of building: by position, since Adafactor names all its slots alike
    assert len(after) == len(before)
    for left, right in zip(before, after):
        np.testing.assert_array_equal(left, right)
    x, y = data()
    model.fit(x, y, epochs=1, verbose=0)


def _values(optimizer):
    return [np.array(keras.ops.convert_to_numpy(v.value)) for v in optimizer.variables]


@pytest.mark.always("adamw")
@pytest.mark.parametrize("name", _marked(["adamw", "nadam", "loss scale"]))
def test_an_optimizer_rebuilt_midway_ends_where_one_that_never_was_ends(name):
    # Rebuilt on all and back on the same variables: the state must have gone through twice.
    def train(rebuild):
        model = kresnets.freeze(tiny(), "stage1", "train")
        _fit(model, OPTIMIZERS[name](0.01))
        if rebuild:
            kresnets.freeze(model, None, "train")
            optimizer_hooks.rebuild(model)
            kresnets.freeze(model, "stage1", "train")
            optimizer_hooks.rebuild(model)
            model.make_train_function(force=True)
        x, y = data(seed=1)
        model.fit(x, y, batch_size=6, epochs=2, shuffle=False, verbose=0)
        return weights(model)

    plain = train(False)
    for path, value in train(True).items():
        np.testing.assert_allclose(value, plain[path], rtol=1e-6, atol=1e-7, err_msg=path)


def test_a_joining_variable_starts_its_moving_average_at_its_own_value():
    model = kresnets.freeze(tiny(), "stage2", "train")
    _fit(model, OPTIMIZERS["averages"](0.01))
    kresnets.freeze(model, "stage1", "train")
    optimizer_hooks.rebuild(model)
    averages = model.optimizer._model_variables_moving_average
    joined = [i for i, v in enumerate(model.trainable_variables) if v.path.startswith("stage2")]
    for index in joined:
        np.testing.assert_array_equal(
            keras.ops.convert_to_numpy(averages[index].value),
            keras.ops.convert_to_numpy(model.trainable_variables[index].value),
        )
    assert joined


def test_a_schedule_and_exclusions_and_a_changed_rate_survive():
    schedule = O.schedules.ExponentialDecay(0.1, 10, 0.5)
    model = kresnets.freeze(tiny(), "stage3", "train")
    optimizer = O.AdamW(schedule, weight_decay=0.5)
    optimizer.exclude_from_weight_decay(var_names=["kernel", "gamma", "beta", "bias"])
    _fit(model, optimizer)
    kresnets.freeze(model, "stage2", "train")
    optimizer_hooks.rebuild(model)
    assert optimizer._learning_rate is schedule
    assert not any(optimizer._use_weight_decay(v) for v in model.trainable_variables)
    model = kresnets.freeze(tiny(), "stage3", "train")
    _fit(model, O.SGD(0.5))
    model.optimizer.learning_rate = 0.125
    kresnets.freeze(model, "stage2", "train")
    optimizer_hooks.rebuild(model)
    assert float(keras.ops.convert_to_numpy(model.optimizer.learning_rate)) == 0.125


def test_unscaling_leaves_no_trace():
    optimizer = O.AdamW(0.1)
    before = set(vars(optimizer))
    model = tiny()
    optimizer.build(model.trainable_variables)
    built = set(vars(optimizer))
    optimizer_hooks.scale_updates(optimizer, [(model.trainable_variables[0], 0.5)])
    assert optimizer_hooks.ratio_of(optimizer, model.trainable_variables[0]) == 0.5
    optimizer_hooks.unscale_updates(optimizer)
    assert set(vars(optimizer)) == built >= before
    assert optimizer_hooks.ratio_of(optimizer, model.trainable_variables[0]) == 1.0


class Shared(keras.optimizers.SGD):
    """Keeps state in a dict, which no list of Keras's optimizers does."""

    def build(self, variables):
        super().build(variables)
        self.extra = {v.path: self.add_variable_from_reference(v, name="extra") for v in variables}


def test_state_that_cannot_be_carried_is_refused_in_a_sentence():
    model = kresnets.freeze(tiny(), "stage3", "train")
    model.compile(Shared(0.1), "sparse_categorical_crossentropy")
    x, y = data()
    model.fit(x, y, verbose=0)
    kresnets.freeze(model, "stage2", "train")
    with pytest.raises(TypeError, match="Shared keeps state that cannot be carried over"):
        optimizer_hooks.rebuild(model)


def test_a_multi_optimizer_is_refused_in_a_sentence():
    model = tiny()
    model.compile(
        O.MultiOptimizer(O.OptimizerMap(O.SGD(0.1), {"stem_.*": O.SGD(0.01)})), "sparse_categorical_crossentropy"
    )
    x, y = data()
    with pytest.raises(ValueError, match="MultiOptimizer fixes its variables"):
        model.fit(x, y, verbose=0, callbacks=[kresnets.LayerwiseLearningRate(0.5)])
