"""Images of a TFDS dataset, kept encoded in memory or read from its shards, so that they are decoded by the same
function as any other."""

import difflib
import functools
import math
import os

import numpy as np

from kresnets.data.content import Piece, read, stamp_of
from kresnets.data.index import remembered
from kresnets.data.listing import PART_NAMES, Item, Listing, roles_of

IN_MEMORY = 2 * 1024**3  # bytes of encoded images that are read into memory where they can be read as they are drawn
MAX_ENCODED = 8 * 1024**3  # likewise where they cannot
_NAME_FEATURES = ("filename", "file_name", "image/filename")


def list_tfds(name, data_dir=None, columns=None, task="auto", use="auto"):
    """List the images of a TFDS dataset, prepared (downloaded) at the first use.

    The splits `train`, `validation` and `test` are used as they are, others left out; a dataset of one split is taken
    as not split. The ids are the file names where the dataset keeps them, else TFDS's own ids.

    Args:
        name: str, `"name"` or `"name/config"`; `"elpv"`, `"elpv/mono"` and `"elpv/poly"` are kresnets' own.
        data_dir: str, TFDS's folder of prepared datasets, or None for its default.
        columns: names of features, by their role: `{"label": "attributes"}`, `["path=image", "label=age"]`. Defaults to
            None: those that the dataset is supervised by, else its one image and its one class.
        task: `"classes"`, `"labels"` (of a feature of several classes, or of yes and no), `"numbers"`, or `"auto"`, by
            the features. Defaults to `"auto"`.
        use: of `kresnets.data.index`. Defaults to `"auto"`.
    """
    builder = prepare(name, data_dir)
    image, keys = _features(name, builder.info, columns)
    task, names, said = _meaning(name, builder.info.features, keys, task)
    given = {PART_NAMES[split]: split for split in builder.info.splits if split in PART_NAMES}
    given |= {split: split for split in builder.info.splits if split in given}  # `test` rather than `eval`
    if len(builder.info.splits) == 1:
        given = {"all": next(iter(builder.info.splits))}
    elif "train" not in given:
        raise ValueError(f"TFDS dataset {name!r} has no split named train, only {', '.join(builder.info.splits)}.")
    size = sum(builder.info.splits[split].num_bytes for split in given.values())
    in_place = builder.info.file_format.name == "TFRECORD" and all(
        os.path.isfile(path) for split in given.values() for path in builder.info.splits[split].filepaths
    )
    if size > MAX_ENCODED and not in_place:
        raise ValueError(
            f"TFDS dataset {name!r} has {size / 1024**3:.0f} GiB, and at most {MAX_ENCODED // 1024**3} GiB are read "
            "into memory: of more, images are read from tfrecord files on this machine, TFDS's default."
        )
    rows_of = functools.partial(_listed, use=use, kind=(task, names)) if in_place and size > IN_MEMORY else _read
    rows = {part: rows_of(builder, split, image, keys, said) for part, split in given.items()}
    if task != "classes":
        _check_values(name, keys, task, rows)
        return Listing(name, names, {part: [Item(*row) for row in found] for part, found in rows.items()}, task=task)
    # A test split whose labels are kept secret (-1) is of no use here: one is split off instead.
    rows = {part: found for part, found in rows.items() if all(row[1] >= 0 for row in found)}
    used = sorted({row[1] for found in rows.values() for row in found})
    class_names = tuple(names[value] if names else str(value) for value in used)
    numbers = {value: number for number, value in enumerate(used)}
    parts = {part: [Item(key, numbers[value], data) for key, value, data in found] for part, found in rows.items()}
    return Listing(name, class_names, parts)


def prepare(name, data_dir=None):
    """Return the builder of a TFDS dataset with its files in place, also where another process prepares it just now."""
    builder = _builder(name, data_dir)
    try:
        builder.download_and_prepare()
    except OSError as error:
        # TFDS writes beside and renames; of two that prepare the same dataset the slower one's renaming fails.
        builder = _builder(name, data_dir)
        if not builder.data_path.exists():
            raise OSError(f"The TFDS dataset {name!r} could not be prepared in {builder.data_path}: {error}") from error
    return builder


def _builder(name, data_dir):
    import tensorflow_datasets as tfds

    base, _, config = name.partition("/")
    if base == "elpv":
        from kresnets.data.elpv import Elpv

        if config not in ("", *Elpv.builder_configs):
            raise ValueError(f"Unknown selection {name!r}: use elpv, elpv/mono or elpv/poly.")
        return Elpv(config=config or None, data_dir=data_dir)
    try:
        return tfds.builder(name, data_dir=data_dir, try_gcs=False)
    except (ValueError, AssertionError, ImportError):
        known = tfds.list_builders(with_community_datasets=False)
        if base in known:
            configs = list(tfds.builder_cls(base).builder_configs)
            hint = f"its configs are {', '.join(configs[:12]) or 'none'}{' and more' if configs[12:] else ''}"
        else:
            close = difflib.get_close_matches(base, ["elpv", *known], n=3)
            hint = f"did you mean {' or '.join(close)}?" if close else "`tfds.list_builders()` lists the names"
        raise ValueError(
            f"There is no folder or CSV file {name!r} here, and no dataset of TensorFlow Datasets is called so (`name` "
            f"or `name/config`, such as tf_flowers, elpv/poly): {hint}"
        ) from None


