"""`fine_tune` by a recipe that listens: killed and resumed, and repeated from the schedule that it wrote."""

import keras
import numpy as np
import pytest
from nets import data, photographs, tiny, weights

import kresnets

KNOBS = {"learning_rate": 0.05, "trunk_learning_rate": 0.05, "augment": "none", "stages": ("stage3",)}
LISTENING = kresnets.Recipe.textbook(advance="plateau", patience=1, max_epochs_per_stage=3, **KNOBS)


class Kill(keras.callbacks.Callback):
    def on_epoch_begin(self, epoch, logs=None):
        if epoch == 3:
            raise KeyboardInterrupt


def run(folder, recipe, callbacks=(), cache=False):
    model = tiny()
    train, validation = ((np.clip(x * 40 + 100, 0, 255), y) for x, y in (data(48), data(24, seed=1)))
    history = kresnets.fine_tune(
        model, train, validation, recipe, cache, callbacks, state_dir=folder, verbose=0, class_weight=None
    )
    return weights(model), history


@pytest.mark.everything
@pytest.mark.parametrize("cache", [False, True])
def test_a_killed_run_goes_on_and_its_schedule_repeats_it(tmp_path, cache):
    whole, history = run(tmp_path / "whole", LISTENING, cache=cache)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "broken", LISTENING, [Kill()], cache)
    resumed, resumed_history = run(tmp_path / "broken", LISTENING, cache=cache)
    fixed = kresnets.Recipe.textbook(**KNOBS).with_schedule(tmp_path / "whole" / "schedule.toml")
    repeated, repeated_history = run(tmp_path / "repeated", fixed, cache=cache)
    assert history.epoch == resumed_history.epoch == repeated_history.epoch
    for path, value in whole.items():
        np.testing.assert_allclose(resumed[path], value, rtol=1e-5, atol=1e-6, err_msg=path)
        np.testing.assert_allclose(repeated[path], value, rtol=1e-5, atol=1e-6, err_msg=path)
    names = ("stem", "stage1", "stage2", "stage3", "head")
    assert fixed.epochs(names) == len(history.epoch)


def test_a_recipe_that_listens_needs_validation():
    with pytest.raises(ValueError, match="give `validation`"):
        kresnets.fine_tune(tiny(), photographs(), None, LISTENING)
