"""What a search chooses among, as data: fields of a `Recipe`, and how much of the trunk it unfreezes."""

import dataclasses
import os
import tomllib

from kresnets._util.checks import is_number, is_whole
from kresnets.transfer.recipe import Recipe

THAW = "thaw"
UNFREEZE = "unfreeze"
GRADUAL, AT_ONCE = "gradual", "at_once"
# Set by the search itself, or of no meaning for one: a trial's stages come from `thaw`, and its seed from the search.
_NOT_SEARCHED = (
    "stages", "timetable", "seed", "advance", "patience", "max_epochs_per_stage", "restore_best", "ramp",
)  # fmt: skip
FIELDS = (THAW, UNFREEZE, *(field.name for field in dataclasses.fields(Recipe) if field.name not in _NOT_SEARCHED))
_KIND = Recipe.textbook()  # a value of each field's kind
# What makes no difference unless something else has certain values: `(field, test of it)`.
_ONLY_IF = {
    "learning_rate": ("head_epochs", lambda value: value > 0),
    "trunk_learning_rate": (THAW, None),
    "ratio": (THAW, None),
    "batchnorm": (THAW, None),
    "epochs_per_stage": (THAW, None),
    "warmup": ("schedule", lambda value: value == "cosine"),
    "views": ("augment", lambda value: value != "none"),
}
_RANGE = {"min", "max", "step", "log"}


@dataclasses.dataclass(frozen=True)
class Range:
    """Say which numbers a field may take.

    Args:
        min: smallest, included.
        max: largest, included.
        step: distance of the numbers from `min` on; a factor, above 1, where `log`. None for all (all whole numbers of
            a field that counts). Defaults to None.
        log: whether small and large orders of magnitude are equally likely. Defaults to False.
    """

    min: float
    max: float
    step: float | None = None
    log: bool = False

    @property
    def whole(self):
        """Whether the numbers are whole."""
        return all(isinstance(value, int) for value in (self.min, self.max, self.step) if value is not None)

    def values(self):
        """Return all numbers of a whole range."""
        found, value = [], self.min
        while value <= self.max:
            found.append(value)
            # Keras Tuner's logarithmic whole numbers without a step are all of them, the small ones more often.
            value = value * self.step if self.log and self.step else value + (self.step or 1)
        return found


DEFAULT = {
    "learning_rate": {"min": 1e-4, "max": 1e-2, "log": True},
    "trunk_learning_rate": {"min": 1e-5, "max": 1e-3, "log": True},
    "ratio": [0.1, 0.3, 0.5, 1.0],
    "batchnorm": ["frozen", "train"],
    UNFREEZE: [GRADUAL, AT_ONCE],
}
_AROUND = 10  # the default's range of a rate reaches from a tenth of the base's to ten times it


