"""On what trials are scored: the data's own parts, random splits, or folds where few images validate."""

import hashlib
import os
import pathlib

from kresnets._util.store import memory_limit
from kresnets.data.decoded import is_large
from kresnets.data.folds import FEW, FOLDS, ROUNDS, folds
from kresnets.data.split import split, together


def parts(data, options):
    """Return pairs of parts of `data` to train and to validate on, as `options.repeats` says, and a sentence that says
    which. The test part is not touched."""
    own, count = [(data.train, data.validation)], len(data.validation)
    if options.repeats != "auto":
        found = own + (list(_random(data, options)) if options.repeats > 1 else [])
        splits = "one split" if len(found) == 1 else f"{len(found)} splits"
        return found, f"Each is scored on {splits}, as --repeats says."
    sentence = f"Each is scored on the {count} validation images"
    if count >= FEW:
        return own, f"{sentence}."
    pool = data.train.joined(data.validation)
    found = folds(pool.labels, FOLDS, ROUNDS, options.seed, pool.ids, _together(pool))
    if not found:
        return own, f"{sentence}: a class has a single image, which folds cannot share."
    return [(pool.subset(train), pool.subset(validation)) for train, validation in found], (
        f"Each is scored on {len(found)} splits, twice {len(found) // ROUNDS} folds of the {len(pool)} images that are "
        f"not for testing: {count} for validation, below {FEW}, choose by chance (--repeats says otherwise)."
    )


def _random(data, options):
    pool = data.train.joined(data.validation)
    share = len(data.validation) / len(pool)
    for repeat in range(1, options.repeats):
        rows = split(
            pool.ids, pool.labels, _digests(pool), {"validation": share}, data.class_names,
            f"{options.seed}.{repeat}", pool.groups,
        )  # fmt: skip
        yield pool.subset(sorted(rows["train"])), pool.subset(sorted(rows["validation"]))


def _together(pool):
    """Return what is equal for images that stay in one fold: exact duplicates, and those of one group."""
    return _digests(pool) if pool.groups is None else together(_digests(pool), pool.groups)


def _digests(pool):
    """Return what is equal for exact duplicates, which stay in one part."""
    files = (pool.encoded(row) for row in range(len(pool)))
    contents = (
        pathlib.Path(os.fsdecode(file)).read_bytes() if isinstance(file, bytes) else file.read() for file in files
    )
    return [hashlib.sha256(content).digest() for content in contents]


def cache(parts, size, folder):
    """Return the `cache` of the batches of pairs of parts, of so many pixels a side: each image is decoded once where
    all of them together have room; large ones go to the folder."""
    needed = sum(len(part) for pair in parts for part in pair) * 12 * size**2
    return folder if len(parts) == 1 or needed <= memory_limit() or is_large(parts[0][0], size) else False
