"""The served model against the Keras model, through decoders and a resize that are not the ones under test."""

import functools
import os
import pathlib
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers
from lively import make_lively
from odd_files import FILES, SIZE, encoded, picture
from PIL import Image
from places import ROOT
from tensorflow.core.protobuf import saved_model_pb2
from tensorflow.python.framework import kernels

import kresnets
from kresnets.export import export_file, export_saved_model, read_card
from kresnets.preprocess import Preprocessing

LABELS = ["sloth", "größe", "crane", "crane (n03126707)", "e", "f", "g"]


def small_net(activation="softmax", classes=len(LABELS), size=SIZE, sharpness=10):
    """A small classifier whose answers are neither all even, as fresh weights give them, nor all sure."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((size, size, 3))
    x = layers.Conv2D(8, 3, strides=2, use_bias=False)(inputs)
    x = layers.BatchNormalization()(x)
    x = layers.Conv2D(16, 3, activation="relu")(x)
    x = layers.GlobalAveragePooling2D(name="pool")(x)
    model = keras.Model(inputs, layers.Dense(classes, activation=activation)(x))
    _, _, mean, variance = model.layers[2].get_weights()
    model.layers[2].set_weights([variance * 0.7, mean + 0.1, mean + 0.2, variance * 0.3])
    model.layers[-1].set_weights([sharpness * weight for weight in model.layers[-1].get_weights()])
    return model


def export(model, path, preprocess="torch", **arguments):
    return export_saved_model(model, path, preprocess=preprocess, **arguments)


@functools.cache
def loaded(folder):
    return tf.saved_model.load(str(folder))


def signature(folder, name="serving_default"):
    function = loaded(folder).signatures[name]
    return lambda **inputs: {key: value.numpy() for key, value in function(**inputs).items()}


def serve(folder, files):
    return signature(folder)(image_bytes=tf.constant(files, tf.string))


def left_in(path):
    return sorted(child.name for child in path.iterdir()) if path.exists() else None


@pytest.fixture(scope="module")
def model():
    return small_net()


@pytest.fixture(scope="module")
def folder(model, tmp_path_factory):
    return export(model, tmp_path_factory.mktemp("served") / "net", labels=LABELS)


def keras_answer(model, pixels, mode, crop=1.0):
    """Resize, crop and preprocess by tf.image and keras.applications, then ask the model."""
    sides = np.array(pixels.shape[:2])
    height, width = np.round(sides * round(SIZE / crop) / sides.min()).astype(int)
    top, left = (height - SIZE) // 2, (width - SIZE) // 2
    resized = tf.image.resize(pixels, (height, width), antialias=True)[top : top + SIZE, left : left + SIZE]
    inputs = keras.applications.imagenet_utils.preprocess_input(resized.numpy()[np.newaxis], mode=mode)
    return model.predict(inputs, verbose=0)[0]


@pytest.mark.parametrize(
    ("mode", "crop", "sharpness"),
    [
        ("tf", 0.875, 10),
        pytest.param("torch", 1.0, 10, marks=pytest.mark.everything),
        pytest.param("caffe", 1.0, 0.2, marks=pytest.mark.everything),
    ],
)
def test_served_files_get_the_answer_of_the_keras_model(tmp_path, mode, crop, sharpness):
    model = small_net(sharpness=sharpness)
    folder = export(model, tmp_path, preprocess=Preprocessing(mode, crop), top=7)
    served = serve(folder, [data for data, _ in FILES.values()])
    assert served["valid"].all()
    for row, (name, (_, pixels)) in enumerate(FILES.items()):
        expected = keras_answer(model, pixels, mode, crop)
        by_label = dict(zip(served["labels"][row], served["scores"][row]))
        scores = [by_label[str(index).encode()] for index in range(7)]
        np.testing.assert_allclose(scores, expected, atol=1e-4, err_msg=name)
    assert np.ptp(served["scores"][:, 0]) > 0.1  # the files do get different answers


def test_signatures(model, folder):
    signatures = loaded(folder).signatures
    assert set(signatures) == {"serving_default", "classify", "predict_tensor", "features"}
    for each in signatures.values():
        specs = [*each.structured_input_signature[1].values(), *each.structured_outputs.values()]
        assert all(spec.shape[0] is None for spec in specs)  # else a server cannot batch
        assert all(spec.shape[1:].is_fully_defined() for spec in specs)
    pixels = np.stack([picture(SIZE, SIZE), picture(SIZE, SIZE)[::-1]]).astype("float32")
    inputs = keras.applications.imagenet_utils.preprocess_input(pixels.copy(), mode="torch")
    probabilities = signature(folder, "predict_tensor")(images=pixels)["probabilities"]
    np.testing.assert_allclose(probabilities, model.predict(inputs, verbose=0), atol=1e-5)
    features = signature(folder, "features")(images=pixels)["features"]
    trunk = keras.Model(model.input, model.get_layer("pool").output)
    np.testing.assert_allclose(features, trunk.predict(inputs, verbose=0), atol=1e-5)


def test_labels_and_order(folder):
    files = [data for data, _ in FILES.values()]
    served = serve(folder, files)
    assert served["labels"].shape == (len(files), 5)
    assert {label.decode() for label in served["labels"].ravel()} <= set(LABELS)
    assert (np.diff(served["scores"]) <= 0).all()


@pytest.mark.parametrize("count", [0, 1, 2, 33])
def test_any_batch_size(folder, count):
    files = [FILES["jpeg"][0]] * count
    served = serve(folder, files)
    assert {name: value.shape for name, value in served.items()} == {
        "labels": (count, 5),
        "scores": (count, 5),
        "valid": (count,),
    }
    np.testing.assert_allclose(served["scores"], served["scores"][:1].repeat(count, axis=0), atol=1e-5)
    images = np.zeros((count, SIZE, SIZE, 3), "float32")
    assert signature(folder, "predict_tensor")(images=images)["probabilities"].shape == (count, 7)
    assert signature(folder, "features")(images=images)["features"].shape == (count, 16)


# --- what the file on disk needs ---


def operations(folder):
    graph = saved_model_pb2.SavedModel.FromString((folder / "saved_model.pb").read_bytes()).meta_graphs[0].graph_def
    functions = {function.signature.name for function in graph.library.function}
    nodes = [*graph.node, *(node for function in graph.library.function for node in function.node_def)]
    return {node.op for node in nodes} - functions


def foreign(found):
    """Name the operations that call Python, or have no kernel for the processor in TensorFlow's core."""

    def served(name):
        devices = {kernel.device_type for kernel in kernels.get_registered_kernels_for_op(name).kernel}
        return hasattr(tf.raw_ops, name) and devices & {"CPU", "DEFAULT"} and "PyFunc" not in name

    return {name for name in found if not served(name)}


