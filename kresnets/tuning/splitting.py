"""On what trials are scored: the data's own parts, random splits, or folds where few images validate."""

import hashlib
import os
import pathlib


def parts(data, options):
    """Return pairs of parts to train and to validate on, and a sentence that says which.

    Args:
        data: `kresnets.data.Data`; its test part is not touched.
        options: the verb's: `repeats`, `seed`.
    """
    from kresnets.tuning.folds import FEW, FOLDS, ROUNDS

    own, count = [(data.train, data.validation)], len(data.validation)
    if options.repeats != "auto":
        found = own + (list(_random(data, options)) if options.repeats > 1 else [])
        return found, f"Each is scored on {_splits(len(found))}, as --repeats says."
    if count >= FEW:
        return own, f"Each is scored on the {count} validation images."
    found = list(_folds(data, FOLDS, ROUNDS, options.seed))
    if not found:
        return (
            own,
            f"Each is scored on the {count} validation images: a class has a single image, which folds cannot share.",
        )
    return found, (
        f"Each is scored on {len(found)} splits, twice {len(found) // ROUNDS} folds of the {len(data.train) + count} "
        f"images that are not for testing: {count} for validation, below {FEW}, choose by chance (--repeats says "
        "otherwise)."
    )


def _splits(count):
    return "one split" if count == 1 else f"{count} splits"


def _folds(data, count, rounds, seed):
    from kresnets.tuning import folds

    pool = data.train.joined(data.validation)
    for train, validation in folds(pool.labels, count, rounds, seed, pool.ids, _digests(pool)):
        yield pool.subset(train), pool.subset(validation)


def _random(data, options):
    from kresnets.data.split import split

    pool = data.train.joined(data.validation)
    share = len(data.validation) / len(pool)
    for repeat in range(1, options.repeats):
        rows = split(
            pool.ids, pool.labels, _digests(pool), {"validation": share}, data.class_names, f"{options.seed}.{repeat}"
        )
        yield pool.subset(sorted(rows["train"])), pool.subset(sorted(rows["validation"]))


def _digests(pool):
    """Return what is equal for exact duplicates, which stay in one part."""
    return [hashlib.sha256(_bytes(pool.encoded(row))).digest() for row in range(len(pool))]


def _bytes(encoded):
    return pathlib.Path(os.fsdecode(encoded)).read_bytes() if isinstance(encoded, bytes) else encoded.read()


def cache(parts, size, folder):
    """Return the `cache` of the batches of all parts: each is decoded once where all of them together have room.

    Args:
        parts: pairs of parts.
        size: pixels a side.
        folder: for large images.
    """
    from kresnets._util.store import memory_limit
    from kresnets.data.decoded import is_large

    needed = sum(len(part) for pair in parts for part in pair) * 12 * size**2
    return folder if len(parts) == 1 or needed <= memory_limit() or is_large(parts[0][0], size) else False
