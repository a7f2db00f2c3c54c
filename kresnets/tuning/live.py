"""What a person sees while a search runs: a line a trial, trials.csv, and the page."""

import time

from kresnets import report
from kresnets._util import files
from kresnets.tuning.records import COMPLETED, RUNNING, as_csv, read_records

_PAGE_EVERY = 20  # seconds; the importance of parameters takes a second of one core


class Live:
    """Write into a search's folder what Keras Tuner's folder in it, `project`, holds after each trial."""

    def __init__(self, folder, project, objective, space, options, command):
        self._folder, self.project, self.objective = folder, project, objective
        self.space, self._options, self._command = space, options, command
        self._shown, self._page_at, self._warned = set(), 0.0, False

    def begin(self):
        """Say what there is already."""
        self._shown = {record["trial_id"] for record in self._ended()}
        if self._shown:
            print(f"Going on after {len(self._shown)} of {self._options.trials} trials.", flush=True)

    def _ended(self):
        return [record for record in read_records(self.project) if record["status"] != RUNNING]

    def changed(self, oracle=None):
        """Show the trials that ended since the last call."""
        records = self._ended()
        for record in records:
            if record["trial_id"] not in self._shown:
                self._shown.add(record["trial_id"])
                print(self._line(record, records), flush=True)
        try:
            self.write_csv(records)
            if time.monotonic() - self._page_at > _PAGE_EVERY:
                self.page(running=True)
        except OSError as error:  # a full disk, say; whether the search can go on shows where it writes
            print(f"trials.csv or search.html could not be written: {error.strerror}.", flush=True)

    def _line(self, record, records):
        done, total = len(self._shown), self._options.trials
        values = [
            f"{name} {value:.3g}" if isinstance(value, float) else f"{name} {value}"
            for name, value in record["values"].items()
        ]
        values = "what the search starts from" if record["default"] else ", ".join(values)
        score = "no score" if record["score"] is None else f"{self.objective.name} {record['score']:.4g}"
        outcome = score if record["status"] == COMPLETED else f"{record['status']}: {record['reason']}"
        best = self.best(records)
        best = f"best {best['score']:.4g} (trial {best['trial_id']})" if best else "none completed"
        times = [record["seconds"] for record in records if record["seconds"] is not None]
        left = int((total - done) * sum(times) / max(1, len(times)))
        return (
            f"trial {record['trial_id']}, {done}/{total}: {values}: {outcome}; {record['seconds'] or 0:.1f} s; {best}; "
            f"about {left // 60}:{left % 60:02d} left"
        )

    def best(self, records=None):
        """Return the record of the best trial, or None; one that was given up has no score to compare."""
        records = read_records(self.project) if records is None else records
        scored = [record for record in records if record["score"] is not None and record["whole"]]
        sign = 1 if self.objective.direction == "min" else -1
        return min(scored, key=lambda record: (sign * record["score"], record["trial_id"]), default=None)

    def write_csv(self, records=None):
        """Write trials.csv."""
        files.write_text(self._folder / "trials.csv", as_csv(self._readable(records), self.space.ordered()))

    def page(self, running=False, winner=None, notes=()):
        """Write search.html; without Plotly say once what is missing."""
        self._page_at = time.monotonic()
        try:
            report.search_page(
                self._folder / "search.html", self._readable(), (self.objective.name, self.objective.direction),
                self.space.as_data(), f"{self._options.model} on {self._options.data}", self._command, winner, notes,
                self._options.trials, running,
            )  # fmt: skip
        except ImportError as error:
            if not self._warned:
                print(f"No page is written: {error}", flush=True)
            self._warned = True

    def _readable(self, records=None):
        """Return records in which the trial that the search began with has the values that its recipe comes to."""
        values = {} if self.space.base.unresolved else self.space.words()
        values = {name: values[name] for name in self.space.ordered() if name in values}
        records = read_records(self.project) if records is None else records
        return [record | {"values": values} if record["default"] else record for record in records]