def test_the_graph_holds_only_operations_of_tensorflow_itself(folder, tmp_path):
    found = operations(folder)
    assert "Conv2D" in found and "DecodeImage" in found
    assert foreign(found) == set()
    saved = saved_model_pb2.SavedModel.FromString((folder / "saved_model.pb").read_bytes())
    graph = saved.meta_graphs[0].graph_def
    graph.node.add(op="WordpieceTokenizeWithOffsets")  # of tensorflow-text
    graph.node.add(op="SendTPUEmbeddingGradients")  # TensorFlow's own, for another processor
    graph.library.function[-1].node_def.add(op="EagerPyFunc")
    (tmp_path / "saved_model.pb").write_bytes(saved.SerializeToString())
    assert foreign(operations(tmp_path)) == {"WordpieceTokenizeWithOffsets", "SendTPUEmbeddingGradients", "EagerPyFunc"}


LOADER = """
import sys
sys.modules["keras"] = sys.modules["kresnets"] = None
import numpy as np, tensorflow as tf
with tf.compat.v1.Session(graph=tf.Graph()) as session:
    meta_graph = tf.compat.v1.saved_model.loader.load(session, ["serve"], sys.argv[1])
    signature = meta_graph.signature_def["serving_default"]
    assert signature.method_name == "tensorflow/serving/predict"
    for files in ([], [b"no image"], [open(path, "rb").read() for path in sys.argv[3:]]):
        answer = session.run(
            {name: output.name for name, output in signature.outputs.items()},
            {signature.inputs["image_bytes"].name: np.array(files, object)},
        )
answer["labels"] = np.char.decode(answer["labels"].astype(bytes))
np.savez(sys.argv[2], **answer)
"""


