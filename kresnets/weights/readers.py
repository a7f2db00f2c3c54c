"""Weights files as named tensors that are read when asked for: safetensors, and HDF5 as Keras writes it.

Nothing is unpickled, and no link leads out of the file.
"""

import collections.abc
import contextlib
import dataclasses
import json
import math
import os
import re

import numpy as np

_SAFETENSORS_DTYPES = {"F16": "float16", "BF16": "bfloat16", "F32": "float32", "F64": "float64"}

# What h5py raises, by where in a file the damage lies.
_DAMAGE = (OSError, RuntimeError, KeyError, TypeError, AttributeError, ValueError)
_NORM = r"/batch_normalization(?:_\d+)?/vars/"
_LONGEST = 200  # characters of what a file says that a message repeats

# Keras 3 numbers the variables of a layer in the order in which its class makes them.
_KERAS_VARIABLES = {
    "conv2d": ("kernel", "bias"),
    "dense": ("kernel", "bias"),
    "batch_normalization": ("gamma", "beta", "moving_mean", "moving_variance"),
}


class Refusal(ValueError):
    """A file that is refused, in a sentence of this package."""


def shown(text):
    """Make what a file says fit for a sentence: it may call its tensors anything, at any length."""
    text = text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."
    return text if text.isprintable() else ascii(text)


@dataclasses.dataclass(frozen=True)
class Tensor:
    """A tensor of a file, not read yet.

    Args:
        shape: its shape in the file.
        dtype: numpy's name of its dtype, or the file's own where numpy has none.
        read: function without arguments that reads it into an array.
    """

    shape: tuple[int, ...]
    dtype: str
    read: collections.abc.Callable[[], np.ndarray]


@dataclasses.dataclass(frozen=True)
class WeightsFile:
    """What a weights file holds.

    Args:
        path: where it lies.
        kind: `"safetensors"`, `"h5"` or `"onnx"`.
        tensors: the tensors by name: `layer1.0.conv1.weight` in safetensors, `conv1_conv/kernel` (layer, variable) in
            HDF5.
        positional: whether layers are named by class and place (`conv2d_3`), as early Keras 3 did, not by themselves.
        model_name: name of the Keras model that was saved, where the file tells.
        preprocessing: fields of the `kresnets.Preprocessing` that the weights want, where the file tells.
        origin: where the weights came from at first, where the file tells.
    """

    path: str
    kind: str
    tensors: dict[str, Tensor]
    positional: bool = False
    model_name: str | None = None
    preprocessing: dict | None = None
    origin: str | None = None


@contextlib.contextmanager
def opened(path):
    """Open a `.safetensors`, `.onnx` or else HDF5 file as a `WeightsFile`, to be read until the context ends.

    Raises:
        ValueError: for a file that is damaged, half there, of another kind or unsafe to read.
    """
    open_file = {"safetensors": _open_safetensors, "ONNX": _open_onnx}.get(_kind(path), _open_h5)
    with contextlib.ExitStack() as stack:
        with _telling(path):
            file = open_file(str(path), stack)
        yield file


@contextlib.contextmanager
def _telling(path, tensor=""):
    """Turn what the reading libraries raise for a bad file, or one tensor of it, into one sentence."""
    import safetensors

    try:
        yield
    except Refusal:
        raise
    except (*_DAMAGE, safetensors.SafetensorError) as error:
        what = f"{tensor} of {path}" if tensor else path
        raise Refusal(
            f"{what} can't be read as a {_kind(path)} file of weights: it is damaged, only half there or something "
            f"else. The reader says: {shown(' '.join(str(error).split()))}"
        ) from error


def _kind(path):
    return {".safetensors": "safetensors", ".onnx": "ONNX"}.get(os.path.splitext(path)[1], "HDF5")


def _reader(path, name, function, *args):
    def read():
        with _telling(path, shown(name)):
            return function(*args)

    return read


def _open_onnx(path, stack):
    from kresnets.weights import onnx_graph

    return onnx_graph.read(path)


def _open_safetensors(path, stack):
    import safetensors

    file = stack.enter_context(safetensors.safe_open(path, framework="numpy"))
    tensors = {}
    for name in file.keys():
        view = file.get_slice(name)
        dtype = view.get_dtype()
        read = _reader(path, name, file.get_tensor, name)
        tensors[name] = Tensor(tuple(view.get_shape()), _SAFETENSORS_DTYPES.get(dtype, dtype), read)
    return WeightsFile(path, "safetensors", tensors)


def _open_h5(path, stack):
    import h5py

    file = stack.enter_context(h5py.File(path, "r"))
    datasets = dict(_walk(file, path, seen=set()))
    if any(name.startswith("layers/") for name in datasets):
        return _keras_3_file(path, file, datasets)
    # A model that `model.save` wrote keeps its weights in a group beside its optimizer's; a weights file is that group.
    prefix = "model_weights/" if "model_weights" in file else ""
    names = {full: full.removeprefix(prefix).split("/") for full in datasets if full.startswith(prefix)}
    # conv1_conv/conv1_conv/kernel:0: the layer's group, then the variable's own path.
    named = {full: f"{'/'.join(parts[-2:-1])}/{parts[-1].removesuffix(':0')}" for full, parts in names.items()}
    return WeightsFile(path, "h5", _by_name(path, named, datasets))


