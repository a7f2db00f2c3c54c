"""How files become pixels: alpha against Pillow's compositing, depth against numpy, scaled JPEGs against Pillow's draft
mode; one record from the data to what is served."""

import io
import json
import re
import struct

import keras
import numpy as np
import pytest
import tensorflow as tf
from commands import ask
from odd_files import chunk, encoded, picture, png, turned
from PIL import Image, ImageOps

import kresnets
from kresnets import Decoding, Preprocessing
from kresnets.data import check_image, decode_image, headers, load_data, load_image
from kresnets.data.check import Verdict, depth
from kresnets.export import export_saved_model, read_card
from kresnets.runs.folder import RunFolder, load_images

RGBA = picture(40, 30, 4)
FEW = Image.fromarray(RGBA[..., :3]).quantize(7)
COLOURS = (tuple(FEW.getpalette()[3:6]), tuple(FEW.getpalette()[6:9]))


def deep(values, extra=b""):
    """A PNG of 16 bits, of one to four channels."""
    values = values.reshape(*values.shape[:2], -1)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    return png(*values.shape[1::-1], rows, extra, depth=16, colour={1: 0, 2: 4, 3: 2, 4: 6}[values.shape[2]])


CLEAR = {
    "png": encoded(RGBA, "PNG"),
    "grey png": encoded(RGBA[..., :2], "PNG"),
    "16-bit png": deep(RGBA.astype("uint16") * 257),
    "16-bit grey png": deep(RGBA[..., 2:].astype("uint16") * 257),
    "palette png, one colour": (lambda file: (FEW.save(file, "PNG", transparency=2), file)[1])(io.BytesIO()).getvalue(),
    "palette png of 4 bits, levels": (lambda file: (FEW.save(file, "PNG", transparency=bytes([0, 90, 200])), file)[1])(
        io.BytesIO()
    ).getvalue(),
    "rgb png, one colour": encoded(np.asarray(FEW.convert("RGB")), "PNG", transparency=COLOURS[0]),
    "grey png, one level": encoded(RGBA[..., 0] // 64 * 64, "PNG", transparency=64),
    "1-bit png, one level": encoded(RGBA[..., 0] > 128, "PNG", transparency=1),
    "palette png, a long text before": (plain := encoded(RGBA, "PNG", mode="P", transparency=5))[:33]
    + chunk(b"tEXt", b"c\0IDAT" + bytes(9000)) + plain[33:],
    "gif": (lambda file: (FEW.save(file, "GIF", transparency=3), file)[1])(io.BytesIO()).getvalue(),
    "webp": encoded(RGBA, "WEBP", lossless=True),
    "lossy webp": encoded(RGBA, "WEBP"),
}  # fmt: skip
OPAQUE = {
    "png": encoded(RGBA[..., :3], "PNG"),
    "1-bit png": encoded(RGBA[..., 0] > 128, "PNG"),
    "palette png": encoded(np.asarray(FEW.convert("RGB")), "PNG", mode="P"),
    "gif": encoded(np.asarray(FEW.convert("RGB")), "GIF", mode="P"),
    "webp": encoded(RGBA[..., :3], "WEBP", lossless=True),
}


def on(colour, data):
    image = Image.open(io.BytesIO(data)).convert("RGBA")
    return np.asarray(Image.alpha_composite(Image.new("RGBA", image.size, (*colour, 255)), image).convert("RGB"))


@pytest.mark.parametrize("colour", [(255, 255, 255), (10, 200, 30)])
def test_alpha_is_what_pillow_makes_of_it(colour):
    decoding = Decoding(background=colour)
    for name, data in {**CLEAR, **{f"opaque {name}": data for name, data in OPAQUE.items()}}.items():
        assert name.startswith("opaque") or np.asarray(Image.open(io.BytesIO(data)).convert("RGBA"))[..., 3].min() < 255
        for limit in (None, 1200):
            np.testing.assert_array_equal(decode_image(data, limit, decoding).numpy(), on(colour, data), err_msg=name)


def test_an_icon_of_black_on_nothing_is_no_black_square():
    icon = np.zeros((16, 16, 4), "uint8")
    icon[4:8, 4:8, 3] = 255
    seen = load_image(encoded(icon, "PNG"), 16).numpy()
    assert seen.mean() > 200 and seen[5, 5].max() == 0
    before = decode_image(encoded(icon, "PNG"), None, Decoding.before()).numpy()
    assert before.max() == 0  # as models of before saw it


def test_the_colours_of_the_first_frame_alone_are_changed():
    """Of a GIF whose frame brings its own colours it is those that have the transparent one."""
    frames = [FEW, Image.fromarray(RGBA[::-1, :, :3]).quantize(5)]
    file = io.BytesIO()
    frames[1].save(file, "GIF", save_all=True, append_images=frames[:1], transparency=1, disposal=2)
    data = file.getvalue()
    np.testing.assert_array_equal(decode_image(data).numpy(), on((255,) * 3, data))


# --- EXIF orientation ---

KINDS = {"JPEG": {}, "progressive JPEG": {"progressive": True}, "PNG": {}, "WEBP": {"lossless": True}}


def upright(data):
    return np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB"))


@pytest.mark.parametrize("kind", KINDS)
def test_each_orientation_is_what_pillow_makes_of_it(kind):
    for orientation in range(10):  # 0 and 9 are none
        data = turned(orientation, kind.split()[-1], **KINDS[kind])
        shape = (80, 60, 3) if 5 <= orientation <= 8 else (60, 80, 3)
        for limit in (None, 4800):
            seen = decode_image(data, limit).numpy()
            assert seen.shape == upright(data).shape == shape
            np.testing.assert_allclose(seen.astype(int), upright(data), atol=6, err_msg=str(orientation))
        assert check_image(data).rotated == (2 <= orientation <= 8)
        before = decode_image(data, None, Decoding(exif_orientation=False)).numpy()
        assert before.shape == (60, 80, 3)  # as models of before saw it


def test_an_orientation_is_found_wherever_it_may_stand():
    """Big-endian, behind another segment, behind the pixels of a PNG, behind other entries: as Pillow reads it."""
    tiff = b"MM\0*" + struct.pack(">IHHHI4sHHI4sI", 8, 2, 0x0100, 3, 1, b"\0\x09\0\0", 0x0112, 3, 1, b"\0\x08\0\0", 0)
    jpeg, plain = turned(1), encoded(picture(60, 80), "PNG")
    segment = b"Exif\0\0" + tiff
    segment = b"\xff\xe1" + struct.pack(">H", len(segment) + 2) + segment
    other = b"\xff\xe2" + struct.pack(">H", 9002) + bytes(9000)
    begin, picture_itself = jpeg[:2], jpeg[jpeg.index(b"\xff\xdb") :]
    end = plain.index(b"IEND") - 4
    for data in (
        begin + segment + picture_itself,
        begin + other + segment + picture_itself,
        plain[:33] + chunk(b"eXIf", tiff) + plain[33:],
        plain[:end] + chunk(b"eXIf", tiff) + plain[end:],
    ):
        assert upright(data).shape == (80, 60, 3)
        np.testing.assert_allclose(decode_image(data).numpy().astype(int), upright(data), atol=6)


def test_an_orientation_that_is_nonsense_turns_nothing():
    tag = struct.pack("<HHI", 0x0112, 3, 1)
    whole, random = turned(6), np.random.default_rng(0)
    at = whole.index(tag) if tag in whole else whole.index(struct.pack(">HHI", 0x0112, 3, 1))
    for cut in range(at - 30, at + 12):
        decode_image(whole[: cut - 4] + bytes(4) + whole[cut:])
    for _ in range(100):
        data = bytearray(whole)
        for place in random.integers(6, at + 12, 3):
            data[place] = random.integers(256)
        try:
            shape = decode_image(bytes(data)).shape
        except tf.errors.InvalidArgumentError:
            continue  # a length of the JPEG itself was hit
        assert tuple(shape) in ((60, 80, 3), (80, 60, 3))


def test_a_model_of_before_goes_on_without_orientation(tmp_path):
    """What older versions wrote of their decoding says nothing of it: their weights never saw an image turned."""
    older = {"bits": 12, "background": [1, 2, 3], "whole": 9}
    assert Preprocessing.of_data({"mode": "torch", "decoding": older}).decoding.exif_orientation is False
    assert str(Decoding.of_data(older)) == "Decoding(bits=12, background=(1, 2, 3), whole=9)"  # as runs noted it
    assert Decoding.of_data(older | {"exif_orientation": True}) == Decoding(12, (1, 2, 3), 9)
    with pytest.raises(ValueError, match="`exif_orientation` must be True or False. Received: exif_orientation='yes'"):
        Decoding(exif_orientation="yes")


# --- shape ---


@pytest.mark.parametrize("shape", [(30, 47), (47, 30), (7, 300), (64, 64), (2, 9)])
def test_padded_and_squashed_pictures_are_those_of_tensorflow(shape):
    image = picture(*shape)
    data = encoded(image, "PNG")
    for size in (24, 65):
        squashed = load_image(data, size, 0.875, decoding=Decoding(resize="squash")).numpy()
        np.testing.assert_array_equal(squashed, tf.image.resize(image, (size, size), antialias=True))
        inner = [max(1, round(side * size / max(shape))) for side in shape]
        small = tf.image.resize(image, inner, antialias=True)
        for colour in (None, (10, 200, 30)):
            padded = load_image(data, size, 0.875, decoding=Decoding(resize="pad", padding=colour)).numpy()
            wanted = np.tile(np.float32(colour or (0, 0, 0)), (size, size, 1))
            top, left = ((size - side + 1) // 2 for side in inner)
            wanted[top : top + inner[0], left : left + inner[1]] = small
            np.testing.assert_allclose(padded, wanted, atol=1e-3)


def test_misfit_shapes_are_refused():
    for given, told in (
        ({"resize": "fit"}, "`resize` must be 'crop', 'pad', 'squash'. Received: resize='fit'"),
        ({"padding": "white"}, "`padding` is the colour of resize='pad', and resize is 'crop': leave one"),
        ({"resize": "pad", "padding": "whitish"}, "`padding` must be a colour such as .* Received: padding='whitish'"),
    ):
        with pytest.raises(ValueError, match=told):
            Decoding(**given)


# --- depth ---

DARK = np.arange(1200, dtype="uint16").reshape(30, 40) % 900  # 10 bits hold it
BRIGHT = np.arange(1200, dtype="uint16").reshape(30, 40) * 3  # 12 bits


@pytest.mark.always("8", "12")
@pytest.mark.parametrize("bits", [8, 10, 12, 14, 16])
def test_the_bits_that_a_data_set_fills_are_what_is_seen(bits):
    values = (np.arange(1200) * (2**bits - 1) // 1199).astype("uint16").reshape(30, 40)
    seen = decode_image(deep(values), None, Decoding(bits=bits)).numpy()
    np.testing.assert_array_equal(seen, (values // 2 ** (bits - 8))[..., np.newaxis].repeat(3, axis=-1))
    assert seen.max() == 255
    colours = np.stack([values, values[::-1], values // 2], axis=-1)
    for extra in ((), (np.full_like(values, 0x8040),)):
        data = deep(np.dstack([colours, *extra]))
        alpha = 0x80 if extra else 255
        expected = (colours // 2 ** (bits - 8) * alpha + 255 * (255 - alpha)) / 255
        np.testing.assert_allclose(decode_image(data, 1200, Decoding(bits=bits)).numpy(), expected, atol=0.5)


def test_values_above_the_bits_are_white_and_bytes_stay_bytes():
    assert decode_image(deep(DARK + 60_000), None, Decoding(bits=10)).numpy().min() == 255
    for data in OPAQUE.values():
        np.testing.assert_array_equal(decode_image(data, None, Decoding(bits=10)).numpy(), decode_image(data).numpy())


def said(bits):
    return chunk(b"sBIT", bytes(bits))


@pytest.mark.parametrize(
    ("files", "bits"),
    [
        ([deep(DARK)], 10),
        ([deep(DARK), deep(BRIGHT)], 12),
        ([deep(BRIGHT * 4)], 14),
        ([deep(BRIGHT * 8)], 16),
        ([deep(DARK // 900)], 10),
        ([deep(DARK, said([12]))], 12),  # dark, and says so
        ([deep(DARK, said([12])), deep(DARK)], 12),
        ([deep(DARK * 16, said([10]))], 16),  # scaled up, as the standard has it
        ([deep(DARK, said([20]))], 10),  # more than 16: it says nothing
        ([deep(np.dstack([DARK, DARK // 900 + 65_534]))], 10),  # alpha has a range of its own
        ([deep(np.dstack([DARK, DARK // 900 + 65_534]), said([12, 16]))], 12),
        ([encoded(RGBA, "PNG")], None),
    ],
)
def test_the_depth_is_found_over_all_files(files, bits):
    verdicts = [check_image(data) for data in files]
    assert all(verdict.reason is None for verdict in verdicts)
    assert depth(verdicts)[0] == bits


def test_a_cut_16_bit_png_is_found():
    data = deep(BRIGHT)
    assert all(check_image(data[:cut]).reason for cut in range(len(data)))
    assert depth([check_image(data[:-30]), Verdict(None)]) == (None, "")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two classes: marks in 12 bits, all dark but one image, and icons whose alpha alone shows them."""
    root = tmp_path_factory.mktemp("odd")
    random = np.random.default_rng(0)
    for number in range(16):
        values = random.integers(0, 4096 if number == 3 else 700, (24, 24)).astype("uint16")
        icon = np.zeros((24, 24, 4), "uint8")
        icon[4 : 8 + number % 8, 4:18, 3] = 255
        icon[-1, -1, 1] = number
        for name, data in (("cell", deep(values)), ("icon", encoded(icon, "PNG"))):
            (root / name).mkdir(exist_ok=True)
            (root / name / f"{number}.png").write_bytes(data)
    return root


def test_the_depth_is_that_of_the_whole_data_set(folder):
    data = load_data(folder, progress=False)
    assert data.decoding == Decoding(bits=12) == data.test.subset([0]).decoding
    assert "16-bit PNG are read as 12 bits: the largest value is 40" in data.summary()
    assert "Images with an alpha channel or a transparent colour, put on white: 16." in data.summary()
    for part in (data.train, data.validation, data.test):
        for name, seen in zip(part.ids, part.pixels(24), strict=True):
            held = np.asarray(Image.open(folder / name))
            expected = held[..., np.newaxis] // 16 if name.startswith("cell") else on((255,) * 3, open_(folder, name))
            np.testing.assert_array_equal(seen, np.broadcast_to(expected, (24, 24, 3)))
    asked = load_data(folder, progress=False, bits=14, background="black")
    assert asked.decoding == Decoding(bits=14, background=(0, 0, 0)) and "as 14 bits: as given" in asked.summary()
    low = load_data(folder, progress=False, bits=10)
    assert "1 of them have larger values, which become white." in low.summary()
    before = load_data(folder, progress=False, decoding=Decoding.before())
    assert before.train.pixels(24).max() < 16 and before.decoding == Decoding.before()
    assert before.train.identity() == data.train.identity()
    first, second = (one.train.batches(4, 24).kresnets_rows.identity() for one in (before, data))
    assert first != second  # features of the one are not those of the other
    with pytest.raises(ValueError, match="decoding can be joined"):
        before.train.joined(data.validation)


def open_(folder, name):
    return (folder / name).read_bytes()


@pytest.mark.everything
def test_kept_images_are_those_of_their_decoding(folder, tmp_path):
    for decoding in (Decoding.before(), None):
        part = load_data(folder, progress=False, decoding=decoding).train
        (images, _), *_ = part.batches(len(part), 8, cache=tmp_path / "kept")
        np.testing.assert_array_equal(images, part.pixels(8))
        np.testing.assert_array_equal(images, np.stack([load_image(open_(folder, name), 8, decoding=part.decoding)
                                                        for name in part.ids]))  # fmt: skip


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"bits": 17}, "from 8 to 16, or None. Received: bits=17"),
        ({"bits": 12.5}, "from 8 to 16"),
        ({"background": "whit"}, "a colour such as 'white'"),
        ({"background": (0, 0, 256)}, "a colour such as"),
        ({"background": "#ff000080"}, "a colour such as"),  # itself transparent
        ({"whole": 0}, "from 1, or None"),
    ],
)
def test_what_no_decoding_is(values, words):
    with pytest.raises(ValueError, match=words):
        Decoding(**values)


# --- large JPEGs ---

LARGE = Image.fromarray(picture(12, 10)).resize((601, 403), Image.Resampling.BICUBIC)
JPEGS = {
    name: (lambda file: (LARGE.convert(mode).save(file, "JPEG", **more), file)[1])(io.BytesIO()).getvalue()
    for name, mode, more in (
        ("baseline", "RGB", {}),
        ("grey", "L", {}),
        ("cmyk", "CMYK", {}),
        ("restarts", "RGB", {"restart_marker_rows": 1}),
        ("a progressive preview", "RGB", {"exif": b"Exif\0\0" + encoded(picture(9, 9), "JPEG", progressive=True)}),
        ("progressive", "RGB", {"progressive": True}),
        ("progressive grey", "L", {"progressive": True}),
    )
}


@pytest.mark.always("100000-2")
@pytest.mark.parametrize(
    ("whole", "ratio"),
    [
        (300_000, 1),
        (100_000, 2),
        (4_000, 8),
        *(pytest.param(*more, marks=pytest.mark.everything) for more in ((20_000, 4), (3_876, 8))),
    ],
)
def test_a_large_jpeg_is_what_pillow_drafts(whole, ratio):
    for name, data in JPEGS.items():
        drafted = Image.open(io.BytesIO(data))
        drafted.draft(drafted.mode, (drafted.width // ratio, drafted.height // ratio))
        expected = np.asarray(drafted.convert("RGB"))
        seen = decode_image(data, None, Decoding(whole=whole)).numpy()
        assert seen.shape == (-(-403 // ratio), -(-601 // ratio), 3)
        # Two versions of libjpeg differ in how they smooth colours of half the size.
        np.testing.assert_allclose(seen.astype(int), expected, atol=0 if ratio > 2 else 6, err_msg=name)
        expected = tf.io.decode_jpeg(data, channels=3, ratio=ratio)
        # What is served has the same pixels, or none: of progressive ones all have to fit.
        if name.startswith("progressive"):
            assert not headers.in_one_scan(data)
            with pytest.raises(tf.errors.InvalidArgumentError):
                decode_image(data, 403 * 601 - 1, Decoding(whole=whole))
            seen = decode_image(data, 403 * 601, Decoding(whole=whole)).numpy()
        else:
            seen = decode_image(data, seen.size // 3, Decoding(whole=whole)).numpy()
            with pytest.raises(tf.errors.InvalidArgumentError):
                decode_image(data, seen.size // 3 - 1, Decoding(whole=whole))
        np.testing.assert_array_equal(seen, expected)


def test_scans_of_single_colours_are_held_as_a_whole():
    """A baseline JPEG may have a scan for each colour (ITU-T T.81, A.2): decoders then hold every coefficient."""
    data = JPEGS["baseline"]
    scan = data.index(b"\xff\xda")
    assert headers.in_one_scan(data)
    assert not headers.in_one_scan(data[:scan] + b"\xff\xda\0\x08\x01\x01\0\0\x3f\0" + data[scan + 14 :])
    for cut in range(2, scan + 4):
        assert not headers.in_one_scan(data[:cut])


def of_size(data, width, height):
    """A JPEG whose header claims another size."""
    place = next(data.index(marker) for marker in (b"\xff\xc0", b"\xff\xc2") if marker in data) + 5
    return data[:place] + struct.pack(">HH", height, width) + data[place + 4 :]


def test_a_photograph_of_64_million_pixels():
    file = io.BytesIO()
    Image.new("L", (8000, 8000), 77).save(file, "JPEG")
    verdict = check_image(file.getvalue())
    assert verdict.reason is None and verdict.scaled and not check_image(JPEGS["baseline"]).scaled
    assert check_image(file.getvalue(), Decoding.before()).reason == "8000 x 8000 pixels, more than 50,000,000"
    seen = decode_image(file.getvalue(), 50_000_000)
    assert seen.shape == (4000, 4000, 3) and abs(int(seen[9, 9, 0]) - 77) < 2


def test_what_is_too_large_at_any_scale_is_refused_in_a_sentence():
    # 200 million pixels, which Pillow's own guard refuses. Behind the mark of the end decoders go on to the last row.
    short = of_size(JPEGS["baseline"], 16_000, 12_500)
    assert re.fullmatch(r"16000 x 12500 pixels in .* bytes, which cannot hold them: damaged or cut off",
                        check_image(short).reason)  # fmt: skip
    assert check_image(short[:-2] + bytes(800_000)).reason == "damaged or cut off (JPEG)"
    assert check_image(of_size(JPEGS["progressive"], 16_000, 12_500)).reason == (
        "a progressive JPEG of 16000 x 12500 pixels, more than 50,000,000, all of which must be held at any scale: "
        "save it as a baseline one"
    )
    huge = of_size(JPEGS["baseline"], 65_000, 65_000)
    assert "even at an eighth of its sides" in check_image(huge + bytes(17_000_000)).reason
    for data in (short, huge, huge + bytes(17_000_000), of_size(JPEGS["progressive"], 16_000, 12_500)):
        with pytest.raises(tf.errors.InvalidArgumentError, match="more than 50000000 pixels"):
            decode_image(data, 50_000_000)


# --- carried ---


def small_model():
    model = kresnets.CifarResNet8(classes=2, input_shape=(24, 24, 3))
    kresnets.preprocess.set_preprocessing(
        model, Preprocessing("torch", decoding=Decoding(bits=12, background="#0080ff"))
    )
    return model


def test_a_model_carries_it_into_files_and_copies(tmp_path):
    model = small_model()
    wanted = kresnets.preprocessing_of(model)
    assert wanted.decoding == Decoding(12, (0, 128, 255))
    model.save(tmp_path / "model.keras")
    model.save_weights(tmp_path / "model.weights.h5")
    again = kresnets.CifarResNet8(classes=2, input_shape=(24, 24, 3), weights=str(tmp_path / "model.weights.h5"))
    for other in (keras.saving.load_model(tmp_path / "model.keras"), keras.models.clone_model(model), again):
        assert kresnets.preprocessing_of(other) == wanted
    assert kresnets.preprocess.preprocessing_for(model, "tf").decoding == wanted.decoding
    assert Preprocessing.of_data(json.loads(json.dumps(wanted.as_data()))) == wanted


def test_what_was_saved_before_means_what_it_meant():
    """Fields without a decoding, as `.keras` files, runs and cards of before have them."""
    old = {"mode": "torch", "crop": 0.9, "mean": None, "std": None, "size": 24}
    layer = kresnets.layers.BatchNormalization(preprocessing=old)
    assert layer.preprocessing.decoding == Decoding.before() and layer.get_config()["preprocessing"] == old
    data = CLEAR["16-bit png"]
    expected = np.asarray(Image.open(io.BytesIO(data)))[..., :3]
    np.testing.assert_array_equal(decode_image(data, None, layer.preprocessing.decoding).numpy(), expected)
    file = JPEGS["baseline"]
    seen = decode_image(file, 403 * 601, Decoding.before()).numpy()
    np.testing.assert_array_equal(seen, tf.io.decode_jpeg(file, channels=3))


@pytest.mark.everything
def test_fine_tune_teaches_the_model_how_its_images_are_decoded(folder, caplog):
    data = load_data(folder, progress=False, background="black")
    train, validation = (part.batches(8, 24) for part in (data.train, data.validation))
    recipe = kresnets.Recipe(head_epochs=1, stages=(), augment="none", batchnorm="frozen")
    model = kresnets.CifarResNet8(classes=2, input_shape=(24, 24, 3))
    kresnets.fine_tune(model, train.map(lambda x, y: (x, y)).prefetch(1), validation, recipe, verbose=0)
    assert kresnets.preprocessing_of(model).decoding == Decoding(12, (0, 0, 0))
    other = load_data(folder, progress=False, bits=14).validation.batches(8, 24)
    with pytest.raises(ValueError, match="decoded in different ways, .*bits=1[24].* and "):
        kresnets.fine_tune(model, train, other, recipe, verbose=0)
    plain = keras.Sequential([keras.Input((24, 24, 3)), keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(2)])
    groups = {"pool": "global.*", "head": "dense.*"}
    kresnets.fine_tune(plain, train, None, recipe, preprocess="torch", groups=groups, verbose=0)
    assert "cannot carry how its images are decoded: give exports preprocess=" in caplog.text


def test_what_is_served_sees_the_pixels_that_were_learned(folder, tmp_path):
    model = small_model()
    files = [*CLEAR.values(), *OPAQUE.values(), deep(DARK), deep(BRIGHT), *map(JPEGS.get, ("baseline", "cmyk"))]
    files += [turned(orientation, kind) for orientation, kind in ((3, "JPEG"), (6, "JPEG"), (7, "PNG"))]
    path = export_saved_model(model, tmp_path / "served", top=2, verify_on=files)
    card = read_card(path)
    assert (card["version"], card["decoding"]["bits"], card["decoding"]["background"]) == (3, 12, [0, 128, 255])
    seen = np.stack([load_image(data, 24, decoding=Decoding(12, (0, 128, 255))) for data in files])
    for data, image in zip(CLEAR.values(), seen, strict=False):  # by another decoder's eyes
        if data not in (CLEAR["16-bit png"], CLEAR["16-bit grey png"]):
            pixels = on((0, 128, 255), data)
            np.testing.assert_allclose(image, kresnets.data.resize_and_crop(pixels, 24), atol=1e-3)
    expected = model.predict(keras.applications.imagenet_utils.preprocess_input(seen, mode="torch"), verbose=0)
    answer = tf.saved_model.load(str(path)).signatures["serving_default"](image_bytes=tf.constant(files))
    assert answer["valid"].numpy().all()
    np.testing.assert_allclose(answer["scores"], -np.sort(-expected, axis=1), atol=1e-4)
    (path / "assets" / "model_card.json").write_text('{"kresnets": "0.1.0"}')
    assert read_card(path)["version"] == 1 and read_card(path)["decoding"]["background"] is None


# --- the command ---

OPTIONS = (
    "--model CifarResNet8 --weights none --pretrained yes --size 24 --batch-size 8 --head-epochs 1 "
    "--epochs-per-stage 1 --stages --dtype float32"
).split()

DECODING = "--background #ffff00 --resize pad --padding blue".split()


@pytest.fixture(scope="module")
def run(folder, tmp_path_factory):
    path = tmp_path_factory.mktemp("runs") / "run"
    assert ask("finetune", "--data", folder, "--out", path, *OPTIONS, *DECODING) == 0
    return path


def answers(run, files, capsys, top=1):
    capsys.readouterr()
    assert ask("predict", run, *files, "--top", top) == 0
    return [line.split()[-2:] for line in capsys.readouterr().out.splitlines()[1:]]


@pytest.mark.everything
def test_a_run_carries_it_to_every_answer(folder, run, tmp_path, capsys):
    wanted = Decoding(12, (255, 255, 0), resize="pad", padding=(0, 0, 255))
    assert RunFolder(run).decoding == wanted == RunFolder(run).images().decoding
    assert "16-bit PNG are read as 12 bits" in (run / "report.html").read_text()
    model = keras.saving.load_model(run / "model.keras")
    assert kresnets.preprocessing_of(model).decoding == wanted
    files = sorted(folder.glob("*/1*.png"))
    seen = np.stack([load_image(file.read_bytes(), 24, decoding=wanted) for file in files])
    best = model.predict(keras.applications.imagenet_utils.preprocess_input(seen, mode="torch"), verbose=0).max(axis=1)
    np.testing.assert_allclose([float(score) for _, score in answers(run, files, capsys)], best, atol=2e-4)
    assert ask("export", run, tmp_path / "served", "--verify", 8) == 0
    assert read_card(tmp_path / "served" / "1")["decoding"]["background"] == [255, 255, 0]
    assert answers(tmp_path / "served", files, capsys) == answers(run, files, capsys)


@pytest.mark.everything
def test_a_run_is_gone_on_with_as_it_began(folder, run, capsys):
    assert ask("finetune", "--data", folder, "--out", run, *OPTIONS, *DECODING, "--bits", 10) == 2
    assert "was made with another --bits (None, now 10): give another folder" in capsys.readouterr().err
    assert ask("finetune", "--data", folder, "--out", run, *OPTIONS, *DECODING) == 0
    assert "is finished" in capsys.readouterr().out


@pytest.mark.everything
def test_a_run_of_before_is_finished_and_answers_as_before(folder, tmp_path, monkeypatch, capsys):
    """Cut off before it was judged, its notes as older versions wrote them: alpha is dropped, the high byte seen."""
    path = tmp_path / "run"
    with monkeypatch.context() as patch:
        patch.setattr("kresnets.cli.finetune.judge", lambda *_, **__: None)
        patch.setattr("kresnets.cli.finetune._print_metrics", lambda _: None)
        patch.setattr("kresnets.cli.finetune.load_images", lambda given, _: load_images(given, Decoding.before()))
        assert ask("finetune", "--data", folder, "--out", path, *OPTIONS) == 0
    config = json.loads((path / "config.json").read_text())
    assert set(config["preprocess"]) == {"mode", "crop", "mean", "std", "size"}
    for name in ("bits", "background"):
        del config["arguments"][name]
    (path / "config.json").write_text(json.dumps(config))
    before = (path / "history.csv").read_bytes()
    assert ask("finetune", "--data", folder, "--out", path, *OPTIONS) == 0
    assert (path / "history.csv").read_bytes() == before and (path / "metrics.json").exists()
    model = keras.saving.load_model(path / "model.keras")
    icons = sorted(folder.glob("icon/*.png"))
    seen = np.stack([np.asarray(Image.open(file), "float32")[..., :3] for file in icons])
    best = model.predict(keras.applications.imagenet_utils.preprocess_input(seen, mode="torch"), verbose=0).max(axis=1)
    np.testing.assert_allclose([float(score) for _, score in answers(path, icons, capsys)], best, atol=2e-4)
