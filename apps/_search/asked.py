"""What apps/search.py is asked for: its arguments, its role among several processes, and whether its folder is free."""

import argparse
import contextlib
import json
import os
import pathlib
import re

import _common
import _run_folder

_NOT_OF_THE_SEARCH = ("out", "overwrite", "chief", "worker", "address", "tensorboard", "trials")
_WRITTEN = (
    "search", "trials.csv", "search.html", "best_recipe.json", "verdict.json", "images", "answers-*.json", "tensorboard",
    ".tmp-*", "config.json",
)  # fmt: skip
ORACLES = ("random", "bayesian", "hyperband", "grid")


def parser(description):
    """Return the parser of the app's arguments."""
    parser = argparse.ArgumentParser(description=description, allow_abbrev=False)
    add = parser.add_argument
    add(
        "--data", required=True, help="as of finetune.py: a folder of class folders, a CSV file, elpv/mono, a TFDS name"
    )
    add("--model", default="ResNet50", help="a network of kresnets.list_models(); default ResNet50")
    add("--trials", type=_common.positive_int, default=24, help="default 24; more of them go on with a search")
    add("--out", required=True, help="the search's folder")
    add("--weights", default="imagenet", help="imagenet, none, a file, or a run's folder; default imagenet")
    add("--size", type=_common.positive_int, help="pixels a side; default that of the weights, else the network's own")
    add("--limit", type=_common.positive_int, help="most images for training and validation together")
    add("--batch-size", type=_common.positive_int, default=32)
    add("--dtype", choices=("auto", "float32", "mixed_bfloat16", "mixed_float16"), default="auto")
    add("--bad-images", choices=("skip", "error"), default="error")
    add("--seed", type=_whole, default=0)
    add("--space", metavar="FILE", help="a TOML file of fields and their choices or ranges; see docs/search.md")
    add(
        "--recipe",
        metavar="FILE",
        help="a JSON file of fields that all trials have in common, and what they are measured by; what is left out is "
        "resolved as by finetune.py",
    )
    add("--epochs", type=_common.positive_int, help="of a trial in all, of the default too; default as its plan has")
    add("--oracle", choices=ORACLES, default="random")
    add("--objective", choices=("val_loss", "val_accuracy"), default="val_loss", help="default val_loss")
    add(
        "--repeats",
        type=_repeats,
        default="auto",
        help="random splits into training and validation a trial; default auto: folds, the more the fewer images validate",
    )
    add(
        "--prune",
        type=_share,
        default=0.5,
        help="give a trial up when so great a share of the others is better, or on its first splits the best so far; 1: never; "
        "default 0.5",
    )
    add(
        "--pretrained",
        choices=("auto", "yes", "no"),
        default="auto",
        help="whether the trunk was taught; default auto: what its weights tell",
    )
    add("--beside", nargs="+", default=[], metavar="FILE", help="further recipes (JSON) to judge beside the winner")
    add("--tensorboard", action="store_true", help="write HParams logs for TensorBoard into OUT/tensorboard")
    add("--overwrite", action="store_true", help="replace a search made with other arguments")
    several = parser.add_argument_group("many processes", "all see the folder OUT; see docs/search.md")
    several.add_argument("--chief", action="store_true", help="hand trials to workers")
    several.add_argument("--worker", metavar="NAME", help="run trials of the chief")
    several.add_argument("--address", metavar="HOST:PORT", help="the chief's; default KERASTUNER_ORACLE_IP and _PORT")
    return parser


def _whole(text):
    if not text.isascii() or not text.isdigit():
        raise argparse.ArgumentTypeError(f"must be a whole number from 0, not {text!r}")
    return int(text)


def _repeats(text):
    return text if text == "auto" else _common.positive_int(text)


def _share(text):
    with contextlib.suppress(ValueError):
        if 0 < float(text) <= 1:
            return float(text)
    raise argparse.ArgumentTypeError(f"must be a share above 0 and up to 1, not {text!r}")


