"""Files for other runtimes, asked by those runtimes and held against `model.predict`."""

import importlib.util
import json
import logging
import os
import re
import resource
import signal
import subprocess
import sys
import threading
import time

import commands
import keras
import numpy as np
import pytest
import tensorflow as tf
from families import SMALL, smallest
from keras import layers
from lively import make_lively
from PIL import Image
from places import ROOT

import kresnets
import kresnets.data
from kresnets.export import export_file
from kresnets.runs import folder as folders

SUFFIXES = {"onnx": ".onnx", "litert": ".tflite", "litert-int8": ".tflite", "openvino": ".xml"}
FLOAT32 = ("onnx", "litert", "openvino")
EVERYTHING = pytest.mark.everything


def libraries(format):
    for name in {"onnx": ("onnx", "onnxruntime", "tf2onnx"), "openvino": ("openvino",)}.get(
        format, ("ai_edge_litert",)
    ):
        # Not imported: that OpenVINO is imported without its telemetry is tested here.
        if importlib.util.find_spec(name) is None:
            pytest.skip(f"{format} needs {name}: pip install 'kresnets[formats]'")


def cases(*rows):
    """Mark what the quick tests leave out."""
    return [pytest.param(*row[:2], marks=[EVERYTHING] * (len(row) > 2), id="-".join(row[:2])) for row in rows]


def photographs(count, size, seed=0):
    """Smooth colours with some noise, whole numbers 0..255, as different from each other as photographs are."""
    rng = np.random.default_rng(seed)
    coarse = rng.uniform(0, 255, (count, 4, 4, 3)).astype("float32")
    smooth = tf.image.resize(coarse, (size, size), "bicubic").numpy() + rng.normal(0, 4, (count, size, size, 3))
    return np.clip(np.round(smooth), 0, 255).astype("float32")


def small_net(activation="softmax", units=3, size=12, groups=1):
    head = [layers.GlobalAveragePooling2D(), layers.Dense(units, activation=activation)]
    stack = [layers.Conv2D(9, 3, strides=2, groups=groups, use_bias=False), layers.BatchNormalization(), layers.ReLU()]
    return make_lively(keras.Sequential([keras.Input((size, size, 3)), *stack, *head]))


def family_net(family):
    """A small network of a family with answers that tell photographs apart, none of them sure."""
    row = SMALL[family]
    model = make_lively(kresnets.build(row, weights=None, input_shape=smallest(row)))
    kernel, bias = model.layers[-1].get_weights()
    logits = np.log(keras_answer(model, photographs(8, model.input_shape[1], seed=2)))
    model.layers[-1].set_weights([kernel / np.ptp(logits, axis=0).max(), bias])
    return model


def keras_answer(model, images, mode="torch"):
    inputs = keras.applications.imagenet_utils.preprocess_input(images.copy(), mode=mode)
    return model.predict(inputs, verbose=0)


