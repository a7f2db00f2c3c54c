"""The plots of a search's page, as figures of Plotly: dicts that its JavaScript draws as they are."""

import html
import itertools
import json
import math
import statistics

import numpy as np

from kresnets.report.parameters import FEW, column

_BLUE, _ORANGE, _RED, _GREY = "#3a86e0", "#e8590c", "#e03131", "#8a929c"  # seen on light and on dark
_BINS = 6  # of a range of rates on the map
_UNUSED = -0.14  # below the axis, as a share of it: the trial does not use the parameter
_MARKS = {"completed": ("circle", _BLUE), "pruned": ("circle-open", _GREY), "failed": ("x", _RED)}
_BUTTONS = ["toImage", "zoom2d", "pan2d", "select2d", "resetScale2d"]


def themes() -> dict:
    """Return the template of each colour scheme: all that is not the same in light and dark."""
    light = ("#e3e7ed", "#bcd0ea", "#7fabdc", "#3a78bd", "#08397c")
    dark = ("#2b3038", "#2c4562", "#2f6093", "#3f83cc", "#8cc4ff")
    return {
        "light": _theme("#1c1e21", "#5f6670", "#dcdfe4", "#f5f6f8", light),
        "dark": _theme("#e6e8eb", "#9aa2ad", "#3a3f47", "#22252a", dark),
    }


def _theme(text, soft, line, box, shades):
    axis = {"gridcolor": line, "linecolor": line, "zeroline": False, "automargin": True, "tickfont": {"color": soft}}
    # The better, the fewer share a shade: among hundreds of lines only the best may be strong, and one is orange.
    ranks = [[at, shade] for at, shade in zip((0, 0.6, 0.85, 0.99), shades[1:])] + [[1, _ORANGE]]
    return {
        "layout": {
            "font": {"family": "system-ui, sans-serif", "size": 13, "color": text},
            "paper_bgcolor": "rgba(0,0,0,0)", "plot_bgcolor": "rgba(0,0,0,0)", "xaxis": axis, "yaxis": axis,
            "hoverlabel": {"align": "left", "bgcolor": box, "bordercolor": soft, "font": {"color": text}},
            "modebar": {"bgcolor": "rgba(0,0,0,0)", "color": soft, "activecolor": text},
            "coloraxis": {"colorscale": [[i / 4, shade] for i, shade in enumerate(shades)]},
        },
        "data": {
            "parcoords": [{"line": {"colorscale": ranks}, "unselected": {"line": {"color": line, "opacity": 0.3}}}],
            "box": [{"line": {"color": text, "width": 1.5}}],
        },
    }  # fmt: skip


def shown(records: list, direction: str) -> list | None:
    """Return the range of the axes of scores, or None where no trial has one.

    It ends where scores become rare, so that no diverged trial presses the others flat.
    """
    scores = [r["score"] for r in records if r.get("score") is not None]
    completed = [r["score"] for r in records if r["status"] == "completed" and r.get("score") is not None]
    if not scores:
        return None
    sign = 1 if direction == "min" else -1
    scores = np.sort(sign * np.array(completed or scores))
    best, quarter, worst = scores[0], np.quantile(scores, 0.75, method="higher"), scores[-1]
    worst = min(worst, quarter + 3 * (quarter - best)) if quarter > best else worst
    margin = 0.07 * (float(worst - best) or abs(float(worst)) or 1)
    return sorted((sign * float(best - margin), sign * float(worst + margin)))


def safe(value: object, longest: int = 60) -> str:
    """Return a value as people read it, without a tag: Plotly reads tags in its texts."""
    text = label(value)
    return html.escape(text if len(text) <= longest else text[: longest - 1] + "…", quote=False)


def label(value: object) -> str:
    """Return a value as people read it: 5e-05 rather than 0.00005, since rates are compared by their power of ten."""
    if isinstance(value, float):
        return f"{value:.4g}"
    return value if isinstance(value, str) else "none" if value is None else json.dumps(value)


