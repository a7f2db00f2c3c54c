"""What a person sees while a search runs: a line a trial, trials.csv, and the page."""

import time

from kresnets._util import files

_PAGE_EVERY = 20  # seconds; the importance of parameters takes a second of one core


class Live:
    """Write what is known after each trial.

    Args:
        folder: the search's folder.
        project: Keras Tuner's folder in it.
        objective: Keras Tuner's.
        space: the `kresnets.tuning.Space`.
        options: the verb's.
        command: the command of the search.
    """

    def __init__(self, folder, project, objective, space, options, command):
        self._folder, self.project, self.objective = folder, project, objective
        self.space, self._options, self._command = space, options, command
        self._told, self._page_at, self._warned = None, 0.0, False

    def _told_records(self, records=None):
        """Return the records for people: the one that the search began with in the words of the others."""
        words = self.space.words() if not self.space.base.unresolved else {}
        mine = {name: words[name] for name in self.space.ordered() if name in words}
        records = self._records() if records is None else records
        return [one | {"values": mine} if one["default"] else one for one in records]

    def begin(self):
        """Say what there is already."""
        self._told = {record["trial_id"] for record in self._ended()}
        if self._told:
            print(f"Going on after {len(self._told)} of {self._options.trials} trials.", flush=True)

    def _records(self):
        from kresnets.tuning import read_records

        return read_records(self.project)

    def _ended(self):
        return [record for record in self._records() if record["status"] != "running"]

    def changed(self, oracle=None):
        """Tell of the trials that ended since the last call."""
        records = self._ended()
        for record in records:
            if record["trial_id"] not in self._told:
                self._told.add(record["trial_id"])
                print(self._line(record, records), flush=True)
        try:
            self.write_csv(records)
            if time.monotonic() - self._page_at > _PAGE_EVERY:
                self.page(running=True)
        except OSError as error:  # a full disk, say; whether the search can go on shows where it writes
            print(f"trials.csv or search.html could not be written: {error.strerror}.", flush=True)

    def _line(self, record, records):
        done, total = len(self._told), self._options.trials
        values = ", ".join(f"{name} {_short(value)}" for name, value in record["values"].items())
        values = "what the search starts from" if record["default"] else values
        best = self.best(records)
        score = "no score" if record["score"] is None else f"{self.objective.name} {record['score']:.4g}"
        what = score if record["status"] == "completed" else f"{record['status']}: {record['reason']}"
        times = [one["seconds"] for one in records if one["seconds"] is not None]
        left = (total - done) * sum(times) / max(1, len(times))
        so_far = f"best {best['score']:.4g} (trial {best['trial_id']})" if best else "none completed"
        return (
            f"trial {record['trial_id']}, {done}/{total}: {values}: {what}; {record['seconds'] or 0:.1f} s; {so_far}; "
            f"about {int(left) // 60}:{int(left) % 60:02d} left"
        )

    def best(self, records=None):
        """Return the record of the best trial, or None; one that was given up has no score to compare."""
        records = self._records() if records is None else records
        scored = [one for one in records if one["score"] is not None and one["whole"]]
        if not scored:
            return None
        sign = 1 if self.objective.direction == "min" else -1
        return min(scored, key=lambda one: (sign * one["score"], one["trial_id"]))

    def write_csv(self, records=None):
        """Write trials.csv."""
        from kresnets.tuning.records import as_csv

        text = as_csv(self._told_records(records), self.space.ordered())
        files.write_text(self._folder / "trials.csv", text)

    def page(self, running=False, winner=None, notes=()):
        """Write search.html; without Plotly say once what is missing."""
        from kresnets import report

        self._page_at = time.monotonic()
        try:
            report.search_page(
                self._folder / "search.html", self._told_records(), (self.objective.name, self.objective.direction),
                self.space.as_data(), f"{self._options.model} on {self._options.data}", self._command, winner, notes,
                self._options.trials, running,
            )  # fmt: skip
        except ImportError as error:
            if not self._warned:
                print(f"No page is written: {error}", flush=True)
            self._warned = True


def write_recipe(path, recipe, facts):
    """Write what differs from the default, for `kresnets finetune --recipe`."""
    from kresnets.tuning.choice import differing

    files.write_json(path, differing(recipe, facts))


def _short(value):
    return f"{value:.3g}" if isinstance(value, float) else str(value)
