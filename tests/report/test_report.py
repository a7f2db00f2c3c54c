"""The pictures read back, Grad-CAM against computations by hand, and the page as a browser's parser sees it."""

import base64
import csv
import html.parser
import itertools
import os
import pathlib
import subprocess
import sys
import textwrap

import keras
import numpy as np
import pytest
from keras import layers
from matplotlib.backends.backend_agg import RendererAgg
from PIL import Image

import kresnets
from kresnets import report
from kresnets.report import figures, metrics

GROUPS = ["stem", "stage1", "stage2", "stage3", "stage4", "head"]
LONG = "a_cell_with_a_long_description_of_its_defects_and_$more$_of_them_that_goes_on_and_on_number_"


@pytest.fixture(scope="module")
def photographs():
    """Ten real photographs of solar cells, RGB 0..255, 300 x 300."""
    elpv = pytest.importorskip("elpv_dataset")
    files = sorted((pathlib.Path(elpv.__file__).parent / "data" / "images").glob("*.png"))[:1000:100]
    return np.stack([np.asarray(Image.open(file).convert("RGB")) for file in files])


@pytest.fixture
def drawn(monkeypatch):
    """Collect the matplotlib figures that are saved."""
    made, save = [], figures.save
    monkeypatch.setattr(figures, "save", lambda figure, path: (made.append(figure), save(figure, path)))
    return made


def assert_readable(figure, path, monkeypatch):
    """Assert that no two texts touch, all are inside and large enough to halve, and the file suits a README."""
    texts, draw = [], RendererAgg.draw_text
    with monkeypatch.context() as patch:  # what is drawn, not what could be: ticks outside the axes are not

        def draw_text(self, gc, x, y, s, prop, angle, ismath=False, mtext=None):
            texts.append(mtext)
            draw(self, gc, x, y, s, prop, angle, ismath, mtext)

        patch.setattr(RendererAgg, "draw_text", draw_text)
        figure.canvas.draw()
    boxes = [text.get_window_extent() for text in texts]
    width, height = figure.canvas.get_width_height()
    for text, box in zip(texts, boxes):
        assert box.x0 > -1 and box.y0 > -1 and box.x1 < width + 1 and box.y1 < height + 1, text
        assert text.get_fontsize() >= 9, text
    for (a, one), (b, other) in itertools.combinations(zip(texts, boxes), 2):
        across, down = min(one.x1, other.x1) - max(one.x0, other.x0), min(one.y1, other.y1) - max(one.y0, other.y0)
        assert across < 1 or down < 1, f"{a.get_text()!r} on {b.get_text()!r}"
    assert texts and path.stat().st_size < 300_000
    with Image.open(path) as image:
        assert image.size == (width, height)


def course(epochs, starts, groups, validation=True, named=True):
    """A history as a run writes it; at each of `starts` one more group trains, from the last down."""
    falling = np.exp(-np.arange(epochs) / epochs)
    stage = np.searchsorted(starts, np.arange(epochs), side="right") - 1
    history = {"epoch": list(range(epochs)), "loss": falling.tolist(), "accuracy": (1 - falling / 2).tolist()}
    if validation:
        history |= {"val_loss": (falling + 0.1).tolist(), "val_accuracy": (0.9 - falling / 2).tolist()}
    history["learning_rate"] = (1e-3 * falling).tolist()
    for i, group in enumerate(groups):
        depth = len(groups) - 1 - i
        history[f"learning_rate/{group}"] = np.where(stage >= depth, 1e-3 * falling * 0.5**depth, 0).tolist()
    history["trainable_parameters"] = (1000 * 4.0**stage).tolist()
    history["stage"] = [groups[len(groups) - 1 - s] for s in stage] if named else stage.tolist()
    return history


@pytest.mark.parametrize(
    ("epochs", "starts", "groups", "validation", "named"),
    [
        (2, [0, 1], GROUPS, True, True),
        (3, [0], ["head"], False, True),
        (12, [0, 3, 6, 9], GROUPS, True, False),
        (40, [0, 10, 20, 30, 38, 39], GROUPS, True, True),
        (60, [0, 1, 2, 3, 4, 5], GROUPS, True, True),
        (60, [0, 57, 58, 59], [LONG + str(i) for i in range(4)], False, True),
    ],
)
def test_curves_are_readable(tmp_path, drawn, monkeypatch, epochs, starts, groups, validation, named):
    report.curves(course(epochs, starts, groups, validation, named), tmp_path / "curves.png")
    assert_readable(drawn[0], tmp_path / "curves.png", monkeypatch)
    shown = [text.get_text() for text in drawn[0].axes[0].texts if text.get_text()]
    thawed = [f"+ {group}"[2 * (not i) :] for i, group in enumerate(groups[::-1][: len(starts)])]
    assert shown == ([figures.fitted(drawn[0].canvas, name, 260) for name in thawed] if len(starts) > 1 else [])


