"""`load_data`: one entry for folders, CSV files, TFDS datasets and the ELPV photographs."""

import collections
import dataclasses
import math
import os
import re
from collections.abc import Sequence
from typing import Any, Literal

from kresnets._util.checks import is_whole, refuse
from kresnets._util.types import PathLike
from kresnets.data.check import depth
from kresnets.data.deal import deal
from kresnets.data.index import USES
from kresnets.data.listing import list_csv, list_folder
from kresnets.data.loaded import Data
from kresnets.data.looked import look
from kresnets.data.part import Part
from kresnets.data.shards import list_shards, shards_in
from kresnets.data.split import PARTS
from kresnets.data.tfds_source import list_tfds
from kresnets.decoding import Decoding

_ARCHIVES = (".zip", ".gz", ".tgz", ".bz2", ".xz", ".zst", ".7z", ".rar")


def load_data(
    source: PathLike,
    limit: int | None = None,
    seed: int = 0,
    bad_images: str = "error",
    validation_split: float = 0.15,
    test_split: float = 0.25,
    data_dir: PathLike | None = None,
    progress: bool = True,
    columns: Sequence[str] | None = None,
    bits: int | None = None,
    background: Any = "white",
    decoding: Decoding | None = None,
    resize: Literal["crop", "pad", "squash"] = "crop",
    padding: Any = None,
    group_by: str | None = None,
    task: Literal["auto", "classes", "labels", "numbers"] = "auto",
    label_separator: str | None = None,
    fold: tuple[int, int] | None = None,
    channels: int = 3,
    index: Literal["auto", "rehash", "off"] = "auto",
) -> Data:
    """Load labelled images, look at every one of them, and split them.

    The splits are stratified, disjoint and a function of `seed` and of the images' names alone, the same on every
    machine. Exact duplicates stay in one part. Parts that the source itself has (folders `train`, `validation` and
    `test` in the usual spellings, a CSV file's column of such, splits of a TFDS dataset) are used as they are, and only
    a missing one is split off from `train`.

    Images of one group (a patient, a video, a place) stay in one part too, where `columns` names a column of groups or
    `group_by` finds them in the names: else what is learned of a patient is tested on the same patient.

    Every image is decoded once, in parallel, by the function that training and serving use, so that a damaged or half
    file is found before training. Images of more than 50 million pixels are refused before they are decoded, but for
    baseline JPEGs, which are decoded at 1/2, 1/4 or 1/8 of their sides.

    How files become pixels is one for all of them, and is what a model learns: `Data.decoding`, which `fine_tune` has
    the model carry. How many bits 16-bit PNG fill is found in all of them together, and told by `Data.summary`.

    Args:
        source: str or path. A folder of class folders; a CSV file of `path,label` (see
            `kresnets.data.listing.list_csv`); tar or Parquet files (see `kresnets.data.shards.list_shards`); `"elpv"`,
            `"elpv/mono"`, `"elpv/poly"`; or the name of a TFDS dataset, `"name"` or `"name/config"`. For a folder that
            is called as a dataset write `./name`.
        limit: int, the most images for training and validation together, or None for all. A smaller limit takes part of
            what a larger one takes; the test part is never cut. Defaults to None.
        seed: int, chooses the split. Defaults to 0.
        bad_images: `"error"` (refuse, naming them) or `"skip"` (leave them out and list them in `Data.bad`).
            Defaults to `"error"`.
        validation_split: float, the share of what does not test that validates. Defaults to 0.15.
        test_split: float, the share that tests. Defaults to 0.25.
        data_dir: str, where TFDS keeps prepared datasets, or None for its default. Defaults to None.
        progress: bool, show progress bars on stderr (where it is a terminal). Defaults to True.
        columns: names of the columns of a CSV file that have the paths, the classes and, if there is one, the parts; or
            a dict of roles such as `{"group": "patient", "weight": "trust"}` (see `kresnets.data.listing.list_csv`).
            Weights are those of the training images. Defaults to None, those of the usual names.
        bits: int, how many bits the values of 16-bit PNG fill, 8 to 16. Defaults to None: what the files say (sBIT),
            else the least of 10, 12, 14 and 16 that holds every value.
        background: colour that transparent pixels are put on, such as `"white"`, `"#ff8000"` or `(255, 128, 0)`; None
            for the colour that is stored under them. Defaults to `"white"`.
        decoding: a `kresnets.Decoding` in place of these, the next two and `channels`, such as that of a model.
            Defaults to None.
        resize: how a picture becomes a square: `"crop"` (the centre), `"pad"` or `"squash"`; see `kresnets.Decoding`.
            Defaults to `"crop"`.
        padding: colour that `resize="pad"` fills with. Defaults to None, black.
        group_by: regular expression that is found in the name of each image, its path in the source; what its first
            parentheses hold, else all that it matches, is the image's group: `r"patient(\\d+)"`. Defaults to None.
        task: what the labels of a CSV file or a TFDS dataset are: `"classes"` (one an image), `"labels"` (several or
            none: columns of 0 and 1, or one column of names with a separator) or `"numbers"` (regression: one column
            or several). Defaults to `"auto"`: several columns of 0 and 1 are labels, and so is what has a
            `label_separator`; several of numbers, and one of numbers with fractions, are numbers; all else is classes.
        label_separator: what stands between labels in one cell, such as `"|"`. Defaults to None: with task `"labels"`
            whichever of `| ; ,` and space occurs.
        fold: `(2, 5)`: the images are dealt out to five folds, stratified, duplicates and groups together, and the
            second one tests; of the others a share validates. So each image is tested once in five loads. Defaults to
            None.
        channels: how many numbers a pixel has, 1 to 8; see `kresnets.Decoding`. An image of others is a bad one; grey
            images are read as three channels too, and colours as one. Defaults to 3.
        index: where there are a thousand images or more, what was found of them is kept (in Keras's folder, see
            `kresnets.data.index`), and unchanged files are not opened again: such as have the device, inode, size
            and times that they had. `"rehash"`: all are read, and known by their bytes; `"off"`: all are looked at,
            and nothing is kept. Defaults to `"auto"`.

    Returns:
        A `Data`.

    Raises:
        ValueError: for a source that is not there or not understood, fewer than two classes, a class with too few
            images, a limit that is too small, or bad images with `bad_images="error"`.
        OSError: where a TFDS dataset cannot be fetched.
        ModuleNotFoundError: for `elpv` without the package that holds the photographs.

    Example:
        >>> from kresnets.data import load_data
        >>> data = load_data("elpv/mono", limit=75)  # doctest: +SKIP
        >>> len(data.train), len(data.validation), len(data.test)  # doctest: +SKIP
        (64, 11, 268)
    """
    _check_arguments(limit, seed, bad_images, validation_split, test_split, index)
    if fold is not None and not (is_whole(fold[1], 2) and is_whole(fold[0], 1) and fold[0] <= fold[1]):
        raise ValueError(f"`fold` must be one of two or more, such as (1, 5). Received: fold={fold!r}")
    found = decoding or Decoding(bits, background, resize=resize, padding=padding, channels=channels)
    listing = list_source(source, data_dir, columns, task, label_separator, index)
    if group_by is not None:
        listing = _grouped(listing, group_by)
    if len(listing.class_names) < 2 and listing.task == "classes":
        refuse([*listing.obstacles, _one_class(source, listing)])
    looked = look(listing, found, progress, index)
    obstacles = [*listing.obstacles, *looked.obstacles(bad_images)]
    try:
        chosen = deal(looked, seed, {"test": test_split, "validation": validation_split}, limit, fold)
        obstacles += looked.weightless(chosen["train"])
    except ValueError as error:
        obstacles.append(str(error))
        if str(error).startswith("Class ") and _may_be_numbers(source, listing, task):
            obstacles.append('The labels are numbers: to learn them as such, not as classes, give task="numbers".')
    refuse(obstacles)
    looked.warn_of_duplicates()
    found, decoded = _decoding(found, looked.verdicts, decoding is None)
    if looked.groups is not None:
        decoded = (*decoded, _told_groups(looked.groups, chosen))
    return Data(
        listing.name, listing.class_names, **_parts(looked, chosen, progress, found, shared=fold is not None),
        bad=looked.bad, rotated=sum(verdict.rotated for verdict in looked.verdicts), contents=looked.contents(),
        plain=tuple(item.id for item, verdict in zip(looked.items, looked.verdicts) if verdict.plain),
        files=looked.noted, decoding=found, decoded=decoded,
    )  # fmt: skip


