"""Schedules as data: when a stage ends, the files, the recipe, and what is refused."""

import types

import keras
import numpy as np
import pytest

from kresnets import Plateau, Recipe, StagedUnfreezing
from kresnets.callbacks import Progress, Schedule


@pytest.mark.parametrize("mode", ["min", "max"])
@pytest.mark.parametrize("patience", [0, 1, 2, 3])
def test_a_stage_ends_when_keras_early_stopping_would(mode, patience):
    rng = np.random.default_rng(patience)
    for delta in (0.0, 0.125):
        for _ in range(20):
            values = [float(v) for v in rng.integers(0, 64, 30) / 64]
            stopping = keras.callbacks.EarlyStopping("val_x", patience=patience, min_delta=delta, mode=mode)
            stopping.set_model(types.SimpleNamespace(stop_training=False, metrics=[], get_weights=lambda: None))
            stopping.on_train_begin()
            ended = None
            for epoch, value in enumerate(values):
                stopping.on_epoch_end(epoch, {"val_x": value})
                if stopping.model.stop_training:
                    ended = epoch + 1
                    break
            plateau = Plateau("val_x", patience, delta, None, mode)
            rows = [{"epoch": epoch, "val_x": value} for epoch, value in enumerate(values)]
            progress = Progress.replay(Schedule((("head", plateau), ("late", None))), rows)
            assert progress.starts == ((0,) if ended is None else (0, ended))
            if ended is None:
                assert (progress.best, progress.best_epoch) == (stopping.best, stopping.best_epoch)
                assert progress.waited == stopping.wait


def test_the_direction_by_name_is_that_of_keras_metrics():
    names = set()
    for cls in vars(keras.metrics).values():
        if isinstance(cls, type) and cls is not keras.metrics.IoU:
            try:
                metric = cls()
            except TypeError:
                continue
            if hasattr(metric, "_direction") and not metric.name.startswith("binary_io"):
                assert Plateau(f"val_{metric.name}").rises() == (metric._direction == "up"), metric.name
                names.add(metric.name)
    assert len(names) > 15 and Plateau("val_auc_1").rises() and not Plateau("loss").rises()


def test_schedules_survive_their_file(tmp_path):
    path = tmp_path / "schedule.toml"
    for schedule in (
        Schedule.of([('he"ad\n\x7f\u00e9', 3), ("b", Plateau("val_acc", 0, 1e-7, None, "max")), ("c", None)], ramp=0.5),
        Schedule.of(["head", "stage4"], Plateau(), restore_best=True),
        Schedule.of([("a", Plateau(patience=None, min_delta=1e300, max_epochs=np.int64(4)))], ramp=np.float32(2)),
    ):
        schedule.write(path)
        assert Schedule.from_file(path) == schedule
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("stage = 3", "must be tables"),
        ("[[stage]]\nepochs = 3", "needs a group"),
        ("[[stage]]\ngroup = 'a'\nepoch = 3", "has no 'epoch'"),
        ("[[stage]]\ngroup = 'a'\nepochs = 3\npatience = 2", "gives epochs and patience"),
        ("[[stage]]\ngroup = 'a'\nepochs = 0", "whole number from 1"),
        ("[[stage]]\ngroup = 'a'\npatience = -1", "`patience` must be"),
        ("[[stage]]\ngroup = 'a'\n[[stage]]\ngroup = 'b'", "leaves open how long 'a' takes"),
        ("rampp = 3\n[[stage]]\ngroup = 'a'", "no setting 'rampp'"),
        ("restore_best = 'yes'\n[[stage]]\ngroup = 'a'", "True or False"),
        ("", "is empty"),
        ("][", "is no schedule of stages"),
        (None, "No such file"),
    ],
)
def test_a_bad_file_gets_a_sentence(tmp_path, text, sentence):
    if text is not None:
        (tmp_path / "s.toml").write_text(text)
    with pytest.raises(ValueError, match=sentence) as caught:
        StagedUnfreezing.from_file(tmp_path / "s.toml")
    assert "s.toml is no schedule of stages" in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: Plateau(patience=-1), "`patience` must be"),
        (lambda: Plateau(min_delta=float("nan")), "`min_delta` must be"),
        (lambda: Plateau(max_epochs=0), "`max_epochs` must be"),
        (lambda: Plateau(mode="up"), "`mode` must be"),
        (lambda: Plateau("val_thing"), "does not tell whether higher"),
        (lambda: StagedUnfreezing(["head", "late"]), "how long 'head' takes"),
        (lambda: StagedUnfreezing([("head", 0)]), "whole number of epochs from 1"),
        (lambda: StagedUnfreezing([]), "is empty"),
        (lambda: StagedUnfreezing([("head", 3, 4)]), "a pair of a group"),
        (lambda: StagedUnfreezing("head"), "must be a dict"),
        (lambda: StagedUnfreezing(["head"], advance="plateau"), "`advance` must be"),
        (lambda: StagedUnfreezing({0: "head"}, advance=3), "goes with a list"),
        (lambda: StagedUnfreezing({0: "head"}, ramp=-1), "`ramp` must be"),
        (lambda: StagedUnfreezing({0: "head"}, restore_best="best"), "`restore_best` must be"),
        (lambda: StagedUnfreezing(Schedule((("head", 1),)), ramp=2), "leave them out"),
        (lambda: Recipe.textbook(advance="never"), "`advance` must be"),
        (lambda: Recipe(patience=-1), "`patience` must be"),
        (lambda: Recipe(max_epochs_per_stage=0), "`max_epochs_per_stage` must be"),
        (lambda: Recipe(ramp=-1), "`ramp` must be"),
        (lambda: Recipe(restore_best=1), "`restore_best` must be"),
        (lambda: Recipe(timetable=(("head", 0),)), "`timetable`"),
        (lambda: Recipe(timetable=("head", "stage4")), "`timetable`"),
    ],
)
def test_bad_input_gets_a_sentence(make, sentence):
    with pytest.raises(ValueError, match=sentence) as caught:
        make()
    assert "\n" not in str(caught.value)


def test_a_recipe_says_the_schedule(tmp_path):
    names = ("stem", "stage1", "stage2", "stage3", "stage4", "head")
    fixed = Recipe.textbook(head_epochs=2, epochs_per_stage=4)
    assert fixed.staging(names).stages == (("head", 2), ("stage4", 4), ("stage3", 4), ("stage2", 4))
    assert fixed.plan(names) == {0: "head", 2: "stage4", 6: "stage3", 10: "stage2"} and fixed.epochs(names) == 14
    assert fixed.rate == "cosine" and fixed.staging(names).ramp == 0
    listening = Recipe.textbook(advance="plateau", patience=1, max_epochs_per_stage=5, stages=("stage4",))
    plateau = Plateau(patience=1, max_epochs=5)
    assert listening.staging(names) == Schedule((("head", plateau), ("stage4", plateau)), True, 2)
    assert listening.epochs(names) == 10 and listening.rate == "constant"
    assert listening.peaks(names) == {"head": 1e-3, "stage4": 1e-4}
    Schedule((("head", 3), ("stage4", 2)), ramp=1).write(tmp_path / "s.toml")
    read = listening.with_schedule(tmp_path / "s.toml")
    assert read.staging(names) == Schedule((("head", 3), ("stage4", 2)), ramp=1) and read.epochs(names) == 5
    assert read.plan(names) == {0: "head", 3: "stage4"} and read.rate == "constant"
