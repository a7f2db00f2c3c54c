"""`summarize`: a model's costs as a table by group and by layer."""

import csv
import dataclasses
import io
import math
from typing import Any

import keras

from kresnets._util import files
from kresnets._util.types import PathLike, Patterns
from kresnets.analysis import rules
from kresnets.analysis.graph import Trace
from kresnets.groups import layout

_STATISTICS = ("moving_mean", "moving_variance")


@dataclasses.dataclass(frozen=True)
class Row:
    """The costs of a group or of a layer.

    Args:
        name: of the group; of the layer, after those of the models it is nested in (`"trunk/stem_conv1"`).
        kind: `"group"`, or the layer's class.
        output: shape of the last output for one image, without the batch axis; None without one.
        weight_layers: convolutions and dense layers in it, projections of shortcuts included.
        parameters: learned numbers (weights, biases, gamma, beta), frozen ones too.
        statistics: numbers that are moved along but not learned: moving means and variances.
        multiply_adds: for one image, forwards.
        activation_bytes: what it makes and training keeps, for one image; see `summarize`.
    """

    name: str
    kind: str
    output: tuple[int | None, ...] | None = None
    weight_layers: int = 0
    parameters: int = 0
    statistics: int = 0
    multiply_adds: int = 0
    activation_bytes: int = 0

    def __add__(self, other):
        sums = {name: getattr(self, name) + getattr(other, name) for name in _NUMBERS}
        return dataclasses.replace(self, output=other.output or self.output, **sums)


_NUMBERS = ("weight_layers", "parameters", "statistics", "multiply_adds", "activation_bytes")


@dataclasses.dataclass(frozen=True)
class Summary:
    """What `summarize` found; `print` shows it as a table.

    Args:
        name: the model's name.
        input_shapes: of each input, without the batch axis.
        depth: weight layers on the longest path.
        rows: a `Row` for each group, in order.
        layers: a `Row` for each layer that computes something, in the order of the graph.
        not_counted: paths of layers that multiply in a way that is not known here: `multiply_adds` lacks theirs.
    """

    name: str
    input_shapes: tuple[tuple[int, ...], ...]
    depth: int
    rows: tuple[Row, ...]
    layers: tuple[Row, ...]
    not_counted: tuple[str, ...] = ()

    @property
    def total(self) -> Row:
        """The `Row` of the whole model."""
        return dataclasses.replace(sum(self.rows[1:], self.rows[0]), name="total", kind="model")

    @property
    def parameters(self) -> int:
        """Learned numbers."""
        return self.total.parameters

    @property
    def statistics(self) -> int:
        """Moving means and variances."""
        return self.total.statistics

    @property
    def multiply_adds(self) -> int:
        """For one image, forwards; twice as many operations."""
        return self.total.multiply_adds

    @property
    def activation_bytes(self) -> int:
        """What training keeps for the backward pass, for one image."""
        return self.total.activation_bytes

    def to_csv(self, path: PathLike | None = None, by: str = "group") -> str | None:
        """Write the table as CSV, with the total as its last line.

        Args:
            path: file to write, or None to return the text. Defaults to None.
            by: `"group"` or `"layer"`. Defaults to `"group"`.

        Returns:
            The text, or None where a file was written.

        Raises:
            ValueError: for another `by`.

        Example:
            >>> import kresnets
            >>> kresnets.summarize(kresnets.CifarResNet20()).to_csv().splitlines()[1]
            'stem,group,32x32x16,1,464,32,442368,143360'
        """
        if by not in ("group", "layer"):
            raise ValueError(f"`by` must be 'group' or 'layer'. Received: {by!r}")
        text = io.StringIO()
        lines = csv.writer(text, lineterminator="\n")
        lines.writerow(field.name for field in dataclasses.fields(Row))
        for row in (*(self.rows if by == "group" else self.layers), self.total):
            lines.writerow((row.name, row.kind, _shape(row.output), *(getattr(row, name) for name in _NUMBERS)))
        if path is None:
            return text.getvalue()
        files.write_text(path, text.getvalue())

    def __str__(self):
        header = ("group", "output", "weight layers", "parameters", "statistics", "multiply-adds", "kept in training")
        cells = [header]
        for row in (*self.rows, self.total):
            numbers = (f"{getattr(row, name):,}" for name in _NUMBERS[:-1])
            cells.append((row.name, _shape(row.output), *numbers, f"{row.activation_bytes / 1e6:.2f} MB"))
        widths = [max(map(len, column)) for column in zip(*cells)]
        lines = [
            "  ".join((f"{c:<{w}}", f"{c:>{w}}")[i > 1] for i, (c, w) in enumerate(zip(line, widths))) for line in cells
        ]
        given = ", ".join(map(_shape, self.input_shapes))
        lines.insert(0, f"{self.name} on {given}, depth {self.depth}; multiply-adds and memory are for one image")
        if self.not_counted:
            lines.append(f"without the multiply-adds of {', '.join(self.not_counted)}")
        return "\n".join(lines)