def _grouped(listing, pattern):
    """Return a listing whose images have the groups that a regular expression finds in their names."""
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise ValueError(f"`group_by` must be a regular expression. Received: {pattern!r} ({error})") from None
    matches = {item.id: compiled.search(item.id) for items in listing.parts.values() for item in items}
    if without := [name for name, match in matches.items() if match is None]:
        raise ValueError(
            f"`group_by` {pattern!r} is found in {len(matches) - len(without)} of {len(matches)} names, and not in "
            f"{without[0]!r}: each image needs a group."
        )
    group = lambda match: match.group(1 if compiled.groups else 0) or match.group()
    parts = {
        part: [item._replace(group=group(matches[item.id])) for item in items] for part, items in listing.parts.items()
    }
    return dataclasses.replace(listing, parts=parts)


def _check_arguments(limit, seed, bad_images, validation_split, test_split, index):
    if index not in USES:
        raise ValueError(f"`index` must be {', '.join(map(repr, USES))}. Received: {index!r}")
    if bad_images not in ("error", "skip"):
        raise ValueError(f"`bad_images` must be 'error' or 'skip'. Received: {bad_images!r}")
    if limit is not None and limit < 1:
        raise ValueError(f"`limit` must be at least 1, or None for all images. Received: limit={limit}")
    if not isinstance(seed, int):
        raise ValueError(f"`seed` must be an integer. Received: seed={seed!r}")
    for name, share in (("validation_split", validation_split), ("test_split", test_split)):
        if not 0 < share < 1:
            raise ValueError(f"`{name}` is a share and must lie between 0 and 1. Received: {share}")


