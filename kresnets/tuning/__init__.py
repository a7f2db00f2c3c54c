"""Search over recipes with Keras Tuner: how many groups to unfreeze, how fast each of them learns, how long the head
trains alone."""

from kresnets.data.folds import folds as folds
from kresnets.tuning.choice import Choice as Choice
from kresnets.tuning.choice import choose as choose
from kresnets.tuning.hypermodel import RecipeHyperModel as RecipeHyperModel
from kresnets.tuning.oracle import sound as sound
from kresnets.tuning.records import read_records as read_records
from kresnets.tuning.space import Range as Range
from kresnets.tuning.space import Space as Space
from kresnets.tuning.tuner import RecipeTuner as RecipeTuner