def _about(record, objective):
    """Return what hovering says of a trial."""
    score = [f"{safe(objective)} <b>{safe(record['score'])}</b>"] if record.get("score") is not None else []
    values = [f"{safe(name)}: {safe(value)}" for name, value in (record.get("values") or {}).items()]
    reason = [safe(record["reason"], 120)] if record.get("reason") else []
    return "<br>".join([f"<b>trial {safe(record['trial_id'])}</b> · {record['status']}", *score, *values, *reason])


def _points(records, objective, **more):
    """Return a trace of one point a trial; `customdata` ties it to the table."""
    return {
        "type": "scatter", "mode": "markers", "customdata": [str(r["trial_id"]) for r in records],
        "text": [_about(r, objective) for r in records], "hovertemplate": "%{text}<extra></extra>", **more,
    }  # fmt: skip


def _figure(identity, traces, height, buttons=_BUTTONS, least=0, **layout):
    """Return a figure of a height and a least width in pixels: on a phone it is pushed sideways."""
    layout = {"hovermode": "closest", "showlegend": False, **layout}
    layout.setdefault("margin", {"l": 10, "r": 16, "t": 16, "b": 10})
    # Named one by one: Plotly's own list may offer to send the chart away.
    return {"id": identity, "data": traces, "layout": layout, "buttons": [buttons], "height": height, "least": least}


def _legend(y=1.02):
    return {"orientation": "h", "x": 0, "y": y, "yanchor": "bottom"}


def history(records: list, objective: tuple, best: dict | None) -> dict | None:
    """Return the scores in the order in which the trials ended, and the best so far; None where no trial has ended."""
    ended = [r for r in records if r["status"] not in ("running", "repeated")]
    ended.sort(key=lambda r: (r.get("started") or 0) + (r.get("seconds") or 0))
    if not ended:
        return None
    name, direction = objective
    limits = shown(records, direction)
    edge = 0 if limits is None else limits[direction == "min"]
    traces = [{
        "type": "scatter", "mode": "lines", "name": "best so far", "hoverinfo": "skip",
        "x": list(range(1, len(ended) + 1)), "y": _best_so_far(ended, direction),
        "line": {"shape": "hv", "color": _ORANGE, "width": 2.5},
    }]  # fmt: skip
    for status, (symbol, colour) in _MARKS.items():
        places = [i for i, r in enumerate(ended, 1) if r["status"] == status]
        if not places:
            continue
        those = [ended[i - 1] for i in places]
        marker = {
            "symbol": ["star" if r is best else symbol for r in those],
            "size": [15 if r is best else 6 if len(ended) > 150 else 9 for r in those],
            "color": [_ORANGE if r is best else colour for r in those],
            "opacity": 0.9, "line": {"width": 1.5 if symbol == "circle-open" else 0},
        }  # fmt: skip
        ys = [edge if r.get("score") is None else r["score"] for r in those]
        traces.append(_points(those, name, x=places, y=ys, name=status, marker=marker, cliponaxis=False))
    return _figure(
        "history", traces, 400, showlegend=True, legend=_legend(),
        xaxis={"title": {"text": "trials that ended, in order"}},
        yaxis={"title": {"text": safe(name, 40)}, "range": limits}, margin={"l": 10, "r": 16, "t": 40, "b": 10},
    )  # fmt: skip


def _best_so_far(ended, direction):
    better = min if direction == "min" else max
    scores = [r.get("score") if r["status"] == "completed" else None for r in ended]

    def best(one, other):
        return one if other is None else other if one is None else better(one, other)

    return list(itertools.accumulate(scores, best))


def parallel(completed: list, varied: list, objective: tuple) -> dict:
    """Return Plotly's parallel coordinates of the completed trials; each axis can be brushed and moved."""
    name, direction = objective
    limits = shown(completed, direction)
    scores = [r["score"] for r in completed]
    ranks = [0.0] * len(scores)
    for rank, i in enumerate(sorted(range(len(scores)), key=lambda i: scores[i], reverse=direction == "min"), 1):
        ranks[i] = 1 if rank == len(scores) else 0.97 * rank / len(scores)
    first = {"label": "order", "values": list(range(1, len(scores) + 1)), "tickformat": "d"}
    if len(scores) < 8:
        first["tickvals"] = first["values"]
    last = {"label": safe(name, 40), "values": np.clip(scores, *limits).tolist(), "range": limits, "tickformat": ".3~g"}
    trace = {
        "type": "parcoords", "dimensions": [first, *(_dimension(p, completed) for p in varied), last],
        "customdata": [str(r["trial_id"]) for r in completed], "line": {"color": ranks, "cmin": 0, "cmax": 1},
    }  # fmt: skip
    least = 80 * len(trace["dimensions"])
    return _figure("parallel", [trace], 440, ["toImage"], least, margin={"l": 60, "r": 30, "t": 70, "b": 24})