def test_curves_draw_the_numbers_of_the_file(tmp_path, drawn):
    history = course(6, [0, 3], GROUPS)
    with open(tmp_path / "history.csv", "w", newline="") as file:
        table = csv.writer(file)
        table.writerow(sorted(history))  # as Keras's CSVLogger writes it
        table.writerows(zip(*(history[name] for name in sorted(history))))
    report.curves(tmp_path / "history.csv", tmp_path / "curves.png")
    loss, accuracy, rate = drawn[0].axes
    for axes, name in ((loss, "loss"), (accuracy, "accuracy")):
        lines = [line for line in axes.lines if line.get_label() in ("training", "validation")]
        for line, key in zip(lines, (name, f"val_{name}"), strict=True):
            np.testing.assert_array_equal(line.get_ydata(), history[key])
            np.testing.assert_array_equal(line.get_xdata(), np.arange(1, 7))  # in the file from 0
    legend = [text.get_text() for text in drawn[0].legends[1].get_texts()]
    assert legend == ["head", "stage4", "stage3 (frozen)", "stage2 (frozen)", "stage1 (frozen)", "stem (frozen)"]
    np.testing.assert_array_equal(rate.lines[1].get_ydata(), [np.nan] * 3 + history["learning_rate/stage4"][3:])


def test_a_wild_first_epoch_does_not_flatten_the_curves(tmp_path, drawn):
    loss = [0.9, 0.8, *np.linspace(0.7, 0.3, 18)]
    for first, top, label in ((50.3, 2, "loss (at most 50.3)"), (1.2, 2, "loss"), (float("nan"), 2, "loss")):
        report.curves({"loss": loss, "val_loss": [first, *loss[1:]]}, tmp_path / "curves.png")
        axis = drawn[-1].axes[0]
        assert axis.get_ylim()[1] < top and axis.get_ylabel() == label


def test_curves_of_kerass_own_csv_logger_with_a_loss_that_is_no_number(tmp_path, drawn, monkeypatch):
    model = keras.Sequential([keras.Input((2,)), layers.Dense(1)])
    model.compile("sgd", "mse")
    logger = keras.callbacks.CSVLogger(str(tmp_path / "history.csv"))
    model.fit(np.full((4, 2), np.nan), np.ones(4), epochs=2, verbose=0, callbacks=[logger])
    report.curves(tmp_path / "history.csv", tmp_path / "curves.png")
    assert_readable(drawn[0], tmp_path / "curves.png", monkeypatch)
    assert "no finite value" in [text.get_text() for text in drawn[0].axes[0].texts]


@pytest.mark.parametrize("history", [{}, {"loss": []}, {"accuracy": [1.0]}, {"loss": [1.0], "val_loss": [1.0, 2.0]}])
def test_curves_refuse_what_is_no_history(tmp_path, history):
    with pytest.raises(ValueError, match="needs a column `loss`"):
        report.curves(history, tmp_path / "curves.png")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("classes", [2, 20, 120, *(pytest.param(n, marks=pytest.mark.everything) for n in (10, 40))])
@pytest.mark.parametrize("name", ["class ", LONG])
def test_confusion_is_readable(tmp_path, drawn, monkeypatch, classes, name):
    rng = np.random.default_rng(0)
    labels = rng.integers(0, classes, 3000)
    predictions = np.where(rng.random(3000) < 0.7, labels, rng.integers(0, classes, 3000))
    report.confusion(labels, predictions, [name + str(i) for i in range(classes)], tmp_path / "confusion.png")
    assert_readable(drawn[0], tmp_path / "confusion.png", monkeypatch)
    ticks = [label.get_text() for label in drawn[0].axes[0].get_yticklabels()]
    assert len(set(ticks)) == len(ticks) >= min(classes, 40)  # shortened names still differ


