"""Images in files of many: WebDataset's tar files, and Parquet files as Hugging Face's `datasets` keep them."""

import collections
import json
import os
import pathlib
import re
import tarfile
import warnings

from kresnets._util.checks import refuse
from kresnets.data.content import Piece, stamp_of
from kresnets.data.index import remembered
from kresnets.data.listing import Item, Listing, part_within, plain_name, roles_of, subfolders

SUFFIXES = (".tar", ".parquet")
MAX_ENCODED = 2 * 1024**3  # bytes of images in Parquet, which is compressed, and so read into memory
_IMAGES = ("jpg", "jpeg", "png", "gif", "bmp", "webp", "tif", "tiff", "heic", "heif", "avif", "npy")
_KEY = re.compile(r"((?:.*/|)[^.]+)[.]([^/]*)")  # as in WebDataset: what is before the first dot is one example's name
_ENDINGS = tuple(f".{kind}" for kind in _IMAGES)
_MOST_TOLD, _BLOCK = 20, 512


def shards_in(source):
    """Return the shards of a source: the file itself, or those in a folder or in its folder `data`; none where there
    are class folders, beside which an archive is what they were unpacked from."""
    source = pathlib.Path(os.path.expanduser(source))
    if source.is_file():
        return [source] if source.suffix in SUFFIXES else []
    for folder in (source, source / "data"):
        if not folder.is_dir() or not {*subfolders(source), *subfolders(folder)} <= {"data"}:
            return []
        if found := sorted(one for one in folder.iterdir() if one.suffix in SUFFIXES and one.is_file()):
            return found
    return []