def list_source(source, data_dir=None, columns=None, task="auto", label_separator=None, use="auto"):
    """Return the `Listing` of a source; its images are not looked at."""
    source = os.path.expanduser(os.fspath(source))
    if source.lower().endswith(_ARCHIVES) and os.path.isfile(source):
        raise ValueError(f"{source} is an archive: unpack it, and give the folder.")
    shards = is_file_source(source) and shards_in(source)
    if is_file_source(source) and os.path.isfile(source) and not shards:
        return list_csv(source, columns, task, label_separator)
    if label_separator is not None:
        raise ValueError(f"`label_separator` is for cells of a CSV file, and {source} is none: leave it out.")
    if shards:
        return list_shards(source, columns, task, use)
    if is_file_source(source):
        if task not in ("auto", "classes") or columns is not None:
            raise ValueError(
                f"Several labels an image, and numbers, come from a CSV file or TFDS, and {source} is a folder of "
                "classes: give a list of paths and labels, or leave `task` and `columns` out."
            )
        return list_folder(source)
    if os.path.isabs(source) or source.startswith(".") or source.endswith(".csv"):  # no name of a data set
        raise ValueError(f"There is no folder or CSV file {source!r} here.")
    return list_tfds(source, data_dir, columns, task, use)


def is_file_source(source):
    """Whether a source is a folder or a CSV file, rather than the name of a data set."""
    return source.partition("/")[0] != "elpv" and os.path.exists(os.path.expanduser(source))


