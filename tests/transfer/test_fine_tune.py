"""`fine_tune` and its recipe against the same thing done by hand, and against interrupted runs of itself."""

import dataclasses
import shutil

import keras
import numpy as np
import pytest
from nets import SHORT, TINY, Stop, StopAfter, photographs, tiny, unchanged_groups, weights

import kresnets
from kresnets import Recipe, fine_tune
from kresnets.runs.state import disk_needed
from kresnets.transfer.lr_schedule import StagedCosine


def test_the_textbooks_recipe_is_the_documented_one():
    assert dataclasses.asdict(Recipe.textbook()) == dict(
        head_epochs=3, stages=None, epochs_per_stage=3, learning_rate=1e-3, trunk_learning_rate=1e-4, ratio=0.5,
        batchnorm="frozen",
        optimizer="adamw", weight_decay=1e-4, schedule="cosine", warmup=0.1, augment="light", views=1,
        label_smoothing=0.0, mixup=0.0,
        ema=None, seed=0, advance="epochs", patience=2, max_epochs_per_stage=10, restore_best=None, ramp=None,
        timetable=None, keep="best", head="trained", momentum=None, monitor="val_loss",
    )  # fmt: skip
    names = ("stem", "stage1", "stage2", "stage3", "stage4", "head")
    assert Recipe.textbook().plan(names) == {0: "head", 3: "stage4", 6: "stage3", 9: "stage2"}
    assert Recipe.textbook().epochs(names) == 12
    assert Recipe.textbook(stages=()).plan(names) == {0: "head"} and Recipe.textbook(stages=()).epochs(names) == 3
    assert Recipe.from_scratch(7).plan(names) == {0: "stem"} and Recipe.from_scratch(7).epochs(names) == 7
    assert Recipe.textbook(head_epochs=0, stages=["stage4_block2"]).plan(names) == {0: "stage4_block2"}
    assert Recipe.textbook().peak_rates(names) == {0: 1e-3, 3: 1e-4, 6: 1e-4, 9: 1e-4}


@pytest.mark.parametrize(
    "wrong",
    [
        dict(head_epochs=-1), dict(head_epochs=1.5), dict(stages="stage4"), dict(stages=(4,)),
        dict(epochs_per_stage=0), dict(learning_rate=0),
        dict(trunk_learning_rate=float("nan")), dict(ratio=-1), dict(batchnorm="on"), dict(optimizer=3),
        dict(optimizer="best"), dict(optimizer="lossscaleoptimizer"), dict(stages=3), dict(weight_decay=-1),
        dict(schedule="step"), dict(warmup=2), dict(augment="heavy"), dict(views=0), dict(label_smoothing=1.0),
        dict(mixup=2), dict(ema=1.0),
        dict(seed=-1), dict(head_epochs=0, stages=()), dict(seed="auto"), dict(patience="auto"), dict(keep="first"),
    ],
)  # fmt: skip
def test_a_recipe_out_of_range_gets_a_sentence(wrong):
    with pytest.raises(ValueError, match=f"Recipe: .*{next(iter(wrong))}"):
        Recipe(**wrong)


@pytest.mark.parametrize("wrong", ["head_epoch", "warmups"])
def test_a_misspelt_field_asks_what_is_meant(wrong):
    with pytest.raises(TypeError, match=f"Recipe has no argument {wrong}: did you mean (head_epochs|warmup)[?]"):
        Recipe.textbook(**{wrong: 1})


def test_the_bar_shows_what_is_measured_and_no_rates(capsys):
    history = fine_tune(tiny(), photographs(), photographs(), dataclasses.replace(SHORT, stages=()), verbose=2)
    lines = [line for line in capsys.readouterr().out.splitlines() if " - " in line]
    assert len(lines) == len(history.epoch) and all("val_loss" in line and len(line) < 120 for line in lines)
    assert "learning_rate/head" in history.history


def test_the_schedule_is_keras_cosine_in_each_stage_and_serializes():
    schedule = StagedCosine((0, 20), (1.0, 0.1), 60, warmup=0.25)
    first = keras.optimizers.schedules.CosineDecay(0.0, 15, warmup_target=1.0, warmup_steps=5)
    second = keras.optimizers.schedules.CosineDecay(0.0, 30, warmup_target=0.1, warmup_steps=10)
    restored = keras.optimizers.schedules.deserialize(keras.optimizers.schedules.serialize(schedule))
    for step in range(0, 60, 3):
        expected = float(first(step)) if step < 20 else float(second(step - 20))
        assert (
            float(schedule(step)) == pytest.approx(expected, abs=1e-7) == pytest.approx(float(restored(step)), abs=1e-7)
        )


