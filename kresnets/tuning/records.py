"""What is kept of each trial beside Keras Tuner's own file: how it went, epoch by epoch, and why it ended."""

import csv
import io
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from kresnets._util.files import read_json, write_json
from kresnets._util.types import PathLike
from kresnets.tuning.oracle_storage import DEFAULT

COMPLETED, PRUNED, FAILED, RUNNING, REPEATED = "completed", "pruned", "failed", "running", "repeated"
_STATUS = {"COMPLETED": COMPLETED, "FAILED": FAILED, "INVALID": FAILED, "RUNNING": RUNNING}


_NOTHING = {"reason": None, "epochs": 0, "scores": [], "history": []}


def write_record(folder: PathLike, **record: Any) -> None:
    """Write a trial's `record.json`.

    Args:
        folder: that of the trial.
        record: `status` (`"completed"`, `"pruned"`, `"failed"`, `"repeated"`), `reason` (a sentence, or None),
            `started` (unix seconds), `seconds`, `epochs` (trained in it), `scores` (one a split), `measures` (of each
            split all that was measured in the epoch kept), `whole` (whether it trained on every split to the end),
            `history` (rows of the first split).
    """
    write_json(os.path.join(folder, "record.json"), _NOTHING | record)


def chosen(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return those of a trial's hyperparameters that are fields of its recipe: none where the search began with it."""
    return {} if DEFAULT in values else {name: value for name, value in values.items() if not name.startswith("tuner/")}


def read_records(folder: PathLike) -> list[dict[str, Any]]:
    """Return what a search has made so far, one dict a trial in the order of their names.

    Args:
        folder: the project's folder, `<directory>/<project_name>`; it may belong to a search that runs.

    Returns:
        List of dicts with `trial_id`, `status` (as above, or `"running"`), `score` or None, `values` (hyperparameter ->
        value, those that make a difference in the trial), `default` (whether it is what the search began with, which
        has no values), and the entries of `record.json`.

    Example:
        >>> from kresnets.tuning import read_records
        >>> read_records("/tmp/no_search_here")
        []
    """
    found = []
    for path in sorted(pathlib.Path(folder).glob("trial_*/trial.json")):
        trial = read_json(path)
        if trial is None:
            continue
        record = read_json(path.with_name("record.json")) or {}
        values, status = trial["hyperparameters"]["values"], _STATUS.get(trial["status"], RUNNING)
        if status == COMPLETED:
            status = record.get("status", COMPLETED)
        entries = {"started": None, "seconds": None, "measures": [], "whole": status in (COMPLETED, REPEATED)}
        entries |= _NOTHING | (record if status != RUNNING else {})
        if status == FAILED and not entries["reason"]:
            entries["reason"] = trial.get("message")
        entries |= {"trial_id": trial["trial_id"], "status": status, "score": trial["score"]}
        found.append(entries | {"values": chosen(values), "default": DEFAULT in values})
    return found


def as_csv(records: Sequence[Mapping[str, Any]], parameters: Sequence[str] = ()) -> str:
    """Return records as CSV text: `trial_id`, `status`, `score`, each hyperparameter, `seconds`, `epochs`, `reason`.

    Args:
        records: what `read_records` returns.
        parameters: names of columns that come first among the hyperparameters. Defaults to none.

    Example:
        >>> from kresnets.tuning.records import as_csv
        >>> record = {"trial_id": "0", "status": "completed", "score": 0.5, "values": {"ratio": 0.3}}
        >>> print(as_csv([record]).splitlines()[1])
        0,completed,0.5,0.3,,,
    """
    names = list(dict.fromkeys([*parameters, *(name for record in records for name in record["values"])]))
    columns = ["trial_id", "status", "score", *names, "seconds", "epochs", "reason"]
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, extrasaction="ignore", lineterminator="\n")
    writer.writeheader()
    writer.writerows({**record, **record["values"]} for record in records)
    return text.getvalue()
