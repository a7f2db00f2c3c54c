"""The verdict of a search where a training comes to no numbers."""

import types

import numpy as np
import pytest
import tensorflow as tf
from nets import tiny

import kresnets
from kresnets.data import Part
from kresnets.tuning import verdict

RNG = np.random.default_rng(0)
FILES = [tf.io.encode_png(RNG.integers(0, 256, (12, 12, 3)).astype("uint8")).numpy() for _ in range(9)]
PART = Part([f"{n}.png" for n in range(9)], [n % 3 for n in range(9)], FILES, ("a", "b", "c"), progress=False)
DATA = types.SimpleNamespace(train=PART, test=PART, class_names=("a", "b", "c"))
RECIPES = {"winner": kresnets.Recipe(learning_rate=0.2), "default": kresnets.Recipe(), "other": kresnets.Recipe(seed=1)}


@pytest.mark.always("bad0")
@pytest.mark.parametrize("bad", [["winner"], ["default"], ["other"], ["winner", "default", "other"]])
def test_the_recipe_that_came_to_no_numbers_loses(bad, tmp_path, capsys):
    trained = []

    def train(recipe):
        name = next(name for name, one in RECIPES.items() if one is recipe)
        trained.append(name)
        if name in bad:
            raise FloatingPointError(f"The loss of {name} was nan from step 3 of epoch 0 on.")
        model = tiny()
        return model, kresnets.preprocessing_of(model)

    found = verdict.compare(tmp_path, train, DATA, RECIPES)
    assert trained == list(RECIPES) and found["names"] == [name for name in RECIPES if name not in bad]
    assert list(found["failed"]) == bad and found["worse"] == ("winner" in bad)
    verdict.tell(found)
    said = capsys.readouterr().out
    assert all(f"  {name:8} came to no numbers" in said for name in bad) and found["sentence"] in said
    expected = {
        "winner": "The search's recipe came to no numbers, and loses: The loss of winner was nan from step 3 of epoch",
        "default": "The search's recipe beat the default, which came to no numbers: The loss of default was nan",
        "other": "The other recipe came to no numbers.",
    }
    assert expected[bad[0]] in found["sentence"]
    assert verdict.compare(tmp_path, None, DATA, RECIPES) == found  # after a kill: nothing is trained again
