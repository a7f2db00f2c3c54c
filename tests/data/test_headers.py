"""What headers claim, against Pillow; GIFs cut behind their first frame, against Pillow's own frames."""

import io
import re
import struct

import numpy as np
import pytest
import tensorflow as tf
from odd_files import compressed_text, many_scans, png, refused
from PIL import Image

from kresnets.data import decode_image
from kresnets.data.headers import claimed_pixels, first_frame


def encoded(image, format, **options):
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


def picture(width=37, height=23, mode="RGB", seed=0):
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels).convert(mode)


FORMATS = {
    "jpeg": encoded(picture(), "JPEG"),
    "progressive jpeg": encoded(picture(), "JPEG", progressive=True),
    "grey jpeg": encoded(picture(mode="L"), "JPEG"),
    "cmyk jpeg": encoded(picture(mode="CMYK"), "JPEG"),
    "jpeg with a long comment": encoded(picture(), "JPEG", comment=b"x" * 60_000, exif=b"Exif\0\0" + b"y" * 60_000),
    "png": encoded(picture(), "PNG"),
    "1-bit png": encoded(picture(mode="1"), "PNG"),
    "bmp": encoded(picture(), "BMP"),
    "lossy webp": encoded(picture(), "WEBP", quality=50),
    "lossless webp": encoded(picture(), "WEBP", lossless=True),
    "webp with more to say": encoded(picture(mode="RGBA"), "WEBP", exif=b"Exif\0\0MM"),
    "cmyk progressive jpeg": encoded(picture(mode="CMYK"), "JPEG", progressive=True),
    "wide jpeg": encoded(picture(60_000, 1), "JPEG"),
    "high webp": encoded(picture(1, 16_383), "WEBP", lossless=True),
}


@pytest.mark.always("progressive jpeg", "cmyk jpeg", "1-bit png", "bmp", "lossy webp", "wide jpeg")
@pytest.mark.parametrize("name", FORMATS)
def test_a_header_claims_what_pillow_reads(name):
    data = FORMATS[name]
    width, height = Image.open(io.BytesIO(data)).size
    assert int(claimed_pixels(data)) == width * height
    assert decode_image(data, width * height).shape == (height, width, 3)
    with pytest.raises(tf.errors.InvalidArgumentError, match="more than|Neither"):
        decode_image(data, width * height - 1)


def bottom_up(data):
    """A BMP whose first row is its top, which a negative height says."""
    height = struct.unpack_from("<i", data, 22)[0]
    return data[:22] + struct.pack("<i", -height) + data[26:]


def test_a_bmp_from_the_top():
    assert int(claimed_pixels(bottom_up(FORMATS["bmp"]))) == 37 * 23


@pytest.mark.parametrize(("count", "times"), [(0, 1), (26, 1), (27, 2), (58, 2), (59, 3)])
def test_every_32_scans_count_the_pixels_once_more(count, times):
    """A progressive grey JPEG has 6 scans from the start; each of those added here refines it once more."""
    data = many_scans(40, count)
    assert data.count(b"\xff\xda") == 6 + count
    assert int(claimed_pixels(data)) == times * 40 * 40


def test_what_is_behind_a_jpeg_is_no_scan():
    """A motion photograph is a JPEG with a video behind it, in which any two bytes come by chance."""
    video = np.random.default_rng(0).integers(0, 256, 9_000_000, dtype=np.uint8).tobytes()
    assert video.count(b"\xff\xda") > 64
    data = FORMATS["jpeg"] + video
    assert int(claimed_pixels(data)) == 37 * 23
    np.testing.assert_array_equal(decode_image(data, 37 * 23), tf.io.decode_jpeg(FORMATS["jpeg"], channels=3))


@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
def test_scans_of_any_number_of_components_count(mode):
    data = encoded(picture(mode=mode), "JPEG")  # one scan, of 1, 3 and 4 components
    begin = data.index(b"\xff\xda")
    assert int(claimed_pixels(data[:begin] + data[begin:-2] * 33 + b"\xff\xd9")) == 2 * 37 * 23


def test_texts_count_as_pixels_beyond_64():
    for count, pixels in ((64, 6), (65, 6 + 8_000_000), (200, 6 + 136 * 8_000_000)):
        assert int(claimed_pixels(png(2, 3, bytes(21), compressed_text(1)[:20] * count))) == pixels


LIMIT = 50_000_000
BOMBS = {
    **{name: data for name, data in refused().items() if re.search("000|overflow|65535|scans|unpacks", name)},
    "png with its header hidden": b"\x89PNG\r\n\x1a\n\0\0\0\0tEXt\xa7\x7f\xad\xd1" + png(60_000, 60_000, b"")[8:],
    "webp": b"RIFF\x20\0\0\0WEBPVP8X\x0a\0\0\0\0\0\0\0" + (16_382).to_bytes(3, "little") * 2 + bytes(20),
    **{name: refused()[name] for name in ("jpeg xl", "tiff", "nothing")},
}


@pytest.mark.parametrize("name", BOMBS)
def test_what_claims_too_much_is_never_decoded(name):
    with pytest.raises(tf.errors.InvalidArgumentError, match="Neither JPEG, .* or of more than 50000000 pixels"):
        decode_image(BOMBS[name], LIMIT)


# --- GIF ---


def animated(count=3, size=(20, 16), **options):
    frames = [picture(*size, "P", seed) for seed in range(count)]
    return encoded(frames[0], "GIF", save_all=True, append_images=frames[1:], **options)


