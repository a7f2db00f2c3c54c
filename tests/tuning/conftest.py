"""What the tests of searches share."""

import gc
import math

import keras
import numpy as np
import pytest

from kresnets.tuning import RecipeHyperModel


@pytest.fixture(scope="module", autouse=True)
def _quick_to_tidy():
    """Leave what is there already out of the collections of garbage, one before each trial."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture(scope="module")
def eager():
    """Run TensorFlow's functions as they stand: tracing one takes longer than some steps of a small network."""
    import tensorflow as tf

    tf.config.run_functions_eagerly(True)
    yield
    tf.config.run_functions_eagerly(False)


@pytest.fixture
def formula(monkeypatch):
    """Have a formula say what trainings measure, where not these but the search is tested: 0.1 is the best rate, the
    loss falls with each epoch, and bright validation images are harder than others."""

    def train(
        self, model, recipe, train, validation, *, cache="auto", callbacks=(), verbose=0, epoch=None, initial_epoch=0
    ):
        model.compile(recipe.optimizer, "mse")
        model.optimizer.build(model.trainable_variables)
        model.stop_training, history = False, keras.callbacks.History()
        follow = keras.callbacks.CallbackList([history, *callbacks], model=model)
        follow.on_train_begin()
        for number in range(initial_epoch, recipe.epochs(self.names)):
            follow.on_epoch_begin(number)
            loss = (abs(math.log10(recipe.learning_rate) + 1) / 5 + 1 / (2 + number)) * np.mean(validation[0]) / 100
            loss = loss if recipe.learning_rate < 1e3 else math.nan
            follow.on_epoch_end(number, {"loss": loss, "val_loss": loss, "val_accuracy": 1 / (1 + loss)})
            if model.stop_training:
                break
        follow.on_train_end()
        return history

    monkeypatch.setattr(RecipeHyperModel, "train", train)
