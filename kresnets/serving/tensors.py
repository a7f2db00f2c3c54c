"""Requests in JSON to arrays, and arrays to answers in JSON, as TF Serving's REST interface has them.

https://github.com/tensorflow/serving/blob/master/tensorflow_serving/g3doc/api_rest.md says what it looks like; the
wording of errors follows TF Serving's own. Images stay bytes here: the SavedModel decodes them (export/decode.py).
Nothing here recurses: how deep a request nests is the client's choice.
"""

import base64
import dataclasses
import functools
import itertools
import json
from collections.abc import Mapping

import numpy as np
import tensorflow as tf

from kresnets.serving.errors import Refusal, demand

_LARGEST_RANK = 32  # more than any model has, fewer than NumPy takes
_FLOATING = "fV"  # V: bfloat16 and its like, which NumPy does not know by itself
_NO_TEXT = "JSON Parse error: a string that is no Unicode text"


@dataclasses.dataclass(frozen=True)
class Tensor:
    """An input or output of a signature: its name in the graph, dtype (`object`: strings) and shape (None: free)."""

    name: str
    dtype: np.dtype
    shape: tuple[int | None, ...] | None


@dataclasses.dataclass(frozen=True)
class Signature:
    """What a signature takes and gives."""

    inputs: Mapping[str, Tensor]
    outputs: Mapping[str, Tensor]
    method: str = "tensorflow/serving/predict"

    @property
    def can_batch(self) -> bool:
        """Whether requests may be joined along the first dimension of everything."""
        tensors = [*self.inputs.values(), *self.outputs.values()]
        return bool(self.inputs) and all(each.shape and each.shape[0] is None for each in tensors)


def _parse_predict(body, signatures, max_rows):
    request, name = _document(body)
    given = [key for key in ("instances", "inputs") if key in request]
    demand(given, "Missing 'inputs' or 'instances' key")
    demand(len(given) == 1, "Not formatted correctly expecting only one of 'inputs' or 'instances' keys to exist")
    value, by_row = request[given[0]], given[0] == "instances"
    columns = value.values() if isinstance(value, dict) else [value]
    _check_rows(max([len(each) for each in columns if isinstance(each, list)], default=0), max_rows)
    inputs = _signature(signatures, name).inputs
    arrays = {key: _array(key, column, inputs[key]) for key, column in _columns(value, inputs, by_row).items()}
    return name, arrays, functools.partial(dump_predict, by_row=by_row)


def _parse_classify(body, signatures, max_rows):
    request, name = _document(body)
    demand("examples" in request, "When method is classify, key 'examples' is expected and was not found")
    examples = request["examples"]
    demand(isinstance(examples, list), "Expecting 'examples' value to be an list/array")
    demand(examples, "'examples' value is an empty array")
    _check_rows(len(examples), max_rows)
    context = _features(request.get("context", {}))  # what counts where an example has no such feature
    try:
        features = [tf.train.Features(feature=context | _features(each)) for each in examples]
    except UnicodeEncodeError:  # half a surrogate pair in a name
        raise Refusal(_NO_TEXT) from None
    serialized = (tf.train.Example(features=each).SerializeToString() for each in features)
    array = np.fromiter(serialized, object, len(examples))
    signature, method = _signature(signatures, name), "tensorflow/serving/classify"
    fits = signature.method == method and len(signature.inputs) == 1
    demand(fits, f"Expected classification signature method_name to be {method}. Was: {signature.method}")
    return name, dict.fromkeys(signature.inputs, array), _dump_classify


# What reads a body, given the signatures of the version that is asked and the rows that a request may have: to the
# signature's name, a dict from its inputs to arrays, and a function from the outputs to the answer.
PARSERS = {"predict": _parse_predict, "classify": _parse_classify}