def _dimension(parameter, completed):
    values = column(parameter, completed)
    known = [value for value in values if not math.isnan(value)]
    low, high = (min(known), max(known)) if known else (0, 1)
    choices = parameter["choices"]
    if parameter["kind"] == "category":
        low, high = 0, len(choices) - 1
        ticks = [(i, label(choice)) for i, choice in enumerate(choices)][:: math.ceil(len(choices) / 12)]
    else:
        few = choices if len(choices) <= FEW else None
        ticks = np.log10(few) if few and parameter["kind"] == "log" else few or np.linspace(low, high, 5)
        ticks = [(float(at), f"{10**at if parameter['kind'] == 'log' else at:.3g}") for at in ticks]
    height = high - low or 1
    below = low + _UNUSED * height
    if len(known) < len(values):
        ticks, low = [(below, "–"), *ticks], below
    made = [below if math.isnan(value) else value for value in values]
    shorter = [text if len(text) <= 16 else text[:15] + "…" for _, text in ticks]  # Plotly shows them as they are
    return {
        "label": _broken(parameter["name"]), "values": made, "tickvals": [at for at, _ in ticks], "ticktext": shorter,
        "range": [low - 0.03 * height, high + 0.03 * height],
    }  # fmt: skip


def _broken(name):
    """Return a name in lines of about 10 letters, broken after underscores."""
    lines = [""]
    for part in name.replace("_", "_\n").split("\n"):
        if lines[-1] and len(lines[-1]) + len(part) > 10:
            lines.append("")
        lines[-1] += part
    return "<br>".join(safe(line, 20) for line in lines)


def slices(completed: list, varied: list, objective: tuple, ranking: list) -> list[dict]:
    """Return one plot a hyperparameter, in the order of `ranking`: boxes of few choices, else points."""
    rank = {row["name"]: place for place, row in enumerate(ranking)}
    limits = shown(completed, objective[1])
    figures = []
    for parameter in sorted(varied, key=lambda p: rank.get(p["name"], len(rank))):
        those = [r for r in completed if parameter["name"] in (r.get("values") or {})]
        if those:
            figures.append(_slice(f"slice-{len(figures)}", parameter, those, objective[0], limits))
    return figures


def _slice(identity, parameter, those, objective, limits):
    name, choices, ys = parameter["name"], parameter["choices"], [r["score"] for r in those]
    marker = {"size": 5 if len(those) > 150 else 7, "color": _BLUE, "opacity": 0.8}
    trace = _points(those, objective, y=ys, marker=marker, cliponaxis=False)
    if len(choices) <= FEW:
        places = {json.dumps(choice): place for place, choice in enumerate(choices)}
        boxes = {
            "type": "box", "boxpoints": "all", "pointpos": 0, "jitter": 0.6, "hoveron": "points", "whiskerwidth": 0,
            "x": [places[json.dumps(r["values"][name])] for r in those], "fillcolor": "rgba(138,146,156,.2)",
        }  # fmt: skip
        trace = {key: value for key, value in {**trace, **boxes}.items() if key not in ("mode", "cliponaxis")}
        axis = {"tickvals": list(range(len(choices))), "ticktext": [safe(choice, 16) for choice in choices],
                "range": [-0.6, len(choices) - 0.4]}  # fmt: skip
    else:
        trace["x"], axis = [r["values"][name] for r in those], {"nticks": 6}
        if parameter["kind"] == "log":
            axis = {"type": "log", "dtick": 1 if choices[-1] >= 100 * choices[0] else "D2", "tickformat": ".0e"}
    return _figure(
        identity, [trace], 270, xaxis={"title": {"text": f"<b>{safe(name, 40)}</b>"}, **axis},
        yaxis={"range": limits, "title": {"text": safe(objective, 40)}},
    )  # fmt: skip


