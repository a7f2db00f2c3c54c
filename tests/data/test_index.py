"""What is known of images from earlier runs: nothing is opened twice, and nothing that changed is taken for known."""

import hashlib
import io
import logging
import os
import shutil
import sqlite3
import threading

import numpy as np
import pytest
from PIL import Image

from kresnets.data import check, index, load_data
from kresnets.data.check import Verdict
from kresnets.data.content import stamp_of

COUNT = 24


def _write(path, seed, turned=False):
    pixels = np.random.default_rng(seed).integers(0, 256, (12, 12, 3), dtype=np.uint8)
    exif = Image.Exif()
    exif[0x0112] = 6 if turned else 1
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, "JPEG", exif=exif)


@pytest.fixture
def folder(tmp_path):
    for number in range(COUNT):
        _write(tmp_path / "pets" / ("cat", "dog")[number % 2] / f"{number}.jpg", number, turned=number < 5)
    return tmp_path / "pets"


@pytest.fixture
def seen(monkeypatch, tmp_path):
    """What is read and what is decoded, with an index for however few images, of files of however short a time ago."""
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(index, "LEAST", 1)
    monkeypatch.setattr(index, "_SETTLED_NS", -(10**9))
    counts = {"read": 0, "decoded": 0}

    def read(content, really=check.read):
        counts["read"] += 1
        return really(content)

    def look(*arguments, really=check._look):
        counts["decoded"] += 1
        return really(*arguments)

    monkeypatch.setattr(check, "read", read)
    monkeypatch.setattr(check, "_look", look)

    def take():
        found = (counts["read"], counts["decoded"])
        counts.update(read=0, decoded=0)
        return found

    return take


def _told(data):
    return (data.contents, data.rotated, data.plain, data.bad, data.files, data.train.ids, data.test.ids)


def test_unchanged_files_are_not_opened_again(folder, seen):
    first = _told(load_data(folder))
    assert seen() == (COUNT, COUNT)
    assert _told(load_data(folder)) == first and first[1] == 5
    assert seen() == (0, 0)


def test_a_moved_folder_is_known_and_a_copied_one_is_read_but_not_decoded(folder, seen, tmp_path):
    first = _told(load_data(folder))
    seen()
    os.rename(folder, tmp_path / "moved")
    assert _told(load_data(tmp_path / "moved")) == first
    assert seen() == (0, 0)
    shutil.copytree(tmp_path / "moved", tmp_path / "copy")
    assert _told(load_data(tmp_path / "copy"))[:4] == first[:4]
    assert seen() == (COUNT, 0)


def test_a_file_that_changed_is_noticed_whatever_its_times_say(folder, seen):
    load_data(folder)
    seen()
    path = folder / "cat" / "0.jpg"
    content, stat = path.read_bytes(), path.stat()
    path.write_bytes(content[:-40] + b"\0" * 40)  # in place: the same inode, size and, in a moment, time
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    now = path.stat()
    assert (now.st_ino, now.st_size, now.st_mtime_ns) == (stat.st_ino, stat.st_size, stat.st_mtime_ns)
    found = load_data(folder, bad_images="skip")
    assert seen() == (1, 1)
    assert found.files["cat/0.jpg"].sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_file_of_a_moment_ago_is_not_trusted(folder, seen, monkeypatch):
    monkeypatch.setattr(index, "_SETTLED_NS", 3600 * 10**9)
    load_data(folder)
    seen()
    load_data(folder)
    assert seen() == (COUNT, 0)


def test_bad_images_are_looked_at_each_time(folder, seen):
    (folder / "cat" / "bad.jpg").write_bytes(b"no image")
    bad = load_data(folder, bad_images="skip").bad
    seen()
    assert load_data(folder, bad_images="skip").bad == bad and [name for name, _ in bad] == ["cat/bad.jpg"]
    assert seen() == (1, 1)


def test_rehash_reads_all_and_off_keeps_nothing(folder, seen):
    first = _told(load_data(folder, index="off"))
    assert not index.index_path().exists()
    seen()
    load_data(folder)
    seen()
    assert _told(load_data(folder, index="rehash")) == first
    assert seen() == (COUNT, 0)
    load_data(folder, index="off")
    assert seen() == (COUNT, COUNT)
    with pytest.raises(ValueError, match="`index` must be 'auto', 'rehash', 'off'. Received: 'on'"):
        load_data(folder, index="on")


def test_what_is_looked_at_otherwise_is_looked_at_anew(folder, seen):
    load_data(folder)
    seen()
    load_data(folder, channels=1)
    assert seen() == (COUNT, COUNT)


def test_what_a_colour_behind_them_changes_is_not_taken_from_another(folder, seen):
    """Black pixels, all but transparent: of one colour on black, and not on white."""
    for path in folder.rglob("*.jpg"):
        alpha = np.random.default_rng(int(path.stem)).integers(0, 256, (8, 8, 1), dtype=np.uint8)
        Image.fromarray(np.concatenate([np.zeros((8, 8, 3), np.uint8), alpha], -1)).save(path.with_suffix(".png"))
        path.unlink()
    for _ in range(2):
        assert load_data(folder, background="white").plain == ()
        assert len(load_data(folder, background="black").plain) == COUNT


