"""Which image goes to which part: as the source says, by folds, or by shares; the rules are those of `split`."""

from kresnets.data.folds import folds
from kresnets.data.split import PARTS, cap, order_key, split, strata, together


def deal(looked, seed, shares, limit=None, fold=None):
    """Deal the images of a source out to training, validation and test.

    Args:
        looked: the `kresnets.data.looked.Looked` of the source.
        seed: int.
        shares: dict part -> share of what the parts before it left.
        limit: the most images for training and validation, or None. Defaults to None.
        fold: `(2, 5)`: the second of five folds tests, see `load_data`. Defaults to None.

    Returns:
        Dict part -> rows of `looked.items`, in the order in which a limit takes them.

    Raises:
        ValueError: where a class has too few images for parts, folds or the limit.
    """
    listing, given, test = looked.listing, looked.given, None
    labels = _strata(looked, fold)
    # Strata of labels and numbers are no classes, and have no names of their own.
    names = listing.class_names
    if listing.task != "classes":
        names = [f"group {number}" for number in range(max(labels, default=0) + 1)]
    if fold is not None:
        given, test = _without_fold(looked, labels, seed, *fold)
    chosen = _by_shares(looked, given, labels, names, seed, shares)
    if test is not None:
        chosen["test"] = test
    if not looked.without():  # else that is told
        chosen["train"], chosen["validation"] = cap(chosen["train"], chosen["validation"], labels, limit, names)
    return chosen


def _strata(looked, fold):
    keys = looked.digests if looked.groups is None else together(looked.digests, looked.groups)
    least = max(2 * len(PARTS), fold[1] if fold else 0)
    return strata([item.label for item in looked.items], looked.listing.task, keys, least)


def _without_fold(looked, labels, seed, number, count):
    """Return what is given without the images of a fold, and these."""
    if set(looked.given) != {"all"}:
        raise ValueError(
            "Folds deal out all images, and this source has parts of its own: put them together, or leave folds out."
        )
    pool = looked.given["all"]
    ids, keys, groups = _of(pool, [item.id for item in looked.items], looked.digests, looked.groups)
    dealt = folds([labels[i] for i in pool], count, 1, seed, ids, keys if groups is None else together(keys, groups))
    if len(dealt) < count:
        raise ValueError(f"A class has too few images for {count} folds: give fewer folds, or leave the class out.")
    rest, tested = dealt[number - 1]
    # A test part that is empty here: nothing more is to be split off for it.
    return {"train": [pool[i] for i in rest], "test": []}, [pool[i] for i in tested]


def _by_shares(looked, given, labels, names, seed, shares):
    """Return part -> rows, in the order in which `cap` draws them."""
    lacking = {part: share for part, share in shares.items() if part not in given}
    key = lambda row: order_key(seed, looked.items[row].id)
    chosen = {part: sorted(rows, key=key) for part, rows in given.items()}
    pool = chosen.pop("all" if "all" in chosen else "train")
    present = sorted({labels[i] for i in pool})  # classes without an image are told for themselves
    ids, digests, groups = _of(pool, [item.id for item in looked.items], looked.digests, looked.groups)
    strata_of = [present.index(labels[i]) for i in pool]
    dealt = split(ids, strata_of, digests, lacking, [names[label] for label in present], seed, groups)
    return chosen | {part: [pool[i] for i in rows] for part, rows in dealt.items()}


def _of(rows, *columns):
    return [column and [column[row] for row in rows] for column in columns]
