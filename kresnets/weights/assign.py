"""From a file's tensors to a model's variables: all or nothing."""

import collections
import dataclasses
import logging
import math
import pathlib

import keras
import numpy as np

from kresnets.weights import layouts, readers

_log = logging.getLogger("kresnets")
_FLOATS = ("float16", "bfloat16", "float32", "float64")
_NAMES_TOLD = 8  # of each kind of misfit


@dataclasses.dataclass(frozen=True)
class Slot:
    """A variable of the model and the tensors of the file that fill it.

    Args:
        variable: the Keras variable.
        tensor: name of the tensor that it takes; None where the file has none because it is 1 everywhere.
        minus: name of a tensor to subtract from it: the bias of the convolution under a norm, for the norm's mean.
        axes: which of the tensor's axes comes where in the variable; None leaves them.
        image_channels: whether its axis 2 are the channels of the image, which need not be the file's.
        as_conv: whether the file has this dense kernel as that of a 1x1 convolution.
    """

    variable: keras.Variable
    tensor: str | None
    minus: str | None = None
    axes: tuple[int, ...] | None = None
    image_channels: bool = False
    as_conv: bool = False

    @property
    def tensors(self):
        """Names of all tensors it takes."""
        return tuple(name for name in (self.tensor, self.minus) if name is not None)

    @property
    def shape(self):
        """Shape in the model."""
        return tuple(self.variable.shape)

    @property
    def file_shape(self):
        """Shape in the file."""
        shape = tuple(self.shape[axis] for axis in np.argsort(self.axes)) if self.axes else self.shape
        return (*shape, 1, 1) if self.as_conv else shape

    def arranged(self, shape):
        """Shape that a tensor of the file's shape gets in the model."""
        if self.as_conv and shape[2:] == (1, 1):
            shape = shape[:2]
        if self.axes and len(shape) == len(self.axes):
            shape = tuple(shape[axis] for axis in self.axes)
        if self.image_channels and len(shape) == 4 and shape[2] == 3:
            shape = (*shape[:2], self.shape[2], shape[3])
        return tuple(shape)

    def value(self, tensors):
        """Read what the variable takes, as a float32 array."""
        if self.tensor is None:
            return np.ones(self.shape, np.float32)
        value = _read(tensors[self.tensor])
        if self.as_conv:
            value = value.reshape(value.shape[:2])
        if self.axes:
            value = value.transpose(self.axes)
        if self.image_channels:
            value = adapt_channels(value, self.shape[2])
        return value if self.minus is None else value - _read(tensors[self.minus])


def _read(tensor):
    with np.errstate(over="ignore"):  # a float64 out of range becomes the infinity that is refused
        return tensor.read().astype(np.float32, copy=False)


def adapt_channels(kernel, channels):
    """Make a kernel `(height, width, 3, filters)` for RGB images one for images of other channels, as timm does.

    One channel takes the sum over R, G and B: a grey image gives what its RGB copy gave. Others take R, G, B, R, ... in
    turn, times 3 / channels, so that the outputs keep their size.

    Example:
        >>> import numpy as np
        >>> adapt_channels(np.ones((1, 1, 3, 1), "float32"), 4).ravel()
        array([0.75, 0.75, 0.75, 0.75], dtype=float32)
    """
    given = kernel.shape[2]
    if channels == given or given != 3:
        return kernel
    if channels == 1:
        return kernel.sum(axis=2, keepdims=True)
    return kernel[:, :, np.arange(channels) % 3] * np.float32(3 / channels)


def fill(model, spec, file, layout, include_top, classes, fresh_head=False):
    """Fill the network's variables from an opened `WeightsFile` of a layout, or raise and leave every one as it was.

    Args:
        model: the model that was built from the row.
        spec: the row.
        file: an opened `WeightsFile`.
        layout: its `FileLayout`.
        include_top: whether the model has the head.
        classes: outputs of the head.
        fresh_head: whether the file's head is left out, whatever it is for. Defaults to False.

    Raises:
        ValueError: for a file that does not fit; lists what each side has that the other lacks.
    """
    family = layout.family(spec)
    if file.positional and spec.stochastic_depth:
        raise ValueError(
            f"{file.path} names its layers by their place alone, and {spec.name} with "
            f"stochastic_depth={spec.stochastic_depth} has "
            "others: load it into the row with stochastic_depth=0, save that one's weights, and load those."
        )
    slots = _slots(model, spec, file, family)
    tensors = _known(file, family)
    trunk_only = not include_top or fresh_head or _is_other_head(slots, tensors, family, spec, classes)
    if trunk_only:
        slots = [slot for slot in slots if not any(map(family.in_head, slot.tensors))]
        tensors = {name: tensor for name, tensor in tensors.items() if not family.in_head(name)}
    # Read twice rather than kept: the first pass only checks, and the memory stays at about the model's own.
    if misfits := _misfits(slots, tensors):
        no_head = not trunk_only and not any(map(family.in_head, tensors))
        hint = " (it has no head: pass include_top=False, or your own `classes`)" if no_head else ""
        raise ValueError(
            f"{file.path} does not fit {spec.name}, and nothing of it was loaded: {'; '.join(misfits)}{hint}."
        )
    for slot in slots:
        slot.variable.assign(slot.value(tensors))
    if trunk_only and include_top:
        _log.info("%s: the trunk is from %s, the head for %d classes starts afresh.", spec.name, file.path, classes)
    _tell(slots, tensors, spec, file)