def _shape(shape):
    return "" if shape is None else "x".join("?" if side is None else str(side) for side in shape)


def summarize(model: keras.Model, input_shape: Any = None, groups: Patterns = None) -> Summary:
    """Count what a model costs: parameters, multiply-adds, depth, and the activations that training keeps.

    Counted from the shapes in the model's graph; nothing is computed, and the model is not changed. A multiply and its
    add count one; norms, activations, pools, sums and biases count none, as in torchvision's tables. The depth is the
    number of convolutions and dense layers on the longest path: a projection on a shortcut is never on it, and all
    three convolutions in the stem of ResNet-C and -D are (so ResNet50D has 52).

    The memory is that of the tensors which the gradients need, each once: the input of a convolution, dense layer or
    norm, the output of a ReLU or another activation, both sides of a max pool, the mask of a dropout; nothing for sums,
    paddings and average pools. It is an estimate of what grows with the batch: weights, their gradients, the
    optimizer's state, and what kernels need while they run come on top.

    Args:
        model: a Functional or Sequential Keras model that has been built; nested ones are opened.
        input_shape: image shape `(height, width, channels)` (channels first for such a model) to count at, which need
            not be the one it was built for; a list of shapes where there are several inputs. Defaults to the model's.
        groups: for a model without kresnets' names, an ordered dict `{group: regex}` as in `kresnets.groups`; without
            it such a model is one group. Defaults to None.

    Returns:
        A frozen `Summary`.

    Raises:
        ValueError: for a model without a graph, for a size that is free and not given, and where a layer cannot take
            the size.

    Example:
        >>> import kresnets
        >>> summary = kresnets.summarize(kresnets.CifarResNet20(), input_shape=(64, 64, 3))
        >>> summary.depth, summary.parameters, summary.multiply_adds
        (20, 269722, 162202240)
    """
    if not isinstance(model, keras.Model) or not isinstance(getattr(model, "inputs", None), list):
        raise ValueError(
            "`summarize` takes a Functional or Sequential Keras model that has been built. "
            f"Received: {type(model).__name__}"
        )
    shapes = _input_shapes(model, input_shape)
    trace = Trace(model, shapes)
    rows, not_counted = _layer_rows(trace)
    names, group_of = _grouping(model, groups, trace)
    by_group = {name: Row(name, "group") for name in names}
    for layer, row in rows.values():
        name = group_of(layer)
        by_group[name] = by_group[name] + row
    return Summary(
        name=model.name,
        input_shapes=tuple(shape[1:] for shape in shapes),
        depth=_depth(trace),
        rows=tuple(by_group.values()),
        layers=tuple(row for _, row in rows.values()),
        not_counted=tuple(not_counted),
    )


def _input_shapes(model, input_shape):
    """Return the shapes to count at, batch axis first."""
    own = [tuple(tensor.shape) for tensor in model.inputs]
    if input_shape is None:
        shapes = own
    else:
        lists = (list, tuple)
        nested = isinstance(input_shape, lists) and all(isinstance(each, lists) for each in input_shape)
        given = [
            tuple(each) if isinstance(each, lists) else each for each in (input_shape if nested else [input_shape])
        ]
        fits = len(given) == len(own) and all(_is_shape(shape, len(mine) - 1) for shape, mine in zip(given, own))
        if not fits:
            wanted = ", ".join(_shape(shape[1:]).replace("?", "any") for shape in own)
            several = " (a list with one for each)" if len(own) > 1 else ""
            raise ValueError(
                f"{model.name}: `input_shape` must be a tuple of whole numbers from 1, without the batch axis, for an "
                f"input of {wanted}{several}. Received: input_shape={input_shape!r}"
            )
        shapes = [(mine[0], *shape) for shape, mine in zip(given, own)]
    if any(side is None for shape in shapes for side in shape[1:]):
        raise ValueError(
            f"{model.name} takes images of any size, and the costs depend on it: pass `input_shape`, such as "
            "(224, 224, 3)."
        )
    return shapes


