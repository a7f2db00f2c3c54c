"""More blocks for a trained network, each of which starts as the identity.

A residual block is x + F(x): where F is 0 it gives back its input, so it can be put into a trained network without a
change of what that computes (arXiv 1511.05641 section 2.3 does it for plain layers).
"""

import dataclasses
import re
from collections.abc import Mapping

import keras
import numpy as np

from kresnets._util.checks import is_whole
from kresnets.groups import layout
from kresnets.keras_hooks import optimizer as optimizer_hooks
from kresnets.keras_hooks.graph import graph_nodes, graphs, has_graph
from kresnets.networks.copying import copied, copy_flags, remade

_RECTIFIED = ("relu", "relu6", "linear")  # applied twice they do what they do once


def deepen(model: keras.Model, blocks: Mapping[str, int]) -> keras.Model:
    """Return a deeper network that computes the same: blocks that start as the identity, at the end of its stages.

    The new blocks are made like the last block of their stage, but for its stride and projection, and count on from it:
    `stage3_block4_conv1`. Their residual branch F starts at 0:

    - where a norm ends the branch (v1), this norm has gamma 0 (arXiv 1706.02677 section 5.1). Such a block is
      relu(x + 0), and x is what the ReLU of the block before gave: x >= 0, where a ReLU changes nothing. So it is exact
      only because the stage's end is rectified; a stage that ends with an activation which changes its own outputs is
      refused. After none, or after a linear one, there is nothing to change.
    - where a convolution ends the branch (v2, Inception-ResNet), its kernel and bias are 0. No activation follows the
      sum of a v2 block, so that it is exact for any x.

    All else in a new block starts as the network's builder would start it. In training, too, F is 0 until the first
    step. That step moves only what was set to 0 (in v1 gamma, in v2 the last convolution), since the gradient of all
    before passes through it; from the second step on the whole block learns. Hence a gamma that is frozen at 0 never
    learns and keeps its whole block from learning: let the norms of v1's new blocks learn (`batchnorm="train"` in
    `freeze`, `StagedUnfreezing` and `Recipe`, whose default is `"frozen"`; they warn of it).

    Args:
        model: a Keras model with one kresnets residual trunk: Functional, or with the trunk nested in it, with or
            without a head. It is not changed.
        blocks: dict stage -> how many blocks to add, from 1, such as `{"stage3": 3}`.

    Returns:
        A new model of the same class and name, with the same names, weights and state of random layers. What takes a
        stage's output takes that of its new last block. A stage that strides in its last block (some v2 nets) still
        strides there, before the new ones. `trainable` is as it was; the layers of a new block have the flags of the
        stage's last block. Stochastic depth drops a new block at the rate of that block. Where the model is compiled,
        so is the new one, alike: with its loss, metrics, optimizer and learning rate (or schedule), and the optimizer's
        state (slots, steps, averages, loss scale, accumulated gradients); new variables start with empty slots.

    Raises:
        ValueError: for stages that the model lacks or counts that are no whole numbers from 1; for plain nets, whose
            blocks have no shortcut (F = 0 would give 0, not x); for stages without a residual block at their end, as
            those of Inception-v3 and v4.

    Example:
        >>> import kresnets, numpy as np
        >>> model = kresnets.CifarResNet20()
        >>> deeper = kresnets.deepen(model, {"stage1": 6, "stage2": 6, "stage3": 6})
        >>> [layer.name for layer in deeper.layers] == [layer.name for layer in kresnets.CifarResNet56().layers]
        True
        >>> images = np.ones((1, 32, 32, 3), "float32")
        >>> bool(np.allclose(deeper(images), model(images), atol=1e-6))
        True
    """
    _check(model, blocks)
    templates = [_template(*_last_block(model, stage)) for stage in blocks]
    with optimizer_hooks.scope(model):
        added = {
            id(template.end): [_Block(template, nth) for nth in range(1, count + 1)]
            for template, count in zip(templates, blocks.values(), strict=True)
        }
        copy, twins = _copied(model, added)
        copy_flags(model, copy)
        origins: dict = {}
        for mine, its in twins:
            _copy_state(mine, its)
            origins |= {id(new): old for old, new in zip(mine.variables, its.variables)}
        likes = dict(origins)
        for block in (block for stage in added.values() for block in stage):
            for mine, its in block.layers:
                its.trainable = mine.trainable
                likes |= {id(new): old for old, new in zip(mine.variables, its.variables)}
        if model.compiled:
            optimizer_hooks.compile_alike(
                model, copy, *(lambda variable, of=of: of.get(id(variable), variable) for of in (origins, likes))
            )
    return copy


