"""Teach a small trunk on pictures made by procedure, and write its weights as float16."""

import pathlib
import tempfile

import h5py
import keras
import numpy as np

import kresnets
from claims import procedural

BATCH_SIZE = 32
HELD_OUT = 1_000_000  # the draw of pictures that no training sees

NAMES = ("SmallResNet20", "SmallResNet18D")  # what is taught: less than 3 MB as float16


class Draws(keras.utils.PyDataset):
    """Batches of `procedural.pictures`: other pictures of the same classes in each epoch, flipped by chance."""

    def __init__(self, classes, per_class, size, seed, families):
        super().__init__()
        self._kind = (classes, per_class, size, seed, families)
        self._seed, self._epoch = seed, 0
        self._draw()

    def _draw(self):
        self._images, self._labels = procedural.pictures(*self._kind, draw=self._epoch)
        self._order = np.random.default_rng((self._seed, self._epoch)).permutation(len(self._labels))

    def __len__(self):
        return len(self._labels) // BATCH_SIZE or 1

    def __getitem__(self, index):
        rows = self._order[index * BATCH_SIZE : (index + 1) * BATCH_SIZE]
        images = self._images[rows]
        flipped = np.random.default_rng((self._seed, self._epoch, index)).random(len(rows)) < 0.5
        images[flipped] = images[flipped, :, ::-1]
        return preprocessed(images), self._labels[rows]

    def on_epoch_end(self):
        self._epoch += 1
        self._draw()


def preprocessed(images):
    """Return uint8 RGB images as the taught trunks want them: float32, torch mode."""
    return kresnets.preprocess_input(images.astype(np.float32), mode="torch")


def teach(
    name, size, epochs, seed, classes=200, per_class=100, families=procedural.FAMILIES, learning_rate=2e-3, verbose=2
):
    """Teach a small network the classes of `procedural.pictures`, with AdamW and one cosine.

    Args:
        name: of a network of kresnets; `NAMES` are those that ship.
        size: pixels a side, 32 to 96.
        epochs: each sees `classes * per_class` new pictures.
        seed: of the classes, the pictures, their order and the start.
        classes, per_class, families: as of `procedural.pictures`.
        learning_rate: its peak, after a twentieth of the steps.

    Returns:
        (model, accuracy): the trained model, from preprocessed images to logits, and its share of right answers, 0..1,
        on pictures of the same classes that it never saw.
    """
    keras.utils.set_random_seed(seed)
    model = kresnets.build(
        kresnets.SPECS[name], input_shape=(size, size, 3), classes=classes, classifier_activation=None
    )
    data = Draws(classes, per_class, size, seed, families)
    steps = len(data) * epochs
    rising = max(steps // 20, 1)
    rate = keras.optimizers.schedules.CosineDecay(
        0.0, max(steps - rising, 1), warmup_target=learning_rate, warmup_steps=rising
    )
    model.compile(
        keras.optimizers.AdamW(rate, weight_decay=0.02),
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    model.fit(data, epochs=epochs, verbose=verbose)
    images, labels = procedural.pictures(classes, 10, size, seed, families, draw=HELD_OUT)
    scores = np.concatenate([model.predict_on_batch(preprocessed(part)) for part in np.array_split(images, classes)])
    return model, float(np.mean(scores.argmax(-1) == labels))


def save(model, path):
    """Write a model's weights as float16, without the state of the training, in a file that `weights=` of its row
    takes; its name ends in `.weights.h5`."""

    def copy(name, item):
        if name.split("/")[0] == "optimizer":
            return
        if hasattr(item, "shape"):
            values = item[()]
            if not (np.abs(values) <= np.finfo(np.float16).max).all():
                raise ValueError(f"{name} holds values that float16 does not: teach at a lower rate.")
            target.create_dataset(name, data=values.astype(np.float16)).attrs.update(item.attrs)
        elif len(item) or len(item.attrs):
            target.require_group(name).attrs.update(item.attrs)

    with tempfile.TemporaryDirectory(dir=pathlib.Path(path).parent) as folder:
        full = pathlib.Path(folder, "full.weights.h5")
        model.save_weights(full)
        with h5py.File(full) as source, h5py.File(path, "w", libver="latest") as target:
            target.attrs.update(source.attrs)
            source.visititems(copy)
