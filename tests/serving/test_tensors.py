"""Requests in JSON to arrays and back: the examples of tensorflow_serving/g3doc/api_rest.md, and what is no request."""

import base64
import json

import numpy as np
import pytest
import tensorflow as tf

from kresnets.serving import tensors
from kresnets.serving.errors import Refusal
from kresnets.serving.tensors import Signature, Tensor

ROWS = b"""{"instances": [
   {"tag": "foo", "signal": [1, 2, 3, 4, 5], "sensor": [[1, 2], [3, 4]]},
   {"tag": "bar", "signal": [3, 4, 1, 2, 5], "sensor": [[4, 5], [6, 8]]}]}"""
COLUMNS = b"""{"inputs": {"tag": ["foo", "bar"],
   "signal": [[1, 2, 3, 4, 5], [3, 4, 1, 2, 5]], "sensor": [[[1, 2], [3, 4]], [[4, 5], [6, 8]]]}}"""
THREE = {"tag": (object, (None,)), "signal": ("int64", (None, 5)), "sensor": ("float32", (None, 2, 2))}
STRINGS = {"text": (object, (None,))}
FLOATS = {"x": ("float32", (None,))}
ANY = {"x": ("float32", None)}


def read(body, inputs, name="serving_default"):
    inputs = {key: Tensor(f"{key}:0", np.dtype(dtype), shape) for key, (dtype, shape) in inputs.items()}
    body = body if isinstance(body, bytes) else json.dumps(body).encode()
    found, arrays, _ = tensors.PARSERS["predict"](body, {name: Signature(inputs, {})}, 1000)
    assert found == name
    return arrays


@pytest.mark.parametrize("body", [ROWS, COLUMNS])
def test_rows_and_columns_of_the_documentation(body):
    arrays = read(body, THREE)
    assert arrays["tag"].tolist() == [b"foo", b"bar"]
    assert arrays["signal"].tolist() == [[1, 2, 3, 4, 5], [3, 4, 1, 2, 5]] and arrays["signal"].dtype == "int64"
    assert arrays["sensor"].tolist() == [[[1, 2], [3, 4]], [[4, 5], [6, 8]]] and arrays["sensor"].dtype == "float32"


def test_one_input_needs_no_name():
    assert read({"instances": ["foo", "bar", "baz"]}, STRINGS)["text"].tolist() == [b"foo", b"bar", b"baz"]
    assert read({"inputs": ["foo"]}, STRINGS)["text"].tolist() == [b"foo"]
    assert read({"instances": [[[1, 2]], [[3, 4]]]}, {"x": ("float32", (None, 1, 2))})["x"].shape == (2, 1, 2)
    read({"signature_name": "other", "instances": ["a"]}, STRINGS, "other")


@pytest.mark.parametrize("content", [b"", b"\0\xff\n\0", bytes(range(256)) * 50])
def test_bytes_come_in_base64(content):
    text = base64.b64encode(content).decode()
    for given in (text, base64.encodebytes(content).decode(), text.rstrip("=")):
        assert read({"instances": [{"b64": given}, "plain"]}, STRINGS)["text"].tolist() == [content, b"plain"]
    assert read({"instances": [{"text": {"b64": text}}]}, STRINGS)["text"].tolist() == [content]
    assert read({"inputs": {"text": [{"b64": text}]}}, STRINGS)["text"].tolist() == [content]


def test_numbers_that_json_has_no_word_for():
    """The documentation: bare NaN, Infinity and -Infinity are taken and given."""
    array = read(b'{"instances": [1.0, -3.14, NaN, Infinity, -Infinity, 1e-3]}', FLOATS)["x"]
    np.testing.assert_array_equal(array, np.array([1, -3.14, np.nan, np.inf, -np.inf, 1e-3], "float32"))
    assert tensors.dump_predict({"x": array[2:5]}, True) == b'{"predictions": [NaN, Infinity, -Infinity]}'


def test_answers_by_row_and_by_column():
    """The documentation: objects of all outputs, or the only one without its name; names in _bytes are base64."""
    scores = np.array([[0.97, 0.03], [1, 0]], "float32")
    labels = np.array([["größe".encode(), b"b"], [b"", b"x"]], object)

    def dumped(by_row, **outputs):
        return json.loads(tensors.dump_predict(outputs, by_row))

    assert dumped(True, scores=scores, labels=labels) == {
        "predictions": [{"scores": [0.97, 0.03], "labels": ["größe", "b"]}, {"scores": [1, 0], "labels": ["", "x"]}]
    }
    assert dumped(False, scores=scores, labels=labels) == {
        "outputs": {"scores": [[0.97, 0.03], [1, 0]], "labels": [["größe", "b"], ["", "x"]]}
    }
    assert dumped(True, scores=scores) == {"predictions": [[0.97, 0.03], [1, 0]]}
    assert dumped(True, raw_bytes=np.array([b"\0\xff"], object)) == {"predictions": [{"b64": "AP8="}]}
    with pytest.raises(Refusal, match="no batch dimension in common"):
        dumped(True, scores=scores, sum=np.float32(1))


def test_numbers_survive_the_way_to_json_to_the_bit():
    array = np.random.default_rng(0).integers(0, 2**32, 20000, dtype="uint32").view("float32")
    array = array[np.isfinite(array)]
    back = np.array(json.loads(tensors.dump_predict({"x": array}, True))["predictions"], "float32")
    assert (back == array).all()


