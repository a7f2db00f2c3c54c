"""Whether a run of `fine_tune` keeps features, and where."""

import logging
import os
import pathlib

import keras

from kresnets._util.store import SharedStore, Store
from kresnets.networks.recompute import Recomputing
from kresnets.transfer.cache.fit import CachedFit

_LOG = logging.getLogger("kresnets")


def check_cache(cache, recipe):
    """Raise a ValueError for a `cache` that is none, or that the recipe forbids."""
    if isinstance(cache, SharedStore):
        return
    if not (cache == "auto" or isinstance(cache, (bool, str, os.PathLike)) and cache != ""):
        raise ValueError(f"`cache` must be 'auto', True, False, or a folder. Received: cache={cache!r}")
    if cache is False and recipe.views > 1:
        raise ValueError(
            f"Recipe(views={recipe.views}) are copies in the feature cache: leave out cache=False, or take views=1."
        )
    if cache not in ("auto", False) and (reason := forbids(recipe)):
        raise ValueError(f"cache={cache!r} cannot be: {reason}")


def forbids(recipe):
    """Return why nothing can be kept with a recipe, a sentence; None where it can."""
    if recipe.mixup:
        return (
            f"mixup={recipe.mixup} blends the images of each batch, which gives features that nothing can keep; "
            "take mixup=0."
        )
    if recipe.augment != "none" and recipe.views == 1:
        return (
            f"augment={recipe.augment_told!r} changes the images in each epoch; views=k keeps k "
            "changed copies of each, augment='none' leaves them as they are."
        )
    return None


def cached_fit(
    cache, model, model_layout, unfreezing, recipe, data, prepare, steps, preprocessing, state_dir=None, verbose="auto"
):
    """Return a `CachedFit`, or None where nothing is to be kept.

    Args:
        cache, recipe, model, state_dir, verbose: those of `fine_tune`, compiled and checked.
        model_layout: the model's `kresnets.groups.Layout`.
        unfreezing: the `StagedUnfreezing` of the run.
        data, prepare, steps: training and validation, see `CachedFit`.
        preprocessing: its settings as a dict.
    """
    if cache is False:
        return None
    reason = forbids(recipe) or _not_plain(model)
    if reason:
        quiet = cache == "auto" or isinstance(cache, SharedStore)
        _LOG.log(logging.INFO if quiet else logging.WARNING, "Training goes uncached: %s", reason)
        return None
    views = recipe.views if recipe.augment != "none" else 1
    changed = [recipe.as_data()["augment"], recipe.seed] if views > 1 else []
    folder = None if state_dir is None else pathlib.Path(state_dir) / "features"
    shared = isinstance(cache, SharedStore)
    lasting = not shared and cache not in ("auto", True)
    store = cache if shared else Store(cache if lasting else folder, 0 if lasting else None, lasting)
    stages = [name for name, _ in unfreezing.schedule.stages]
    fit = CachedFit(
        model, model_layout, stages, unfreezing.stage_of, recipe.batchnorm, data, prepare, steps, recipe.seed, views,
        always=views > 1 or (cache.always if shared else cache != "auto"),
        store=store,
        labels=([preprocessing, changed], [preprocessing, []]),
        progress=verbose != 0,
    )  # fmt: skip
    return fit if fit.has_cuts else None


def _not_plain(model):
    if isinstance(model, Recomputing):
        return "the model computes its blocks again to save memory, of which kept features take some."
    if type(model).__module__.split(".")[0] != "keras":
        return f"{type(model).__name__} is a class of its own, whose steps may do more than those of a Keras model."
    if getattr(model, "distribute_strategy", None) is not None and model.distribute_strategy.num_replicas_in_sync > 1:
        return "the model trains on several devices."
    if keras.distribution.distribution() is not None:
        return "the model trains under a keras.distribution."
    return None
