"""kresnets.data.load_data: folders, CSV files, TFDS, the ELPV photographs, and what bad input gets."""

import importlib.resources
import io
import os
import subprocess
import sys
import warnings

import numpy as np
import pytest
from PIL import Image

from kresnets.data import load_data, tfds_source

CELLS = importlib.resources.files("elpv_dataset") / "data" / "images"


def picture(number, kind="PNG", **options):
    """Return a different real picture for every number, encoded."""
    stream = io.BytesIO()
    Image.open(CELLS / f"cell{number + 1:04d}.png").resize((24, 24)).save(stream, kind, **options)
    return stream.getvalue()


def fill(folder, count, first=0, suffix="png"):
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(first, first + count):
        (folder / f"{number}.{suffix}").write_bytes(picture(number, "JPEG" if suffix == "jpg" else "PNG"))


def parts_of(data):
    return {name: set(getattr(data, name).ids) for name in ("train", "validation", "test")}


@pytest.fixture
def folder(tmp_path):
    root = tmp_path / "photos"
    fill(root / "cat", 20)
    fill(root / "dog", 12, first=20, suffix="jpg")
    return root


def test_a_folder_of_class_folders(folder):
    (folder / "README.txt").write_text("not a class")
    (folder / "cat" / ".DS_Store").write_bytes(b"junk")
    (folder / "cat" / "Thumbs.db").write_bytes(b"junk")
    (folder / "cat" / "notes.txt").write_text("junk")
    (folder / ".git").mkdir()
    fill(folder / "dog" / "more" / "deeper", 4, first=40)
    data = load_data(folder, progress=False)
    assert data.name == "photos" and data.class_names == ("cat", "dog") and data.bad == () and data.rotated == 0
    assert data.test.counts() == {"cat": 5, "dog": 4}
    assert data.validation.counts() == {"cat": 2, "dog": 2}
    assert data.train.counts() == {"cat": 13, "dog": 10}
    parts = parts_of(data)
    assert len(set.union(*parts.values())) == 36 == sum(map(len, parts.values()))
    assert "dog/more/deeper/40.png" in set.union(*parts.values())
    for part in (data.train, data.validation, data.test):
        assert list(part.ids) == sorted(part.ids) and len(part) == len(part.labels) == len(part.ids)
        assert all(data.class_names[label] == name.split("/")[0] for label, name in zip(part.labels, part.ids))
        for pixels, name in zip(part.pixels(24), part.ids):
            expected = np.asarray(Image.open(folder / name).convert("RGB"), np.float32)
            np.testing.assert_allclose(pixels, expected, atol=6)  # 6: two JPEG decoders
    assert data.summary().splitlines()[-1].split() == ["all", "23", "4", "9"]


def test_the_split_is_pinned(folder):
    """The same on every machine: the first quarter of each class by `sha256sum` of `0:name`, worked out elsewhere."""
    assert parts_of(load_data(folder, progress=False))["test"] == PINNED
    assert parts_of(load_data(folder, seed=1, progress=False))["test"] != PINNED


PINNED = {f"cat/{number}.png" for number in (7, 11, 12, 15, 18)} | {f"dog/{number}.jpg" for number in (24, 29, 30)}


def test_train_val_test_inside(tmp_path):
    fill(tmp_path / "train" / "a", 10)
    fill(tmp_path / "train" / "b", 10, first=10)
    fill(tmp_path / "val" / "a", 3, first=20)
    fill(tmp_path / "val" / "b", 3, first=23)
    data = load_data(tmp_path, progress=False)
    assert parts_of(data)["validation"] == {f"val/{c}/{i}.png" for c, i in zip("aaabbb", range(20, 26))}
    assert len(data.test) == 6 and len(data.train) == 14  # the missing test part: a quarter of each class, rounded
    (tmp_path / "val").rename(tmp_path / "test")
    data = load_data(tmp_path, progress=False)
    assert len(data.test) == 6 and len(data.validation) == 4 and len(data.train) == 16
    fill(tmp_path / "validation" / "a", 2, first=30)
    fill(tmp_path / "validation" / "b", 2, first=32)
    data = load_data(tmp_path, progress=False)
    assert [len(part) for part in (data.train, data.validation, data.test)] == [20, 4, 6]
    data = load_data(tmp_path, limit=12, progress=False)
    assert [len(part) for part in (data.train, data.validation, data.test)] == [10, 2, 6]
    (tmp_path / "test" / "c").mkdir()
    with pytest.raises(ValueError, match="'c' that no folder of the training part"):
        load_data(tmp_path, progress=False)


