"""Several labels an image, and numbers, from CSV files: what is read, how it is split, and what is refused."""

import collections
import csv

import numpy as np
import pytest
from PIL import Image

from kresnets.data import load_data
from kresnets.data.listing import list_csv
from kresnets.data.split import strata

SETS = [set(), {"cat"}, {"dog"}, {"cat", "dog"}, {"bird", "cat"}]


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """A folder of 60 pictures, each of a colour of its own."""
    folder = tmp_path_factory.mktemp("pictures")
    for n in range(60):
        Image.new("RGB", (9, 9), (4 * n, 255 - 4 * n, n)).save(folder / f"{n}.png")
    return folder


def listed(folder, name, header, rows):
    with open(folder / name, "w", newline="") as file:
        csv.writer(file).writerows([header, *rows])
    return folder / name


def labels_of(data):
    """Return path -> label as a set of names."""
    parts = (data.train, data.validation, data.test)
    return {
        name: {label for label, has in zip(data.class_names, row) if has}
        for part in parts
        for name, row in zip(part.ids, part.labels)
    }


@pytest.mark.parametrize("mark", ["|", ";", ",", " "])
def test_labels_in_one_cell_and_in_columns_are_the_same(pictures, mark):
    said = {f"{n}.png": SETS[n % 5] for n in range(60)}
    one = listed(
        pictures, "one.csv", ["path", "labels"], [(name, mark.join(sorted(has))) for name, has in said.items()]
    )
    names = ["bird", "cat", "dog"]
    rows = [(name, *(int(label in has) for label in names)) for name, has in said.items()]
    hot = listed(pictures, "hot.csv", ["path", *names], rows)
    found = load_data(one, task="labels", progress=False)
    assert found.task == "labels" and found.class_names == ("bird", "cat", "dog") and labels_of(found) == said
    assert labels_of(load_data(one, label_separator=mark, progress=False)) == said
    for columns in ({"label": names}, ["label=bird,cat,dog"], ["label=bird", "label=cat", "label=dog", "path=path"]):
        assert labels_of(load_data(hot, columns=columns, progress=False)) == said
    assert found.train.labels.dtype == np.float32
    drawn = np.concatenate([labels for _, labels in found.train.batches(7, 8)])
    np.testing.assert_array_equal(drawn, found.train.labels)
    assert found.train.counts()["cat"] == sum("cat" in said[name] for name in found.train.ids)
    assert found.files["3.png"].label == "cat|dog" and found.files["0.png"].label == ""


def test_each_label_is_in_each_part_in_proportion(pictures):
    said = [SETS[n % 5] for n in range(60)]
    file = listed(
        pictures, "parts.csv", ["path", "labels"], [(f"{n}.png", "|".join(sorted(has))) for n, has in enumerate(said)]
    )
    data = load_data(file, task="labels", progress=False)
    for part in (data.train, data.validation, data.test):
        shares = part.labels.mean(0)
        np.testing.assert_allclose(shares, [0.2, 0.6, 0.4], atol=0.25)
    smaller = load_data(file, task="labels", limit=20, progress=False)
    assert {*smaller.train.ids} < {*data.train.ids} and smaller.test.ids == data.test.ids


def test_numbers_are_read_and_spread_over_the_parts(pictures):
    file = listed(pictures, "numbers.csv", ["path", "age", "height"], [(f"{n}.png", n, 1.5 * n) for n in range(60)])
    both = load_data(file, columns={"label": ["age", "height"]}, progress=False)
    assert both.task == "numbers" and both.class_names == ("age", "height")
    for part in (both.train, both.validation, both.test):
        np.testing.assert_allclose(part.labels, [[int(name[:-4]), 1.5 * int(name[:-4])] for name in part.ids])
        assert abs(part.labels[:, 0].mean() - 29.5) < 8 and part.labels.shape[1] == 2
    one = load_data(file, columns={"label": "height"}, progress=False)  # it has fractions
    assert one.task == "numbers" and one.train.labels.shape[1] == 1
    whole = load_data(file, columns={"label": "age"}, task="numbers", progress=False)
    assert whole.task == "numbers" and "age" in whole.summary() and "times as many" not in " ".join(whole.notes())


