"""The page of a run: one file that shows everything, opens anywhere and asks nothing of the network."""

import base64
import html as escaping
import pathlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from kresnets._util import files
from kresnets._util.types import PathLike

INTERVAL_SUFFIX = "_interval"
TITLES = {
    "count": "test images",
    "auc": "AUC",
    "mAP": "mAP",
    "f1": "F1",
    "mae": "mean absolute error",
    "r2": "R²",
    "rmse": "RMSE",
}
_LONGEST_TABLE = 60  # rows; a longer one is folded
_TIMES = {"seconds": "Seconds of training:", "images_per_second": "Images a second:"}

STYLE = """
:root { --text: #1c1e21; --soft: #5f6670; --line: #dcdfe4; --back: #fff; --box: #f5f6f8 }
@media (prefers-color-scheme: dark) {
  :root { --text: #e6e8eb; --soft: #9aa2ad; --line: #3a3f47; --back: #17191c; --box: #22252a }
}
* { box-sizing: border-box }
body { margin: 0 auto; padding: 1.5rem 1rem 4rem; max-width: 58rem; color: var(--text); background: var(--back);
       font: 1rem/1.5 system-ui, sans-serif; overflow-wrap: anywhere }
h1 { font-size: 1.6rem; line-height: 1.2; margin: 0 0 1rem }
h2 { font-size: 1.15rem; margin: 2.5rem 0 .6rem }
.numbers { display: flex; flex-wrap: wrap; gap: .8rem; margin: 1rem 0 }
.numbers div { flex: 1 1 9rem; padding: .7rem 1rem; background: var(--box); border-radius: .5rem }
.numbers b { display: block; font-size: 1.7rem; line-height: 1.2 }
.numbers small, .soft { color: var(--soft) }
/* A shadow at the edge behind which there is more: it lies still, and covers that scroll with the content hide it. */
.wide { overflow-x: auto; background:
        linear-gradient(90deg, var(--back) 1rem, transparent 2rem) local,
        linear-gradient(-90deg, var(--back) 1rem, transparent 2rem) right local,
        linear-gradient(90deg, #0006, transparent .6rem), linear-gradient(-90deg, #0006, transparent .6rem) right }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; overflow-wrap: normal }
th, td { padding: .3rem 1.2rem .3rem 0; text-align: left; vertical-align: top; border-bottom: 1px solid var(--line) }
th { font-weight: 600 }
td:first-child { min-width: 8rem; max-width: 24rem; overflow-wrap: break-word }
th, td:not(:first-child):not(:last-child) { white-space: nowrap }
figure { margin: 0 0 1.5rem }
img { display: block; max-width: 100%; height: auto; margin: 0 auto; background: #fff; border-radius: .4rem }
figcaption { color: var(--soft); margin-top: .4rem }
@media (max-width: 40rem) {
  img { max-width: 40rem } /* pushed sideways rather than made unreadable */
  td:first-child { max-width: 10rem; overflow-wrap: anywhere }
}
pre { padding: .8rem 1rem; background: var(--box); border-radius: .5rem; white-space: pre-wrap }
"""

