"""Every call in a model's graph, with the shapes at any input size, found without calling or changing a layer."""

import dataclasses
import itertools
import math
import re

import keras


@dataclasses.dataclass(frozen=True, eq=False)
class Value:
    """What flows from one call to others. Two values are the same only if they are one object.

    Args:
        shape: with the batch axis first.
        dtype: such as `"float32"`.
        maker: the `Call` that it comes from; None for an input of the model.
    """

    shape: tuple[int | None, ...]
    dtype: str
    maker: "Call | None" = None

    def bytes(self, dtype=None):
        """Return what one image of the batch takes, in `dtype` instead of its own where told."""
        bits = re.search(r"\d+", dtype or self.dtype)  # bool has none
        return math.prod(self.shape[1:]) * (int(bits[0]) // 8 if bits else 1)


@dataclasses.dataclass(frozen=True, eq=False)
class Call:
    """One call of a layer, or of another operation, in the graph.

    Args:
        layer: the `keras.layers.Layer` or `keras.Operation`.
        path: its name, after those of the models it is nested in: `"trunk/stem_conv1"`.
        inputs: the values it takes.
        outputs: the values it makes; filled right after it is made.
    """

    layer: keras.Operation
    path: str
    inputs: tuple[Value, ...]
    outputs: list[Value] = dataclasses.field(default_factory=list)


class _Stand(keras.Operation):
    """Stand in the traced graph for a call whose result is known, so that no node is added to the user's layers."""

    result = None

    def compute_output_spec(self, *args, **kwargs):
        return self.result


class Trace:
    """The calls of a Functional or Sequential model in the order of its graph, nested models opened.

    Args:
        model: the model.
        shapes: one shape for each input, with the batch axis.

    Raises:
        ValueError: where a layer cannot take what these shapes make of its input.
    """

    def __init__(self, model, shapes):
        self.model = model
        self.calls = []
        self._values = {}  # id of a symbolic tensor -> its Value
        self._kept = []  # those tensors: an id is only unique among the living
        self._numbers = itertools.count()
        self.inputs = [Value(tuple(shape), tensor.dtype) for tensor, shape in zip(model.inputs, shapes, strict=True)]
        self.outputs = self._open(model, self.inputs, prefix="")

    def _open(self, model, values, prefix):
        # Cloning compiles the copy of a compiled model, and wants a Functional one.
        graph = keras.Model(model.inputs, model.outputs, name=model.name)
        tensors = [
            keras.Input(batch_shape=value.shape, dtype=value.dtype, name=tensor.name)
            for tensor, value in zip(model.inputs, values, strict=True)
        ]
        for tensor, value in zip(tensors, values, strict=True):
            self._remember(tensor, value)

        def call(layer, *args, **kwargs):
            stand = _Stand(name=f"call{next(self._numbers)}")
            stand.result = self._call(layer, prefix, args, kwargs)
            return stand(*args, **kwargs)

        traced = keras.models.clone_model(
            graph,
            input_tensors=tensors if len(tensors) > 1 else keras.tree.pack_sequence_as(graph.input, tensors),
            clone_function=lambda layer: layer,
            call_function=call,
        )
        return [self._values[id(tensor)] for tensor in traced.outputs]

    def _call(self, layer, prefix, args, kwargs):
        """Record a call and return its symbolic result."""
        tensors = [leaf for leaf in keras.tree.flatten((args, kwargs)) if isinstance(leaf, keras.KerasTensor)]
        values = tuple(self._values[id(tensor)] for tensor in tensors)
        if isinstance(layer, keras.Model) and isinstance(getattr(layer, "inputs", None), list):
            outputs = self._open(layer, values, f"{prefix}{layer.name}/")
            flat = [keras.KerasTensor(value.shape, value.dtype) for value in outputs]
            result = keras.tree.pack_sequence_as(layer.output, flat)
        else:
            result = self._spec(layer, f"{prefix}{layer.name}", args, kwargs)
            flat = [leaf for leaf in keras.tree.flatten(result) if isinstance(leaf, keras.KerasTensor)]
            call = Call(layer, f"{prefix}{layer.name}", values)
            call.outputs.extend(Value(tuple(tensor.shape), tensor.dtype, call) for tensor in flat)
            self.calls.append(call)
            outputs = call.outputs
        for tensor, value in zip(flat, outputs, strict=True):
            self._remember(tensor, value)
        return result

    def _spec(self, layer, path, args, kwargs):
        leaves = keras.tree.flatten((args, kwargs))
        shapes = [tuple(leaf.shape) for leaf in leaves if isinstance(leaf, keras.KerasTensor)]
        given = ", ".join(str(shape) for shape in shapes)
        wanted = _features(layer)
        if wanted and shapes[0][wanted[0]] not in (None, wanted[1]):
            raise ValueError(
                f"{self.model.name}: the weights of {path!r} are for {wanted[1]} features, and this input size gives "
                f"it {given}; pass another `input_shape`, such as the model's own."
            )
        try:
            return layer.compute_output_spec(*args, **kwargs)
        except (ValueError, TypeError) as error:
            reason = " ".join(str(error).split())
            raise ValueError(
                f"{self.model.name}: {path!r} cannot take {given}; pass another `input_shape`. The reason was: {reason}"
            ) from error

    def _remember(self, tensor, value):
        self._values[id(tensor)] = value
        self._kept.append(tensor)


def _features(layer):
    """Return the axis and the size that a layer's weights ask of its input, or None."""
    # Its own compute_output_spec does not check: a head on a flattened map would be counted at a size it cannot take.
    axes = getattr(getattr(layer, "input_spec", None), "axes", None)
    return next(iter(axes.items()), None) if axes else None