def _is_shape(shape, rank):
    return isinstance(shape, tuple) and len(shape) == rank and all(type(side) is int and side > 0 for side in shape)


def _layer_rows(trace):
    """Return id of a layer -> (layer, its Row), and the paths of layers whose multiply-adds are not known."""
    rows, not_counted, paid = {}, {}, set()
    for call in trace.calls:
        layer = call.layer
        adds = rules.multiply_adds(call)
        if adds is None:
            not_counted[call.path] = None
        output = call.outputs[0].shape[1:] if call.outputs else None
        if id(layer) not in rows:
            parameters, statistics = _weights(layer, paid)
            counted = int(rules.is_weight_layer(layer))
            rows[id(layer)] = layer, Row(call.path, type(layer).__name__, output, counted, parameters, statistics)
        _, row = rows[id(layer)]
        rows[id(layer)] = layer, dataclasses.replace(row, output=output, multiply_adds=row.multiply_adds + (adds or 0))
    for layer, count in _kept(trace):
        _, row = rows[id(layer)]
        rows[id(layer)] = layer, dataclasses.replace(row, activation_bytes=row.activation_bytes + count)
    parameters, statistics = _weights(trace.model, paid)
    if parameters or statistics:  # held by the model itself, or by a layer that its graph does not call
        rows[id(trace.model)] = trace.model, Row("outside of the graph", "", None, 0, parameters, statistics)
    return rows, not_counted


def _weights(layer, paid):
    """Return the learned and the other numbers among the weights that have not been counted yet."""
    learned = other = 0
    for weight in getattr(layer, "weights", ()):  # an operation has none
        if id(weight) in paid:
            continue
        paid.add(id(weight))
        # A frozen weight is still a learned one, so the flag tells only in a layer that is not frozen.
        moved = weight.name in _STATISTICS or isinstance(layer, keras.layers.Normalization)
        if moved or layer.trainable and not weight.trainable:
            other += math.prod(weight.shape)
        else:
            learned += math.prod(weight.shape)
    return learned, other


def _kept(trace):
    """Yield a layer and the bytes of a tensor it made that a gradient needs, each tensor once."""
    found = set()
    for call in trace.calls:
        values, own = rules.kept(call)
        if own:
            yield call.layer, own
        for value in values:
            if value not in found:
                found.add(value)
                # A layer casts what it takes to its own compute type, and keeps that.
                cast = getattr(call.layer, "autocast", False) and "float" in value.dtype
                dtype = call.layer.compute_dtype if cast else None
                yield (value.maker or call).layer, value.bytes(dtype)


def _grouping(model, groups, trace):
    """Return the groups' names, and a function from a layer to its group's name."""
    try:
        found = layout(model, groups)
    except ValueError:
        if groups is not None:
            raise
        return ("all",), lambda layer: "all"  # no trunk of kresnets
    names = {id(layer): found.names[index] for (index, _), layer in found.places}
    for call in trace.calls:  # an operation that is no layer has no name of its own: it goes with what it takes
        if id(call.layer) not in names:
            makers = [value.maker.layer for value in call.inputs if value.maker is not None]
            names[id(call.layer)] = names[id(makers[-1])] if makers else found.names[0]
    return found.names, lambda layer: names.get(id(layer), found.names[-1])


def _depth(trace):
    deepest = {}  # Value -> weight layers on the longest path to it
    for call in trace.calls:
        depth = max((deepest.get(value, 0) for value in call.inputs), default=0) + rules.is_weight_layer(call.layer)
        deepest.update(dict.fromkeys(call.outputs, depth))
    return max(deepest.values(), default=0)