def test_confusion_shows_the_shares_and_counts(tmp_path, drawn):
    report.confusion([0, 0, 0, 1, 1, 1], [0, 1, 0, 1, 1, -1], ["a", "b", "c"], tmp_path / "confusion.png")
    image = drawn[0].axes[0].images[0].get_array()
    np.testing.assert_allclose(image.filled(-1), [[2 / 3, 1 / 3, 0], [0, 1, 0], [-1, -1, -1]])  # no image of c
    assert [text.get_text() for text in drawn[0].axes[0].texts] == list("210020000")
    assert "1 without one" in drawn[0].axes[0].get_xlabel()


def test_confusion_refuses_classes_without_a_name(tmp_path):
    with pytest.raises(ValueError, match="from 0 to 1"):
        report.confusion([0, 1], [0, 2], ["a", "b"], tmp_path / "confusion.png")
    with pytest.raises(ValueError, match="a prediction for each label"):
        report.confusion([0, 1], [0], ["a", "b"], tmp_path / "confusion.png")
    assert not list(tmp_path.iterdir())


def test_names_of_any_folder_are_drawn(tmp_path):
    names = ["$x^$", "caf\udce9", "two\nlines", "\\frac{"]  # the second is what Python makes of a name that is no UTF-8
    report.confusion([0, 1, 2, 3], [0, 1, 2, 2], names, tmp_path / "confusion.png")
    report.mistakes(np.zeros((4, 8, 8)), [0, 1, 2, 3], np.eye(4)[[1, 2, 3, 0]], None, names, tmp_path / "mistakes.png")
    report.html(tmp_path / "report.html", names[1], {}, {}, "again", dict.fromkeys(names, tmp_path / "confusion.png"))
    assert len(list(tmp_path.iterdir())) == 3


def test_worst_mistakes_are_the_surest_wrong_answers():
    scores = [[0.9, 0.1], [0.3, 0.7], [np.nan, 0.5], [0.45, 0.55], [0.6, 0.4], [0.2, 0.8]]
    assert report.worst_mistakes([0, 0, 1, 0, 1, 1], scores).tolist() == [1, 4, 3, 2]
    assert report.worst_mistakes([0, 0, 1, 0, 1, 1], scores, count=1).tolist() == [1]
    assert report.worst_mistakes([0, 1, 0], [[0.9, 0.1], [0.3, 0.7], [0.6, 0.4]], count=2).tolist() == [2, 1]


@pytest.mark.parametrize(
    ("count", "wrong", "heated"),
    [
        pytest.param(*each, marks=pytest.mark.everything if sum(each) % 2 else ())
        for each in itertools.product([1, 3, 8], [True, False], [True, False])
    ],
)
def test_mistakes_are_readable(tmp_path, drawn, monkeypatch, photographs, count, wrong, heated):
    names = ["functional", LONG] if count == 3 else ["functional", "W" * 60]
    scores = np.linspace(0.55, 0.99, len(photographs))
    heat = np.tile(np.linspace(0, 1, 300), (len(photographs), 300, 1)) if heated else None
    labels = np.full(len(photographs), 0 if wrong else 1)
    probabilities = np.stack([1 - scores, scores], axis=1)
    report.mistakes(photographs, labels, probabilities, heat, names, tmp_path / "mistakes.png", count=count)
    assert_readable(drawn[0], tmp_path / "mistakes.png", monkeypatch)
    assert len(drawn[0].axes) == count * (1 + heated)
    texts = [text.get_text() for text in drawn[0].texts]
    assert ("No mistakes" in texts[0]) != wrong
    assert texts[1].startswith("true: ") and texts[2].endswith("0.99" if wrong else "0.55")
    photograph = drawn[0].axes[0].images[0].get_array()
    np.testing.assert_allclose(photograph * 255, photographs[-1 if wrong else 0], atol=1e-6)


def test_mistakes_refuse_what_does_not_belong_together(tmp_path):
    images = np.zeros((2, 8, 8, 3))
    with pytest.raises(ValueError, match=r"\[2, 1, 2, 2\]"):
        report.mistakes(images, [0], [[0.4, 0.6]] * 2, None, ["a", "b"], tmp_path / "mistakes.png")
    with pytest.raises(ValueError, match="as large as its image"):
        report.mistakes(images, [0, 0], [[0.4, 0.6]] * 2, np.zeros((2, 4, 4)), ["a", "b"], tmp_path / "mistakes.png")
    assert not list(tmp_path.iterdir())


# Grad-CAM


