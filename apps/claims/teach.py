"""Teach a small trunk on pictures made by procedure, and write its weights as float16."""

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
        self._seed, self._epoch = seed, -1
        self.on_epoch_end()

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
        self._images, self._labels = procedural.pictures(*self._kind, draw=self._epoch)
        self._order = np.random.default_rng((self._seed, self._epoch)).permutation(len(self._labels))


def preprocessed(images):
    """Return uint8 RGB images as the taught trunks want them: float32, torch mode."""
    return kresnets.preprocess_input(images.astype(np.float32), mode="torch")


def network(name, size, classes):
    """Return a network that gives logits."""
    how = {"input_shape": (size, size, 3), "classes": classes, "classifier_activation": None}
    return kresnets.build(kresnets.SPECS[name], **how)


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
    model, data = network(name, size, classes), Draws(classes, per_class, size, seed, families)
    steps = len(data) * epochs
    rising = max(steps // 20, 1)
    rising_to = {"warmup_target": learning_rate, "warmup_steps": rising}
    rate = keras.optimizers.schedules.CosineDecay(0.0, max(steps - rising, 1), **rising_to)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.AdamW(rate, weight_decay=0.02), loss=loss, metrics=["accuracy"])
    model.fit(data, epochs=epochs, verbose=verbose)
    images, labels = procedural.pictures(classes, 10, size, seed, families, draw=HELD_OUT)
    scores = np.concatenate([model.predict_on_batch(preprocessed(part)) for part in np.array_split(images, classes)])
    return model, float(np.mean(scores.argmax(-1) == labels))


def save(model, name, path):
    """Write the weights of a `network` of this name as float16, without the state of its training, in a file that
    `weights=` of its row takes; it ends in `.weights.h5`."""
    arrays, before = model.get_weights(), keras.mixed_precision.dtype_policy()
    if any(np.abs(array).max(initial=0) > np.finfo("float16").max for array in arrays):
        raise ValueError("A weight is larger than float16 holds: teach at a lower rate.")
    keras.mixed_precision.set_dtype_policy("float16")
    try:
        half = network(name, model.input_shape[1], model.output_shape[-1])
    finally:
        keras.mixed_precision.set_dtype_policy(before)
    half.set_weights(arrays)
    half.save_weights(path)
