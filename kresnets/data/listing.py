"""What a source offers, before anything is checked or split: folders of class folders, and CSV files."""

import csv
import dataclasses
import glob
import io
import os
import pathlib
import re
import warnings
from collections.abc import Mapping
from typing import NamedTuple

from kresnets._util.checks import refuse
from kresnets.data.check import check_image
from kresnets.data.label_cells import number_in, read_labels, said

# Files that accompany images. Whatever else lies in a class folder is taken for an image and has to be one, so that a
# `.tiff` or a file without a suffix is reported instead of being silently not learned.
IGNORED_SUFFIXES = frozenset(
    ".bin .cfg .csv .db .doc .docx .html .ini .json .jsonl .lock .log .md .npz .pdf .pkl .py .rst .sha256 .tar "
    ".tsv .txt .xls .xlsx .xml .yaml .yml .zip".split()
)
# What systems and programs put beside class folders, in lower case.
IGNORED_FOLDERS = frozenset(
    (
        "__macosx",
        "@eadir",
        "#recycle",
        "#snapshot",
        "$recycle.bin",
        "system volume information",
        "lost+found",
        "__pycache__",
    )
)
_IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".gif", ".bmp", ".webp", ".tif", ".tiff", ".heic", ".heif", ".avif")
_SPELLINGS = {
    "train": "train training trn",
    "validation": "validation validate valid val dev development",
    "test": "test tests testing tst eval evaluation holdout",
}
PART_NAMES = {word: part for part, words in _SPELLINGS.items() for word in words.split()}
_PATH_COLUMNS = tuple(
    "path file filename file_name filepath file_path image image_path image_name image_file imagename img img_path "
    "img_name image_id imageid photo picture".split()
)
_LABEL_COLUMNS = tuple(
    "label class class_name classname category target label_name labels species breed diagnosis dx".split()
)
_PART_COLUMNS = tuple("split set subset part partition dataset data_set usage phase".split())
_GROUP_COLUMNS = tuple("group patient patient_id patientid subject subject_id case case_id video scene site".split())
_ROLES = ("path", "label", "split", "group", "weight")
_PART_FLAGS = {f"is_{word}" for word in PART_NAMES}
_SEPARATORS = ",;\t"
_MOST_TOLD = 20  # lines of a CSV file
_HEAVIEST = 1e6  # weight of an image, beyond which a loss in float32 knows no other image
_PICTURES = re.compile(r"(jpeg)?(image|img|picture|photo)s?")
_NOTES = re.compile(r"(label|mask|annotation|segmentation)s?")


def part_of(name):
    """Return the part that a folder, a split or a cell is called after (`"Training"`, `"test_set"`), or None."""
    words = re.split(r"[\W_\d]+", name.lower())
    rest = [word for word in words if word not in ("", "set", "data", "images", "imgs", "part", "split", "dataset")]
    whole = "".join(rest)
    return PART_NAMES.get(whole.removesuffix("set").removesuffix("data")) or PART_NAMES.get(whole)


def part_within(name):
    """Return the part that one word of a name says (`seg_train`), or None."""
    parts = [PART_NAMES[word] for word in re.split(r"[\W_\d]+", name.lower()) if word in PART_NAMES]
    return parts[0] if len(parts) == 1 else None


class Item(NamedTuple):
    """One image: a name that is the same on every machine, its class, and where its bytes are."""

    id: str
    label: int | tuple[float, ...]  # its class; of several labels a 1 for each that it has, or numbers
    content: str | bytes  # the path of a file, or the encoded image itself
    group: str | None = None  # what it shows (a patient, a place): those of one group stay in one part
    weight: float | None = None  # how much it counts in training


@dataclasses.dataclass(frozen=True)
class Listing:
    """All images of a source.

    Args:
        name: str, for messages and records.
        class_names: tuple of str.
        parts: dict part -> list of `Item`; the single key `"all"` where the source is not split.
        obstacles: tuple of sentences, why it cannot be used as it is.
        task: what the labels are: `"classes"`, `"labels"` (several, or none, an image) or `"numbers"`.
    """

    name: str
    class_names: tuple[str, ...]
    parts: dict[str, list[Item]]
    obstacles: tuple[str, ...] = ()
    task: str = "classes"

    def said(self, item):
        """Return the label of an item in words."""
        return said(item.label, self.class_names, self.task)