def _check(model, blocks):
    if not isinstance(model, keras.Model) or not has_graph(model):
        raise ValueError(
            "`deepen` takes a Functional or Sequential Keras model that has been built. Received: "
            f"{type(model).__name__}"
        )
    if not isinstance(blocks, dict) or not blocks:
        raise ValueError(
            f'`blocks` must be a dict of how many blocks each stage gets, such as {{"stage3": 3}}. Received: {blocks!r}'
        )
    if not any(re.match(r"stage[1-9]\d*_block", layer.name) for graph in graphs(model) for layer in graph.layers):
        raise ValueError(
            f"{model.name!r} has no stages as kresnets names them (stage1_block1_conv1, ...) in its graph or in a "
            "model nested there: build the network with kresnets, and deepen it before a layer wraps it."
        )
    stages = layout(model).names[1:-1]
    for stage, count in blocks.items():
        if stage not in stages:
            raise ValueError(f"{model.name!r} has no stage {stage!r} to deepen: use one of {', '.join(stages)}.")
        if not is_whole(count, 1):
            raise ValueError(f"{stage} can get a whole number of blocks from 1. Received: {count!r}")


def _last_block(model, stage):
    """Return the graph that holds a stage, and the name of its last block."""
    pattern, found = re.compile(rf"({stage}_block)([1-9]\d*)_"), {}
    for graph in graphs(model):
        matches = [match for layer in graph.layers if (match := pattern.match(layer.name))]
        if matches:
            found[id(graph)] = graph, f"{stage}_block{max(int(match[2]) for match in matches)}"
    if len(found) != 1:
        number = "several trunks with a" if found else "no block in its"
        raise ValueError(
            f"{model.name!r} has {number} {stage}: deepen a model with one trunk, and build on the result."
        )
    return next(iter(found.values()))


@dataclasses.dataclass(frozen=True, eq=False)
class _Template:
    """A stage's last block, as what others are made like.

    Args:
        name: such as `"stage3_block3"`.
        entry: tensor that its residual branch takes.
        branch: the calls (nodes of the graph) from there to the sum, in order.
        add: the layer that sums.
        out: the activation after the sum, or None.
        zeroed: the layer whose weights make the branch 0.
    """

    name: str
    entry: keras.KerasTensor
    branch: tuple
    add: keras.layers.Layer
    out: keras.layers.Layer | None
    zeroed: keras.layers.Layer

    @property
    def end(self):
        """The layer that gives the block's output."""
        return self.out or self.add


def _template(graph, name):
    nodes = graph_nodes(graph)
    (add,) = [node for node in nodes if node.operation.name == f"{name}_add"] or [None]
    if add is None or not isinstance(add.operation, keras.layers.Add) or len(add.input_tensors) != 2:
        raise ValueError(
            f"{name} of {graph.name!r} is no residual block x + F(x): with F at 0 it would give 0, not x, so it cannot "
            "start as the identity; deepen a stage that ends with a residual block."
        )
    inside = {id(t): node for node in nodes if node.operation.name.startswith(f"{name}_") for t in node.output_tensors}
    # The shortcut is the block's input, or made by layers that are named so; the builders have it first.
    shortcut, branch = sorted(
        add.input_tensors, key=lambda t: id(t) in inside and "_shortcut_" not in _maker(inside, t)
    )
    path, entries = _path(branch, inside)
    sources = _path(shortcut, inside)[1]
    if len(entries) != 1 or not path or sources.keys() != entries.keys():
        strange = next((t for key, t in entries.items() if key not in sources), branch)
        raise ValueError(
            f"{name} of {graph.name!r} has more in its residual branch than layers called {name}_..., such as "
            f"{strange.name!r}: only blocks as kresnets builds them can be added."
        )
    (entry,) = entries.values()
    out = _activation(name, nodes, add)
    return _Template(name, entry, path, add.operation, out, _zeroed(name, branch, inside))


