"""Images of other than three channels: grey, alpha kept, bands of TIFF and arrays."""

import io

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image, ImageOps

from kresnets import Decoding, preprocess_input
from kresnets.data import check_image, decode_image, load_data
from kresnets.data.arrays import array_of
from kresnets.data.augment import check_channels
from kresnets.data.transcode import decoded

tifffile = pytest.importorskip("tifffile", reason="kresnets[images] is an extra")
RNG = np.random.default_rng(0)
COLOURS = RNG.integers(0, 256, (30, 41, 3), dtype="uint8")


def saved(image, kind="PNG", **options):
    file = io.BytesIO()
    Image.fromarray(image).save(file, kind, **options) if isinstance(image, np.ndarray) else image.save(file, kind)
    return file.getvalue()


def array(values):
    file = io.BytesIO()
    np.save(file, values)
    return file.getvalue()


def claiming(shape):
    """An array whose header claims more than there is."""
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": shape})
    return file.getvalue() + b"0" * 64


def tiff(values, **options):
    file = io.BytesIO()
    tifffile.imwrite(file, values, photometric="minisblack", **options)
    return file.getvalue()


def pixels(content, **decoding):
    return decoded(tf.constant(content), Decoding(**decoding)).numpy()


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "BMP", "GIF"])
def test_grey_is_pillows_luma(kind):
    content = saved(COLOURS, kind)
    wanted = np.asarray(Image.open(io.BytesIO(content)).convert("RGB").convert("L"), "float32")
    found = decode_image(content, decoding=Decoding(channels=1)).numpy()
    assert found.shape == (30, 41, 1) and np.abs(found[..., 0] - wanted).max() <= (3 if kind == "JPEG" else 1)
    grey = COLOURS[..., 0]
    if kind != "JPEG":  # of a grey image it is the value itself
        assert np.array_equal(decode_image(saved(grey, kind), decoding=Decoding(channels=1))[..., 0], grey)


@pytest.mark.parametrize("bits", [12, 16])
def test_sixteen_bits_keep_their_fractions(bits):
    values = RNG.integers(0, 2**bits - 2 ** (bits - 8), (9, 7), dtype="uint16")
    wanted = values.astype("float64") / 2 ** (bits - 8)
    for content in (saved(values), saved(values, "TIFF"), tiff(values), array(values)):
        assert np.array_equal(pixels(content, channels=1, bits=bits)[..., 0], wanted.astype("float32"))
    three = decode_image(saved(values), decoding=Decoding(bits=bits))  # as ever
    assert np.array_equal(three[..., 0], values >> (bits - 8))


def test_alpha_is_a_channel():
    clear = RNG.integers(0, 256, (6, 5, 4), dtype="uint8")
    assert np.array_equal(pixels(saved(clear), channels=4), clear)
    assert np.array_equal(pixels(saved(COLOURS), channels=4), np.dstack([COLOURS, np.full((30, 41), 255)]))
    deep = RNG.integers(0, 4000, (6, 5, 4), dtype="uint16")
    deep[..., 3] = RNG.integers(0, 65280, (6, 5))  # alpha has all 16 bits, whatever the colours have
    found = pixels(tf.io.encode_png(deep).numpy(), channels=4, bits=12)
    assert np.array_equal(found, (deep / np.array([16, 16, 16, 256])).astype("float32"))
    # One channel of it is grey on the background.
    wanted = Image.alpha_composite(Image.new("RGBA", (5, 6), "white"), Image.fromarray(clear)).convert("L")
    assert np.abs(pixels(saved(clear), channels=1)[..., 0] - np.asarray(wanted, "float32")).max() <= 1


