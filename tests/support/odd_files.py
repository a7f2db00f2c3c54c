"""Files as people send them, and what they hold: the common and the odd, the damaged and the hostile."""

import functools
import io
import struct
import zipfile
import zlib

import numpy as np
import tensorflow as tf
from PIL import Image

SIZE = 32  # of the networks that are asked about them


def picture(height, width, channels=3):
    """Smooth colours with some noise, as photographs have them."""
    random = np.random.default_rng(height * width)
    coarse = random.integers(0, 256, (4, 5, channels)).astype("float32")
    smooth = tf.image.resize(coarse, (height, width), "bicubic").numpy()
    return np.clip(smooth + random.normal(0, 4, smooth.shape), 0, 255).astype("uint8")


def encoded(pixels, format, mode=None, **options):
    file = io.BytesIO()
    image = Image.fromarray(pixels.squeeze())
    (image.convert(mode) if mode else image).save(file, format, **options)
    return file.getvalue()


def by_pillow(data):
    image = Image.open(io.BytesIO(data)).convert("RGBA")
    return np.asarray(Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB"))


def by_jpeg(data):
    """Decoders of JPEG differ by a grey level, so there TensorFlow's own is the witness."""
    return tf.io.decode_jpeg(data, channels=3).numpy()


def two_frame_gif():
    first, second = (Image.fromarray(picture(side, 40)).convert("P") for side in (50, 50))
    second = Image.eval(second, lambda value: 255 - value)
    file = io.BytesIO()
    first.save(file, "GIF", save_all=True, append_images=[second])
    return file.getvalue()


def turned(orientation, kind="JPEG", **how):
    """A picture of 60 x 80 pixels with an EXIF orientation."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    return encoded(picture(60, 80), kind, exif=exif, **how)


def grey(levels):
    return np.repeat(levels.astype("uint8")[..., np.newaxis], 3, axis=-1)


LEVELS = picture(40, 50, 1)[..., 0]
FILES = {  # name -> bytes, pixels
    "png": (data := encoded(picture(40, 64), "PNG"), by_pillow(data)),
    "png of the model's size": (data := encoded(picture(SIZE, SIZE), "PNG"), by_pillow(data)),
    "grey png": (data := encoded(picture(40, 30, 1), "PNG"), by_pillow(data)),
    "16-bit png": (encoded((LEVELS.astype("uint16") << 8) | 0xC3, "PNG"), grey(LEVELS)),
    "palette png": (data := encoded(picture(40, 30), "PNG", mode="P"), by_pillow(data)),
    "png with alpha": (data := encoded(picture(40, 30, 4), "PNG"), by_pillow(data)),
    "bmp": (data := encoded(picture(64, 40), "BMP"), by_pillow(data)),
    "gif": (data := encoded(picture(64, 40), "GIF"), by_pillow(data)),
    "animated gif": (data := two_frame_gif(), by_pillow(data)),
    "jpeg": (data := encoded(picture(300, 200), "JPEG"), by_jpeg(data)),
    "grey jpeg": (data := encoded(picture(90, 100, 1), "JPEG"), by_jpeg(data)),
    "progressive jpeg": (data := encoded(picture(90, 100), "JPEG", progressive=True), by_jpeg(data)),
    "jpeg with an orientation": (data := turned(6), np.rot90(by_jpeg(data), -1)),
    "1x1": (data := encoded(picture(1, 1), "PNG"), by_pillow(data)),
    "one line": (data := encoded(picture(3, 500), "PNG"), by_pillow(data)),
    "6000x4000": (data := encoded(picture(4000, 6000), "JPEG"), by_jpeg(data)),
}


# --- the parts of files ---


def chunk(kind, data):
    """A chunk of a PNG."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width, height, rows, extra=b"", depth=8, colour=2, interlaced=0):
    """A PNG of rows that are filtered already; `extra` are chunks before the pixels."""
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, interlaced)
    chunks = chunk(b"IHDR", header) + extra + chunk(b"IDAT", zlib.compress(rows, 9)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunks


def interlaced_png(pixels):
    """Adam7, which Pillow reads and does not write: origin and step of each of the seven passes."""
    passes = ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1))
    parts = [pixels[top::down, left::right] for top, left, down, right in passes]
    rows = b"".join(b"\0" + row.tobytes() for part in parts if part.size for row in part)
    return png(*pixels.shape[1::-1], rows, interlaced=1)


def compressed_text(count):
    """Chunks of a PNG that unpack to 8 MB each."""
    return chunk(b"zTXt", b"c\0\0" + zlib.compress(bytes(7_900_000), 9)) * count


def many_scans(side, count):
    """A progressive JPEG whose last scan comes again and again, a few hundred bytes each time."""
    data = encoded(np.full((side, side), 99, "uint8"), "JPEG", progressive=True)
    return data[:-2] + data[data.rindex(b"\xff\xda") : -2] * count + b"\xff\xd9"


def from_the_top(bmp):
    """A BMP whose first row is its top, which a negative height says."""
    height = struct.unpack_from("<i", bmp, 22)[0]
    pixels = by_pillow(bmp)[..., ::-1]
    assert pixels.shape[1] % 4 == 0  # no padding at the ends of the rows
    return bmp[:22] + struct.pack("<i", -height) + bmp[26:54] + pixels.tobytes()


def zipped(name, data):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr(name, data)
    return file.getvalue()


