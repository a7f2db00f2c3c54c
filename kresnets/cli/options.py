"""Options that several verbs take, and the recipe's, which are `kresnets.Recipe`'s own fields."""

import dataclasses
import types
import typing
from typing import Annotated, Any, Literal

from cyclopts import Group, Parameter
from cyclopts.validators import Number
from docstring_parser import parse

from kresnets._util import files
from kresnets.transfer.recipe import ADVANCE, AUGMENT, BATCHNORM, HEAD, KEEP, Recipe

Count = Annotated[int, Parameter(validator=Number(gte=1))]
Whole = Annotated[int, Parameter(validator=Number(gte=0))]
Positive = Annotated[float, Parameter(validator=Number(gt=0))]
Share = Annotated[float, Parameter(validator=Number(gt=0, lte=1))]
Flag = Annotated[bool, Parameter(negative="")]
DType = Literal["auto", "float32", "mixed_bfloat16", "mixed_float16"]

_IMAGES = Group("Images", sort_key=1)
_NETWORK = Group("Network", sort_key=2)
_RECIPE = Group(
    "Recipe",
    help="What is left out is resolved by the images, the classes and the trunk; `--dry-run` shows to what.",
    sort_key=4,
)
_DEVICES = Group("Several devices", help="The batch size is that of all of them together.", sort_key=5)


PRETRAINED = {"auto": None, "yes": True, "no": False}  # what `fine_tune` takes


@Parameter(name="*", group=_IMAGES)
@dataclasses.dataclass(frozen=True, kw_only=True)
class Images:
    """Which images.

    Args:
        data: A folder of class folders, a CSV file of path,label, tar or Parquet files (or a folder of them), elpv,
            elpv/mono, elpv/poly, or a TFDS name.
        limit: Most images for training and validation together.
        bad_images: What to do about damaged images.
        seed: Of the split, the start and the order of the images. Left out: that of --recipe, else 0.
        columns: Columns of a CSV file that have paths, classes and, if there is one, parts; or such as group=patient
            or label=cat,dog, of path, label, split, group and weight (how much an image counts in training). Left
            out: paths, labels and parts by their usual names; groups and weights are taken only where they are named.
        group_by: Regular expression, whose match in an image's path (its first parentheses) is the patient, video or
            place shown: none of them is in two parts.
        bits: How many bits 16-bit PNG fill. Left out: what they say, else what their largest value needs.
        background: Colour that transparent pixels are put on, such as black or #ff8000; none: what is stored there.
        resize: How pictures become squares: crop (the centre), pad (all of it, the rest filled) or squash.
        padding: Colour that --resize pad fills with. Left out: black.
        channels: How many numbers a pixel has: 3 (RGB), 1 (grey), 4 (RGB and alpha, or bands), others: bands of TIFF
            and .npy. A pretrained first convolution is made one for them.
        task: What a CSV file's labels are: classes (one an image), labels (several or none) or numbers; auto: by its
            cells.
        label_separator: What stands between several labels in one cell, such as '|'. Left out, with --task labels:
            whichever occurs of | ; , and space.
        index: auto: of a thousand images or more, those that were looked at before, and have not changed since, are
            not opened again; rehash: all are read, and known by their bytes; off: all are looked at.
    """

    data: str
    columns: Annotated[list[str] | None, Parameter(negative="", consume_multiple=True)] = None
    group_by: str | None = None
    limit: Count | None = None
    bad_images: Literal["skip", "error"] = "error"
    seed: Whole | None = None
    bits: Literal[8, 9, 10, 11, 12, 13, 14, 15, 16] | None = None
    background: str = "white"
    resize: Literal["crop", "pad", "squash"] = "crop"
    padding: str | None = None
    channels: Literal[1, 2, 3, 4, 5, 6, 7, 8] = 3
    task: Literal["auto", "classes", "labels", "numbers"] = "auto"
    label_separator: str | None = None
    index: Literal["auto", "rehash", "off"] = "auto"


