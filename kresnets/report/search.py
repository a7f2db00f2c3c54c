"""The page of a search: every trial, what mattered and what won, in one file that asks nothing of the network."""

import importlib.resources
import json
import math
import os
from collections.abc import Iterable, Sequence

from kresnets._util import files
from kresnets.report import page
from kresnets.report import search_plots as plots
from kresnets.report.importance import FEWEST, importance
from kresnets.report.parameters import column, described, rate_of

DIRECTIONS = ("min", "max")
STATUSES = ("completed", "pruned", "failed", "repeated", "running")
_RELOAD = 30  # seconds

# The page can fetch nothing. Plotly's parallel coordinates make their WebGL functions at run time: 'unsafe-eval'.
_POLICY = "default-src 'none'; script-src 'unsafe-inline' 'unsafe-eval'; style-src 'unsafe-inline'; img-src data: blob:"

_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<meta name="color-scheme" content="light dark">{reload}
<link rel="icon" href="data:,">
<title>{title}</title>
<style>{style}</style>
</head>
<body>
<main>
<h1>{title}</h1>
{body}
</main>
<script type="application/json" id="data">{data}</script>
<script>{plotly}</script>
<script>{script}</script>
</body>
</html>
"""


def search_page(
    path: str | os.PathLike,
    records: Iterable[dict],
    objective: tuple[str, str] = ("val_loss", "min"),
    space: dict | None = None,
    title: str = "Search",
    command: str = "",
    winner: dict | None = None,
    notes: Sequence[str] = (),
    total: int | None = None,
    running: bool = False,
) -> None:
    """Write the page of a search: one self-contained, interactive HTML file.

    Args:
        path: where the page goes.
        records: list of dicts, one a trial, as `kresnets.tuning.read_records` gives them: `trial_id` and `status` (one
            of `STATUSES`); where known `score`, `values` (hyperparameter -> plain value; one that plays no role in the
            trial is absent), `reason`, `started` (unix seconds), `seconds`, `epochs`, `scores` and `history` (a list of
            one dict an epoch: `epoch`, `stage`, `loss`, `accuracy`, `val_loss`, `val_accuracy`).
        objective: `(name, "min" or "max")` of the score. Defaults to `("val_loss", "min")`.
        space: the space as data, field -> list of choices, dict with `min`, `max` and `log`, or fixed value: it orders
            the parameters and says which axes are logarithmic. None: both are told from the values. Defaults to None.
        title: string. Defaults to `"Search"`.
        command: string, the command that gives the search again. Defaults to none.
        winner: dict of the verdict on the test part: `winner` and `default`, dicts as
            `kresnets.report.metrics.evaluate` gives
            them, and others that `names`, all of them in order, has; `difference`, a dict metric -> number, with the
            interval of the first as `interval`, and `sentence`. Each may be absent. None: there is no verdict yet.
            Defaults to None.
        notes: sentences for the end of the page. Defaults to none.
        total: how many trials the search is to make, where that is known. Defaults to None.
        running: whether the search goes on: the page says so, and loads itself again each 30 seconds. Defaults to
            False.

    Raises:
        ImportError: where Plotly is not installed.
        ValueError: for an objective that is no such pair, or a record without `trial_id` or with another `status`.

    Example:
        >>> from kresnets.report.search import search_page
        >>> record = {"trial_id": "00", "status": "completed", "score": 0.3, "values": {"thaw": "stage4"}}
        >>> search_page("/tmp/search.html", [record])
    """
    try:
        from plotly.offline import get_plotlyjs
    except ImportError:
        raise ImportError(
            "The page of a search is drawn with Plotly, which is not installed: pip install kresnets[search]"
        ) from None
    records = _checked(_plain(records), objective)
    completed = _completed(records)
    best = (min if objective[1] == "min" else max)(completed, key=lambda record: record["score"], default=None)
    parameters = described(records, space or {})
    explained, rows = importance({p["name"]: column(p, completed) for p in parameters}, [r["score"] for r in completed])
    sections = _plots(records, completed, best, parameters, objective, explained, rows)
    data = {"plots": [figure for _, _, figures in sections for figure in figures], "themes": plots.themes()}
    parts = (
        _state(records, total, running),
        _numbers(records, best, objective, total),
        _verdict(winner or {}),
        _failures(records),
        _BAR,
        *(_plot(*section) for section in sections),
        page.section("All trials", _table(records, parameters, objective)),
        page.section("Notes", _list(notes)),
        page.section("The same again", command and f"<pre>{page.escaped(command)}</pre>"),
    )
    assets = importlib.resources.files("kresnets.report")
    made = _PAGE.format(
        policy=_POLICY,
        reload=f'\n<meta http-equiv="refresh" content="{_RELOAD}">' if running else "",
        title=page.escaped(title),
        style=page.STYLE + assets.joinpath("search.css").read_text("utf-8"),
        body="\n".join(part for part in parts if part),
        data=_embedded(data),
        plotly=get_plotlyjs(),
        script=assets.joinpath("search.js").read_text("utf-8"),
    )
    files.write_bytes(path, made.encode("utf-8", errors="backslashreplace"))


def _plain(value):
    """Return a copy that JSON can hold: what is no finite number is None, tuples are lists."""
    if isinstance(value, dict):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(inner) for inner in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _checked(records, objective):
    if not isinstance(objective, (tuple, list)) or len(objective) != 2 or objective[1] not in DIRECTIONS:
        raise ValueError(
            f"`objective` must be a name and one of {DIRECTIONS} such as ('val_loss', 'min'). Received: {objective!r}"
        )
    for record in records:
        if "trial_id" not in record or record.get("status") not in STATUSES:
            raise ValueError(f"A record needs a `trial_id` and a `status`, one of {STATUSES}. Received: {record!r}")
    return records


def _completed(records):
    """Return the trials whose scores can be compared: a pruned one's is of fewer epochs, a repeated one's another's."""
    return [record for record in records if record["status"] == "completed" and record.get("score") is not None]


