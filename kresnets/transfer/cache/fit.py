"""One training of a whole model, in which each stage sees features where its lower layers are frozen."""

import contextlib
import logging
import time

import keras
import numpy as np

from kresnets._util.store import SharedStore, as_text, memory_limit
from kresnets.freezing import set_trainable
from kresnets.keras_hooks import model as hooks
from kresnets.keras_hooks.graph import with_inner
from kresnets.transfer.cache import cut as cutting
from kresnets.transfer.cache.features import bytes_of, extract
from kresnets.transfer.cache.source import source_of

_LOG = logging.getLogger("kresnets")
_FEATURES = "features"  # what marks a batch that has passed the lower half
_READ = 1e9  # bytes a second from memory into a step
_FEW = 10  # passes of one batch: to trace the lower half costs as much


class CachedFit:
    """Fit a model as `model.fit` does, with the frozen part of each stage computed once where that pays.

    Callbacks, history, optimizer and metrics are those of the whole model throughout: each stage is a `fit` of a double
    of it that sends features through its upper half.

    Args:
        model: a compiled Keras model.
        model_layout: its `kresnets.groups.Layout`.
        stages: the groups or blocks from which on layers learn, one after the other.
        stage_of: function from an epoch to its stage.
        batchnorm: as of `StagedUnfreezing`.
        data: training and validation data (or None), as `check_source` returns them.
        prepare: their two `Preparation`s.
        steps: number of batches of an epoch of both, 0 without validation.
        seed: of the recipe.
        views: augmented copies to keep.
        always: cache wherever the model cuts, not only where it pays.
        store: a `Store` for features.
        labels: what names the preparation of images, for the key.
        progress: whether to show bars. Defaults to True.
    """

    def __init__(
        self, model, model_layout, stages, stage_of, batchnorm, data, prepare, steps, seed, views, always, store,
        labels, progress=True,
    ):  # fmt: skip
        self._model, self._where, self._stage_of, self._batchnorm = model, model_layout, stage_of, batchnorm
        self._data, self._prepare, self._steps, self._seed = data, prepare, steps, seed
        self._views, self._always, self._store, self._labels = views, always, store, labels
        self._progress, self._ready, self._sources = progress, {}, None
        self._stages = list(stages)
        self._graph, self._cuts = self._find_cuts(self._stages)

    @property
    def has_cuts(self):
        """Whether there is anything to keep in any stage."""
        return bool(self._cuts)

    def _find_cuts(self, stages):
        graph, cuts = cutting.open_graph(self._model), {}
        for stage in stages:
            try:
                with self._flags_of(stage):
                    cuts[stage] = cutting.find_cut(graph)
            except cutting.CannotCache as reason:
                if self._where.first(stage) > (0, 0):  # else all learns, and nobody expects a cache
                    self._say(f"The stage {stage!r} goes uncached. {reason}")
        return graph, cuts

    @contextlib.contextmanager
    def _flags_of(self, stage):
        """Have the flags that `StagedUnfreezing` will set when the stage begins."""
        start, before = self._where.first(stage), [(layer, layer.trainable) for layer in with_inner(self._model)]
        set_trainable(self._model, self._where, lambda place: place >= start, self._batchnorm)
        try:
            yield
        finally:
            for layer, trainable in before:  # those of the outside first
                layer.trainable = trainable

    def _say(self, sentence):
        _LOG.log(logging.WARNING if self._always else logging.INFO, sentence)

    def assign(self, epoch):
        """Take the order of this epoch."""
        for (train, _), _ in self._ready.values():
            train.assign(epoch)

    def fit(self, x, *, epochs, initial_epoch, validation_data, callbacks, class_weight, shuffle, verbose):
        """Run all epochs; the arguments are those of `model.fit`, and give what stages train on without features.

        Returns:
            The `History` of all of them.
        """
        model = self._model
        calls = _OneFit(
            callbacks, self._stage_of, model=model, add_history=True, add_progbar=verbose != 0, verbose=verbose,
            epochs=epochs, steps=self._steps[0],
        )  # fmt: skip
        model.make_train_function()  # where fit() makes it: between the callbacks' set_model and their on_train_begin
        calls.begin()
        # BackupAndRestore says here where to go on; fit() would start there each time.
        epoch = hooks.take_initial_epoch(model) or initial_epoch
        options = dict(callbacks=calls, epochs=epochs, class_weight=class_weight, shuffle=shuffle, verbose=verbose)
        with hooks.one_fit(model), self._cleared_at_nan():
            while epoch < epochs and not calls.stopped:
                model.stop_training = False
                calls.on_epoch_begin(epoch)  # the stage is known, and its flags set, only when all callbacks have begun
                features, tail = self._enter(self._stage_of(epoch), epoch, epochs)
                seen, validation = features or (x, validation_data)
                with hooks.through(model, tail, _FEATURES) as double:
                    double.fit(seen, validation_data=validation, initial_epoch=epoch, **options)
                epoch = calls.next_epoch
        self._ready = {}
        self._store.clear()
        if epochs > 0:
            model.optimizer.finalize_variable_values(model.trainable_weights)
        calls.end()
        return model.history

    @contextlib.contextmanager
    def _cleared_at_nan(self):
        try:
            yield
        except FloatingPointError:  # no training will go on from here
            self._store.clear()
            raise

    def _enter(self, stage, epoch, epochs):
        """Return the features for a stage and the model above them, or two times None."""
        cut = self._cuts.get(stage)
        coming = {id(self._cuts[later]) for later in self._from(stage)}
        if self._ready.keys() - coming:
            self._ready = {key: kept for key, kept in self._ready.items() if key in coming}
            self._store.clear()  # what later stages need is in memory
        if cut is not None and id(cut) not in self._ready:
            try:
                self._make(stage, epoch, epochs)
                self.assign(epoch)
            except (cutting.CannotCache, OSError) as reason:
                self._say(f"The stage {stage!r} goes uncached. {reason}")
        return self._ready.get(id(cut), (None, None))

    def _from(self, stage):
        later = self._stages[self._stages.index(stage) :]
        return [name for name in later if name in self._cuts]

    def _make(self, stage, epoch, epochs):
        """Compute the features of a stage, and in passing those of later ones for which there is memory."""
        lasts = {later: sum(self._stage_of(e) == later for e in range(epoch, epochs)) for later in self._from(stage)}
        if not self._always and self._passes_saved(lasts[stage]) < _FEW:
            return
        sources = self._open()
        images, *_ = next(iter(sources[0].batches(0)))
        cuts = self._together(stage, lasts, sources, images)
        head, tail = cutting.models_around(self._graph, cuts[0], cuts[1:])
        if not self._always and not self._pays(head, tail, images, epoch, lasts[stage], cuts[0]):
            return
        kept = []
        for source, views, label in zip(sources, (self._views, 1), self._labels):
            whole, places = source.within() if isinstance(self._store, SharedStore) else (None, None)
            arrays, rest = extract(head, cuts, whole or source, self._store, views, None, label, self._progress)
            rest = source.rest(None) if whole else rest
            kept.append([Rows(array, rest, source, self._seed, views, places) for array in arrays])
        validation = kept[1] if len(kept) > 1 else [None] * len(cuts)
        for cut, *rows in zip(cuts, kept[0], validation, strict=True):
            self._ready[id(cut)] = (rows, cutting.models_around(self._graph, cut)[1])
        _LOG.info("Features after %s kept for training.", " and ".join(map(cutting.layer_name, cuts)))

    def _open(self):
        if self._sources is None:
            seeds = (self._seed, None)
            self._sources = [
                source_of(data, prepare, seed, views, self._store.remember)
                for data, prepare, seed, views in zip(self._data, self._prepare, seeds, (self._views, 1))
                if data is not None
            ]
        return self._sources

    def _passes_saved(self, epochs):
        train, validation = self._steps
        return (epochs - self._views) * train + (epochs - 1) * validation

    def _together(self, stage, lasts, sources, images):
        """Return the cut of a stage and those of later ones that the same pass may feed."""
        count = sources[0].count * self._views + sum(source.count for source in sources[1:])
        cuts, left = [self._cuts[stage]], max(self._store.limit, memory_limit())
        left -= count * bytes_of(self._graph, self._cuts[stage], images)
        for later in self._from(stage)[1:]:
            cut, worth = self._cuts[later], self._always or self._passes_saved(lasts[later]) >= _FEW
            size = count * bytes_of(self._graph, cut, images)
            if worth and size <= left and all(cut is not other for other in cuts):
                cuts.append(cut)
                left -= size
        return cuts

    def _pays(self, head, tail, images, epoch, epochs, cut):
        """Whether the features of a stage cost less than they save, by the time that one batch takes."""
        (train, validation), size = self._steps, len(images)
        below, features = _seconds(head, images)
        above, _ = _seconds(tail, keras.tree.flatten(features)[0])
        rest = epochs * (3 * train + validation) * above  # forward and backward: about three times forward
        kept = bytes_of(self._graph, cut, images)
        reading = epochs * (train + validation) * size * kept / _READ
        cached = (self._views * train + validation) * below + reading + rest
        uncached = epochs * (train + validation) * below + rest
        _LOG.info(
            "Epochs %d to %d: about %.3g s on cached features (after %s, %s an image), %.3g s without: %s.",
            epoch, epoch + epochs - 1, cached, cutting.layer_name(cut), as_text(kept), uncached,
            "cached" if cached < uncached else "uncached",
        )  # fmt: skip
        return cached < uncached


