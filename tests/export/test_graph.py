"""What the written graph holds and how it computes: weights, dtypes, bounds on pixels, Classify, the warm-up file."""

import os
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers
from lively import make_lively
from odd_files import FILES, picture
from tensorflow.core.protobuf import saved_model_pb2
from test_export import LABELS, SIZE, export, keras_answer, serve, signature, small_net

import kresnets
from kresnets.export import Classifier, export_saved_model, saved, warmup


@pytest.fixture(scope="module")
def model():
    return small_net()


@pytest.fixture(scope="module")
def folder(model, tmp_path_factory):
    return export(model, tmp_path_factory.mktemp("served") / "net", labels=LABELS)


def graph_of(folder):
    return saved_model_pb2.SavedModel.FromString((folder / "saved_model.pb").read_bytes()).meta_graphs[0]


def nodes(folder):
    graph = graph_of(folder).graph_def
    return [*graph.node, *(node for function in graph.library.function for node in function.node_def)]


def size_of(folder):
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


# --- weights ---


def wide_net(units=(256, 256, 256)):
    """Some MB of weights, that those who hold them twice are told apart by."""
    keras.utils.set_random_seed(0)
    stack = [
        layer for width in units for layer in (layers.Conv2D(width, 3, padding="same"), layers.BatchNormalization())
    ]
    head = [layers.GlobalAveragePooling2D(), layers.Dense(3, activation="softmax")]
    return make_lively(keras.Sequential([keras.Input((8, 8, 3)), *stack, *head]))


def test_weights_are_constants_and_there_once(tmp_path):
    model = wide_net()
    folder = export(model, tmp_path)
    assert not {node.op for node in nodes(folder)} & {"VarHandleOp", "ReadVariableOp", "FusedBatchNormV3", "Rsqrt"}
    weights = sum(weight.nbytes for weight in model.get_weights())
    assert weights > 4e6 and size_of(folder) < weights + 300_000  # what the graph itself takes, whatever its weights


def test_bfloat16_takes_half_the_room_and_answers_in_float32(tmp_path):
    model = wide_net()
    folder = export(model, tmp_path, dtype="bfloat16")
    weights = sum(weight.nbytes for weight in model.get_weights())
    assert size_of(folder) < weights / 2 + 300_000
    convolutions = [node for node in nodes(folder) if node.op == "Conv2D"]
    assert len(convolutions) == 3 and {node.attr["T"].type for node in convolutions} == {tf.bfloat16.as_datatype_enum}
    for each in tf.saved_model.load(str(folder)).signatures.values():
        specs = [*each.structured_input_signature[1].values(), *each.structured_outputs.values()]
        assert {spec.dtype for spec in specs} <= {tf.float32, tf.string, tf.bool}
    images = np.stack([picture(8, 8), picture(8, 8)[::-1]]).astype("float32")
    inputs = keras.applications.imagenet_utils.preprocess_input(images.copy(), mode="torch")
    found = signature(folder, "predict_tensor")(images=images)["probabilities"]
    expected = model.predict(inputs, verbose=0)
    np.testing.assert_allclose(found, expected, atol=2e-2)
    assert np.abs(found - expected).max() > 1e-7


@pytest.mark.everything
@pytest.mark.parametrize("dtype", ["mixed_float16", pytest.param("mixed_bfloat16", marks=pytest.mark.everything)])
def test_what_was_trained_in_half_precision_is_served_in_float32(tmp_path, dtype):
    keras.config.set_dtype_policy(dtype)
    try:
        half = small_net()
    finally:
        keras.config.set_dtype_policy("float32")
    full = small_net()
    full.set_weights(half.get_weights())
    found = serve(export(half, tmp_path, top=7), [FILES["png"][0]])["scores"][0]
    np.testing.assert_allclose(found, np.sort(keras_answer(full, FILES["png"][1], "torch"))[::-1], atol=1e-5)


@pytest.mark.everything
def test_more_weights_than_a_file_takes_stay_variables(tmp_path, monkeypatch):
    monkeypatch.setattr(saved, "CONSTANT_BYTES", 1000)
    model = small_net()
    folder = export(model, tmp_path)
    assert {"VarHandleOp", "ReadVariableOp"} <= {node.op for node in nodes(folder)}
    expected = np.sort(keras_answer(model, FILES["png"][1], "torch"))[::-1][:5]
    np.testing.assert_allclose(serve(folder, [FILES["png"][0]])["scores"][0], expected, atol=1e-4)


@keras.saving.register_keras_serializable("test_export_graph")
class Raw(layers.Layer):
    """A layer with a variable that Keras does not know of."""

    def build(self, shape):
        self.raw = tf.Variable(tf.fill((shape[-1],), 0.5), trainable=False)

    def call(self, inputs):
        return inputs * self.raw


@pytest.mark.everything
def test_a_variable_of_tensorflows_own_is_saved_with_the_rest(tmp_path):
    inputs = keras.Input((SIZE, SIZE, 3))
    x = Raw()(layers.GlobalAveragePooling2D()(layers.BatchNormalization()(layers.Conv2D(4, 3)(inputs))))
    model = keras.Model(inputs, layers.Dense(2, activation="softmax")(x))
    expected = np.sort(keras_answer(model, FILES["png"][1], "torch"))[::-1]
    np.testing.assert_allclose(serve(export(model, tmp_path), [FILES["png"][0]])["scores"][0], expected, atol=1e-4)


@pytest.mark.everything
def test_without_folding_the_norms_stay(model, folder, tmp_path):
    kept = export(model, tmp_path, fold=False)
    assert [sum(node.op == "Rsqrt" for node in nodes(each)) for each in (kept, folder)] == [1, 0]