def dump_predict(outputs: Mapping[str, np.ndarray], by_row: bool) -> bytes:
    """Write the answer to a `:predict` request, with `predictions` for `instances` (`by_row`), with `outputs` else."""
    columns = {name: _plain(name, array) for name, array in outputs.items()}
    if len(columns) == 1:
        [answer] = columns.values()
    elif by_row:
        rows = {array.shape[:1] for array in outputs.values()}
        demand(len(rows) == 1 and () not in rows, "The outputs have no batch dimension in common: ask with 'inputs'.")
        answer = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    else:
        answer = columns
    return json.dumps({"predictions" if by_row else "outputs": answer}).encode()


def _dump_classify(outputs):
    scores = outputs.get("scores", np.zeros(np.shape(outputs.get("classes"))))
    classes = outputs.get("classes", np.full(scores.shape, b"", object))
    rows = zip(_plain("classes", classes), _plain("scores", scores), strict=True)
    return json.dumps({"results": [list(zip(*row, strict=True)) for row in rows]}).encode()


def _document(body):
    try:
        found = json.loads(body)
    except (ValueError, RecursionError) as error:  # also where it is not UTF-8
        reason = "nested too deep" if isinstance(error, RecursionError) else error
        raise Refusal(f"JSON Parse error: {reason}") from None
    if not isinstance(found, dict):
        raise Refusal(f"JSON Value: {_shortened(found)} Is not object")
    name = found.get("signature_name", "")
    demand(isinstance(name, str), "'signature_name' key must be a string value.")
    return found, name or "serving_default"


def _check_rows(rows, most):
    demand(rows <= most, f"{rows} instances are more than {most}, which is the limit here.")


def _signature(signatures, name):
    demand(name in signatures, f'Serving signature name: "{name[:100]}" not found in signature def')
    return signatures[name]


def _columns(value, inputs, by_row):
    """Return the value of each input."""
    problem = "inputs is a plain value/list, but expecting an object"
    if by_row:
        demand(isinstance(value, list), "Expecting 'instances' to be an list/array")
        demand(value, "No values in 'instances' array")
        problem = "instances is a plain list, but expecting list of objects"
    named = [isinstance(each, dict) and not _is_base64(each) for each in (value if by_row else [value])]
    if not any(named):
        demand(len(inputs) == 1, f"{problem} as multiple input tensors required as per tensorinfo_map")
        return dict.fromkeys(inputs, value)
    if not by_row:
        for name in inputs:
            demand(name in value, f"Missing named input: {name} in 'inputs' object.")
        return {name: value[name] for name in inputs}
    for index, row in enumerate(value):
        if not named[index] or row.keys() != inputs.keys():
            what = f"Failed to process element: {index} of 'instances' list. JSON object: {_shortened(row)}"
            raise Refusal(f"{what} keys must be equal to: {','.join(sorted(inputs))}")
    return {name: [row[name] for row in value] for name in inputs}


def _array(name, value, tensor):
    """Make the array of one input out of nested lists."""
    leaves, shape, wanted = [value], (), tensor.shape
    while leaves and isinstance(leaves[0], list):
        size, too_deep = len(leaves[0]), wanted is not None and len(shape) == len(wanted)
        shape += (size,)
        if too_deep:  # told before the time is spent
            break
        even = len(shape) <= _LARGEST_RANK and all(isinstance(each, list) and len(each) == size for each in leaves)
        demand(even, f"Input {name}: lists at one level must be of one length ({size}).")
        leaves = list(itertools.chain.from_iterable(leaves))
    if wanted is not None:
        fits = len(shape) == len(wanted) and all(n in (None, size) for n, size in zip(wanted, shape, strict=True))
        expected = [-1 if size is None else size for size in wanted]
        demand(fits, f"Input {name}: expecting shape {expected} but got: {list(shape)}")
    if tensor.dtype != object:
        return _numbers(leaves, tensor.dtype).reshape(shape)
    return np.fromiter(map(_to_bytes, leaves), object, len(leaves)).reshape(shape)


