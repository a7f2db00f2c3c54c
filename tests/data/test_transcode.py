"""TIFF, HEIC and AVIF in training and in `predict`, against Pillow, pillow-heif and tifffile."""

import io
import sys

import numpy as np
import pytest
from commands import ask
from odd_files import encoded, picture
from PIL import Image, features

from kresnets.data import check_image, decode_image, load_data
from kresnets.data.transcode import as_png

PIXELS = picture(60, 80)
needs_avif = pytest.mark.skipif(not features.check("avif"), reason="This Pillow reads no AVIF.")


def heic(pixels, **how):
    pillow_heif = pytest.importorskip("pillow_heif", reason="the extra `images` is not installed")
    file = io.BytesIO()
    pillow_heif.from_pillow(Image.fromarray(pixels)).save(file, **how)
    return file.getvalue()


def seen(data):
    return decode_image(as_png(data)[0]).numpy()


@pytest.mark.parametrize("compression", [None, "tiff_lzw", "tiff_adobe_deflate", "packbits"])
def test_a_tiff_keeps_its_values(compression):
    np.testing.assert_array_equal(seen(encoded(PIXELS, "TIFF", compression=compression)), PIXELS)


def test_each_orientation_of_a_tiff_is_upright():
    ways = [
        PIXELS, PIXELS[:, ::-1], PIXELS[::-1, ::-1], PIXELS[::-1], PIXELS.transpose(1, 0, 2), np.rot90(PIXELS, -1),
        PIXELS.transpose(1, 0, 2)[::-1, ::-1], np.rot90(PIXELS),
    ]  # fmt: skip
    for orientation, wanted in enumerate(ways, start=1):
        np.testing.assert_array_equal(seen(encoded(PIXELS, "TIFF", tiffinfo={274: orientation})), wanted)


def test_a_tiff_of_16_bits_is_as_deep_as_a_png_of_them():
    values = (np.arange(4800) % 4000).astype("uint16").reshape(60, 80)
    verdict = check_image(encoded(values, "TIFF"))
    assert (verdict.reason, verdict.largest) == (None, 3999)


def test_alpha_and_pages_are_noticed():
    file, first = io.BytesIO(), Image.fromarray(picture(60, 80, 4))
    first.save(file, "TIFF", save_all=True, append_images=[first] * 2)
    verdict = check_image(file.getvalue())
    assert (verdict.reason, verdict.clear, verdict.pages) == (None, True, 3)
    wanted = Image.alpha_composite(Image.new("RGBA", first.size, "white"), first).convert("RGB")
    np.testing.assert_array_equal(seen(file.getvalue()), wanted)


def test_what_has_a_range_that_nobody_says_is_refused():
    for mode in ("F", "I"):
        file = io.BytesIO()
        Image.fromarray(PIXELS).convert(mode).save(file, "TIFF")
        told = "a TIFF of 32 bits a colour, which is not read: save it as 16-bit PNG"
        assert check_image(file.getvalue()).reason == told


@needs_avif
@pytest.mark.parametrize("orientation", [1, 6, 7])
def test_avif_is_what_pillow_decodes(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(PIXELS, "AVIF", exif=exif, quality=95)
    shape = (60, 80, 3) if orientation == 1 else (80, 60, 3)
    assert seen(data).shape == shape and check_image(data).reason is None
    assert check_image(data[: len(data) // 2]).reason == "damaged or cut off (AVIF)"


def test_heic_is_what_libheif_decodes():
    data = heic(PIXELS, quality=95)
    import pillow_heif

    wanted = np.asarray(pillow_heif.open_heif(io.BytesIO(data)).to_pillow().convert("RGB"))
    np.testing.assert_array_equal(seen(data), wanted)
    assert check_image(data[: len(data) // 2]).reason == "damaged or cut off (HEIC)"


def test_heic_names_the_extra_that_it_needs(monkeypatch):
    data = b"\0\0\0\x18ftypheic" + bytes(40)
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    told = 'HEIC, which needs `pip install "kresnets[images]"`; or save it as JPEG or PNG'
    assert check_image(data).reason == told


@pytest.mark.everything
@needs_avif
def test_a_folder_of_them_is_learned_and_asked(tmp_path, capsys):
    """Through the command, from files to answers: the same as of their pixels in PNG."""
    for label, kinds in (("dark", ("TIFF", "PNG", "AVIF")), ("light", ("TIFF", "JPEG", "AVIF"))):
        (tmp_path / "photos" / label).mkdir(parents=True)
        for number in range(9):
            pixels = (picture(40, 40) // 3 + (170 if label == "light" else 0) + number).astype("uint8")
            kind = kinds[number % 3]
            (tmp_path / "photos" / label / f"{number}.{kind.lower()}").write_bytes(encoded(pixels, kind))
    data = load_data(tmp_path / "photos", progress=False)
    index = next(i for i, name in enumerate(data.train.ids) if name.endswith(".tiff"))
    np.testing.assert_array_equal(
        data.train.pixels(40, [index])[0], np.asarray(Image.open(tmp_path / "photos" / data.train.ids[index]))
    )
    options = "--model CifarResNet8 --weights none --size 24 --batch-size 8 --epochs 1 --dtype float32".split()
    assert ask("finetune", "--data", tmp_path / "photos", "--out", tmp_path / "run", *options) == 0
    tiff = tmp_path / "photos" / "dark" / "0.tiff"
    Image.open(tiff).save(tmp_path / "same.png")
    (tmp_path / "cut.tiff").write_bytes(tiff.read_bytes()[:300])
    capsys.readouterr()
    files = [tiff, tmp_path / "same.png", tmp_path / "cut.tiff"]
    assert ask("predict", tmp_path / "run", *files, "--top", 1) == 1
    lines = [line.split(maxsplit=1)[1] for line in capsys.readouterr().out.splitlines()[1:]]
    assert lines[0] == lines[1] and lines[2] == "no image that can be decoded: damaged or cut off (TIFF)"