def test_it_equals_preprocessing_compiling_and_fitting_by_hand():
    recipe = dataclasses.replace(SHORT, schedule="constant", optimizer="sgd", weight_decay=None, ratio=0.5)
    (x, y), mine, by_hand = photographs(), tiny(), tiny()
    # One batch an epoch, so that its order cannot matter.
    history = fine_tune(mine, (x[:32], y[:32]), recipe=recipe, verbose=0)
    by_hand.compile(keras.optimizers.SGD(0.01), "sparse_categorical_crossentropy", metrics=["accuracy"])
    ours = [kresnets.StagedUnfreezing({0: "head", 1: "stage3", 2: "stage2"}), kresnets.LayerwiseLearningRate(0.5)]
    prepared = keras.applications.imagenet_utils.preprocess_input(x[:32].astype("float32"), mode="torch")
    witness = by_hand.fit(prepared, y[:32], batch_size=32, epochs=3, verbose=0, callbacks=ours)
    np.testing.assert_allclose(history.history["loss"], witness.history["loss"], rtol=1e-4)
    for path, value in weights(by_hand).items():
        np.testing.assert_allclose(weights(mine)[path], value, rtol=1e-4, atol=1e-5, err_msg=path)


@pytest.mark.everything
def test_float16_scales_the_loss_and_keeps_the_scale_through_every_stage():
    (x, y), seen = photographs(64), []

    class Scale(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            if epoch == 0:
                self.model.optimizer.dynamic_scale.assign(4096.0)

        def on_epoch_end(self, epoch, logs=None):
            scaling = self.model.optimizer
            assert isinstance(scaling, keras.optimizers.LossScaleOptimizer)
            seen.append([float(scaling.dynamic_scale.numpy()), int(scaling.step_counter.numpy())])

    expected = fine_tune(tiny(), (x, y), (x, y), SHORT, verbose=0)
    keras.mixed_precision.set_dtype_policy("mixed_float16")
    try:
        model = tiny()
        before = weights(model)
        history = fine_tune(model, (x, y), (x, y), SHORT, callbacks=[Scale()], verbose=0)
    finally:
        keras.mixed_precision.set_dtype_policy("float32")
    assert seen == [[4096, 2], [4096, 4], [4096, 6]]  # steps since the scale last changed: no stage begins anew
    assert unchanged_groups(model, before) == ["stem", "stage1"]
    assert (
        model.layers[-1].compute_dtype == "float32"
        and model.get_layer("stage2_block1_conv1").compute_dtype == "float16"
    )
    for name in ("loss", "val_loss"):
        np.testing.assert_allclose(history.history[name], expected.history[name], rtol=5e-3)


def test_arrays_datasets_and_pydatasets_are_the_same_to_it():
    x, y = photographs(32)

    class Two(keras.utils.PyDataset):
        def __len__(self):
            return 1

        def __getitem__(self, index):
            return x, y

    sources = [(x, y), Two()]
    if keras.config.backend() == "tensorflow":
        import tensorflow as tf

        sources.append(tf.data.Dataset.from_tensor_slices((x, y)).batch(32).filter(lambda *_: True))  # unknown length
    results = []
    for source in sources:
        model = tiny()
        # SGD: Adam would make a step of full size out of the rounding of a sum in another order.
        recipe = dataclasses.replace(SHORT, stages=("stage3",), optimizer="sgd", weight_decay=None)
        fine_tune(model, source, source, recipe, verbose=0)
        results.append(weights(model))
    for result in results[1:]:
        for path, value in results[0].items():
            np.testing.assert_allclose(result[path], value, rtol=1e-4, atol=1e-5, err_msg=path)


def test_the_epoch_with_the_best_validation_loss_is_kept():
    model = tiny()
    x, y = photographs()
    recipe = dataclasses.replace(
        SHORT, stages=("stage3",), epochs_per_stage=2, schedule="constant", trunk_learning_rate=5.0
    )  # too fast
    history = fine_tune(model, (x, y), (x, y), recipe, verbose=0)
    losses = history.history["val_loss"]
    assert losses[-1] > min(losses)
    found = model.evaluate(kresnets.preprocess_input(x), y, verbose=0)[0]
    assert found == pytest.approx(min(losses), rel=1e-4)


def test_what_is_not_named_stays_frozen_for_ever():
    model = tiny()
    before = weights(model)
    fine_tune(model, photographs(), recipe=dataclasses.replace(SHORT, stages=("stage3", "stage2_block2")), verbose=0)
    after = weights(model)
    changed = {path.split("_conv")[0] for path in before if not np.array_equal(before[path], after[path])}
    assert changed == {"stage3_block1", "stage2_block2", "head_dense/kernel", "head_dense/bias"}


@pytest.mark.parametrize(
    ("recipe", "cuts"),
    [
        (dataclasses.replace(SHORT, augment="light", epochs_per_stage=2), (1, 5)),
        pytest.param(
            dataclasses.replace(SHORT, mixup=0.2, label_smoothing=0.1, ema=0.9, batchnorm="train", schedule="constant"),
            (1, 4, 2, 5),
            marks=pytest.mark.everything,
        ),
    ],
    ids=["plain", "everything"],
)
def test_interrupted_anywhere_it_goes_on_to_the_same_bits(tmp_path, recipe, cuts):
    x, y = photographs(70)
    whole = tiny(dropout=0.3)
    expected = fine_tune(whole, (x, y), (x, y), recipe, verbose=0)
    for batches in (*cuts, 100):
        model = tiny(dropout=0.3)
        try:
            history = fine_tune(
                model, (x, y), (x, y), recipe, callbacks=[StopAfter(batches)], state_dir=tmp_path, verbose=0
            )
        except Stop:
            continue
        break
    assert history.epoch == list(range(len(expected.epoch)))
    for name, column in expected.history.items():
        np.testing.assert_allclose(history.history[name], column, rtol=1e-6, err_msg=name)
    for path, value in weights(whole).items():
        np.testing.assert_array_equal(weights(model)[path], value, err_msg=path)
    # Finished: the same call trains nothing and gives the same again.
    again = tiny(dropout=0.3)
    fine_tune(again, (x, y), (x, y), recipe, callbacks=[StopAfter(0)], state_dir=tmp_path, verbose=0)
    assert unchanged_groups(again, weights(whole)) == ["stem", "stage1", "stage2", "stage3", "head"]


@pytest.mark.everything
def test_killed_between_the_epoch_and_its_best_weights(tmp_path):
    x, y = photographs()
    model = tiny()
    with pytest.raises(Stop):
        fine_tune(model, (x, y), (x, y), SHORT, callbacks=[StopAfter(4)], state_dir=tmp_path, verbose=0)
    (best,) = tmp_path.glob("best-*.npz")
    best.unlink()
    (tmp_path / ".tmp-epoch-0002.weights.h5").write_bytes(b"half a file")
    whole, resumed = tiny(), tiny()
    fine_tune(whole, (x, y), (x, y), SHORT, verbose=0)
    fine_tune(resumed, (x, y), (x, y), SHORT, state_dir=tmp_path, verbose=0)
    assert unchanged_groups(resumed, weights(whole)) == ["stem", "stage1", "stage2", "stage3", "head"]
    assert not list(tmp_path.glob(".tmp-*"))


def test_a_run_that_a_callback_stopped_is_done(tmp_path):
    stop = keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: setattr(stop.model, "stop_training", True))
    first = fine_tune(tiny(), photographs(), recipe=SHORT, state_dir=tmp_path, callbacks=stop, verbose=0)
    again = fine_tune(tiny(), photographs(), recipe=SHORT, state_dir=tmp_path, verbose=0)
    assert first.epoch == again.epoch == [0]