def a_line(height, width):
    """A picture of 20000 to 2, and of its middle what the centre square is made of."""
    pixels = picture(height, width)
    middle = [slice(side // 2 - 10, side // 2 + 10) if side > 20 else slice(None) for side in (height, width)]
    return encoded(pixels, "PNG"), pixels[*middle]


@functools.cache
def odd():
    """Return name -> bytes, pixels of files that are answered: what is not in `FILES`, because it is rarer."""
    photograph = picture(40, 64)
    alpha, small = picture(40, 32, 4), Image.fromarray(picture(40, 32)).quantize(16)
    text = chunk(b"tEXt", b"Title\0none") + compressed_text(1)
    one = encoded(picture(1, 1), "JPEG")
    jpegs = {
        "cmyk jpeg": encoded(picture(90, 100), "JPEG", mode="CMYK"),
        "jpeg without subsampling": encoded(photograph, "JPEG", subsampling=0),
        "jpeg with restart markers": encoded(photograph, "JPEG", restart_marker_rows=1),
        "jpeg with a long comment": encoded(photograph, "JPEG", comment=b"x" * 60_000),
        "jpeg with more behind it": encoded(photograph, "JPEG") + b"trailing" * 99,
        "progressive cmyk jpeg": encoded(picture(90, 100), "JPEG", mode="CMYK", progressive=True),
        "1x1 jpeg": one,
    }
    pillows = {
        "interlaced png": interlaced_png(photograph),
        "grey png with alpha": encoded(photograph, "PNG", mode="LA"),
        "1-bit png": encoded(photograph, "PNG", mode="1"),
        "png with a profile": encoded(photograph, "PNG", icc_profile=bytes(5000)),
        "png with more behind it": encoded(photograph, "PNG") + b"trailing" * 99,
        "grey bmp": encoded(photograph, "BMP", mode="L"),
        "bmp from the top": from_the_top(encoded(photograph, "BMP")),
        "interlaced gif": encoded(np.asarray(small.convert("RGB")), "GIF", mode="P", interlace=1),
        "gif of two colours": encoded(photograph, "GIF", mode="1"),
    }
    webp = {"webp": encoded(photograph, "WEBP", lossless=True)} if hasattr(tf.raw_ops, "DecodeWebP") else {}
    flat = np.full((1, 1, 3), 120, "uint8")  # of a picture of one colour any part is the whole
    return (
        {name: (data, by_jpeg(data)) for name, data in jpegs.items()}
        | {name: (data, by_pillow(data)) for name, data in (pillows | webp).items()}
        | {
            "bmp with alpha": (encoded(alpha, "BMP"), alpha[..., :3]),
            "palette png with transparency": (
                data := encoded(np.asarray(small.convert("RGB")), "PNG", mode="P", transparency=3),
                by_pillow(data),
            ),
            "png with texts": ((plain := encoded(photograph, "PNG"))[:33] + text + plain[33:], photograph),
            "20000x2": a_line(2, 20_000),
            "2x20000": a_line(20_000, 2),
            "147 MB in 140 kB": (png(7000, 7000, (b"\0" + bytes([120]) * 21_000) * 7000), flat),
        }
    )


@functools.cache
def refused():
    """Return name -> bytes of files that are no picture, or none to decode."""
    whole = {name: FILES[name][0] for name in ("png", "16-bit png", "jpeg", "progressive jpeg", "bmp", "gif")}
    cut = {f"{name}, cut to {share}": data[: int(share * len(data))] for name, data in whole.items() for share in CUTS}
    gif_head = b"GIF89a" + struct.pack("<HHBBB", 9, 9, 0x80, 0, 0) + bytes(6)
    jpeg = encoded(np.zeros((8, 8), "uint8"), "JPEG")
    sides = jpeg.index(b"\xff\xc0") + 5
    webp = encoded(picture(8, 8), "WEBP", save_all=True, append_images=[Image.new("RGB", (8, 8))])
    still = {} if hasattr(tf.raw_ops, "DecodeWebP") else {"webp": encoded(picture(8, 8), "WEBP")}
    return (
        cut
        | still
        | {
            "nothing": b"",
            "a zero": b"\0",
            "zeros": bytes(5000),
            "text": b"no image",
            "html": b"<!DOCTYPE html><html><body><img src='a.jpg'></body></html>",
            "svg": b"<svg xmlns='http://www.w3.org/2000/svg'><rect width='9' height='9'/></svg>",
            "zip": zipped("picture.png", whole["png"]),
            "tiff": encoded(picture(8, 8), "TIFF"),
            "ico": encoded(picture(32, 32), "ICO"),
            "pdf": b"%PDF-1.7\n" + bytes(100),
            "ppm": encoded(picture(8, 8), "PPM"),
            "jpeg xl": b"\xff\x0a" + bytes(40),
            "heic": b"\0\0\0\x18ftypheic" + bytes(40),
            "animated webp": webp,
            "bmp of 1 bit": encoded(picture(8, 8), "BMP", mode="1"),
            "magic of jpeg": b"\xff\xd8\xff",
            "magic of png": b"\x89PNG\r\n\x1a\n",
            "magic of gif": b"GIF89a",
            "magic of bmp": b"BM",
            "a jpeg that says png": b"\x89PNG\r\n\x1a\n" + whole["jpeg"],
            "png of 60000x60000": png(60_000, 60_000, bytes(100)),
            "png whose pixels overflow": png(2**32 - 1, 2**32 - 1, bytes(100)),
            "jpeg of 65000x65000": jpeg[:sides] + struct.pack(">HH", 65_000, 65_000) + jpeg[sides + 4 :],
            "bmp of 60000x60000": whole["bmp"][:18] + struct.pack("<ii", 60_000, -60_000) + whole["bmp"][26:],
            "gif of 65535x65535": gif_head + b"," + struct.pack("<HHHHB", 0, 0, 65_535, 65_535, 0),
            "jpeg of 2000 scans": many_scans(2000, 2000),
            "png that unpacks to 800 MB of text": png(8, 8, bytes(25 * 8), compressed_text(100)),
        }
    )


CUTS = (0.02, 0.1, 0.5, 0.9, 0.97)
