"""Images in files of many, written by WebDataset and by Hugging Face's `datasets` (tests/golden/make_shards.py)."""

import io
import pathlib
import shutil
import tarfile

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from kresnets.data import index, load_data, shards, tfds_source
from kresnets.data.content import Piece, packed, read, reader, unpacked
from kresnets.data.sources import list_source

SHARDS = pathlib.Path(__file__).parent.parent / "golden" / "shards"


@pytest.fixture(autouse=True)
def home(monkeypatch, tmp_path_factory):
    monkeypatch.setenv("KERAS_HOME", str(tmp_path_factory.mktemp("home")))


@pytest.fixture
def tars(tmp_path):
    for path in SHARDS.glob("*.tar"):
        shutil.copy(path, tmp_path / path.name)
    return tmp_path


def _members(path, suffix):
    """What Python's own reader says."""
    with tarfile.open(path) as file:
        return {one.name: file.extractfile(one).read() for one in file if one.name.endswith(suffix)}


def test_tar_files_are_read_in_place(tars):
    data = load_data(tars)
    assert (len(data.test), len(data.train) + len(data.validation)) == (6, 18)  # as the files are called
    assert data.class_names == ("0", "1", "2")
    images = _members(tars / "birds-test-000000.tar", ".jpg")
    labels = _members(tars / "birds-test-000000.tar", ".cls")
    pixels = data.test.pixels(10)
    for row, name in enumerate(data.test.ids):
        inside = name.partition("/")[2]
        assert data.class_names[data.test.labels[row]] == labels[inside.replace(".jpg", ".cls")].decode()
        assert data.test.image_bytes(row) == images[inside]
        with Image.open(io.BytesIO(images[inside])) as image:
            whole = np.asarray(image.convert("RGB"), np.float32)
        np.testing.assert_allclose(pixels[row], whole[:, 1:-1], atol=4)  # TensorFlow's JPEG decoder and Pillow's
    batches = data.test.batches(4, 10, cache=False)
    np.testing.assert_array_equal(np.concatenate([images for images, _ in batches]), pixels)


@pytest.mark.parametrize("columns", [["label=species"], {"label": "Species"}])
def test_classes_in_json(tars, columns):
    listing = list_source(tars, columns=columns)
    assert listing.class_names == ("jay", "owl", "wren")
    assert {item.label for item in listing.parts["train"]} == {0, 1, 2}


def test_parquet_has_the_names_of_classes(tmp_path):
    import pyarrow.parquet

    (tmp_path / "data").mkdir()
    shutil.copy(SHARDS / "birds.parquet", tmp_path / "data" / "train-00000-of-00001.parquet")
    data = load_data(tmp_path)
    assert data.class_names == ("jay", "owl", "wren")
    table = pyarrow.parquet.read_table(SHARDS / "birds.parquet").to_pylist()
    found = {}
    for part in (data.train, data.validation, data.test):
        found |= {name: (part.labels[row], part.image_bytes(row)) for row, name in enumerate(part.ids)}
    names = ["wren", "owl", "jay"]  # of make_shards.py
    for row in table:
        [name] = [name for name in found if name.endswith(f"-{row['image']['path']}")]
        assert data.class_names[found[name][0]] == names[row["label"]]
        assert found[name][1] == row["image"]["bytes"]


def test_an_archive_beside_class_folders_is_none_of_the_images(tmp_path):
    for name in ("cat", "dog"):
        (tmp_path / name).mkdir()
        for number in range(3):
            Image.new("RGB", (8, 8), (number, 9, 9)).save(tmp_path / name / f"{number}.png")
    shutil.copy(SHARDS / "birds-test-000000.tar", tmp_path / "photographs.tar")
    assert list_source(tmp_path).class_names == ("cat", "dog")


def test_a_listing_is_kept_until_a_shard_changes(tars, monkeypatch):
    monkeypatch.setattr(index, "LEAST", 1)
    first = list_source(tars)
    opened = []
    really = tarfile.open
    monkeypatch.setattr(tarfile, "open", lambda *a, **k: opened.append(a) or really(*a, **k))
    assert list_source(tars) == first and not opened
    with really(tars / "birds-train-000000.tar", "a") as file:
        for name, content in (
            ("new.jpg", _members(tars / "birds-test-000000.tar", ".jpg")["s0000.jpg"]),
            ("new.cls", b"1"),
        ):
            told = tarfile.TarInfo(name)
            told.size = len(content)
            file.addfile(told, io.BytesIO(content))
    assert len(list_source(tars).parts["train"]) == len(first.parts["train"]) + 1 and opened