class Unknown(layers.Layer):
    def __init__(self, function):
        super().__init__()
        self._function = function

    def call(self, inputs):
        return self._function(inputs)


@pytest.mark.everything
def test_a_model_that_cannot_be_copied_is_served_as_it_is(tmp_path):
    inputs = keras.Input((SIZE, SIZE, 3))
    x = layers.BatchNormalization()(layers.Conv2D(4, 3)(inputs))
    x = layers.GlobalAveragePooling2D()(Unknown(keras.ops.abs)(x))
    model = keras.Model(inputs, layers.Dense(2, activation="softmax")(x))
    with pytest.warns(UserWarning, match="served as it is, its batch norms not folded: The layer .* cannot be made"):
        folder = export(model, tmp_path)
    expected = np.sort(keras_answer(model, FILES["png"][1], "torch"))[::-1]
    np.testing.assert_allclose(serve(folder, [FILES["png"][0]])["scores"][0], expected, atol=1e-4)
    with pytest.raises(ValueError, match="cannot be made again"):
        export(model, tmp_path, dtype="bfloat16")


@pytest.mark.parametrize("dtype", ["float16", "mixed_bfloat16", None])
def test_another_dtype_is_refused(model, tmp_path, dtype):
    with pytest.raises(ValueError, match="`dtype` must be 'float32' or 'bfloat16'. Received: dtype="):
        export(model, tmp_path / "new", dtype=dtype)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.everything
def test_resnet50_on_disk_is_its_weights(tmp_path):
    model = make_lively(kresnets.ResNet50(weights=None, input_shape=(64, 64, 3)))
    folder = export_saved_model(model, tmp_path)
    assert size_of(folder) <= 1.02 * sum(weight.nbytes for weight in model.get_weights())


# --- files ---


def test_a_bound_on_pixels(model, tmp_path):
    folder = export(model, tmp_path, max_pixels=40 * 64)
    names = ("png", "png of the model's size", "jpeg", "animated gif", "gif", "6000x4000", "bmp")
    served = serve(folder, [FILES[name][0] for name in names])
    pixels = [np.prod(FILES[name][1].shape[:2]) for name in names]
    assert (
        served["valid"].tolist()
        == [count <= 40 * 64 for count in pixels]
        == [True, True, False, True, True, False, True]
    )
    assert Classifier.of(model, None, "torch").max_pixels == 50_000_000
    with pytest.raises(ValueError, match="`max_pixels` must be an int of at least 1. Received: max_pixels=0"):
        export(model, tmp_path, max_pixels=0)


def example(data, key="image/encoded"):
    feature = tf.train.Feature(bytes_list=tf.train.BytesList(value=[data]))
    return tf.train.Example(features=tf.train.Features(feature={key: feature})).SerializeToString()


@pytest.mark.everything
def test_classify_answers_as_serving_default_does(folder):
    files = [FILES["jpeg"][0], b"no image", FILES["png"][0], FILES["gif"][0], FILES["bmp"][0]]
    examples = [example(data) for data in files[:3]] + [b"\xff no example", example(files[4], "other")]
    answer, expected = signature(folder, "classify")(inputs=tf.constant(examples)), serve(folder, files)
    assert set(answer) == {"classes", "scores"}  # TF Serving's Classify takes these and no third
    np.testing.assert_array_equal(answer["classes"][:3], expected["labels"][:3])
    np.testing.assert_allclose(answer["scores"][:3], expected["scores"][:3], atol=1e-5)
    assert (answer["classes"][[1, 3, 4]] == b"").all() and (answer["scores"][[1, 3, 4]] == 0).all()
    methods = {name: found.method_name for name, found in graph_of(folder).signature_def.items()}
    assert methods["classify"] == "tensorflow/serving/classify"
    assert {methods[name] for name in ("serving_default", "predict_tensor", "features")} == {
        "tensorflow/serving/predict"
    }
    assert signature(folder, "classify")(inputs=tf.constant([], tf.string))["classes"].shape == (0, 5)


def test_images_are_decoded_side_by_side(folder):
    """The map over the files of a batch is the dataset's parallel one, at the pace the machine allows."""
    maps = [node for node in nodes(folder) if node.op == "ParallelMapDatasetV2"]
    assert len(maps) == 2 and not [node for node in nodes(folder) if node.op == "MapDataset"]


# --- the warm-up file ---


def test_the_warm_up_file_is_what_a_server_replays(folder):
    logs = pytest.importorskip("tensorflow_serving.apis.prediction_log_pb2")
    file = folder / "assets.extra" / "tf_serving_warmup_requests"
    records = [logs.PredictionLog.FromString(record.numpy()) for record in tf.data.TFRecordDataset(str(file))]
    assert len(records) == 3 and file.stat().st_size < 100_000
    served = tf.saved_model.load(str(folder))
    for record, batch in zip(records, (1, 8, 32), strict=True):
        assert record.WhichOneof("log_type") == "predict_log"
        request = record.predict_log.request
        assert (request.model_spec.name, request.model_spec.signature_name) == ("net", "serving_default")
        inputs = {name: tf.constant(tf.make_ndarray(value)) for name, value in request.inputs.items()}
        answer = served.signatures[request.model_spec.signature_name](**inputs)
        assert answer["valid"].numpy().tolist() == [True] * batch
    assert [len(files) for files in warmup.requests(folder)] == [1, 8, 32]


@pytest.mark.everything
def test_without_the_protos_a_line_says_that_there_is_none(model, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow_serving.apis", None)
    with pytest.warns(UserWarning, match=r"No warm-up file was written.*pip install 'kresnets\[serving\]'") as told:
        folder = export(model, tmp_path)
    assert len(told) == 1 and "\n" not in str(told[0].message)
    assert "assets.extra" not in os.listdir(folder) and warmup.requests(folder) == []
