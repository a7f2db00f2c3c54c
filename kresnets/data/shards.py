"""Images in files of many: WebDataset's tar files, and Parquet files as Hugging Face's `datasets` keep them."""

import collections
import hashlib
import json
import os
import pathlib
import re
import tarfile

from kresnets._util.checks import refuse
from kresnets.data.content import Piece, read, stamp_of
from kresnets.data.index import remembered
from kresnets.data.listing import Item, Listing, part_within, plain_name, roles_of, subfolders

SUFFIXES = (".tar", ".parquet")
MAX_ENCODED = 2 * 1024**3  # bytes of images in Parquet, which is compressed, and so read into memory
_IMAGES = ("jpg", "jpeg", "png", "gif", "bmp", "webp", "tif", "tiff", "heic", "heif", "avif", "npy")
_KEY = re.compile(r"((?:.*/|)[^.]+)[.]([^/]*)")  # as in WebDataset: what is before the first dot is one example's name
_MOST_TOLD = 20


def shards_in(source):
    """Return the shards of a source: the file itself, or those in a folder or in its folder `data`; none where there
    are class folders, beside which an archive is what they were unpacked from."""
    source = pathlib.Path(os.path.expanduser(source))
    if source.is_file():
        return [source] if source.suffix in SUFFIXES else []
    folders = [source, source / "data"] if source.is_dir() else []
    for folder in folders[: 1 + (folders != [] and folders[1].is_dir())]:
        found = sorted(one for one in folder.iterdir() if one.suffix in SUFFIXES and one.is_file())
        if found and set(subfolders(folder)) <= {"data"}:
            return found
    return []


def list_shards(source, columns=None, task="auto"):
    """List the images in a tar or Parquet file, or in a folder of such.

    A tar file is as WebDataset's: what is called `0001.jpg` has its class in `0001.cls`, or in the field of `0001.json`
    that `columns` names (`label=species`). Its images are read from it as they are drawn. Parquet has a column of
    images, bytes or a struct with bytes, and one of classes, whose names Hugging Face's own note in the file has; they
    are read into memory. Where all files are called after parts (`train-00000.tar`), these are the parts.

    Args:
        source: str or path.
        columns: names of the columns, by role (`path`, `label`), or of the field of the JSON files. Defaults to None.
        task: `"auto"` or `"classes"`. Defaults to `"auto"`.

    Raises:
        ValueError: for files that cannot be read so, or another task.
    """
    if task not in ("auto", "classes"):
        raise ValueError(f"Images of shards have one class each, and task={task!r} is for a CSV file or TFDS.")
    shards = shards_in(source)
    suffix = shards[0].suffix
    if others := [shard.name for shard in shards if shard.suffix != suffix]:
        raise ValueError(f"{source} has files of two kinds, {shards[0].name} and {others[0]}: keep one kind.")
    roles = roles_of(columns, [])
    if columns is not None and not roles or set(roles) - {"path", "label"}:
        raise ValueError(f"`columns` of {suffix} files must be such as label=species. Received: {columns}")
    rows = (_of_tars if suffix == ".tar" else _of_parquet)(shards, roles)
    words = {str(label) for _, _, label, _ in rows}
    whole = all(re.fullmatch(r"-?\d+", word) for word in words)
    names = sorted(words, key=int) if whole else sorted(words)
    numbers = {name: number for number, name in enumerate(names)}
    named = [part_within(shard.stem) for shard in shards]
    parts = collections.defaultdict(list)
    for shard, name, label, content in rows:
        part = named[shard] if all(named) and "train" in named else "all"
        parts[part].append(Item(name, numbers[str(label)], content))
    return Listing(pathlib.Path(source).resolve().name.partition(".")[0], tuple(names), dict(parts))


def _of_tars(shards, roles):
    """Return `(number of its shard, name, class, Piece)` of each image."""
    paths = [os.fspath(shard) for shard in shards]
    key = repr(("tar", [stamp_of(path) for path in paths], roles))
    make = lambda: [row for number, path in enumerate(paths) for row in _of_tar(number, path, roles)]
    rows = remembered(hashlib.sha256(key.encode()).hexdigest(), make)
    return [(number, name, label, Piece(paths[number], *where)) for number, name, label, where in rows]


