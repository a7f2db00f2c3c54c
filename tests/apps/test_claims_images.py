"""The real images that trunks are carried to."""

import numpy as np
import pytest
from claims import images


def as_set(images):
    return {image.tobytes() for image in images}


def test_the_parts_of_a_target_have_nothing_in_common_and_the_test_part_is_always_the_same():
    first, second = (images.target("digits", 32, 100, seed) for seed in (0, 1))
    everything = images.target("digits", 32, "all", seed=0)
    for part in ("test", "test_labels", "validation", "validation_labels"):
        np.testing.assert_array_equal(getattr(first, part), getattr(second, part))
        np.testing.assert_array_equal(getattr(first, part), getattr(everything, part))
    train, test, validation = as_set(everything.train), as_set(first.test), as_set(first.validation)
    assert not train & test and not train & validation and not test & validation
    assert len(everything.train) + len(first.test) + len(first.validation) == 1797
    assert as_set(first.train) <= train and as_set(first.train) != as_set(second.train)


def test_draws_are_stratified_and_a_larger_one_holds_a_smaller_one():
    small, large = (images.target("digits", 16, n, seed=2) for n in (50, 100))
    assert np.bincount(small.train_labels).tolist() == [5] * 10
    assert as_set(small.train) <= as_set(large.train)
    counts = np.bincount(small.test_labels)
    assert counts.max() - counts.min() <= 2


def test_digits_are_those_of_scikit_learn():
    """Each picture, made 8 x 8 again, is one of scikit-learn's with the same label."""
    from sklearn.datasets import load_digits

    bunch = load_digits()
    known = {(image * 255 / 16).astype(np.uint8).tobytes(): label for image, label in zip(bunch.images, bunch.target)}
    drawn = images.target("digits", 8, 30, seed=0)
    assert [known[image[..., 0].tobytes()] for image in drawn.train] == drawn.train_labels.tolist()


@pytest.mark.parametrize(
    "name, count, package",
    [
        ("tiles", 496, "skimage"),
        pytest.param("elpv/mono", 1074, "elpv_dataset", marks=pytest.mark.slow),
        pytest.param("elpv/poly", 1550, "elpv_dataset", marks=pytest.mark.slow),
    ],
)
def test_packaged_images_are_all_there(name, count, package):
    pytest.importorskip(package)
    drawn = images.target(name, 32, "all", seed=0)
    assert len(drawn.train) + len(drawn.validation) + len(drawn.test) == count
    assert set(drawn.test_labels) == set(range(drawn.classes)) and len(images.target(name, 32, 20, 0).train) == 20


@pytest.mark.parametrize("name, n_train", [("cats", 10), ("digits", 9), ("digits", 5000)])
def test_a_target_that_there_is_not_is_refused(name, n_train):
    with pytest.raises(ValueError, match="must be"):
        images.target(name, 32, n_train, seed=0)