@pytest.mark.parametrize(
    ("names", "later"),
    [
        (("Training", "Testing"), "test"),
        (("TRAIN", "Val", "TEST"), None),
        (("train_images", "valid_images"), "validation"),
        (("Train Set", "dev-set"), "validation"),
        (("train2017", "val2017"), "validation"),
        (("trainset", "testset"), "test"),
        (("train", "eval"), "test"),
        (("train", "holdout"), "test"),
        (("seg_train", "seg_test"), "test"),
        (("x_train", "x_validate"), "validation"),
    ],
)
def test_parts_in_the_usual_spellings(tmp_path, names, later):
    for place, part in enumerate(names):
        for offset, name in enumerate(("a", "b")):
            fill(tmp_path / part / name, 8, first=20 * place + 10 * offset)
    data = load_data(tmp_path, progress=False)
    assert data.class_names == ("a", "b")
    for part, name in zip(("validation", "test") if len(names) == 3 else (later,), names[1:], strict=True):
        assert {image.split("/")[0] for image in parts_of(data)[part]} == {name}
        assert len(getattr(data, part)) == 16


@pytest.mark.parametrize("names", [("seg_train", "seg_test", "seg_pred"), ("train", "later")])
def test_what_is_like_parts_is_refused_with_its_tree(tmp_path, names):
    for place, part in enumerate(names):
        for offset, name in enumerate(("a", "b")):
            fill(tmp_path / part / name, 2, first=20 * place + 10 * offset)
    with pytest.raises(ValueError, match=rf"{names[0]}/ \(a, b\)"):
        load_data(tmp_path, progress=False)


@pytest.mark.parametrize("path", ["/none/of/this", "./photos", "../photos", "~/none_of_this", "list.csv"])
def test_a_path_that_is_not_there_is_no_data_set(path):
    with pytest.raises(ValueError, match="There is no folder or CSV file"):
        load_data(path)


def test_a_class_may_be_called_train(tmp_path):
    for place, name in enumerate(("bus", "car", "train")):
        fill(tmp_path / name / "of 2020", 8, first=10 * place)
    assert load_data(tmp_path, progress=False).class_names == ("bus", "car", "train")


def test_classes_may_be_called_like_other_layouts(tmp_path):
    for place, name in enumerate(("images", "labels", "stamps", "vitamin A", "vitamin B", "1", "2")):
        fill(tmp_path / name, 8, first=10 * place)
    assert len(load_data(tmp_path, progress=False).class_names) == 7


@pytest.mark.parametrize(
    ("folders", "words"),
    [
        (
            ("Training/a", "Training/b", "Testing/a", "Testing/b", "extra/a"),
            r"Testing/ \(a, b\), Training/ \(a, b\), extra/",
        ),
        (("train", "test"), r"There are test/ \(no folders\), train/ \(no folders\)"),
        (("val/a", "val/b", "test/a", "test/b"), "at least the first"),
        (("train/a", "train/b", "val/a", "valid/a"), r"two folders for validation \(val, valid\)"),
        (("data/train/a", "data/test/a"), r"one folder data/ \(test, train\): give .*data, if its"),
        (("trainA", "trainB", "testA", "testB"), "testA/ .*parts of pairs of images"),
        (("fold1/a", "fold1/b", "fold2/a", "fold2/b"), r"fold1/ \(a, b\).*folds of one data set"),
        (("cat/train", "cat/test", "dog/train", "dog/val"), "parts within classes: put the parts above"),
        (("images", "labels"), "images and notes on them: give a CSV file"),
        (("train/images", "train/masks", "val/images", "val/masks"), "train has images/ .*notes on them"),
        (("archive/cat", "archive/dog"), r"one folder archive/ \(cat, dog\): give .*archive, if its"),
    ],
)
def test_what_looks_like_parts_and_is_not_understood_is_refused(tmp_path, folders, words):
    for place, name in enumerate(folders):
        fill(tmp_path / name, 3, first=5 * place)
    with pytest.raises(ValueError, match=words):
        load_data(tmp_path, progress=False)