@pytest.mark.parametrize(
    ("sentence", "inputs", "bodies"),
    [
        ("JSON Parse error", STRINGS, [b"", b"\xff\xfe\x00", b'{"instances": ["a"', b"[" + b"9" * 5000 + b"]"]),
        ("JSON Parse error: nested too deep", FLOATS, [b'{"instances": ' + b"[" * 200_000 + b"]" * 200_000 + b"}"]),
        ("lists at one level", ANY, [b'{"inputs": ' + b"[" * 60 + b"]" * 60 + b"}"]),
        ("Is not object", STRINGS, [[1], "text"]),
        ("Missing 'inputs' or 'instances' key", STRINGS, [{}]),
        ("expecting only one of", FLOATS, [{"instances": [1], "inputs": [1]}]),
        ("'signature_name' key must be a string", FLOATS, [{"signature_name": 100, "instances": [1]}]),
        ("No values in 'instances' array", STRINGS, [{"instances": []}]),
        ("'instances' to be an list", STRINGS, [{"instances": {"b64": "AA=="}}, {"instances": "AA=="}]),
        ("expecting list of objects as multiple", THREE, [{"instances": ["a"]}]),
        ("expecting an object as multiple", THREE, [{"inputs": ["a"]}]),
        ("keys must be equal to: sensor,signal,tag", THREE, [{"instances": [{"tag": "a"}]}]),
        ("element: 1 of 'instances'", STRINGS, [{"instances": [{"text": "a"}, "b"]}]),
        ("Missing named input", THREE, [{"inputs": {"tag": ["a"]}}]),
        ("1001 instances are more than 1000", FLOATS, [{"inputs": {"x": [0] * 1001}}, {"instances": [0] * 1001}]),
        ("Unable to base64 decode", STRINGS, [{"instances": [{"b64": "*"}]}, {"instances": [{"b64": "größe"}]}]),
        ("not formatted correctly for base64 data", STRINGS, [{"instances": [{"b64": 5}]}]),
        ("not of expected type: string", STRINGS, [{"instances": [5]}, {"instances": [None]}]),
        ("no Unicode text", STRINGS, [b'{"instances": ["\\ud800"]}']),
        ("not of expected type: float32", FLOATS, [{"instances": [each]} for each in ("a", True, {"b64": "AA=="})]),
        ("out of the range of float32", FLOATS, [{"instances": [1e39]}, {"instances": [10**400]}]),
        ("not of expected type: int32", {"x": ("int32", (None,))}, [{"instances": [1.5]}]),
        ("out of the range of uint8", {"x": ("uint8", (None,))}, [{"instances": [256]}]),
        ("not of expected type: bool", {"x": (bool, (None,))}, [{"instances": [1]}]),
        ("must be of one length", ANY, [{"instances": [[1], [2, 3]]}, {"instances": [[1], 2]}]),
        ("not of expected type", ANY, [{"instances": [1, [2]]}]),
        (r"expecting shape \[-1\] but got: \[1, 2\]", FLOATS, [{"instances": [[1, 2]]}]),
        (r"expecting shape \[-1\] but got: \[\]", FLOATS, [{"inputs": 5}]),
    ],
)  # fmt: skip
def test_what_is_no_request_gets_a_sentence(sentence, inputs, bodies):
    for body in bodies:
        with pytest.raises(Refusal, match=sentence) as refusal:
            read(body, inputs)
        assert refusal.value.status == 400 and len(str(refusal.value)) < 500


def test_long_texts_take_no_more_room_than_they_have():
    """As an array of NumPy's own strings the short ones would take as much as the longest: 10 GB here."""
    body = {"instances": ["x" * 10_000_000, *["y"] * 250]}
    with pytest.raises(Refusal):
        read(body, FLOATS)
    assert len(read(body, STRINGS)["text"][0]) == 10_000_000


CLASSIFY = Signature({"inputs": Tensor("i:0", np.dtype(object), (None,))}, {}, "tensorflow/serving/classify")


def examples(request):
    _, inputs, _ = tensors.PARSERS["classify"](json.dumps(request).encode(), {"serving_default": CLASSIFY}, 10)
    return [tf.train.Example.FromString(each).features.feature for each in inputs["inputs"]]


def test_examples_and_their_context():
    rows = [{"a": {"b64": "AP8="}, "n": [1, 2]}, {"n": True, "c": "own"}]
    first, second = examples({"examples": rows, "context": {"c": ["shared"], "x": 0.5}})
    assert first["a"].bytes_list.value == [b"\0\xff"] and first["n"].int64_list.value == [1, 2]
    assert first["c"].bytes_list.value == [b"shared"] and first["x"].float_list.value == [0.5]
    assert second["c"].bytes_list.value == [b"own"] and second["n"].int64_list.value == [1]


@pytest.mark.parametrize(
    ("sentence", "requests"),
    [
        ("key 'examples' is expected", [{"instances": ["a"]}]),
        ("'examples' value (to be an list|is an empty array)", [{"examples": {}}, {"examples": []}]),
        ("Example must be JSON object", [{"examples": ["a"]}, {"examples": [{}], "context": 5}]),
        ("Unexpected element type in feature: a", [{"examples": [{"a": [1, "b"]}]}]),
        ("Feature: a has element with unexpected", [{"examples": [{"a": [[1]]}]}]),
        ("out of range", [{"examples": [{"a": 2**70}]}]),
        ("no Unicode text", [{"examples": [{"\ud800": 1}]}, {"examples": [{"a": "\ud800"}]}]),
        ("11 instances are more than 10", [{"examples": [{}] * 11}]),
        ('Serving signature name: "x" not found', [{"examples": [{}], "signature_name": "x"}]),
    ],
)
def test_what_are_no_examples_gets_a_sentence(sentence, requests):
    for request in requests:
        with pytest.raises(Refusal, match=sentence):
            examples(request)
