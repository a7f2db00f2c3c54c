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
    """Call functions that return a number in turn, dict of name -> function, once to warm and then as often as asked.

    Returns dict of name -> list of what it returned, without the first.
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


def tell(row):
    """Print what was measured, but for what is long, and return it."""

    def short(value):
        if isinstance(value, list | tuple):
            return " to ".join(map(short, value))
        return f"{value:.4g}" if isinstance(value, float) else str(value)

    told = [f"{name.replace('_', ' ')} {short(value)}" for name, value in row.items() if name not in ("what", "kept")]
    told = [text for text in told if len(text) < 100]
    told += [] if "kept" not in row else ["kept" if row["kept"] else "MISSED"]
    print(f"{row['what']}: {', '.join(told)}", flush=True)
    return row


def limited(what, pairs, limit, of="A / B"):
    """Tell two columns of rounds, and whether `of` them (`"A / B"`, `"A"`, `"A - B"`) is within its limit."""
    ours, theirs = pairs.values()
    a, b = statistics.median(ours), statistics.median(theirs)
    value = {"A / B": a / b, "A": a, "A - B": a - b}[of]
    ratios = [one / other for one, other in zip(ours, theirs)]
    row = {"what": what, "a": a, "b": b, "ratios": ratios, "value": value, "limit_of": of, "limit": limit}
    return tell(row | {"kept": value <= limit})


def write(options, rows, **more):
    """Write a run's JSON file; return the exit code, 1 where a row has missed its limit."""
    from kresnets.devices.hardware import describe

    measured = {"machine": describe(), "options": {name: str(value) for name, value in vars(options).items()}}
    files.write_text(options.out, json.dumps({**measured, **more, "rows": rows}, indent=1) + "\n")
    print(f"{describe()}. {options.out}")
    return 0 if all(row.get("kept", True) for row in rows) else 1