def python(*arguments, **options):
    environment = os.environ | {"PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "2"}
    return subprocess.Popen([sys.executable, *map(str, arguments)], env=environment, **options)


@pytest.mark.slow
def test_the_loader_of_servers_runs_it_where_keras_and_kresnets_are_missing(folder, tmp_path):
    files = [FILES["jpeg"][0], b"no image", FILES["png"][0]]
    paths = [tmp_path / str(index) for index in range(len(files))]
    for path, data in zip(paths, files):
        path.write_bytes(data)
    process = python("-c", LOADER, folder, tmp_path / "answer.npz", *paths)
    assert process.wait(120) == 0
    answer, expected = np.load(tmp_path / "answer.npz"), serve(folder, files)
    assert (answer["labels"] == [[label.decode() for label in row] for row in expected["labels"]]).all()
    assert answer["valid"].tolist() == [True, False, True]
    np.testing.assert_allclose(answer["scores"], expected["scores"], atol=1e-5)


@pytest.mark.everything
def test_saved_model_cli_lists_the_signatures(folder):
    tool = ("-m", "tensorflow.python.tools.saved_model_cli")
    process = python(*tool, "show", "--dir", folder, "--all", stdout=subprocess.PIPE)
    shown = process.communicate(timeout=120)[0].decode()
    for name in ("serving_default", "classify", "predict_tensor", "features"):
        assert f"signature_def['{name}']" in shown
    assert "Method name is: tensorflow/serving/classify" in shown
    assert "inputs['image_bytes'] tensor_info:\n        dtype: DT_STRING\n        shape: (-1)" in shown
    assert "outputs['labels'] tensor_info:\n        dtype: DT_STRING\n        shape: (-1, 5)" in shown


# --- models ---


@pytest.mark.everything
def test_logits_get_their_softmax(folder, tmp_path):
    # Same seed, same weights: softmax inside and softmax added must serve the same.
    files = [FILES["jpeg"][0], FILES["png"][0]]
    inside = serve(folder, files)
    added = serve(export(small_net(None), tmp_path, labels=LABELS, task="classes"), files)
    assert (inside["labels"] == added["labels"]).all()
    np.testing.assert_allclose(inside["scores"], added["scores"], atol=1e-5)


@pytest.mark.everything
def test_a_softmax_is_one_however_it_is_said(tmp_path):
    ends = {
        "linear behind it": (layers.Dense(7, "softmax"), layers.Activation("linear", dtype="float32")),
        "operation": (layers.Dense(7), layers.Lambda(keras.ops.softmax)),
        "layer": (layers.Dense(7), layers.Softmax()),
        "nested": (keras.Sequential([layers.Dense(7), layers.Activation("softmax")]),),
    }
    pixels = picture(SIZE, SIZE)
    for name, end in ends.items():
        x = inputs = keras.Input((SIZE, SIZE, 3))
        x = layers.GlobalAveragePooling2D()(layers.Conv2D(8, 3)(x))
        for layer in end:
            x = keras.ops.softmax(x) if isinstance(layer, layers.Lambda) else layer(x)
        model = keras.Model(inputs, x)
        served = serve(export(model, tmp_path / name, labels=LABELS, preprocess="tf", top=7), [encoded(pixels, "PNG")])
        expected = np.sort(keras_answer(model, pixels, "tf"))[::-1]
        np.testing.assert_allclose(served["scores"][0], expected, atol=1e-5, err_msg=name)


def test_one_sigmoid_unit_serves_two_classes(tmp_path):
    model = small_net("sigmoid", classes=1)
    pixels = picture(SIZE, SIZE)
    served = serve(export(model, tmp_path, labels=["whole", "broken"]), [encoded(pixels, "PNG")])
    broken = keras_answer(model, pixels, "torch")[0]
    scores = dict(zip(served["labels"][0], served["scores"][0]))
    assert scores == {b"broken": pytest.approx(broken, abs=1e-5), b"whole": pytest.approx(1 - broken, abs=1e-5)}


def test_a_nested_model_is_served_with_its_features(model, tmp_path):
    nested = keras.Sequential([keras.Input((SIZE, SIZE, 3)), layers.RandomFlip(), model])
    pixels = picture(SIZE, SIZE)[np.newaxis].astype("float32")
    served = signature(export(nested, tmp_path, preprocess="tf"), "features")(images=pixels)["features"]
    trunk = keras.Model(model.input, model.get_layer("pool").output)
    np.testing.assert_allclose(served, trunk.predict(pixels / 127.5 - 1, verbose=0), atol=1e-5)
    assert "call" not in vars(model.layers[-1])  # the layer was watched for a moment only


@pytest.mark.everything
def test_features_without_a_dense_layer_are_the_pooled_ones(tmp_path):
    inputs = keras.Input((SIZE, SIZE, 3))
    pooled = layers.GlobalAveragePooling2D()(layers.Conv2D(4, 3)(inputs))
    model = keras.Model(inputs, layers.Softmax()(pooled))
    pixels = picture(SIZE, SIZE)[np.newaxis].astype("float32")
    served = signature(export(model, tmp_path, preprocess="tf"), "features")(images=pixels)["features"]
    np.testing.assert_allclose(served, keras.Model(inputs, pooled).predict(pixels / 127.5 - 1, verbose=0), atol=1e-5)


@pytest.mark.everything
def test_half_precision_serves_float32(tmp_path):
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        model = small_net()
    finally:
        keras.config.set_dtype_policy(before)
    pixels = picture(SIZE, SIZE)
    served = serve(export(model, tmp_path, top=7), [encoded(pixels, "PNG")])
    assert served["scores"].dtype == np.float32
    expected = np.sort(keras_answer(model, pixels, "torch").astype("float32"))[::-1]
    np.testing.assert_allclose(served["scores"][0], expected, atol=2e-2)


@pytest.mark.everything
def test_a_network_of_keras_applications(tmp_path):
    keras.utils.set_random_seed(0)
    model = keras.applications.MobileNetV2(weights=None, input_shape=(SIZE, SIZE, 3), classes=3, alpha=0.35)
    served = serve(export(model, tmp_path, preprocess="tf"), [FILES["png"][0]])
    assert served["scores"].shape == (1, 3)  # `top` is cut to the classes there are
    expected = np.sort(keras_answer(model, FILES["png"][1], "tf"))[::-1]
    np.testing.assert_allclose(served["scores"][0], expected, atol=1e-4)


@pytest.mark.everything
def test_a_network_of_kresnets_brings_its_preprocessing(tmp_path):
    applications = pytest.importorskip("kresnets.applications")
    model = applications.CifarResNet8(weights=None, input_shape=(SIZE, SIZE, 3))
    served = serve(export_saved_model(model, tmp_path), [FILES["png"][0]])
    expected = np.sort(keras_answer(model, FILES["png"][1], "torch"))[::-1][:5]
    np.testing.assert_allclose(served["scores"][0], expected, atol=1e-4)


def unsure(model, sharpness):
    """Keep the answers of random weights apart from 0 and 1, where nothing could be told from them."""
    model.layers[-1].set_weights([sharpness * weight for weight in model.layers[-1].get_weights()])
    return model


HALF = Preprocessing("torch", 0.9, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5), SIZE)