def class_activation_maps(features, kernel, classes, size):
    """Zhou et al. 2016: sum_k w_k A_k, here without what speaks against the class, enlarged by Pillow."""
    maps = np.maximum(np.einsum("nhwk,kn->nhw", np.asarray(features), np.asarray(kernel)[:, classes]), 0)
    large = [np.asarray(Image.fromarray(one).resize(size, Image.Resampling.BILINEAR)) for one in maps.astype("float32")]
    return np.stack([one / one.max() if one.max() > 0 else one for one in large])


@pytest.fixture(scope="module")
def trunk():
    keras.utils.set_random_seed(0)
    return kresnets.CifarResNet8(include_top=False, input_shape=(32, 32, 3))


@pytest.fixture(scope="module")
def small(photographs):
    resized = [np.asarray(Image.fromarray(photograph).resize((32, 32))) for photograph in photographs]
    return kresnets.preprocess_input(np.stack(resized).astype("float32"))


def test_grad_cam_of_one_unit_is_the_same_however_its_sigmoid_is_said(small):
    image = keras.Input((32, 32, 3))
    features = layers.Conv2D(4, 3, activation="relu", name="features")(image)
    kernel = np.random.default_rng(0).normal(size=(4, 1))
    maps = []
    for said in (
        [layers.Dense(1, "sigmoid")],
        [layers.Dense(1), keras.ops.sigmoid],
        [layers.Dense(1), layers.Activation("sigmoid"), layers.Activation("linear", dtype="float32")],
    ):
        out = layers.GlobalAveragePooling2D()(features)
        for step in said:
            out = step(out)
        model = keras.Model(image, out)
        said[0].set_weights([kernel, np.full(1, -9.0)])  # all answers are the first class
        maps.append(report.grad_cam(model, small))
        assert (model.predict(small, verbose=0) < 0.5).all()
    assert maps[0].max() > 0
    for other in maps[1:]:
        np.testing.assert_allclose(other, maps[0], atol=1e-3)


@pytest.mark.always("trunk-softmax", "all-softmax")
@pytest.mark.parametrize("activation", ["softmax", pytest.param(None, marks=pytest.mark.everything)])
@pytest.mark.parametrize("nested", ["flat", "trunk", "pooling trunk", "head", "all"])
def test_grad_cam_of_pooling_and_dense_is_the_class_activation_map(trunk, small, activation, nested):
    keras.utils.set_random_seed(1)
    dense = layers.Dense(4, activation=activation)
    pool = layers.GlobalAveragePooling2D()
    image = keras.Input((32, 32, 3))
    if nested == "flat":
        model = keras.Model(trunk.input, dense(pool(trunk.output)))
    elif nested == "trunk":
        model = keras.Model(image, dense(layers.Dropout(0.5)(pool(trunk(layers.RandomFlip()(image))))))
    elif nested == "pooling trunk":
        model = keras.Model(image, dense(keras.Model(trunk.input, pool(trunk.output))(image)))
    elif nested == "head":
        model = keras.Model(trunk.input, keras.Sequential([pool, dense])(trunk.output))
    else:
        model = keras.Sequential([image, keras.Model(trunk.input, dense(pool(trunk.output)))])
    before = model.predict(small, verbose=0)
    features = trunk.predict(small, verbose=0)
    heat = report.grad_cam(model, small, batch_size=4)
    assert heat.shape == (10, 32, 32) and heat.dtype == np.float32 and heat.min() >= 0 and heat.max() == 1
    expected = class_activation_maps(features, dense.kernel, before.argmax(axis=1), (32, 32))
    np.testing.assert_allclose(heat, expected, atol=2e-5)
    chosen = np.arange(10) % 4
    np.testing.assert_allclose(
        report.grad_cam(model, small, classes=chosen),
        class_activation_maps(features, dense.kernel, chosen, (32, 32)),
        atol=2e-5,
    )
    np.testing.assert_array_equal(model.predict(small, verbose=0), before)  # the model is as it was


