"""Stratified splits that are the same on every machine: a function of the seed and of the images' names alone.

Within a class the images are ordered by the SHA-256 of `"{seed}:{id}"`; no random number generator takes part, so that
neither the order of a directory nor a version of Python or NumPy matters. The first quarter tests, the next share
validates, the rest trains. Exact duplicates (the same bytes) stay together in one part, whatever their names and
labels.
"""

import collections
import hashlib
import unicodedata

PARTS = ("train", "validation", "test")
_BINS, _IN_BIN = 10, 10  # of numbers: at most so many bins, of so many images at least


def order_key(seed, image_id):
    """Return the sort key of an image: hexadecimal SHA-256 of the seed and its id (NFC: macOS writes names apart)."""
    text = f"{seed}:{unicodedata.normalize('NFC', image_id)}"
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()


def together(*keys):
    """Number images so that those that share any key have one number: duplicates, images of one group, and both.

    Args:
        keys: sequences as long as there are images, of hashables; None stands for none.

    Returns:
        List of int.

    Example:
        >>> from kresnets.data.split import together
        >>> together(["a", "b", "c", "a"], [1, 2, 2, None])
        [0, 1, 1, 0]
    """
    parent = list(range(len(keys[0])))

    def root(index):
        while parent[index] != index:
            parent[index] = index = parent[parent[index]]
        return index

    for each in keys:
        first = {}
        for index, key in enumerate(each):
            if key is not None:
                one, other = root(first.setdefault(key, index)), root(index)
                parent[max(one, other)] = min(one, other)
    numbers = {}
    return [numbers.setdefault(root(index), len(numbers)) for index in range(len(parent))]


