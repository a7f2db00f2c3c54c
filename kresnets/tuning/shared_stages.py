"""What a trial's training leaves for other trials: the state after each stage, and at its end."""

import hashlib
import io
import json
import pathlib

import numpy as np

from kresnets._util import files
from kresnets.groups import layout
from kresnets.keras_hooks import optimizer as optimizer_hooks
from kresnets.keras_hooks.graph import with_inner
from kresnets.transfer.recipe import RESOLVED
from kresnets.tuning.space import THAW, Range

# Fields that matter in every stage, and those that do once part of the trunk trains; `ends` lists the stages itself.
_STAGES = ("head_epochs", "stages", "epochs_per_stage", "learning_rate", "trunk_learning_rate")
_TRUNK = ("ratio", "batchnorm")
_ALWAYS = tuple(name for name in RESOLVED if name not in (*_STAGES, *_TRUNK))


class SharedStages:
    """Find the state that a training may begin with, and leave its own states for others.

    They lie in `stages/`, named by all that led to them; the state that a promoted trial goes on from lies with the
    trial that was promoted.

    Args:
        tuner: the `RecipeTuner`.
        trial: Keras Tuner's.
        recipe: the `Recipe` of this training.
        model: the Keras model that it trains.
        number: which training of the trial this is, from 0.
        split: number of the split that it trains on.
        budget: epoch before which Hyperband ends it, or None.
        share: whether states go to trials that were not promoted.
    """

    def __init__(self, tuner, trial, recipe, model, number, split, budget, share):
        self._tuner, self._trial, self._stages, self._number = tuner, trial, recipe.stages, number
        self._split, self._budget = split, budget
        self.ends = ends(recipe, tuner.hypermodel.names)
        # An average of weights is swapped in and out around each epoch, and restored weights come from before the last
        # one: there the state after an epoch is not all that the next one needs.
        self._resumable = recipe.ema is None and not recipe.restore_best
        self._share = share and self._resumable
        self._model, self._layout = model, layout(model, tuner.hypermodel.groups)
        self._place = {}
        for place, layer in self._layout.places:
            for inner in with_inner(layer):
                self._place |= {id(weight): place for weight in inner.weights}

    def found(self, most):
        """Return the state, as `read_state` does, after as many epochs as there is one of, `most` at the most, or
        None."""
        values = self._trial.hyperparameters.values
        paths = [self._path(epochs) for epochs in sorted(self.ends, reverse=True) if epochs < most]
        if self._resumable and "tuner/trial_id" in values:
            paths = [self._path_of_trial(values["tuner/trial_id"]), *paths]
        return next((state for path in paths if path and (state := read_state(path))), None)

    def leave(self, epochs, most, stage, rows, best):
        """Write the state after so many epochs, if another training may begin with it."""
        paths = [self._path(epochs) if epochs < max(self.ends) or self._is_a_part() else None]
        if self._resumable and epochs == most and self._budget is not None:
            paths.append(self._path_of_trial(self._trial.trial_id))
        for path in paths:
            if path is not None and not path.exists():
                optimizer = optimizer_hooks.capture(self._model)
                optimizer = {name: array for name, array in optimizer.items() if not name.startswith("weight/")}
                write_state(path, optimizer | self.weights(stage), rows, best)

    def weights(self, stage):
        """Return `{"weight/<index>": array}` of the layers that can have changed by a stage, which begins at a group
        or block."""
        start = self._layout.first(stage)
        return {
            f"weight/{index}": np.array(weight.numpy())
            for index, weight in enumerate(self._model.weights)
            if self._place.get(id(weight), start) >= start
        }

    def _path(self, epochs):
        """Return where the state after so many epochs lies, or None where no other trial can come to it."""
        origin = self.ends.get(epochs)
        if not self._share or origin is None or not _can_recur(self._tuner.hypermodel.space, origin):
            return None
        name = hashlib.sha256(json.dumps([origin, self._split], sort_keys=True).encode()).hexdigest()[:24]
        return pathlib.Path(self._tuner.project_dir) / "stages" / f"{name}.npz"

    def _path_of_trial(self, trial_id):
        return pathlib.Path(self._tuner.get_trial_dir(trial_id)) / f"state-{self._number}.npz"

    def _is_a_part(self):
        """Whether another trial can begin with all that this one trains, and unfreeze more."""
        space, mine = self._tuner.hypermodel.space, self._stages
        deeper = [space.stages(thaw) for thaw in space.fields.get(THAW, ())]
        return space.epochs is None and any(more[: len(mine)] == mine != more for more in deeper)


def ends(recipe, names):
    """Return `{number of epochs trained when a stage, the last too, ends: all that the state then depends on}`."""
    schedule, peaks = recipe.staging(names), list(recipe.peaks(names).values())
    found, stages, epochs = {}, [], 0
    for index, ((group, _), peak) in enumerate(zip(schedule.stages, peaks)):
        epochs += schedule.most_epochs(index)
        stages = [*stages, [group, schedule.most_epochs(index), peak]]
        fields = _ALWAYS if group == names[-1] else (*_ALWAYS, *_TRUNK)
        found[epochs] = {"stages": stages, "seed": recipe.seed} | {name: getattr(recipe, name) for name in fields}
    return found


def _can_recur(space, origin):
    """Whether two trials of a space can have one origin: not where a value of it was drawn from a continuum."""
    fields = ["learning_rate", "head_epochs", *(set(origin) & set(_ALWAYS))]
    if len(origin["stages"]) > 1 or origin["stages"][0][0] != space.names[-1]:
        fields += ["trunk_learning_rate", "epochs_per_stage", *_TRUNK]
    allowed = [space.fields.get(name) for name in fields]
    return not any(isinstance(one, Range) and not one.whole and one.step is None for one in allowed)


def assign(model, weights):
    """Give a model what `SharedStages.weights` returned."""
    for index, weight in enumerate(model.weights):
        if (array := weights.get(f"weight/{index}")) is not None:
            weight.assign(array)


def write_state(path, state, rows, best):
    """Write an `.npz` file: weights and optimizer, the history so far, and `(epoch, weights)` of the best epoch."""
    notes = json.dumps({"rows": rows, "best": best[0]}).encode()
    arrays = {f"state:{name}": array for name, array in state.items()}
    arrays |= {f"best:{name}": array for name, array in best[1].items()}
    files.write_arrays(path, told=np.frombuffer(notes, "uint8"), **arrays)


def read_state(path):
    """Return `(state, rows, best)` as they were given to `write_state`, or None where there is no such file."""
    try:
        content = pathlib.Path(path).read_bytes()  # at once: another process may replace it
    except FileNotFoundError:
        return None
    with np.load(io.BytesIO(content), allow_pickle=False) as file:
        notes = json.loads(file["told"].tobytes())
        parts = {"state": {}, "best": {}}
        for name in file.files:
            part, _, rest = name.partition(":")
            if rest:
                parts[part][rest] = file[name]
    return parts["state"], notes["rows"], (notes["best"], parts["best"])