def importance(rows: list) -> dict:
    """Return importances as bars, the most important on top, with their intervals."""
    rows = rows[::-1]
    lengths = [max(0, row["mean"]) for row in rows]
    intervals = {
        "type": "data", "symmetric": False, "thickness": 1.5, "width": 5, "color": _GREY,
        "array": [row["high"] - length for row, length in zip(rows, lengths)],
        "arrayminus": [length - row["low"] for row, length in zip(rows, lengths)],
    }  # fmt: skip
    trace = {
        "type": "bar", "orientation": "h", "x": lengths, "y": [safe(row["name"], 30) for row in rows],
        "error_x": intervals, "textposition": "none", "hovertemplate": "%{text}<extra></extra>",
        "marker": {"color": [_BLUE if row["low"] > 0.01 else "rgba(138,146,156,.45)" for row in rows]},
        "text": [f"{safe(r['name'])}: <b>{r['mean']:.2f}</b> (90 % of resamples: {r['low']:.2f} to {r['high']:.2f})"
                 for r in rows],
    }  # fmt: skip
    axis = {"title": {"text": "share of the ranks' variance"}, "zeroline": True, "zerolinecolor": _GREY}
    return _figure("importance", [trace], 90 + 34 * len(rows), xaxis=axis, bargap=0.35, yaxis={"ticklen": 4})


def depth_map(completed: list, depth: dict, rate: dict, objective: tuple) -> dict:
    """Return the heat map of the median score by freeze depth and rate; `customdata` has the trials of each cell."""
    columns = _columns(rate, completed)
    cells = [[[r for r in those if r["values"].get("thaw") == choice] for _, those in columns]
             for choice in depth["choices"]]  # fmt: skip
    medians = [[statistics.median(r["score"] for r in cell) if cell else None for cell in row] for row in cells]
    texts = [[f"{median:.3g}<br>{len(cell)}×" if cell else "" for cell, median in zip(*rows)]
             for rows in zip(cells, medians)]  # fmt: skip
    better = min if objective[1] == "min" else max
    known = [(median, x, y) for y, row in enumerate(medians) for x, median in enumerate(row) if median is not None]
    median, x, y = better(known, key=lambda cell: cell[0])
    frame = {"type": "rect", "x0": x - 0.48, "x1": x + 0.48, "y0": y - 0.46, "y1": y + 0.46,
             "line": {"color": _ORANGE, "width": 3}}  # fmt: skip
    trace = {
        "type": "heatmap", "z": medians, "xgap": 3, "ygap": 3, "coloraxis": "coloraxis", "hoverongaps": False,
        "text": texts, "texttemplate": "%{text}", "hovertemplate": "median %{z:.4g}<extra></extra>",
        "customdata": [[[str(r["trial_id"]) for r in cell] for cell in row] for row in cells],
    }  # fmt: skip
    low, high = shown(completed, objective[1])
    ends = [min(max(median, low), high) for median, _, _ in known]
    return _figure(
        "map", [trace], 110 + 56 * len(cells), ["toImage"], 80 * len(columns), shapes=[frame], dragmode=False,
        xaxis=_places(safe(rate["name"]), [name for name, _ in columns]),
        yaxis=_places("deepest that trains", [safe(choice, 16) for choice in depth["choices"]]),
        coloraxis={"reversescale": objective[1] == "min", "cmin": min(ends), "cmax": max(ends), "showscale": False},
    )  # fmt: skip


def _places(title, names):
    return {"title": {"text": title}, "tickvals": list(range(len(names))), "ticktext": names, "showgrid": False,
            "fixedrange": True}  # fmt: skip


def _columns(rate, completed):
    """Return `(label, trials)` of each bin of a rate: its choices where they are few, else equal parts of its range."""
    name, choices = rate["name"], rate["choices"]
    with_rate = [r for r in completed if name in (r.get("values") or {})]
    without = [r for r in completed if r.get("values") and name not in r["values"]]
    if len(choices) <= FEW:
        columns = [(safe(choice), [r for r in with_rate if r["values"][name] == choice]) for choice in choices]
    else:
        edges = (np.geomspace if rate["kind"] == "log" else np.linspace)(choices[0], choices[-1], _BINS + 1)
        bins = np.searchsorted(edges[1:-1], [r["values"][name] for r in with_rate], side="right")
        columns = [
            (f"{low:.2g} to<br>{high:.2g}", [r for r, at in zip(with_rate, bins) if at == i])
            for i, (low, high) in enumerate(itertools.pairwise(edges))
        ]
    return [("–", without), *columns] if without else columns


