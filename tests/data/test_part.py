"""kresnets.data.Part: what a training loop gets to see."""

import importlib.resources
import os
import subprocess
import sys
import weakref

import keras
import numpy as np
import pytest
import tensorflow as tf
from sklearn.utils.class_weight import compute_sample_weight

from kresnets.data import Part, class_weight, decoded, epoch_variable, load_image

CELLS = importlib.resources.files("elpv_dataset") / "data" / "images"
FILES = [str(CELLS / f"cell{number:04d}.png") for number in range(1, 38)]
LABELS = [number % 3 for number in range(37)]
NAMES = ("a", "b", "c")


def make_part(files=True):
    contents = FILES if files else [open(file, "rb").read() for file in FILES]
    return Part([os.path.basename(file) for file in FILES], LABELS, contents, NAMES, progress=False)


@pytest.fixture(params=["memory", "streaming"])
def path(request, monkeypatch):
    if request.param == "streaming":
        monkeypatch.setattr(decoded, "memory_limit", lambda: 1000)
    return request.param


def drawn(dataset):
    batches = list(dataset.as_numpy_iterator())
    return np.concatenate([images for images, _ in batches]), np.concatenate([labels for _, labels in batches])


@pytest.mark.parametrize("files", [True, False])
def test_batches_in_order(path, files):
    part = make_part(files)
    dataset = part.batches(8, 32, crop=0.875)
    assert int(dataset.cardinality()) == len(list(dataset)) == 5
    assert dataset.element_spec[0] == tf.TensorSpec((None, 32, 32, 3), tf.float32)
    images, labels = drawn(dataset)
    assert labels.tolist() == LABELS and labels.dtype == np.int32
    expected = np.stack([load_image(tf.io.read_file(file), 32, 0.875) for file in FILES])
    np.testing.assert_allclose(images, expected, atol=1e-3)
    np.testing.assert_array_equal(part.pixels(32, crop=0.875), images)
    np.testing.assert_array_equal(part.pixels(32, [30, 2], crop=0.875), images[[30, 2]])
    assert part.counts() == {"a": 13, "b": 12, "c": 12} and len(part) == 37


def test_both_paths_draw_the_same_batches(monkeypatch):
    epoch = epoch_variable()
    results = []
    for limit in (2**31, 0):
        monkeypatch.setattr(decoded, "memory_limit", lambda limit=limit: limit)
        dataset = make_part().batches(8, 32, shuffle_seed=3, epoch=epoch)
        results.append([drawn(dataset) for number in range(3) if epoch.assign(number) is not None])
    for (images, labels), (others, other_labels) in zip(*results):
        np.testing.assert_array_equal(images, others)
        np.testing.assert_array_equal(labels, other_labels)


def test_the_order_is_a_function_of_seed_and_epoch(path):
    epoch = epoch_variable()
    part = make_part()

    def order(dataset, number):
        epoch.assign(number)
        images, labels = drawn(dataset)
        assert sorted(labels) == sorted(LABELS)
        return images[:, 16, 16, 0].tolist()

    first = part.batches(8, 32, shuffle_seed=1, epoch=epoch)
    orders = [order(first, number) for number in (0, 1, 2)]
    assert orders[0] != orders[1] != orders[2]
    resumed = make_part().batches(8, 32, shuffle_seed=1, epoch=epoch)
    assert [order(resumed, number) for number in (2, 0)] == [orders[2], orders[0]]
    assert order(make_part().batches(8, 32, shuffle_seed=2, epoch=epoch), 0) != orders[0]
    assert int(first.cardinality()) == 5


def test_a_seed_alone_shuffles_anew_each_time(path):
    dataset = make_part().batches(37, 32, shuffle_seed=5)
    first, second = drawn(dataset)[1].tolist(), drawn(dataset)[1].tolist()
    assert first != second and sorted(first) == sorted(second) == sorted(LABELS)
    assert drawn(make_part().batches(37, 32, shuffle_seed=5))[1].tolist() == first
    assert int(dataset.cardinality()) == 1


def test_decoded_once_where_memory_allows(monkeypatch):
    calls = []

    def decode(self, array, crop):
        calls.append(array.shape)

    monkeypatch.setattr(Part, "decode_into", decode)
    part = make_part()
    for size in (32, 32, 48):
        drawn(part.batches(8, size))
    part.pixels(48)
    assert calls == [(37, 32, 32, 3), (37, 48, 48, 3)]


def test_shared_subsets_draw_the_same_and_are_decoded_once(monkeypatch):
    calls, original = [], Part.decode_into

    def counted(part, *arguments, **options):
        calls.append(len(part))
        original(part, *arguments, **options)

    monkeypatch.setattr(Part, "decode_into", counted)
    whole = make_part()
    inner = whole.subset(range(30, 0, -1), shared=True)
    draw = lambda part: drawn(part.batches(4, 32, 0.9, shuffle_seed=3, epoch=epoch_variable()))
    shared = [draw(part) for part in (whole.subset([3, 1, 36], shared=True), inner.subset([0, 29, 5], shared=True))]
    assert calls == [37] and inner.pixels(32, [2], 0.9).shape == (1, 32, 32, 3) and calls == [37]
    for (images, labels), rows in zip(shared, ([3, 1, 36], [30, 1, 25])):
        alone, alone_labels = draw(whole.subset(rows))
        np.testing.assert_array_equal(images, alone)
        np.testing.assert_array_equal(labels, alone_labels)