def _keras_3_file(path, file, datasets):
    labels = {}  # layer group -> the layer's own name, which Keras writes beside its variables
    named = {}
    # One norm without its variable 3 has lost it; a network of such norms has no scales.
    ones, threes = (sum(bool(re.search(_NORM + index, full)) for full in datasets) for index in "13")
    scaled = 2 * threes >= ones
    for full in datasets:
        parts = full.split("/")
        if parts[0] == "optimizer" or "seed_generator" in parts:
            continue  # the state of a training, not weights
        if len(parts) < 4 or parts[-2] != "vars":
            named[full] = full
            continue
        group = "/".join(parts[:-2])
        if group not in labels:
            labels[group] = _text(file[group]["vars"].attrs.get("name"))
        named[full] = f"{labels[group] or parts[-3]}/{_variable(parts[-3], parts[-1], scaled)}"
    model_name = _text(file["vars"].attrs.get("name")) if "vars" in file else None
    preprocessing = _text(file.attrs.get("preprocessing"))
    return WeightsFile(
        path, "h5", _by_name(path, named, datasets), positional=None in labels.values(), model_name=model_name,
        preprocessing=_fields(path, preprocessing) if preprocessing else None, origin=_text(file.attrs.get("origin")),
    )  # fmt: skip


def _variable(group, index, scaled):
    """Name the variable that Keras 3 keeps as number `index` of the layer group `conv2d_3`."""
    names = _KERAS_VARIABLES.get(re.sub(r"_\d+$", "", group), ())
    if "gamma" in names and not scaled:
        names = names[1:]  # a norm without a scale
    return names[int(index)] if index.isdecimal() and int(index) < len(names) else index


def _by_name(path, named, datasets):
    tensors = {}
    for full, name in named.items():
        if name in tensors:
            raise Refusal(f"{path} holds two tensors that are both called {shown(name)}.")
        dataset = datasets[full]
        is_bytes = dataset.dtype.kind == "V" and dataset.dtype.itemsize == 2
        is_bfloat16 = is_bytes and _text(dataset.attrs.get("dtype")) == "bfloat16"
        dtype = "bfloat16" if is_bfloat16 else dataset.dtype.name
        tensors[name] = Tensor(dataset.shape, dtype, _reader(path, name, _read_dataset, dataset, is_bfloat16))
    return tensors


def _read_dataset(dataset, is_bfloat16):
    array = dataset[()]
    return array.view("bfloat16") if is_bfloat16 else array


def _walk(group, path, seen, prefix=""):
    """Yield (full name, dataset) of all datasets below a group; refuse what leads out of the file or inflates."""
    import h5py

    for name in group:
        full = f"{prefix}{name}"
        if not isinstance(group.get(name, getlink=True), h5py.HardLink):
            raise Refusal(
                f"{path} holds a link ({shown(full)}), which is not followed: copy the weights themselves into one "
                "file."
            )
        item = group[name]
        if item in seen:
            raise Refusal(f"{path} holds {shown(full)} under two names, which no weights file does.")
        seen.add(item)
        if isinstance(item, h5py.Group):
            yield from _walk(item, path, seen, prefix=f"{full}/")
        elif isinstance(item, h5py.Dataset):
            with _telling(path, shown(full)):
                _check_storage(item, path, shown(full))
            yield full, item


def _check_storage(dataset, path, full):
    """Refuse a dataset whose numbers do not all lie in the file as they are."""
    if dataset.external or dataset.is_virtual:
        raise Refusal(f"{path} keeps {full} in another file, which is not read: copy the weights themselves into one.")
    # A chunk is read whole: one larger than its tensor only costs memory.
    if dataset.shape is None or math.prod(dataset.chunks or ()) > max(dataset.size, 1):
        raise Refusal(f"{path} does not keep {full} as an array of its own size.")
    # HDF5 unpacks a chunk to whatever size it unpacks to. Keras packs nothing.
    if dataset.id.get_create_plist().get_nfilters():
        raise Refusal(f"{path} keeps {full} packed, which is not read: unpack it with `h5repack -f NONE`.")
    # What was never written would read as zeros, and what is cut off as anything.
    if dataset.id.get_storage_size() < dataset.nbytes:
        raise Refusal(f"{path} is only half there: it does not hold all of {full}.")


def _text(value):
    return value.decode() if isinstance(value, bytes) else value if isinstance(value, str) else None


def _fields(path, text):
    try:
        return dict(json.loads(text))
    except (ValueError, TypeError) as error:
        raise Refusal(f"{path} does not say readably how images are preprocessed: {shown(text)}") from error
