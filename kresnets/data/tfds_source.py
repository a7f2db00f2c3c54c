"""Images of a TFDS dataset, kept encoded in memory, so that they are decoded by the same function as any other."""

import difflib

from kresnets.data.listing import PART_NAMES, Item, Listing

MAX_ENCODED = 8 * 1024**3  # bytes of encoded images that are read into memory
_NAME_FEATURES = ("filename", "file_name", "image/filename")


def list_tfds(name, data_dir=None):
    """List the images of a TFDS dataset, prepared (downloaded) at the first use.

    The splits `train`, `validation` and `test` are used as they are, others left out; a dataset of one split is taken
    as not split. The ids are the file names where the dataset keeps them, else TFDS's own ids.

    Args:
        name: str, `"name"` or `"name/config"`; `"elpv"`, `"elpv/mono"` and `"elpv/poly"` are kresnets' own.
        data_dir: str, TFDS's folder of prepared datasets, or None for its default.
    """
    builder = prepare(name, data_dir)
    image, label = _features(name, builder.info)
    given = {PART_NAMES[split]: split for split in builder.info.splits if split in PART_NAMES}
    given |= {split: split for split in builder.info.splits if split in given}  # `test` rather than `eval`
    if len(builder.info.splits) == 1:
        given = {"all": next(iter(builder.info.splits))}
    elif "train" not in given:
        raise ValueError(f"TFDS dataset {name!r} has no split named train, only {', '.join(builder.info.splits)}.")
    size = sum(builder.info.splits[split].num_bytes for split in given.values())
    if size > MAX_ENCODED:
        raise ValueError(
            f"TFDS dataset {name!r} has {size / 1024**3:.0f} GiB, but at most {MAX_ENCODED // 1024**3} GiB are read "
            "into memory: write it out as a folder of class folders and give that."
        )
    rows = {part: _read(builder, split, image, label) for part, split in given.items()}
    # A test split whose labels are kept secret (-1) is of no use here: one is split off instead.
    rows = {part: found for part, found in rows.items() if all(row[1] >= 0 for row in found)}
    used = sorted({row[1] for found in rows.values() for row in found})
    names = getattr(builder.info.features[label], "names", None)
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


def _features(name, info):
    """Return the names of the image and the integer label."""
    import numpy as np
    import tensorflow_datasets as tfds

    def fits(image, label):
        is_integer = label.shape == () and np.issubdtype(label.np_dtype, np.integer)
        return isinstance(image, tfds.features.Image) and is_integer

    features = dict(info.features) if isinstance(info.features, tfds.features.FeaturesDict) else {}
    pair = info.supervised_keys
    if pair and len(pair) == 2 and all(key in features for key in pair) and fits(*(features[key] for key in pair)):
        return pair
    images = [key for key, feature in features.items() if isinstance(feature, tfds.features.Image)]
    labels = [key for key, feature in features.items() if isinstance(feature, tfds.features.ClassLabel)]
    if len(images) != 1 or len(labels) != 1:
        raise ValueError(
            f"TFDS dataset {name!r} is not one image with one integer label; its features are {', '.join(features)}."
        )
    return images[0], labels[0]


def _read(builder, split, image, label):
    """Return `(id, label, encoded image)` of each example of a split."""
    import tensorflow_datasets as tfds

    features = builder.info.features
    named = [key for key in _NAME_FEATURES if key in features and isinstance(features[key], tfds.features.Text)]
    for key in (*named, "tfds_id"):
        dataset = builder.as_dataset(
            split=split,
            decoders={image: tfds.decode.SkipDecoding()},
            read_config=tfds.ReadConfig(add_tfds_id=key == "tfds_id"),
            shuffle_files=False,
        ).map(lambda row: (row[key], row[label], row[image]))  # noqa: B023 (traced here and now)
        rows = [(name.decode(), int(value), data) for name, value, data in dataset.as_numpy_iterator()]
        if len({row[0] for row in rows}) == len(rows):
            break
    return rows
