"""What the label of an image is: read from the cells of a CSV file, and said in words again."""

import math
import re

_YES_NO = {"0": 0.0, "1": 1.0, "0.0": 0.0, "1.0": 1.0, "false": 0.0, "true": 1.0, "no": 0.0, "yes": 1.0}
_DECIMAL_COMMA = re.compile(r"[-+]?\d+,\d+")
_MARKS = ("|", ";", ",", " ")  # between labels in one cell, the likeliest first


def said(label, names, task):
    """Return a label in words: `cat`, `cat|dog` of several, or numbers."""
    if task == "classes":
        return names[label]
    if task == "labels":
        return "|".join(name for name, has in zip(names, label) if has)
    return "|".join(f"{number:g}" for number in label)


def read_labels(file, cells, names, task="auto", separator=None):
    """Find out what cells of a CSV file say, and say it in numbers.

    Args:
        file: for messages.
        cells: dict path -> list of its cells of labels, one or several.
        names: of their columns.
        task: see `list_csv`. Defaults to `"auto"`.
        separator: see `list_csv`. Defaults to None.

    Returns:
        `(task, names of the classes, labels or numbers, dict path -> label)`.

    Raises:
        ValueError: for cells that are not of the task, or leave open which it is.

    Example:
        >>> from kresnets.data.label_cells import read_labels
        >>> read_labels("a.csv", {"1.png": ["cat|dog"], "2.png": [""]}, ["label"], separator="|")
        ('labels', ('cat', 'dog'), {'1.png': (1.0, 1.0), '2.png': (0.0, 0.0)})
    """
    several, every = len(names) > 1, [cell for row in cells.values() for cell in row]
    numeric = [number_in(cell) for cell in every]
    yes_no = all(cell.lower() in _YES_NO for cell in every)
    if separator is not None and not any(separator and separator in cell for cell in every):
        raise ValueError(f"{file}: `label_separator` {separator!r} stands in no cell: give the one that parts labels.")
    if separator is not None and (several or task not in ("auto", "labels")):
        raise ValueError(
            f"{file}: `label_separator` parts several labels in one cell, of task='labels'; there are {len(names)} "
            f"columns and task={task!r}: leave it out."
        )
    if task == "auto":
        fractions = None not in numeric and any(number != int(number) for number in numeric)
        task = "labels" if separator or several and yes_no else "numbers" if several or fractions else "classes"
        if task == "classes" and (like := _several_in(every)):
            raise ValueError(
                f"{file}: cells such as {like!r} look like several labels of one image: say task='labels', or "
                "task='classes' where each is a class of its own."
            )
        if task == "classes" and all(_DECIMAL_COMMA.fullmatch(cell) for cell in every):
            raise ValueError(
                f"{file}: cells such as {every[0]!r} look like numbers with a decimal comma: write a point, or say "
                "task='classes' where each is a class of its own."
            )
    if task == "classes":
        if several:
            raise ValueError(f"{file}: task='classes' takes one column of classes. Received: {', '.join(names)}")
        class_names = tuple(sorted({row[0] for row in cells.values()}))
        numbers = {name: number for number, name in enumerate(class_names)}
        return task, class_names, {path: numbers[row[0]] for path, row in cells.items()}
    if len(set(names)) < len(names):
        raise ValueError(f"{file}: columns of labels must be different. Received: {', '.join(names)}")
    if task == "numbers" or several and not yes_no:
        allowed = "0 or 1 (a label each) or numbers" if task != "numbers" else "a number in each line"
        for path, row in cells.items():
            if bad := [
                cell for cell in row if task != "numbers" and cell.lower() not in _YES_NO or number_in(cell) is None
            ]:
                raise ValueError(
                    f"{file}, {path}: the columns {', '.join(names)} must hold {allowed}. Received: {bad[0]!r}"
                )
        return task, tuple(names), {path: tuple(map(float, row)) for path, row in cells.items()}
    if separator is None and yes_no:  # a column of 0 and 1 each
        return task, tuple(names), {path: tuple(_YES_NO[cell.lower()] for cell in row) for path, row in cells.items()}
    marks = [mark for mark in _MARKS if any(mark in cell for cell in every)]
    if separator is None and set(_MARKS[:2]) <= set(marks):
        raise ValueError(
            f"{file}: cells have {marks[0]!r} and {marks[1]!r} in them: write one between labels everywhere, or say "
            "which it is by `label_separator`."
        )
    separator = separator or (marks or _MARKS)[0]
    sets = {path: {one.strip() for one in row[0].split(separator)} - {""} for path, row in cells.items()}
    class_names = tuple(sorted(set().union(*sets.values())))
    return task, class_names, {path: tuple(float(name in has) for name in class_names) for path, has in sets.items()}


def _several_in(cells):
    """Return a cell that looks like several labels: each of its parts stands in others too."""
    whole = set(cells)
    for mark in _MARKS[:2]:
        joined = [cell for cell in whole if mark in cell]
        parts = [part.strip() for cell in joined for part in cell.split(mark)]
        for cell in sorted(joined):
            if all(part.strip() in whole or parts.count(part.strip()) > 1 for part in cell.split(mark)):
                return cell
    return None


def number_in(cell):
    """Return the finite number that a cell holds, or None."""
    try:
        number = float(cell) if "_" not in cell else math.nan  # Python's own way to write a thousand
    except ValueError:
        return None
    return number if math.isfinite(number) else None
