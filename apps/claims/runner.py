"""Measure what a claim still lacks, and write its folder: runs, CSV, picture, text."""

import concurrent.futures
import contextlib
import csv
import dataclasses
import hashlib
import io
import itertools
import json
import multiprocessing.connection
import os
import pathlib
import re
import signal
import threading
import time

import _common
import keras

import claims
from claims.claim import Options
from claims.results import TUNING_SEED
from claims.verdicts import VERDICTS
from kresnets._util import files
from kresnets.devices import hardware

PICTURE, TABLE, TEXT, RUNS = "picture.png", "results.csv", "text.md", "done"
DOCS = pathlib.Path(__file__).parents[2] / "docs"
_RUNS_A_PROCESS = 12
KEPT = "kept"  # beside the claims' folders: what measuring keeps for other settings and claims


def run(name, options, folder, jobs, say=print, docs=None):
    """Measure a claim and write `results.csv`, `picture.png` and `text.md` into its folder.

    Each finished run is a file of its own in the folder, so that the same call goes on after a kill. Where the claim
    says so, runs that the repository holds are done, too.

    Args:
        name: of the claim.
        options: the `Options`.
        folder: path of its folder; made if need be.
        jobs: processes that measure at once, each with one thread; 1 measures in this process with all threads.
        say: is given each line of progress.
        docs: where `committed` runs are written to as they come; None for nowhere.
    """
    claim = claims.find(name)
    with files.only_writer(folder):
        done = (read_ledger(ledger(name)) if claim.committed else {}) | read_done(folder)
        wanted, rows = None, []
        with _workers(jobs) as measure:
            # Until nothing new is asked for: what is done already may ask for more, too.
            while (asked := claim.settings(options, rows)) != wanted:
                wanted = asked
                if missing := [setting for setting in wanted if key(setting) not in done]:
                    progress = _progress(claim, missing, jobs, say)
                    for setting, found, seconds in measure(name, missing, str(folder.parent / KEPT)):
                        progress(setting, seconds)
                        one = done[key(setting)] = {"setting": setting, "rows": found, "seconds": seconds}
                        files.write_text(folder / RUNS / f"{key(setting)}.json", json.dumps(one))
                        if docs is not None and claim.committed and not options.quick:
                            write_ledger(ledger(name, docs), done)
                rows = [setting | row for setting in wanted for row in done[key(setting)]["rows"]]
        findings = list(claim.findings(options, rows))
        files.write_text(folder / TABLE, to_csv(rows))
        claim.draw(options, rows, folder / PICTURE)
        seconds = sum(done[key(setting)]["seconds"] for setting in wanted)
        files.write_text(folder / TEXT, to_text(name, claim, options, findings, wanted, seconds))
    return findings


def folder_name(name, options):
    """Return the name of the folder of a claim, another one for other data and for --quick."""
    parts = [name, options.data, "paper" if options.recipe == "paper" else None, "quick" if options.quick else None]
    return "-".join(part for part in parts if part)


def publish(names, out, docs):
    """Write the page `docs/claims/NAME.md` of each finished claim, its picture beside it, and the table of all pages,
    `docs/claims.md`; the page of what did not run here stays as it is, and so does the text above the table.

    `out` holds a folder of each, those of other data too.
    """
    rows = []
    for name in names:
        claim = claims.find(name)
        for asked in (Options(data=data, recipe=recipe) for recipe in claim.recipes for data in (None, *claim.data)):
            folder = folder_name(name, asked)
            if claim.committed and (runs := read_done(out / folder)):
                write_ledger(ledger(name, docs), runs)
            page = docs / "claims" / f"{folder}.md"
            if (out / folder / TEXT).is_file():
                heading, _, rest = (out / folder / TEXT).read_text(encoding="utf-8").partition("\n")
                files.write_bytes(page.with_suffix(".png"), (out / folder / PICTURE).read_bytes())
                files.write_text(page, f"{heading}\n\n![{folder}]({folder}.png)\n{rest.rstrip()}\n")
            if page.is_file():
                rows.append(_table_row(folder, page.read_text(encoding="utf-8")))
    above, line, _ = (DOCS / "claims.md").read_text(encoding="utf-8").partition("|---|---|---|\n")
    files.write_text(docs / "claims.md", above + line + "".join(rows))


