"""How each kind of file names and shapes the tensors of a network's layers.

A `FileLayout` is a kind of file (timm's, keras.applications', kresnets'); its `Family`s say, for the rows that each of
them serves, what the file calls a layer and what else it does its own way.
"""

import collections
import collections.abc
import dataclasses
import re

import keras

from kresnets.preprocess import Preprocessing
from kresnets.specs import Spec
from kresnets.weights import keras_names, onnx_graph, readers, torch_names

# A network's layers with weights; what a user put before the stem is not the file's business.
_OWN = re.compile(r"stem_(conv|bn)\d+|stage\d+_.+|head_dense")
_KERAS_MODULE = re.compile(r"conv1_conv|conv2d(_\d+)?")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Family:
    """The networks of a layout that share one rule of names.

    Args:
        serves: row -> whether it is one of them.
        module: (layer's name, row) -> the file's name for that layer.
        is_head: (file's name for a layer) -> whether it belongs to the head.
        unfit: row -> why a row of the family still computes something else, as the rest of a sentence; None where it
            does not.
        known: names of all tensors -> {name: the name to know it by, None for one that is no weight}.
        join: between the name of a layer and of a variable.
        variables: the file's names of variables, where they are not Keras's.
        axes: number of axes -> which of the file's axes comes where in Keras; none for Keras's own order.
        conv_bias: whether every convolution has a bias, also under a norm.
        gamma: whether norms have one.
        dense_as_conv: whether the head is a 1x1 convolution.
        preprocessing: what such files want where they do not say.
    """

    serves: collections.abc.Callable[[Spec], bool]
    module: collections.abc.Callable[[str, Spec], str]
    is_head: collections.abc.Callable[[str], bool]
    unfit: collections.abc.Callable[[Spec], str | None] = lambda spec: None
    known: collections.abc.Callable[[list[str]], dict[str, str | None]] = lambda names: dict(zip(names, names))
    join: str = "/"
    variables: dict[str, str] = dataclasses.field(default_factory=dict)
    axes: dict[int, tuple[int, ...]] = dataclasses.field(default_factory=dict)
    conv_bias: bool = False
    gamma: bool = True
    dense_as_conv: bool = False
    preprocessing: Preprocessing = Preprocessing("torch")

    def tensor(self, module, variable):
        """The file's name of a variable (`"kernel"`) of a layer, which the file calls `module`."""
        return f"{module}{self.join}{self.variables.get(variable, variable)}"

    def in_head(self, tensor):
        """Whether a tensor of the file belongs to the head."""
        return self.is_head(tensor.rpartition(self.join)[0])


@dataclasses.dataclass(frozen=True)
class FileLayout:
    """One kind of file.

    Args:
        label: what messages call it.
        families: which rows it serves, and how.
        missing: row -> why the layout has no such network, as the rest of a sentence.
    """

    label: str
    families: tuple[Family, ...]
    missing: collections.abc.Callable[[Spec], str] = lambda spec: "it has no such network"

    def family(self, spec):
        """Find the family that serves a row, None where none does."""
        return next((family for family in self.families if family.serves(spec)), None)

    def refusal(self, spec):
        """Say why a row can't take such a file, as the rest of a sentence; None where it can."""
        family = self.family(spec)
        return self.missing(spec) if family is None else family.unfit(spec)


def _torch(serves, module, head, **more):
    return Family(
        serves=serves,
        module=module,
        is_head=lambda name: name == head,
        known=lambda names: {name: None if name.endswith(".num_batches_tracked") else name for name in names},
        join=".",
        variables=dict(
            kernel="weight", gamma="weight", beta="bias", moving_mean="running_mean", moving_variance="running_var"
        ),
        axes={4: (2, 3, 1, 0), 2: (1, 0)},
        **more,
    )


def _keras(serves, module, known, mode, **more):
    preprocessing = Preprocessing(mode)
    is_head = keras_names.is_head
    return Family(serves=serves, module=module, is_head=is_head, known=known, preprocessing=preprocessing, **more)