@pytest.mark.parametrize("name", ["@eaDir", "lost+found", "$RECYCLE.BIN", "System Volume Information", "#recycle"])
def test_what_systems_leave_is_no_class(folder, name):
    for place in (folder, folder / "cat"):
        (place / name).mkdir()
        (place / name / "0.png@SynoEAStream").write_bytes(b"junk")
    data = load_data(folder, progress=False)
    assert data.class_names == ("cat", "dog") and sum(map(len, parts_of(data).values())) == 32


def test_duplicates(folder):
    for number in range(8):
        (folder / "cat" / f"copy{number}.png").write_bytes(picture(number))
    data = load_data(folder, progress=False)
    for number in range(8):
        homes = {part for part, ids in parts_of(data).items() if ids & {f"cat/{number}.png", f"cat/copy{number}.png"}}
        assert len(homes) == 1
    (folder / "dog" / "cat0.png").write_bytes(picture(0))
    with pytest.warns(UserWarning, match="1 images occur under two classes, for example cat/0.png and dog/cat0.png"):
        load_data(folder, progress=False)


def test_half_a_csv_header_is_told(tmp_path):
    (tmp_path / "list.csv").write_text("path,foo\na.png,x\n")
    with pytest.raises(
        ValueError,
        match=r"looks like a header \('path', 'foo'\), in which the column of labels is not known by name: .*`columns`",
    ):
        load_data(tmp_path / "list.csv", progress=False)


def test_a_leak_between_given_parts_is_said(tmp_path):
    for part in ("train", "test"):
        fill(tmp_path / part / "a", 10)
        fill(tmp_path / part / "b", 10, first=10 if part == "train" else 30)
    with pytest.warns(UserWarning, match="10 images of the given validation and test parts"):
        load_data(tmp_path, progress=False)


@pytest.mark.parametrize("header", ["path,label\n", "label, Image ,note\n", ""])
def test_csv(folder, header):
    rows = [(path.relative_to(folder).as_posix(), path.parent.name) for path in sorted(folder.rglob("*.*"))]
    lines = [f"{label},{path},x" if header.startswith("label") else f"{path},{label}" for path, label in rows]
    (folder / "list.csv").write_text("\ufeff" + header + "\n".join(lines) + "\n", encoding="utf-8")
    data = load_data(folder / "list.csv", progress=False)
    assert data.name == "list" and parts_of(data) == parts_of(load_data(folder, progress=False))


@pytest.mark.parametrize(
    ("header", "separator", "columns"),
    [
        ("file,label_name", ",", None),
        ("image_id,species", ",", None),
        ("filename;class", ";", None),
        ("img\tCategory", "\t", None),
        ("scan;finding", ";", ("scan", "Finding")),
        ("path,label,fold", ",", None),
        ("path,label,set", ",", None),
    ],
)
def test_csv_of_others(folder, header, separator, columns):
    """The usual names and separators; a path without its suffix; a `set` that names no parts is no column of parts."""
    lines = [header.replace(",", separator)]
    for path in sorted(folder.rglob("*.*")):
        name = path.relative_to(folder)
        cells = [str(name if "id" not in header else name.with_suffix("")), path.parent.name]
        lines.append(separator.join(cells + ["7"] * (header.count(separator) - 1)))
    (folder / "list.csv").write_text("\n".join(lines), encoding="utf-8")
    data = load_data(folder / "list.csv", progress=False, columns=columns)
    assert data.class_names == ("cat", "dog") and parts_of(data) == parts_of(load_data(folder, progress=False))


@pytest.mark.parametrize(
    ("header", "cells", "words"),
    [
        ("path,label,split", ["train", "test", ""], "line 4: the column 'split' says ''"),
        ("Image Path,Class Name,Data Set", ["train", "test", "later"], "line 4: the column 'data_set' says 'later'"),
        ("path,label,is_valid", ["0", "1", "0"], "has a column 'is_valid'"),
    ],
)
def test_a_column_of_parts_is_taken_or_refused(folder, header, cells, words):
    rows = [f"{path.relative_to(folder)},{path.parent.name},{cells[n % 3]}"
            for n, path in enumerate(sorted(folder.rglob("*.*")))]  # fmt: skip
    (folder / "list.csv").write_text("\n".join([header, *rows]))
    with pytest.raises(ValueError, match=words):
        load_data(folder / "list.csv", progress=False)