def _one_class(source, listing):
    lists = sorted(name for name in os.listdir(source) if name.endswith(".csv")) if os.path.isdir(source) else ()
    given = f"; or give the list that is there, {os.path.join(source, lists[0])}." if lists else "."
    return (
        f"{source} has one class only ({listing.class_names[0]!r}): there must be two to tell apart, each in a folder "
        f"of its own{given}"
    )


def _may_be_numbers(source, listing, task):
    """Whether classes are numbers that nobody said to be classes; in folders they can be nothing else."""
    folder = os.path.isdir(os.path.expanduser(source)) or shards_in(source)
    if task != "auto" or listing.task != "classes" or folder:
        return False
    try:
        return all(math.isfinite(float(name)) for name in listing.class_names)
    except ValueError:
        return False


def _parts(looked, chosen, progress, decoding, shared):
    """Return dict part -> `Part`, each in the order of the names; `shared` ones, of all images, share what is kept."""

    def part(rows, weighed=False):
        items = [looked.items[row] for row in rows]
        weights = [item.weight for item in items] if weighed and looked.weighed else None
        groups = looked.groups and [item.group for item in items]
        return Part(
            [item.id for item in items], [item.label for item in items], [item.content for item in items],
            looked.listing.class_names, progress, decoding, groups, looked.listing.task, weights,
        )  # fmt: skip

    chosen = {name: sorted(rows, key=lambda row: looked.items[row].id) for name, rows in chosen.items()}
    if shared and not looked.weighed and sum(map(len, chosen.values())) == len(looked.items):
        whole = part(range(len(looked.items)))
        return {name: whole.subset(chosen[name], shared=True) for name in PARTS}
    # Weights say what is to be learned from, not what is to be asked.
    return {name: part(chosen[name], weighed=name == "train") for name in PARTS}


def _told_groups(groups, chosen):
    """Return a sentence on groups, of which parts that the source brings may share some."""
    parts = [{groups[index] for index in indices} for indices in chosen.values()]
    several = collections.Counter(group for part in parts for group in part)
    shared = sum(count > 1 for count in several.values())
    return f"Groups: {len(set(groups))}, " + (
        f"{shared} of them in more than one part, as the source parts them: the test is not honest."
        if shared
        else "none in two parts."
    )


def _decoding(given, verdicts, open_):
    """Return the `Decoding` of a data set, its bits found where they are left open, and sentences about it."""
    bits, why = depth(verdicts)
    notes, decoding = [], given
    if open_ and given.bits is None:
        decoding = dataclasses.replace(given, bits=bits)
    if bits is not None:
        used = decoding.bits or 16
        larger = sum(verdict.largest >= 2**used for verdict in verdicts if verdict.largest is not None)
        kind = "16-bit PNG" if given.channels == 3 else "Images of 16 bits"
        notes.append(f"{kind} are read as {used} bits: " + (why if decoding != given else "as given") + ".")
        if larger:
            notes.append(f"{larger} of them have larger values, which become white.")
    clear, scaled = (sum(getattr(verdict, name) for verdict in verdicts) for name in ("clear", "scaled"))
    if clear and given.background is not None and given.channels in (1, 3):
        colour = "white" if given.background == (255,) * 3 else f"RGB {given.background}"
        notes.append(f"Images with an alpha channel or a transparent colour, put on {colour}: {clear}.")
    if decoding.resize != "crop":
        filled = f", the rest filled with RGB {decoding.padding or (0, 0, 0)}" if decoding.resize == "pad" else ""
        notes.append(f"Pictures are shown whole, not their centre alone: resize={decoding.resize!r}{filled}.")
    if several := sum(verdict.pages > 1 for verdict in verdicts):
        notes.append(f"Files of several pictures, of which the first is read: {several}.")
    if scaled:
        notes.append(f"JPEGs of more than {given.whole:,} pixels, decoded at a fraction of their sides: {scaled}.")
    return decoding, tuple(notes)