def test_a_shared_subset_is_kept_by_itself_where_the_whole_has_no_room(monkeypatch):
    monkeypatch.setattr(decoded, "memory_limit", lambda: 4 * 12 * 32**2)
    calls, original = [], Part.decode_into
    monkeypatch.setattr(Part, "decode_into", lambda part, *a, **k: calls.append(len(part)) or original(part, *a, **k))
    part = make_part().subset([3, 1, 36], shared=True)
    images, _ = drawn(part.batches(4, 32))
    assert calls == [3]
    np.testing.assert_array_equal(images, drawn(make_part().subset([3, 1, 36]).batches(4, 32))[0])
    np.testing.assert_array_equal(part.pixels(32, [2]), images[2:])
    assert part.pixels(32, []).shape == (0, 32, 32, 3)


def test_a_part_goes_with_its_pixels_when_nobody_holds_it():
    part = make_part()
    part.pixels(32, [0])
    gone = weakref.ref(part)
    del part
    assert gone() is None  # without waiting for a collection


def test_images_that_end_in_zeros_keep_them(path):
    content = tf.io.encode_png(np.zeros((4, 4, 3), np.uint8)).numpy() + bytes(7)
    bmp = b"BM" + (54 + 48).to_bytes(4, "little") + bytes(4) + (54).to_bytes(4, "little") + (40).to_bytes(4, "little")
    bmp += (4).to_bytes(4, "little") * 2 + b"\x01\0\x18\0" + bytes(24) + bytes(48)
    part = Part(["x", "y"], [0, 1], [content, bmp], NAMES)
    assert part.pixels(4).shape == (2, 4, 4, 3) and not part.pixels(4).any()


def test_file_names_that_are_no_text(tmp_path):
    name = os.fsdecode(os.fsencode(str(tmp_path)) + b"/caf\xe9 \xff.png")
    with open(FILES[0], "rb") as source, open(name, "wb") as target:
        target.write(source.read())
    part = Part(["x"], [0], [name], NAMES)
    np.testing.assert_array_equal(part.pixels(16), make_part().pixels(16, [0]))


def test_refused_arguments():
    with pytest.raises(ValueError, match="`batch_size` must be at least 1. Received: batch_size=0"):
        make_part().batches(0, 32)
    with pytest.raises(ValueError, match="`epoch` chooses among the orders of a `shuffle_seed`"):
        make_part().batches(8, 32, epoch=epoch_variable())


def test_fit_draws_another_order_each_epoch_and_a_resumed_fit_the_same():
    """The iterator of an epoch is made after `on_epoch_begin`: where that sets the variable, the order follows it."""

    class Witness(keras.callbacks.Callback):
        def __init__(self):
            self.epoch, self.losses = epoch_variable(), []

        def on_epoch_begin(self, epoch, logs=None):
            self.epoch.assign(epoch)
            self.losses.append([])

        def on_train_batch_end(self, batch, logs=None):
            self.losses[-1].append(round(float(logs["loss"]), 3))

    def fit(initial_epoch, epochs):
        keras.utils.set_random_seed(0)
        witness = Witness()
        model = keras.Sequential([keras.Input((16, 16, 3)), keras.layers.GlobalMaxPooling2D(), keras.layers.Dense(3)])
        model.compile(keras.optimizers.SGD(0.0), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
        batches = make_part().batches(8, 16, shuffle_seed=0, epoch=witness.epoch)
        model.fit(batches, epochs=epochs, initial_epoch=initial_epoch, callbacks=[witness], shuffle=False, verbose=0)
        return witness.losses

    whole = fit(0, 4)
    assert whole[0] != whole[1] and fit(2, 4) == whole[2:]


def test_class_weight():
    labels = np.array([0] * 6 + [1] * 3 + [2])
    weights = class_weight(labels)
    np.testing.assert_allclose([weights[label] for label in labels], compute_sample_weight("balanced", labels))
    assert all(isinstance(key, int) and isinstance(value, float) for key, value in weights.items())
    assert class_weight(labels, None) is None
    with pytest.raises(ValueError, match="`how` must be 'balanced' or None. Received: how='auto'"):
        class_weight(labels, "auto")


SCRIPT = """
import sys
import keras, numpy as np, tensorflow as tf
from kresnets.data import Mixup, Part, augment_batches, augmentation, epoch_variable

print(sorted({"tensorflow_datasets", "tqdm"} & set(sys.modules)))
tf.config.set_logical_device_configuration(
    tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * 2
)
part = Part(IDS, LABELS, FILES, NAMES, progress=False)

def fit():
    epoch = epoch_variable()
    set_epoch = keras.callbacks.LambdaCallback(on_epoch_begin=lambda number, logs: epoch.assign(number) and None)
    pool, scale = keras.layers.GlobalAveragePooling2D(), keras.layers.Rescaling(1 / 255)
    dense = keras.layers.Dense(3, "softmax", kernel_initializer="zeros")  # backends draw different random weights
    model = keras.Sequential([keras.Input((16, 16, 3)), pool, scale, dense])
    model.compile("sgd", "sparse_categorical_crossentropy")
    batches = augment_batches(part.batches(8, 16, shuffle_seed=0, epoch=epoch), augmentation("light", 1), epoch)
    validation = part.batches(8, 16)
    model.fit(batches, validation_data=validation, epochs=2, callbacks=[set_epoch], shuffle=False, verbose=0)
    print(keras.backend.backend(), model.history.history["loss"][-1], model.history.history["val_loss"][-1])

fit()
if keras.backend.backend() == "tensorflow":
    with tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"]).scope():
        fit()
changed, (_, labels) = augmentation("strong", 3)(part.pixels(16), 5), Mixup(0.3)(part.pixels(16), np.eye(37), 5)
print(changed.numpy().sum(), labels.numpy()[0].max())
"""


def run(backend):
    """Return the lines that the script prints, as lists of words."""
    values = {"IDS": [os.path.basename(file) for file in FILES], "LABELS": LABELS, "FILES": FILES, "NAMES": NAMES}
    code = "\n".join(f"{name} = {value!r}" for name, value in values.items()) + SCRIPT
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "KERAS_BACKEND": backend}
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert result.returncode == 0, result.stderr
    return [line.split() for line in result.stdout.splitlines()]


