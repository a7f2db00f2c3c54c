"""On what trials are scored: the data's own parts, random splits, or folds where few images validate."""

import hashlib

from kresnets.data.folds import FEW, FOLDS, ROUNDS, folds
from kresnets.data.split import split, together


def parts(data, options):
    """Return pairs of parts of `data` to train and to validate on, as `options.repeats` says, and a sentence that says
    which. The test part is not touched."""
    own, count = [(data.train, data.validation)], len(data.validation)
    if options.repeats == 1:
        return own, "Each is scored on one split, as --repeats says."
    sentence = f"Each is scored on the {count} validation images"
    if options.repeats == "auto" and count >= FEW:
        return own, f"{sentence}."
    pool = data.train.joined(data.validation)
    if options.repeats != "auto":
        rows = [range(len(data.train)), range(len(data.train), len(pool))]
        found = [rows, *_random(pool, count / len(pool), options)]
        return _shared(pool, found), f"Each is scored on {len(found)} splits, as --repeats says."
    found = folds(pool.labels, FOLDS, ROUNDS, options.seed, pool.ids, _together(pool))
    if not found:
        return own, f"{sentence}: a class has a single image, which folds cannot share."
    return _shared(pool, found), (
        f"Each is scored on {len(found)} splits, twice {len(found) // ROUNDS} folds of the {len(pool)} images that are "
        f"not for testing: {count} for validation, below {FEW}, choose by chance (--repeats says otherwise)."
    )


def _shared(pool, splits):
    """Return pairs of parts, each image of which is decoded once for all of them, and so are its features."""
    return [tuple(pool.subset(rows, shared=True) for rows in pair) for pair in splits]


def _random(pool, share, options):
    for repeat in range(1, options.repeats):
        rows = split(
            pool.ids, pool.labels, _digests(pool), {"validation": share}, pool.class_names,
            f"{options.seed}.{repeat}", pool.groups,
        )  # fmt: skip
        yield sorted(rows["train"]), sorted(rows["validation"])


def _together(pool):
    """Return what is equal for images that stay in one fold: exact duplicates, and those of one group."""
    return _digests(pool) if pool.groups is None else together(_digests(pool), pool.groups)


def _digests(pool):
    """Return what is equal for exact duplicates, which stay in one part."""
    return [hashlib.sha256(pool.image_bytes(row)).digest() for row in range(len(pool))]