def ask(path, images):
    """Ask a file by its own runtime, without any of kresnets."""
    if path.suffix == ".onnx":
        import onnxruntime

        session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        [taken], [given] = session.get_inputs(), session.get_outputs()
        assert (taken.name, taken.shape[0], given.name, given.shape[0]) == ("images", "batch", "probabilities", "batch")
        return session.run(None, {"images": images})[0]
    if path.suffix == ".xml":
        import openvino

        compiled = openvino.Core().compile_model(path, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
        assert compiled.input("images").partial_shape[0].is_dynamic
        return compiled({"images": images})[compiled.output("probabilities")]
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(str(path))
    [taken], [given] = interpreter.get_input_details(), interpreter.get_output_details()
    assert taken["shape"][0] == 1 and taken["shape_signature"][0] == -1
    interpreter.resize_tensor_input(taken["index"], images.shape)
    interpreter.allocate_tensors()
    interpreter.set_tensor(taken["index"], images.astype(taken["dtype"]))
    interpreter.invoke()
    return interpreter.get_tensor(given["index"])


def zeros_before_max_pooling(path):
    """Count the paddings by 0 before a max pooling, which onnxruntime up to 1.26 at least loses."""
    import onnx

    graph = onnx.load(path).graph
    values = {each.name: onnx.numpy_helper.to_array(each) for each in graph.initializer}
    pooled = [node.input[0] for node in graph.node if node.op_type == "MaxPool"]
    paddings = [node for node in graph.node if node.op_type == "Pad" and node.output[0] in pooled]
    return len(paddings), sum(len(node.input) < 3 or values[node.input[2]] == 0 for node in paddings)


def left_in(folder):
    return sorted(child.name for child in folder.iterdir())


# --- the same answers ---


@pytest.mark.parametrize(
    ("family", "format"),
    cases(
        ("d", "litert"),
        ("v2", "onnx"),
        ("inception", "onnx"),
        ("d", "onnx", "long"),
        ("resnext", "onnx", "long"),
        ("d", "openvino", "long"),
        *((family, format, "long") for family in ("v2", "resnext", "inception") for format in ("litert", "openvino")),
        *((family, format, "long") for family in ("v1", "plain", "cifar", "inception-resnet") for format in FLOAT32),
    ),
)
def test_the_runtime_answers_as_keras_does(family, format, tmp_path):
    libraries(format)
    model = family_net(family)
    exported = export_file(model, tmp_path / f"net{SUFFIXES[format]}", format)
    images = photographs(5, model.input_shape[1])
    expected = keras_answer(model, images)
    assert expected.max() < 0.99 and np.ptp(expected, axis=0).max() > 0.05  # answers that show a difference
    for count in (1, 5, 2):  # a free batch
        np.testing.assert_allclose(ask(exported.path, images[:count]), expected[:count], atol=1e-4)
    assert exported.difference < 1e-4 and exported.agreement == 1
    if format == "onnx" and family == "v2":  # where a padding of 0 can be the largest of its window
        assert zeros_before_max_pooling(exported.path) == (1, 0)
    files = {exported.path.name, "net.images.json", "net.labels.txt"} | ({"net.bin"} if format == "openvino" else set())
    assert set(left_in(tmp_path)) == files
    assert exported.labels.read_text().split() == ["0", "1", "2", "3", "4"]


@pytest.mark.parametrize("format", FLOAT32)
def test_preprocessing_logits_and_labels_that_are_there_already(format, tmp_path):
    libraries(format)
    model = small_net(activation=None)
    labels = ["cat", "große Katze", "dog"]
    (tmp_path / "net.v1.labels.txt").write_text("cat\ngroße Katze\ndog\n", encoding="utf-8")
    path = tmp_path / f"net.v1{SUFFIXES[format]}"
    exported = export_file(model, path, format, labels, "caffe", fold=False, task="classes")
    images = photographs(3, 12)
    logits = keras_answer(model, images, "caffe").astype("float64")
    odds = np.exp(logits - logits.max(axis=1, keepdims=True))
    np.testing.assert_allclose(ask(exported.path, images), odds / odds.sum(axis=1, keepdims=True), atol=1e-4)
    assert exported.labels.read_text(encoding="utf-8").splitlines() == labels
    if format == "onnx":
        import onnx

        metadata = {each.key: each.value for each in onnx.load(exported.path).metadata_props}
        assert json.loads(metadata["labels"]) == labels
        onnx.checker.check_model(onnx.load(exported.path), full_check=True)
    if format == "openvino":  # whose import and conversions would be reported to its makers
        assert sys.modules.get("openvino_telemetry") is None and left_in(tmp_path)[0] == "net.v1.bin"


@pytest.mark.parametrize("format", [pytest.param("onnx"), pytest.param("litert", marks=EVERYTHING)])
def test_a_sigmoid_unit_becomes_two_classes_and_grouped_convolutions_go(format, tmp_path):
    libraries(format)
    model = small_net(activation="sigmoid", units=1, groups=3)  # Keras computes groups by a function of its own
    exported = export_file(model, tmp_path / f"net{SUFFIXES[format]}", format, ["whole", "cracked"], "tf")
    images = photographs(3, 12)
    cracked = keras_answer(model, images, "tf")
    np.testing.assert_allclose(ask(exported.path, images), np.hstack([1 - cracked, cracked]), atol=1e-4)


# --- int8 ---


@pytest.mark.parametrize(
    "family", ["d", *(pytest.param(each, marks=EVERYTHING) for each in ("v2", "inception", "resnext"))]
)
def test_int8_takes_pixels_and_keeps_most_labels(family, tmp_path):
    libraries("litert-int8")
    from ai_edge_litert.interpreter import Interpreter

    model = family_net(family)
    calibration = np.round(20 + 0.75 * photographs(40, model.input_shape[1]))  # neither black nor white among them
    exported = export_file(model, tmp_path / "net.tflite", "litert-int8", calibration=calibration)
    interpreter = Interpreter(str(exported.path))
    [taken] = interpreter.get_input_details()
    assert taken["dtype"] is np.uint8 and taken["quantization"] == (1.0, 0)  # a pixel is its own code
    kinds = [each["dtype"] for each in interpreter.get_tensor_details()]
    assert kinds.count(np.float32) == 1 and kinds.count(np.int8) > 20  # only the probabilities are float32
    answers, expected = ask(exported.path, calibration), keras_answer(model, calibration)
    agreement = np.mean(answers.argmax(axis=1) == expected.argmax(axis=1))
    assert agreement == pytest.approx(exported.agreement, abs=0.03) and agreement >= 0.9
    assert np.abs(answers - expected).max() == pytest.approx(exported.difference, abs=0.01)
    others = photographs(40, model.input_shape[1], seed=1)
    same = ask(exported.path, others).argmax(axis=1) == keras_answer(model, others).argmax(axis=1)
    assert same.mean() >= 0.85


def test_int8_that_loses_the_labels_is_said(tmp_path):
    libraries("litert-int8")
    model = small_net(units=30)
    model.layers[-1].set_weights([1e-3 * each for each in model.layers[-1].get_weights()])  # all classes nearly alike
    with pytest.warns(UserWarning, match="calibration images keep their label"):
        exported = export_file(model, tmp_path / "n.tflite", "litert-int8", None, "torch", photographs(20, 12))
    assert exported.agreement < 0.9


# --- what cannot be exported ---


class Growing(layers.Layer):
    """Answers otherwise each time that Python calls it, so that no file can hold it."""

    calls = 0

    def call(self, inputs):
        Growing.calls += 1
        return inputs * Growing.calls


class Special(layers.Layer):
    def call(self, inputs):
        return tf.math.betainc(tf.nn.sigmoid(inputs), 0.5, 0.5)


class Asking(layers.Layer):
    def call(self, inputs):
        return tf.ensure_shape(tf.py_function(lambda x: x, [inputs], tf.float32), inputs.shape)


def with_layer(layer):
    head = [layers.GlobalAveragePooling2D(), layer, layers.Dense(3, activation="softmax")]
    return make_lively(keras.Sequential([keras.Input((8, 8, 3)), *head]))


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("layer", "format", "sentence"),
    [
        (Growing, "onnx", "answers differently from the Keras model"),
        (Special, "onnx", "could not be written for ONNX, or not be run by it"),
        (Special, "litert", "could not be written for LiteRT, or not be run by it"),
        (Asking, "openvino", "could not be written for OpenVINO, or not be run by it"),
    ],
)
def test_a_file_that_would_be_wrong_never_appears(layer, format, sentence, tmp_path):
    libraries(format)
    root = logging.getLogger()
    before = root.level, root.filters[:], root.handlers[:]
    with pytest.raises(RuntimeError, match=sentence) as raised:
        export_file(with_layer(layer()), tmp_path / f"net{SUFFIXES[format]}", format, preprocess="torch")
    assert (root.level, root.filters, root.handlers) == before  # OpenVINO's converter leaves its own after a failure
    assert "\n" not in str(raised.value) and "nothing was exported" in str(raised.value)
    assert left_in(tmp_path) == []