def _features(name, info, columns):
    """Return the name of the image and those of the labels."""
    import tensorflow_datasets as tfds

    features = dict(info.features) if isinstance(info.features, tfds.features.FeaturesDict) else {}
    wanted = roles_of(columns, list(features))
    if columns is not None and (
        not wanted
        or set(wanted) - {"path", "label"}
        or {one for names in wanted.values() for one in names} - {*features}
    ):
        raise ValueError(
            f"`columns` must name features of {name!r}, such as label=attributes or path=image. Received: {columns}; "
            f"there are {', '.join(features)}"
        )
    pair = info.supervised_keys
    known = pair and len(pair) == 2 and all(key in features for key in pair)
    if known and isinstance(features[pair[0]], tfds.features.Image) and _is_class(features[pair[1]]):
        wanted = {"path": [pair[0]], "label": [pair[1]]} | wanted
    images = wanted.get("path") or [key for key, one in features.items() if isinstance(one, tfds.features.Image)]
    labels = wanted.get("label") or [key for key, one in features.items() if isinstance(one, tfds.features.ClassLabel)]
    if len(images) != 1 or not labels or len(labels) > 1 and "label" not in wanted:
        raise ValueError(
            f"TFDS dataset {name!r} is not one image with one integer label; its features are {', '.join(features)}: "
            "name those to take with `columns`, such as path=image and label=attributes."
        )
    return images[0], labels


def _is_class(feature):
    return feature.shape == () and np.issubdtype(feature.np_dtype, np.integer)


def _meaning(name, features, keys, task):
    """Return the task that label features are of, the names of classes, labels or numbers (None: they have none), and a
    function from the features' values to a label."""
    import tensorflow_datasets as tfds

    one = features[keys[0]] if len(keys) == 1 else None
    if isinstance(one, tfds.features.Sequence) and isinstance(one.feature, tfds.features.ClassLabel):
        names = tuple(one.feature.names)
        kind, said = "labels", lambda values: tuple(float(n in values[0]) for n in range(len(names)))
    elif one is not None and _is_class(one) and (task != "numbers" or isinstance(one, tfds.features.ClassLabel)):
        names, kind, said = getattr(one, "names", None), "classes", lambda values: int(values[0])
    else:
        nested = one if isinstance(one, tfds.features.FeaturesDict) else None
        within = {key: features[key] for key in keys} if nested is None else dict(nested)
        if not all(inner.shape == () and np.dtype(inner.np_dtype).kind in "biuf" for inner in within.values()):
            raise ValueError(
                f"The features {', '.join(keys)} of {name!r} are neither a class, nor several, nor yes and no, nor "
                "numbers: name others with `columns`."
            )
        names = tuple(within)
        kind = (
            "labels"
            if task == "labels" or all(np.dtype(f.np_dtype).kind == "b" for f in within.values())
            else "numbers"
        )
        said = lambda values: tuple(
            float(value) for value in (values if nested is None else (values[0][key] for key in names))
        )
    if task not in ("auto", kind):
        raise ValueError(f"The features {', '.join(keys)} of {name!r} are of task={kind!r}. Received: task={task!r}")
    return kind, names, said


def _check_values(name, keys, task, rows):
    for found in rows.values():
        for row in found:
            if not all(value in (0, 1) if task == "labels" else math.isfinite(value) for value in row[1]):
                what = "yes and no (0 or 1)" if task == "labels" else "finite numbers"
                raise ValueError(f"The features {', '.join(keys)} of {name!r} must be {what}. {row[0]} has {row[1]}.")


def _read(builder, split, image, keys, said, place=lambda identity, data: data):
    """Return `(id, label, image)` of each example of a split; an image is what `place` makes of TFDS's id and bytes."""
    import tensorflow_datasets as tfds

    features = builder.info.features
    dataset = builder.as_dataset(
        split=split,
        decoders={image: tfds.decode.SkipDecoding()},
        read_config=tfds.ReadConfig(add_tfds_id=True),
        shuffle_files=False,
    )
    named = [key for key in _NAME_FEATURES if key in features and isinstance(features[key], tfds.features.Text)]
    names = [*named, "tfds_id"]
    dataset = dataset.map(lambda row: ([row[key] for key in names], tuple(row[one] for one in keys), row[image]))
    rows = [
        ([name.decode() for name in told], said(values), place(told[-1].decode(), data))
        for told, values, data in dataset.as_numpy_iterator()
    ]
    best = next(n for n in range(len(names)) if n == len(named) or len({told[n] for told, *_ in rows}) == len(rows))
    return [(told[best], label, where) for told, label, where in rows]


def _listed(builder, split, image, keys, said, use, kind):
    """Return what `_read` does with each image as a `Piece` of a shard: too many for memory; listed once, as it takes
    to read all of them."""
    info = builder.info.splits[split]
    shards = [os.fspath(path) for path in info.filepaths]
    numbers = {os.path.basename(path): number for number, path in enumerate(shards)}
    key = ("tfds", list(map(stamp_of, shards)), image, keys, kind)

    def make():
        records = [list(_records(path)) for path in shards]

        def place(identity, data):
            shard, _, row = identity.rpartition("__")
            number, (offset, length) = numbers[shard], records[numbers[shard]][int(row)]
            # In an example (a protocol buffer) the bytes of a feature stand as they are.
            within = read(Piece(shards[number], offset, length)).index(data)
            return number, offset + within, len(data)

        return _read(builder, split, image, keys, said, place)

    as_label = lambda label: tuple(label) if isinstance(label, list) else label
    listed = remembered(key, make, use)
    return [(name, as_label(label), Piece(shards[number], *where)) for name, label, (number, *where) in listed]


def _records(path):
    """Yield offset and length of each record of a TFRecord file: a length, its checksum, the record, its checksum."""
    with open(path, "rb") as file:
        while len(head := file.read(12)) == 12:
            length = int.from_bytes(head[:8], "little")
            yield file.tell(), length
            file.seek(length + 4, os.SEEK_CUR)