def test_a_csv_column_says_the_part(folder):
    rows = [(path.relative_to(folder).as_posix(), path.parent.name) for path in sorted(folder.rglob("*.*"))]
    parts = ["Test", "Training", "val", "train"] * 8
    lines = ["image,label,Split", *(f"{path},{label},{part}" for (path, label), part in zip(rows, parts))]
    (folder / "list.csv").write_text("\n".join(lines))
    found = parts_of(load_data(folder / "list.csv", progress=False))
    assert found["test"] == {path for (path, _), part in zip(rows, parts) if part == "Test"}
    assert found["validation"] == {path for (path, _), part in zip(rows, parts) if part == "val"}
    (folder / "list.csv").write_text("\n".join([*lines, "cat/none.png,cat,later"]))
    with pytest.raises(ValueError, match="'later' is no part: write train"):
        load_data(folder / "list.csv", progress=False, columns=("image", "label", "split"))
    (folder / "list.csv").write_text(
        "\n".join([lines[0], *(line for line in lines if "Test" in line or "val" in line)])
    )
    with pytest.raises(ValueError, match="no line is said to be for training"):
        load_data(folder / "list.csv", progress=False)


def patients(folder):
    """A list of the folder's images with the patient of each, four images a patient."""
    rows = [(path.relative_to(folder).as_posix(), path.parent.name) for path in sorted(folder.rglob("*.*"))]
    lines = [f"{path},{label},p{number // 4}" for number, (path, label) in enumerate(rows)]
    (folder / "list.csv").write_text("\n".join(["path,label,Patient ID", *lines]))
    return {path: f"p{number // 4}" for number, (path, _) in enumerate(rows)}


@pytest.mark.parametrize("columns", [("path", "label", None), ["group=patient id"], {"group": "Patient ID"}])
def test_no_patient_is_in_two_parts(folder, columns, recwarn):
    groups = patients(folder)
    if None in columns:  # nobody said so: they may be, which is told
        load_data(folder / "list.csv", progress=False)
        assert "has a column 'patient_id': images of one may land in training and test" in str(recwarn[0].message)
        return
    data = load_data(folder / "list.csv", progress=False, columns=columns)
    homes = {}
    for name, part in (("train", data.train), ("validation", data.validation), ("test", data.test)):
        assert [groups[image] for image in part.ids] == list(part.groups)
        assert all(homes.setdefault(group, name) == name for group in part.groups)
    assert len(homes) == 8 and data.decoded == ("Groups: 8, none in two parts.",) and not recwarn.list
    both = data.train.joined(data.validation)
    assert both.subset([1, 0]).groups == both.groups[1::-1]


def test_groups_are_found_in_names(folder):
    for path in folder.rglob("*.*"):
        path.rename(path.with_name(f"case{int(path.stem) // 4}_{path.name}"))
    data = load_data(folder, progress=False, group_by=r"case(\d+)_")
    assert sorted(set(data.test.groups) | set(data.validation.groups) | set(data.train.groups)) == sorted("01234567")
    assert not set(data.test.groups) & set(data.train.groups) | set(data.test.groups) & set(data.validation.groups)
    with pytest.raises(ValueError, match=r"`group_by` 'case0' is found in 4 of 32 names, and not in 'cat/case1_4.png'"):
        load_data(folder, progress=False, group_by="case0")
    with pytest.raises(ValueError, match=r"`group_by` must be a regular expression. Received: '\(' "):
        load_data(folder, progress=False, group_by="(")
    with pytest.raises(
        ValueError, match=r"'cat' has only 1 image.*\(exact duplicates and those of one group count once"
    ):
        load_data(folder, progress=False, group_by="cat|dog")


def test_a_group_that_the_source_itself_parts_is_told(folder):
    rows = [(path.relative_to(folder).as_posix(), path.parent.name) for path in sorted(folder.rglob("*.*"))]
    lines = [
        f"{path},{label},{('test', 'train')[number % 2]},p{number // 2}" for number, (path, label) in enumerate(rows)
    ]
    (folder / "list.csv").write_text("\n".join(["path,label,split,group", *lines]))
    data = load_data(folder / "list.csv", progress=False, columns={"group": "group"})
    assert data.decoded == (
        "Groups: 16, 16 of them in more than one part, as the source parts them: the test is not honest.",
    )