def test_published_weights_bring_the_names_of_imagenet(monkeypatch):
    """As keras.applications' list of names has them; fresh weights and other numbers of classes have none."""
    from kresnets.export import Classifier

    reference = keras.applications.imagenet_utils.decode_predictions
    names = {str(index): [f"n{index:08}", f"name {index}"] for index in range(1000)}
    monkeypatch.setitem(reference.__globals__, "CLASS_INDEX", names)
    for classes, carried, expected in (
        (1000, HALF, tuple(f"name {index}" for index in range(1000))),
        (1000, Preprocessing("torch"), tuple(map(str, range(1000)))),
        (7, HALF, tuple(map(str, range(7)))),
    ):
        model = kresnets.CifarResNet8(weights=None, classes=classes, input_shape=(SIZE, SIZE, 3))
        model.get_layer("stem_bn1").preprocessing = carried
        assert Classifier.of(model).labels == expected
    monkeypatch.setitem(reference.__globals__, "CLASS_INDEX", None)
    monkeypatch.setattr(reference.__globals__["file_utils"], "get_file", lambda *_, **__: 1 / 0)
    model = kresnets.CifarResNet8(weights=None, classes=1000, input_shape=(SIZE, SIZE, 3))
    model.get_layer("stem_bn1").preprocessing = HALF
    with pytest.warns(UserWarning, match="served by their indices.*could not be fetched"):
        assert Classifier.of(model).labels[:2] == ("0", "1")