GOOD = dict(path="net.onnx", format="onnx", preprocess="torch")
BAD = {
    "a format": (dict(format="torch"), "must be one of 'onnx', 'litert', 'litert-int8', 'openvino'"),
    "another suffix": (dict(path="net.tflite"), "must be called NAME.onnx. Received: 'net.tflite'"),
    "no name": (dict(path=".onnx"), "must be called NAME.onnx"),
    "no preprocessing": (dict(preprocess=None), "does not say how its weights want their images"),
    "too few labels": (dict(labels=["a"]), "has 3 classes and `labels` names 1"),
    "a label of two lines": (dict(labels=["a", "b\nc", "d"]), "one line without spaces around it.*'b.nc'"),
    "a label with spaces": (dict(labels=["a", " b", "d"]), "one line without spaces around it"),
    "needless calibration": (dict(calibration=np.zeros((1, 12, 12, 3))), "for format='litert-int8' alone"),
}
BAD_CALIBRATION = {
    "none": (None, "needs some, of the kind that the model will see"),
    "no images": (np.zeros((0, 12, 12, 3)), r"Received: shape=\(0, 12, 12, 3\)"),
    "another size": (np.zeros((4, 8, 8, 3)), r"\(images, 12, 12, 3\).*Received: shape=\(4, 8, 8, 3\)"),
    "scaled": (np.full((4, 12, 12, 3), 0.5), "look scaled to 0..1 already"),
    "standardized": (np.full((4, 12, 12, 3), -2.0), "from -2.0 to -2.0"),
    "not finite": (np.full((4, 12, 12, 3), np.nan), "from nan to nan"),
    "text": (np.full((4, 12, 12, 3), "a"), "values of dtype <U1"),
}
for name, (images, sentence) in BAD_CALIBRATION.items():
    BAD[f"calibration: {name}"] = (dict(path="n.tflite", format="litert-int8", calibration=images), sentence)


