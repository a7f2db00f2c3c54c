"""Residual networks and the fine-tuning recipe for Keras 3."""

from kresnets import applications, callbacks, layers, preprocess
from kresnets.applications import *  # noqa: F403
from kresnets.applications import list_models
from kresnets.build import build
from kresnets.callbacks import LayerwiseLearningRate, StagedUnfreezing
from kresnets.groups import groups
from kresnets.plain import as_plain_keras
from kresnets.preprocess import Preprocessing, decode_predictions, preprocess_input, preprocessing_of
from kresnets.specs import SPECS
from kresnets.transfer.fine_tune import fine_tune
from kresnets.transfer.freezing import copy_trunk, freeze
from kresnets.transfer.recipe import Recipe
from kresnets.version import __version__


def __getattr__(name):
    # Imported when first used: it needs TensorFlow, which the rest of the package does not.
    if name == "export_saved_model":
        from kresnets.export import export_saved_model

        return export_saved_model
    raise AttributeError(f"module 'kresnets' has no attribute {name!r}")
