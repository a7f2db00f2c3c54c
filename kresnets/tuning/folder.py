"""The folder of a search: which search it is, and whether another one may begin in it."""

import hashlib
import json
import os
import pathlib
import shutil

import numpy as np

from kresnets._util import files
from kresnets.runs.folder import SINCE, made_with_another

_NOT_OF_THE_SEARCH = ("out", "overwrite", "index", "chief", "worker", "address", "tensorboard", "trials")
_SEARCH = "search.json"  # in Keras Tuner's folder: what its trials are of
_IDENTITY = 2  # the version of `Part.identity`
_WRITTEN = (
    "search", "trials.csv", "search.html", "best_recipe.json", "verdict.json", "images", "answers-*.json",
    "tensorboard", ".tmp-*", "config.json",
)  # fmt: skip


def check_folder(folder, options):
    """Refuse a folder that holds something else, or another search that is not to be replaced."""
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"--out {folder} is a file: give a folder.")
    if folder.exists() and not os.access(folder, os.R_OK | os.W_OK | os.X_OK):
        raise ValueError(f"--out {folder} cannot be written to: give another folder, or the rights to it.")
    given, config = arguments(options), folder / "config.json"
    if not config.exists():
        # Nothing is written before config.json: whatever lies there, `images` too, is somebody else's.
        strange = [one.name for one in (folder.iterdir() if folder.exists() else ()) if not one.match(".tmp-*")]
        if strange:
            raise ValueError(f"--out {folder} holds {strange[0]!r} and is no search: give another folder.")
        return
    earlier = earlier_arguments(folder, options)
    if earlier is None:
        raise ValueError(f"{config} is damaged or none of a search: give another --out.")
    if earlier == given:
        if not options.worker and (done := ended(folder / "search")) > options.trials:
            raise ValueError(f"--out {folder} holds {done} trials already: give --trials {done} or more.")
        return
    if options.overwrite:
        return
    raise ValueError(made_with_another(folder, earlier, given))


def earlier_arguments(folder, options):
    """Return the arguments of the search in a folder, or None where there is none; what older versions did not ask for
    is as they would have answered."""
    try:
        found = dict((files.read_json(folder / "config.json") or {})["arguments"])
    except (KeyError, TypeError, ValueError):
        return None
    asked = {name: answer for name, answer in SINCE.items() if hasattr(options, name)}
    return asked | found if "oracle" in found else None


def decoding(folder, options):
    """Return the `Decoding` with which the search in a folder began, None where another one is to begin."""
    from kresnets.decoding import Decoding

    if earlier_arguments(folder, options) != arguments(options):
        return None
    noted = files.read_json(folder / "config.json").get("decoding")
    return Decoding.of_data(noted) if noted else Decoding.before()


def dtype(folder, options):
    """Return the dtype policy in which the search in a folder began, None where that is not known or another begins."""
    if earlier_arguments(folder, options) != arguments(options):
        return None
    return files.read_json(folder / "config.json").get("dtype")


def make_room(folder, options, recipe=None, contents=None):
    """Clear what --overwrite replaces, now that all else has been found good.

    `recipe` is what its trials are variations of, as JSON can say it; `contents` the hash of the images. None where
    that is not known.

    Raises:
        ValueError: where the same command came to another recipe, or to other images, when the search began.
    """
    earlier = earlier_arguments(folder, options)
    if earlier is None:
        return
    begun = files.read_json(folder / "config.json") or {}
    begun_with, saw = begun.get("recipe", recipe), begun.get("contents")
    if options.overwrite and (earlier != arguments(options) or begun_with != recipe or saw != contents):
        clear(folder, _WRITTEN)
    elif saw not in (None, contents):
        raise ValueError(
            f"--out {folder} was begun with other images or labels in {options.data}: give another folder, or "
            "--overwrite to replace it."
        )
    elif begun_with != recipe:
        raise ValueError(
            f"--out {folder} was begun when the same command came to another recipe, by another rule or other "
            "weights: give another folder, or --overwrite to replace it."
        )


def arguments(options):
    """Return what makes a search this one, as JSON can say it."""
    found = {name: value for name, value in vars(options).items() if name not in _NOT_OF_THE_SEARCH}
    # What the files say, not where they lie.
    found |= {name: _text(found[name]) for name in ("space", "recipe") if found[name] is not None}
    found["beside"] = [[pathlib.Path(file).name, _text(file)] for file in found["beside"]]
    names = [pathlib.Path(file).stem for file in options.beside]
    if len({"winner", "default", "start", *names}) < 3 + len(names):
        raise ValueError(
            "--beside: files are told apart by their names, and start, winner and default are taken: "
            f"{', '.join(names)}."
        )
    return found


def _text(file):
    return pathlib.Path(file).read_text(encoding="utf-8", errors="replace")


def check_same_search(project, hypermodel, objective, splits):
    """Note in Keras Tuner's folder what its trials are of; refuse to go on with those of another search.

    Raises:
        ValueError: naming what differs.
    """
    from kresnets.transfer.checks import decoding_of

    found = {
        "objective": [(one.name, one.direction) for one in (objective if isinstance(objective, list) else [objective])],
        "space": {name: repr(allowed) for name, allowed in hypermodel.space.fields.items()},
        "base": {name: repr(value) for name, value in hypermodel.base.as_data().items()},
        "data": [[_identity(part) for part in split] for split in splits],
        "decoding": [str(decoding_of(*split)) for split in splits],
        "training": hypermodel.training(),
    }
    found["identity"] = _IDENTITY
    found, path = json.loads(json.dumps(found)), project / _SEARCH
    earlier = files.read_json(path) or {}
    if earlier.get("identity") != _IDENTITY:  # of the version before: another way to tell images, not other images
        earlier.pop("data", None)
        earlier["identity"] = _IDENTITY
    differing = [name for name in found if name in earlier and earlier[name] != found[name]]
    if differing:
        raise ValueError(
            f"{project} holds trials of a search with another {', '.join(differing)}, whose scores cannot be compared "
            "with these: give another directory or project_name, or overwrite=True to replace them."
        )
    if earlier != found:
        files.write_json(path, found)


def _identity(source):
    """Return what tells images from others without reading them all: of a part its own name, of arrays their labels and
    a sample of their pixels, of others their size."""
    from kresnets.transfer.inputs import rows_of

    if (rows := rows_of(source)) is not None:
        return rows.part.identity(touched=False)
    if isinstance(source, (tuple, list)):
        images, labels = source[:2]
        sample = np.ascontiguousarray(images[:: max(1, len(images) // 16)])
        return [list(images.shape), *(hashlib.sha256(np.ascontiguousarray(a)).hexdigest() for a in (labels, sample))]
    count = int(source.cardinality()) if hasattr(source, "cardinality") else source.num_batches
    return [str(getattr(source, "element_spec", type(source).__name__)), count]


def ended(project):
    """Return how many trials have ended in Keras Tuner's folder."""
    trials = (path.read_text(errors="replace") for path in project.glob("trial_*/trial.json"))
    return sum('"RUNNING"' not in text for text in trials)


def clear(folder, patterns):
    """Remove the files and folders of these names."""
    for pattern in patterns:
        for path in folder.glob(pattern):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