def _of_tar(number, path, roles):
    images, labels, obstacles = {}, {}, []
    field = roles["label"][0] if "label" in roles else None
    told = "cls" if field is None else "json"
    try:
        with tarfile.open(path, "r:") as file:
            for member in file:
                found = _KEY.fullmatch(member.name)
                if not found or not member.isreg() or member.sparse:
                    continue
                name, kind = found[1], found[2].lower()
                piece = Piece(path, member.offset_data, member.size)
                if kind in _IMAGES:
                    if name in images:
                        obstacles.append(f"{path}: {name} has two images.")
                    images[name] = (f"{os.path.basename(path)}/{member.name}", piece)
                elif kind == told:
                    labels[name] = _label(path, member.name, read(piece), field, obstacles)
    except (tarfile.TarError, EOFError) as error:
        raise ValueError(f"{path} is no tar file, or compressed or damaged ({error}): unpack it.") from None
    what = ".cls, its class, beside it" if field is None else f"field {field!r} in a .json beside it"
    obstacles += [f"{path}: {name} has no {what}." for name in images if name not in labels]
    if len(obstacles) > _MOST_TOLD:
        obstacles[_MOST_TOLD:] = [f"{path}: {len(obstacles) - _MOST_TOLD} more that cannot be used."]
    refuse(obstacles)
    return [(number, name, labels[key], piece[1:]) for key, (name, piece) in images.items()]


def _label(path, name, content, field, obstacles):
    try:
        label = (
            content.decode()
            if field is None
            else {plain_name(key): value for key, value in json.loads(content).items()}[field]
        )
        if not isinstance(label, (str, int)) or str(label).strip() == "":
            raise ValueError
        return str(label).strip()
    except (ValueError, KeyError, AttributeError):
        obstacles.append(f"{path}: {name} says no class" + ("." if field is None else f" in {field!r}."))
        return ""


def _of_parquet(shards, roles):
    """Return `(number of its shard, name, class, bytes)` of each image."""
    import pyarrow
    import pyarrow.parquet

    rows = []
    try:
        files = [pyarrow.parquet.ParquetFile(shard) for shard in shards]
        image, label, names = _columns(shards[0], files[0].schema_arrow, roles)
        size = sum(_bytes_of(file.metadata, image) for file in files)
        if size > MAX_ENCODED:
            raise ValueError(
                f"The images of {shards[0].parent} have {size / 1024**3:.1f} GiB, and {MAX_ENCODED // 1024**3} GiB of "
                "Parquet are read into memory: write them out as a folder of class folders, or as tar files."
            )
        for number, (shard, file) in enumerate(zip(shards, files)):
            found = file.read([image, label]).to_pylist()
            for place, row in enumerate(found):
                one = row[image] if isinstance(row[image], dict) else {"bytes": row[image]}
                if row[label] is None or names and not 0 <= row[label] < len(names):
                    raise ValueError(f"{shard}, row {place}: no class is said.")
                said = names[row[label]] if names else row[label]
                name = f"{shard.name}/{place:06d}" + (f"-{one['path']}" if one.get("path") else "")
                rows.append((number, name, said, one.get("bytes") or b""))
    except pyarrow.ArrowException as error:
        raise ValueError(f"{shards[0].parent} has Parquet files that cannot be read ({error}).") from None
    return rows


def _bytes_of(metadata, column):
    groups = (metadata.row_group(number) for number in range(metadata.num_row_groups))
    chunks = (group.column(place) for group in groups for place in range(group.num_columns))
    return sum(c.total_uncompressed_size for c in chunks if c.path_in_schema.partition(".")[0] == column)


def _columns(shard, schema, roles):
    """Return the column of images, that of classes, and the names of these, or None."""
    note = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))
    features = note.get("info", {}).get("features", {})
    kinds = {name: one.get("_type") for name, one in features.items() if isinstance(one, dict)}
    known = {plain_name(name): name for name in schema.names}
    roles = {role: [known.get(name, name) for name in names] for role, names in roles.items()}
    images = roles.get("path") or [name for name, kind in kinds.items() if kind == "Image"] or ["image"]
    labels = roles.get("label") or [name for name, kind in kinds.items() if kind == "ClassLabel"] or ["label"]
    missing = [name for name in (images[0], labels[0]) if name not in schema.names]
    if missing or len(images) > 1 or len(labels) > 1:
        raise ValueError(
            f"{shard} is not one column of images and one of classes that are known; its columns are "
            f"{', '.join(schema.names)}: name them, such as path=image and label=species (`columns`)."
        )
    return images[0], labels[0], features.get(labels[0], {}).get("names")