def _maker(inside, tensor):
    return inside[id(tensor)].operation.name


def _path(tensor, inside):
    """Return the calls inside of a block that lead to a tensor, in order, and the tensors from outside that they
    take."""
    path, entries = {}, {}

    def follow(tensor):
        node = inside.get(id(tensor))
        if node is None:
            entries[id(tensor)] = tensor
        elif id(node) not in path:
            for before in node.input_tensors:
                follow(before)
            path[id(node)] = node

    follow(tensor)
    return tuple(path.values()), entries


def _activation(name, nodes, add):
    """Return the activation with which a block ends, None where it ends with its sum."""
    summed = id(add.output_tensors[0])
    after = [node.operation for node in nodes if any(id(t) == summed for t in node.input_tensors)]
    own = [layer for layer in after if layer.name.startswith(f"{name}_")]
    if not own:
        return None
    out = own[0]
    if isinstance(out, keras.layers.Activation):
        fits = keras.activations.serialize(out.activation) in _RECTIFIED
    else:
        fits = isinstance(out, keras.layers.ReLU) and not out.negative_slope
    if not fits or len(own) > 1:
        raise ValueError(
            f"{name} goes on after its sum with {out.name!r} ({type(out).__name__}), which behind F(x) = 0 changes its "
            f"own outputs once more: a block to be added must end with its sum, or with {', '.join(_RECTIFIED)}."
        )
    return out


def _zeroed(name, tensor, inside):
    """Return the last layer with weights on a branch."""
    layer = None
    while id(tensor) in inside:
        node = inside[id(tensor)]
        layer, tensor = node.operation, node.input_tensors[0]
        kinds = (keras.layers.BatchNormalization, keras.layers.GroupNormalization)
        norm = isinstance(layer, kinds) and layer.scale
        if getattr(layer, "standardize", None) is not None:
            raise ValueError(
                f"The residual branch of {name} ends with {layer.name!r}, whose filters are standardized: 0 would turn "
                "into filters of full size at the first step, so no block of it can start as the identity."
            )
        if norm or isinstance(layer, keras.layers.Conv2D) and layer.activation is keras.activations.linear:
            return layer
        scaled = isinstance(layer, keras.layers.Rescaling) and not np.any(layer.offset)
        # A squeeze-and-excitation scales what the norm before it gives: 0 stays 0.
        passing = (keras.layers.Dropout, keras.layers.SpatialDropout2D, keras.layers.Multiply)
        if not scaled and not isinstance(layer, passing):
            break
    raise ValueError(
        f"The residual branch of {name} ends with {layer.name!r} ({type(layer).__name__}): it can start at 0 only "
        "where a norm with gamma or a linear Conv2D ends it."
    )