@pytest.mark.always("crops-12")
@pytest.mark.parametrize(("tta", "count"), [("flip", 2), ("crops", 12)])
def test_views_are_answered_by_their_mean(tta, count, tmp_path):
    """As Pillow crops, resizes and mirrors them, each asked for itself."""
    model = kresnets.CifarResNet8(classes=3, input_shape=(32, 32, 3))
    folder = kresnets.export_saved_model(make_lively(model), tmp_path, tta=tta)
    assert read_card(folder)["tta"] == tta
    served = tf.saved_model.load(str(folder)).signatures["predict_tensor"]
    # Smooth, so that ways of resizing agree.
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (4, 4, 3), dtype="uint8")).resize((32, 32), 2)
    found = [image]
    if tta == "crops":
        for x, y in ((2, 2), (0, 0), (4, 0), (0, 4), (4, 4)):
            found.append(image.resize((32, 32), Image.Resampling.BILINEAR, box=(x, y, x + 28, y + 28)))
    found += [view.transpose(Image.Transpose.FLIP_LEFT_RIGHT) for view in found]
    assert len(found) == count
    pixels = np.stack([np.asarray(view, "float32") for view in found])
    each = np.asarray(model(kresnets.preprocessing_of(model)(pixels)))
    answer = served(images=tf.constant(pixels[:1]))["probabilities"].numpy()
    np.testing.assert_allclose(answer[0], each.mean(0), atol=1e-4 if tta == "flip" else 2e-2)
    assert served(images=tf.zeros((0, 32, 32, 3)))["probabilities"].shape == (0, 3)
    with pytest.raises(ValueError, match="`tta` must be one of 'none', 'flip', 'crops'"):
        kresnets.export_saved_model(model, tmp_path, tta="flips")


def test_means_crop_and_size_of_the_weights_are_served(tmp_path):
    """torch with .5 thrice is the tf mode; a model that leaves its size free is served at that of its weights."""
    applications = pytest.importorskip("kresnets.applications")
    model = unsure(applications.CifarResNet8(weights=None, input_shape=(None, None, 3)), 0.05)
    model.get_layer("stem_bn1").preprocessing = HALF
    pixels = picture(2 * SIZE, 3 * SIZE)
    folder = export_saved_model(model, tmp_path)
    served = serve(folder, [encoded(pixels, "PNG")])
    right, wrong = (np.sort(keras_answer(model, pixels, mode, 0.9))[::-1][:5] for mode in ("tf", "torch"))
    np.testing.assert_allclose(served["scores"][0], right, atol=1e-4)
    assert np.abs(right - wrong).max() > 1e-2
    images = loaded(folder).signatures["predict_tensor"].structured_input_signature[1]["images"]
    assert images.shape.as_list() == [None, SIZE, SIZE, 3]


