"""The hyperparameters of a search as a plot sees them: their scales, and the order of their choices."""

import json
import math
import re

_RATES = ("trunk_learning_rate", "learning_rate")
FEW = 8  # different values; more of them are a range
_WIDE = 20  # times the smallest value; from there on a range is looked at on a logarithmic axis


def described(records, space):
    """Return what the plots must know of each hyperparameter: its scale, and its values in order."""
    values = {}
    for name in [*space, *(name for record in records for name in record.get("values") or ())]:
        values.setdefault(name, {})
    for record in records:
        for name, value in (record.get("values") or {}).items():
            values[name].setdefault(json.dumps(value), value)
    return [_parameter(name, list(found.values()), space.get(name)) for name, found in values.items() if found]


def _parameter(name, found, allowed):
    numbers = all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in found)
    if not numbers:
        return {"name": name, "kind": "category", "choices": _ordered(found, allowed)}
    found = sorted(found)
    wide = found[0] > 0 and found[-1] >= _WIDE * found[0]
    log = allowed.get("log", wide) if isinstance(allowed, dict) else wide
    if log and found[0] > 0:
        return {"name": name, "kind": "log", "choices": found}
    # Zero among rates: no axis of numbers shows both, so they stand side by side.
    above = [value for value in found if value > 0]
    if found[0] == 0 and len(found) <= FEW and above and above[-1] >= _WIDE * above[0]:
        return {"name": name, "kind": "category", "choices": found}
    return {"name": name, "kind": "linear", "choices": found}


def _ordered(found, allowed):
    """Return choices by depth where they are groups and blocks of a network, else as the space has them."""
    depths = [depth(value) for value in found]
    if None not in depths:
        return [value for _, value in sorted(zip(depths, found), key=lambda pair: pair[0])]
    order = list(allowed) if isinstance(allowed, (list, tuple)) else []
    return sorted(found, key=lambda value: order.index(value) if value in order else len(order))


def depth(name):
    """Return what orders the groups and blocks of a network from the head down, or None for another name."""
    stage = re.fullmatch(r"stage(\d+)(?:_block(\d+))?", str(name))
    # All of a stage is deeper than its blocks.
    return (-int(stage[1]), -int(stage[2] or 0)) if stage else {"head": (-math.inf, 0), "stem": (1, 0)}.get(str(name))


def column(parameter, records):
    """Return a hyperparameter as numbers, on its scale; NaN where it plays no role."""
    places = {json.dumps(value): place for place, value in enumerate(parameter["choices"])}
    ways = {"category": lambda value: places[json.dumps(value)], "log": math.log10, "linear": float}
    name, number = parameter["name"], ways[parameter["kind"]]
    values = (record.get("values") or {} for record in records)
    return [number(each[name]) if name in each else math.nan for each in values]


def rate_of(parameters):
    """Return the learning rate that the map of freeze depth shows: that of the trunk, where the search varies it."""
    several = [parameter["name"] for parameter in parameters if len(parameter["choices"]) > 1]
    return next((name for name in _RATES if name in several), None)