def test_columns_that_are_not_there(folder):
    (folder / "list.csv").write_text("scan,finding\ncat/0.png,cat\ndog/20.jpg,dog\n")
    with pytest.raises(ValueError, match=r"looks like a header \('scan', 'finding'\).*in this order, with `columns`"):
        load_data(folder / "list.csv", progress=False)
    for columns in (("scan",), ("scan", "label"), {"group": "patient"}, {"weights": "scan"}, ["group=patient"], []):
        with pytest.raises(ValueError, match="there are 'scan', 'finding'"):
            load_data(folder / "list.csv", progress=False, columns=columns)
    with pytest.raises(ValueError, match="is a folder of classes: give a list of paths and labels"):
        load_data(folder, progress=False, columns=("scan", "finding"))


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ("../outside.png,cat", r"line 2: '../outside.png' is not a file in the CSV file's folder"),
        ("cat/../../outside.png,cat", "is not a file in the CSV file's folder"),
        ("/etc/hostname,cat", "is not a file in the CSV file's folder"),
        (".,cat", "is not a file in the CSV file's folder"),
        ("cat/0.png", "no path and label"),
        ("cat/0.png;cat", "no path and label"),
        ("cat/0.png,cat\n./cat/0.png,dog", "line 3: cat/0.png is listed a second time"),
    ],
)
def test_csv_refusals(folder, row, words):
    (folder.parent / "outside.png").write_bytes(picture(0))
    (folder / "list.csv").write_text(f"path,label\n{row}\n")
    with pytest.raises(ValueError, match=words):
        load_data(folder / "list.csv", progress=False)


def test_csv_that_is_none(folder):
    (folder / "list.csv").write_text("")
    with pytest.raises(ValueError, match="lists no image"):
        load_data(folder / "list.csv")
    for encoding in ("utf-16", "utf-16-le", "cp1252"):
        (folder / "list.csv").write_text("path,label\ncat/0.png,kätzchen\n", encoding=encoding)
        with pytest.raises(
            ValueError, match=r"no CSV file in UTF-8 .*save it as UTF-8 \('CSV UTF-8' in spreadsheets\)"
        ):
            load_data(folder / "list.csv")
    (folder / "list.csv").write_text("path,label\ncat/none.png,cat\ncat/0.png,dog\n")
    with pytest.raises(ValueError, match=r"1 of 2 images cannot be used: cat/none.png \(cannot be read \(No such file"):
        load_data(folder / "list.csv", progress=False)


def test_links_are_followed_but_not_in_circles(folder, tmp_path):
    """Whoever made the folder put them there; it is the CSV file's text that cannot lead out."""
    (tmp_path / "outside.png").write_bytes(picture(50))
    (folder / "cat" / "link.png").symlink_to(tmp_path / "outside.png")
    (folder / "cat" / "circle").symlink_to(folder)
    fill(tmp_path / "elsewhere", 4, first=60)
    (folder / "bird").symlink_to(tmp_path / "elsewhere")
    fill(tmp_path / "more", 2, first=70)
    (tmp_path / "more" / "back").symlink_to(tmp_path / "more")
    (folder / "cat" / "linked").symlink_to(tmp_path / "more")
    with pytest.warns(UserWarning) as warned:
        data = load_data(folder, progress=False)
    ids = set.union(*parts_of(data).values())
    assert data.class_names == ("bird", "cat", "dog") and len(ids) == 39 and "cat/link.png" in ids
    assert {"cat/linked/70.png", "cat/linked/71.png"} <= ids
    circles = [
        str(one.message) for one in warned if "is a link to a folder that it is in: left out." in str(one.message)
    ]
    assert sorted(text.split()[0].rpartition("photos/")[2] for text in circles) == ["cat/circle", "cat/linked/back"]


def test_bad_images(folder):
    (folder / "cat" / "0.png").write_bytes(picture(0)[:200])
    (folder / "cat" / "empty.jpg").write_bytes(b"")
    (folder / "dog" / "page.png").write_text("<html>")
    (folder / "dog" / "scan.tiff").write_bytes(picture(80, "TIFF")[:200])
    with pytest.raises(ValueError) as error:
        load_data(folder, progress=False)
    assert str(error.value) == (
        "4 of 35 images cannot be used: cat/0.png (damaged or cut off (PNG)); cat/empty.jpg (the file is empty); "
        "dog/page.png (not an image (or its first bytes are damaged)); dog/scan.tiff (damaged or cut off "
        "(TIFF)). Repair or delete them, or leave "
        'them out with bad_images="skip".'
    )
    data = load_data(folder, bad_images="skip", progress=False)
    assert [name for name, _ in data.bad] == ["cat/0.png", "cat/empty.jpg", "dog/page.png", "dog/scan.tiff"]
    assert len(data.train) + len(data.validation) + len(data.test) == 31
    assert not set.union(*parts_of(data).values()) & {name for name, _ in data.bad}