def test_labels_out_of_range_in_a_dataset_stop_the_training():
    tf = pytest.importorskip("tensorflow")
    x, y = photographs()
    with pytest.raises(Exception, match="Labels must be whole numbers 0 to 2 for a model of 3 classes"):
        fine_tune(tiny(), tf.data.Dataset.from_tensor_slices((x, y + 1)).batch(8), recipe=SHORT, verbose=0)
    with pytest.raises(ValueError, match="put them into batches"):
        fine_tune(tiny(), tf.data.Dataset.from_tensor_slices((x, y)), recipe=SHORT, verbose=0)
    endless = tf.data.Dataset.from_tensor_slices((x, y)).batch(8).repeat()
    for sources in ((endless, None), ((x, y), endless)):
        with pytest.raises(ValueError, match="Received: endless batches"):
            fine_tune(tiny(), *sources, SHORT, verbose=0)


def test_a_folder_of_another_run_is_refused(tmp_path):
    fine_tune(tiny(), photographs(), recipe=SHORT, state_dir=tmp_path, verbose=0)
    with pytest.raises(ValueError, match="holds the state of another run"):
        fine_tune(tiny(), photographs(), recipe=dataclasses.replace(SHORT, seed=1), state_dir=tmp_path, verbose=0)


def test_plateau_works_on_a_constant_schedule():
    model = tiny()
    plateau = keras.callbacks.ReduceLROnPlateau(monitor="loss", factor=0.1, patience=1, min_delta=1e9)
    recipe = dataclasses.replace(SHORT, epochs_per_stage=3, stages=("stage3",), schedule="constant")
    history = fine_tune(model, photographs(), recipe=recipe, callbacks=[plateau], verbose=0)
    assert history.history["learning_rate/head"] == pytest.approx([0.01, 0.01, 0.001, 0.0001], rel=1e-4)