class Rows(keras.utils.PyDataset):
    """Serve features and what belongs to them in the order of a `FeatureSource`, a view of each image drawn anew per
    epoch.

    Args:
        features: array `(views * samples, ...)`.
        rest: arrays `(samples, ...)`: labels, weights.
        source: the `FeatureSource`.
        seed: of the choice among views.
        views: how many there are.
        places: rows of the source's samples in a view of the features; None for all of them. Defaults to None.
    """

    def __init__(self, features, rest, source, seed, views, places=None):
        super().__init__()
        self._features, self._rest, self._source, self._seed = features, rest, source, seed
        self._batches, self._views, self._epoch = None, views, 0
        self._places = np.arange(source.count) if places is None else places
        self._length = source.steps

    def assign(self, epoch):
        """Take the order of this epoch, once it begins."""
        self._epoch = epoch

    def on_epoch_begin(self):
        self._batches = self._source.order(self._epoch)
        rng = np.random.default_rng((self._seed, self._epoch, 1))
        self._view = rng.integers(self._views, size=self._source.count)

    def __len__(self):
        return self._length

    def __getitem__(self, index):
        if self._batches is None:  # Keras looks at shapes before the first epoch
            rows = views = np.zeros(1, int)
        else:
            rows = self._batches[index]
            views = self._view[rows]
        features = np.asarray(self._features[views * (len(self._features) // self._views) + self._places[rows]])
        return ({_FEATURES: features}, *(part[rows] for part in self._rest))


class _OneFit(keras.callbacks.CallbackList):
    """Make several calls of `fit` one to the callbacks, and end each where the stage ends."""

    def __init__(self, callbacks, stage_of, **options):
        super().__init__(callbacks, **options)
        self._stage_of, self._stage, self._begun, self._logs = stage_of, None, None, None
        self.stopped, self.next_epoch = False, None

    def begin(self):
        super().on_train_begin()

    def end(self):
        super().on_train_end(self._logs)

    def on_train_begin(self, logs=None):
        pass

    def on_train_end(self, logs=None):
        self._logs = logs

    def on_epoch_begin(self, epoch, logs=None):
        if epoch != self._begun:
            super().on_epoch_begin(epoch, logs)
            self._begun, self._stage, self._stop = epoch, self._stage_of(epoch), self.model.stop_training
        self.model.stop_training = self._stop  # fit() has taken back what was said before it began

    def on_epoch_end(self, epoch, logs=None):
        super().on_epoch_end(epoch, logs)
        self.next_epoch, self.stopped = epoch + 1, self.model.stop_training
        if self._stage_of(epoch + 1) != self._stage:
            self.model.stop_training = True


def _seconds(model, batch):
    """Return how long a model takes for a batch, traced, and what it gives."""
    model.predict_on_batch(batch)
    start = time.perf_counter()
    given = model.predict_on_batch(batch)
    return time.perf_counter() - start, given