def test_grad_cam_of_other_heads_is_the_gradient_by_hand(photographs):
    keras.utils.set_random_seed(0)
    image = keras.Input((16, 16, 3))
    features = layers.Conv2D(5, 3, strides=2, padding="same", activation="relu", name="map")(image)
    hidden, last = layers.Dense(7, activation="relu"), layers.Dense(3)
    model = keras.Model(image, layers.Softmax()(last(hidden(layers.Flatten()(features)))))
    x = np.stack([np.asarray(Image.fromarray(one).resize((16, 16))) for one in photographs]) / 255.0
    maps = keras.Model(image, features).predict(x, verbose=0)
    active = maps.reshape(10, -1) @ np.asarray(hidden.kernel) > 0
    gradients = ((active * np.asarray(last.kernel)[:, 1]) @ np.asarray(hidden.kernel).T).reshape(maps.shape)
    heat = np.maximum((maps * gradients.mean(axis=(1, 2), keepdims=True)).sum(axis=-1), 0)
    large = np.stack([np.asarray(Image.fromarray(one).resize((16, 16), Image.Resampling.BILINEAR)) for one in heat])
    highest = large.max(axis=(1, 2), keepdims=True)
    for layer in (None, "map"):
        got = report.grad_cam(model, x, classes=np.ones(10, int), layer=layer)
        np.testing.assert_allclose(got, np.divide(large, highest, out=0 * large, where=highest > 0), atol=1e-5)


def test_grad_cam_of_a_stage_inside_and_in_bfloat16(trunk, small, tmp_path):
    keras.utils.set_random_seed(1)
    model = kresnets.CifarResNet8(input_shape=(32, 32, 3))
    stage = [layer.name for layer in model.layers if layer.name.startswith("stage2")][-1]
    exact = report.grad_cam(model, small, layer=stage)
    assert exact.shape == (10, 32, 32)
    model.save(tmp_path / "model.keras")  # what was built over its layers is not in the file
    again = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(report.grad_cam(again, small, layer=stage), exact)
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        short = kresnets.CifarResNet8(input_shape=(32, 32, 3))
    finally:
        keras.config.set_dtype_policy("float32")
    short.set_weights(model.get_weights())
    classes = np.zeros(10, int)
    exact, rounded = (report.grad_cam(which, small, classes=classes) for which in (model, short))
    assert np.abs(exact - rounded).mean() < 0.05


def test_grad_cam_finds_what_the_answer_rests_on(photographs):
    """The model answers by brightness alone, so a lamp shone into a real photograph must be the place."""
    image = keras.Input((300, 300, 3))
    bright = layers.Conv2D(1, 15, strides=5, padding="same", activation="relu", name="bright")
    model = keras.Model(
        image, layers.Dense(2, "softmax", use_bias=False)(layers.GlobalAveragePooling2D()(bright(image)))
    )
    model.set_weights([np.full((15, 15, 3, 1), 1 / 675), np.array([-200.0]), np.array([[-1.0, 1.0]])])
    lit = photographs.astype("float32")
    corners = [(20 * i + 10, 200 - 15 * i) for i in range(len(lit))]
    for one, (top, left) in zip(lit, corners):
        one[top : top + 40, left : left + 40] = 255
    for heat, (top, left) in zip(report.grad_cam(model, lit), corners):
        y, x = np.unravel_index(heat.argmax(), heat.shape)
        assert top <= y < top + 40 and left <= x < left + 40


def test_grad_cam_refuses_in_a_sentence(trunk, small):
    class Subclassed(keras.Model):
        def call(self, x):
            return x

    with pytest.raises(ValueError, match="Functional or built Sequential.*Subclassed"):
        report.grad_cam(Subclassed(), small)
    model = kresnets.CifarResNet8(input_shape=(32, 32, 3))
    with pytest.raises(ValueError, match="no layer 'stage9'"):
        report.grad_cam(model, small, layer="stage9")
    inside = next(layer.name for layer in model.layers if layer.name.startswith("stage2_block1_conv"))
    with pytest.raises(ValueError, match="Not all paths"):
        report.grad_cam(model, small, layer=inside)
    with pytest.raises(ValueError, match="no layer that turns a feature map"):
        report.grad_cam(trunk, small)
    with pytest.raises(ValueError, match="from 0 to 9"):
        report.grad_cam(model, small, classes=np.full(10, 10))
    with pytest.raises(ValueError, match="one integer for each of the 10 images"):
        report.grad_cam(model, small, classes=[1])