@pytest.mark.parametrize("options", [{}, {"compression": "lzw"}, {"compression": "zlib"}, {"bigtiff": False}])
def test_bands_of_tiff(options):
    if options.get("compression") == "lzw":
        pytest.importorskip("imagecodecs", reason="kresnets[images] is an extra")
    for dtype, scale in (("uint8", 1), ("uint16", 256), ("float32", 1)):
        values = RNG.integers(0, 250, (20, 33, 6)).astype(dtype) * scale
        for planar, stored in (("contig", values), ("separate", np.moveaxis(values, -1, 0))):
            content = tiff(stored, planarconfig=planar, extrasamples=[0] * 5, **options)
            assert np.array_equal(pixels(content, channels=6), values / scale)
    pages = tiff(np.moveaxis(values, -1, 0), **options)  # a band a page
    assert np.array_equal(pixels(pages, channels=6), values)


@pytest.mark.parametrize("way", range(1, 9))
def test_a_tiff_is_turned_as_pillow_turns_it(way):
    values = np.arange(12, dtype="uint8").reshape(3, 4)
    content = tiff(values, extratags=[(274, "H", 1, way, True)])
    wanted = ImageOps.exif_transpose(Image.open(io.BytesIO(content)))
    assert np.array_equal(array_of(content, Decoding(channels=1))[..., 0], np.asarray(wanted))


def test_arrays():
    values = RNG.integers(0, 256, (8, 9, 5), dtype="uint8")
    for stored in (values, np.moveaxis(values, -1, 0), values.astype("float64"), values.astype(">f4")):
        assert np.array_equal(pixels(array(stored), channels=5), values)
    assert np.array_equal(pixels(array(values[..., :3])), values[..., :3])
    assert np.array_equal(pixels(array(values[..., 0]), channels=3), np.repeat(values[..., :1], 3, axis=-1))
    luma = np.asarray(Image.fromarray(values[..., :3]).convert("L"), "float32")
    assert np.abs(pixels(array(values[..., :3]), channels=1)[..., 0] - luma).max() <= 1


@pytest.mark.parametrize(
    ("content", "channels", "reason"),
    [
        (array(np.zeros((4, 4, 5), "uint8")), 6, "of shape (4, 4, 5), not (height, width, 6)"),
        (array(np.full((4, 4, 5), np.nan)), 5, "values of float64: save uint8, uint16, or floats"),
        (array(np.full((4, 4, 5), 300.0)), 5, "scaled to 0..255"),
        (array(np.zeros((4, 4, 5), "int32")), 5, "values of int32"),
        (array(np.zeros((4, 4), "float32")), 3, "an array of float32, not uint8 or uint16"),
        (array(np.zeros((4, 4, 5), "uint8"))[:-9], 5, "damaged or cut off (NPY)"),
        (array(np.array([{}], dtype=object)), 5, "an array of objects"),
        (claiming((10**6, 10**7, 5)), 5, "damaged or cut off (NPY)"),
        (claiming((10**4, 10**4, 5)), 5, "damaged or cut off (NPY)"),
        (
            tiff(np.zeros((40, 40, 8), "uint16"), planarconfig="contig", extrasamples=[0] * 7),
            3,
            "not (height, width, 3); channels=8 may be meant",
        ),
        (tiff(np.zeros((4, 4), "uint8")), 4, "of shape (4, 4), not (height, width, 4)"),
        (tiff(np.zeros((40, 40), "uint8"))[:-900], 1, "damaged or cut off (TIFF)"),
        (saved(COLOURS), 6, "neither TIFF nor .npy, in which images of 6 channels come"),
    ],
)
def test_what_has_others_is_a_bad_image(content, channels, reason):
    assert reason in check_image(content, Decoding(channels=channels)).reason


def test_floats_of_0_to_1_and_arrays_beside_images_are_told(tmp_path):
    for name in "ab":
        (tmp_path / "floats" / name).mkdir(parents=True), (tmp_path / "mixed" / name).mkdir(parents=True)
        for number in range(8):
            np.save(tmp_path / "floats" / name / f"{number}.npy", RNG.random((9, 9, 6), dtype="float32"))
            np.save(tmp_path / "mixed" / name / f"{number}.npy", RNG.integers(0, 9, (9, 9, 3), dtype="uint8"))
            (tmp_path / "mixed" / name / f"{number}.png").write_bytes(saved(RNG.integers(0, 9, (9, 9, 3), "uint8")))
    with pytest.raises(ValueError, match="16 images are floats of at most .*times 255"):
        load_data(tmp_path / "floats", channels=6, progress=False)
    with pytest.warns(UserWarning, match="8 .npy beside other images"):
        load_data(tmp_path / "mixed", progress=False)


