"""A PyTorch checkpoint as `.safetensors`: the one place that reads a pickle, by torch's own loader of tensors alone."""

import os
import pathlib
from typing import Any

import numpy as np

from kresnets._util import files
from kresnets._util.types import PathLike

_INSIDE = ("state_dict", "model_state_dict", "model", "net")  # what programs call the weights beside their optimizer's
_PREFIXES = ("module.", "model.", "backbone.", "encoder.", "net.")
_TORCH = (2, 6)  # before it, `weights_only` could be led astray (CVE-2025-32434)


def convert(source: PathLike, target: PathLike) -> list[str]:
    """Write the tensors of a PyTorch checkpoint as a `.safetensors` file, which every network here takes.

    Takes a state dict, or a dict with one under `state_dict`, `model_state_dict`, `model` or `net`. A prefix that most
    of its names have (`module.`, `model.`, `backbone.`, ...) goes. Counters go; bfloat16 becomes float32.

    Args:
        source: path of a `.pth`, `.pt` or `.bin` file, which torch (2.6 or newer) reads by `weights_only=True`: it
            unpickles tensors and plain values alone.
        target: path of the `.safetensors` file; replaced where it is there.

    Returns:
        The names of the tensors that were written, sorted.

    Raises:
        ImportError: without torch, or with an older one.
        ValueError: for a file that holds more than tensors and plain values, or no tensors; nothing is written then.

    Example:
        >>> from kresnets.weights.convert import convert
        >>> convert("resnet50.pth", "resnet50.safetensors")[0]  # doctest: +SKIP
        'bn1.bias'
    """
    from safetensors.numpy import save_file

    if pathlib.Path(target).suffix != ".safetensors":
        raise ValueError(f"The file to write must be called NAME.safetensors. Received: {os.fspath(target)}")
    tensors = _without_prefixes(_tensors(_loaded(source), source))
    with files.replacing(target) as beside:
        save_file(tensors, beside)
    return sorted(tensors)


def _loaded(source):
    try:
        import torch
    except ImportError:
        raise ImportError(
            "A PyTorch checkpoint is read by PyTorch, which is not installed: pip install 'torch>=2.6' (the build for "
            "CPUs does)."
        ) from None
    if tuple(int(part) for part in torch.__version__.split(".")[:2]) < _TORCH:
        raise ImportError(
            f"PyTorch {torch.__version__} is older than 2.6, from which on it reads tensors alone safely."
        )
    try:
        return torch.load(source, map_location="cpu", weights_only=True)
    except OSError:
        raise
    except Exception:  # its own kinds, by what is wrong; its words advise to read the file unsafely
        raise ValueError(
            f"{source} is no file of tensors alone, and nothing else is read: in the program that made it, write "
            "torch.save(model.state_dict(), 'weights.pth')."
        ) from None


def _tensors(loaded: Any, source: PathLike) -> dict[str, np.ndarray]:
    import torch

    for name in _INSIDE:
        if isinstance(loaded, dict) and isinstance(loaded.get(name), dict):
            loaded = loaded[name]
            break
    found = loaded.items() if isinstance(loaded, dict) else ()
    tensors = {str(name): value for name, value in found if isinstance(value, torch.Tensor)}
    if not tensors:
        raise ValueError(f"{source} holds no weights by name: a state dict is wanted, or a dict that has one inside.")
    weights = {name: value for name, value in tensors.items() if value.is_floating_point()}  # counters are none
    return {name: _array(value) for name, value in weights.items()}


def _array(tensor: Any) -> np.ndarray:
    import torch

    tensor = tensor.float() if tensor.dtype == torch.bfloat16 else tensor
    return np.ascontiguousarray(tensor.detach().numpy())


def _without_prefixes(tensors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Take off what wrappers put before the names, one after the other; names must stay different."""
    while True:
        counts = {prefix: sum(name.startswith(prefix) for name in tensors) for prefix in _PREFIXES}
        prefix = max(counts, key=counts.__getitem__)
        shorter = {name.removeprefix(prefix): value for name, value in tensors.items()}
        if 2 * counts[prefix] <= len(tensors) or len(shorter) < len(tensors):
            return tensors
        tensors = shorter
