"""The folder of a run of apps/finetune.py: what is in it, who may write there, and whether it is to be gone on with."""

import contextlib
import json
import os
import shutil
import time

import _common

PICTURES = {"Training": "curves.png", "Confusion": "confusion.png", "Worst mistakes": "mistakes.png"}
WRITTEN = (
    *(
        "config.json",
        "history.csv",
        "plan.txt",
        "model.keras",
        "metrics.json",
        "bad_images.txt",
        "report.html",
        "run.json",
        "schedule.toml",
        "stages.json",
        "learning_rate.png",
        "features",
        "images",
        *PICTURES.values(),
    ),
    *("epoch-*.weights.h5", "best-*.npz", "stage-best-*.npz", "stage-begin-*.npz", "done", ".tmp-*"),
)


def is_finished(run, arguments, overwrite):
    """Tell a finished run from one to start or go on with; refuse a folder that holds something else."""
    config = run / "config.json"
    if not config.exists():
        strange = [path.name for path in run.iterdir() if not _is_ours(path)]
        if strange:
            raise ValueError(f"--out {run} holds {strange[0]!r} and is no run: give another folder.")
        return False
    try:
        earlier = dict(json.loads(config.read_text(encoding="utf-8"))["arguments"])
    except (ValueError, KeyError, TypeError):
        if overwrite:
            return False
        raise ValueError(
            f"{config} is damaged or none of finetune's: give another --out, or --overwrite to replace the run."
        ) from None
    # Of before there were such options.
    earlier = {"recompute": False, "recipe": None, "keep": None, "pretrained": "auto"} | earlier
    if earlier != arguments:
        if overwrite:
            return False
        differing = sorted(name for name in {*earlier, *arguments} if earlier.get(name) != arguments.get(name))
        raise ValueError(
            f"--out {run} was made with another {', '.join('--' + name.replace('_', '-') for name in differing)}: give another folder, or "
            "--overwrite to replace it."
        )
    return (run / "metrics.json").exists()


def _is_ours(path):
    """Whether a run that did not begin can have left this."""
    if path.name == "images" and path.is_dir():  # a user's folder may have that name
        return all(one.match("images-*.npy") or one.match(".tmp-*") for one in path.iterdir())
    return any(path.match(pattern) for pattern in WRITTEN)


def clear(run, patterns):
    """Remove the files and folders of these names."""
    for pattern in patterns:
        for path in run.glob(pattern):
            shutil.rmtree(path) if path.is_dir() else path.unlink()


@contextlib.contextmanager
def alone_in(run):
    """Hold a lock on the run's folder, so that no second process writes into it; remove a folder in which nothing came
    about."""
    import fcntl

    if run.exists() and not run.is_dir():
        raise ValueError(f"--out {run} is a file: give a folder.")
    missing = [folder for folder in run.parents if not folder.exists()]
    run.mkdir(parents=True, exist_ok=True)
    lock = os.open(run, os.O_RDONLY)  # the folder itself: there is no file to leave behind or to remove too early
    try:
        for _ in range(100):  # a killed process may hold it for seconds while the system takes its memory back
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except OSError:
                time.sleep(0.1)
        else:
            raise ValueError(f"Another process is working on {run}: wait for it, or give another --out.")
        before = {path.name for path in run.iterdir()}
        try:
            yield
        finally:
            if not (run / "config.json").exists():  # a run that did not begin: what it left goes, nothing else
                clear(run, {"images", "learning_rate.png"} - before)
            if (run / "metrics.json").exists():  # one that is finished, perhaps by an earlier process
                clear(run, ("images",))
            if not any(run.iterdir()):
                with contextlib.suppress(OSError):  # somebody else has put something there
                    for folder in (run, *missing):
                        folder.rmdir()
    finally:
        os.close(lock)


def replace_or_resume(run, config):
    """Clear what --overwrite replaces, now that the new run can begin; refuse to go on with other photographs."""
    path = run / "config.json"
    if not path.exists():
        return
    try:
        earlier = dict(json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, TypeError):
        earlier = {}
    if earlier.get("arguments") != config["arguments"]:
        clear(run, WRITTEN)
    elif earlier.get("data") != config["data"]:
        raise ValueError(
            f"The photographs or their labels have changed since {run} was begun: give another --out, or remove it."
        )


def note_down(run, config, data):
    """Write what the run is, and which images it leaves out."""
    names = [(name if name.isprintable() else repr(name), reason) for name, reason in data.bad]
    _common.write_text(run / "bad_images.txt", "".join(f"{name}\t{reason}\n" for name, reason in names))
    _common.write_text(run / "config.json", json.dumps(config, indent=1) + "\n")


def print_metrics(run):
    """Print what a finished run found on its test images."""
    numbers = json.loads((run / "metrics.json").read_text(encoding="utf-8"))
    print(f"On the {numbers['count']} test images:")
    for name in ("accuracy", "balanced_accuracy", "auc"):
        if numbers.get(name) is not None:
            low, high = numbers[f"{name}_interval"]
            print(f"  {name:18} {numbers[name]:.3f}  (95 %: {low:.3f} to {high:.3f})")
    print(
        f"  {'seconds':18} {numbers['seconds']:.0f}  ({numbers['images_per_second']:.0f} training images/s, validation included)"
    )
