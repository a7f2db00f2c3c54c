"""What a source offers, before anything is checked or split: folders of class folders, and CSV files."""

import csv
import dataclasses
import os
import pathlib
from typing import NamedTuple

# Files that accompany images. Whatever else lies in a class folder is taken for an image and has to be one, so that a
# `.tiff` or a file without a suffix is reported instead of being silently not learned.
IGNORED_SUFFIXES = frozenset(
    ".bin .cfg .csv .db .doc .docx .html .ini .json .jsonl .lock .log .md .npy .npz .pdf .pkl .py .rst .sha256 .tar "
    ".tsv .txt .xls .xlsx .xml .yaml .yml .zip".split()
)
PART_NAMES = {"train": "train", "validation": "validation", "val": "validation", "valid": "validation", "test": "test"}
_PATH_COLUMNS = ("path", "file", "filename", "file_name", "filepath", "file_path", "image", "image_path")
_LABEL_COLUMNS = ("label", "class", "class_name", "category", "target")


class Item(NamedTuple):
    """One image: a name that is the same on every machine, its class, and where its bytes are."""

    id: str
    label: int
    content: str | bytes  # the path of a file, or the encoded image itself


@dataclasses.dataclass(frozen=True)
class Listing:
    """All images of a source.

    Args:
        name: str, for messages and records.
        class_names: tuple of str.
        parts: dict part -> list of `Item`; the single key `"all"` where the source is not split.
    """

    name: str
    class_names: tuple[str, ...]
    parts: dict[str, list[Item]]


def list_folder(folder):
    """List a folder of class folders, or of `train`, `val` (or `validation`) and `test` with class folders inside.

    A class folder is searched to any depth. Hidden files and companions (`IGNORED_SUFFIXES`) are left out, as are files
    beside the class folders. Links to files and class folders that are links are followed: who made the folder put them
    there; links to folders further inside are not, as they may lead in a circle.
    """
    folder = pathlib.Path(folder)
    names = _subfolders(folder)
    if "train" in names and set(names) <= set(PART_NAMES) and _subfolders(folder / "train"):
        roots = {PART_NAMES[name]: folder / name for name in names}
        if len(roots) < len(names):
            raise ValueError(f"{folder} has two folders for validation ({', '.join(names)}): keep one of them.")
        class_names = tuple(_subfolders(roots["train"]))
    else:
        roots, class_names = {"all": folder}, tuple(names)
    if not class_names:
        raise ValueError(
            f"No class folders in {folder}: put the images of each class into a folder of its own, named after the "
            f"class (for example {folder / 'cat' / 'photo.jpg'})."
        )
    parts = {part: _list_root(folder, root, class_names) for part, root in roots.items()}
    return Listing(folder.resolve().name, class_names, parts)


def _list_root(folder, root, class_names):
    unknown = sorted(set(_subfolders(root)) - set(class_names))
    if unknown:
        raise ValueError(f"{root} has a folder {unknown[0]!r} that no folder of the training part is named after.")
    items = []
    for label, name in enumerate(class_names):
        for path in _files(root / name):
            items.append(Item(path.relative_to(folder).as_posix(), label, str(path)))
    return items


def _subfolders(folder):
    with os.scandir(folder) as entries:
        return sorted(entry.name for entry in entries if entry.is_dir() and not _is_hidden(entry.name))


def _is_hidden(name):
    return name.startswith(".") or name == "__MACOSX"


def _files(class_folder):
    for directory, subfolders, names in os.walk(class_folder):
        subfolders[:] = sorted(name for name in subfolders if not _is_hidden(name))
        for name in sorted(names):
            if not _is_hidden(name) and pathlib.Path(name).suffix.lower() not in IGNORED_SUFFIXES:
                yield pathlib.Path(directory, name)


def list_csv(file):
    """List a CSV file (UTF-8, commas) of image paths and class names.

    A header is recognised by a column named path, file, filename or image and one named label, class, category or
    target (in any order, among others); without one, the first column is the path and the second the class. Paths are
    relative to the CSV file's folder; one that leads out of it is refused, so that a list from elsewhere cannot name
    any file of this machine. (A link inside the folder is followed: it is not the list that put it there.)
    """
    file = pathlib.Path(file)
    try:
        with open(file, encoding="utf-8-sig", newline="") as stream:
            rows = [(reader.line_num, row) for reader in [csv.reader(stream)] for row in reader if any(row)]
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{file} is no CSV file in UTF-8 ({error}): write one line `path,label` per image.") from None
    columns = _columns(file, [cell.strip().lower() for cell in rows[0][1]]) if rows else None
    path_column, label_column = columns or (0, 1)
    found = {}
    for line, row in rows[1:] if columns else rows:
        if len(row) <= max(path_column, label_column) or not row[label_column].strip():
            raise ValueError(f"{file}, line {line}: no path and label, separated by a comma, in {','.join(row)!r}.")
        path = _inside(file, line, row[path_column].strip())
        if path in found:
            raise ValueError(f"{file}, line {line}: {path} is listed a second time; list every image once.")
        found[path] = row[label_column].strip()
    class_names = tuple(sorted(set(found.values())))
    if not class_names:
        raise ValueError(f"{file} lists no image: write one line `path,label` per image.")
    numbers = {name: number for number, name in enumerate(class_names)}
    items = [Item(path, numbers[name], str(file.parent / path)) for path, name in found.items()]
    return Listing(file.stem, class_names, {"all": items})


def _columns(file, header):
    paths = [header.index(name) for name in _PATH_COLUMNS if name in header]
    labels = [header.index(name) for name in _LABEL_COLUMNS if name in header]
    if bool(paths) != bool(labels):
        wanted = _LABEL_COLUMNS if paths else _PATH_COLUMNS
        raise ValueError(
            f"{file}: its first line, {','.join(header)!r}, looks like a header without a column named "
            f"{' or '.join(wanted)}: add it."
        )
    return (paths[0], labels[0]) if paths and labels else None


def _inside(file, line, path):
    folder = os.path.abspath(file.parent)
    relative = os.path.relpath(os.path.join(folder, path), folder)
    if not path or "\0" in path or relative.split(os.sep)[0] in (os.pardir, os.curdir):
        raise ValueError(
            f"{file}, line {line}: {path!r} is not a file in the CSV file's folder; give paths relative to that folder."
        )
    return pathlib.Path(relative).as_posix()