def list_folder(folder):
    """List a folder of class folders, or of folders for training, validation and test with class folders inside.

    Folders for parts are known by the usual spellings (`Training`, `val`, `test_set`), in any case. A class folder is
    searched to any depth. Hidden files, companions (`IGNORED_SUFFIXES`) and what systems leave (`IGNORED_FOLDERS`) are
    left out, as are files beside the class folders. Links are followed, since who made the folder put them there; but
    one to a folder that is being searched already, and would lead in a circle, is left out with a warning.
    """
    folder = pathlib.Path(folder)
    roots = _roots(folder)
    class_names = tuple(subfolders(roots.get("train", folder)))
    _refuse_no_classes(roots.get("train", folder), class_names)
    if not class_names:
        raise ValueError(
            f"No class folders in {folder}: put the images of each class into a folder of its own, named after the "
            f"class (for example {folder / 'cat' / 'photo.jpg'})."
        )
    if len(class_names) == 1 and roots.keys() == {"all"} and len(subfolders(folder / class_names[0])) > 1:
        inner = folder / class_names[0]
        raise ValueError(f"{folder} has the one folder {_tree(folder)}: give {inner}, if its folders are the classes.")
    _warn_of_strays({folder, *roots.values()})
    obstacles = [
        f"{root} has a folder {name!r} that no folder of the training part is named after."
        for root in roots.values()
        for name in sorted(set(subfolders(root)) - set(class_names))
    ]
    parts = {part: _list_root(folder, root, class_names) for part, root in roots.items()}
    return Listing(folder.resolve().name, class_names, parts, tuple(obstacles))


def _roots(folder):
    """Return part -> folder that has its class folders; the single key `"all"` where they are not in parts.

    A class may be called train, as beside bus and car. What is like parts and cannot be read as such is refused: as
    classes they would be learned without a word.
    """
    names = subfolders(folder)
    classes = {name: subfolders(folder / name) for name in names}
    # A class folder may have such a word in its name; a part has folders of classes in it.
    parts = {name: part_of(name) or (part_within(name) if classes[name] else None) for name in names}
    like = [name for name in names if parts[name]]
    alike = len(names) > 1 and len(classes[names[0]]) > 1 and len(set(map(tuple, classes.values()))) == 1
    if not like or (len(like) < len(names) and len({parts[name] for name in like}) < 2 and not alike):
        return {"all": folder}
    roots = {parts[name]: folder / name for name in names}
    if len(like) == len(names) and len(roots) < len(names):
        part = next(part for part in roots if list(parts.values()).count(part) > 1)
        twice = ", ".join(name for name in names if parts[name] == part)
        raise ValueError(f"{folder} has two folders for {part} ({twice}): keep one of them.")
    if len(like) < len(names) or "train" not in roots or not all(classes[name] for name in like):
        if len(like) == len(names) == 1:  # the only class
            return {"all": folder}
        raise ValueError(
            f"{folder} looks as if it were divided into parts, but not into folders for train, validation and test (at "
            f"least the first) with class folders in each. There are {_tree(folder)}: rename or move what is "
            "otherwise; where these are the classes, give their folders other names."
        )
    return roots


def _refuse_no_classes(folder, names):
    """Refuse layouts that are made for something else, and whose folders would be learned as classes."""
    lower, inner = [name.lower() for name in names], [subfolders(folder / name) for name in names]
    what = None
    if len(names) > 1:
        if all(re.fullmatch(r"(fold|cv|split)[ _-]*\d+", name) for name in lower):
            what = "folds of one data set: put the class folders of all folds together"
        elif all(part_of(re.sub("[ _-]?[A-H]$", "", name)) for name in names):
            what = "parts of pairs of images: keep the class folders of one kind"
        elif all(len(set(map(part_of, below)) - {None}) > 1 and all(map(part_of, below)) for below in inner):
            what = "parts within classes: put the parts above, as in train/cat and test/cat"
        elif any(map(_PICTURES.fullmatch, lower)) and any(map(_NOTES.fullmatch, lower)) and len(names) == 2:
            what = "images and notes on them: give a CSV file with a column of paths and one of classes"
    if what is not None:
        raise ValueError(
            f"{folder} has {_tree(folder)}, which looks like {what}. Where these are the classes, give "
            "their folders other names."
        )


def _tree(folder, most=4):
    """Return the first two floors of a folder in words: `train/ (cat, dog), test/ (no folders)`."""
    floors = []
    for name in subfolders(folder):
        inner = subfolders(folder / name)
        shown = ", ".join(inner[:most]) + (", ..." if len(inner) > most else "")
        floors.append(f"{name}/ ({shown or 'no folders'})")
    return ", ".join(floors[:most]) + (", ..." if len(floors) > most else "")


