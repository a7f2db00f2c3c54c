"""kresnets.data.check: no image is learned from half a file."""

import importlib.resources
import io
import struct
import warnings
import zlib

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from kresnets.data import check_image, check_images, decode_image

CELLS = importlib.resources.files("elpv_dataset") / "data" / "images"


def photograph(size=(120, 90)):
    return Image.merge("RGB", [Image.open(CELLS / f"cell{i:04d}.png") for i in (2, 9, 700)]).resize(size)


def encode(image, kind, **options):
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


FILES = {
    "png": lambda: encode(photograph(), "PNG"),
    "cell.png": lambda: (CELLS / "cell0005.png").read_bytes(),
    "jpeg": lambda: encode(photograph(), "JPEG"),
    "grey jpeg": lambda: encode(photograph().convert("L"), "JPEG"),
    "progressive jpeg": lambda: encode(photograph(), "JPEG", progressive=True),
    "jpeg with restarts": lambda: encode(photograph(), "JPEG", restart_marker_rows=1),
    "bmp": lambda: encode(photograph(), "BMP"),
    "grey bmp": lambda: encode(photograph().convert("L"), "BMP"),
    "gif": lambda: encode(photograph().quantize(), "GIF"),
    "animated gif": lambda: encode(
        photograph().quantize(), "GIF", save_all=True, append_images=[photograph().rotate(9).quantize()]
    ),
}


@pytest.mark.parametrize("name", FILES)
def test_a_cut_off_file_is_found(name):
    """Cut anywhere, a file is found; a GIF that was cut behind its first picture still gives every pixel of that."""
    whole = FILES[name]()
    assert check_image(whole).reason is None
    size = len(whole)
    cuts = sorted({*range(40), *np.linspace(40, size - 40, 60, dtype=int).tolist(), *range(size - 40, size)})
    accepted = [cut for cut in cuts if check_image(whole[:cut]).reason is None]
    assert "gif" in name or not accepted
    pixels = decode_image(whole).numpy()
    for cut in accepted[:20]:
        np.testing.assert_array_equal(decode_image(whole[:cut]).numpy(), pixels)
    if name == "gif":
        assert accepted in ([], [size - 1])  # only the closing semicolon is missing


@pytest.mark.parametrize("name", ["png", "jpeg", "progressive jpeg", "gif"])
def test_a_file_whose_end_never_arrived_is_found(name):
    """A copy that stopped leaves zeros at the end; formats that carry no redundancy (BMP) cannot show that."""
    whole = FILES[name]()
    pixels = decode_image(whole).numpy()
    for share in np.linspace(0.1, 0.95, 12):
        kept = int(share * len(whole))
        filled = whole[:kept] + bytes(len(whole) - kept)
        if check_image(filled).reason is None:
            np.testing.assert_array_equal(decode_image(filled).numpy(), pixels)


def test_what_is_no_image_is_found():
    random = np.random.default_rng(0)
    for head in (b"", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff\xe0", b"GIF89a", b"BM", b"RIFF"):
        for _ in range(20):
            assert check_image(head + random.bytes(200)).reason
    assert check_image(b"").reason == "the file is empty"
    assert "not an image" in check_image(b"<html>not found</html>").reason
    assert check_image(encode(photograph(), "JPEG2000")).reason == "JPEG2000, not JPEG, PNG, GIF or BMP"


def test_a_bmp_with_colours_in_a_palette_is_refused_because_tensorflow_reads_it_as_grey():
    content = encode(photograph().quantize(64), "BMP")
    assert np.abs(decode_image(content).numpy().astype(int) - np.asarray(photograph(), int)).max() > 100
    assert "palette" in check_image(content).reason
    assert check_image(encode(photograph().convert("1"), "BMP")).reason is not None


def test_the_name_of_a_file_plays_no_part(tmp_path):
    path = tmp_path / "really_a_jpeg.png"
    path.write_bytes(encode(photograph(), "JPEG"))
    assert check_images([str(path)])[0].reason is None


def png_that_claims(width, height):
    chunk = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    header = struct.pack(">I", 13) + chunk + struct.pack(">I", zlib.crc32(chunk))
    return b"\x89PNG\r\n\x1a\n" + header + struct.pack(">I", 100) + b"IDAT" + bytes(100)


def test_too_many_pixels_are_refused_before_they_are_decoded():
    bomb = encode(Image.new("1", (8000, 8000)), "PNG")  # 64 million pixels in 10 kB
    assert len(bomb) < 20_000
    assert check_image(bomb).reason == "8000 x 8000 pixels, more than 50,000,000"
    assert "50,000,000" in check_image(png_that_claims(100_000, 100_000)).reason


def test_rotation_by_exif_is_seen():
    for orientation, rotated in ((None, False), (1, False), (3, True), (6, True), (0, False)):
        exif = Image.Exif()
        if orientation is not None:
            exif[0x0112] = orientation
        for kind in ("JPEG", "PNG"):
            verdict = check_image(encode(photograph(), kind, exif=exif))
            assert (verdict.reason, verdict.rotated) == (None, rotated), (kind, orientation)


def test_damaged_metadata_harm_nothing():
    exif = Image.Exif()
    exif[0x0112] = 6
    whole = encode(photograph((64, 64)), "JPEG", exif=exif)
    random = np.random.default_rng(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for _ in range(300):
            damaged = bytearray(whole)
            for place in random.integers(6, 60, size=random.integers(1, 10)):
                damaged[place] = random.integers(256)
            check_image(bytes(damaged))  # whatever it says, it says


def test_many_files_in_parallel(tmp_path):
    paths = []
    for index in range(40):
        path = tmp_path / f"{index}.png"
        path.write_bytes(FILES["png"]() if index % 4 else FILES["png"]()[:-30])
        paths.append(str(path))
    verdicts = check_images([*paths, str(tmp_path / "missing.png"), str(tmp_path)], progress=False)
    assert [bool(verdict.reason) for verdict in verdicts[:40]] == [not index % 4 for index in range(40)]
    assert verdicts[40].reason == "cannot be read (No such file or directory)"
    assert verdicts[41].reason == "cannot be read (Is a directory)"
    assert len({verdict.digest for verdict in verdicts[:40]}) == 2


def test_tensorflow_refuses_what_the_check_refuses():
    """The served model relies on TensorFlow alone."""
    for name in ("png", "jpeg", "bmp"):
        with pytest.raises(tf.errors.InvalidArgumentError):
            decode_image(FILES[name]()[:-100])


def iso(brand, *others):
    """The first box of an ISO media file, as phones write it (ISO/IEC 14496-12, section 4.3)."""
    brands = b"".join([brand, b"\0\0\0\0", *others])
    return struct.pack(">I", len(brands) + 8) + b"ftyp" + brands + bytes(range(200))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (iso(b"heic", b"mif1", b"heic"), "damaged or cut off (HEIC)"),
        (iso(b"mif1", b"mif1", b"heix"), "damaged or cut off (HEIC)"),
        (iso(b"avif", b"avif", b"mif1"), "damaged or cut off (AVIF)"),
    ],
)
def test_what_phones_and_browsers_write_is_called_by_its_name(content, words):
    assert words in check_image(content).reason


def test_an_animated_webp_is_not_called_damaged():
    content = encode(photograph(), "WEBP", save_all=True, append_images=[photograph().rotate(9)])
    assert check_image(content).reason == "an animated WebP, which is not read: save one of its pictures as PNG"