def test_a_file_written_since_the_looking_began_is_not_trusted(seen, tmp_path, monkeypatch):
    """Where times have steps of a second, it may change once more within the one in which it was read."""
    monkeypatch.setattr(index, "_SETTLED_NS", 0)
    with index.Index() as known:
        _write(tmp_path / "new.jpg", 0)
        stamps = [stamp_of(str(tmp_path / "new.jpg"))]
        [verdict] = check.check_images([str(tmp_path / "new.jpg")], False)
        known.note([str(tmp_path / "new.jpg")], stamps, [verdict])
        assert known.of_files(stamps) == [None] and known.of_bytes(verdict.digest) == verdict


def test_images_in_memory_are_known_by_their_bytes(seen):
    file = io.BytesIO()
    Image.new("RGB", (9, 9), (1, 2, 3)).save(file, "PNG")
    for expected in ((1, 1), (1, 0)):
        with index.Index(check.Decoding()) as known:
            [verdict] = check.check_images([file.getvalue()], False, known=known.of_bytes)
            known.note([file.getvalue()], [None], [verdict])
        assert verdict.plain and seen() == expected


def test_other_programs_read_it(folder, seen):
    data = load_data(folder)
    with sqlite3.connect(index.index_path()) as file:
        rows = file.execute("SELECT path, bytes, sha256 FROM files").fetchall()
    assert len(rows) == COUNT
    for path, size, digest in rows:
        with open(path, "rb") as image:
            content = image.read()
        assert (size, digest) == (len(content), hashlib.sha256(content).digest())
    assert {digest.hex() for _, _, digest in rows} == {noted.sha256 for noted in data.files.values()}


def test_a_damaged_index_and_a_home_that_is_none_cost_time_alone(folder, seen, caplog, monkeypatch, tmp_path):
    caplog.set_level(logging.INFO, "kresnets")
    first = _told(load_data(folder))
    path = index.index_path()
    path.write_bytes(b"SQLite format 3\0" + os.urandom(5000))
    seen()
    assert _told(load_data(folder)) == first and seen() == (COUNT, COUNT)
    assert f"The index of images {path} is damaged, and begun anew next time" in caplog.text
    load_data(folder)
    seen()
    load_data(folder)
    assert seen() == (0, 0)
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "file"))
    assert _told(load_data(folder)) == first and seen() == (COUNT, COUNT)
    assert "cannot be used" in caplog.text


def test_fewer_images_than_it_is_worth_leave_no_file(folder, seen, monkeypatch):
    monkeypatch.setattr(index, "LEAST", COUNT + 1)
    load_data(folder)
    assert not index.index_path().exists()


def test_two_processes_at_once(folder, seen):
    """Another one writes: it is waited for, and nothing is lost."""
    load_data(folder)
    _write(folder / "cat" / "new.jpg", 100)
    other = sqlite3.connect(index.index_path(), check_same_thread=False)
    other.execute("BEGIN IMMEDIATE")
    seen()
    release = threading.Timer(1.0, other.rollback)
    release.start()
    load_data(folder)
    release.join()
    other.close()
    assert seen() == (1, 1)
    load_data(folder)
    assert seen() == (0, 0)


def test_a_kill_keeps_what_was_looked_at_before(folder, seen, monkeypatch):
    monkeypatch.setattr(check, "_KEPT", 8)

    def look(content, *rest, really=check._look):
        if looked_at["count"] == 20:
            raise RuntimeError("killed")
        looked_at["count"] += 1
        return really(content, *rest)

    looked_at = {"count": 0}
    monkeypatch.setattr(check, "WORKERS", 1)
    monkeypatch.setattr(check, "_look", look)
    with pytest.raises(RuntimeError, match="killed"):
        load_data(folder)
    looked_at["count"] = -COUNT
    seen()
    load_data(folder)
    assert seen()[0] == COUNT - 16  # two times eight were kept


def test_numbers_beyond_what_sqlite_has(seen):
    stamp = stamp_of(__file__)._replace(device=2**64 - 1, inode=2**63, mtime_ns=2**63 + 5, ctime_ns=-(2**40))
    with index.Index() as known:
        known.note([__file__], [stamp], [Verdict(None, digest=b"1" * 32)])
        assert known.of_files([stamp, stamp._replace(inode=3)]) == [Verdict(None, digest=b"1" * 32), None]


def test_verdicts_come_back_as_they_were(seen, tmp_path):
    """Every field, of images of each kind that says something in it."""
    rng = np.random.default_rng(0)
    deep = tmp_path / "a" / "deep.png"
    _write(tmp_path / "a" / "turned.jpg", 1, turned=True)
    Image.fromarray(rng.integers(0, 4000, (8, 8), dtype=np.uint16)).save(deep)
    Image.new("RGBA", (8, 8), (1, 2, 3, 4)).save(tmp_path / "a" / "clear.png")
    pages = [Image.fromarray(rng.integers(0, 256, (8, 8), dtype=np.uint8)) for _ in range(3)]
    pages[0].save(tmp_path / "a" / "pages.tif", save_all=True, append_images=pages[1:])
    paths = sorted(map(str, (tmp_path / "a").iterdir()))
    stamps = [stamp_of(path) for path in paths]
    verdicts = check.check_images(paths, False)
    with index.Index(check.Decoding()) as known:
        known.note(paths, stamps, verdicts)
        assert known.of_files(stamps) == verdicts
        assert [known.of_bytes(verdict.digest) for verdict in verdicts] == verdicts
    told = {
        name for verdict in verdicts for name, value in vars(verdict).items() if value != getattr(Verdict(None), name)
    }
    assert told == {"digest", "largest", "pages", "rotated", "clear", "plain"}