def _list_root(folder, root, class_names):
    inside = 0 if folder == pathlib.Path() else len(os.path.join(folder, ""))
    return [
        Item(path[inside:].replace(os.sep, "/"), label, path)
        for label, name in enumerate(class_names)
        for path in (files_in(root / name) if (root / name).is_dir() else ())
    ]


def _warn_of_strays(folders):
    """Warn of images beside the class folders, which belong to no class."""
    strays = [
        path
        for folder in sorted(folders)
        for path in sorted(folder.iterdir())
        if path.suffix.lower() in _IMAGE_SUFFIXES and not _is_ignored(path.name) and path.is_file()
    ]
    if strays:
        warnings.warn(
            f"{len(strays)} images beside the class folders belong to no class and are left out, such as {strays[0]}.",
            stacklevel=4,
        )


def subfolders(folder):
    """Return the names of the folders in a folder that may be parts or classes."""
    with os.scandir(folder) as entries:
        return sorted(entry.name for entry in entries if entry.is_dir() and not _is_ignored(entry.name))


def _is_ignored(name):
    return name.startswith(".") or name.lower() in IGNORED_FOLDERS


def files_in(class_folder):
    """Return the paths, str, of the files in a folder that are taken for images, at any depth."""
    above = {os.path.realpath(class_folder.parent), os.path.realpath(class_folder)}
    return _images_among(_files_in(os.fspath(class_folder), above))


def _images_among(paths):
    """Return what is no companion: an array is one of the images that it lies beside, and an image where all are."""
    suffixes = [(path, os.path.splitext(path)[1].lower()) for path in paths]
    paths = [path for path, suffix in suffixes if suffix not in IGNORED_SUFFIXES]
    images = [path for path, suffix in suffixes if suffix not in IGNORED_SUFFIXES and suffix != ".npy"]
    if images and len(images) < len(paths):
        warnings.warn(
            f"{len(paths) - len(images)} .npy beside other images, such as {images[0]}, are taken for their companions "
            "and left out: put them into folders of their own, or name them in a CSV file.",
            stacklevel=2,
        )
    return images or paths


def _files_in(folder, above):
    """Yield the files in a folder and those in it; `above` has the real paths of the folders that lead here."""
    with os.scandir(folder) as entries:
        entries = sorted((entry for entry in entries if not _is_ignored(entry.name)), key=lambda entry: entry.name)
    for entry in entries:
        if not entry.is_dir():
            yield entry.path
    for entry in entries:
        if entry.is_dir():
            real = os.path.realpath(entry.path)
            if entry.is_symlink() and any(one == real or one.startswith(os.path.join(real, "")) for one in above):
                warnings.warn(f"{entry.path} is a link to a folder that it is in: left out.", stacklevel=2)
                continue
            yield from _files_in(entry.path, above | {real})