@pytest.mark.parametrize(("kind", "channels"), [("RandomHue", 1), ("RandAugment", 6), ("strong", 4)])
def test_what_changes_colours_takes_three_channels(kind, channels):
    given = kind if kind == "strong" else {kind: {"factor": 0.2}}
    check_channels(given, 3)
    with pytest.raises(ValueError, match=f"does not take images of {channels} channels, as what changes colours") as e:
        check_channels(given, channels)
    assert kind in str(e.value)
    check_channels({"RandomFlip": {}, "RandomRotation": {"factor": 0.1}}, channels)


def test_channels_are_checked():
    for bad in (0, 9, 2.5, True):
        with pytest.raises(ValueError, match="`channels` must be a whole number from 1 to 8"):
            Decoding(channels=bad)
    with pytest.raises(ValueError, match="`padding` is a colour"):
        Decoding(channels=4, resize="pad", padding="red")
    with pytest.raises(ValueError, match="come as TIFF or .npy alone"):
        decode_image(saved(COLOURS), decoding=Decoding(channels=6))


def test_a_folder_of_arrays_and_arrays_beside_images(tmp_path):
    for name in "ab":
        (tmp_path / "six" / name).mkdir(parents=True), (tmp_path / "beside" / name).mkdir(parents=True)
        for number in range(8):
            values = RNG.integers(0, 3000, (20, 24, 6), dtype="uint16")
            np.save(tmp_path / "six" / name / f"{number}.npy", values)
            np.save(tmp_path / "beside" / name / f"{number}.npy", values)
            (tmp_path / "beside" / name / f"{number}.png").write_bytes(saved(values[..., :3].astype("uint8")))
    data = load_data(tmp_path / "six", channels=6, progress=False)
    assert data.decoding.bits == 12 and "read as 12 bits" in data.summary()
    values = np.load(tmp_path / "six" / data.train.ids[0])[:20, 2:22] / 16
    assert data.train.pixels(20).shape[1:] == (20, 20, 6) and np.array_equal(data.train.pixels(20)[0], values)
    drawn, _ = next(iter(data.train.batches(4, 20, cache=False)))
    assert np.array_equal(drawn[0], values)
    with pytest.raises(ValueError, match="16 of 16 images cannot be used.*not .height, width, 5"):
        load_data(tmp_path / "six", channels=5, progress=False)
    with pytest.warns(UserWarning, match="beside other images"):
        beside = load_data(tmp_path / "beside", progress=False)
    assert {name[-4:] for name in beside.train.ids} == {".png"}


@pytest.mark.parametrize("mode", ["tf", "torch", "caffe"])
def test_each_channel_is_preprocessed_as_the_colour_whose_kernel_it_gets(mode):
    """The kernels of more channels are those of R, G, B, R, ... in turn, or of caffe's B, G, R."""
    images = RNG.uniform(0, 255, (2, 4, 4, 6)).astype("float32")
    found = preprocess_input(images, mode=mode)
    for first in (0, 3):
        three = images[..., first : first + 3]
        three = three[..., ::-1] if mode == "caffe" and first else three
        assert np.allclose(found[..., first : first + 3], preprocess_input(three, mode=mode), atol=1e-4)
    assert np.allclose(preprocess_input(tf.constant(images), mode=mode), found, atol=1e-4)
    one = preprocess_input(images[..., :1], mode=mode)
    wanted = preprocess_input(np.repeat(images[..., :1], 3, -1), mode=mode).mean(-1)
    assert np.allclose(one[..., 0], wanted, rtol=0.02, atol=0.05)  # equal but for the three deviations
    first = preprocess_input(np.moveaxis(images, -1, 1), "channels_first", mode)
    assert np.allclose(np.moveaxis(first, 1, -1), found, atol=1e-4)
