"""Images that are decoded once and kept: the same pixels as those served, and nothing stale, half or in the way."""

import errno
import io
import logging
import os
import shutil
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image
from places import APPS

import kresnets
from kresnets.data import Part, decoded, epoch_variable, load_data

SIZE, CROP = 24, 0.875


def picture(number, quality=90, width=96, height=72):
    """Return a JPEG of smooth colours with noise, another one for every number."""
    random = np.random.default_rng(number)
    colours = Image.fromarray(random.integers(0, 256, (3, 4, 3), dtype=np.uint8)).resize((width, height), Image.BICUBIC)
    noise = random.integers(-9, 10, (height, width, 1))
    stream = io.BytesIO()
    Image.fromarray(np.clip(np.asarray(colours, int) + noise, 0, 255).astype(np.uint8)).save(
        stream, "JPEG", quality=quality
    )
    return stream.getvalue()


@pytest.fixture
def folder(tmp_path):
    for number in range(16):
        path = tmp_path / "photos" / "ab"[number % 2] / f"{number}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(picture(number))
    return tmp_path / "photos"


@pytest.fixture
def decodings(monkeypatch):
    """Count the images that are decoded to be kept."""
    counts = []
    decode_into = Part.decode_into

    def counting(self, array, *args, **kwargs):
        counts.append(len(array))
        decode_into(self, array, *args, **kwargs)

    monkeypatch.setattr(Part, "decode_into", counting)
    return counts


def part_of(folder):
    files = sorted(folder.rglob("*.jpg"))
    names = [file.relative_to(folder).as_posix() for file in files]
    return Part(names, [name[0] == "b" for name in names], [str(file) for file in files], "ab", progress=False)


def drawn(dataset):
    return [tuple(part.tobytes() for part in batch) for batch in dataset.as_numpy_iterator()]


def images(part, cache, size=SIZE):
    return np.concatenate([x for x, _ in part.batches(5, size, CROP, cache=cache).as_numpy_iterator()])


def litter(folder):
    return sorted(path.name.split("-")[0] for path in folder.iterdir())


def test_what_is_kept_is_what_is_served(folder, tmp_path):
    """The exported model, whose classes are the pixels and whose scores tell them, answers alike to a file and to what
    is kept of it, to the last bit."""
    inputs, size = keras.Input((16, 16, 3)), 16
    pixels = keras.layers.Dense(size * size * 3, "softmax", kernel_initializer="identity")
    model = keras.Model(inputs, pixels(keras.layers.Flatten()(inputs)))
    path = kresnets.export_saved_model(model, tmp_path / "model", preprocess="tf", top=size * size * 3)
    served = tf.saved_model.load(path).signatures
    answer = served["serving_default"](image_bytes=[file.read_bytes() for file in sorted(folder.rglob("*.jpg"))])
    batches = part_of(folder).batches(16, size, cache=tmp_path / "kept")
    assert litter(tmp_path / "kept") == ["images"]
    expected = served["predict_tensor"](images=next(iter(batches))[0])["probabilities"].numpy()
    assert len(np.unique(expected[0])) > 700
    places = answer["labels"].numpy().astype(int)
    np.testing.assert_array_equal(answer["scores"], np.take_along_axis(expected, places, axis=1))


@pytest.mark.everything
def test_batches_are_the_same_bit_by_bit(folder, tmp_path, monkeypatch):
    epoch = epoch_variable()
    caches = {"never": False, "in memory": "auto", "in a file": tmp_path / "kept", "found": tmp_path / "kept"}
    seen = {}
    for name, cache in caches.items():
        shuffled = part_of(folder).batches(5, SIZE, CROP, shuffle_seed=3, epoch=epoch, cache=cache)
        seen[name] = [drawn(shuffled) for number in (0, 1, 0) if epoch.assign(number) is not None]
        seen[name].append(drawn(shuffled.kresnets_rows.natural()))
        assert shuffled.kresnets_rows.cache == cache and int(shuffled.cardinality()) == 4
    assert all(found == seen["never"] for found in seen.values())
    assert seen["never"][0] == seen["never"][2] != seen["never"][1]


def test_a_file_is_found_by_a_later_run_and_only_for_the_same_images(folder, tmp_path, decodings):
    kept = tmp_path / "kept"

    def check(expected, size=SIZE):
        part = part_of(folder)
        np.testing.assert_array_equal(images(part, kept, size), images(part_of(folder), False, size))
        assert decodings == expected
        decodings.clear()

    check([16])
    check([])
    check([16], size=20)
    changed = folder / "a" / "4.jpg"
    old = changed.stat()
    # Another picture of the same length and time, as an unpacked archive may leave it.
    changed.write_bytes(picture(99, quality=50).ljust(old.st_size, b"\0"))
    os.utime(changed, ns=(old.st_atime_ns, old.st_mtime_ns))
    assert changed.stat().st_size == old.st_size
    check([16])
    changed.rename(folder / "b" / "4.jpg")
    check([16])
    changed.write_bytes(picture(5))
    check([17])
    check([])


def test_what_a_killed_process_left_is_neither_used_nor_left(folder, tmp_path, decodings):
    kept = tmp_path / "kept"
    images(part_of(folder), kept)
    (whole,) = kept.iterdir()
    content = whole.read_bytes()
    half = kept / f".tmp-{2**22 + 1}-{whole.name.removeprefix('images-')}"
    whole.rename(half)
    assert images(part_of(folder), kept).any() and decodings == [16, 16]
    assert list(kept.iterdir()) == [whole] and whole.read_bytes() == content
    whole.write_bytes(content[:-1000])  # cut by a copy
    assert images(part_of(folder), kept).any() and decodings == [16] * 3 and whole.read_bytes() == content