# `default-src 'none'`: the page cannot fetch anything, whatever a class is called.
_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<meta name="color-scheme" content="light dark">
<link rel="icon" href="data:,">
<title>{title}</title>
<style>{style}</style>
</head>
<body>
<main>
<h1>{title}</h1>
{body}
</main>
</body>
</html>
"""


def html(
    path: PathLike,
    title: str,
    metrics: Mapping[str, Any],
    recipe: Mapping[str, Any],
    command: str,
    pictures: Mapping[str, PathLike],
    notes: Sequence[str] = (),
    tables: Mapping[str, Any] | None = None,
    answers: Mapping[str, Sequence[Any]] | None = None,
    on: str = "the test part",
) -> None:
    """Write the page of a run: one self-contained HTML file.

    Args:
        path: where the page goes.
        title: string, what was run.
        metrics: dict as `kresnets.report.metrics.evaluate` gives it; other plain values (`seconds`,
            `images_per_second`) are
            shown too.
        recipe: dict of plain values, what the run was told.
        command: string, the command that gives the run again.
        pictures: dict caption -> path of a PNG; they are embedded, in this order.
        notes: sentences, shown with the metrics' own: bad images, ignored rotations, the machine. Defaults to none.
        tables: dict heading -> list of rows, the first row being the header, such as images per class and part.
            Defaults to none.
        answers: dict question -> list of what answers it, before the tables: sentences, paths of PNGs, and lists of
            rows. Defaults to none.
        on: what was measured on. Defaults to `"the test part"`.

    Raises:
        OSError: for a picture that cannot be read; nothing is written then.

    Example:
        >>> from kresnets.report import html
        >>> html("/tmp/report.html", "ResNet18 on cells", {"accuracy": 0.9, "accuracy_interval": [0.8, 0.95]},
        ...      {"epochs": 3}, "kresnets finetune --data cells", {})
    """
    notes = [*metrics.get("notes", ()), *notes]
    parts = [
        _numbers(metrics, on),
        *(_picture(caption, file) for caption, file in pictures.items()),
        section("Classes", _class_table(metrics.get("per_class") or {})),
        section("Labels", _plain_table("label", metrics.get("per_label") or {})),
        section("Numbers", _plain_table("number", metrics.get("per_number") or {})),
        *(section(question, "\n".join(map(_answer, parts))) for question, parts in (answers or {}).items()),
        *(section(heading, table(rows[0], rows[1:])) for heading, rows in (tables or {}).items() if rows),
        section("Notes", "<ul>" + "".join(f"<li>{escaped(note)}</li>" for note in notes) + "</ul>" if notes else ""),
        section(
            "Recipe",
            table(("setting", "value"), [(name, _setting(value)) for name, value in recipe.items()]) if recipe else "",
        ),
        section("The same again", f"<pre>{escaped(command)}</pre>"),
    ]
    page = _PAGE.format(style=STYLE, title=escaped(title), body="\n".join(part for part in parts if part))
    files.write_bytes(path, page.encode("utf-8", errors="backslashreplace"))  # names of files may hold what is no UTF-8


class Link(NamedTuple):
    """A text that leads somewhere: a path relative to the page, quoted as in a URL."""

    text: str
    path: str


def escaped(value: object) -> str:
    """Return a plain value as people read it, safe in a page."""
    if isinstance(value, Link):
        return f'<a href="{escaping.escape(value.path)}">{escaping.escape(value.text)}</a>'
    if value is None:
        return "–"
    if isinstance(value, float):
        return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.1f}" if abs(value) >= 10 else f"{value:.3f}"
    if isinstance(value, (list, tuple)):
        return ", ".join(map(escaped, value))
    return escaping.escape(f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value))


def _setting(value):
    """Return a number as it was given: 1e-05 and a seed are not rounded or grouped as results are."""
    return f"{value:g}" if isinstance(value, float) else str(value) if isinstance(value, int) else value


def section(heading: str, content: str) -> str:
    """Return a section of a page, or nothing where it has no content."""
    return f"<section>\n<h2>{escaped(heading)}</h2>\n{content}\n</section>" if content else ""


def _answer(part):
    if isinstance(part, str):
        return f"<p>{escaped(part)}</p>"
    return _picture("", part) if isinstance(part, pathlib.Path) else table(part[0], part[1:])


def _numbers(metrics, on):
    """Return the headline numbers as boxes, with what always giving the commonest answer would get."""
    boxes = "".join(
        f"<div><small>{escaped(TITLES.get(name, name.replace('_', ' ')))}</small><b>{escaped(value)}</b>"
        f"<small>{interval(metrics, name)}</small></div>"
        for name, value in metrics.items()
        if not name.endswith(INTERVAL_SUFFIX) and not isinstance(value, dict) and name not in ("notes", *_TIMES)
    )
    classes = metrics.get("per_class") or {}
    total = sum(row["count"] for row in classes.values())
    text = f"Measured on {on}; the range below a number is its 95 % interval."
    if total:
        commonest = max(classes, key=lambda name: classes[name]["count"])
        share = classes[commonest]["count"] / total
        alone = sum(row["count"] == classes[commonest]["count"] for row in classes.values()) == 1
        which = "the commonest class" if alone else "one of the commonest classes"
        text += f" Always answering “{escaped(commonest)}”, {which}, would give accuracy {share:.3f}."
    text += "".join(f" {what} {escaped(metrics[name])}." for name, what in _TIMES.items() if name in metrics)
    return f'<div class="numbers">{boxes}</div>\n<p class="soft">{text}</p>'


def interval(row: dict, name: str) -> str:
    """Return the interval of a metric in a dict of metrics as people read it, or nothing."""
    ends = row.get(name + INTERVAL_SUFFIX)
    return f"{escaped(ends[0])} to {escaped(ends[1])}" if ends else ""


def _class_table(classes):
    metrics = ("recall", "precision")
    rows = [
        (name, *(cell for metric in metrics for cell in (row[metric], interval(row, metric))), row["count"])
        for name, row in classes.items()
    ]
    return table(("class", "recall", "95 %", "precision", "95 %", "test images"), rows) if rows else ""


def _plain_table(what, rows):
    """Return a table of rows by name, a column for each of their values; intervals stand behind what they are of."""
    if not rows:
        return ""
    columns = [name for name in next(iter(rows.values())) if not name.endswith(INTERVAL_SUFFIX)]
    header = [cell for name in columns for cell in (name.replace("_", " "), "95 %")[: 1 + _has_interval(rows, name)]]
    body = [
        (
            label,
            *(cell for name in columns for cell in (row[name], interval(row, name))[: 1 + _has_interval(rows, name)]),
        )
        for label, row in rows.items()
    ]
    return table((what, *header), body)


def _has_interval(rows, name):
    return any(name + INTERVAL_SUFFIX in row for row in rows.values())


def table(header: Iterable, rows: Iterable[Iterable]) -> str:
    """Return a table of plain values; a long one is folded."""

    def line(tag, cells):
        return "<tr>" + "".join(f"<{tag}>{escaped(cell)}</{tag}>" for cell in cells) + "</tr>"

    rows = list(rows)
    body = "\n".join(line("td", row) for row in rows)
    made = f"<table>\n<thead>{line('th', header)}</thead>\n<tbody>\n{body}\n</tbody>\n</table>"
    made = f'<div class="wide">{made}</div>'
    return f"<details><summary>{len(rows)} rows</summary>{made}</details>" if len(rows) > _LONGEST_TABLE else made


def _picture(caption, file):
    data = base64.b64encode(pathlib.Path(file).read_bytes()).decode("ascii")
    caption = escaped(caption)
    image = f'<img src="data:image/png;base64,{data}" alt="{caption}">'
    return f'<figure><div class="wide">{image}</div><figcaption>{caption}</figcaption></figure>'