@pytest.mark.everything
def test_a_forced_mode_is_said_aloud_and_served(tmp_path):
    applications = pytest.importorskip("kresnets.applications")
    model = unsure(applications.CifarResNet8(weights=None, input_shape=(SIZE, SIZE, 3)), 0.002)
    with pytest.warns(UserWarning, match="preprocess='caffe' is used as asked for, but the weights of .* want .*torch"):
        served = serve(export(model, tmp_path, preprocess="caffe"), [FILES["png"][0]])
    right, wrong = (np.sort(keras_answer(model, FILES["png"][1], mode))[::-1][:5] for mode in ("caffe", "torch"))
    np.testing.assert_allclose(served["scores"][0], right, atol=1e-4)
    assert np.abs(right - wrong).max() > 1e-2


# --- what is refused, and leaves nothing ---


@keras.saving.register_keras_serializable("test_export")
class Noise(layers.Layer):
    def call(self, inputs):
        return inputs + tf.random.normal(tf.shape(inputs))


@keras.saving.register_keras_serializable("test_export")
class InPython(layers.Layer):
    def call(self, inputs):
        return tf.ensure_shape(tf.numpy_function(np.copy, [inputs], tf.float32), inputs.shape)


def headed(*head, input_shape=(SIZE, SIZE, 3)):
    return keras.Sequential([keras.Input(input_shape), *head])


def flat(*input_shape):
    return headed(layers.Flatten(), layers.Dense(2), input_shape=input_shape)


def classifier(*between):
    return headed(layers.GlobalAveragePooling2D(), *between, layers.Dense(2, activation="softmax"))


def with_nan():
    model = small_net()
    model.layers[-1].bias.assign(np.full(len(LABELS), np.nan))
    return model


def named_output():
    model = small_net()
    return keras.Model(model.input, {"p": model.output})


def quantized():
    model = small_net()
    model.quantize("int8")
    return model