# timm's Inception nets, and its pre-activation ones, are trained on pixels scaled to -1..1: the torch mode with means
# and deviations of a half.
_HALVES = dict(preprocessing=Preprocessing("torch", mean=(0.5,) * 3, std=(0.5,) * 3))
TORCH = FileLayout(
    "timm and torchvision",
    (
        _torch(torch_names.is_v1, torch_names.v1, "fc", unfit=torch_names.v1_unfit),
        _torch(torch_names.is_v2, torch_names.v2, "head.fc", unfit=torch_names.v2_unfit, dense_as_conv=True, **_HALVES),
        _torch(torch_names.is_inception_v4, torch_names.inception_v4, "last_linear", **_HALVES),
        _torch(torch_names.is_inception_resnet_v2, torch_names.inception_resnet_v2, "classif", **_HALVES),
    ),
    missing=torch_names.missing,
)
_HEAD = keras_names.known_head
KERAS_APPLICATIONS = FileLayout(
    "keras.applications",
    (
        _keras(keras_names.is_v1, keras_names.v1, _HEAD, "caffe", unfit=keras_names.v1_unfit, conv_bias=True),
        _keras(keras_names.is_v2, keras_names.v2, _HEAD, "tf", unfit=keras_names.v2_unfit),
        # Their norms have no scale (a ReLU passes a scale on to what follows); ours, as timm's, have: it starts at 1.
        _keras(keras_names.is_inception, keras_names.inception, keras_names.known_inception, "tf", gamma=False),
    ),
)
ONNX = FileLayout(
    "open_nsfw's ONNX file",
    (
        Family(
            serves=onnx_graph.is_thin,
            module=onnx_graph.module,
            is_head=lambda module: module == "dense",
            conv_bias=True,
            preprocessing=Preprocessing("caffe", mean=(104.0, 117.0, 123.0)),
        ),
    ),
)
KRESNETS = FileLayout(
    "kresnets",
    (
        Family(
            serves=lambda spec: True,
            module=lambda layer, spec: layer,
            # Whatever a user adds around a trunk belongs to the head.
            is_head=lambda module: not module.startswith(("stem_", "stage")),
        ),
    ),
)


def of(file):
    """Find the layout of an opened `WeightsFile`, or raise a ValueError where it has none of those that are known."""
    if file.kind in ("safetensors", "onnx"):
        return TORCH if file.kind == "safetensors" else ONNX
    modules = {name.rpartition("/")[0] for name in file.tensors}
    if "stem_conv1" in modules:
        return KRESNETS
    if any(map(_KERAS_MODULE.fullmatch, modules)):
        return KERAS_APPLICATIONS
    first = ", ".join(map(readers.shown, list(file.tensors)[:3]))
    found = f"its first tensors are {first}" if first else "it holds no tensors"
    raise ValueError(f"{file.path} is neither a file of keras.applications' networks nor of kresnets: {found}.")


def modules(family, model, spec, positional=False):
    """Map the network's own layers with weights to what a family's file calls them, in the order of the model; to
    classes and places (`conv2d_1`) where the file names layers so."""
    own = [layer for layer in model.layers if layer.weights and _OWN.fullmatch(layer.name)]
    names = _by_place(own) if positional else (family.module(layer.name, spec) for layer in own)
    return dict(zip(own, names, strict=True))


def _by_place(layers):
    """Name layers as Keras 3 does in a `.weights.h5`: `conv2d`, `conv2d_1`, ...

    The order of our layers is keras.applications' own: both builders add shortcut and branch in the same order.
    """
    kinds = {
        keras.layers.Conv2D: "conv2d",
        keras.layers.BatchNormalization: "batch_normalization",
        keras.layers.Dense: "dense",
    }
    counts = collections.Counter()
    for layer in layers:
        kind = next(name for cls, name in kinds.items() if isinstance(layer, cls))
        yield f"{kind}_{counts[kind]}" if counts[kind] else kind
        counts[kind] += 1