class _Block:
    """The layers of one new block, to be called on the output of the stage."""

    def __init__(self, template, nth):
        stage, number = template.name.rsplit("_block", 1)
        self.name = f"{stage}_block{int(number) + nth}"
        self._template, self.layers = template, []
        strided = self._without_stride()
        self._branch = {
            id(node): None if (changes := strided.get(id(node), {})) is None else self._like(node.operation, **changes)
            for node in template.branch
        }
        self._first = [self._like(layer, called=called) for layer, called in self._lacking()]
        self._add = self._like(template.add)
        self._out = self._like(template.out) if template.out else None

    def _like(self, layer, called=None, **changes):
        """Make a layer like one of the template's, where it is the branch's last with its weights 0."""
        called = called or layer.name
        changes["name"] = self.name + called.removeprefix(self._template.name)
        config = layer.get_config()
        if layer is self._template.zeroed and called == layer.name:
            starts = ("gamma", "beta") if "gamma_initializer" in config else ("kernel", "bias")
            changes |= {f"{which}_initializer": "zeros" for which in starts}
        # Those of the network's first norm
        changes |= {ours: None for ours in ("preprocessing", "origin") if ours in config}
        made = remade(layer, **changes)
        self.layers.append((layer, made))
        return made

    def _without_stride(self):
        """Say by node what changes where a convolution strides: its padding too, which the one before it was; None: it
        goes."""
        changes, padding = {}, {}
        for node in self._template.branch:
            layer, before = node.operation, padding.get(id(node.input_tensors[0]))
            if isinstance(layer, keras.layers.ZeroPadding2D):
                padding[id(node.output_tensors[0])] = node
            elif max(getattr(layer, "strides", None) or (1,)) > 1:
                changes[id(node)] = {"strides": (1, 1), "padding": "same"}
                if before is not None:
                    changes[id(before)] = None
        return changes

    def _lacking(self):
        """List the norm and ReLU that begin a pre-activation block, where the template has none: its input, the stem's,
        was activated already, as that of a later block is not."""
        name = self._template.name
        named = {node.operation.name: node.operation for node in self._template.branch}
        lacks = f"{name}_bn1" not in named and {f"{name}_{kind}2" for kind in ("bn", "relu")} <= named.keys()
        if self._template.out or not lacks:
            return []
        return [(named[f"{name}_{kind}2"], f"{name}_{kind}1") for kind in ("bn", "relu")]

    def __call__(self, x):
        start = x
        for layer in self._first:
            start = layer(start)
        values = {id(self._template.entry): start}
        for node in self._template.branch:
            inputs = [values[id(tensor)] for tensor in node.input_tensors]
            layer, inputs = self._branch[id(node)], inputs[0] if len(inputs) == 1 else inputs
            values[id(node.output_tensors[0])] = y = layer(inputs) if layer else inputs
        if tuple(y.shape) != tuple(x.shape):
            raise ValueError(
                f"A block like {self._template.name} turns {x.shape[1:]} into {y.shape[1:]}, so it cannot start as the "
                "identity: only blocks as kresnets builds them can be added."
            )
        y = self._add([x, y])
        return self._out(y) if self._out else y


def _copied(model, added):
    """Copy a model with blocks added behind layers; `added` is by the layer's id.

    Returns:
        The copy, and each layer of the model with its copy.
    """
    twins, behind = {}, {}

    def copy_layer(layer):
        if id(layer) not in twins:  # a layer of two nested models stays one
            twins[id(layer)] = layer, remade(layer)
        its = twins[id(layer)][1]
        behind[id(its)] = added.get(id(layer), ())
        return its

    def call_layer(layer, *args, **kwargs):
        outputs = layer(*args, **kwargs)
        for block in behind.get(id(layer), ()):
            outputs = block(outputs)
        return outputs

    copy = copied(model, copy_layer, call_layer, keep_class=True)
    return copy, [pair for pair in twins.values() if isinstance(pair[0], keras.layers.Layer)]


def _copy_state(mine, its):
    """Give a layer the weights of its original, and the state of what draws random numbers in it."""
    described = [[(variable.name, tuple(variable.shape)) for variable in layer.variables] for layer in (mine, its)]
    if described[0] != described[1]:
        raise ValueError(
            f"The layer {mine.name!r} ({type(mine).__name__}) has other weights when it is made again from its config: "
            "give it a `get_config` that tells all arguments of its `__init__`."
        )
    for old, new in zip(mine.variables, its.variables):
        new.assign(np.array(old.numpy()))