def test_a_damaged_image_leaves_nothing_half_written(folder, tmp_path):
    bad = folder / "a" / "4.jpg"
    bad.write_bytes(picture(4)[:-300])
    with pytest.raises(ValueError, match=r"1 of 16 images cannot be used: a/4.jpg \(damaged or cut off \(JPEG\)\)"):
        load_data(folder, progress=False)
    data = load_data(folder, bad_images="skip", progress=False)
    assert data.bad == (("a/4.jpg", "damaged or cut off (JPEG)"),)
    assert len(images(data.train, tmp_path / "kept")) == len(data.train)
    for cache in (tmp_path / "other", "auto", False):  # damaged after it was looked at
        with pytest.raises(tf.errors.InvalidArgumentError):
            images(part_of(folder), cache)
    assert not any((tmp_path / "other").iterdir())


def test_only_large_images_go_to_a_file(folder, tmp_path, decodings, monkeypatch, caplog):
    caplog.set_level(logging.INFO, "kresnets")
    kept = tmp_path / "kept"
    assert decoded.is_large(part_of(folder), 41) and not decoded.is_large(part_of(folder), 42)  # 96 x 72 = 4 x 41.6²
    in_memory = Part(["x"], [0], [picture(0)], "ab")
    assert decoded.is_large(in_memory, 41) and not decoded.is_large(in_memory, 42)
    np.testing.assert_array_equal(images(in_memory, tmp_path / "bytes"), images(in_memory, False))
    assert litter(tmp_path / "bytes") == ["images"] and decodings.pop() == 1
    images(part_of(folder), kept, size=42)
    assert not kept.exists() and decodings == [16] and not caplog.records
    monkeypatch.setattr(decoded, "memory_limit", lambda: 16 * 42 * 42 * 12 - 1)
    for cache, hint in (("auto", "; cache=FOLDER keeps large ones there."), (kept, ".")):
        images(part_of(folder), cache, size=42)
        assert caplog.messages.pop().endswith(f"every epoch decodes them{hint}")
    images(part_of(folder), False, size=42)
    assert not kept.exists() and decodings == [16] and len(caplog.records) == 2


def test_what_a_part_keeps_serves_all_who_ask(folder, tmp_path, decodings):
    part = part_of(folder)
    expected = part_of(folder).pixels(SIZE, crop=CROP)
    part.batches(5, SIZE, CROP, cache=tmp_path / "kept")
    decodings.clear()
    np.testing.assert_array_equal(images(part, "auto"), expected)
    np.testing.assert_array_equal(part.pixels(SIZE, crop=CROP), expected)
    found = part.pixels(SIZE, [9, 2], CROP)
    np.testing.assert_array_equal(found, expected[[9, 2]])
    found[:] = 0  # a copy
    np.testing.assert_array_equal(part.pixels(SIZE, crop=CROP), expected)
    assert not decodings


def test_folders_that_cannot_be_used_are_told_in_a_sentence(folder, tmp_path, monkeypatch, decodings):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="^The cache folder .*/file cannot be used .File exists.: give another one, or"):
        images(part_of(folder), tmp_path / "file")

    def refuse(*args, **kwargs):
        raise OSError(errno.EACCES, os.strerror(errno.EACCES))

    with monkeypatch.context() as patch:
        patch.setattr(np.lib.format, "open_memmap", refuse)  # root may write into any folder
        with pytest.raises(OSError, match="/kept cannot be used .Permission denied.: give another one, or leave"):
            images(part_of(folder), tmp_path / "kept")
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=9000))
    with pytest.raises(
        OSError, match="^The images take 111 kB, but .*full has 9 kB left: make room, .* .--cache off.[.]$"
    ):
        images(part_of(folder), tmp_path / "full")
    assert not decodings and not any((tmp_path / "full").iterdir())
    for cache in (True, None, "", 3):
        with pytest.raises(ValueError, match="`cache` must be 'auto', False, or a folder. Received: cache="):
            images(part_of(folder), cache)


@pytest.mark.everything
@pytest.mark.slow
def test_the_bench_of_the_pipeline(monkeypatch):
    monkeypatch.syspath_prepend(APPS)
    from bench import pipeline

    monkeypatch.setattr(pipeline, "_SECONDS", 0.1)
    found = pipeline.measure("CifarResNet20", images=6, width=400, height=300, size=32, batch_size=2, rounds=1)
    assert found["ratio"] == found["later epochs"] / found["training step"] and min(found.values()) > 0
    assert found["later epochs"] > found["decoded in every epoch"]


TOGETHER = """
import pathlib, sys, time
import numpy as np
from kresnets.data import Part

files = sorted(pathlib.Path(sys.argv[1]).rglob("*.jpg"))
part = Part([file.name for file in files], [0] * len(files), [str(file) for file in files], "ab", progress=False)
decode_into = part.decode_into

def slowly(array, *args, **kwargs):  # until the other one has begun as well
    while len(list(pathlib.Path(sys.argv[2]).glob(".tmp-*"))) < 2:
        time.sleep(0.01)
    decode_into(array, *args, **kwargs)

part.decode_into = slowly
dataset = part.batches(5, 24, cache=sys.argv[2])
print(sum(float(x.sum(dtype="float64")) for x, _ in dataset.as_numpy_iterator()))
"""


@pytest.mark.everything
def test_two_processes_at_once(folder, tmp_path):
    kept = tmp_path / "kept"
    command = [sys.executable, "-c", TOGETHER, str(folder), str(kept)]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    sums = [process.communicate(timeout=120)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0] and sums[0] == sums[1] and float(sums[0]) > 0
    assert litter(kept) == ["images"]
