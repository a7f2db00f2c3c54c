"""Augmentation as a list of Keras's layers, in Python and in a TOML file."""

import json

import keras
import numpy as np
import pytest
from cells import copy_to
from commands import small_run

from kresnets import Recipe, augmentations
from kresnets.data import augmentation

LIST = {"RandomFlip": {"mode": "horizontal_and_vertical"}, "RandomRotation": {"factor": 0.1}, "RandAugment": {}}
TOML = '[RandomFlip]\nmode = "horizontal_and_vertical"\n[RandomRotation]\nfactor = 0.1\n[RandAugment]\n'
IMAGES = np.random.default_rng(0).uniform(0, 255, (4, 16, 16, 3)).astype("float32")


def test_it_is_keras_own_layers_in_their_order():
    layers = keras.layers.RandomFlip("horizontal_and_vertical"), keras.layers.RandomRotation(0.1)
    by_hand = keras.Sequential([*layers, keras.layers.RandAugment(value_range=(0, 255))])
    for draw in (0, 7):
        found = augmentation(LIST, seed=3)(IMAGES, draw)
        np.testing.assert_array_equal(found, augmentation(by_hand, seed=3)(IMAGES, draw))
        assert not np.allclose(found, IMAGES)


@pytest.mark.everything
def test_every_layer_keeps_size_and_range():
    needed = {"RandomTranslation": {"height_factor": 0.1, "width_factor": 0.1}, "RandomZoom": {"height_factor": 0.1}}
    for name in augmentations.known():
        settings = needed.get(name, {"factor": 2 if name == "RandomPosterization" else 0.3})
        try:
            augment = augmentation({name: settings}, seed=0)
        except ValueError:  # a few have no factor
            augment = augmentation({name: {}}, seed=0)
        found = augment(IMAGES, 0).numpy()
        assert found.shape == IMAGES.shape and found.min() >= 0 and found.max() <= 255, name


def test_a_file_and_a_recipe_hold_it(tmp_path):
    (tmp_path / "list.toml").write_text(TOML)
    assert augmentations.read(tmp_path / "list.toml") == LIST
    recipe = Recipe(augment=LIST)
    assert Recipe(**json.loads(json.dumps(recipe.as_data()))) == recipe
    assert recipe.augment_told.startswith("RandomFlip(mode='horizontal_and_vertical'), RandomRotation(factor=0.1)")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[RandomFlp]", "no layer 'RandomFlp' among Keras's.*did you mean RandomFlip"),
        ("[MixUp]", "no layer 'MixUp'"),
        ("[RandomRotation]\nangle = 3", "RandomRotation does not take {'angle': 3}"),
        ("[RandomRotation]", "RandomRotation does not take {}.*factor"),
        ("[RandomFlip]\nseed = 3", "RandomFlip: seed is said by the pipeline"),
        ("RandomFlip = 1", "The arguments of RandomFlip must be a dict, once for each layer. Received: 1"),
        ("", "must be a dict of layers, at least one"),
        ("[RandomFlip", "is no TOML file"),
    ],
)
def test_what_is_none_is_refused_in_a_sentence(tmp_path, text, words):
    (tmp_path / "list.toml").write_text(text)
    with pytest.raises(ValueError, match=f"list.toml.*{words}"):
        augmentations.read(tmp_path / "list.toml")


def test_the_command_reads_it(tmp_path):
    (tmp_path / "cells").mkdir()
    folder, file = copy_to(tmp_path / "cells"), tmp_path / "list.toml"
    file.write_text(TOML)
    planned = small_run(folder, tmp_path / "run", "--augment", file, "--dry-run")
    assert planned.returncode == 0 and "RandomRotation(factor=0.1)" in planned.stdout, planned.stderr
    wrong = small_run(folder, tmp_path / "run", "--augment", "stronk")
    assert wrong.returncode == 2 and "--augment must be one of" in wrong.stderr


@pytest.mark.everything
def test_a_run_keeps_it_and_its_change_is_noticed(tmp_path):
    (tmp_path / "cells").mkdir()
    folder, out, file = copy_to(tmp_path / "cells"), tmp_path / "run", tmp_path / "list.toml"
    file.write_text(TOML)
    done = small_run(folder, out, "--augment", file)
    assert done.returncode == 0, done.stderr
    assert "RandomRotation(factor=0.1)" in (out / "plan.txt").read_text()
    assert json.loads((out / "config.json").read_text())["recipe"]["augment"] == LIST
    assert (out / "augmented.png").exists()
    file.write_text(TOML.replace("0.1", "0.2"))
    changed = small_run(folder, out, "--augment", file)
    assert changed.returncode == 2 and "was made with another --augment" in changed.stderr
