"""Training in less memory: keep what passes from block to block, compute what is inside of a block again for its
gradient."""

import functools
from typing import Any

import keras

from kresnets._util.types import Tensor
from kresnets.groups import layout
from kresnets.keras_hooks.graph import graph_nodes


def recompute(model: keras.Model) -> keras.Model:
    """Return a model of the same layers that trains in less memory and more time.

    A training step keeps what each layer gave until its gradient is computed. This model keeps only what passes from
    one block to the next and runs a block a second time when its gradient is due (arXiv 1604.06174 section 4), so a
    step costs about one forward pass more. The numbers are the same, moving statistics and random layers included;
    prediction is untouched. Frozen blocks below everything that learns are not run twice.

    Args:
        model: a flat Functional model with one input, of kresnets or with layers named as kresnets names them. It
            shares its layers with the result; compile the result. A head goes on before: what is built on the tensors
            of the result is an ordinary model again.

    Returns:
        A Functional model, uncompiled. Its `.keras` file needs `import kresnets`; `as_plain_keras` and `clone_model`
        take it too.

    Raises:
        ValueError: for a model that is not built so, or has a layer with an `activity_regularizer`.

    Example:
        >>> import kresnets
        >>> model = kresnets.recompute(kresnets.CifarResNet20())
        >>> model.compile("sgd", "sparse_categorical_crossentropy")
    """
    one = isinstance(getattr(model, "inputs", None), list) and len(model.inputs) == len(model.outputs) == 1
    if not one or not (isinstance(model, keras.Sequential) or isinstance(model.output, keras.KerasTensor)):
        raise ValueError(
            "`recompute` takes a Functional model with one input and one output tensor. Received: "
            f"{getattr(model, 'name', model)!r}"
        )
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            raise ValueError(
                f"{model.name!r} has the model {layer.name!r} nested in it: recompute that one, and nest the result."
            )
        if getattr(layer, "activity_regularizer", None) is not None:
            raise ValueError(
                f"{layer.name!r} has an activity_regularizer, whose loss a recomputed block would lose: take it off."
            )
    try:
        layout(model)
    except ValueError:
        raise ValueError(
            f"{model.name!r} has no blocks named stage1_block1_... to compute again: `recompute` is for models of "
            "kresnets, and what is built around one."
        ) from None
    result = Recomputing(model.inputs[0], model.outputs[0], name=model.name)
    if len(result.segments) < 2:
        raise ValueError(f"{model.name!r} has no blocks named stage1_block1_... to compute again.")
    return result


@keras.saving.register_keras_serializable(package="kresnets")
class Recomputing(keras.Model):
    """A Functional model whose blocks run again for their gradients; see `recompute`."""

    @property
    def compute_dtype(self) -> str:
        """That of the variables: read under a lower precision, what a block leaves as it is would come back rounded.
        Its layers compute in their own."""
        return self.variable_dtype

    def call(self, inputs: Tensor, training: bool | None = None, mask: Any = None) -> Tensor:
        """Run the graph, in training block by block."""
        if not training:
            return super().call(inputs, training=training, mask=mask)
        x, learns = keras.tree.flatten(inputs)[0], False
        *blocks, last = self.segments
        for block in blocks:
            learns = learns or bool(block.trainable_variables)
            x = _run_twice(block, x) if learns else block(x, training=True)
        # Nothing is due between the end and the gradient; and Keras's losses look a softmax's logits up on its tensor.
        return last(x, training=True)

    @functools.cached_property  # writes past Keras's tracking: the layers are the model's already
    def segments(self) -> Any:
        """Models of a block each, in order."""
        ends = _ends(self)
        starts = [self.inputs[0], *ends]
        return tuple(keras.Model(start, end) for start, end in zip(starts, [*ends, self.outputs[0]], strict=True))


def _run_twice(segment, x):
    # A pure function of what it must be differentiated by, so that the second run moves no statistics and draws the
    # same random numbers; what it would have changed comes out and is assigned once.
    weights = segment.trainable_variables
    others = segment.non_trainable_variables
    # On TensorFlow a variable's value is read where it is used, which would be after the first run had changed it.
    before = [keras.ops.stop_gradient(variable.value) for variable in others]

    def run(x, *values):
        outputs, after = segment.stateless_call(values, before, x, training=True)
        return outputs, [keras.ops.stop_gradient(value) for value in after]

    outputs, after = keras.remat(run)(x, *(variable.value for variable in weights))
    for variable, value in zip(others, after, strict=True):
        variable.assign(value)
    return outputs


def _ends(model):
    """List the tensors through which alone one block reaches the next."""
    nodes = graph_nodes(model)
    places, place = {id(layer): place for place, layer in layout(model).places}, [None]
    for node in nodes:  # an operation on tensors, which is no layer, belongs to what is before it
        place.append(places.get(id(node.operation), place[-1]))
    waiting = {id(tensor) for tensor in model.inputs}
    uses, outputs = {}, {id(tensor) for tensor in model.outputs}
    for node in nodes:
        for tensor in node.input_tensors:
            uses[id(tensor)] = uses.get(id(tensor), 0) + 1
    ends = []
    for node, here, following in zip(nodes, place[1:], place[2:]):
        for tensor in node.input_tensors:
            uses[id(tensor)] -= 1
            if not uses[id(tensor)]:
                waiting.discard(id(tensor))
        waiting |= {id(tensor) for tensor in node.output_tensors}
        alone = len(waiting) == 1 and len(node.output_tensors) == 1 and not waiting & outputs
        if alone and here != following:
            ends.append(node.output_tensors[0])
    return ends