@pytest.mark.parametrize(("changes", "sentence"), BAD.values(), ids=BAD)
def test_bad_input_gets_a_sentence(changes, sentence, tmp_path):
    libraries((GOOD | changes)["format"])
    arguments = GOOD | changes
    with pytest.raises(ValueError, match=sentence) as raised:
        export_file(small_net(), tmp_path / arguments.pop("path"), **arguments)
    assert "\n" not in str(raised.value) and left_in(tmp_path) == []


def test_a_format_is_one_name(tmp_path):
    with pytest.raises(ValueError, match=r"must be one of .* Received: format=.'onnx'."):
        export_file(small_net(), tmp_path / "n.onnx", ["onnx"], preprocess="torch")


@pytest.mark.parametrize("format", SUFFIXES)
def test_a_missing_library_is_named_with_what_to_install(format, tmp_path, monkeypatch):
    missing = {"onnx": "tf2onnx", "openvino": "openvino"}.get(format, "ai_edge_litert")
    monkeypatch.setitem(sys.modules, missing, None)
    extra = format.removesuffix("-int8")
    with pytest.raises(ImportError, match=rf"needs {missing}.*: pip install 'kresnets\[{extra}\]'"):
        export_file(small_net(), tmp_path / f"net{SUFFIXES[format]}", format, preprocess="torch")
    assert left_in(tmp_path) == []


# --- the file on disk ---


@pytest.mark.parametrize("name", ["net.onnx", "net.labels.txt"])
def test_what_exists_is_not_replaced(name, tmp_path):
    libraries("onnx")
    (tmp_path / name).write_text("mine")
    with pytest.raises(ValueError, match=f"{name} exists and is not replaced"):
        export_file(small_net(), tmp_path / "net.onnx", preprocess="torch")
    assert (tmp_path / name).read_text() == "mine" and left_in(tmp_path) == [name]


@pytest.mark.parametrize("format", FLOAT32)
def test_a_full_disk(format, tmp_path):
    libraries(format)
    model = small_net(units=5000)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, before[1]))  # as near to a full disk as it gets without a mount
    try:
        with pytest.raises((OSError, RuntimeError), match="could not be written") as raised:
            export_file(model, tmp_path / f"net{SUFFIXES[format]}", format, preprocess="torch")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert "\n" not in str(raised.value) and left_in(tmp_path) == []


def test_a_folder_that_cannot_be(tmp_path):
    libraries("onnx")
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="The model could not be written to .*file"):
        export_file(small_net(), tmp_path / "file" / "net.onnx", preprocess="torch")


def test_whoever_looks_sees_a_whole_file_or_none(tmp_path):
    libraries("onnx")
    path, sizes, done = tmp_path / "new" / "net.onnx", [], threading.Event()

    def look():
        while not done.is_set():
            if path.exists():
                sizes.append((path.stat().st_size, path.with_name("net.labels.txt").exists()))
            time.sleep(0.0005)

    watcher = threading.Thread(target=look)
    watcher.start()
    export_file(small_net(units=5000), path, preprocess="torch")
    done.set()
    watcher.join()
    assert set(sizes) <= {(path.stat().st_size, True)}
    assert left_in(path.parent) == ["net.images.json", "net.labels.txt", "net.onnx"]


@EVERYTHING
def test_a_killed_export_leaves_no_file_and_its_litter_goes_with_the_next(tmp_path):
    libraries("onnx")
    script = """import sys, keras
from kresnets.export import export_file
from kresnets.runs import folder as folders
model = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.GlobalAveragePooling2D(),
                          keras.layers.Dense(2, activation="softmax")])
export_file(model, sys.argv[1], preprocess="tf")"""
    path = tmp_path / "net.onnx"
    process = subprocess.Popen(
        [sys.executable, "-c", script, str(path)], cwd=ROOT, env=os.environ | {"PYTHONPATH": "."}
    )
    while not list(tmp_path.glob(".tmp-*/*")):
        assert process.poll() is None
        time.sleep(0.001)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert len(left_in(tmp_path)) == 1 and left_in(tmp_path)[0].startswith(".tmp-")
    export_file(small_net(), path, preprocess="torch")
    assert left_in(tmp_path) == ["net.images.json", "net.labels.txt", "net.onnx"]


# --- kresnets export --format ---


@pytest.fixture
def call(monkeypatch, capsys):
    """Run the verb in this process: its exit code, and the lines it wrote to stdout and stderr."""
    monkeypatch.setenv("KERAS_BACKEND", "tensorflow")  # put back afterwards: the verb sets it

    def call(*arguments):
        code, output = commands.ask("export", *arguments), capsys.readouterr()
        return code, output.out.splitlines(), output.err.splitlines()

    return call