def list_csv(file, columns=None, task="auto", label_separator=None):
    """List a CSV file (UTF-8) of image paths and class names; commas, semicolons or tabs part its columns.

    A header is recognised by the usual names of a column of paths (`path`, `file`, `image_id`, ...) and of one of
    classes (`label`, `class`, `species`, ...); a third one (`split`, `set`, ...) may say which part a line belongs to.
    A column of groups (patients, videos, places) is taken only where `columns` names it, and warned of where it looks
    like one; one of weights only where it is named. Without a header, the first column is the path and the second the
    class. A path may lack its suffix where one image only is called so. Paths are relative to the CSV file's folder;
    one that leads out of it is refused, so that a list from elsewhere cannot name any file of this machine. (A link
    inside the folder is followed: it is not the list that put it there.)

    Args:
        file: str or path.
        columns: names of the columns of paths and of classes, and, if there is one, of parts; or those of roles
            (`path`, `label`, `split`, `group`, `weight`), the others being found: a dict `{"group": "patient"}`, or
            `["group=patient"]`. Several columns of labels, `{"label": ["cat", "dog"]}` or `["label=cat,dog"]`, hold 0
            or 1, or numbers. Defaults to None, to find them.
        task: `"classes"`, `"labels"`, `"numbers"`, or `"auto"`, see `load_data`. Defaults to `"auto"`.
        label_separator: what stands between several labels in one cell, such as `"|"`. Defaults to None.
    """
    file = pathlib.Path(file)
    rows, separator = _rows(file)
    header = [cell.strip() for cell in rows[0][1]] if rows else []
    if not rows:
        raise ValueError(f"{file} lists no image: write one line `path,label` per image.")
    whole, width = rows, len(header)
    places, rows = _places(file, rows, separator, columns)
    header = ["path", "label"] if rows is whole else header  # a line of values names nothing
    label_columns = places.pop("label")
    named = label_columns if len(label_columns) > 1 or task in ("labels", "numbers") or label_separator else ()
    found, rest, obstacles = {}, {}, []
    for line, row in rows:
        try:
            cells = [row[place].strip() for place in label_columns if place < len(row)]
            if len(row) <= max(*places.values(), *label_columns) or not (named or cells[0]):
                what = separator.join(row)
                word = {",": "a comma", ";": "a semicolon", "\t": "a tab"}[separator]
                raise ValueError(f"{file}, line {line}: no path and label, separated by {word}, in {what!r}.")
            if any(cell.strip() for cell in row[width:]):
                raise ValueError(
                    f"{file}, line {line}: {len(row)} cells, and {width} columns: put a cell with "
                    f"{separator!r} in it into quotes."
                )
            path = _inside(file, line, row[places["path"]].strip())
            if path in found:
                raise ValueError(f"{file}, line {line}: {path} is listed a second time; list every image once.")
            part = _part(file, line, row[places["split"]].strip()) if "split" in places else "all"
            group = row[places["group"]].strip() if "group" in places else None
            if group == "":
                raise ValueError(f"{file}, line {line}: no group is said: give each image one, alone if need be.")
            weight = _weight(file, line, row[places["weight"]]) if "weight" in places else None
        except ValueError as error:
            obstacles.append(str(error))
            continue
        found[path], rest[path] = cells, (part, group, weight)
    if len(obstacles) > _MOST_TOLD:
        obstacles[_MOST_TOLD:] = [f"{file}: {len(obstacles) - _MOST_TOLD} more lines that cannot be used."]
    if not found:
        refuse(obstacles)
        raise ValueError(f"{file} lists no image: write one line `path,label` per image.")
    task, class_names, labels = read_labels(
        file, found, [header[place] for place in label_columns], task, label_separator
    )
    if "split" in places and "train" not in {part for part, *_ in rest.values()}:
        obstacles.append(f"{file}: no line is said to be for training: there must be some.")
        refuse(obstacles)
    listed = {}
    for path, label in labels.items():
        part, group, weight = rest[path]
        listed.setdefault(part, []).append(Item(path, label, str(file.parent / path), group, weight))
    return Listing(file.stem, class_names, listed, tuple(obstacles), task)


def _weight(file, line, cell):
    weight = number_in(cell)
    if weight is None or not 0 <= weight <= _HEAVIEST:
        raise ValueError(
            f"{file}, line {line}: a weight must be a number from 0 (to {_HEAVIEST:g}). Received: {cell.strip()!r}"
        )
    return weight


def _rows(file):
    """Return the lines that are not empty, each with its number, and what separates their columns."""
    try:
        text = file.read_text(encoding="utf-8-sig")
        if "\0" in text:  # UTF-16 of plain letters, without a mark at its begin
            raise csv.Error("it holds zero bytes")
        first = next(filter(str.strip, text.splitlines()), "")
        separator = max(_SEPARATORS, key=first.count)  # of none in it the comma
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator)
        return [(reader.line_num, row) for row in reader if any(row)], separator
    except (UnicodeDecodeError, csv.Error) as error:
        if check_image(file.read_bytes()).reason is None:
            raise ValueError(
                f"{file} is an image: give a folder with a folder for each class, or a CSV file."
            ) from None
        raise ValueError(
            f"{file} is no CSV file in UTF-8 ({error}): if it is in another encoding, save it as UTF-8 ('CSV UTF-8' in "
            "spreadsheets); one line `path,label` per image."
        ) from None