class Space:
    """Hold what a search chooses among: field -> choices, range, or one value.

    Fields are those of `kresnets.Recipe` (but for `stages` and the like) and `thaw`: the deepest group or block that
    learns in the end, the head's name for none of the trunk. The groups above it are unfrozen before it, one after the
    other, or with it where `unfreeze` is `"at_once"` (its other choice is `"gradual"`).
    A field that makes no difference in a trial (the ratio where nothing is unfrozen) is not chosen in it.

    Args:
        fields: dict of field -> list of choices, a `Range` or dict `{min, max, step, log}`, or one value that is kept;
            or the path of a TOML file of such. What is not named is as in `base`. None for `thaw`, both rates, the
            ratio and the batch-norm policy, what `base` has among the choices. Defaults to None.
        names: the groups of the network in order, the head last (`kresnets.groups(model)`).
        base: the `Recipe` that all trials are variations of. What it leaves to the rule stays so in `recipe`, until
            `on` puts the resolved one in its place. Defaults to `Recipe()`.
        epochs: whole number from 2, or None; with it every trial trains so many epochs in all, however much it
            unfreezes: what the head's stage leaves is divided among the others, and a rest goes to the head. Defaults
            to None.
        check: function of a group or block that raises a ValueError where the network lacks it; None looks at `names`
            alone. Defaults to None.

    Raises:
        ValueError: for an empty space, an unknown field or group, or a value that no `Recipe` takes; before any trial.

    Example:
        >>> from kresnets.tuning import Space
        >>> groups = ("stem", "stage1", "stage2", "stage3", "head")
        >>> space = Space({"thaw": ["head", "stage3"], "ratio": [0.3, 1.0]}, groups)
        >>> space.recipe({"thaw": "stage3", "ratio": 0.3}).stages
        ('stage3',)
        >>> space.active({"thaw": "head", "ratio": 0.3})
        {'thaw': 'head'}
    """

    def __init__(self, fields, names, base=None, epochs=None, check=None):
        if base is not None and not isinstance(base, Recipe):
            raise ValueError(f"`base` must be a kresnets.Recipe, or None. Received: {base!r}")
        self.names, self.base, self.epochs = tuple(names), base or Recipe(), epochs
        self.is_default, self._check_place = fields is None, check or self._check_group
        if epochs is not None and not is_whole(epochs, 2):
            raise ValueError(f"`epochs` of a trial must be a whole number from 2. Received: {epochs!r}")
        if self.base.timetable is not None or self.base.advance != "epochs":
            raise ValueError("A search takes a recipe of fixed epochs: leave out its timetable, and advance='plateau'.")
        source = "The space"
        if isinstance(fields, (str, os.PathLike)):
            source, fields = f"The space {fields}", _read_toml(fields)
        if fields is None:
            fields = self._default()
        if not isinstance(fields, dict) or not fields:
            raise ValueError(
                f"{source} must name at least one field with its choices, such as thaw = ['head', 'stage4']. Received: "
                f"{fields!r}"
            )
        self.fields = {name: self._field(source, name, value) for name, value in fields.items()}
        self._check()

    def on(self, base, epochs=None, anew=False):
        """Return this space on another base.

        Args:
            base: a `Recipe`.
            epochs: as of the space. Defaults to None.
            anew: whether the choices of the default space are those around this base. Defaults to False.
        """
        fields = None if self.is_default and anew else self.fields
        found = Space(fields, self.names, base, epochs, self._check_place)
        found.is_default = self.is_default
        return found

    def _default(self):
        """Return the fields of the default space: what the base has is among the choices of each."""
        fields = {THAW: [self.names[-1], *reversed(self.names[1:-1])], **DEFAULT}
        if self.base.unresolved:
            return fields
        for name in ("learning_rate", "trunk_learning_rate"):
            rate = getattr(self.base, name)
            fields[name] = {"min": rate / _AROUND, "max": rate * _AROUND, "log": True}
        fields["ratio"] = sorted({*fields["ratio"], float(self.base.ratio)})
        thaw = self.words().get(THAW)
        if thaw is not None and thaw not in fields[THAW]:
            fields[THAW].append(thaw)
        deepest = max(len(self.stages(name)) for name in fields[THAW])
        if self.epochs is not None and self.base.head_epochs + deepest > self.epochs:
            fields[UNFREEZE] = [AT_ONCE]  # there are too few epochs for one group after the other
        return fields

    def words(self):
        """Return the base in the words of a trial: field -> value, with `thaw` and `unfreeze` where they can say its
        stages."""
        names = [name for name in FIELDS if name not in (THAW, UNFREEZE) and not self.base.is_auto(name)]
        values = {name: getattr(self.base, name) for name in names}
        if not self.base.is_auto("stages"):
            stages = self._stages_of_base()
            thaw = stages[-1] if stages else self.names[-1]
            for way in (GRADUAL, AT_ONCE):
                if _group(thaw) in self.names and self.stages(thaw, way) == stages:
                    return {THAW: thaw, UNFREEZE: way} | values
        return values

    def _field(self, source, name, value):
        if name not in FIELDS:
            raise ValueError(f"{source} names {name!r}, which is no field: use {', '.join(FIELDS)}.")
        if name == "epochs_per_stage" and self.epochs is not None:
            raise ValueError(f"{source} names epochs_per_stage, which `epochs` says already: leave one of them out.")
        if isinstance(value, dict):
            if not {"min", "max"} <= value.keys() <= _RANGE:
                raise ValueError(
                    f"{source}: the range of {name!r} must have min and max, and may have step and log. Received: "
                    f"{value!r}"
                )
            value = Range(**value)
        if isinstance(value, Range):
            return _checked_range(source, name, value)
        choices = list(value) if isinstance(value, (list, tuple)) else [value]
        # A truth value counts as a number in Python alone.
        kinds = {
            bool if isinstance(one, bool) else float if isinstance(one, (int, float)) else type(one) for one in choices
        }
        if kinds not in ({str}, {float}):
            raise ValueError(
                f"{source}: {name!r} must have numbers or names to choose from, of one kind, or a range "
                f"{{min, max}}. Received: {value!r}"
            )
        if any(isinstance(choice, float) for choice in choices):
            choices = [float(choice) for choice in choices]  # Keras Tuner takes no mixture
        return tuple(dict.fromkeys(choices))

    def _check_group(self, name):
        if _group(name) not in self.names:
            raise ValueError(f"The network has no group {name!r}: use {', '.join(self.names)}, or a block of one.")

    def _check(self):
        for name in self.fields.get(THAW, () if self.base.is_auto("stages") else self.base.stages or ()):
            self._check_place(name)
        for name, allowed in self.fields.items():
            if name == UNFREEZE and (THAW not in self.fields or not set(allowed) <= {GRADUAL, AT_ONCE}):
                raise ValueError(
                    f"The space: unfreeze goes with thaw, and is {GRADUAL!r} or {AT_ONCE!r}. Received: {list(allowed)}"
                )
            if name in (THAW, UNFREEZE):
                continue
            for value in _ends(allowed):
                try:
                    dataclasses.replace(self.base, stages=self.names[:1], **{name: value})
                except ValueError as error:
                    raise ValueError(f"The space: {error}") from None
        # What the rule will say is not known yet: it takes one epoch at the least.
        own = 1 if self.base.is_auto("head_epochs") else self.base.head_epochs
        head_epochs, deepest = _ends(self.fields.get("head_epochs", (own,))), self.deepest()
        if self.epochs is not None and max(head_epochs) + deepest > self.epochs and deepest:
            raise ValueError(
                f"Trials of {self.epochs} epochs are too short for {max(head_epochs)} of the head and one for each of "
                f"{deepest} stages of the trunk: give more epochs, fewer head_epochs, or thaw less."
            )
        head = self.names[-1]
        if self._head_alone() and min(head_epochs) == 0 and self.epochs is None:
            raise ValueError(
                f"Where {head!r} alone learns and head_epochs is 0 nothing would learn: start head_epochs at 1, or "
                f"leave {head!r} out of thaw."
            )
        several = (name for name, one in self.fields.items() if isinstance(one, Range) or len(one) > 1)
        if not any((self.condition(name) or (None, True))[1] for name in several):
            raise ValueError("The space holds one recipe alone: give at least one field two choices, or a range.")

    def _stages_of_base(self):
        """Return the stages of the base, which the rule has not to say."""
        return self.names[2:-1][::-1] if self.base.stages is None else tuple(self.base.stages)

    def _head_alone(self):
        """Whether nothing but the head learns in some trial."""
        return self.names[-1] in self.fields[THAW] if THAW in self.fields else self.base.stages == ()

    def deepest(self):
        """Return how many stages the deepest unfreezing has."""
        if THAW not in self.fields:
            return 1 if self.base.is_auto("stages") else len(self._stages_of_base())
        ways = self.fields.get(UNFREEZE, (GRADUAL,))
        return max(len(self.stages(name, way)) for name in self.fields[THAW] for way in ways)

    def stages(self, thaw, unfreeze=GRADUAL):
        """Return the groups that are unfrozen one after the other down to `thaw`."""
        if thaw == self.names[-1]:
            return ()
        if unfreeze == AT_ONCE:
            return (thaw,)
        above = self.names[self.names.index(thaw if thaw in self.names else _group(thaw)) + 1 : -1]
        return (*reversed(above), thaw)

    def condition(self, name):
        """Return `(field, its values)` under which a field makes a difference, or None where it always does; no values
        where it never does, by what `base` says."""
        rules = dict(_ONLY_IF)
        if self.epochs is not None:
            rules["head_epochs"] = (THAW, None)
            if self._head_alone():  # for all of them, at its rate, whatever `head_epochs`
                del rules["learning_rate"]
        if name == UNFREEZE:
            rules[name] = (THAW, lambda value: len(self.stages(value)) > 1)
        if not rules.get(name):
            return None
        parent, matters = rules[name]
        if parent not in self.fields:
            if self.base.is_auto("stages" if parent == THAW else parent):
                return None
            always = self.base.stages != () if parent == THAW else matters(getattr(self.base, parent))
            return None if always else (parent, [])
        allowed = self.fields[parent]
        values = allowed.values() if isinstance(allowed, Range) else allowed
        matters = matters or (lambda value: value != self.names[-1])
        return parent, [value for value in values if matters(value)]

    def ordered(self):
        """Return the fields, each after the one that it hangs on."""
        first = [name for name in (THAW, "head_epochs", "schedule", "augment") if name in self.fields]
        return [*first, *(name for name in self.fields if name not in first)]

    def active(self, values):
        """Return those of a trial's values that make a difference in it."""
        found = {}
        for name in self.ordered():
            condition = self.condition(name)
            if name in values and (condition is None or found.get(condition[0]) in condition[1]):
                found[name] = values[name]
        return found

    def same(self, values, others):
        """Return whether the trials of two dicts of values come to the same training."""
        return self.recipe(values) == self.recipe(others)

    def recipe(self, values, seed=None):
        """Return the `Recipe` of a trial.

        Args:
            values: dict of field -> value; what is missing is as in `base`.
            seed: of the recipe. Defaults to None, that of `base`.
        """
        values = self.active(values)
        changed = {name: value for name, value in values.items() if name not in (THAW, UNFREEZE)}
        if THAW in values:
            changed["stages"] = self.stages(values[THAW], values.get(UNFREEZE, GRADUAL))
        if seed is not None:
            changed["seed"] = seed
        stages = changed.get("stages", self.base.stages)
        if self.epochs is not None and stages == ():
            changed["head_epochs"] = self.epochs
        recipe = dataclasses.replace(self.base, **changed)
        if recipe.head_epochs == 0:  # then nothing learns at the head's rate
            recipe = dataclasses.replace(recipe, learning_rate=self.base.learning_rate)
        if self.epochs is None or stages == ():
            return recipe
        trunk = len(recipe.staging(self.names).stages) - bool(recipe.head_epochs)
        each = (self.epochs - recipe.head_epochs) // trunk
        if not each:
            raise ValueError(
                f"{self.epochs} epochs are too few for {recipe.head_epochs} of the head and {trunk} stages of the "
                "trunk."
            )
        head = self.epochs - each * trunk if recipe.head_epochs else 0
        return dataclasses.replace(recipe, head_epochs=head, epochs_per_stage=each)

    def declare(self, hp):
        """Declare the fields on Keras Tuner's `HyperParameters`, with their conditions."""
        for name in self.ordered():
            condition = self.condition(name)
            if condition is None:
                _declare(hp, name, self.fields[name])
            elif condition[1]:
                with hp.conditional_scope(condition[0], condition[1]):
                    _declare(hp, name, self.fields[name])

    def as_data(self):
        """Return the space as JSON can say it."""
        return {
            name: dataclasses.asdict(allowed) if isinstance(allowed, Range) else list(allowed)
            for name, allowed in self.fields.items()
        }