@pytest.fixture(scope="module")
def on_tensorflow():
    return run("tensorflow")


@pytest.mark.everything
@pytest.mark.slow
def test_two_devices_train_as_one_and_the_import_is_light(on_tensorflow):
    imported, (_, *one), (_, *two), _ = on_tensorflow
    assert imported == ["[]"]
    np.testing.assert_allclose(np.array(two, float), np.array(one, float), rtol=1e-4)


@pytest.mark.everything
@pytest.mark.slow
@pytest.mark.jax
def test_jax_trains_on_the_same_batches(on_tensorflow):
    _, losses, _, draws = on_tensorflow
    _, jax_losses, jax_draws = run("jax")
    assert (losses[0], jax_losses[0]) == ("tensorflow", "jax")
    np.testing.assert_allclose(np.array(jax_losses[1:], float), np.array(losses[1:], float), rtol=1e-4)
    assert jax_draws == draws


def test_no_thread_tunes_a_pipeline_nor_what_is_made_of_it():
    from kresnets.preprocess import Preprocessing
    from kresnets.task import Scores
    from kresnets.transfer.inputs import Preparation
    from kresnets.transfer.labels import Labels

    for batches in (make_part().batches(2, 8), make_part().batches(2, 8, cache=False)):
        prepared = Preparation(Preprocessing(), Labels(Scores("classes", 2, "softmax")), augment="light").dataset(
            batches
        )
        assert batches.options().autotune.enabled is False and prepared.options().autotune.enabled is False


def test_an_image_is_the_same_after_chmod_and_another_one_after_a_change(tmp_path):
    file = tmp_path / "a.png"
    file.write_bytes(open(FILES[0], "rb").read())
    part = Part(["a.png"], [0], [str(file)], ("a",), progress=False)
    known, strict, time = part.images_identity(touched=False), part.images_identity(), os.stat(file).st_mtime_ns
    file.chmod(0o600)
    assert part.images_identity(touched=False) == known and part.images_identity() != strict
    other = tmp_path / "b.png"
    other.write_bytes(file.read_bytes())
    os.utime(other, ns=(time, time))  # as an unpacked archive would
    other.replace(file)
    assert part.images_identity(touched=False) != known


def test_balanced_draws_give_each_class_its_share():
    labels = [0] * 40 + [1] * 7 + [2] * 3
    part = Part(
        [str(n) for n in range(50)],
        labels,
        [tf.io.encode_png(tf.zeros((4, 4, 3), "uint8")).numpy()] * 50,
        ["a", "b", "c"],
        progress=False,
    )
    epoch = epoch_variable()
    drawn = part.batches(8, 8, shuffle_seed=1, epoch=epoch, balanced=True)
    assert len(drawn) == 7
    orders = []
    for number in (0, 1, 0):
        epoch.assign(number)
        rows = np.concatenate([*drawn.kresnets_rows.order.as_numpy_iterator()])
        np.testing.assert_array_equal(np.concatenate([y for _, y in drawn]), np.array(labels)[rows])
        assert np.bincount(np.array(labels)[rows]).tolist() == [17, 17, 16]
        times = np.bincount(rows, minlength=50)
        for label in range(3):  # whole rounds
            own = times[np.array(labels) == label]
            assert own.max() - own.min() <= 1
        orders.append(rows.tolist())
    assert orders[0] == orders[2] != orders[1]
    anew = part.batches(8, 8, shuffle_seed=1, balanced=True)
    assert not np.array_equal(*(np.concatenate([y for _, y in anew]) for _ in range(2)))
    with pytest.raises(ValueError, match="`balanced` draws images of classes at random: give a `shuffle_seed`"):
        part.batches(8, 8, balanced=True)
