"""Residual networks and the fine-tuning recipe for Keras 3."""

import importlib

from kresnets import applications as applications
from kresnets import callbacks as callbacks
from kresnets import preprocess as preprocess
from kresnets.analysis import summarize as summarize
from kresnets.applications import *  # noqa: F403
from kresnets.applications import list_models as list_models
from kresnets.build import build as build
from kresnets.callbacks import LayerwiseLearningRate as LayerwiseLearningRate
from kresnets.callbacks import Plateau as Plateau
from kresnets.callbacks import StagedUnfreezing as StagedUnfreezing
from kresnets.decoding import Decoding as Decoding
from kresnets.freezing import copy_trunk as copy_trunk
from kresnets.freezing import freeze as freeze
from kresnets.groups import groups as groups
from kresnets.networks import layers as layers
from kresnets.networks.features import features as features
from kresnets.networks.plain import as_plain_keras as as_plain_keras
from kresnets.networks.recompute import recompute as recompute
from kresnets.preprocess import Preprocessing as Preprocessing
from kresnets.preprocess import decode_predictions as decode_predictions
from kresnets.preprocess import preprocess_input as preprocess_input
from kresnets.preprocess import preprocessing_of as preprocessing_of
from kresnets.specs import SPECS as SPECS
from kresnets.task import task_of as task_of
from kresnets.transfer.cache import FeatureCache as FeatureCache
from kresnets.transfer.deepen import deepen as deepen
from kresnets.transfer.fine_tune import fine_tune as fine_tune
from kresnets.transfer.lr_range_test import find_learning_rate as find_learning_rate
from kresnets.transfer.plan import Plan as Plan
from kresnets.transfer.plan import plan as plan
from kresnets.transfer.recipe import Recipe as Recipe
from kresnets.version import __version__ as __version__


def __getattr__(name):
    # Imported when first used: these need TensorFlow or Keras Tuner, which the rest of the package does not.
    if name in ("data", "export", "tuning"):
        return importlib.import_module(f"kresnets.{name}")
    if name in ("export_saved_model", "export_file"):
        return getattr(importlib.import_module("kresnets.export"), name)
    raise AttributeError(f"module 'kresnets' has no attribute {name!r}")
