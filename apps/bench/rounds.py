"""Rounds that alternate, and what is made of them: medians, ratios with their spread, limits, a JSON file."""

import json
import statistics
import time

from kresnets._util import files


def seconds(function, *args, **kwargs):
    """Return the seconds that a call takes."""
    began = time.perf_counter()
    function(*args, **kwargs)
    return time.perf_counter() - began


def alternate(functions, rounds):
    """Call functions in turn, once to warm and then as often as asked.

    Args:
        functions: dict of name -> function without arguments that returns a number.
        rounds: int.

    Returns:
        Dict of name -> list of what it returned, without the first.
    """
    for function in functions.values():
        function()
    found = {name: [] for name in functions}
    for _ in range(rounds):
        for name, function in functions.items():
            found[name].append(function())
    return found


def ratio(ours, theirs):
    """Return the ratio of two medians, and the smallest and largest of the rounds."""
    each = [one / other for one, other in zip(ours, theirs, strict=True)]
    return statistics.median(ours) / statistics.median(theirs), min(each), max(each)


def limited(what, pairs, limit, of="ratio"):
    """Print two columns of rounds and whether their ratio A / B (or A, or A - B) is within its limit; return a row."""
    ours, theirs = pairs.values()
    a, b = statistics.median(ours), statistics.median(theirs)
    values = {"ratio": a / b, "a": a, "difference": a - b}
    kept = values[of] <= limit
    _, low, high = ratio(ours, theirs)
    print(f"{what}: A {a:.3f}, B {b:.3f}, A / B {a / b:.3f} ({low:.3f} to {high:.3f})")
    names = {"ratio": "A / B", "a": "A", "difference": "A - B"}
    print(f"    {names[of]} = {values[of]:.3f}, at most {limit}: {'kept' if kept else 'MISSED'}", flush=True)
    ratios = [one / other for one, other in zip(ours, theirs)]
    return {"what": what, "a": a, "b": b, "ratios": ratios, "limit": limit, "limit_of": names[of], "kept": kept}


def write(options, rows, **more):
    """Write a run's JSON file; return the exit code, 1 where a row has missed its limit."""
    from kresnets.devices.hardware import describe

    measured = {"machine": describe(), "options": {name: str(value) for name, value in vars(options).items()}}
    files.write_text(options.out, json.dumps({**measured, **more, "rows": rows}, indent=1) + "\n")
    print(f"{describe()}. {options.out}")
    return 0 if all(row.get("kept", True) for row in rows) else 1