REFUSED = {
    "no model": (lambda: "a model", {}, ValueError, "Functional and Sequential"),
    "subclassed": (lambda: keras.Model(), {}, ValueError, "Functional and Sequential"),
    "not built": (lambda: keras.Sequential([layers.Dense(3)]), {}, ValueError, "input_shape"),
    "any size": (lambda: small_net(size=None), {}, ValueError, "input_shape"),
    "not square": (lambda: flat(8, 9, 3), {}, ValueError, "square"),
    "nine channels": (lambda: flat(8, 8, 9), {}, ValueError, "1 to 8 channels"),
    "channels first": (lambda: flat(3, 8, 8), {}, ValueError, "channels last"),
    "a map": (lambda: headed(layers.Conv2D(2, 3)), {}, ValueError, "one vector"),
    "one linear unit": (lambda: small_net(None, 1), {}, ValueError, "one output"),
    "relu": (lambda: small_net("relu"), {}, ValueError, "ends in relu, which leaves open"),
    "no activation": (
        lambda: headed(layers.GlobalAveragePooling2D()),
        {},
        ValueError,
        "ends in globalaveragepooling2d, which",
    ),
    "no features": (lambda: headed(layers.Flatten(), layers.Softmax()), {}, ValueError, "features"),
    "NaN": (with_nan, {}, ValueError, "bias.*NaN"),
    "Python": (lambda: classifier(InPython()), {}, ValueError, "calls Python"),
    "answers that change": (lambda: classifier(Noise()), {}, RuntimeError, "answers differently"),
    "no preprocessing": (small_net, {"preprocess": None}, ValueError, "'caffe', 'tf', 'torch'"),
    "wrong preprocessing": (small_net, {"preprocess": "keras"}, ValueError, "'keras'"),
    "labels twice": (small_net, {"labels": [*LABELS[:-1], LABELS[0]]}, ValueError, "twice, which no client"),
    "too few labels": (small_net, {"labels": LABELS[:-1]}, ValueError, "7 classes and `labels` names 6"),
    "a string of labels": (small_net, {"labels": "abcdefg"}, ValueError, "sequence"),
    "an empty label": (small_net, {"labels": [*LABELS[:-1], ""]}, ValueError, "non-empty"),
    "a number of labels": (small_net, {"labels": 7}, ValueError, "sequence"),
    "a set of labels": (small_net, {"labels": set("abcdefg")}, ValueError, "in the order of the outputs"),
    "a dict of labels": (small_net, {"labels": dict.fromkeys("abcdefg", 1)}, ValueError, "in the order of the outputs"),
    "half a surrogate": (small_net, {"labels": [*"abcdef", "\udcff"]}, ValueError, "UTF-8"),
    "a dtype that is no name": (small_net, {"dtype": tf.bfloat16}, ValueError, "'float32' or 'bfloat16'"),
    "max_pixels past int64": (small_net, {"max_pixels": 2**63}, ValueError, "below 2..63"),
    "a dict of outputs": (named_output, {}, ValueError, "not a dict of 'p'"),
    "quantized": (quantized, {}, ValueError, "was quantized by Keras"),
    "top 0": (small_net, {"top": 0}, ValueError, "top=0"),
    "top 1.5": (small_net, {"top": 1.5}, ValueError, "top=1.5"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refusals_say_why_in_a_sentence_and_leave_nothing(case, tmp_path):
    build, arguments, error, message = REFUSED[case]
    with pytest.raises(error, match=message) as raised:
        export(build(), tmp_path / "new" / "net", **arguments)
    assert "\n" not in str(raised.value)
    assert left_in(tmp_path) == []


@pytest.mark.everything
def test_a_failed_export_leaves_the_versions_there_were(tmp_path):
    export(classifier(), tmp_path)
    with pytest.raises(RuntimeError):
        export(classifier(Noise()), tmp_path)
    assert left_in(tmp_path) == ["1"]


@pytest.mark.parametrize("path", [None, b"net", 5, "", "gs://bucket/net", "http://host/net", pathlib.Path("s3://b/n")])
def test_what_is_no_local_path_is_refused(path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for write in (export_saved_model, export_file):
        with pytest.raises(ValueError, match="`path` must be") as raised:
            write(classifier(), path, preprocess="tf")
        assert "\n" not in str(raised.value) and left_in(tmp_path) == []


def test_no_version_goes_into_a_version(tmp_path):
    (tmp_path / "net" / "1").mkdir(parents=True)
    (tmp_path / "net" / "1" / "saved_model.pb").write_bytes(b"")
    for path in (tmp_path / "net" / "1", tmp_path / "net" / "1" / "net"):
        with pytest.raises(ValueError, match="is a version itself"):
            export(classifier(), path)
    assert left_in(tmp_path / "net") == ["1"] and left_in(tmp_path / "net" / "1") == ["saved_model.pb"]


def test_a_path_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="could not be written"):
        export(classifier(), tmp_path / "file" / "net")


@pytest.mark.jax
@pytest.mark.everything
def test_another_backend_is_refused(tmp_path):
    pytest.importorskip("jax")
    script = (
        "import os, sys\nos.environ['KERAS_BACKEND'] = 'jax'\nimport keras, kresnets\n"
        "head = (keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(2, activation='softmax'))\n"
        "model = keras.Sequential([keras.Input((8, 8, 3)), *head])\n"
        "kresnets.export_saved_model(model, sys.argv[1], preprocess='tf')"
    )
    process = python("-c", script, tmp_path / "net", stderr=subprocess.PIPE)
    error = process.communicate(timeout=120)[1].decode()
    assert process.returncode == 1 and "RuntimeError: A SavedModel is written with the TensorFlow backend only" in error
    assert left_in(tmp_path) == []