def _table_row(folder, page):
    """Return the line of the table for a page: its title, how many findings got each verdict, its command."""
    title = page.partition("\n")[0].removeprefix(f"# {folder}: ")
    counts = [(len(re.findall(rf"^- \*\*{verdict}\*\*", page, re.MULTILINE)), verdict) for verdict in VERDICTS]
    told = ", ".join(f"{count} {verdict}" for count, verdict in counts if count)
    cells = (f"[{folder}](claims/{folder}.md): {title}", told, page.rstrip().rpartition("\n")[2])
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |\n"


def key(setting):
    """Return the name under which a setting's run is kept."""
    return hashlib.sha256(json.dumps(setting, sort_keys=True).encode()).hexdigest()[:20]


def read_done(folder):
    """Return dict key -> finished run; a file that is none, or of another setting than its name says, counts as
    missing."""
    found = {path.stem: _parsed(path) for path in sorted((folder / RUNS).glob("*.json"))}
    return {name: one for name, one in found.items() if one is not None and key(one["setting"]) == name}


def ledger(name, docs=None):
    """Return the path of the one file that holds a claim's finished runs in the repository."""
    return pathlib.Path(docs or DOCS) / "claims" / f"{name}.jsonl"


def read_ledger(path):
    """Return dict key -> finished run of a file of one a line; a line that is none counts as missing."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError):
        return {}
    return {key(one["setting"]): one for one in map(_parsed, lines) if one is not None}


def write_ledger(path, done):
    """Write finished runs, dict key -> run, as one file: what it held already stays, and the order is the settings'."""
    lines = {json.dumps(one["setting"], sort_keys=True): one for one in (read_ledger(path) | done).values()}
    files.write_text(path, "".join(json.dumps(lines[setting], sort_keys=True) + "\n" for setting in sorted(lines)))


def _parsed(text):
    """Return the finished run of a text or a file, or None where it is none."""
    try:
        one = json.loads(text if isinstance(text, str) else text.read_text(encoding="utf-8"))
        fits = isinstance(one["setting"], dict) and all(isinstance(row, dict) for row in one["rows"])
        return one if fits and one["seconds"] >= 0 else None
    except (OSError, ValueError, TypeError, KeyError):
        return None


def to_csv(rows):
    """Return rows as CSV text, a column for whatever any of them has."""
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, list(dict.fromkeys(column for row in rows for column in row)), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def to_text(name, claim, options, findings, settings, seconds):
    """Return the paragraph: what was claimed, what was found, from how much."""
    whole = dataclasses.replace(options, quick=False)
    lines = [f"# {folder_name(name, whole)}: {claim.title}", "", f"Source: {claim.source}.", ""]
    lines += [f"- **{found.verdict}**: {found.claim} {found.numbers}" for found in findings]
    lines += ["", f"{'; '.join(_told(settings))}. {seconds / 60:.1f} minutes of computing on {hardware.describe()}."]
    lines += claim.notes(options) if callable(claim.notes) else claim.notes
    if options.quick:
        lines.append("This was `--quick`: it shows that the command works, and too little to judge by.")
    again = f"python apps/claims.py {name}" + " --quick" * options.quick
    again += "".join(f" --{n} {v}" for n, v in (("seeds", options.seeds), ("data", options.data)) if v is not None)
    again += " --recipe paper" * (options.recipe == "paper")
    return "\n".join([*lines, "", f"`{again}`", ""])