def _check_types(leaves, allowed, expected):
    if not set(map(type, leaves)) <= allowed:
        leaf = next(leaf for leaf in leaves if type(leaf) not in allowed)
        what = f"JSON Value: {_shortened(leaf)} Type: {type(leaf).__name__}"
        raise Refusal(f"{what} is not of expected type: {expected}")


def _shortened(value, longest=100):
    """Return what a value looks like, cut where it is long: requests may hold megabytes."""
    if isinstance(value, list | dict):
        value = value if len(value) <= 5 and all(not isinstance(each, list | dict) for each in value) else "..."
    text = value[:longest] if isinstance(value, str) else repr(value)
    return text if len(text) < longest else text[:longest] + "..."


def _is_base64(value):
    return isinstance(value, dict) and value.keys() == {"b64"}


def _to_bytes(leaf):
    """Return the bytes of a text, or of `{"b64": "..."}`."""
    if isinstance(leaf, dict):
        if not _is_base64(leaf) or not isinstance(leaf["b64"], str):
            raise Refusal(f"JSON Value: {_shortened(leaf)} not formatted correctly for base64 data")
        # TF Serving takes it with the line breaks of `base64`, and without padding.
        text = "".join(leaf["b64"].split()).rstrip("=")
        try:
            return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
        except ValueError:
            raise Refusal("Unable to base64 decode") from None
    _check_types([leaf], {str}, "string")
    try:
        return leaf.encode()
    except UnicodeEncodeError:  # half a surrogate pair
        raise Refusal(_NO_TEXT) from None


def _numbers(leaves, dtype):
    floating = dtype.kind in _FLOATING
    allowed = {bool} if dtype.kind == "b" else {int, float} if floating else {int}
    _check_types(leaves, allowed, dtype.name)
    try:
        # NumPy converts Python's integers to a smaller type only where they fit.
        array = np.array(leaves, np.float64 if floating else dtype)
        with np.errstate(over="ignore"):
            converted = array.astype(dtype)
        if floating and (np.isinf(converted) & ~np.isinf(array)).any():
            raise OverflowError
    except (OverflowError, ValueError):
        raise Refusal(f"A number is out of the range of {dtype.name}.") from None
    return converted


def _features(example):
    if not isinstance(example, dict):
        raise Refusal(f"Example must be JSON object but got JSON {_shortened(example)}")
    return {name: _feature(name, each if isinstance(each, list) else [each]) for name, each in example.items()}


def _feature(name, values):
    kinds = {float if type(each) is float else int if type(each) in (int, bool) else bytes for each in values}
    if len(kinds) > 1:
        raise Refusal(f"Unexpected element type in feature: {_shortened(name)}: its values must be of one type")
    if any(not isinstance(each, str | int | float) and not _is_base64(each) for each in values):
        raise Refusal(f"Feature: {_shortened(name)} has element with unexpected JSON type: {_shortened(values)}")
    try:
        if float in kinds:
            return tf.train.Feature(float_list=tf.train.FloatList(value=values))
        if int in kinds:
            return tf.train.Feature(int64_list=tf.train.Int64List(value=map(int, values)))
    except (ValueError, OverflowError):
        raise Refusal(f"Feature: {_shortened(name)} has a number that is out of range.") from None
    return tf.train.Feature(bytes_list=tf.train.BytesList(value=[_to_bytes(each) for each in values]))


def _plain(name, array):
    """Return an output as nested lists of what JSON has words for."""
    if array.dtype == object:
        values = [each.decode(errors="replace") for each in array.ravel()]
        if name.endswith("_bytes"):
            values = [{"b64": base64.b64encode(each).decode()} for each in array.ravel()]
        return np.fromiter(values, object, array.size).reshape(array.shape).tolist()
    if array.dtype.kind in _FLOATING and array.dtype.itemsize < 8:
        # By way of its shortest text: 0.97, not the 0.9700000286102295 of the same number in double precision.
        array = array.astype(str).astype(np.float64)
    return array.tolist()
