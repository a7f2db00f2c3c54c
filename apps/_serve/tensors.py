"""JSON of TF Serving's REST interface to arrays and back.

https://github.com/tensorflow/serving/blob/master/tensorflow_serving/g3doc/api_rest.md says what it looks like; the
wording of errors follows TF Serving's own. Nothing here recurses: how deep a request nests is the client's choice.
"""

import base64
import binascii
import dataclasses
import itertools
import json

import numpy as np

from _serve.refusal import Refusal, shortened

_LARGEST_RANK = 32  # no array of numpy's has more


@dataclasses.dataclass(frozen=True)
class Tensor:
    """An input or output of a signature: its name in the graph, dtype (`object` for strings) and shape (None: free)."""

    name: str
    dtype: np.dtype
    shape: tuple | None

    def accepts(self, shape):
        """Say whether an array of this shape may be given."""
        if self.shape is None:
            return True
        return len(shape) == len(self.shape) and all(
            size is None or size == given for size, given in zip(self.shape, shape)
        )


def parse(body, check_rows=lambda rows: None):
    """Read the body of a request: a JSON object.

    Args:
        body: bytes.
        check_rows: called with the number of rows, and raises where they are too many, before arrays are made of them.

    Returns:
        tuple of the signature's name (str) and a function from that signature's inputs (dict name -> `Tensor`) to
        the arrays (dict name -> array) and whether the answer is to be row by row.
    """
    request, signature = document(body)
    given = [key for key in ("instances", "inputs") if key in request]
    if len(given) != 1:
        raise Refusal(
            "INVALID_ARGUMENT",
            "Not formatted correctly expecting only one of 'inputs' or 'instances' keys to exist"
            if given
            else "Missing 'inputs' or 'instances' key",
        )
    value, by_row = request[given[0]], given[0] == "instances"
    for column in value.values() if isinstance(value, dict) else [value]:
        if isinstance(column, list):
            check_rows(len(column))

    def arrays(inputs):
        columns = _columns_of_rows(value, inputs) if by_row else _columns(value, inputs)
        return {name: _array(name, column, inputs[name]) for name, column in columns.items()}, by_row

    return signature, arrays


def document(body):
    """Read a JSON object, and return it with the signature's name that it gives (str)."""
    try:
        found = json.loads(body)
    except (ValueError, RecursionError) as error:  # also where it is not UTF-8
        reason = "nested too deep" if isinstance(error, RecursionError) else error
        raise Refusal("INVALID_ARGUMENT", f"JSON Parse error: {reason}") from None
    if not isinstance(found, dict):
        raise Refusal("INVALID_ARGUMENT", f"JSON Value: {shortened(found)} Is not object")
    signature = found.get("signature_name", "")
    if not isinstance(signature, str):
        raise Refusal("INVALID_ARGUMENT", "'signature_name' key must be a string value.")
    return found, signature or "serving_default"


def is_base64(value):
    """Say whether a value of JSON stands for bytes: `{"b64": "..."}`."""
    return isinstance(value, dict) and value.keys() == {"b64"}


def _columns_of_rows(rows, inputs):
    if not isinstance(rows, list):
        raise Refusal("INVALID_ARGUMENT", "Expecting 'instances' to be an list/array")
    if not rows:
        raise Refusal("INVALID_ARGUMENT", "No values in 'instances' array")
    named = [isinstance(row, dict) and not is_base64(row) for row in rows]
    if not any(named):
        return {_only(inputs, "instances is a plain list, but expecting list of objects"): rows}
    for index, row in enumerate(rows):
        if not named[index] or row.keys() != inputs.keys():
            raise Refusal(
                "INVALID_ARGUMENT",
                f"Failed to process element: {index} of 'instances' list. JSON object: {shortened(row)} keys must be "
                f"equal to: {','.join(sorted(inputs))}",
            )
    return {name: [row[name] for row in rows] for name in inputs}


def _columns(value, inputs):
    if not isinstance(value, dict) or is_base64(value):
        return {_only(inputs, "inputs is a plain value/list, but expecting an object"): value}
    for name in inputs:
        if name not in value:
            raise Refusal("INVALID_ARGUMENT", f"Missing named input: {name} in 'inputs' object.")
    return {name: value[name] for name in inputs}


def _only(inputs, problem):
    if len(inputs) != 1:
        raise Refusal("INVALID_ARGUMENT", f"{problem} as multiple input tensors required as per tensorinfo_map")
    return next(iter(inputs))