def _told(settings):
    """Yield how many runs and seeds there are, and each other column with its values, where they are not too many."""
    seeds = {setting["seed"] for setting in settings if "seed" in setting}
    compared = len(seeds - {TUNING_SEED})
    told = f" with {compared} seed{'s' * (compared != 1)}" if seeds else ""
    yield f"{len(settings)} runs{told}" + " and one more to choose by" * (TUNING_SEED in seeds)
    for column in dict.fromkeys(column for setting in settings for column in setting if column != "seed"):
        given = [setting[column] for setting in settings if setting.get(column) is not None]
        values = dict.fromkeys(map(str, given)) if not any(isinstance(value, dict) for value in given) else ()
        if 1 <= len(values) <= 12:
            yield f"{column}: {', '.join(values)}"


def _progress(claim, missing, jobs, say):
    """Return a function of a finished setting and its seconds, which prints a line, with the time left."""
    began, finished = time.perf_counter(), []
    say(f"{len(missing)} runs to go, {min(jobs, len(missing))} at a time")

    def one(setting, seconds):
        finished.append(setting)
        share = sum(map(claim.cost, finished)) / sum(map(claim.cost, missing))
        left = (time.perf_counter() - began) * (1 / share - 1)
        told = " ".join(f"{name}={value}" for name, value in setting.items())
        left = f"{left:.0f} s" if left < 90 else f"{left / 60:.0f} min"
        say(f"{len(finished)}/{len(missing)} {told}: {seconds:.0f} s; about {left} left")

    return one


@contextlib.contextmanager
def _workers(jobs):
    """Give a function `(name, settings, folder of what is kept)` that yields `(setting, rows, seconds)` as they are
    finished."""
    if jobs == 1:
        yield lambda name, settings, kept: (_measured(name, setting, kept) for setting in settings)
        return
    # Started anew, not forked: TensorFlow's threads do not survive a fork. Each has one thread, since two small
    # networks side by side learn faster than one on two threads.
    context = multiprocessing.get_context("spawn")
    # The workers hold one end of a pipe, this process alone the other: whatever ends it closes that.
    ended, going = context.Pipe(duplex=False)
    # TensorFlow keeps memory of all that it traced, whatever is cleared: after a while a fresh process goes on.
    pool = concurrent.futures.ProcessPoolExecutor(
        jobs, context, initializer=_begin, initargs=(ended,), max_tasks_per_child=_RUNS_A_PROCESS
    )

    def measure(name, settings, kept):
        # As many at once as there are workers: an executor that holds more forgets to replace a worker that has made
        # its number of runs (https://github.com/python/cpython/issues/115634).
        settings, running = iter(settings), set()
        try:
            while True:
                for setting in itertools.islice(settings, jobs - len(running)):
                    running.add(pool.submit(_measured, name, setting, kept))
                if not running:
                    return
                done, running = concurrent.futures.wait(running, return_when="FIRST_COMPLETED")
                yield from (future.result() for future in done)
        except concurrent.futures.process.BrokenProcessPool as error:
            raise RuntimeError(
                "A measuring process was killed, perhaps for want of memory: the same command goes on (--jobs 1 needs "
                "less)."
            ) from error

    try:
        yield measure
        pool.shutdown()
    except BaseException:
        going.close()  # else the workers would finish what they hold, and what waits in their queue
        pool.shutdown(wait=False, cancel_futures=True)
        raise


def _begin(ended):
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is told to all: the parent ends its workers
    threading.Thread(target=_end_with_parent, args=(ended,), daemon=True).start()
    tf = _common.import_tensorflow()
    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)


def _end_with_parent(ended):
    # A killed parent cannot tell its workers to stop; what they measure would be lost, and slow its successor down.
    multiprocessing.connection.wait([ended])
    os._exit(1)


def _measured(name, setting, kept):
    keras.utils.set_random_seed(setting.get("seed", 0))
    claim = claims.find(name)
    began = time.perf_counter()
    rows = claim.measure(dict(setting), pathlib.Path(kept)) if claim.keeps else claim.measure(dict(setting))
    # numpy's numbers are none of JSON's.
    plain = [{name: value.item() if hasattr(value, "item") else value for name, value in row.items()} for row in rows]
    return setting, plain, time.perf_counter() - began