def test_all_obstacles_are_told_at_once(folder, tmp_path):
    """Of a folder in parts, and of a list: what one would else meet one after the other."""
    (folder / "cat" / "0.png").write_bytes(b"")
    fill(folder / "bird", 2, first=90)
    fill(folder / "cow", 1, first=95)
    with pytest.raises(ValueError) as error:
        load_data(folder, progress=False)
    told = str(error.value)
    assert told.startswith("There are 2 obstacles. (1) 1 of 35 images cannot be used: cat/0.png (the file is empty).")
    assert "(2) Class 'bird' has only 2 images, 'cow' has only 1 image, but each of" in told
    (folder / "empty").mkdir()
    with pytest.raises(ValueError) as error:
        load_data(folder, progress=False)
    told = str(error.value)
    assert told.startswith("There are 3 obstacles.") and "(2) Class 'empty' has no usable image: add some" in told
    assert "(3) Class 'bird' has only 2 images, 'cow' has only 1 image, but each of" in told
    (folder / "empty").rmdir()
    parts = tmp_path / "parts"
    fill(parts / "train" / "cat", 4)
    (parts / "train" / "dog").mkdir()
    (parts / "train" / "dog" / "x.png").write_bytes(b"")
    fill(parts / "val" / "wolf", 2, first=10)
    fill(parts / "val" / "cat", 2, first=20)
    with pytest.raises(ValueError) as error:
        load_data(parts, progress=False)
    told = str(error.value)
    for words in ("(1) ", "has a folder 'wolf' that", "(2) 1 of 7 images", "(3) Class 'dog' has no usable image in the "
                  "train part", "(4) Class 'dog' has no usable image in the validation part"):  # fmt: skip
        assert words in told
    rows = ["cat/1.png,cat", "cat/1.png,cat", "no label", "../out.png,cat", "C:\\pets\\1.png,cat", "dog/20.jpg,dog"]
    (folder / "list.csv").write_text("\n".join(rows))
    with pytest.raises(ValueError) as error:
        load_data(folder / "list.csv", progress=False)
    for words in ("line 2: cat/1.png is listed a second time", "line 3: no path", "line 4: '../out.png'",
                  "C:/pets/1.png (cannot be read (No such file",
                  "cat has only 1 image"):  # fmt: skip
        assert words.replace("cat has", "'cat' has") in str(error.value)


def test_a_list_that_was_written_on_windows(folder):
    rows = [f"{name}\\{path.name},{name}" for name in ("cat", "dog") for path in (folder / name).iterdir()]
    (folder / "list.csv").write_text("\r\n".join(rows))
    ids = set.union(*parts_of(load_data(folder / "list.csv", progress=False)).values())
    assert ids == set.union(*parts_of(load_data(folder, progress=False)).values())


def test_images_of_one_colour_and_those_beside_the_class_folders_are_named(folder):
    Image.new("RGB", (20, 20), (3, 3, 3)).save(folder / "cat" / "plain.png")
    (folder / "cat" / "0.png").rename(folder / "stray.png")
    with pytest.warns(UserWarning, match="1 images beside the class folders belong to no class.*stray.png"):
        data = load_data(folder, progress=False)
    assert data.plain == ("cat/plain.png",)
    assert data.notes() == ["Images of one colour throughout: 1 of 32 (cat/plain.png)."]


def test_rotated_files_are_counted(folder):
    exif = Image.Exif()
    exif[0x0112] = 8
    for number in range(3):
        (folder / "dog" / f"turned{number}.jpg").write_bytes(picture(90 + number, "JPEG", exif=exif))
    assert load_data(folder, progress=False).rotated == 3


