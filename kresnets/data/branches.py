"""Branches of a graph that are made ready when they are first taken."""

import functools
from collections.abc import Callable, Sequence

import tensorflow as tf

from kresnets._util.types import Tensor


def take(index: Tensor, branches: Sequence[Callable], *inputs: Tensor) -> list[Tensor]:
    """Run one of several functions of tensors, as `tf.switch_case` does.

    TensorFlow copies the branches of `tf.cond` and `tf.switch_case` into the graph around them, and optimises all of it
    before anything runs: of decoding, a third of a second for each pipeline and each served signature, most of it for
    animations, 16 bits and turned photographs that never come. Branches as functions, which this calls
    (`StatelessCase` without the mark to be copied), are prepared when one is taken.

    Args:
        index: scalar tensor, int32 or bool (False for the first of two branches).
        branches: functions of the inputs that give the same number of tensors, of the same dtypes, without an effect;
            they take no other tensor.
        *inputs: tensors.

    Returns:
        List of tensors.

    Example:
        >>> import tensorflow as tf
        >>> from kresnets.data.branches import take
        >>> choose = tf.function(lambda index, x: take(index, [lambda x: x + 1, lambda x: x * 10], x)[0])
        >>> [int(choose(tf.constant(index), tf.constant(3))) for index in range(2)]
        [4, 30]
    """
    specs = [tf.TensorSpec(tensor.shape, tensor.dtype) for tensor in inputs]
    made = [tf.function(branch, specs, autograph=False).get_concrete_function() for branch in branches]
    outputs = [one.outputs for one in made]
    if any(one.captured_inputs for one in made) or len({tuple(t.dtype for t in given) for given in outputs}) > 1:
        raise ValueError("`branches` must take their inputs alone, and give tensors of the same dtypes.")
    shapes = [functools.reduce(_general, (tensor.shape for tensor in given)) for given in zip(*outputs)]
    with tf.device("CPU:0"):  # else where there is a GPU the branches would be looked for there, and none decodes
        return tf.raw_ops.StatelessCase(
            branch_index=tf.cast(index, tf.int32), input=inputs, Tout=[tensor.dtype for tensor in outputs[0]],
            branches=made, output_shapes=shapes,
        )  # fmt: skip


def _general(one, other):
    return one.most_specific_compatible_shape(other)