def _tar(path, members):
    with tarfile.open(path, "w") as file:
        for name, content in members.items():
            told = tarfile.TarInfo(name)
            told.size = len(content)
            file.addfile(told, io.BytesIO(content))


def test_what_is_wrong_with_shards_is_said(tmp_path):
    path = tmp_path / "a.tar"
    _tar(path, {"1.jpg": b"x", "2.jpg": b"y", "2.png": b"y", "2.cls": b" "})
    with pytest.raises(ValueError, match=r"2 has two images(.|\n)*2.cls says no class(.|\n)*1 has no .cls"):
        list_source(path)
    path.write_bytes(b"no tar" * 200)
    with pytest.raises(ValueError, match="is no tar file, or compressed or damaged"):
        list_source(path)
    _tar(path, {"README.txt": b"x"})
    with pytest.raises(ValueError, match="has no image: a.tar hold none"):
        list_source(path)
    shutil.copy(SHARDS / "birds.parquet", tmp_path / "b.parquet")
    with pytest.raises(ValueError, match="files of two kinds, a.tar and b.parquet"):
        list_source(tmp_path)
    (tmp_path / "pets" / "data").mkdir(parents=True)
    shutil.copy(path, tmp_path / "pets" / "data" / "old.tar")
    for name in ("cat", "dog"):
        (tmp_path / "pets" / name).mkdir()
    assert shards.shards_in(tmp_path / "pets") == []
    with pytest.raises(ValueError, match="its columns are image, label: name them"):
        list_source(tmp_path / "b.parquet", columns=["label=species"])
    with pytest.raises(ValueError, match="of .tar files names one field, such as label=species"):
        list_source(tmp_path / "a.tar", columns=["label=species,colour"])
    with pytest.raises(ValueError, match="have one class each, and task='numbers'"):
        list_source(tmp_path / "b.parquet", task="numbers")
    (tmp_path / "c.parquet").write_bytes(b"PAR1" * 9)
    with pytest.raises(ValueError, match="has Parquet files that cannot be read"):
        list_source(tmp_path / "c.parquet")


def test_no_member_leads_out_of_its_tar(tmp_path):
    """Links, devices and names that climb are nothing that is opened: an image is bytes of the tar file itself."""
    secret = tmp_path / "secret.jpg"
    secret.write_bytes(b"secret")
    path = tmp_path / "in" / "a.tar"
    path.parent.mkdir()
    with tarfile.open(path, "w") as file:
        for name, kind in (
            ("1.jpg", tarfile.SYMTYPE),
            ("2.jpg", tarfile.LNKTYPE),
            ("../../secret.jpg", tarfile.REGTYPE),
        ):
            told = tarfile.TarInfo(name)
            told.type, told.linkname = kind, str(secret)
            told.size = 4 if kind == tarfile.REGTYPE else 0
            file.addfile(told, io.BytesIO(b"mine"))
        told = tarfile.TarInfo("../../secret.cls")
        told.size = 1
        file.addfile(told, io.BytesIO(b"0"))
    [[item]] = list_source(path).parts.values()
    assert read(item.content) == b"mine"


def test_large_tfds_data_is_read_from_its_shards(monkeypatch):
    """The same images, labels and batches as from memory."""
    pytest.importorskip("elpv_dataset", reason="kresnets[elpv] is an extra")
    memory = load_data("elpv/mono")
    monkeypatch.setattr(tfds_source, "IN_MEMORY", 0)
    for _ in range(2):  # listed, and known
        pieces = load_data("elpv/mono")
        assert isinstance(unpacked(pieces.train._kind, pieces.train._contents[0].numpy()), Piece)
        assert pieces.contents == memory.contents and pieces.train.ids == memory.train.ids
        assert pieces.train.labels.tolist() == memory.train.labels.tolist()
    batches = [part.batches(32, 48, shuffle_seed=3, cache=False).take(2) for part in (memory.train, pieces.train)]
    for (images, labels), (others, other_labels) in zip(*batches, strict=True):
        np.testing.assert_array_equal(images, others)
        np.testing.assert_array_equal(labels, other_labels)
    records = tf.data.TFRecordDataset(tfds_source.prepare("elpv/mono").info.splits["train"].filepaths)
    offsets = [row for path in tfds_source.prepare("elpv/mono").info.splits["train"].filepaths
               for row in tfds_source._records(path)]  # fmt: skip
    assert [len(record.numpy()) for record in records] == [length for _, length in offsets]


