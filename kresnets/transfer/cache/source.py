"""Samples in a fixed order of rows, each drawn once, and the order in which the epochs of a training draw them."""

import dataclasses
import hashlib
import itertools
import logging
from collections.abc import Callable, Iterable

import numpy as np

from kresnets._util.store import digest
from kresnets.transfer.cache.cut import CannotCache
from kresnets.transfer.inputs import Batches, is_dataset, rows_of

_LOG = logging.getLogger("kresnets")
_LOOKED_AT = 8  # batches by which the order of two passes is compared


@dataclasses.dataclass(frozen=True)
class FeatureSource:
    """Hold samples by row.

    Args:
        count: number of samples.
        steps: number of batches of an epoch.
        batches: function of a view (0, 1, ...: which augmented copy) that gives all batches of numpy arrays, in the
            order of the rows.
        order: function of an epoch that gives the rows of each of its batches.
        identity: function that names the data, or gives None where a later run could not know them again.
        rest: function of a function that draws what follows the images (labels, weights), which it may save; None to
            let `source_of` give one that asks the store.
        within: function that gives the `FeatureSource` with which this one shares its features, and its rows there; or
            None for both.
    """

    count: int
    steps: int
    batches: Callable[[int], Iterable[tuple]]
    order: Callable[[int], list[np.ndarray]]
    identity: Callable[[], str | None]
    rest: Callable[[Callable], tuple] | None = None
    within: Callable[[], tuple] = lambda: (None, None)


def _ask(data, what, make):
    return make()


def source_of(data, prepare, seed=None, views=1, remember=_ask):
    """Return the `FeatureSource` of what a user trains on.

    Args:
        data: a tuple of arrays, a PyDataset or a `tf.data.Dataset`, as `check_source` returns it.
        prepare: the `Preparation` of its batches.
        seed: as that of `Batches`, of the order; None keeps it. Defaults to None.
        views: number of views that will be drawn. Defaults to 1.
        remember: `Store.remember`.

    Raises:
        CannotCache: where the data are others each time they are drawn.
    """
    if isinstance(data, tuple):
        source = _of_arrays(data, prepare, seed)
    elif is_dataset(data) and (rows := rows_of(data)) is not None:
        source = _of_part(rows, prepare, remember)
    else:
        source = _of_stream(data, prepare, seed, views, remember)
    labels = ("labels", getattr(prepare, "labels", None))
    return dataclasses.replace(
        source,
        identity=lambda: remember(data, "identity", source.identity),
        rest=source.rest or (lambda make: remember(data, labels, make)),
    )


def _of_arrays(arrays, prepare, seed):
    ordered = Batches(arrays, prepare, seed)

    def order(epoch):
        ordered.assign(epoch)
        return [ordered.rows(index) for index in range(len(ordered))]

    return FeatureSource(
        len(arrays[0]), len(ordered), lambda view: _drawn(arrays, prepare, view), order, lambda: digest(*arrays)
    )


def _of_part(rows, prepare, remember):
    part, natural = rows.part, rows.natural()

    def order(epoch):
        return list(rows.order.as_numpy_iterator())

    def rest(make):  # for which no image need be drawn
        labels = np.asarray(getattr(prepare, "labels", np.asarray)(part.labels))
        return (labels,) if part.weights is None else (labels, part.weights)

    def within():
        whole, places = part.within
        if places is None:
            return None, None
        source = _of_part(dataclasses.replace(rows, part=whole), prepare, remember)
        what = ("identity", rows.size, rows.crop)
        return dataclasses.replace(source, identity=lambda: remember(whole, what, source.identity)), places

    steps, drawn = int(natural.cardinality()), lambda view: _drawn(natural, prepare, view)
    return FeatureSource(len(part), steps, drawn, order, rows.identity, rest, within)


def _of_stream(data, prepare, seed, views, remember):
    if not is_dataset(data) and any(
        getattr(type(data), name) is not getattr(Batches.__base__, name) for name in ("on_epoch_begin", "on_epoch_end")
    ):
        raise CannotCache("A PyDataset that does something between epochs may give other images in each.")
    first = remember(data, "first pass", lambda: list(_digests(data)))
    again = remember(data, "second pass", lambda: list(itertools.islice(_digests(data), _LOOKED_AT)))
    fixed = all(one == other for one, other in zip(first, again))
    if not fixed and not set().union(*again) <= set().union(*first):
        raise CannotCache("The pipeline gives other images each time it is drawn: it changes them at random, it seems.")
    if not fixed and (views > 1 or not is_dataset(data)):
        raise CannotCache("The order of the pipeline is another one each time it is drawn.")
    if not fixed and seed is not None:
        _LOG.info("The pipeline shuffles: the cached features are shuffled by the recipe's seed instead.")
    ends = np.cumsum([len(batch) for batch in first])

    def order(epoch):
        rng = np.random.default_rng((seed or 0, epoch))
        rows = np.arange(ends[-1]) if fixed else rng.permutation(ends[-1])
        batches = np.split(rows, ends[:-1])
        if is_dataset(data) or seed is None:
            return batches
        return [batches[index] for index in rng.permutation(len(batches))]  # as `Batches` does

    def identity():
        return digest([key.hex() for batch in first for key in batch]) if fixed else None

    return FeatureSource(int(ends[-1]), len(first), lambda view: _drawn(data, prepare, view), order, identity)


def _drawn(data, prepare, view):
    """Yield the prepared batches of one pass, as tuples of arrays."""
    if is_dataset(data):
        from kresnets.data.part import epoch_variable

        clock = epoch_variable()
        clock.assign(view)
        yield from prepare.dataset(data, clock).as_numpy_iterator()
    else:
        batches = Batches(data, prepare)
        batches.assign(view)
        for index in range(len(batches)):
            yield tuple(np.asarray(part) for part in batches[index])


def _digests(data):
    """Yield, for each batch, a short name of each of its samples."""
    batches = data.as_numpy_iterator() if is_dataset(data) else (data[index] for index in range(data.num_batches))
    for batch in batches:
        yield [_digest_of(sample) for sample in zip(*(np.asarray(part) for part in batch), strict=True)]


def _digest_of(sample):
    found = hashlib.blake2b(digest_size=8)
    for part in sample:
        found.update(np.ascontiguousarray(part))
    return found.digest()
