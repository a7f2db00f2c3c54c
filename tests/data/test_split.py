"""kresnets.data.split: stratified, disjoint, nested, the same on every machine."""

import hashlib
import random
import unicodedata

import numpy as np
import pytest
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from sklearn.model_selection import StratifiedGroupKFold

from kresnets.data.split import cap, order_key, split, take, together

FRACTIONS = {"test": 0.25, "validation": 0.15}
NAMES = ["a", "b", "c"]


def example(count=1000):
    ids = [f"folder/image{i:04d}.png" for i in range(count)]
    labels = [0 if i % 10 < 6 else 1 if i % 10 < 9 else 2 for i in range(count)]
    return ids, labels


def test_the_key_is_a_plain_sha256():
    assert order_key(7, "cat/1.jpg") == hashlib.sha256(b"7:cat/1.jpg").hexdigest()
    assert order_key(0, "é") == order_key(0, unicodedata.normalize("NFD", "é"))
    assert order_key(0, "\udcff.png")  # a file name that is no valid text


def test_stratified_and_disjoint():
    ids, labels = example()
    parts = split(ids, labels, ids, FRACTIONS, NAMES)
    assert sorted(index for indices in parts.values() for index in indices) == list(range(1000))
    counts = {part: [sum(labels[i] == c for i in indices) for c in range(3)] for part, indices in parts.items()}
    assert counts == {"test": [150, 75, 25], "validation": [68, 34, 11], "train": [382, 191, 64]}


def test_pinned_so_that_it_never_changes():
    ids, labels = example()
    parts = split(ids, labels, ids, FRACTIONS, NAMES)
    names = {part: "\n".join(sorted(ids[i] for i in chosen)) for part, chosen in parts.items()}
    digests = {part: hashlib.sha256(text.encode()).hexdigest()[:12] for part, text in names.items()}
    assert digests == {"test": "18be8cd410bb", "validation": "a9c79ea68dfe", "train": "17c72ae2445f"}


def test_independent_of_the_order_of_files_but_not_of_the_seed():
    ids, labels = example()
    parts = split(ids, labels, ids, FRACTIONS, NAMES)
    order = list(range(1000))
    random.Random(1).shuffle(order)
    mixed = split([ids[i] for i in order], [labels[i] for i in order], order, FRACTIONS, NAMES)
    other = split(ids, labels, ids, FRACTIONS, NAMES, seed=1)
    for part in parts:
        assert [ids[order[i]] for i in mixed[part]] == [ids[i] for i in parts[part]]
        assert set(other[part]) != set(parts[part])


def components(*keys):
    """The same by scipy's graphs: an edge between an image and each of its keys."""
    count, edges, names = len(keys[0]), [], {}
    for place, each in enumerate(keys):
        for index, key in enumerate(each):
            if key is not None:
                edges.append((index, count + names.setdefault((place, key), len(names))))
    rows, columns = zip(*edges)
    matrix = coo_array((np.ones(len(edges)), (rows, columns)), shape=(count + len(names),) * 2)
    return connected_components(matrix, directed=False)[1][:count]


def test_what_is_together_is_what_is_connected():
    rng = random.Random(0)
    for _ in range(30):
        keys = [[rng.choice([None, *range(60)]) for _ in range(50)] for _ in range(2)]
        ours, theirs = together(*keys), components(*keys)
        assert len(set(ours)) == len(set(theirs)) == len(set(zip(ours, theirs)))


@pytest.mark.parametrize("mixed", [False, True])
def test_no_group_is_in_two_parts_and_each_class_in_each(mixed):
    """Patients of one to nine images, of one class or of several; duplicates of two patients tie them together."""
    rng = random.Random(1)
    ids, labels, groups = [], [], []
    for patient in range(150):
        own = rng.choices([0, 1, 2], [6, 3, 1])[0]
        for number in range(rng.randint(1, 9)):
            ids.append(f"{patient}/{number}.png")
            labels.append(rng.choices([0, 1, 2], [6, 3, 1])[0] if mixed else own)
            groups.append(str(patient))
    digests = list(ids)
    digests[groups.index("3")] = digests[groups.index("4")]
    parts = split(ids, labels, digests, FRACTIONS, NAMES, groups=groups)
    homes = {}
    for part, indices in parts.items():
        assert {labels[i] for i in indices} == {0, 1, 2}
        for index in indices:
            assert homes.setdefault(groups[index], part) == part
    assert homes["3"] == homes["4"]
    shares = {part: len(indices) / len(ids) for part, indices in parts.items()}
    assert abs(shares["test"] - 0.25) < 0.04 and abs(shares["validation"] - 0.75 * 0.15) < 0.04
    # As even as scikit-learn's best fold of four, within some points.
    even = lambda indices: max(abs(sum(labels[i] == c for i in indices) / len(indices) - labels.count(c) / len(ids))
                               for c in range(3))  # fmt: skip
    folds = StratifiedGroupKFold(4, shuffle=True, random_state=0).split(ids, labels, groups)
    assert even(parts["test"]) < max(even(test.tolist()) for _, test in folds) + 0.05


def test_duplicates_stay_together():
    ids, labels = example(300)
    digests = [i // 3 for i in range(300)]
    parts = split(ids, labels, digests, FRACTIONS, NAMES)
    homes = {}
    for part, indices in parts.items():
        for index in indices:
            assert homes.setdefault(digests[index], part) == part
    assert len(parts["test"]) == pytest.approx(75, abs=6)


@pytest.mark.parametrize(("count", "words"), [(0, "no image"), (1, "only 1 image"), (2, "only 2 images")])
def test_too_few_images_are_named(count, words):
    ids, labels = example(30)
    ids, labels = ids + [f"few{i}" for i in range(count)], labels + [3] * count
    with pytest.raises(ValueError, match=f"Class 'rare' has {words}, but each of test, validation, train"):
        split(ids, labels, ids, FRACTIONS, [*NAMES, "rare"])


def test_three_images_are_enough():
    parts = split("xyz", [0, 0, 0], "xyz", FRACTIONS, ["a"])
    assert {part: len(indices) for part, indices in parts.items()} == {"test": 1, "validation": 1, "train": 1}


def test_limits_are_nested_and_keep_the_proportions():
    ids, labels = example()
    parts = split(ids, labels, ids, FRACTIONS, NAMES)
    before = (set(), set())
    for limit in range(7, 751):
        train, validation = cap(parts["train"], parts["validation"], labels, limit, NAMES)
        assert len(train) + len(validation) == limit
        assert len(validation) == pytest.approx(113 / 750 * limit, abs=0.5)
        assert before[0] <= set(train) and before[1] <= set(validation)
        before = (set(train), set(validation))
        counts = [sum(labels[i] == c for i in train) for c in range(3)]
        assert min(counts) >= 1
        for count, share in zip(counts, (0.6, 0.3, 0.1)):
            assert count == pytest.approx(share * len(train), abs=1.6)
    assert cap(parts["train"], parts["validation"], labels, 5000, NAMES) == (parts["train"], parts["validation"])


def test_a_limit_that_leaves_a_class_empty_is_refused():
    ids, labels = example(100)
    parts = split(ids, labels, ids, FRACTIONS, NAMES)
    for limit in (1, 3):
        with pytest.raises(ValueError, match=f"A limit of {limit} images is too few for 3 classes"):
            cap(parts["train"], parts["validation"], labels, limit, NAMES)


def test_take_gives_every_class_its_first_image_first():
    labels = [0] * 90 + [1] * 9 + [2]
    assert sorted(labels[i] for i in take(list(range(100)), labels, 3)) == [0, 1, 2]