def test_a_piece_that_was_cut_off_is_said(tmp_path):
    (tmp_path / "a 1.bin").write_bytes(b"0123456789")
    piece = Piece(str(tmp_path / "a 1.bin"), 4, 3)
    assert read(piece) == b"456" and unpacked(Piece, packed(piece)) == piece
    assert reader(Piece)(tf.constant(packed(piece))).numpy() == b"456"
    with pytest.raises(OSError, match="ends before byte 14: it was cut off"):
        read(piece._replace(length=10))
    assert shards.shards_in(tmp_path) == []


def test_a_tar_file_that_broke_off_and_one_with_more_behind_its_end_are_refused(tars):
    path = tars / "birds-train-000000.tar"
    whole = path.read_bytes()
    with tarfile.open(path) as file:
        *_, last = file
    for cut in (last.offset, last.offset_data + 10, last.offset_data + 512):  # at a member, in its data, behind it
        path.write_bytes(whole[:cut])
        with pytest.raises(ValueError, match="its end is missing: it was cut off|unexpected end of data"):
            list_source(path)
    path.write_bytes(whole + whole)
    with pytest.raises(ValueError, match="there is more behind its end"):
        list_source(path)


def test_images_that_are_left_out_of_a_tar_file_are_said(tmp_path, monkeypatch):
    members = {"a.jpg": b"x", "a.cls": b"0", "b_1.5x.jpg": b"y", "b_1.5x.cls": b"1"}
    _tar(tmp_path / "a.tar", members)
    monkeypatch.setattr(index, "LEAST", 1)
    for _ in range(2):  # listed, and known
        with pytest.warns(UserWarning, match="1 images of 1 tar files are left out, such as b_1.5x.jpg in .*a.tar"):
            [items] = list_source(tmp_path / "a.tar").parts.values()
        assert [item.id for item in items] == ["a.tar/a.jpg"]


@pytest.mark.parametrize("odd", ["heldout-000.tar", "train_test-000.tar"])
def test_files_some_of_which_are_called_after_parts_are_refused(odd, tars):
    shutil.copy(tars / "birds-test-000000.tar", tars / odd)
    with pytest.raises(ValueError, match=f"{odd} is not: let each be called after train, validation or test, or none"):
        list_source(tars)


def _parquet(path, labels, names=None, images=True):
    import json

    import pyarrow
    import pyarrow.parquet

    png = tf.io.encode_png(tf.zeros((4, 4, 3), "uint8")).numpy()
    images = [{"bytes": png if images else None, "path": f"{number}.png"} for number in range(len(labels))]
    table = pyarrow.table({"image": images, "label": labels})
    if names is not None:
        features = {"image": {"_type": "Image"}, "label": {"_type": "ClassLabel", "names": names}}
        table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    pyarrow.parquet.write_table(table, path)


def test_each_parquet_file_has_its_own_names_of_classes(tmp_path):
    _parquet(tmp_path / "train-0.parquet", [0, 1, 2], ["jay", "owl", "wren"])
    _parquet(tmp_path / "test-0.parquet", [0, 1, 2], ["owl", "wren", "jay"])
    listing = list_source(tmp_path)
    said = {part: [listing.class_names[item.label] for item in items] for part, items in listing.parts.items()}
    assert said == {"train": ["jay", "owl", "wren"], "test": ["owl", "wren", "jay"]}


@pytest.mark.parametrize("labels", [[[0, 1], [1]], [0.5, 1.5], ["cat", " "], ["cat", None]])
def test_what_is_no_class_in_parquet_is_refused(labels, tmp_path):
    _parquet(tmp_path / "a.parquet", labels)
    with pytest.raises(ValueError, match="'label' must be one class, a name or a whole number. Received"):
        list_source(tmp_path)
    _parquet(tmp_path / "a.parquet", ["cat", "dog "], images=False)
    with pytest.raises(ValueError, match="there are no bytes of an image, only what names one"):
        list_source(tmp_path)


@pytest.mark.parametrize("use", ["off", "rehash"])
def test_a_listing_is_made_anew_where_nothing_is_to_be_trusted(use, tars, monkeypatch):
    import sqlite3

    monkeypatch.setattr(index, "LEAST", 1)
    first = list_source(tars)
    with sqlite3.connect(index.index_path()) as file:
        file.execute('UPDATE listed SET rows = \'[[0, "x", "7", [0, 1]]]\'')
    assert list_source(tars) != first and list_source(tars, use=use) == first


def test_an_archive_is_to_be_unpacked(tmp_path):
    (tmp_path / "a.tar.gz").write_bytes(b"\x1f\x8b")
    with pytest.raises(ValueError, match="a.tar.gz is an archive: unpack it"):
        list_source(tmp_path / "a.tar.gz")
