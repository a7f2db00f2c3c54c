"""Distil the small trunk that ships: python apps/distil.py --out runs/distil (hours on two cores; resumes)

The student, ResNet18DThin, learns to say what open_nsfw's ResNet50Thin says of the same picture: the maps after stages
2, 3 and 4 and their mean, each channel standardised and cut at 5, by mean squared error, through 1x1 projections that
are thrown away (FitNets, arXiv 1412.6550; consistent views as in arXiv 2106.05237). The pictures are CIFAR-10's 50,000
training images alone, singly or as collages, drawn anew for each step, so no label and no picture of a later task.
"""

import argparse
import pathlib

import _common

STEPS, STEPS_AN_EPOCH = 12_000, 100
SIZES = (64, 96, 128, 160)  # pixels a side: one a step
PIXELS = 64 * 96**2  # of one step's batch, at any size
RATE, WARM_UP, DECAY = 2e-3, 300, 1e-4
CUT = 5.0  # deviations
PAIRS = {"stage2_block4_out": "stage2_block2_out", "stage3_block6_out": "stage3_block2_out"}  # teacher's, student's
WEIGHTS = [0.5, 1.0, 1.0, 2.0]  # of the errors of the pairs, of the last map, and of its mean, which a head will see
CROPS = 0.5  # of the views, where there are pictures to crop
LARGEST = 512  # pixels of a picture's short side
STATISTICS = 8  # batches that the teacher's channels are standardised by
NAME = "resnet18dthin-distilled.weights.h5"


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("--out", required=True, help="folder; a run that was cut off goes on in it")
    parser.add_argument("--pictures", help="folder with more pictures; those of its folders count too")
    parser.add_argument("--steps", type=_common.positive_int, default=STEPS)
    options = parser.parse_args(argv)
    _common.import_tensorflow()
    import keras

    keras.utils.set_random_seed(0)
    out = pathlib.Path(options.out)
    out.mkdir(parents=True, exist_ok=True)
    views = _views(options.pictures)
    student, model = _student_and_teacher(views)
    warm_up = min(WARM_UP, options.steps // 10)
    rate = keras.optimizers.schedules.CosineDecay(
        0.0, options.steps - warm_up, warmup_target=RATE, warmup_steps=warm_up
    )
    losses = [_itself] * len(model.outputs)
    model.compile(keras.optimizers.AdamW(rate, weight_decay=DECAY), loss=losses, loss_weights=WEIGHTS)
    model.fit(
        views,
        epochs=-(-options.steps // STEPS_AN_EPOCH),
        verbose=2,
        callbacks=[
            keras.callbacks.LambdaCallback(on_epoch_begin=lambda epoch, _: setattr(views, "epoch", epoch)),
            keras.callbacks.BackupAndRestore(out / "backup"),
            keras.callbacks.CSVLogger(out / "log.csv", append=True),
        ],
    )
    _save(student, out / NAME)


def _itself(_, error):
    return error


def _student_and_teacher(views):
    """Return the student and the model that gives the errors of what it says: pixels 0..255 to `(n, ...)` each."""
    import keras
    import numpy as np

    import kresnets

    how = dict(include_top=False, input_shape=(None, None, 3), dtype="mixed_bfloat16")
    teacher = kresnets.build(kresnets.SPECS["ResNet50Thin"], weights="open_nsfw", **how)
    student = kresnets.build(kresnets.SPECS["ResNet18DThin"], weights=None, **how)
    pairs = [(teacher.get_layer(one).output, student.get_layer(other).output) for one, other in PAIRS.items()]
    pairs.append((teacher.output, student.output))
    pool = keras.layers.GlobalAveragePooling2D(dtype="float32")
    taught = keras.Model(teacher.inputs, [*(one for one, _ in pairs), pool(teacher.output)])
    taught.trainable = False
    said = keras.Model(student.inputs, [*(one for _, one in pairs), pool(student.output)])

    caffe, torch = kresnets.preprocessing_of(teacher), kresnets.Preprocessing("torch")
    targets = zip(*(taught.predict_on_batch(caffe(views[index][0])) for index in range(STATISTICS)))
    pixels = keras.Input(shape=(None, None, 3))
    errors = []
    for target, answer, batches in zip(taught(caffe(pixels)), said(torch(pixels)), targets):
        seen = np.concatenate([np.asarray(batch, np.float32).reshape(-1, batch.shape[-1]) for batch in batches])
        target = (keras.ops.cast(target, "float32") - seen.mean(0)) / (seen.std(0) + 1e-3)
        answer = keras.layers.Dense(target.shape[-1], dtype="float32")(answer)  # of each position: a 1x1 convolution
        errors.append(keras.ops.square(answer - keras.ops.clip(target, -CUT, CUT)))
    return student, keras.Model(pixels, errors)


def _views(folder):
    import keras
    import numpy as np
    from claims.images import cifar10, collage
    from PIL import Image

    pictures = cifar10()[0]
    photographs = [_photograph(path) for path in sorted(pathlib.Path(folder).rglob("*.*"))] if folder else []

    def crop(random):
        photograph = photographs[random.integers(len(photographs))]
        side = int(min(photograph.size) * random.uniform(0.3, 1.0))
        left, top = (int(random.integers(0, length - side + 1)) for length in photograph.size)
        cut = photograph.crop((left, top, left + side, top + side))
        return cut.transpose(Image.Transpose.ROTATE_90) if random.random() < 0.25 else cut

    def view(random, size):
        """Draw one picture `(size, size, 3)` 0..255: mirrored or not, some grey, lighter or darker."""
        if photographs and random.random() < CROPS:
            image = crop(random)
        else:
            image = collage(pictures, random.choice([1, 2, 3], p=[0.35, 0.3, 0.35]), random)
        filter = Image.Resampling.BICUBIC if random.random() < 0.5 else Image.Resampling.BILINEAR
        image = np.asarray(image.resize((size, size), filter), np.float32)
        if random.random() < 0.5:
            image = image[:, ::-1]
        if random.random() < 0.3:
            image = image.mean(-1, keepdims=True).repeat(3, -1)
        return ((image - 128) * random.uniform(0.6, 1.3) + 128 + random.uniform(-25, 25)).clip(0, 255)

    class Views(keras.utils.PyDataset):
        """A batch a step, of which the step's number decides everything."""

        epoch = 0

        def __len__(self):
            return STEPS_AN_EPOCH

        def __getitem__(self, index):
            step = self.epoch * STEPS_AN_EPOCH + index
            size, random = SIZES[step % len(SIZES)], np.random.default_rng(step)
            images = np.stack([view(random, size) for _ in range(PIXELS // size**2)])
            return images, (np.zeros(len(images), np.float32),) * (len(PAIRS) + 2)

    return Views(workers=1, max_queue_size=8)


def _photograph(path):
    from PIL import Image

    image = Image.open(path).convert("RGB")
    factor = LARGEST / min(image.size)
    return image.resize([round(side * factor) for side in image.size], Image.Resampling.BOX) if factor < 1 else image


def _save(student, path):
    """Write the weights as float16, whole or not at all."""
    import kresnets
    from kresnets._util import files

    half = kresnets.build(kresnets.SPECS["ResNet18DThin"], weights=None, include_top=False, dtype="float16")
    half.set_weights(student.get_weights())
    with files.replacing(path) as beside:
        half.save_weights(beside)


if __name__ == "__main__":
    _common.run(main)
