"""The bodies of `:classify`: JSON objects to tf.Example, classes and scores to JSON, as TF Serving's."""

import json

import numpy as np
import tensorflow as tf

from _serve import tensors
from _serve.refusal import Refusal, shortened


def parse(body, check_rows=lambda rows: None):
    """Read the body of a request.

    Args:
        body: bytes of `{"signature_name": ..., "context": {...}, "examples": [{feature: value or list}, ...]}`, of
            which only `examples` is needed. A feature that an example has itself goes before the context's.
        check_rows: called with the number of examples, and raises where they are too many.

    Returns:
        tuple of the signature's name (str) and an array of serialized tf.Examples, `(n,)`.

    Example:
        >>> parse(b'{"examples": [{"image/encoded": {"b64": "AA=="}}]}')[0]
        'serving_default'
    """
    document, signature = tensors.document(body)
    if "examples" not in document:
        raise _refusal("When method is classify, key 'examples' is expected and was not found")
    examples = document["examples"]
    if not isinstance(examples, list):
        raise _refusal("Expecting 'examples' value to be an list/array")
    if not examples:
        raise _refusal("'examples' value is an empty array")
    check_rows(len(examples))
    context = _features(document.get("context", {}))
    array = np.empty(len(examples), object)
    for index, each in enumerate(examples):
        feature = context | _features(each)
        try:
            array[index] = tf.train.Example(features=tf.train.Features(feature=feature)).SerializeToString()
        except UnicodeEncodeError:  # half a surrogate pair
            raise _refusal("JSON Parse error: a string that is no Unicode text") from None
    return signature, array


def dump(outputs):
    """Write an answer: `{"results": [[[class, score], ...], ...]}`.

    Args:
        outputs: dict with `classes` (bytes), `scores` or both, `(n, k)`.
    """
    scores = outputs.get("scores", np.zeros(np.shape(outputs.get("classes"))))
    classes = outputs.get("classes", np.full(scores.shape, b"", object))
    columns = (tensors.plain(name, each) for name, each in (("classes", classes), ("scores", scores)))
    return json.dumps({"results": [list(zip(*row)) for row in zip(*columns)]}).encode()


def _features(value):
    if not isinstance(value, dict):
        raise _refusal(f"Example must be JSON object but got JSON {shortened(value)}")
    return {name: _feature(name, each if isinstance(each, list) else [each]) for name, each in value.items()}


def _feature(name, values):
    kinds = {float if type(each) is float else int if type(each) in (int, bool) else bytes for each in values}
    if len(kinds) > 1:
        raise _refusal(f"Unexpected element type in feature: {shortened(name)}: its values must be of one type")
    if any(not isinstance(each, str | int | float) and not tensors.is_base64(each) for each in values):
        raise _refusal(f"Feature: {shortened(name)} has element with unexpected JSON type: {shortened(values)}")
    try:
        if float in kinds:
            return tf.train.Feature(float_list=tf.train.FloatList(value=values))
        if int in kinds:
            return tf.train.Feature(int64_list=tf.train.Int64List(value=map(int, values)))
    except (ValueError, OverflowError):
        raise _refusal(f"Feature: {shortened(name)} has a number that is out of range.") from None
    return tf.train.Feature(bytes_list=tf.train.BytesList(value=[tensors.to_bytes(each) for each in values]))


def _refusal(sentence):
    return Refusal("INVALID_ARGUMENT", sentence)
