"""Folds: splits of a few images for training and validation, so that each of them validates."""

import collections
import hashlib
from collections.abc import Sequence
from typing import Any

from kresnets._util.types import Array

FEW = 100  # validation images below which one part of them chooses by chance
FOLDS, ROUNDS = 5, 2


def folds(
    labels: Array,
    count: int = FOLDS,
    rounds: int = 1,
    seed: int = 0,
    ids: Sequence[str] | None = None,
    together: Any = None,
) -> Any:
    """Deal images out to folds, each class evenly, and return every fold with the others.

    The images of a class are ordered by the SHA-256 of `"{seed}.{round}:{id}"`, so that the folds are the same on every
    machine.

    Args:
        labels: sequence of int, one an image.
        count: number of folds, from 2; fewer where a class has fewer images. Defaults to 5.
        rounds: how often to deal them out anew. Defaults to 1.
        seed: int. Defaults to 0.
        ids: names of the images. Defaults to None, their numbers.
        together: hashable values, equal for images that must stay in one fold, such as duplicates. Defaults to None.

    Returns:
        List of pairs `(rows to train on, rows to validate on)`, `count` a round; nothing where a class has a single
        image.

    Raises:
        ValueError: for fewer than two folds, or no round.

    Example:
        >>> from kresnets.data.folds import folds
        >>> labels = [0, 1, 0, 1, 0, 1]
        >>> [sorted(labels[row] for row in validation) for _, validation in folds(labels, count=3)]
        [[0, 1], [0, 1], [0, 1]]
    """
    if count < 2 or rounds < 1:
        raise ValueError(
            f"There must be two folds or more, and one round. Received: count={count!r}, rounds={rounds!r}"
        )
    classes_of = [int(label) for label in labels]
    ids = [str(row) for row in range(len(classes_of))] if ids is None else ids
    groups = collections.defaultdict(list)
    for row in range(len(classes_of)):
        groups[row if together is None else together[row]].append(row)
    classes = collections.defaultdict(list)
    for group in groups.values():
        classes[classes_of[group[0]]].append(group)
    count = min(count, min(map(len, classes.values()), default=0))
    return (
        [pair for number in range(rounds) for pair in _dealt(classes, count, f"{seed}.{number}", ids)]
        if count > 1
        else []
    )


def _dealt(classes, count, seed, ids):
    dealt = [[] for _ in range(count)]
    for _, groups in sorted(classes.items()):
        sizes = [0] * count
        for group in sorted(
            groups,
            key=lambda rows: hashlib.sha256(f"{seed}:{ids[rows[0]]}".encode("utf-8", "surrogateescape")).digest(),
        ):
            least = min(range(count), key=lambda fold: (sizes[fold], len(dealt[fold])))
            dealt[least] += group
            sizes[least] += len(group)
    everything = sorted(row for fold in dealt for row in fold)
    for fold in dealt:
        held = set(fold)
        yield [row for row in everything if row not in held], sorted(fold)