@Parameter(name="*", group=_NETWORK)
@dataclasses.dataclass(frozen=True, kw_only=True)
class Network:
    """Which network.

    Args:
        model: A network that `kresnets networks` lists; for finetune also a .keras file of your own, head and all.
        weights: imagenet, none, a tag that `kresnets networks NAME` lists, a file, or another run's folder.
        preprocess: How the images of a file of weights are wanted: caffe, tf, torch, none, or the tag of weights that
            want the same. Left out: what the file or its layout says.
        pretrained: Whether the trunk was trained; auto: what its weights say.
        size: Pixels a side. Left out: that of the weights, else the network's own.
        batch_size: Images in a step, of all devices together.
        dtype: What layers compute in; auto: the fastest that the machine has, float32 for small networks.
    """

    model: str = "ResNet50"
    weights: str = "imagenet"
    preprocess: str | None = None
    pretrained: Literal["auto", "yes", "no"] = "auto"
    size: Count | None = None
    batch_size: Count = 32
    dtype: DType = "auto"


@Parameter(name="*", group=_DEVICES)
@dataclasses.dataclass(frozen=True, kw_only=True)
class Machines:
    """How many devices.

    Args:
        devices: Train on all devices of the machine, instead of one.
        coordinator: Many machines: host:port at which process 0 is reached; the next port too.
        processes: Many machines: their number.
        process: Many machines: which of them this is, from 0.
    """

    devices: Literal["all"] | None = None
    coordinator: str | None = None
    processes: Count | None = None
    process: Whole | None = None


_CHOICES = {"batchnorm": BATCHNORM, "advance": ADVANCE, "keep": KEEP, "head": HEAD}
# What the command says of a field otherwise than Python does.
_SAID = {
    "learning_rate": (float | Literal["find"], "or find: by a range test on the first stage"),
    "augment": (str, f"{', '.join(AUGMENT)}, or a TOML file: a table for each Keras layer, with its arguments"),
    "schedule": (str, "cosine, constant, or a TOML file of stages, such as the schedule.toml of another run"),
}
_LEFT_OUT = ("seed", "timetable", "restore_best")  # the first is of the images, the others are in a schedule's file


def _recipe_options() -> type:
    described = {one.arg_name: " ".join((one.description or "").split()) for one in parse(Recipe.__doc__).params}
    fields: list[Any] = [
        (
            "recipe",
            Annotated[
                str | None,
                Parameter(
                    help="A JSON file of fields, such as the best_recipe.json of a search; options go before it."
                ),
            ],
            None,
        )
    ]
    epochs = "Epochs in all: the stages that the recipe comes to, shortened or lengthened in proportion."
    fields.append(("epochs", Annotated[Count | None, Parameter(help=epochs)], None))
    for name, hint in typing.get_type_hints(Recipe).items():
        if name in _LEFT_OUT:
            continue
        text = described[name]
        if name in _CHOICES:
            kind: Any = Literal[_CHOICES[name]]
        elif name in _SAID:
            kind, more = _SAID[name]
            text = f"{text.rstrip('.')}; {more}." if name == "learning_rate" else f"{more[0].upper()}{more[1:]}."
        elif name == "stages":
            kind = list[str]
        else:
            kind = next((one for one in typing.get_args(hint) if one in (int, float, bool)), str)
        parameter = Parameter(
            help=text[0].upper() + text[1:], consume_multiple=(0, 99) if name == "stages" else None, negative=""
        )
        fields.append((name, Annotated[kind | None, parameter], None))
    made = dataclasses.make_dataclass("RecipeOptions", fields, frozen=True, kw_only=True)
    made.__module__ = __name__  # by which cyclopts knows that it is no type of the standard library
    return Parameter(name="*", group=_RECIPE)(made)


RecipeOptions: Any = _recipe_options()


def seed_of(recipe: str | None) -> int:
    """Return the seed that a recipe's file gives, else 0; what else is wrong with the file is told where it is read."""
    found = files.read_json(recipe) if recipe else None
    seed = found.get("seed", 0) if isinstance(found, dict) else 0
    return seed if isinstance(seed, int) and seed >= 0 else 0


def flat(*groups: Any, **more: Any) -> types.SimpleNamespace:
    """Join options into one object of attributes.

    Example:
        >>> flat(Images(data="pets"), out="runs/pets").limit is None
        True
    """
    found: dict[str, Any] = {}
    for group in groups:
        found |= dataclasses.asdict(group)
    if found.get("seed", 0) is None:
        found["seed"] = seed_of(found.get("recipe"))
    return types.SimpleNamespace(**found, **more)