@pytest.fixture
def finished(call, tmp_path):
    """A run as `kresnets finetune` leaves it, as far as export reads it, with its 24 photographs."""
    folder, photos = tmp_path / "run", tmp_path / "photos"
    for index, image in enumerate(photographs(24, 16)):
        file = photos / ("cats", "dogs")[index % 2] / f"{index}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image.astype("uint8")).save(file)
    folder.mkdir()
    arguments = {"data": str(photos), "limit": None, "seed": 3, "bad_images": "error"}
    config = {"class_names": ["cats", "dogs"], "preprocess": {"mode": "tf"}, "command": "", "arguments": arguments}
    config["data"] = folders.data_digest(kresnets.data.load_data(photos, seed=3))
    (folder / "config.json").write_text(json.dumps(config))
    small_net(units=2).save(folder / "model.keras")
    return folder


def test_the_command_writes_onnx(call, finished, tmp_path):
    libraries("onnx")
    code, lines, errors = call(finished, tmp_path / "net.onnx", "--format", "onnx")
    assert (code, errors) == (0, [])
    assert lines[:2] == [str(tmp_path / "net.onnx"), str(tmp_path / "net.labels.txt")]
    model, images = keras.saving.load_model(finished / "model.keras"), photographs(2, 12)
    np.testing.assert_allclose(ask(tmp_path / "net.onnx", images), keras_answer(model, images, "tf"), atol=1e-4)
    assert json.loads((tmp_path / "net.images.json").read_text())["size"] == 12
    for name, value in (("--dtype", "bfloat16"), ("--verify", "3")):
        code, lines, errors = call(finished, tmp_path / "net.onnx", "--format", "onnx", name, value)
        assert (code, lines, len(errors)) == (2, [], 1) and f"{name} " in errors[0] and "leave it out" in errors[0]


@pytest.mark.everything
def test_the_command_calibrates_by_the_photographs_of_the_run_and_says_what_int8_costs(call, finished, tmp_path):
    libraries("litert-int8")
    code, lines, errors = call(finished, tmp_path / "net.tflite", "--format", "litert-int8")
    assert (code, errors) == (0, [])
    data = kresnets.data.load_data(tmp_path / "photos", seed=3)
    assert lines[2].startswith(f"calibrated by {len(data.train)} training images")
    images, labels = data.test.pixels(12), data.test.labels
    expected = keras_answer(keras.saving.load_model(finished / "model.keras"), images, "tf").argmax(axis=1)
    answers = ask(tmp_path / "net.tflite", np.round(images)).argmax(axis=1)
    by_run, by_file = np.mean(expected == labels), np.mean(answers == labels)
    assert f"accuracy {by_run:.3f} by the run, {by_file:.3f} by the file" in lines[3]
    assert lines[3].endswith(f"the same label for {np.mean(expected == answers):.1%}")
    next((tmp_path / "photos" / "cats").iterdir()).unlink()
    code, _, errors = call(finished, tmp_path / "other.tflite", "--format", "litert-int8")
    assert code == 2 and len(errors) == 1 and "have changed since" in errors[0]
    assert not (tmp_path / "other.tflite").exists()


@pytest.mark.everything
def test_the_python_of_the_guide_runs(tmp_path, monkeypatch, capsys):
    for format in SUFFIXES:
        libraries(format)
    model, labels = small_net(size=64), ["a", "b", "c"]
    Image.fromarray(photographs(1, 90)[0].astype("uint8")[:, :80]).save(
        tmp_path / "photo.jpg", "PNG"
    )  # decoders of JPEG differ
    calibration = photographs(5, 64)
    for name, format in {"cells.onnx": "onnx", "cells.tflite": "litert", "cells.xml": "openvino"}.items():
        export_file(model, tmp_path / name, format, labels, "torch")
    export_file(model, tmp_path / "cells-int8.tflite", "litert-int8", labels, "torch", calibration)
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "formats.md").read_text(encoding="utf-8"), re.DOTALL)
    names = {}
    for block in blocks:
        exec(compile(block, "formats.md", "exec"), names)
    image = kresnets.data.load_image((tmp_path / "photo.jpg").read_bytes(), 64).numpy()
    np.testing.assert_allclose(names["images"][0], image, atol=1)  # resized as in training, but for rounding
    expected = keras_answer(model, image[np.newaxis])
    np.testing.assert_allclose(names["probabilities"], expected, atol=0.02)
    assert capsys.readouterr().out.split() == [labels[expected.argmax()]] * 4