def set_role(options):
    """Set Keras Tuner's variables for a chief or a worker."""
    if options.worker is not None and not re.fullmatch(r"[A-Za-z0-9_.-]+", options.worker):
        raise ValueError(f"A worker's name is of letters, digits, '-', '_' and '.', not {options.worker!r}.")
    if options.chief and options.worker:
        raise ValueError("--chief and --worker exclude each other: start them as processes of their own.")
    if options.worker and options.overwrite:
        raise ValueError("--overwrite is the chief's: a worker replaces nothing.")
    if not (options.chief or options.worker):
        if options.address:
            raise ValueError("--address is the chief's: give --chief or --worker NAME too.")
        for name in ("KERASTUNER_ORACLE_IP", "KERASTUNER_ORACLE_PORT", "KERASTUNER_TUNER_ID"):
            os.environ.pop(name, None)
        return
    host, _, port = (options.address or "").rpartition(":")
    if options.address and not (host and re.fullmatch("[0-9]{1,5}", port) and 0 < int(port) < 65536):
        raise ValueError(f"--address must be host:port, such as 127.0.0.1:8000, not {options.address!r}.")
    if options.address:
        os.environ |= {"KERASTUNER_ORACLE_IP": host, "KERASTUNER_ORACLE_PORT": port}
    elif not {"KERASTUNER_ORACLE_IP", "KERASTUNER_ORACLE_PORT"} <= os.environ.keys():
        raise ValueError("Where is the chief? Give --address host:port, or KERASTUNER_ORACLE_IP and _PORT.")
    if options.worker and "chief" in options.worker:
        raise ValueError(
            f"A worker's name must not hold 'chief', by which Keras Tuner knows the chief: {options.worker!r}."
        )
    os.environ["KERASTUNER_TUNER_ID"] = options.worker or "chief"


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
    earlier = earlier_arguments(folder)
    if earlier is None:
        raise ValueError(f"{config} is damaged or none of a search: give another --out.")
    if earlier == given:
        if not options.worker and (done := ended(folder / "search")) > options.trials:
            raise ValueError(f"--out {folder} holds {done} trials already: give --trials {done} or more.")
        return
    if options.overwrite:
        return
    differing = sorted(name for name in {*earlier, *given} if earlier.get(name) != given.get(name))
    raise ValueError(
        f"--out {folder} was made with another {', '.join('--' + name.replace('_', '-') for name in differing)}: give another "
        "folder, or --overwrite to replace it."
    )


def earlier_arguments(folder):
    """Return the arguments of the search in a folder, or None where there is none."""
    try:
        found = dict(json.loads((folder / "config.json").read_text(encoding="utf-8"))["arguments"])
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None
    return found if "oracle" in found else None


def make_room(folder, options, recipe=None):
    """Clear what --overwrite replaces, now that all else has been found good.

    Args:
        folder: the search's.
        options: the app's.
        recipe: what its trials are variations of, as JSON can say it; None where that is not known. Defaults to None.

    Raises:
        ValueError: where the same command came to another recipe when the search began.
    """
    earlier = earlier_arguments(folder)
    if earlier is None:
        return
    told = json.loads((folder / "config.json").read_text(encoding="utf-8")).get("recipe", recipe)
    if options.overwrite and (earlier != arguments(options) or told != recipe):
        _run_folder.clear(folder, _WRITTEN)
    elif told != recipe:
        raise ValueError(
            f"--out {folder} was begun when the same command came to another recipe, by another rule or other weights: give "
            "another folder, or --overwrite to replace it."
        )


def arguments(options):
    """Return what makes a search this one, as JSON can say it."""
    found = {name: value for name, value in vars(options).items() if name not in _NOT_OF_THE_SEARCH}
    # What the files say, not where they lie.
    found |= {name: _text(found[name]) for name in ("space", "recipe") if found[name] is not None}
    found["beside"] = [[pathlib.Path(file).name, _text(file)] for file in found["beside"]]
    stems = ["winner", "default", "start", *(pathlib.Path(file).stem for file in options.beside)]
    if len(set(stems)) < len(stems):
        raise ValueError(
            f"--beside: files are told apart by their names, and start, winner and default are taken: {', '.join(stems[3:])}."
        )
    return found


def _text(file):
    return pathlib.Path(file).read_text(encoding="utf-8", errors="replace")


def ended(project):
    """Return how many trials have ended in Keras Tuner's folder."""
    if not project.is_dir():
        return 0
    trials = (path.read_text(errors="replace") for path in project.glob("trial_*/trial.json"))
    return sum('"RUNNING"' not in text for text in trials)