def test_refused_folders(folder, tmp_path):
    (folder / "empty").mkdir()
    with pytest.raises(ValueError, match="Class 'empty' has no usable image: add some"):
        load_data(folder, progress=False)
    (folder / "empty" / "x.png").write_bytes(b"")
    with pytest.raises(ValueError, match="Class 'empty' has no usable image"):
        load_data(folder, bad_images="skip", progress=False)
    fill(folder / "empty", 2, first=70)
    with pytest.raises(ValueError, match="Class 'empty' has only 2 images"):
        load_data(folder, bad_images="skip", progress=False)
    (tmp_path / "nothing").mkdir()
    with pytest.raises(ValueError, match="No class folders in .*nothing: put the images of each class"):
        load_data(tmp_path / "nothing")
    fill(tmp_path / "single" / "only", 5)
    with pytest.raises(ValueError, match="has one class only .'only'.: there must be two"):
        load_data(tmp_path / "single")
    (tmp_path / "single" / "labels.csv").write_text("path,label\n")
    with pytest.raises(ValueError, match="or give the list that is there, .*labels.csv"):
        load_data(tmp_path / "single")
    with pytest.raises(ValueError, match="0.png is an image: give a folder with a folder for each class"):
        load_data(tmp_path / "single" / "only" / "0.png")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"bad_images": "ignore"}, "`bad_images` must be 'error' or 'skip'. Received: 'ignore'"),
        ({"limit": 0}, "`limit` must be at least 1"),
        ({"limit": 2}, "A limit of 2 images is too few for 2 classes"),
        ({"seed": 1.5}, "`seed` must be an integer"),
        ({"test_split": 0}, "`test_split` is a share"),
        ({"validation_split": 1.0}, "`validation_split` is a share"),
    ],
)
def test_refused_arguments(folder, arguments, words):
    with pytest.raises(ValueError, match=words):
        load_data(folder, progress=False, **arguments)


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("/no/such/folder", "There is no folder or CSV file '/no/such/folder' here"),
        ("tf_flower", "did you mean tf_flowers"),
        ("mnist/big", "its configs are none"),
        ("glue/nope", "its configs are cola, sst2"),
        ("elpv/silicon", "Unknown selection 'elpv/silicon': use elpv, elpv/mono or elpv/poly"),
        ("glue", "is not one image with one integer label"),
    ],
)
def test_refused_names(source, words, tmp_path, monkeypatch):
    if source == "glue":
        monkeypatch.setattr(tfds_source, "prepare", lambda name, data_dir: tfds_source._builder(name, data_dir))
    with pytest.raises(ValueError, match=words):
        load_data(source, data_dir=str(tmp_path))


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    return str(tmp_path_factory.mktemp("tfds"))


@pytest.mark.parametrize(
    ("name", "functional", "defective"),
    [
        ("elpv/mono", 705, 369),
        pytest.param("elpv", 1803, 821, marks=pytest.mark.everything),
        pytest.param("elpv/poly", 1098, 452, marks=pytest.mark.everything),
    ],
)
def test_elpv(name, functional, defective, prepared):
    data = load_data(name, data_dir=prepared, progress=False)
    assert data.class_names == ("functional", "defective") and data.bad == () and data.rotated == 0
    parts = (data.train, data.validation, data.test)
    labels = np.concatenate([part.labels for part in parts])
    assert np.bincount(labels).tolist() == [functional, defective]
    test = data.test.counts()
    assert (test["functional"], test["defective"]) == (int(functional / 4 + 0.5), int(defective / 4 + 0.5))
    assert len(set.union(*parts_of(data).values())) == functional + defective
    truth = dict(line.split()[:2] for line in (CELLS.parent / "labels.csv").read_text().splitlines())
    for part in parts:
        assert [float(truth[f"images/{name}"]) >= 0.5 for name in part.ids] == part.labels.astype(bool).tolist()
    index = 17
    cell = np.asarray(Image.open(CELLS / data.test.ids[index]))
    np.testing.assert_array_equal(data.test.pixels(300, [index])[0], np.repeat(cell[..., None], 3, -1))


def test_elpv_split_is_pinned_and_limits_are_nested(prepared):
    small = load_data("elpv/mono", limit=75, data_dir=prepared, progress=False)
    large = load_data("elpv/mono", limit=150, data_dir=prepared, progress=False)
    assert (len(small.train), len(small.validation), len(small.test)) == (64, 11, 268)
    assert small.train.ids[:3] == ("cell0036.png", "cell0048.png", "cell0376.png")
    assert set(small.train.ids) < set(large.train.ids) and set(small.validation.ids) < set(large.validation.ids)
    assert small.test.ids == large.test.ids