def test_a_model_that_is_not_ours_says_its_mode_and_groups():
    base = keras.applications.MobileNet(weights=None, alpha=0.25, input_shape=(32, 32, 3), classes=3)
    groups = {"early": r"conv1.*|conv_(dw|pw)_[1-9](_.*)?", "late": r"conv_(dw|pw)_1[0-3].*", "head": r"conv_preds"}
    images = photographs(16, size=32)
    with pytest.raises(ValueError, match="preprocess='torch'"):
        fine_tune(base, images, recipe=SHORT, groups=groups, verbose=0)
    history = fine_tune(
        base, images, recipe=dataclasses.replace(SHORT, stages=("late",)), groups=groups, preprocess="tf", verbose=0
    )
    assert len(history.epoch) == 2


HALF = kresnets.Preprocessing("torch", 0.95, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5), 12)


def test_means_that_the_weights_want_reach_the_images():
    """torch with .5 thrice is the tf mode: the same training as with images that keras.applications prepared so."""
    recipe = dataclasses.replace(SHORT, schedule="constant", optimizer="sgd", weight_decay=None, stages=())
    (x, y), mine, by_hand = photographs(32), tiny(), tiny()
    mine.get_layer("stem_bn1").preprocessing = HALF
    history = fine_tune(mine, (x, y), (x, y), recipe=recipe, verbose=0)
    by_hand.compile(keras.optimizers.SGD(0.01), "sparse_categorical_crossentropy")
    prepared = keras.applications.imagenet_utils.preprocess_input(x.astype("float32"), mode="tf")
    head = kresnets.StagedUnfreezing({0: "head"})
    witness = by_hand.fit(prepared, y, batch_size=32, validation_data=(prepared, y), verbose=0, callbacks=[head])
    for name in ("loss", "val_loss"):
        np.testing.assert_allclose(history.history[name], witness.history[name], rtol=1e-4)
    assert kresnets.preprocessing_of(mine) == HALF


def test_a_forced_preprocessing_is_said_aloud_used_and_carried(tmp_path):
    images, recipe = photographs(32), dataclasses.replace(SHORT, stages=())
    losses = []
    for carried, forced in ((kresnets.Preprocessing(), HALF), (HALF, None)):
        model = tiny()
        model.get_layer("stem_bn1").preprocessing = carried
        if forced is None:
            history = fine_tune(model, images, recipe=recipe, verbose=0)
        else:
            with pytest.warns(UserWarning, match="used as asked for, but the weights of 'tiny' want") as said:
                history = fine_tune(model, images, recipe=recipe, preprocess=forced, verbose=0)
            assert [warning.filename for warning in said if "as asked" in str(warning.message)] == [__file__]
        # What it learned from is what it wants from now on, also in a file.
        model.save(tmp_path / "model.keras")
        assert kresnets.preprocessing_of(keras.saving.load_model(tmp_path / "model.keras")) == HALF
        losses.append(history.history["loss"])
    assert losses[0] == losses[1]


def test_logits_and_float_head_under_mixed_precision():
    keras.utils.set_random_seed(0)
    keras.mixed_precision.set_dtype_policy("mixed_bfloat16")
    try:
        model = kresnets.build(TINY, input_shape=(12, 12, 3), classes=3, classifier_activation=None)
        history = fine_tune(model, photographs(), recipe=SHORT, verbose=0)
    finally:
        keras.mixed_precision.set_dtype_policy("float32")
    assert model.loss.get_config()["from_logits"] and model.output.dtype == "float32"
    assert np.isfinite(history.history["loss"]).all()


X, Y = photographs()


