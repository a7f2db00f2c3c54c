"""A column of weights in a CSV file: how much each image counts in training."""

import csv

import keras
import numpy as np
import pytest
from commands import small_run
from PIL import Image

from kresnets.data import load_data


@pytest.fixture(scope="module")
def listed(tmp_path_factory):
    """40 pictures of two classes, and a list of them with a weight each."""
    folder, rng = tmp_path_factory.mktemp("pictures"), np.random.default_rng(0)
    rows = [("path", "label", "trust")]
    for n in range(40):
        pixels = rng.integers(0, 200, (12, 12, 3), dtype="uint8") + np.uint8(55 * (n % 2))
        Image.fromarray(pixels).save(folder / f"{n}.png")
        rows.append((f"{n}.png", "ab"[n % 2], f"{0.25 * (n % 5)}"))
    with open(folder / "list.csv", "w", newline="") as file:
        csv.writer(file).writerows(rows)
    return folder / "list.csv"


def test_they_are_those_of_the_training_images(listed):
    data = load_data(listed, columns={"weight": "trust"}, progress=False)
    wanted = [0.25 * (int(name[:-4]) % 5) for name in data.train.ids]
    assert data.train.weights.tolist() == wanted and data.test.weights is None and data.validation.weights is None
    for cache in (False, "auto"):
        _, labels, weights = next(iter(data.train.batches(100, 8, cache=cache)))
        assert weights.numpy().tolist() == wanted and labels.numpy().tolist() == data.train.labels.tolist()
    assert len(next(iter(data.test.batches(4, 8)))) == 2
    rows = [3, 1]
    assert data.train.subset(rows).weights.tolist() == [wanted[3], wanted[1]]
    assert data.train.joined(data.test).weights.tolist() == [*wanted, *[1] * len(data.test)]
    unweighted = load_data(listed, progress=False)  # a column that may as well be kilograms is not taken by its name
    assert unweighted.train.weights is None and unweighted.train.identity() != data.train.identity()


def test_training_is_keras_own_with_sample_weights(listed):
    part = load_data(listed, columns=["weight=trust"], progress=False).train
    found = []
    for given, options in (
        ((part.batches(8, 8),), {}),
        ((part.pixels(8), part.labels), {"sample_weight": part.weights, "batch_size": 8}),
    ):
        keras.utils.set_random_seed(0)
        model = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Rescaling(1 / 255), keras.layers.Flatten()])
        model.add(keras.layers.Dense(2, activation="softmax"))
        model.compile("sgd", "sparse_categorical_crossentropy")
        losses = model.fit(*given, shuffle=False, epochs=2, verbose=0, **options).history["loss"]
        found.append((losses, model.layers[-1].kernel.numpy()))
    assert np.allclose(found[0][0], found[1][0], rtol=1e-5) and np.allclose(found[0][1], found[1][1], atol=1e-6)


@pytest.mark.parametrize("cell", ["-1", "much", "", "nan", "1e308"])
def test_a_weight_is_a_number_from_0(listed, cell):
    text = listed.read_text().replace("0.25", cell, 1)
    other = listed.with_name(f"other{cell}.csv")
    other.write_text(text)
    with pytest.raises(ValueError, match=r"a weight must be a number from 0 \(to 1e\+06\). Received: "):
        load_data(other, columns={"weight": "trust"}, progress=False)


@pytest.mark.parametrize(("silent", "words"), [("ab", "All training images have"), ("b", "All training images of 'b'")])
def test_weights_that_leave_nothing_to_learn(listed, silent, words):
    other = listed.with_name("silent.csv")
    rows = [line.split(",") for line in listed.read_text().splitlines()]
    other.write_text("\n".join(",".join([*row[:2], "0" if row[1] in silent else row[2]]) for row in rows))
    with pytest.raises(ValueError, match=f"{words}.*the weight 0"):
        load_data(other, columns={"weight": "trust"}, progress=False)


@pytest.mark.everything
def test_the_command(listed, tmp_path):
    given = ["--columns", "weight=trust"]
    refused = small_run(listed, tmp_path / "run", *given, "--class-weight", "balanced")
    assert refused.returncode == 2 and "--class-weight does not go with a weight for each image" in refused.stderr
    done = small_run(listed, tmp_path / "run", *given)
    assert done.returncode == 0, done.stderr
    other = small_run(listed, tmp_path / "run")
    assert other.returncode == 2 and "--columns" in other.stderr