def block(data, size=255):
    """Sub-blocks of a GIF, of at most `size` bytes each."""
    pieces = [data[start : start + size] for start in range(0, len(data), size)]
    return b"".join(bytes([len(piece)]) + piece for piece in pieces) + b"\0"


def with_extension(data, extension):
    """A GIF with an extension before whatever follows its table of colours."""
    table = 3 * 2 ** ((data[10] & 7) + 1) if data[10] & 0x80 else 0
    return data[: 13 + table] + extension + data[13 + table :]


XMP = b"".join(bytes([value]) for value in range(255, -1, -1))  # the magic trailer of XMP, which leads walkers home
GIFS = {
    "one frame": animated(1),
    "three frames": animated(3),
    "for ever, with pauses": animated(4, loop=0, duration=100),
    "a comment": animated(2, comment=b"c" * 700),
    "interlaced": animated(2, interlace=1),
    "large": encoded(picture(300, 200, "P"), "GIF"),
    "a long comment in small pieces": with_extension(animated(2), b"!\xfe" + block(b"x" * 900, 3)),
    "XMP, whose text is no blocks": with_extension(
        animated(2),
        b"!\xff" + block(b"XMP DataXMP")[:-1] + b"<x:xmpmeta xmlns:x='adobe:ns:meta/'/>" * 9 + b"\1" + XMP + b"\0",
    ),
    "two colours": encoded(picture(mode="1"), "GIF"),
}


@pytest.mark.always("three frames", "interlaced", "a comment")
@pytest.mark.parametrize("name", GIFS)
def test_the_first_frame_is_cut_out(name):
    data = GIFS[name]
    image = Image.open(io.BytesIO(data))
    cut, pixels = first_frame(data)
    again = Image.open(io.BytesIO(cut.numpy()))
    assert getattr(again, "n_frames", 1) == 1 and int(pixels) == image.width * image.height
    np.testing.assert_array_equal(np.asarray(again.convert("RGB")), np.asarray(image.convert("RGB")))
    np.testing.assert_array_equal(decode_image(data, LIMIT).numpy(), np.asarray(image.convert("RGB")))
    np.testing.assert_array_equal(decode_image(data).numpy(), tf.io.decode_gif(data).numpy()[0])


@pytest.fixture(scope="module")
def long_gif():
    pixels = np.random.default_rng(0).integers(0, 256, (1000, 1100), dtype=np.uint8)
    return encoded(Image.fromarray(pixels), "GIF"), pixels


def with_blocks_of(data, size):
    """A GIF of one frame with its pixels in sub-blocks of another length."""
    start = 13 + 3 * 256 + 11  # behind the colours of all, the frame's header and the width of its codes
    assert data[10] & 0x87 == 0x87 and data[start - 11 : start - 10] == b"," and not data[start - 2] & 0x80
    place, content = start, b""
    while length := data[place]:
        content += data[place + 1 : place + 1 + length]
        place += 1 + length
    return data[:start] + block(content, size) + data[place + 1 :]


@pytest.mark.parametrize("size", [255, 254, 128, 100, 1])
def test_long_gifs_of_any_length_of_blocks(long_gif, size):
    data, pixels = with_blocks_of(long_gif[0], size), long_gif[1]
    assert len(data) > 4096 * 256
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(data))), pixels)
    cut, claimed = first_frame(data)
    assert cut.numpy() == data and int(claimed) == pixels.size
    np.testing.assert_array_equal(decode_image(data, LIMIT).numpy(), pixels[..., np.newaxis].repeat(3, axis=-1))


def test_a_cut_gif_is_none():
    data = animated(1, comment=b"c" * 300)
    for length in range(len(data) - 2):
        cut, _ = first_frame(data[:length])
        assert cut.numpy() == b"", length


def test_what_comes_after_the_first_frame_is_not_looked_at():
    data = animated(3)
    cut, _ = first_frame(data)
    torn = cut.numpy()[:-1] + b"\xff" * 50
    np.testing.assert_array_equal(decode_image(torn).numpy(), decode_image(data).numpy())


def test_many_large_frames_cost_one():
    """200 frames of 2 million pixels each: what a decoder that is asked for the first alone unpacks all the same."""
    frame = encoded(Image.new("L", (2000, 1000)), "GIF")
    cut, _ = first_frame(frame)
    start = cut.numpy().index(b",", 13 + 3 * 256 if frame[10] & 0x80 else 13)
    bomb = cut.numpy()[:-1] + cut.numpy()[start:-1] * 200 + b";"
    kept, pixels = first_frame(bomb)
    assert kept.numpy() == cut.numpy() and int(pixels) == 2_000_000


def test_a_walk_that_leads_nowhere_ends():
    data = with_extension(animated(1), b"!\xfe" + b"\1x\2xx" * 10_000 + b"\0")  # no two blocks are alike
    assert first_frame(data)[0].numpy() == b""


def test_the_same_in_a_graph():
    decode = tf.function(lambda data: decode_image(data, LIMIT), input_signature=[tf.TensorSpec((), tf.string)])
    for data in (*FORMATS.values(), *GIFS.values()):
        np.testing.assert_array_equal(decode(data).numpy(), decode_image(data).numpy())
    for data in BOMBS.values():
        with pytest.raises(tf.errors.InvalidArgumentError):
            decode(data)