@pytest.mark.parametrize(
    ("model", "arguments", "sentence"),
    [
        (tiny, dict(train=(X, Y), cache=3), "`cache` must be"),
        (tiny, dict(train=(X, Y), recipe="default"), "must be a kresnets.Recipe"),
        (tiny, dict(train=X), "must be a tf.data.Dataset or keras.utils.PyDataset"),
        (tiny, dict(train=(X, Y[:5])), "of one length"),
        (tiny, dict(train=(X[:0], Y[:0])), "of one length, above 0"),
        (tiny, dict(train=(X[0], Y[:12])), "must be images"),
        (tiny, dict(train=(X, np.eye(4)[Y])), "one integer label each"),
        (tiny, dict(train=(X, Y + 1)), "Labels must be whole numbers 0 to 2"),
        (tiny, dict(train=(X, Y), validation=(X, Y + 1)), "Labels must be whole numbers 0 to 2"),
        (tiny, dict(train=(X, Y + 0.5)), "whole numbers"),
        (tiny, dict(train=(X, Y.astype(str))), "whole numbers"),
        (tiny, dict(train=(X, Y), validation=(X[:, :8], Y)), "`validation`: 'tiny' takes images of shape"),
        (tiny, dict(train=(X, Y), callbacks=kresnets.LayerwiseLearningRate(0.5)), "which the recipe brings already"),
        (tiny, dict(train=(X[:, :8], Y)), "takes images of shape"),
        (tiny, dict(train=(X, Y), recipe=Recipe.textbook(stages=("stage9",))), "no group or block 'stage9'"),
        (
            lambda: kresnets.build(TINY, include_top=False, input_shape=(12, 12, 3)),
            dict(train=(X, Y)),
            "one score a class",
        ),
        (lambda: kresnets.build(TINY, classes=1, input_shape=(12, 12, 3)), dict(train=(X, Y * 0)), "has 1 output"),
    ],
)
def test_bad_input_gets_a_sentence(model, arguments, sentence):
    with pytest.raises(ValueError, match=sentence):
        fine_tune(model(), verbose=0, **arguments)


@pytest.mark.everything
def test_a_run_of_before_decoding_was_noted_is_not_gone_on_with_otherwise_decoded(tmp_path):
    import json

    from PIL import Image

    from kresnets.data import load_data

    for label, name in enumerate(("dark", "light")):
        (tmp_path / "images" / name).mkdir(parents=True)
        for number in range(6):
            pixels = np.full((12, 12, 4), 40 + 100 * label + number, "uint8")
            Image.fromarray(pixels).save(tmp_path / "images" / name / f"{number}.png")

    def run(**how):
        data = load_data(tmp_path / "images", progress=False, **how)
        model = tiny(classes=2)
        fine_tune(model, data.train.batches(4, 12), recipe=SHORT, state_dir=tmp_path / "run", verbose=0)
        return kresnets.preprocessing_of(model).decoding

    run(decoding=kresnets.Decoding.before())
    notes = json.loads((tmp_path / "run" / "run.json").read_text())
    del notes["decoding"]
    (tmp_path / "run" / "run.json").write_text(json.dumps(notes))
    with pytest.raises(ValueError, match=r"of an older version.*decoding=kresnets.Decoding.before\(\)"):
        run()
    assert run(decoding=kresnets.Decoding.before()) == kresnets.Decoding.before()


def test_the_disk_has_room_for_the_run_or_it_does_not_begin(tmp_path, monkeypatch):
    """What is said to be needed at most is at least what then lies there, and too little is refused before a step."""
    largest = []

    class Measure(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            largest.append(sum(file.stat().st_size for file in tmp_path.joinpath("run").rglob("*") if file.is_file()))

    model, data = kresnets.CifarResNet20(classes=3), (np.zeros((6, 32, 32, 3), "float32"), np.arange(6) % 3)
    recipe = Recipe(
        head_epochs=0, stages=("stem",), epochs_per_stage=3, advance="plateau", patience=1, restore_best=True
    )
    fine_tune(model, data, data, recipe, state_dir=tmp_path / "run", callbacks=[Measure()], pretrained=True, verbose=0)
    model.save(tmp_path / "model.keras")
    finished, most = disk_needed(model)
    assert 0.9 * finished <= (tmp_path / "model.keras").stat().st_size <= 1.3 * finished  # HDF5, names of layers
    assert max(largest) <= most
    monkeypatch.setattr(shutil, "disk_usage", lambda path: (10**9, 10**9 - 5000, 5000))
    with pytest.raises(OSError, match="lies on a disk with .* free, and the run takes up to .*: make room, or give"):
        fine_tune(tiny(), photographs(), recipe=SHORT, state_dir=tmp_path / "full", callbacks=[StopAfter(0)], verbose=0)
