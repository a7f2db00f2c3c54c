"""Several labels, and numbers, from TFDS: of features that hold several classes, yes and no, or numbers."""

import io

import numpy as np
import pytest
from PIL import Image

from kresnets.data import load_data

tfds = pytest.importorskip("tensorflow_datasets")
COUNT = 30


class TinyFaces(tfds.core.GeneratorBasedBuilder):
    """Pictures with what celeb_a, voc and utk_faces say of theirs."""

    VERSION = tfds.core.Version("1.0.0")

    def _info(self):
        yes_no = {"Smiling": tfds.features.Scalar(np.bool_), "Young": tfds.features.Scalar(np.bool_)}
        features = {
            "image": tfds.features.Image(shape=(8, 8, 3), encoding_format="png"),
            "filename": tfds.features.Text(),
            "attributes": yes_no,
            "objects": tfds.features.Sequence(tfds.features.ClassLabel(names=["cat", "dog", "cow"])),
            "age": tfds.features.Scalar(np.float32),
            "children": tfds.features.Scalar(np.int64),
            "about": tfds.features.Text(),
        }
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

    def _split_generators(self, dl_manager):
        return {"train": self._generate_examples()}

    def _generate_examples(self):
        for n in range(COUNT):
            file = io.BytesIO()
            Image.new("RGB", (8, 8), (8 * n, 9, n)).save(file, "PNG")
            yield (
                n,
                {
                    "image": io.BytesIO(file.getvalue()),
                    "filename": f"{n}.png",
                    "attributes": {"Smiling": n % 2 == 0, "Young": n % 3 == 0},
                    "objects": [thing for thing in range(3) if n % (thing + 2) == 0],
                    "age": 20 + n / 2,
                    "children": n % 4,
                    "about": "a face",
                },
            )


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return str(tmp_path_factory.mktemp("tfds"))


def said(place, **options):
    data = load_data("tiny_faces", data_dir=place, progress=False, **options)
    parts = (data.train, data.validation, data.test)
    return data, {int(n[:-4]): row.tolist() for part in parts for n, row in zip(part.ids, part.labels)}


def test_several_classes_and_yes_and_no_are_labels(place):
    data, labels = said(place, columns={"label": "objects"})
    assert data.task == "labels" and data.class_names == ("cat", "dog", "cow")
    assert labels == {n: [n % 2 == 0, n % 3 == 0, n % 4 == 0] for n in range(COUNT)}
    data, labels = said(place, columns=["label=attributes"], task="labels")
    assert data.task == "labels" and data.class_names == ("Smiling", "Young")
    assert labels == {n: [n % 2 == 0, n % 3 == 0] for n in range(COUNT)}


def test_numbers(place):
    data, numbers = said(place, columns={"label": "age"})
    assert data.task == "numbers" and data.class_names == ("age",)
    assert numbers == {n: [20 + n / 2] for n in range(COUNT)}
    data, numbers = said(place, columns=["label=age,children", "path=image"])
    assert data.task == "numbers" and numbers == {n: [20 + n / 2, n % 4] for n in range(COUNT)}
    assert said(place, columns={"label": "children"})[0].task == "classes"
    assert said(place, columns={"label": "children"}, task="numbers")[0].task == "numbers"


@pytest.mark.everything
def test_the_defects_of_solar_cells_as_numbers(tmp_path):
    pytest.importorskip("elpv_dataset", reason="kresnets[elpv] is an extra")
    from elpv_dataset.utils import load_dataset

    data = load_data("elpv/mono", data_dir=str(tmp_path), columns={"label": "probability"}, progress=False)
    _, probability, kind = load_dataset()
    found = np.concatenate([part.labels[:, 0] for part in (data.train, data.validation, data.test)])
    assert data.task == "numbers" and sorted(found) == pytest.approx(sorted(probability[kind == "mono"]))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({}, "name those to take with `columns`"),
        ({"columns": {"label": "weight"}}, "`columns` must name features of 'tiny_faces'"),
        ({"columns": {"group": "age"}}, "`columns` must name features"),
        ({"columns": {"label": "about"}}, "neither a class, nor several, nor yes and no, nor numbers"),
        ({"columns": {"label": "objects"}, "task": "numbers"}, "are of task='labels'. Received: task='numbers'"),
        ({"columns": ["label=age,children"], "task": "labels"}, "must be yes and no"),
        ({"columns": {"label": "objects"}, "label_separator": "|"}, "`label_separator` is for cells of a CSV file"),
    ],
)
def test_what_is_refused(place, options, words):
    with pytest.raises(ValueError, match=words):
        load_data("tiny_faces", data_dir=place, progress=False, **options)