def list_shards(source, columns=None, task="auto", use="auto"):
    """List the images in a tar or Parquet file, or in a folder of such.

    A tar file is as WebDataset's: what is called `0001.jpg` has its class in `0001.cls`, or in the field of `0001.json`
    that `columns` names (`label=species`). Its images are read from it as they are drawn. Parquet has a column of
    images, bytes or a struct with bytes, and one of classes, whose names Hugging Face's own note in the file has; they
    are read into memory. Where all files are called after parts (`train-00000.tar`), these are the parts.

    Args:
        source: str or path.
        columns: names of the columns, by role (`path`, `label`), or of the field of the JSON files. Defaults to None.
        task: `"auto"` or `"classes"`. Defaults to `"auto"`.
        use: of `kresnets.data.index`. Defaults to `"auto"`.

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
    if suffix == ".tar" and ("path" in roles or len(roles.get("label", ())) > 1):
        raise ValueError(f"`columns` of .tar files names one field, such as label=species. Received: {columns}")
    rows = _of_tars(shards, roles, use) if suffix == ".tar" else _of_parquet(shards, roles)
    if not rows:
        raise ValueError(f"{source} has no image: {', '.join(shard.name for shard in shards[:3])} hold none.")
    words = {label for _, _, label, _ in rows}
    whole = all(re.fullmatch(r"-?\d+", word) for word in words)
    names = sorted(words, key=int) if whole else sorted(words)
    numbers = {name: number for number, name in enumerate(names)}
    named, parts = _parts(source, shards), collections.defaultdict(list)
    for shard, name, label, content in rows:
        parts[named[shard]].append(Item(name, numbers[label], content))
    return Listing(pathlib.Path(source).resolve().name.partition(".")[0], tuple(names), dict(parts))


def _parts(source, shards):
    """Return the part that each shard is of, by its name; `"all"` where none is called after one."""
    named = [part_within(shard.stem) for shard in shards]
    if len(shards) == 1 or not any(named):
        return ["all"] * len(shards)
    if not all(named) or "train" not in named:
        odd = next((shard.name for shard, part in zip(shards, named) if not part), None)
        why = f"{odd} is not" if odd else "none for training"
        raise ValueError(
            f"{source} has files that are called after parts, such as "
            f"{next(shard.name for shard, part in zip(shards, named) if part)}, and {why}: let each be called after "
            "train, validation or test, or none."
        )
    return named


def _of_tars(shards, roles, use):
    """Return `(number of its shard, name, class, Piece)` of each image."""
    paths = [os.fspath(shard) for shard in shards]
    key = ("tar", [(os.path.basename(path), stamp_of(path)) for path in paths], roles)
    rows = remembered(
        key, lambda: [row for number, path in enumerate(paths) for row in _of_tar(number, path, roles)], use
    )
    if left_out := [(number, name) for number, name, _, where in rows if where is None]:
        warnings.warn(
            f"{len(left_out)} images of {len(paths)} tar files are left out, such as {left_out[0][1]} in "
            f"{paths[left_out[0][0]]}: links, or of a name in which what is behind the first dot, the kind by "
            "WebDataset's rule, is none that is read.",
            stacklevel=2,
        )
    return [(number, name, label, Piece(paths[number], *where)) for number, name, label, where in rows if where]


def _of_tar(number, path, roles):
    images, labels, obstacles, left_out = {}, {}, [], []
    field = roles["label"][0] if "label" in roles else None
    told, end = "cls" if field is None else "json", 0
    try:
        with tarfile.open(path, "r:") as file:
            for member in file:
                file.members = []  # which would keep all of them
                end = member.offset_data + -(-member.size // _BLOCK) * _BLOCK * member.isreg()
                found = _KEY.fullmatch(member.name)
                name, kind = (found[1], found[2].lower()) if found else (member.name, "")
                if not member.isreg() or member.sparse or kind not in (*_IMAGES, told):
                    left_out += [member.name] if member.name.lower().endswith(_ENDINGS) else []
                    continue
                piece = Piece(path, member.offset_data, member.size)
                if kind == told:
                    labels[name] = _label(path, member.name, file.extractfile(member).read(), field, obstacles)
                elif name in images:
                    obstacles.append(f"{path}: {name} has two images.")
                else:
                    images[name] = (f"{os.path.basename(path)}/{member.name}", piece)
        _check_end(path, end)
    except (tarfile.TarError, EOFError, OSError) as error:
        raise ValueError(f"{path} is no tar file, or compressed or damaged ({error}): unpack it.") from None
    what = ".cls beside it, its class; of a .json give its field, as label=species" if field is None else ""
    what = what or f"field {field!r} in a .json beside it"
    obstacles += [f"{path}: {name} has no {what} (`columns`)." for name in images if name not in labels]
    if len(obstacles) > _MOST_TOLD:
        obstacles[_MOST_TOLD:] = [f"{path}: {len(obstacles) - _MOST_TOLD} more that cannot be used."]
    refuse(obstacles)
    rows = [(number, name, labels[key], piece[1:]) for key, (name, piece) in images.items()]
    return rows + [(number, name, None, None) for name in left_out]


def _check_end(path, end):
    """Raise an EOFError for a tar file without the block of zeros at its end, which a download that broke off lacks,
    and for one with more behind it, which no reader would see."""
    with open(path, "rb") as file:
        file.seek(end)
        if file.read(_BLOCK) != bytes(_BLOCK):
            raise EOFError("its end is missing: it was cut off")
        while piece := file.read(1 << 20):
            if any(piece):
                raise EOFError("there is more behind its end: join such files by tar --concatenate")


def _label(path, name, content, field, obstacles):
    try:
        label = (
            content.decode("utf-8-sig")
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
        heads = [(pyarrow.parquet.read_schema(shard), pyarrow.parquet.read_metadata(shard)) for shard in shards]
        known = [_columns(shard, schema, roles) for shard, (schema, _) in zip(shards, heads)]
        size = sum(_bytes_of(metadata, image) for (_, metadata), (image, *_) in zip(heads, known))
        if size > MAX_ENCODED:
            raise ValueError(
                f"The images of {shards[0].parent} have {size / 1024**3:.1f} GiB, and {MAX_ENCODED // 1024**3} GiB of "
                "Parquet are read into memory: write them out as a folder of class folders, or as tar files."
            )
        for number, (shard, (image, label, names)) in enumerate(zip(shards, known)):
            table = pyarrow.parquet.read_table(shard, columns=[image, label], partitioning=None)
            for place, row in enumerate(table.to_pylist()):
                one = row[image] if isinstance(row[image], dict) else {"bytes": row[image]}
                if not isinstance(one.get("bytes"), bytes):
                    raise ValueError(f"{shard}, row {place}: there are no bytes of an image, only what names one.")
                said = row[label]
                if names and isinstance(said, int):
                    said = names[said] if 0 <= said < len(names) else None
                if not isinstance(said, (str, int)) or not str(said).strip():
                    raise ValueError(
                        f"{shard}, row {place}: {label!r} must be one class, a name or a whole number. "
                        f"Received: {row[label]!r}"
                    )
                name = f"{shard.name}/{place:06d}" + (f"-{one['path']}" if one.get("path") else "")
                rows.append((number, name, str(said).strip(), one["bytes"]))
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
