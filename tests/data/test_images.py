"""kresnets.data.images against tf.image, Pillow and a saved graph."""

import importlib.resources
import io
import resource

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from kresnets.data import decode_image, load_image, resize_and_crop

CELLS = importlib.resources.files("elpv_dataset") / "data" / "images"


def photograph():
    """Return a colour picture out of three photographs of cells, 300 x 300 uint8."""
    return np.stack([np.asarray(Image.open(CELLS / f"cell{i:04d}.png")) for i in (2, 9, 700)], axis=-1)


def encode(array, kind, mode=None, **options):
    image = array if isinstance(array, Image.Image) else Image.fromarray(array)
    stream = io.BytesIO()
    (image.convert(mode) if mode else image).save(stream, kind, **options)
    return stream.getvalue()


SHAPES = [
    (300, 300, 64, 1.0),
    (37, 91, 64, 1.0),
    (91, 37, 32, 0.9),
    (480, 640, 224, 0.875),
    (1, 1, 64, 1.0),
    (1, 5, 64, 0.875),
    (1000, 30, 64, 1.0),
    (801, 533, 224, 0.95),
]


@pytest.mark.parametrize(("height", "width", "size", "crop"), SHAPES)
def test_equals_tf_image_and_pillow(height, width, size, crop):
    picture = np.asarray(Image.fromarray(photograph()).resize((width, height), Image.BICUBIC))
    short = round(size / crop)
    rows, columns = (round(side * short / min(height, width)) for side in (height, width))
    top, left = (rows - size) // 2, (columns - size) // 2
    window = np.s_[top : top + size, left : left + size]
    result = resize_and_crop(picture, size, crop).numpy()
    assert result.shape == (size, size, 3) and result.dtype == np.float32
    expected = tf.image.resize(picture, (rows, columns), antialias=True).numpy()[window]
    np.testing.assert_allclose(result, expected, atol=0.02)
    pillow = np.asarray(Image.fromarray(picture).resize((columns, rows), Image.BILINEAR))[window]
    np.testing.assert_allclose(result, pillow, atol=1.01)  # Pillow rounds to whole levels, twice


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_a_square_of_the_size_passes_unchanged(dtype):
    picture = photograph().astype(dtype)
    np.testing.assert_array_equal(resize_and_crop(picture, 300).numpy(), picture)


@pytest.mark.parametrize("shape", [(20000, 2), (2, 20000), (1, 5_000_000)])
def test_a_long_picture_costs_no_memory(shape):
    picture = tf.zeros((*shape, 3), tf.uint8)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert resize_and_crop(picture, 224).shape == (224, 224, 3)
    # 1 x 5,000,000 resized before the crop would be 10^15 pixels; even its height alone 13 GB
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000  # kB


def test_every_format_gives_pillows_pixels():
    picture = photograph()
    grey = picture[..., 0]
    translucent = Image.fromarray(np.dstack([picture, grey]))
    white = Image.new("RGBA", translucent.size, "white")
    few = Image.fromarray(picture).quantize(64)
    jpegs = {
        "jpeg": encode(picture, "JPEG"),
        "progressive jpeg": encode(picture, "JPEG", progressive=True),
        "grey jpeg": encode(grey, "JPEG"),
        "cmyk jpeg": encode(picture, "JPEG", "CMYK"),
    }
    cases = [(name, content, Image.open(io.BytesIO(content)), 6) for name, content in jpegs.items()]  # 6: two decoders
    cases += [
        ("png", encode(picture, "PNG"), picture, 0),
        ("grey png", encode(grey, "PNG"), grey, 0),
        ("grey png with alpha", encode(grey, "PNG", "LA"), grey, 0),
        ("png with alpha", encode(translucent, "PNG"), Image.alpha_composite(white, translucent), 0),
        ("1-bit png", encode(grey > 90, "PNG"), (grey > 90) * 255, 0),
        ("palette png", encode(few, "PNG"), few, 0),
        ("16-bit png", encode(grey.astype(np.uint16) * 256 + 77, "PNG"), grey, 0),
        ("gif", encode(few, "GIF"), few, 0),
        ("animated gif", encode(few, "GIF", save_all=True, append_images=[few.rotate(90)]), few, 0),
        ("bmp", encode(picture, "BMP"), picture, 0),
        ("grey bmp", encode(grey, "BMP"), grey, 0),
        ("bmp with alpha", encode(translucent, "BMP"), picture, 0),
    ]
    for name, content, expected, tolerance in cases:
        image = expected if isinstance(expected, Image.Image) else Image.fromarray(np.asarray(expected, np.uint8))
        result = decode_image(content)
        assert result.dtype == tf.uint8, name
        np.testing.assert_allclose(
            result.numpy().astype(int), np.asarray(image.convert("RGB")).astype(int), atol=tolerance, err_msg=name
        )


def test_runs_in_a_saved_graph(tmp_path):
    class Served(tf.Module):
        @tf.function(input_signature=[tf.TensorSpec((), tf.string)])
        def load(self, image_bytes):
            return load_image(image_bytes, 96, 0.875)

    tf.saved_model.save(Served(), str(tmp_path))
    graph = tf.saved_model.load(str(tmp_path)).load
    for content in (encode(photograph()[:200], "JPEG"), encode(photograph()[..., 0], "PNG")):
        np.testing.assert_allclose(graph(content).numpy(), load_image(content, 96, 0.875).numpy(), atol=1e-3)
    operations = {operation.type for operation in graph.get_concrete_function().graph.get_operations()}
    assert not any("PyFunc" in operation for operation in operations)


def test_bad_arguments_are_named():
    with pytest.raises(ValueError, match="at least 1 pixel. Received: size=0"):
        resize_and_crop(np.zeros((4, 4, 3)), 0)
    for crop in (0, 1.5):
        with pytest.raises(ValueError, match=f"Received: crop={crop}"):
            resize_and_crop(np.zeros((4, 4, 3)), 8, crop)
    with pytest.raises(tf.errors.InvalidArgumentError):
        decode_image(b"no image")
