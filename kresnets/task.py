"""What the outputs of a model mean: the class of an image, each of several labels for itself, or numbers.

A softmax or a single sigmoid tells; outputs without either do not. So a model carries its task beside its
preprocessing.
"""

import dataclasses
from typing import Any

import keras

from kresnets.keras_hooks.graph import last_activation, with_inner

TASKS = ("classes", "labels", "numbers")
_BATCH = 64  # images asked at a time


@dataclasses.dataclass(frozen=True)
class Scores:
    """How the outputs of a model are read.

    Args:
        task: `"classes"`: an image is of one class; `"labels"`: it has each label or not, several or none;
            `"numbers"`: each output is a number that is asked for.
        units: number of outputs; one of task `"classes"` speaks for the second of two classes.
        activation: `"softmax"`, `"sigmoid"` or `"linear"`: what the outputs have been through.

    Example:
        >>> from kresnets.task import Scores
        >>> Scores("classes", 1, "linear").probabilities([[0.0]]).numpy().tolist()
        [[0.5, 0.5]]
    """

    task: str
    units: int
    activation: str

    @property
    def classes(self) -> int:
        """Number of classes, or of labels."""
        return 2 if self.two else self.units

    @property
    def two(self) -> bool:
        """Whether one output stands for two classes."""
        return self.units == 1 and self.task == "classes"

    @property
    def independent(self) -> bool:
        """Whether each output is a chance for itself: the loss is then the binary cross-entropy."""
        return self.task != "numbers" and (self.units == 1 or self.task == "labels")

    @property
    def numbers(self) -> bool:
        """Whether the outputs are the numbers themselves."""
        return self.task == "numbers"

    def predicted(self, model: keras.Model, part: Any, preprocessing: Any) -> Any:
        """Return a model's probabilities (numbers), a float32 array `(images, classes)`, of the images of a
        `kresnets.data.Part`, each drawn once, in the order of its ids."""
        drawn = part.arrays(model.input_shape[1], preprocessing.crop, _BATCH)
        batches = ((preprocessing(images, "channels_last"),) for images, _ in drawn)
        # Told how many there are, or Keras warns that they ended.
        outputs = model.predict(batches, steps=-(-len(part) // _BATCH), verbose=0)
        return keras.ops.convert_to_numpy(self.probabilities(outputs))

    def probabilities(self, outputs: Any) -> Any:
        """Turn the model's own outputs, `(batch, units)`, into float32 probabilities, `(batch, classes)`; numbers stay
        as they are."""
        outputs = keras.ops.cast(outputs, "float32")
        if self.numbers:
            return outputs
        if self.activation == "linear":
            outputs = keras.ops.sigmoid(outputs) if self.independent else keras.ops.softmax(outputs)
        return keras.ops.concatenate([1.0 - outputs, outputs], axis=-1) if self.two else outputs


def check_task(task: Any, auto: bool = True) -> None:
    """Raise a ValueError unless `task` is one of `TASKS`, or what leaves it open."""
    if task not in (*TASKS, "auto" if auto else None):
        known = ", ".join(map(repr, TASKS))
        raise ValueError(f"`task` must be {known}, or {'auto' if auto else None!r}. Received: task={task!r}")


def scores_of(model: keras.Model, task: str | None = None) -> Scores:
    """Return how the outputs of a model are read.

    Args:
        model: a Keras model from images to one vector each.
        task: one of `TASKS`, or None for what the model tells or carries. Defaults to None.

    Raises:
        ValueError: where the model's end leaves open what its outputs are, and neither it nor `task` says.
    """
    check_task(task, auto=False)
    activation, units = last_activation(model), model.output_shape[-1]
    if (task or task_of(model)) == "numbers":
        if activation == "softmax":
            check_softmax(model, "numbers")
        return Scores("numbers", units, activation)
    if activation not in ("softmax", "sigmoid", "linear"):
        raise ValueError(
            f"The model ends in {activation}, which leaves open whether it gives "
            "probabilities: end it with a softmax or a sigmoid; where it gives probabilities already, with "
            "keras.ops.log and a softmax, which gives them back."
        )
    if activation == "softmax":
        check_softmax(model, task)
        return Scores("classes", units, activation)
    task = task or task_of(model) or {"sigmoid": "classes" if units == 1 else "labels"}.get(activation)
    if task is None:
        raise ValueError(
            f"{model.name!r} has {f'{units} outputs' if units > 1 else 'one output'} without a softmax or sigmoid, and "
            "does not say what for: give task='classes' (an image is of one class, the second of two where it is one "
            "output), task='labels' (it has each label or not) or task='numbers' (it says numbers)."
        )
    return Scores(task, units, activation)


def check_softmax(model: keras.Model, task: Any) -> None:
    """Raise a ValueError where what ends in a softmax cannot serve a task."""
    if model.output_shape[-1] == 1:
        raise ValueError(
            f"{model.name!r} has 1 output behind a softmax, which is 1 for every image: end it with "
            "Dense(1, activation='sigmoid') or Dense(2, activation='softmax')."
        )
    if task == "labels":
        raise ValueError(
            f"{model.name!r} ends in a softmax, whose scores sum to 1, and task='labels' has each label for itself: "
            "end the model with a sigmoid, or with logits."
        )
    if task == "numbers":
        raise ValueError(
            f"{model.name!r} ends in a softmax, whose outputs are within 0..1 and sum to 1, and task='numbers' has any "
            "others: end the model with a Dense layer without activation."
        )


def task_of(model: keras.Model) -> str | None:
    """Return the task that a model was trained for by `fine_tune`, one of `TASKS`, or None where it carries none.

    Example:
        >>> import kresnets
        >>> kresnets.task_of(kresnets.CifarResNet20()) is None
        True
    """
    for layer in with_inner(model):
        # The head is named too: a new one on the same trunk may mean something else.
        if (carried := getattr(layer, "task", None)) and list(carried[1:]) == _head(model):
            return carried[0]
    return None


def set_task(model: keras.Model, task: str) -> None:
    """Have a model say its task, where it carries a preprocessing too; any other model stays as it is."""
    for layer in with_inner(model):
        if getattr(layer, "preprocessing", None) is not None:
            layer.task = (task, *_head(model))


def _head(model):
    return [model.layers[-1].name, model.output_shape[-1]]