def _places(file, rows, separator, columns):
    """Return role -> the column that has it, and the lines below the header."""
    header = [plain_name(cell) for cell in rows[0][1]]
    seen = ", ".join(repr(cell.strip()) for cell in rows[0][1])
    how = "name the one of paths and the one of classes, in this order, with `columns`"
    roles = roles_of(columns, header)
    if columns is not None and (not roles or not {name for names in roles.values() for name in names} <= set(header)):
        raise ValueError(
            f"`columns` must be two or three of {file}'s columns, of paths, of classes and, if there is one, of parts; "
            f"or such as group=patient, of {', '.join(_ROLES)}. Received: {columns}; there are {seen}"
        )
    told: dict = {role: header.index(name) for role, (name, *_) in roles.items() if role != "label"}
    if "label" in roles:
        told["label"] = [header.index(name) for name in roles["label"]]
    if {"path", "label"} <= told.keys():
        return told, rows[1:]
    known = [[header.index(name) for name in names if name in header] for names in (_PATH_COLUMNS, _LABEL_COLUMNS)]
    known = [known[0] or ([told["path"]] if "path" in told else []), known[1] or told.get("label", [])]
    if all(known):
        places = {"path": known[0][0], "label": known[1][:1]} | told
        if "group" not in told and (likely := [name for name in _GROUP_COLUMNS if name in header]):
            warnings.warn(
                f"{file} has a column {likely[0]!r}: images of one may land in training and test; `columns` "
                f"(--columns group={likely[0]}) keeps them together.",
                stacklevel=4,
            )
        if "split" in told:
            return places, rows[1:]
        lines = [(number, row) for number, row in rows[1:] if len(row) == len(header)]
        for name in (name for name in _PART_COLUMNS if name in header):
            place = header.index(name)
            others = [(number, row[place]) for number, row in lines if not part_of(row[place])]
            if not others:
                return places | {"split": place}, rows[1:]
            if len(others) < len(lines):  # else the column holds something else
                number, cell = others[0]
                raise ValueError(
                    f"{file}, line {number}: the column {name!r} says {cell!r}, where other lines say train, "
                    "validation or test: let each line say one of these, or give `columns` without it."
                )
        if flags := sorted(_PART_FLAGS & set(header)):
            raise ValueError(
                f"{file} has a column {flags[0]!r}: let one column say train, validation or test of each image, and "
                "call it split; or give `columns` without it."
            )
        return places, rows[1:]
    if any(known) or (len(header) > 1 and len(rows) > 1 and _is_header(file, rows[0][1], rows[1][1])):
        raise ValueError(
            f"{file}: its first line looks like a header ({seen}), in which {_unknown(known)} not known by name: "
            f"{how}, or such as label=age."
        )
    return {"path": 0, "label": [1]}, rows


def _unknown(known):
    lacking = [f"the column of {what}" for what, places in zip(("paths", "labels"), known) if not places]
    return " and ".join(lacking) + (" is" if len(lacking) == 1 else " are")


def roles_of(columns, header):
    """Return role -> the names of its columns, of `columns` as they were given; nothing where they are no such."""
    if columns is None:
        return {}
    given = dict(columns) if isinstance(columns, Mapping) else {}
    if not given:
        names = [columns] if isinstance(columns, str) else [str(name) for name in columns]
        pairs = [name.partition("=") for name in names]
        if all(equals and plain_name(name) not in header for name, (_, equals, _) in zip(names, pairs)):
            for role, _, name in pairs:
                given[role] = [*given.get(role, ()), *(name.split(",") if role == "label" else [name])]
        elif len(names) in (2, 3):
            given = dict(zip(_ROLES, names))
    given = {role: [name] if isinstance(name, str) else list(name) for role, name in given.items()}
    if set(given) <= set(_ROLES) and all(len(names) == 1 or role == "label" and names for role, names in given.items()):
        return {role: [plain_name(str(name)) for name in names] for role, names in given.items()}
    return {}


def plain_name(cell):
    """Return the name of a column as names are compared: `Patient ID` is `patient_id`."""
    return re.sub(r"[\s-]+", "_", cell.strip().lower())


def _is_header(file, first, second):
    """Whether no cell of the first line is an image, and one of the second is."""

    def has_image(row):
        return any(_with_suffix(file.parent / cell.strip()) for cell in row if cell.strip())

    return not has_image(first) and has_image(second)


def _part(file, line, cell):
    part = part_of(cell)
    if part is None:
        raise ValueError(f"{file}, line {line}: {cell!r} is no part: write train, validation or test.")
    return part


def _with_suffix(path):
    """Return the file of this path, or the only one that has a suffix more; None where there is none."""
    if path.is_file():
        return path
    try:
        longer = _images_among(path.parent.glob(glob.escape(path.name) + ".*"))
    except (OSError, ValueError):
        return None
    return longer[0] if len(longer) == 1 and longer[0].is_file() else None


def _inside(file, line, path):
    folder = os.path.abspath(file.parent)
    if "\\" in path and not os.path.exists(os.path.join(folder, path)):
        path = path.replace("\\", "/")  # of a list that was written on Windows
    relative = os.path.relpath(os.path.join(folder, path), folder)
    if not path or "\0" in path or relative.split(os.sep)[0] in (os.pardir, os.curdir):
        raise ValueError(
            f"{file}, line {line}: {path!r} is not a file in the CSV file's folder, and no path may lead out of it: "
            "give paths relative to that folder, or put the CSV file further up."
        )
    found = _with_suffix(pathlib.Path(folder, relative))
    return pathlib.Path(relative if found is None else found.relative_to(folder)).as_posix()
