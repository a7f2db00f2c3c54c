"""Measure the variances that open_nsfw's file lacks: python apps/open_nsfw_variances.py --out FILE.safetensors

The file has each norm as a scale, gamma / sqrt(variance + epsilon), so any variance gives the same function with the
gamma that belongs to it; but a norm that is to learn on must begin with the variance of what it sees. So 2,048 pictures
of CIFAR-10's 50,000, singly enlarged or as collages of 2 x 2 and 3 x 3 at 224 pixels, go through the network once, and
the variance of what each norm takes in is kept.
"""

import argparse

import _common

PICTURES, SIZE, BATCH = 2048, 224, 64


def main(argv=None):
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("--out", required=True)
    options = parser.parse_args(argv)
    _common.import_tensorflow()
    import keras
    import numpy as np
    import safetensors.numpy

    import kresnets
    from kresnets._util import files
    from kresnets.weights import onnx_graph

    model = kresnets.ResNet50Thin(weights="open_nsfw", include_top=False)
    preprocess = kresnets.preprocessing_of(model)
    norms = [layer for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization)]
    taps = keras.Model(model.inputs, [norm.input for norm in norms])
    count, sums, squares = 0, [0.0] * len(norms), [0.0] * len(norms)
    for images in _pictures():
        maps = [np.asarray(one, np.float64) for one in taps.predict_on_batch(preprocess(images))]
        count += len(images)
        sums = [total + one.mean((1, 2)).sum(0) for total, one in zip(sums, maps)]
        squares = [total + (one**2).mean((1, 2)).sum(0) for total, one in zip(squares, maps)]
        print(f"{count} of {PICTURES} pictures", flush=True)
    variances = {
        f"{onnx_graph.module(norm.name, kresnets.SPECS['ResNet50Thin'])}/moving_variance": (
            square / count - (total / count) ** 2
        )
        .clip(0)
        .astype(np.float32)
        for norm, total, square in zip(norms, sums, squares)
    }
    with files.replacing(options.out) as beside:
        told = {"made by": "apps/open_nsfw_variances.py", "pictures": "CIFAR-10"}
        safetensors.numpy.save_file(variances, beside, told)


def _pictures():
    """Yield batches `(n, 224, 224, 3)` 0..255: a third each of single pictures, 2 x 2 and 3 x 3 of them."""
    import numpy as np
    from claims.images import cifar10, collage
    from PIL import Image

    pictures, random = cifar10()[0], np.random.default_rng(0)
    for start in range(0, PICTURES, BATCH):
        batch = np.empty((BATCH, SIZE, SIZE, 3), np.float32)
        for place in range(BATCH):
            drawn = collage(pictures, 1 + (start + place) % 3, random)
            batch[place] = np.asarray(drawn.resize((SIZE, SIZE), Image.Resampling.BICUBIC))
        yield batch


if __name__ == "__main__":
    _common.run(main)
