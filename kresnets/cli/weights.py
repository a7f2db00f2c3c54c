"""Make a file of weights that the networks take of one that they do not."""

import pathlib
import shlex
from typing import Literal

import kresnets
from kresnets.cli.options import Flag
from kresnets.weights.convert import convert


def weights(
    action: Literal["convert"],
    source: pathlib.Path,
    target: pathlib.Path,
    /,
    *,
    model: str | None = None,
    overwrite: Flag = False,
) -> None:
    """Convert a PyTorch checkpoint of your own to .safetensors.

    kresnets weights convert my.pth my.safetensors --model ResNet50D

    A checkpoint may hold any program, so PyTorch (2.6 or newer, not installed with kresnets) reads tensors and plain
    values of it alone. Prefixes such as module. and backbone. go.

    Args:
        action: What to do.
        source: A .pth, .pt or .bin file of a network's weights.
        target: The .safetensors file to write.
        model: The network that they are for, to see whether it takes them.
        overwrite: Replace a file that is there.
    """
    if model is not None and model not in kresnets.SPECS:
        raise ValueError(f"There is no network {model!r}: kresnets networks lists them.")
    if target.exists() and not overwrite:
        raise ValueError(f"{target} exists: give another name, or --overwrite to replace it.")
    names = convert(source, target)
    print(f"{target}: {len(names)} tensors, {names[0]} to {names[-1]}")
    if model is None:
        return
    built = kresnets.build(kresnets.SPECS[model], include_top=False, weights=target)
    print(f"{model} takes them: {built.count_params():,} numbers of its trunk")
    print(f"train:   kresnets finetune --model {model} --weights {shlex.quote(str(target))} --data IMAGES --out RUN")