def strata(labels, task, keys=None, least=2 * len(PARTS)):
    """Return by what images are kept in proportion, integers from 0: their class; of several labels the rarest one that
    an image has; of numbers how large they are.

    Args:
        labels: sequence of int, or of tuples of numbers.
        task: `"classes"`, `"labels"` or `"numbers"`.
        keys: sequence of hashables, equal for images that stay together, and so are of one stratum. Defaults to None,
            each for itself.
        least: int, fewest such units of a stratum of labels or numbers. Defaults to 6, two a part.

    Example:
        >>> from kresnets.data.split import strata
        >>> strata([(1.0, 0.0), (1.0, 1.0), (1.0, 0.0), (0.0, 0.0)], "labels")
        [0, 0, 0, 0]
    """
    if task == "classes":
        return list(labels)
    units = collections.defaultdict(list)
    for index in range(len(labels)):
        units[index if keys is None else keys[index]].append(index)
    units = list(units.values())
    if task == "numbers":
        means = [tuple(sum(column) / len(unit) for column in zip(*(labels[i] for i in unit))) for unit in units]
        bins = max(1, min(_BINS, len(units) // max(_IN_BIN, least)))
        order = sorted(range(len(units)), key=lambda unit: (means[unit], unit))
        found = [0] * len(units)
        for place, unit in enumerate(order):
            found[unit] = place * bins // len(units)
    else:
        counts = [sum(column) for column in zip(*labels)]
        has = [{n for i in unit for n, value in enumerate(labels[i]) if value} for unit in units]
        found = [min(sorted(names), key=counts.__getitem__, default=len(counts)) for names in has]
    # Too few to fill the parts go with the most: their label is on other images too, or rare.
    sizes = collections.Counter(found)
    most = sizes.most_common(1)[0][0] if sizes else 0
    found = [stratum if sizes[stratum] >= least else most for stratum in found]
    kept, result = sorted(set(found)), [0] * len(labels)
    if task == "numbers":  # so that the first few of them, which a small limit takes, are small and large ones
        kept.sort(key=lambda stratum: f"{stratum:016b}"[::-1])
    for unit, stratum in zip(units, found):
        for index in unit:
            result[index] = kept.index(stratum)
    return result


def split(ids, labels, digests, fractions, class_names, seed=0, groups=None):
    """Deal images out to parts.

    Args:
        ids: sequence of str, unique names of the images.
        labels: sequence of int, their classes.
        digests: sequence of hashable, equal for images that must stay in one part (exact duplicates).
        fractions: dict part -> share of what the parts before it left, in order; `{"test": 0.25, "validation": 0.15}`.
            What remains is `"train"`.
        class_names: sequence of str, for the message.
        seed: int. Defaults to 0.
        groups: sequence of str or None, what each image shows: those of one group stay in one part too, and are ordered
            by its name; one of several classes counts among the images of the rarest. Defaults to None.

    Returns:
        Dict part -> list of indices, each in the order in which `take` draws them.

    Raises:
        ValueError: where a class has fewer distinct images than there are parts.

    Example:
        >>> from kresnets.data.split import split
        >>> parts = split(list("abcdefgh"), [0] * 8, list("abcdefgh"), {"test": 0.25}, ["x"])
        >>> {part: len(indices) for part, indices in parts.items()}
        {'test': 2, 'train': 6}
    """
    parts = {part: [] for part in (*fractions, "train")}
    by_class = _groups_by_class(ids, labels, digests, len(class_names), seed, groups)
    few = [f"{name!r} has {_count(groups)}" for name, groups in zip(class_names, by_class) if len(groups) < len(parts)]
    if few:
        raise ValueError(
            f"Class {', '.join(few)}, but each of {', '.join(parts)} needs at least one: add images (exact duplicates "
            f"{'and those of one group ' if groups else ''}count once), or leave the class out."
        )
    for groups in by_class:
        for left, (part, fraction) in zip(range(len(fractions), 0, -1), fractions.items(), strict=True):
            wanted = max(1, int(fraction * sum(map(len, groups)) + 0.5))
            taken = 0
            while taken < wanted and len(groups) > left:
                taken += len(groups[0])
                parts[part].extend(groups.pop(0))
        for group in groups:
            parts["train"].extend(group)
    return parts


def _groups_by_class(ids, labels, digests, classes, seed, groups):
    """Return for each class its groups of images in the order of keys; the first one of duplicates gives their class,
    the rarest one that of a group."""
    names = ids if groups is None else [group or name for group, name in zip(groups, ids)]
    keys = digests if groups is None else together(digests, groups)
    found = collections.defaultdict(list)
    own = [order_key(seed, name) for name in ids]
    order = own.__getitem__ if groups is None else lambda i: (order_key(seed, names[i]), own[i])
    for index in sorted(range(len(ids)), key=order):
        found[keys[index]].append(index)
    by_class, frequent = [[] for _ in range(classes)], collections.Counter(labels)
    for group in found.values():
        label = labels[group[0]] if groups is None else min((labels[i] for i in group), key=frequent.__getitem__)
        by_class[label].append(group)
    return by_class


def _count(groups):
    return "no image" if not groups else "only 1 image" if len(groups) == 1 else f"only {len(groups)} images"


def take(indices, labels, count):
    """Keep `count` images with the classes in proportion; a larger count keeps all that a smaller one keeps.

    Adams' method of apportionment: the r-th image of a class of n comes at r / n, so that the counts grow one by one
    and every class has its first image before any has its second.

    Args:
        indices: list of int, the images of a part in the order of `split`.
        labels: sequence of int, the classes of all images.
        count: int, how many to keep.

    Returns:
        List of `count` indices (all of them where there are fewer).

    Example:
        >>> from kresnets.data.split import take
        >>> take([0, 1, 2, 3, 4, 5], [0, 0, 0, 0, 1, 1], 3)
        [0, 4, 1]
    """
    sizes = collections.Counter(labels[index] for index in indices)
    seen = collections.Counter()
    places = []
    for index in indices:
        label = labels[index]
        places.append((seen[label] / sizes[label], -sizes[label], label, index))
        seen[label] += 1
    return [index for *_, index in sorted(places)[:count]]


def cap(train, validation, labels, limit, class_names):
    """Cut training and validation to `limit` images together, in the proportion they have.

    Args:
        train: list of int, indices in the order of `split`.
        validation: list of int, likewise.
        labels: sequence of int, the classes of all images.
        limit: int, or None to keep everything.
        class_names: sequence of str, for the message.

    Returns:
        The pair `(train, validation)`; that of a smaller limit is part of that of a larger one.

    Raises:
        ValueError: where the limit leaves a class without a training image, or nothing to validate on.

    Example:
        >>> from kresnets.data.split import cap
        >>> cap([0, 1, 2, 3, 4, 5], [6, 7], [0, 1] * 4, limit=4, class_names=["a", "b"])
        ([0, 1, 2], [6])
    """
    total = len(train) + len(validation)
    if limit is None or limit >= total:
        return train, validation
    validating = int(limit * len(validation) / total + 0.5)
    classes = len({labels[index] for index in train})
    if not validating or limit - validating < classes:
        raise ValueError(
            f"A limit of {limit} images is too few for {len(class_names)} classes: at a share of "
            f"{len(validation) / total:.0%} for validation, some class would have no training image or nothing would "
            "validate. Raise the limit."
        )
    return take(train, labels, limit - validating), take(validation, labels, validating)
