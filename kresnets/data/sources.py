"""`load_data`: one entry for folders, CSV files, TFDS datasets and the ELPV photographs."""

import collections
import dataclasses
import hashlib
import os
import re
import warnings
from collections.abc import Sequence
from typing import Any, Literal

from kresnets._util.checks import is_whole, refuse
from kresnets._util.types import PathLike
from kresnets.data.check import check_images, depth
from kresnets.data.folds import folds
from kresnets.data.listing import list_csv, list_folder
from kresnets.data.manifest import Noted, stamp
from kresnets.data.part import Data, Part
from kresnets.data.split import PARTS, cap, order_key, split, strata, together
from kresnets.data.tfds_source import list_tfds
from kresnets.decoding import Decoding


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
            `kresnets.data.listing.list_csv`); `"elpv"`, `"elpv/mono"`, `"elpv/poly"`; or the name of a TFDS dataset,
            `"name"` or `"name/config"`. For a folder that is called as a dataset write `./name`.
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
    _check_arguments(limit, seed, bad_images, validation_split, test_split)
    if fold is not None and not (is_whole(fold[1], 2) and is_whole(fold[0], 1) and fold[0] <= fold[1]):
        raise ValueError(f"`fold` must be one of two or more, such as (1, 5). Received: fold={fold!r}")
    found = decoding or Decoding(bits, background, resize=resize, padding=padding, channels=channels)
    listing = list_source(source, data_dir, columns, task, label_separator)
    obstacles = list(listing.obstacles)
    if group_by is not None:
        listing = _grouped(listing, group_by)
    if len(listing.class_names) < 2 and listing.task == "classes":
        refuse([*obstacles, _one_class(source, listing)])
    parts = [(part, item) for part, items in listing.parts.items() for item in items]
    stamps = [stamp(item.content) for _, item in parts]  # before they are read: what changes meanwhile will be seen
    verdicts = check_images([item.content for _, item in parts], progress, found)
    bad = tuple((item.id, verdict.reason) for (_, item), verdict in zip(parts, verdicts) if verdict.reason)
    if bad and bad_images == "error":
        obstacles.append(_bad_sentence(bad, len(parts)))
    good = [(part, item, verdict) for (part, item), verdict in zip(parts, verdicts) if not verdict.reason]
    items, digests = [item for _, item, _ in good], [verdict.digest for *_, verdict in good]
    given = {part: [i for i, row in enumerate(good) if row[0] == part] for part in listing.parts}
    groups = _groups_of(items)
    keys = digests if groups is None else together(digests, groups)
    least = max(2 * len(PARTS), fold[1] if fold else 0)
    chosen, labels = {}, strata([item.label for item in items], listing.task, keys, least)
    without = _classes_without(given, items, listing)
    obstacles += without
    # Strata of labels and numbers are no classes, and have no names of their own.
    names = (
        listing.class_names if listing.task == "classes" else [f"group {n}" for n in range(max(labels, default=0) + 1)]
    )
    obstacles += [*_rare_labels(given, items, listing), *_lost_in_float32(items, listing)]
    try:
        if fold is not None:
            given, test = _without_fold(given, items, labels, digests, seed, fold)
        chosen = _split(given, items, labels, digests, names, seed, validation_split, test_split)
        if fold is not None:
            chosen["test"] = test
        if not without:
            chosen["train"], chosen["validation"] = cap(chosen["train"], chosen["validation"], labels, limit, names)
    except ValueError as error:
        obstacles.append(str(error))
    obstacles += _floats(verdicts) + _weightless([items[i] for i in chosen.get("train", ())], listing)
    refuse(obstacles)
    _warn_of_duplicates(given, items, digests)
    found, decoded = _decoding(found, [verdict for *_, verdict in good], decoding is None)
    # Weights say what is to be learned from, not what is to be asked.
    made = {part: _part([items[i] for i in chosen[part]], listing, progress, found, part == "train") for part in PARTS}
    contents = hashlib.sha256()
    for item, digest in sorted(zip(items, digests), key=lambda pair: pair[0].id):
        contents.update(repr((item.id, digest.hex())).encode())
    if groups is not None:
        decoded = (*decoded, _told_groups(groups, chosen))
    noted = {
        item.id: Noted(listing.said(item), verdict.digest.hex(), *stamped)
        for (_, item), verdict, stamped in zip(parts, verdicts, stamps)
    }
    return Data(
        listing.name, listing.class_names, **made, bad=bad, rotated=sum(verdict.rotated for *_, verdict in good),
        contents=contents.hexdigest(), plain=tuple(item.id for _, item, verdict in good if verdict.plain), files=noted,
        decoding=found, decoded=decoded,
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


def _groups_of(items):
    return [item.group for item in items] if any(item.group is not None for item in items) else None


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


def _check_arguments(limit, seed, bad_images, validation_split, test_split):
    if bad_images not in ("error", "skip"):
        raise ValueError(f"`bad_images` must be 'error' or 'skip'. Received: {bad_images!r}")
    if limit is not None and limit < 1:
        raise ValueError(f"`limit` must be at least 1, or None for all images. Received: limit={limit}")
    if not isinstance(seed, int):
        raise ValueError(f"`seed` must be an integer. Received: seed={seed!r}")
    for name, share in (("validation_split", validation_split), ("test_split", test_split)):
        if not 0 < share < 1:
            raise ValueError(f"`{name}` is a share and must lie between 0 and 1. Received: {share}")


def list_source(source, data_dir=None, columns=None, task="auto", label_separator=None):
    """Return the `Listing` of a source; its images are not looked at."""
    source = os.path.expanduser(os.fspath(source))
    if is_file_source(source) and os.path.isfile(source):
        return list_csv(source, columns, task, label_separator)
    if label_separator is not None:
        raise ValueError(f"`label_separator` is for cells of a CSV file, and {source} is none: leave it out.")
    if is_file_source(source):
        if task not in ("auto", "classes") or columns is not None:
            raise ValueError(
                f"Several labels an image, and numbers, come from a CSV file or TFDS, and {source} is a folder of "
                "classes: give a list of paths and labels, or leave `task` and `columns` out."
            )
        return list_folder(source)
    if os.path.isabs(source) or source.startswith(".") or source.endswith(".csv"):  # no name of a data set
        raise ValueError(f"There is no folder or CSV file {source!r} here.")
    return list_tfds(source, data_dir, columns, task)


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


_SHOWN = 20  # bad images that are named; all of them, but for a folder that is none of images


def _bad_sentence(bad, total):
    shown = "; ".join(f"{image_id} ({reason})" for image_id, reason in bad[:_SHOWN])
    more = f"; and {len(bad) - _SHOWN} more, which `Data.bad` lists where they are skipped" if len(bad) > _SHOWN else ""
    return (
        f"{len(bad)} of {total} images cannot be used: {shown}{more}. Repair or delete them, or leave them out with "
        'bad_images="skip".'
    )


def _classes_without(given, items, listing):
    """Return a sentence for each class, or label, without an image in a part."""
    if listing.task == "numbers":
        return []

    def has(i):
        label = items[i].label
        return [label] if listing.task == "classes" else [n for n, value in enumerate(label) if value]

    names, one = listing.class_names, "Class" if listing.task == "classes" else "Label"
    return [
        f"{one} {names[label]!r} has no usable image{'' if part == 'all' else f' in the {part} part'}: add some, "
        f"or leave the {one.lower()} out."
        for part, indices in given.items()
        for label in sorted(set(range(len(names))) - {label for i in indices for label in has(i)})
    ]


def _rare_labels(given, items, listing):
    """Return a sentence for each label that fewer images have than there are parts, so that one would be without."""
    if listing.task != "labels" or set(given) != {"all"}:
        return []
    counts = [sum(label) for label in zip(*(item.label for item in items))]
    return [
        f"Label {name!r} is on {count:g} image{'s' * (count != 1)}, but each of {', '.join(PARTS)} needs at least one: "
        "add some, or leave the label out."
        for name, count in zip(listing.class_names, counts)
        if 0 < count < len(PARTS)
    ]


def _lost_in_float32(items, listing):
    """Return a sentence for each number that varies by less than float32, in which is trained, can tell."""
    if listing.task != "numbers" or not items:
        return []
    told = []
    for name, column in zip(listing.class_names, zip(*(item.label for item in items))):
        spread, largest = max(column) - min(column), max(map(abs, column))
        if 0 < spread < 1e-4 * largest:
            told.append(
                f"{name!r} goes from {min(column):.12g} to {max(column):.12g}, differences that float32 cannot tell: "
                "subtract what all have in common."
            )
    return told


def _floats(verdicts):
    """Return a sentence where arrays of floats all look as if they were scaled to 0..1."""
    floats = [verdict.floating for verdict in verdicts if verdict.floating is not None]
    if not floats or max(floats) > 1:
        return []
    return [f"{len(floats)} images are floats of at most {max(floats):.3g}, and 0..255 is what is read: times 255?"]


def _weightless(items, listing):
    """Return a sentence where the weights of the training images leave nothing to learn of a class, or of all."""
    if not items or items[0].weight is None:
        return []
    learned = {item.label for item in items if item.weight}
    if not learned:
        return ["All training images have the weight 0: give some more, or leave the weights out."]
    if listing.task != "classes":
        return []
    silent = [name for label, name in enumerate(listing.class_names) if label not in learned]
    return [f"All training images of {name!r} have the weight 0: give some more, or leave it out." for name in silent]


def _warn_of_duplicates(given, items, digests):
    labels = {}
    for item, digest in zip(items, digests):
        labels.setdefault(digest, {}).setdefault(item.label, item.id)
    twice = [found for found in labels.values() if len(found) > 1]
    if twice:
        names = " and ".join(list(twice[0].values())[:2])
        warnings.warn(f"{len(twice)} images occur under two classes, for example {names}.", stacklevel=3)
    trained = {digests[i]: items[i].id for i in given.get("train", ())}
    others = [i for part in given if part != "train" for i in given[part]]
    shared = [f"{trained[digests[i]]} and {items[i].id}" for i in others if digests[i] in trained]
    if shared:
        warnings.warn(
            f"{len(shared)} images of the given validation and test parts are in the training part too, for example "
            f"{shared[0]}.",
            stacklevel=3,
        )


def _split(given, items, labels, digests, class_names, seed, validation_split, test_split):
    """Return part -> indices of items, in the order in which `cap` draws them."""
    fractions = {"test": test_split, "validation": validation_split}
    fractions = {part: share for part, share in fractions.items() if part not in given}
    chosen = {part: sorted(indices, key=lambda i: order_key(seed, items[i].id)) for part, indices in given.items()}
    pool = chosen.pop("all" if "all" in chosen else "train")
    present = sorted({labels[i] for i in pool})  # classes without an image are told for themselves
    groups = _groups_of(items)
    dealt = split(
        [items[i].id for i in pool],
        [present.index(labels[i]) for i in pool],
        [digests[i] for i in pool],
        fractions,
        [class_names[label] for label in present],
        seed,
        groups and [groups[i] for i in pool],
    )
    return chosen | {part: [pool[i] for i in indices] for part, indices in dealt.items()}


def _without_fold(given, items, labels, digests, seed, fold):
    """Return what is given without the images of a fold, and these.

    Raises:
        ValueError: where the source has parts of its own, or a class is too small for so many folds.
    """
    number, count = fold
    if set(given) != {"all"}:
        raise ValueError(
            "Folds deal out all images, and this source has parts of its own: put them together, or leave folds out."
        )
    pool, groups = given["all"], _groups_of(items)
    mine = [digests[i] for i in pool]
    keys = mine if groups is None else together(mine, [groups[i] for i in pool])
    dealt = folds([labels[i] for i in pool], count, 1, seed, [items[i].id for i in pool], keys)
    if len(dealt) < count:
        raise ValueError(f"A class has too few images for {count} folds: give fewer folds, or leave the class out.")
    rest, tested = dealt[number - 1]
    # A test part that is empty here: nothing more is to be split off for it.
    return {"train": [pool[i] for i in rest], "test": []}, [pool[i] for i in tested]


def _part(items, listing, progress, decoding, weighed):
    items = sorted(items, key=lambda item: item.id)
    weights = [item.weight for item in items] if weighed and items and items[0].weight is not None else None
    return Part(
        [item.id for item in items], [item.label for item in items], [item.content for item in items],
        listing.class_names, progress, decoding, _groups_of(items), listing.task, weights,
    )  # fmt: skip
