"""What a trial's training leaves for other trials: the state after each stage, and at its end."""

import io
import json
import pathlib

import numpy as np

from kresnets._util import files
from kresnets.groups import layout
from kresnets.keras_hooks import optimizer as surgery
from kresnets.keras_hooks.graph import with_inner
from kresnets.transfer.recipe import RESOLVED, Recipe
from kresnets.tuning.space import Range

# Fields that matter in every stage, and those that do once part of the trunk learns; `ends` tells the stages itself.
_STAGES = ("head_epochs", "stages", "epochs_per_stage", "learning_rate", "trunk_learning_rate")
_TRUNK = ("ratio", "batchnorm")
_ALWAYS = tuple(name for name in RESOLVED if name not in (*_STAGES, *_TRUNK))


class Learnt:
    """Know which weights of a model can have changed by a stage: those of the layers that learn, and their statistics.

    Args:
        model: a Keras model.
        groups: as of `kresnets.groups`.
    """

    def __init__(self, model, groups):
        self._model, self._layout = model, layout(model, groups)
        self._place = {}
        for place, layer in self._layout.places:
            for inner in with_inner(layer):
                self._place |= {id(weight): place for weight in inner.weights}

    def weights(self, stage):
        """Return `{"weight/<index>": array}` as of a stage that begins at a group or block."""
        start = self._layout.first(stage)
        return {
            f"weight/{index}": np.array(weight.numpy())
            for index, weight in enumerate(self._model.weights)
            if self._place.get(id(weight), start) >= start
        }

    def state(self, stage):
        """Return the weights with the state of the optimizer."""
        everything = surgery.capture(self._model)
        kept = self.weights(stage)
        return {name: array for name, array in everything.items() if not name.startswith("weight/")} | kept


def assign(model, arrays):
    """Give a model the weights of `Learnt.weights`."""
    for index, weight in enumerate(model.weights):
        if (array := arrays.get(f"weight/{index}")) is not None:
            weight.assign(array)


def ends(recipe, names):
    """Return `{number of epochs trained when a stage, the last too, ends: what names all that led there}`."""
    schedule, peaks = recipe.staging(names), list(recipe.peaks(names).values())
    found, told, epochs = {}, [], 0
    for index, ((group, _), peak) in enumerate(zip(schedule.stages, peaks)):
        epochs += schedule.most_epochs(index)
        told.append([group, schedule.most_epochs(index), peak])
        fields = _ALWAYS if group == names[-1] else (*_ALWAYS, *_TRUNK)
        found[epochs] = {"stages": list(told), "seed": recipe.seed} | {name: getattr(recipe, name) for name in fields}
    return found


def can_meet(space, told):
    """Whether two trials of a space can come to the same: not where what led there was drawn from a continuum."""
    fields = ["learning_rate", "head_epochs", *(set(told) & set(_ALWAYS))]
    if len(told["stages"]) > 1 or told["stages"][0][0] != space.names[-1]:
        fields += ["trunk_learning_rate", "epochs_per_stage", *_TRUNK]
    allowed = [space.fields.get(name) for name in fields]
    return not any(isinstance(one, Range) and not one.whole and one.step is None for one in allowed)


def shares(recipe):
    """Whether the state after an epoch is all that the next one needs."""
    # An average of weights is swapped in and out around each epoch; restored weights come from before the last epoch.
    return isinstance(recipe, Recipe) and recipe.ema is None and not recipe.restore_best


def write_state(path, state, rows, best):
    """Write a state beside and rename it.

    Args:
        path: of the `.npz` file.
        state: what `Learnt.state` returns.
        rows: the history so far.
        best: `(epoch, weights)` of the best epoch so far.
    """
    told = {"rows": rows, "best": best[0]}
    arrays = {f"state:{name}": array for name, array in state.items()}
    arrays |= {f"best:{name}": array for name, array in best[1].items()}
    files.write_arrays(path, told=np.frombuffer(json.dumps(told).encode(), "uint8"), **arrays)


def read_state(path):
    """Return `(state, rows, (best epoch, its weights))`, or None where there is no such file."""
    try:
        data = pathlib.Path(path).read_bytes()  # at once: another process may replace it
    except FileNotFoundError:
        return None
    with np.load(io.BytesIO(data), allow_pickle=False) as file:
        told = json.loads(file["told"].tobytes())
        parts = {"state": {}, "best": {}}
        for name in file.files:
            part, _, rest = name.partition(":")
            if rest:
                parts[part][rest] = file[name]
    return parts["state"], told["rows"], (told["best"], parts["best"])
