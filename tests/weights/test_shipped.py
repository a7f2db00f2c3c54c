"""The weights that ship with kresnets: whole, small, and worth what their card says."""

import dataclasses
import pathlib

import numpy as np
import pytest
from claims import images
from PIL import Image
from places import GOLDEN
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import kresnets
from kresnets.weights import fetch, sources

SHIPPED = [row for row in sources.PUBLISHED if row.host == "package"]
FOLDER = pathlib.Path(kresnets.__file__).parent / "weights" / "shipped"
each = pytest.mark.parametrize("row", SHIPPED, ids=lambda row: row.network)


def test_the_folder_holds_the_files_of_the_table_and_their_card():
    assert {path.name for path in FOLDER.iterdir()} == {
        *(row.file for row in SHIPPED),
        *(row.variances for row in sources.PUBLISHED if row.variances),
        "README.md",
    }


@each
def test_a_file_is_small_and_gives_its_trunk_to_a_new_head(row):
    assert fetch.fetch(row, trunk_only=False).stat().st_size < 6e6
    build = getattr(kresnets, row.network)
    model, whole = build(weights=row.tag, classes=3), build(weights=row.tag, classes=200)
    assert model.input_shape == (None, row.input_size, row.input_size, 3)
    assert kresnets.preprocessing_of(model) == kresnets.Preprocessing("torch", size=row.input_size)
    for mine, theirs in zip(model.layers[:-1], whole.layers[:-1], strict=True):
        for one, other in zip(mine.weights, theirs.weights, strict=True):
            np.testing.assert_array_equal(one, other)
    assert "kresnets itself" in str(kresnets.weights.list(row.network)) and row.tag in str(kresnets.weights.list())
    start = build(weights=None, classes=3)
    assert not np.array_equal(start.weights[0], model.weights[0])


@each
def test_it_is_no_answer_to_imagenet(row):
    with pytest.raises(ValueError, match=f"{row.network}: no ImageNet weights are known"):
        getattr(kresnets, row.network)(weights="imagenet")


def test_it_knows_pictures_that_it_never_saw():
    """25 pictures that were drawn by the code of its time, of every eighth of its 200 classes: chance is 0.005, its
    card says 0.7165."""
    sheet = np.asarray(Image.open(GOLDEN / "drawn48.png"))
    images = sheet.reshape(5, 48, 5, 48, 3).transpose(0, 2, 1, 3, 4).reshape(25, 48, 48, 3)
    model = kresnets.SmallResNet20(weights="kresnets/drawn48", classes=200, classifier_activation=None)
    found = model.predict(kresnets.preprocess_input(np.float32(images), mode="torch"), verbose=0).argmax(-1)
    assert np.sum(found == np.arange(0, 200, 8)) >= 12


@pytest.mark.everything
@pytest.mark.slow
def test_the_distilled_trunk_tells_defects_that_it_never_saw():
    """What scikit-learn finds in the features of 75 photographs of solar cells, by area under the ROC curve on 268
    others: its teacher's give 0.866, those of a trunk that was never trained 0.77 (means of five draws)."""
    found = {}
    for weights in ("kresnets/distilled", None):
        trunk = kresnets.ResNet18DThin(weights=weights, include_top=False, pooling="avg")
        aucs = []
        for seed in range(3):
            drawn = images.target("elpv/mono", 128, 75, seed)
            train, test = (
                trunk.predict(kresnets.preprocess_input(np.float32(part), mode="torch"), verbose=0)
                for part in (drawn.train, drawn.test)
            )
            judge = make_pipeline(StandardScaler(), LogisticRegression(C=0.01)).fit(train, drawn.train_labels)
            aucs.append(roc_auc_score(drawn.test_labels, judge.predict_proba(test)[:, 1]))
        found[weights] = np.mean(aucs)
    assert found["kresnets/distilled"] > 0.83 and found["kresnets/distilled"] > found[None] + 0.04, found


def test_a_file_that_is_damaged_or_missing_is_told_in_a_sentence(tmp_path, monkeypatch):
    row = SHIPPED[0]
    lost = dataclasses.replace(row, file="lost.weights.h5")
    for other, what in ((dataclasses.replace(row, md5="0" * 32), "is damaged"), (lost, "is not there")):
        monkeypatch.setattr(sources, "PUBLISHED", (other,))
        with pytest.raises(RuntimeError, match=f"ships with kresnets, and {what}: install kresnets anew") as raised:
            getattr(kresnets, row.network)(weights=row.tag)
        assert "\n" not in str(raised.value)