def _ends(allowed):
    """Return the ends of a range, or all choices."""
    return (allowed.min, allowed.max) if isinstance(allowed, Range) else allowed


def _group(place):
    """Return the group of a block, or the group that it is."""
    return place.rpartition("_block")[0] or place if isinstance(place, str) else place


def _read_toml(path):
    try:
        with open(path, "rb") as file:
            return tomllib.load(file)
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"The space {path} is no TOML file: {str(error).rstrip('.')}.") from None
    except OSError as error:
        raise ValueError(f"The space {path} cannot be read: {error.strerror}.") from None


def _checked_range(source, name, found):
    """Return a range as it suits its field: of whole numbers where that counts, else of floats."""
    least, counts = 1 if found.log else 0, isinstance(getattr(_KIND, name, ""), int)
    numbers = [value for value in (found.min, found.max, found.step) if value is not None]
    problem = None
    if not all(map(is_number, numbers)):
        problem = f"the range of {name!r} must be numbers"
    elif isinstance(getattr(_KIND, name, ""), str):
        problem = f"{name!r} has names to choose from, no range"
    elif not isinstance(found.log, bool):
        problem = f"`log` of the range of {name!r} must be true or false"
    elif found.min >= found.max or found.log and found.min <= 0 or found.step is not None and found.step <= least:
        above = ", above 0" if found.log else ""
        problem = f"the range of {name!r} must rise from min to max{above}, by a step above {least}"
    elif counts and not found.whole:
        problem = f"{name!r} counts: its range must be of whole numbers"
    if problem:
        raise ValueError(f"{source}: {problem}. Received: {found}")
    if counts or not found.whole:
        return found
    return Range(float(found.min), float(found.max), None if found.step is None else float(found.step), found.log)


def _declare(hp, name, allowed):
    if not isinstance(allowed, Range):
        if len(allowed) == 1:
            hp.Fixed(name, allowed[0])
        else:
            hp.Choice(name, list(allowed))
        return
    options = {"sampling": "log"} if allowed.log else {}
    if allowed.step is not None:
        options["step"] = allowed.step
    (hp.Int if allowed.whole else hp.Float)(name, allowed.min, allowed.max, **options)