def test_whole_numbers_stay_classes_unless_told(pictures):
    file = listed(pictures, "grades.csv", ["path", "label"], [(f"{n}.png", n % 3) for n in range(60)])
    assert load_data(file, progress=False).task == "classes"
    assert load_data(file, progress=False).class_names == ("0", "1", "2")
    ages = listed(pictures, "ages.csv", ["path", "label"], [(f"{n}.png", n) for n in range(60)])
    with pytest.raises(ValueError, match='to learn them as such, not as classes, give task="numbers"'):
        load_data(ages, progress=False)
    assert load_data(ages, task="numbers", progress=False).task == "numbers"


@pytest.mark.parametrize(
    ("header", "cells", "asked", "sentence"),
    [
        (["path", "label"], ["cat|dog", "cat", "dog"], {}, "'cat\\|dog' look like several labels.*task='labels'"),
        (
            ["path", "label"],
            ["1.5", "2", "old"],
            {"task": "numbers"},
            "must hold a number in each line. Received: 'old'",
        ),
        (
            ["path", "label"],
            ["1.5", "nan", "2"],
            {"task": "numbers"},
            "must hold a number in each line. Received: 'nan'",
        ),
        (
            ["path", "label"],
            ["a", "b", "a"],
            {"task": "classes", "label_separator": "|"},
            "leave it out|stands in no cell",
        ),
        (["path", "label"], ["a", "a|b", "a"], {"task": "labels"}, "Label 'b' is on 1 image"),
    ],
)
def test_what_cannot_be_meant_gets_a_sentence(pictures, header, cells, asked, sentence):
    rows = [(f"{n}.png", cells[n % 3] if cells[1] != "a|b" or n < 3 else "a") for n in range(60)]
    if cells[1] == "a|b":
        rows = rows[:4]
    file = listed(pictures, "bad.csv", header, rows)
    with pytest.raises(ValueError, match=sentence):
        load_data(file, progress=False, **asked)


def test_a_cell_of_columns_that_is_neither_says_so(pictures):
    file = listed(
        pictures, "mixed.csv", ["path", "cat", "dog"], [(f"{n}.png", 1, "maybe" if n == 3 else 0) for n in range(9)]
    )
    with pytest.raises(
        ValueError, match=r"0 or 1 \(a label each\) or numbers|a number in each line. Received: 'maybe'"
    ):
        load_data(file, columns={"label": ["cat", "dog"]}, progress=False)
    with pytest.raises(ValueError, match="come from a CSV file"):
        load_data(pictures, task="labels", progress=False)


def test_one_column_of_0_and_1_is_one_label(pictures):
    file = listed(pictures, "one.csv", ["path", "cyst"], [(f"{n}.png", n % 3 == 0 and "1" or "0") for n in range(60)])
    data = load_data(file, columns={"label": "cyst"}, task="labels", progress=False)
    assert data.class_names == ("cyst",) and data.train.labels.shape[1] == 1 and data.test.labels.any()


@pytest.mark.parametrize(
    ("header", "rows", "asked", "sentence"),
    [
        (["path", "label"], "red|blue", dict(label_separator=";"), "`label_separator` ';' stands in no cell"),
        (["path", "label"], "red|blue", dict(label_separator=""), "`label_separator` '' stands in no cell"),
        (["path", "a", "b"], ("1", ""), dict(columns={"label": ["a", "b"]}, task="labels"), "0 or 1.*Received: ''"),
        (["path", "a", "b"], ("1", "0"), dict(columns={"label": ["a", "a"]}), "columns of labels must be different"),
    ],
    ids=["separator", "no separator", "empty", "twice"],
)
def test_what_would_be_misread_gets_a_sentence(pictures, header, rows, asked, sentence):
    cells = (rows,) if isinstance(rows, str) else rows
    file = listed(pictures, "misread.csv", header, [(f"{n}.png", *cells) for n in range(12)])
    with pytest.raises(ValueError, match=sentence):
        load_data(file, progress=False, **asked)


