"""Measure what a claim still lacks, and write its folder: runs, CSV, picture, text."""

import collections
import concurrent.futures
import contextlib
import csv
import hashlib
import io
import json
import multiprocessing
import os
import pathlib
import signal
import statistics
import threading
import time

import _common
import keras

import claims
from claims import page, plots
from claims.claim import Options
from kresnets._util import files

RUNS = "runs.jsonl"
_RUNS_A_PROCESS = 12
KEPT = "kept"  # beside the claims' folders: what measuring keeps for other settings and claims


def run(name, options, folder, jobs, say=print):
    """Measure a claim, write `results.csv`, `picture.png` and `text.md` into its folder, and return its findings.

    Finished runs lie in `runs.jsonl` of the folder, so that the same call goes on after a kill; those that the
    repository holds are done, too. `jobs` processes measure at once, each with one thread; one is
    this process, with all threads. `say` is given each line of progress.
    """
    claim = claims.find(name)
    with files.only_writer(folder):
        done = read_runs(ledger(name)) | read_runs(folder / RUNS)
        wanted, rows = None, []
        # Until nothing new is asked for: what is done already may ask for more, too.
        while (asked := claim.settings(options, rows)) != wanted:
            wanted, began = asked, time.perf_counter()
            missing = [setting for setting in wanted if key(setting) not in done]
            if missing:
                say(f"{len(missing)} runs to go, {min(jobs, len(missing))} at a time")
            with contextlib.closing(measured(name, missing, folder.parent / KEPT, jobs)) as measuring:
                for setting, found, seconds in measuring:
                    one = done[key(setting)] = {"setting": setting, "rows": found, "seconds": seconds}
                    write_runs(folder / RUNS, {key(setting): one})
                    say(_progress(one, missing, done, time.perf_counter() - began))
            rows = [setting | row for setting in wanted for row in done[key(setting)]["rows"]]
        findings = list(claim.findings(options, rows))
        files.write_text(folder / page.TABLE, to_csv(rows))
        plots.draw(claim.panels, rows, folder / page.PICTURE)
        seconds = sum(done[key(setting)]["seconds"] for setting in wanted)
        files.write_text(folder / page.TEXT, page.text(name, options, findings, wanted, seconds))
    return findings


def publish(names, out, docs):
    """Write the pages and their table, see `page.publish`, and the runs that the repository holds, those of claims that
    are not finished too; `out` has a folder of each claim, and of each with other data."""
    folders = {
        name: [page.folder_name(name, Options(data=d)) for d in (None, *claims.find(name).data)] for name in names
    }
    for name, mine in folders.items():
        for runs in filter(None, (read_runs(out / folder / RUNS) for folder in mine)):
            write_runs(ledger(name, docs), runs)
    page.publish([folder for mine in folders.values() for folder in mine], out, docs)


def key(setting):
    """Return the name under which a setting's run is kept."""
    return hashlib.sha256(json.dumps(setting, sort_keys=True).encode()).hexdigest()[:20]


def ledger(name, docs=None):
    """Return the path of the file that holds a claim's finished runs in the repository."""
    return pathlib.Path(docs or page.DOCS) / "claims" / f"{name}.jsonl"


def read_runs(path):
    """Return dict key -> finished run of a file of one a line; a line that is none counts as missing."""
    found = {}
    for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else ():
        try:
            one = json.loads(line)
            if isinstance(one["setting"], dict) and all(isinstance(row, dict) for row in one["rows"]):
                found[key(one["setting"])] = one | {"seconds": float(one["seconds"])}
        except (ValueError, TypeError, KeyError):
            continue
    return found


def write_runs(path, done):
    """Write finished runs, dict key -> run, as one file: what it held already stays, and the order is the settings'."""
    lines = {json.dumps(one["setting"], sort_keys=True): one for one in (read_runs(path) | done).values()}
    files.write_text(path, "".join(json.dumps(lines[setting], sort_keys=True) + "\n" for setting in sorted(lines)))


def to_csv(rows):
    """Return rows as CSV text, a column for whatever any of them has."""
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, list(dict.fromkeys(column for row in rows for column in row)), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _progress(run, missing, done, passed):
    """Return a line about a finished run, with the time left: what is missing is taken to last as long as what is done
    and has the same words in its setting."""
    words = lambda setting: tuple(value for value in setting.values() if isinstance(value, str))
    taken, finished = collections.defaultdict(list), [setting for setting in missing if key(setting) in done]
    for one in done.values():
        taken[words(one["setting"])].append(one["seconds"])
    mean = statistics.mean(one["seconds"] for one in done.values())
    whole, so_far = (sum(statistics.mean(taken.get(words(s), [mean])) for s in part) for part in (missing, finished))
    left = passed * (whole / max(so_far, 1e-9) - 1)
    told = " ".join(f"{name}={value}" for name, value in run["setting"].items())
    left = f"{left:.0f} s" if left < 90 else f"{left / 60:.0f} min"
    return f"{len(finished)}/{len(missing)} {told}: {run['seconds']:.0f} s; about {left} left"


def measured(name, settings, kept, jobs):
    """Measure settings of a claim, so many at once, and yield `(setting, rows, seconds)` as they are finished; `kept`
    is the folder of what is kept."""
    if jobs == 1:
        yield from (_measured(name, setting, kept) for setting in settings)
        return
    # Started anew, not forked: TensorFlow's threads do not survive a fork. Each has one thread, since two small
    # networks side by side learn faster than one on two threads. TensorFlow keeps memory of all that it traced,
    # whatever is cleared: after a while fresh processes go on.
    many, context = jobs * _RUNS_A_PROCESS, multiprocessing.get_context("spawn")
    for start in range(0, len(settings), many):
        pool = concurrent.futures.ProcessPoolExecutor(jobs, context, initializer=_begin)
        try:
            running = [pool.submit(_measured, name, setting, kept) for setting in settings[start : start + many]]
            yield from (future.result() for future in concurrent.futures.as_completed(running))
        except concurrent.futures.process.BrokenProcessPool as error:
            told = "A measuring process was killed, perhaps for want of memory: the same command goes on (--jobs 1 "
            raise RuntimeError(f"{told}needs less).") from error
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
            for worker in multiprocessing.active_children():  # else they would finish what they hold
                worker.kill()


def _begin():
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is told to all: the parent ends its workers
    threading.Thread(target=_end_with_parent, daemon=True).start()
    tf = _common.import_tensorflow()
    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)


def _end_with_parent():
    # A killed parent cannot tell its workers to stop; what they measure would be lost, and slow its successor down.
    multiprocessing.parent_process().join()
    os._exit(1)


def _measured(name, setting, kept):
    keras.backend.clear_session()  # what earlier runs traced would fill the memory; it forgets the policy too, so first
    keras.mixed_precision.set_dtype_policy(setting.get("dtype", "float32"))
    keras.utils.set_random_seed(setting.get("seed", 0))
    began = time.perf_counter()
    rows = claims.find(name).measure(dict(setting), kept)
    # numpy's numbers are none of JSON's.
    plain = [{name: value.item() if hasattr(value, "item") else value for name, value in row.items()} for row in rows]
    return setting, plain, time.perf_counter() - began