def _embedded(data):
    """Return JSON that cannot end the element which holds it, whatever a value is called."""
    text = json.dumps(data, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _time(seconds):
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"


def _number(value):
    return "–" if value is None else f"{value:.4g}" if isinstance(value, float) else str(value)


def _list(sentences):
    return "<ul>" + "".join(f"<li>{page.escaped(each)}</li>" for each in sentences) + "</ul>" if sentences else ""


def _state(records, total, running):
    if not running:
        return ""
    left = f" of {total}" if total else ""
    finished = sum(record["status"] != "running" for record in records)
    return (
        f'<p class="live" role="status">The search is running: {finished}{left} trials are done. '
        f"This page shows the state at its last trial, and loads itself again every {_RELOAD} seconds.</p>"
    )


def _numbers(records, best, objective, total):
    count = {status: sum(record["status"] == status for record in records) for status in STATUSES}
    finished = len(records) - count["running"]
    wanted = {"min": "lower", "max": "higher"}[objective[1]]
    running, done = count["running"], f"{finished} of {total}" if total else f"{finished}"
    boxes = [
        (f"best {objective[0]}", _number(best and best["score"]), f"trial {best['trial_id']}" if best else "none yet"),
        ("trials done", done, f"{running} running" if running else ""),
        ("completed", str(count["completed"]), f"{count['repeated']} repeated, not run" if count["repeated"] else ""),
        ("pruned", str(count["pruned"]), "stopped early" if count["pruned"] else ""),
        ("failed", str(count["failed"]), "reasons below" if count["failed"] else ""),
        ("time in trials", _time(sum(record.get("seconds") or 0 for record in records)), ""),
    ]
    boxes = "".join(
        f"<div><small>{page.escaped(name)}</small><b>{page.escaped(value)}</b>"
        f"<small>{page.escaped(below)}</small></div>"
        for name, value, below in boxes
    )
    text = f"The score is {objective[0]} on validation data; {wanted} is better."
    if best:
        values = ", ".join(f"{name} {_number(value)}" for name, value in (best.get("values") or {}).items())
        text += f" Best so far: trial {best['trial_id']}" + (f" with {values}." if values else ".")
        text += " The best of many is partly luck: a score on validation data that chose it is too good."
    return f'<div class="numbers">{boxes}</div>\n<p class="soft">{page.escaped(text)}</p>'


def _verdict(winner):
    """Return what the test part says: the winner beside the default recipe and others, with intervals."""
    judged = {name: winner[name] for name in winner.get("names", ("winner", "default")) if winner.get(name)}
    names = dict.fromkeys(name for metrics in judged.values() for name in metrics)
    rows = [
        (page.TITLES.get(name, name.replace("_", " ")),
         *(cell for metrics in judged.values() for cell in (metrics.get(name), page.interval(metrics, name))))
        for name in names if name not in ("per_class", "notes") and not name.endswith(page.INTERVAL_SUFFIX)
    ]  # fmt: skip
    content = f"<p><b>{page.escaped(winner['sentence'])}</b></p>" if winner.get("sentence") else ""
    if rows:
        titles = {"default": "default recipe", "start": "where the search started"}
        content += page.table(("", *(cell for name in judged for cell in (titles.get(name, name), "95 %"))), rows)
    difference = dict(winner.get("difference") or {})
    low, high = difference.pop("interval", None) or (None, None)
    for name, value in difference.items():
        between = "" if low is None else f", 95 % interval {low:+.3f} to {high:+.3f}"
        unsure = " It contains 0: chance alone can make such a difference." if between and low <= 0 <= high else ""
        content += f'<p class="soft">Difference in {page.escaped(name)}: {value:+.3f}{between}.{unsure}</p>'
        low = None  # it is the first one's
    return page.section("The winner on the test part", content and f'<div class="verdict">{content}</div>')


def _failures(records):
    reasons = {}
    for record in records:
        if record["status"] == "failed":
            reason = record.get("reason") or "no reason was recorded"
            reasons.setdefault(reason, []).append(record["trial_id"])
    common = sorted(reasons.items(), key=lambda pair: -len(pair[1]))[:5]
    rest = sum(map(len, reasons.values())) - sum(len(ids) for _, ids in common)
    lines = [
        f"{len(ids)} × {reason} (trial{'s' * (len(ids) > 1)} {', '.join(map(str, ids[:5]))}{', …' * (len(ids) > 5)})"
        for reason, ids in common
    ]
    return page.section(
        "Why trials failed", _list(lines + [f"{rest} more, for other reasons: see the table."] * bool(rest))
    )


# The bar is empty where no script runs, and then it is not shown.
_BAR = """<noscript><p>The plots need JavaScript; the table below holds every trial without it.</p></noscript>
<div id="bar" hidden><button id="all" type="button" hidden>all trials</button>
<span id="trial" role="status" aria-live="polite"></span></div>"""


def _plots(records, completed, best, parameters, objective, explained, rows):
    """Return the sections of the plots: heading, how to read it or why it is not there, figures."""
    name, sections = objective[0], []

    def add(heading, figures, text, reason):
        sections.append((heading, text if figures else reason, figures))

    varied = [parameter for parameter in parameters if len(parameter["choices"]) > 1]
    named = {parameter["name"]: parameter for parameter in varied}
    same = [f"{p['name']} {_number(p['choices'][0])}" for p in parameters if len(p["choices"]) == 1]
    fixed = f" The same in every trial: {', '.join(same)}." if same else ""
    nothing = "" if completed else "No trial has completed yet, so there is nothing to draw."
    figure = plots.history(records, objective, best)
    add(
        "Best so far",
        [figure] if figure else [],
        f"Each point is a trial at its {name}; the line is the best up to then, the star the best of all. Where it "
        "has long been flat, more trials promise little. Rings were pruned (their score is of fewer epochs), crosses "
        "at the edge failed. A click on a name hides its points; a click on a point shows that trial everywhere; a "
        f"drag zooms, a double click goes back.{_beyond(records, objective)}",
        "No trial has ended yet.",
    )
    alike, some = nothing or f"No hyperparameter differs between the trials yet.{fixed}", completed and varied
    add(
        "What good trials have in common",
        [plots.parallel(completed, varied, objective)] if some else [],
        "Each line is a completed trial, through its value of each hyperparameter to its score; the stronger its blue, "
        "the better, and the best one is orange. Where all good lines meet on an axis, that value matters. A line that "
        "touches “–” does not use the parameter. Drag along an axis to keep only the trials through that part, click "
        f"on it to let go; drag the name of an axis to move it.{fixed}",
        alike,
    )
    add(
        "Each hyperparameter against the score",
        plots.slices(completed, varied, objective, rows) if some else [],
        f"One plot a hyperparameter, the most important first, and {name} upwards; only trials that use the "
        "parameter. A slope or a dip matters; a flat cloud does not. A box holds the middle half of the trials with a "
        "choice, the line in it is their median.",
        alike,
    )
    few = f"Importance needs {FEWEST} completed trials with different values and scores; there are {len(completed)}."
    add("What mattered", [plots.importance(rows)] if rows else [], _importance_text(explained, rows), few)
    rate = rate_of(parameters)
    add(
        "Freeze depth and rate",
        [plots.depth_map(completed, named["thaw"], named[rate], objective)]
        if some and rate and "thaw" in named
        else [],
        f"The median {name} of the trials in each cell, and how many they are; the stronger the blue, the better, and "
        "a frame marks the best cell. A good cell of one trial may be luck. Trials that unfreeze more are higher. A "
        "click shows a cell's trials.",
        nothing or "This needs trials that differ in `thaw` and in a learning rate.",
    )
    figure = plots.curves(completed, objective, best)
    add(
        "The winner's curves",
        [figure] if figure else [],
        "Loss and accuracy by epoch of the best trial, or of the one that is chosen (then the best one's validation is "
        "dotted); a dashed line is where a stage begins. Validation that turns while training goes on is overfitting.",
        nothing or "No trial recorded its epochs.",
    )
    return sections


def _beyond(records, objective):
    low, high = plots.shown(records, objective[1]) or (0, 0)
    count = sum(not low <= record["score"] <= high for record in records if record.get("score") is not None)
    return f" {count} {'are' if count > 1 else 'is'} beyond the axis: a double click shows them." if count else ""


def _plot(heading, text, figures):
    places = "".join(
        f'<figure class="plot" id="{each["id"]}" aria-label="{heading}" '
        f'style="height: {each["height"]}px; min-width: {each["least"]}px"></figure>'
        for each in figures
    )
    places = f'<div class="{"plots" if len(figures) > 1 else "wide"}">{places}</div>' if places else ""
    return page.section(heading, f'<p class="soft">{page.escaped(text)}</p>{places}')


def _importance_text(explained, rows):
    if not rows:
        return ""
    unsure = [row["name"] for row in rows if row["low"] <= 0.01]
    text = (
        "Permutation importance (scikit-learn) on a random forest that predicts the rank of a completed trial's score: "
        "the share of the ranks' variance that goes through a parameter, alone or with others. The line spans 90 % of "
        "20 bootstrap resamples of the trials, each judged on the trials it left out. On those the forest explains "
        f"{max(explained, 0):.0%} of the variance."
    )
    if explained < 0.2:
        text += " That is close to nothing: too few trials, or mostly noise, so do not trust this order."
    elif unsure:
        text += f" Not told apart from no importance: {', '.join(unsure)}."
    return text


def _table(records, parameters, objective):
    """Return the table of all trials, best first; it can be read and sorted without a plot."""
    if not records:
        return '<p class="soft">No trial has begun yet.</p>'
    names = [parameter["name"] for parameter in parameters]
    sign = 1 if objective[1] == "min" else -1

    def rank(record):
        status, score = STATUSES.index(record["status"]), record.get("score")
        return status, score is None, sign * (score or 0), str(record["trial_id"])

    header = ("trial", "status", objective[0], *names, "epochs", "seconds", "reason")
    head = "".join(f'<th scope="col"><button type="button">{page.escaped(name)}</button></th>' for name in header)
    body = "\n".join(_row(record, names) for record in sorted(records, key=rank))
    return (
        '<p class="soft">A click on a heading sorts, a click on a row shows that trial in every plot.</p>'
        f'<div class="wide trials"><table id="trials">\n<thead><tr>{head}</tr></thead>\n'
        f"<tbody>\n{body}\n</tbody></table></div>"
    )


def _row(record, names):
    values, seconds = record.get("values") or {}, record.get("seconds")
    cells = [
        record.get("score"), *(values.get(name, "") for name in names), record.get("epochs"),
        None if seconds is None else round(seconds, 1), record.get("reason") or "",
    ]  # fmt: skip
    identity, status = page.escaped(str(record["trial_id"])), record["status"]
    return (
        f'<tr data-trial="{identity}"><td><button type="button">{identity}</button></td>'
        f'<td class="{status}">{status}</td>{"".join(map(_cell, cells))}</tr>'
    )


def _cell(value):
    # Rounded to be read; sorted by the whole number.
    whole = f' data-value="{value!r}"' if isinstance(value, float) else ""
    text = _number(value) if value is None or isinstance(value, (int, float)) else value
    return f"<td{whole}>{page.escaped(text)}</td>"
