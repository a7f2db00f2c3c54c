"""kresnets.data.augment: random, in range, and a pure function of seed and draw."""

import importlib.resources

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from kresnets.data import Mixup, augment_batches, augmentation, epoch_variable

CELLS = importlib.resources.files("elpv_dataset") / "data" / "images"


@pytest.fixture(scope="module")
def images():
    names = [f"cell{number:04d}.png" for number in range(2, 18)]
    grey = np.stack([np.asarray(Image.open(CELLS / name).resize((32, 32)), np.float32) for name in names])
    return np.stack([grey, grey[::-1], 255 - grey], axis=-1)


@pytest.fixture(scope="module", params=["light", "strong"])
def kind(request):
    return request.param


@pytest.fixture(scope="module")
def augment(kind):
    return augmentation(kind, seed=1)


def test_shape_and_range_stay_and_every_draw_differs(augment, images):
    before = images.copy()
    seen = []
    for draw in range(12):
        changed = augment(images, draw)
        assert changed.shape == images.shape and changed.dtype == tf.float32
        changed = changed.numpy()
        assert np.isfinite(changed).all() and changed.min() >= 0 and changed.max() <= 255
        assert np.abs(changed - images).mean() > 2
        seen.append(changed)
    assert min(np.abs(a - b).mean() for i, a in enumerate(seen) for b in seen[:i]) > 1
    np.testing.assert_array_equal(images, before)


def test_light_changes_leave_the_picture_recognisable(images):
    """Flipped back where flipped, every picture correlates with itself more than with most others."""
    augment, flipped = augmentation("light", seed=3), 0
    for draw in range(6):
        changed = augment(images, draw).numpy()
        for picture, original in zip(changed, images):
            straight, mirrored = (
                np.corrcoef(picture.ravel(), candidate.ravel())[0, 1] for candidate in (original, original[:, ::-1])
            )
            flipped += mirrored > straight
        assert abs(changed.mean() - images.mean()) < 40
    assert 20 < flipped < 76  # of 96


def test_images_of_a_batch_change_differently(images):
    same = np.repeat(images[:1], 16, axis=0)
    changed = augmentation("light", seed=0)(same, 0).numpy()
    assert min(np.abs(a - b).mean() for i, a in enumerate(changed) for b in changed[:i]) > 0.5


def test_a_pure_function_of_seed_and_draw(kind, augment, images):
    again = augmentation(kind, seed=1)
    augment(images, 0)
    np.testing.assert_array_equal(augment(images, 123).numpy(), again(images, 123).numpy())
    assert np.abs(augment(images, 123) - augmentation(kind, seed=8)(images, 123)).mean() > 1


def test_without_a_draw_it_follows_keras_seed(images):
    augment = augmentation("light")

    def three():
        return np.stack([augment(images).numpy() for _ in range(3)])

    keras.utils.set_random_seed(5)
    first = three()
    keras.utils.set_random_seed(5)
    np.testing.assert_array_equal(three(), first)
    assert np.abs(first[0] - first[1]).mean() > 1


def test_in_a_pipeline_an_epoch_can_be_had_again(augment, images):
    labels = np.arange(16)
    batches = tf.data.Dataset.from_tensor_slices((images, labels, labels * 2)).batch(6)
    epoch = epoch_variable()
    dataset = augment_batches(batches, augment, epoch)
    assert int(dataset.cardinality()) == 3

    def draw(number, of):
        epoch.assign(number)
        return [batch for batch, *_ in of.as_numpy_iterator()]

    first, second = draw(0, dataset), draw(1, dataset)
    resumed = draw(1, augment_batches(batches, augment, epoch))
    assert [batch.shape[0] for batch in first] == [6, 6, 4]
    for a, b, c in zip(first, second, resumed):
        assert np.abs(a - b).mean() > 1
        np.testing.assert_array_equal(b, c)
    np.testing.assert_array_equal(np.concatenate([rest[0] for _, *rest in dataset.as_numpy_iterator()]), labels)


def test_none_changes_nothing(images):
    np.testing.assert_array_equal(augmentation("none")(images).numpy(), images)


def test_keras_still_asks_for_its_generators_where_we_answer(images):
    """`_Layers` replaces a method of Keras's layers: were it renamed, they would count on in variables of their own."""
    augment = augmentation("strong", seed=0)
    variables = [variable for layer in augment.layers for variable in layer.variables]
    for layer in (*augment.layers, keras.layers.MixUp()):
        assert callable(type(layer)._get_seed_generator)
    before = [variable.value.numpy() for variable in variables]
    augment(images, 0)
    assert variables
    np.testing.assert_array_equal([variable.value.numpy() for variable in variables], before)


def test_mixup(images):
    labels = np.eye(16, dtype=np.float32)
    mixed, weights = Mixup(0.4, seed=1)(images, labels, draw=3)
    np.testing.assert_allclose(weights.numpy().sum(axis=1), 1, atol=1e-5)
    np.testing.assert_allclose(mixed.numpy(), np.tensordot(weights.numpy(), images, 1), atol=1e-2)
    assert (np.count_nonzero(weights.numpy() > 1e-3, axis=1) == 2).sum() > 4
    again, _ = Mixup(0.4, seed=1)(images, labels, draw=3)
    np.testing.assert_array_equal(again.numpy(), mixed.numpy())
    other, _ = Mixup(0.4, seed=1)(images, labels, draw=4)
    assert np.abs(other - mixed).mean() > 1


def test_refused_arguments():
    with pytest.raises(ValueError, match="Unknown augmentation 'heavy': use one of 'none', 'light', 'strong'"):
        augmentation("heavy")
    with pytest.raises(ValueError, match="`alpha` must be above 0. Received: alpha=0"):
        Mixup(0)


def test_a_layer_of_ones_own_is_drawn_by_seed_and_draw_and_stays_as_it_is():
    layer = keras.layers.RandomFlip("horizontal")
    before = dict(vars(layer))
    images = np.random.default_rng(0).integers(0, 256, (16, 8, 8, 3)).astype("float32")
    first, again, other = (augmentation(layer, seed=3)(images, draw).numpy() for draw in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)
    flipped = [np.array_equal(changed, image[:, ::-1]) for changed, image in zip(first, images)]
    same = [np.array_equal(changed, image) for changed, image in zip(first, images)]
    assert all(a != b for a, b in zip(flipped, same)) and any(flipped) and any(same)
    assert vars(layer).keys() == before.keys()
    both = augmentation(keras.Sequential([layer, keras.layers.RandomBrightness(0.1, value_range=(0, 255))]), seed=3)
    np.testing.assert_array_equal(both(images, 4), both(images, 4))


def test_a_function_of_ones_own_is_given_the_images_and_the_draw_if_it_takes_one():
    images = np.random.default_rng(0).integers(0, 256, (4, 8, 8, 3)).astype("uint8")
    upside_down = augmentation(lambda batch: batch[:, ::-1])
    np.testing.assert_array_equal(upside_down(images, 5), images[:, ::-1].astype("float32"))
    shifted = augmentation(lambda batch, draw: batch + float(draw))
    np.testing.assert_array_equal(shifted(images, 5), images + np.float32(5))
    light = augmentation("light", seed=1)
    assert augmentation(light) is light


@pytest.mark.parametrize("wrong", (3, "heavy", keras.layers.RandomFlip))
def test_what_is_no_augmentation_gets_a_sentence(wrong):
    with pytest.raises(
        ValueError,
        match="use one of 'none', 'light', 'strong', a dict of Keras's layers with their arguments, a Keras layer",
    ):
        augmentation(wrong)