@pytest.mark.everything  # the test below it plays the same race out in a second
def test_elpv_prepared_by_two_processes_at_once(tmp_path):
    code = f"from kresnets.data import load_data; print(len(load_data('elpv/mono', data_dir={str(tmp_path)!r}).test))"
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
    runs = [subprocess.Popen([sys.executable, "-c", code], stdout=-1, stderr=-1, env=environment) for _ in range(2)]
    for run in runs:
        out, err = run.communicate(timeout=120)
        assert run.returncode == 0, err.decode()
        assert out.decode().split()[-1] == "268"
    assert sorted(os.listdir(tmp_path / "elpv" / "mono")) == ["1.0.0"]


def test_elpv_prepared_although_another_was_faster(tmp_path, monkeypatch):
    from kresnets.data.elpv import Elpv

    real = Elpv.download_and_prepare

    def slower(self, **options):
        monkeypatch.setattr(Elpv, "download_and_prepare", real)
        tfds_source.prepare("elpv/mono", str(tmp_path))
        raise FileExistsError("Cannot rename")

    monkeypatch.setattr(Elpv, "download_and_prepare", slower)
    assert tfds_source.prepare("elpv/mono", str(tmp_path)).info.splits["train"].num_examples == 1074
    monkeypatch.setattr(Elpv, "download_and_prepare", lambda self: (_ for _ in ()).throw(OSError("No space left")))
    with pytest.raises(OSError, match="'elpv/poly' could not be prepared in .*: No space left"):
        tfds_source.prepare("elpv/poly", str(tmp_path))


def test_elpv_without_the_package(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "elpv_dataset", None)
    with pytest.raises(ModuleNotFoundError, match=r'pip install "kresnets\[elpv\]"'):
        load_data("elpv/poly", data_dir=str(tmp_path))


@pytest.fixture(scope="module")
def tiny():
    """A TFDS dataset with splits of its own, colour JPEGs, and integers for labels."""
    tfds = pytest.importorskip("tensorflow_datasets")

    class TinyCells(tfds.core.GeneratorBasedBuilder):
        VERSION = tfds.core.Version("1.0.0")
        BUILDER_CONFIGS = [tfds.core.BuilderConfig(name=name, description="-") for name in ("whole", "split", "secret")]

        def _info(self):
            features = {
                "picture": tfds.features.Image(shape=(None, None, 1), encoding_format="png"),
                "kind": tfds.features.ClassLabel(names=["never", "left", "right"]),
            }
            return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

        def _split_generators(self, dl_manager):
            if self.builder_config.name == "whole":
                return {"everything": self._generate_examples(0, 40)}
            borders = {"train": (0, 40), "test": (40, 50), "extra": (50, 52)}
            return {split: self._generate_examples(*border) for split, border in borders.items()}

        def _generate_examples(self, first, last):
            for number in range(first, last):
                secret = self.builder_config.name == "secret" and first == 40
                yield number, {"picture": io.BytesIO(picture(number)), "kind": -1 if secret else 1 + number % 2}

    return TinyCells


@pytest.mark.always("split-sizes1")
@pytest.mark.parametrize(("config", "sizes"), [("whole", (26, 4, 10)), ("split", (34, 6, 10)), ("secret", (26, 4, 10))])
def test_tfds(tiny, config, sizes, tmp_path):
    data = load_data(f"tiny_cells/{config}", data_dir=str(tmp_path), progress=False)
    assert data.name == f"tiny_cells/{config}" and data.class_names == ("left", "right")
    assert (len(data.train), len(data.validation), len(data.test)) == sizes
    assert len(set.union(*parts_of(data).values())) == sum(sizes)
    again = load_data(f"tiny_cells/{config}", data_dir=str(tmp_path), progress=False)
    assert parts_of(again) == parts_of(data)
    originals = [np.asarray(Image.open(io.BytesIO(picture(number)))) for number in range(50)]
    for pixels, label in zip(data.test.pixels(24), data.test.labels):
        numbers = [number for number, original in enumerate(originals) if np.array_equal(pixels[..., 0], original)]
        assert [number % 2 for number in numbers] == [label]


def test_a_clean_load_warns_of_nothing(folder):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load_data(folder, progress=False)