def curves(completed: list, objective: tuple, best: dict) -> dict | None:
    """Return the curves of the best trial, and as views those of the others; None where no trial has epochs."""
    trials = [r for r in completed if r.get("history")]
    if not trials:
        return None
    trials.sort(key=lambda r: (r is not best, r["score"] if objective[1] == "min" else -r["score"]))
    recorded = {name.removeprefix("val_") for r in trials for row in r["history"] for name in row}
    panels = [name for name in ("loss", "accuracy") if name in recorded] or ["loss"]
    longest = max(len(r["history"]) for r in trials)
    views = [_view(record, panels, objective[0], best) for record in trials]
    lines = {
        "best trial's validation": {"color": _GREY, "width": 1.6, "dash": "dot"},
        "training": {"color": _BLUE, "width": 2.2},
        "validation": {"color": _ORANGE, "width": 2.2},
    }
    traces, axes = [], {}
    for i, panel in enumerate(panels):
        n = i + 1 if i else ""
        axes[f"yaxis{n}"] = {"title": {"text": panel}, "domain": [[0, 1], [0.54, 1], [0, 0.46]][len(panels) - 1 + i]}
        first = views[0]["data"]
        for name, place in zip(lines, (2 * i + 1, 2 * i, 2 * i + 1)):
            traces.append({
                "type": "scatter", "name": name, "legendgroup": name, "showlegend": i == 0, "line": lines[name],
                "x": first["x"][place], "y": first["y"][place], "yaxis": f"y{n}",
                "hovertemplate": f"epoch %{{x}}<br>{panel} <b>%{{y:.4g}}</b>",
            })  # fmt: skip
    figure = _figure(
        "curves", traces, 520, showlegend=True, legend=_legend(1.07), margin={"l": 10, "r": 10, "t": 70, "b": 10},
        xaxis={"title": {"text": "epoch"}, "anchor": f"y{len(panels)}" if len(panels) > 1 else "y",
               **({"dtick": 1} if longest < 12 else {})},
        **axes, **views[0]["layout"],
    )  # fmt: skip
    return {**figure, "views": views}


def _view(record, panels, objective, best):
    """Return what Plotly changes to show another trial, the traces of which it changes that, and its name."""
    rows = record["history"]
    names = [name for panel in panels for name in (panel, f"val_{panel}")]
    epochs = [row.get("epoch", at) + 1 for at, row in enumerate(rows)]  # as people count
    data = {"x": [epochs] * len(names), "y": [[row.get(name) for row in rows] for name in names]}
    stages = zip(epochs, (row.get("stage") for row in rows))
    starts = [next(group) for stage, group in itertools.groupby(stages, key=lambda pair: pair[1]) if stage is not None]
    lines = [{"type": "line", "yref": "paper", "y0": 0, "y1": 1, "x0": epoch - 0.5, "x1": epoch - 0.5,
              "line": {"color": _GREY, "width": 1, "dash": "dash"}} for epoch, _ in starts[1:]]  # fmt: skip
    texts = [{"x": epoch - 0.5 * (i > 0), "y": 1, "yref": "paper", "text": f"{'+ ' * (i > 0)}{safe(stage, 16)}",
              "showarrow": False, "xanchor": "left", "yanchor": "bottom", "yshift": 13 * (i % 2),
              "font": {"size": 11}} for i, (epoch, stage) in enumerate(starts)]  # fmt: skip
    name = f"trial {record['trial_id']}: {objective} {label(record['score'])}{' (best)' * (record is best)}"
    layout = {"shapes": lines, "annotations": texts}
    changed = [3 * i + line for i in range(len(panels)) for line in (1, 2)]
    return {"id": str(record["trial_id"]), "label": name, "data": data, "layout": layout, "traces": changed}