def test_numbers_of_groups_are_dealt_by_group_and_large_offsets_refused(pictures):
    rows = [(f"{n}.png", 1.5 * n, f"p{n // 4}", 1e9 + n) for n in range(60)]
    file = listed(pictures, "groups.csv", ["path", "age", "patient", "far"], rows)
    columns = {"label": "age", "group": "patient"}
    whole = load_data(file, columns=columns, task="numbers", progress=False)
    parts = [set(part.groups) for part in (whole.train, whole.validation, whole.test)]
    assert sum(map(len, parts)) == len(set().union(*parts)) == 15 and all(parts)
    folds = [load_data(file, columns=columns, fold=(k, 5), task="numbers", progress=False) for k in range(1, 6)]
    assert sorted(name for data in folds for name in data.test.ids) == sorted(f"{n}.png" for n in range(60))
    with pytest.raises(ValueError, match="differences that float32 cannot tell: subtract what all have in common"):
        load_data(file, columns={"label": "far"}, task="numbers", progress=False)


def test_a_rare_label_that_a_part_lacks_is_told(pictures):
    said = ["rare" if n in (0, 1, 2) else ("a", "b")[n % 2] for n in range(60)]
    file = listed(pictures, "rare.csv", ["path", "label"], [(f"{n}.png", label) for n, label in enumerate(said)])
    for seed in range(6):
        data = load_data(file, task="labels", seed=seed, progress=False)
        lacks = not data.test.counts()["rare"] or not data.validation.counts()["rare"]
        assert lacks == any("Labels without an image" in note for note in data.notes())


def test_rare_strata_go_with_the_most():
    labels = [(1.0, 0.0)] * 20 + [(0.0, 1.0)] * 8 + [(1.0, 1.0)] * 2 + [(0.0, 0.0)] * 3
    found = collections.Counter(strata(labels, "labels"))
    assert sorted(found.values()) == [10, 23]
    assert strata([5, 3, 5], "classes") == [5, 3, 5]
    assert [*collections.Counter(strata([(float(n),) for n in range(100)], "numbers")).values()] == [10] * 10


def test_a_line_with_more_cells_than_columns_is_refused(pictures):
    file = listed(pictures, "long.csv", ["path", "label"], [("1.png", "shirt"), ("2.png", "shirt", " red")])
    assert list_csv(file).obstacles == (
        f"{file}, line 3: 3 cells, and 2 columns: put a cell with ',' in it into quotes.",
    )
    empty = listed(pictures, "empty.csv", ["path", "label"], [("1.png", "shirt", ""), ("2.png", "sock", " ")])
    assert list_csv(empty).class_names == ("shirt", "sock")


def test_a_list_without_a_header_names_no_number(pictures):
    file = listed(pictures, "bare.csv", ("0.png", "10.5"), [(f"{n}.png", f"{n}.5") for n in range(1, 9)])
    listing = list_csv(file)
    assert (listing.task, listing.class_names) == ("numbers", ("label",))


def test_two_marks_between_labels_are_not_guessed_at(pictures):
    rows = [("1.png", "a|b"), ("2.png", "a"), ("3.png", "b;a")]
    file = listed(pictures, "marks.csv", ["path", "labels"], rows)
    with pytest.raises(ValueError, match="cells have '|' and ';' in them: write one between labels everywhere"):
        list_csv(file, task="labels")
    assert list_csv(file, label_separator="|").class_names == ("a", "b", "b;a")


def test_numbers_are_written_as_everywhere(pictures):
    commas = listed(pictures, "commas.csv", ["path", "label"], [("1.png", "1,5"), ("2.png", "2,5")])
    with pytest.raises(ValueError, match="cells such as '1,5' look like numbers with a decimal comma: write a point"):
        list_csv(commas)
    assert list_csv(commas, task="classes").class_names == ("1,5", "2,5")
    thousand = listed(pictures, "thousand.csv", ["path", "label"], [("1.png", "1_000"), ("2.png", "2")])
    with pytest.raises(ValueError, match="must hold a number in each line. Received: '1_000'"):
        list_csv(thousand, task="numbers")