def _slots(model, spec, file, family):
    modules = layouts.modules(family, model, spec, file.positional)
    by_name = {layer.name: layer for layer in modules}
    slots = []
    for layer, module in modules.items():
        # The norm stage1_block1_bn2 follows stage1_block1_conv2.
        conv = by_name.get(layer.name.replace("bn", "conv")) if family.conv_bias and "bn" in layer.name else None
        for variable in layer.weights:
            folds = conv is not None and not conv.use_bias and variable.name == "moving_mean"
            as_conv = family.dense_as_conv and layer.name == "head_dense" and variable.name == "kernel"
            is_one = variable.name == "gamma" and not family.gamma
            slots.append(
                Slot(
                    variable,
                    tensor=None if is_one else family.tensor(module, variable.name),
                    minus=family.tensor(modules[conv], "bias") if folds else None,
                    axes=family.axes.get(len(variable.shape)),
                    image_channels=layer.name == "stem_conv1" and variable.name == "kernel",
                    as_conv=as_conv,
                )
            )
    return slots


def _known(file, family):
    """Take the tensors under the names that the family knows them by, unless two are one; drop what is no weight."""
    if file.positional:
        return file.tensors
    names = family.known(list(file.tensors))
    uses = collections.Counter(names.values())
    return {
        known if uses[known] == 1 else name: file.tensors[name] for name, known in names.items() if known is not None
    }


def _is_other_head(slots, tensors, family, spec, classes):
    """Whether the file has a whole head, but for other classes; or none, while a number of one's own was asked for."""
    if not any(family.in_head(name) for name in tensors):
        return classes != spec.classes
    found = set()
    for slot in slots:
        if any(map(family.in_head, slot.tensors)):
            shape = slot.arranged(tensors[slot.tensor].shape) if slot.tensor in tensors else ()
            # Damage is not another number of classes: all but that number must be there and right.
            if not shape or shape[:-1] != slot.shape[:-1]:
                return False
            found.add(shape[-1])
    return len(found) == 1 and found != {classes}


def _misfits(slots, tensors):
    """Say all that keeps the tensors from filling the slots exactly, each kind with its names."""
    needed = {name: slot for slot in slots for name in slot.tensors}
    missing = [name for name in needed if name not in tensors]
    unused = [name for name in tensors if name not in needed]
    shapes, dtypes, values, negative = [], [], [], []
    for slot in slots:
        present = [name for name in slot.tensors if name in tensors]
        no_floats = [f"{name} ({tensors[name].dtype})" for name in present if tensors[name].dtype not in _FLOATS]
        others = [
            f"{name} {tensors[name].shape} in place of {slot.file_shape}"
            for name in present
            if slot.arranged(tensors[name].shape) != slot.shape
        ]
        dtypes += no_floats
        shapes += others
        # Read last and only what fits: a tensor that does not may be of any size.
        if len(present) == len(slot.tensors) and not no_floats and not others:
            value = slot.value(tensors)
            if not _is_finite(value):
                values.append(" - ".join(slot.tensors))
            elif slot.variable.name == "moving_variance" and value.min() < 0:
                negative.append(slot.tensor)
    found = {
        "the file lacks": missing,
        "the network has no": unused,
        "it holds other shapes:": shapes,
        "it holds no floating-point numbers in": dtypes,
        "it holds NaN or infinity in": values,
        "it holds variances below 0 in": negative,
    }
    return [f"{what} {_listed(names)}" for what, names in found.items() if names]


def _is_finite(array):
    # One pass and no array of flags: a sum is finite only if all terms are, unless it overflows.
    with np.errstate(invalid="ignore"):  # infinities of both signs
        return math.isfinite(array.sum(dtype=np.float64))


def _listed(names):
    rest = len(names) - _NAMES_TOLD
    return ", ".join(map(readers.shown, names[:_NAMES_TOLD])) + (f" and {rest} more" if rest > 0 else "")


def _tell(slots, tensors, spec, file):
    dtypes = sorted({tensors[name].dtype for slot in slots for name in slot.tensors} - {"float32"})
    if dtypes:
        shipped = pathlib.Path(__file__).parent.parent in pathlib.Path(file.path).parents  # of which nobody has to know
        level = logging.DEBUG if shipped else logging.INFO
        _log.log(level, "%s: %s of %s became float32.", spec.name, " and ".join(dtypes), file.path)
    for slot in slots:
        if slot.image_channels and tensors[slot.tensor].shape != slot.file_shape:
            _log.info("%s: the first convolution was made one for %d channels.", spec.name, slot.shape[2])