def _array(name, value, tensor):
    """Make the array of one input out of nested lists."""
    leaves, shape = [value], ()
    while leaves and isinstance(leaves[0], list):
        size = len(leaves[0])
        if tensor.shape is not None and len(shape) == len(tensor.shape):  # said before the time is spent
            raise _shape_error(name, tensor, (*shape, size))
        if len(shape) == _LARGEST_RANK or not all(isinstance(each, list) and len(each) == size for each in leaves):
            raise Refusal("INVALID_ARGUMENT", f"Input {name}: lists at one level must be of one length ({size}).")
        shape += (size,)
        leaves = list(itertools.chain.from_iterable(leaves))
    if not tensor.accepts(shape):
        raise _shape_error(name, tensor, shape)
    return (_strings(leaves) if tensor.dtype == object else _numbers(leaves, tensor.dtype)).reshape(shape)


def _shape_error(name, tensor, shape):
    expected = [-1 if size is None else size for size in tensor.shape]
    return Refusal("INVALID_ARGUMENT", f"Input {name}: expecting shape {expected} but got: {list(shape)}")


def _strings(leaves):
    array = np.empty(len(leaves), object)
    for index, leaf in enumerate(leaves):
        array[index] = to_bytes(leaf)
    return array


def to_bytes(leaf):
    """Return the bytes of a text, or of `{"b64": "..."}`."""
    if isinstance(leaf, dict):
        if not is_base64(leaf) or not isinstance(leaf["b64"], str):
            raise Refusal("INVALID_ARGUMENT", f"JSON Value: {shortened(leaf)} not formatted correctly for base64 data")
        return _decoded(leaf["b64"])
    if not isinstance(leaf, str):
        raise _type_error(leaf, "string")
    try:
        return leaf.encode()
    except UnicodeEncodeError:  # half a surrogate pair
        raise Refusal("INVALID_ARGUMENT", "JSON Parse error: a string that is no Unicode text") from None


def _decoded(text):
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        pass
    try:  # with the line breaks of `base64`, or without padding, as TF Serving takes them
        text = "".join(text.split()).rstrip("=")
        return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except (binascii.Error, ValueError):
        raise Refusal("INVALID_ARGUMENT", "Unable to base64 decode") from None


def _numbers(leaves, dtype):
    floating = _is_floating(dtype)
    allowed = {bool} if dtype.kind == "b" else {int, float} if floating else {int}
    if not set(map(type, leaves)) <= allowed:
        raise _type_error(next(leaf for leaf in leaves if type(leaf) not in allowed), dtype.name)
    try:
        # numpy converts Python's integers to a smaller type only where they fit.
        array = np.array(leaves, np.float64 if floating else dtype)
    except (OverflowError, ValueError):
        raise Refusal("INVALID_ARGUMENT", f"A number is out of the range of {dtype.name}.") from None
    with np.errstate(over="ignore"):
        converted = array.astype(dtype)
    if floating and (np.isinf(converted) & ~np.isinf(array)).any():
        raise Refusal("INVALID_ARGUMENT", f"A number is out of the range of {dtype.name}.")
    return converted


def _is_floating(dtype):
    return dtype.kind in "fV"  # V: bfloat16 and its like, which numpy does not know by itself


def _type_error(leaf, expected):
    return Refusal(
        "INVALID_ARGUMENT",
        f"JSON Value: {shortened(leaf)} Type: {type(leaf).__name__} is not of expected type: {expected}",
    )


def dump(outputs, by_row):
    """Write an answer.

    Args:
        outputs: dict name -> array.
        by_row: whether `instances` asked for it.

    Returns:
        bytes of the JSON, with `predictions` or `outputs`.

    Example:
        >>> dump({"scores": np.array([[0.5, 0.25]], "float32")}, by_row=True)
        b'{"predictions": [[0.5, 0.25]]}'
    """
    columns = {name: plain(name, array) for name, array in outputs.items()}
    if len(columns) == 1:
        [answer] = columns.values()
    elif by_row:
        if len({array.shape[:1] for array in outputs.values()} | {()}) != 2:
            raise Refusal("INVALID_ARGUMENT", "The outputs have no batch dimension in common: ask with 'inputs'.")
        answer = [dict(zip(columns, row)) for row in zip(*columns.values())]
    else:
        answer = columns
    return json.dumps({"predictions" if by_row else "outputs": answer}).encode()


def plain(name, array):
    """Return an output as nested lists of what JSON has words for."""
    if array.dtype == object:
        if name.endswith("_bytes"):
            write = lambda each: {"b64": base64.b64encode(each).decode()}  # noqa: E731
        else:
            write = lambda each: each.decode(errors="replace")  # noqa: E731
        flat = np.empty(array.size, object)
        flat[:] = [write(each) for each in array.ravel()]
        return flat.reshape(array.shape).tolist()
    if _is_floating(array.dtype) and array.dtype.itemsize < 8:
        # By way of its shortest text: 0.97, not the 0.9700000286102295 of the same number in double precision.
        array = array.astype(str).astype(np.float64)
    return array.tolist()