@pytest.mark.everything
@pytest.mark.jax
def test_grad_cam_on_jax_in_both_data_formats(tmp_path):
    """On JAX; and drawing leaves the user's pyplot (which Keras imports) alone."""
    script = f"""
        import keras, numpy as np
        from keras import layers
        from kresnets import report
        for data_format, axis, sum_of in (("channels_last", -1, "nhwk,kn->nhw"), ("channels_first", 1, "nkhw,kn->nhw")):
            keras.config.set_image_data_format(data_format)
            keras.utils.set_random_seed(0)
            image = keras.Input((12, 12, 3) if axis == -1 else (3, 12, 12))
            features = layers.Conv2D(5, 3, padding="same", activation="relu")(image)
            features = layers.BatchNormalization(axis=axis)(features)
            dense = layers.Dense(3, "softmax")
            model = keras.Model(image, dense(layers.GlobalAveragePooling2D()(features)))
            x = np.random.default_rng(0).random((5, *image.shape[1:]))
            maps = keras.Model(image, features).predict(x, verbose=0)
            chosen = model.predict(x, verbose=0).argmax(axis=1)
            heat = np.maximum(np.einsum(sum_of, maps, np.asarray(dense.kernel)[:, chosen]), 0)
            heat = heat / heat.max(axis=(1, 2), keepdims=True)
            np.testing.assert_allclose(report.grad_cam(model, x), heat, atol=1e-5)
        from matplotlib import pyplot
        pyplot.switch_backend("svg")
        report.curves({{"loss": [2.0, 1.0]}}, {str(tmp_path / "curves.png")!r})
        assert pyplot.get_backend() == "svg" and not pyplot.get_fignums()
    """
    environment = {**os.environ, "KERAS_BACKEND": "jax"}
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


# The page


class Reader(html.parser.HTMLParser):
    """What a browser would see: its texts, its pictures and whatever it would fetch."""

    def __init__(self, page):
        super().__init__()
        self.texts, self.images, self.fetched, self.tags = [], [], [], []
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.tags.append(tag)
        for address in filter(None, (attributes.get("src"), attributes.get("href"))):
            kind, _, data = address.partition("base64,")
            if kind == "data:image/png;":
                self.images.append((base64.b64decode(data), attributes["alt"]))
            elif address != "data:,":
                self.fetched.append(address)

    def handle_data(self, data):
        self.texts.append(data)


def test_page_holds_everything_and_fetches_nothing(tmp_path):
    rng = np.random.default_rng(0)
    names = ["whole & <sound>", "<script>alert(1)</script>"]
    labels, scores = rng.integers(0, 2, 100), rng.random(100)
    numbers = metrics.evaluate(labels, np.stack([1 - scores, scores], axis=1), names) | {"seconds": 12.5}
    picture = tmp_path / "confusion.png"
    report.confusion(labels, scores > 0.5, names, picture)
    report.html(
        tmp_path / "report.html",
        title="Cells <1>",
        metrics=numbers,
        recipe={"learning_rate": 1e-5, "stages": None},
        command='finetune.py --data "a b"',
        pictures={"Confusion": picture},
        notes=["3 images were damaged."],
        tables={"Images": [("class", "training"), (names[1], 1234)]},
    )
    seen = Reader((tmp_path / "report.html").read_text(encoding="utf-8"))
    text = "\n".join(seen.texts)
    assert seen.images == [(picture.read_bytes(), "Confusion")] and not seen.fetched and "script" not in seen.tags
    for expected in (*names, "Cells <1>", '--data "a b"', "1e-05", "3 images were damaged.", "1,234", "12.5", "–"):
        assert expected in text, expected
    low, high = numbers["accuracy_interval"]
    assert f"{numbers['accuracy']:.3f}" in text and f"{low:.3f} to {high:.3f}" in text and numbers["notes"] == []
    assert f"accuracy {max(np.mean(labels), 1 - np.mean(labels)):.3f}" in text
    for metric in ("recall", "precision"):
        assert f"{numbers['per_class'][names[1]][metric]:.3f}" in text


def test_page_of_many_classes_folds_its_tables_and_a_missing_picture_writes_nothing(tmp_path):
    labels = np.arange(480) % 120
    numbers = metrics.evaluate(labels, np.full((480, 120), 1 / 120), [f"breed {i}" for i in range(120)])
    report.html(tmp_path / "report.html", "Breeds", numbers, {}, "again", {})
    seen = Reader((tmp_path / "report.html").read_text(encoding="utf-8"))
    assert "details" in seen.tags and "breed 119" in seen.texts
    with pytest.raises(FileNotFoundError):
        report.html(tmp_path / "other.html", "Breeds", numbers, {}, "again", {"Curves": tmp_path / "none.png"})
    assert [file.name for file in tmp_path.iterdir()] == ["report.html"]
