"""Search how to fine-tune a network: python apps/search.py --data FOLDER --model ResNet50 --trials 24 --out runs/search

Which groups thaw, how fast they learn, how long the head trains alone: each trial fine-tunes on the training part and is
scored on the validation part. Writes trials.csv, search.html (which can be opened meanwhile) and best_recipe.json, which
finetune.py --recipe takes; at the end the best recipe and the default one are trained on both parts and judged, once, on
the test part. Interrupted or killed at any moment, the same command goes on where it was.
"""

import argparse
import json
import os
import pathlib
import shlex
import shutil
import sys

import _common
import _network
import _run_folder
from _search import keeper, live, verdict

_NOT_OF_THE_SEARCH = ("out", "overwrite", "chief", "worker", "address", "tensorboard", "trials")
_WRITTEN = (
    "config.json", "search", "trials.csv", "search.html", "best_recipe.json", "verdict.json", "images", "answers-*.json",
    "tensorboard", ".tmp-*",
)  # fmt: skip
ORACLES = ("random", "bayesian", "hyperband", "grid")


def main(argv=None):
    argv = sys.argv[1:] if argv is None else argv
    options = _parser().parse_args(argv)
    _set_role(options)
    folder = pathlib.Path(options.out)
    if not keeper.is_child():
        _check_folder(folder, options)
        return keeper.keep(__file__, argv, lambda: _ended(folder / "search"))
    command = shlex.join(["python", "apps/search.py", *(argument for argument in argv if argument != "--overwrite")])
    return _search(folder, options, command)


def _parser():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
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
        help="a JSON file of what all trials have in common; default kresnets.Recipe, unaugmented",
    )
    add("--epochs", type=_common.positive_int, default=12, help="of a trial in all; default 12")
    add("--oracle", choices=ORACLES, default="random")
    add("--objective", default="val_loss", help="what is measured at each epoch; default val_loss")
    add(
        "--repeats",
        type=_common.positive_int,
        default=1,
        help="random splits into training and validation a trial; default 1",
    )
    add(
        "--prune",
        type=float,
        default=0.5,
        help="give a trial up when so great a share of the others is better; 1: never; default 0.5",
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


def _set_role(options):
    """Set Keras Tuner's variables for a chief or a worker."""
    if options.chief and options.worker:
        raise ValueError("--chief and --worker exclude each other: start them as processes of their own.")
    if not (options.chief or options.worker):
        if options.address:
            raise ValueError("--address is the chief's: give --chief or --worker NAME too.")
        for name in ("KERASTUNER_ORACLE_IP", "KERASTUNER_ORACLE_PORT", "KERASTUNER_TUNER_ID"):
            os.environ.pop(name, None)
        return
    host, _, port = (options.address or "").rpartition(":")
    if options.address and not (host and port.isdigit() and 0 < int(port) < 65536):
        raise ValueError(f"--address must be host:port, such as 127.0.0.1:8000, not {options.address!r}.")
    if options.address:
        os.environ |= {"KERASTUNER_ORACLE_IP": host, "KERASTUNER_ORACLE_PORT": port}
    elif "KERASTUNER_ORACLE_IP" not in os.environ:
        raise ValueError("Where is the chief? Give --address host:port, or KERASTUNER_ORACLE_IP and _PORT.")
    if options.worker and "chief" in options.worker:
        raise ValueError(
            f"A worker's name must not hold 'chief', by which Keras Tuner knows the chief: {options.worker!r}."
        )
    os.environ["KERASTUNER_TUNER_ID"] = options.worker or "chief"


def _check_folder(folder, options):
    """Refuse a folder that holds something else, and clear one that is to be replaced."""
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"--out {folder} is a file: give a folder.")
    config = folder / "config.json"
    if not config.exists():
        strange = [
            one.name for one in (folder.iterdir() if folder.exists() else ()) if not any(map(one.match, _WRITTEN))
        ]
        if strange:
            raise ValueError(f"--out {folder} holds {strange[0]!r} and is no search: give another folder.")
        return
    try:
        earlier = dict(json.loads(config.read_text(encoding="utf-8"))["arguments"])
    except (ValueError, KeyError, TypeError):
        earlier = None
    arguments = _arguments(options)
    if earlier == arguments:
        return
    if options.overwrite:
        with _run_folder.alone_in(folder):
            _run_folder.clear(folder, _WRITTEN)
        return
    if earlier is None:
        raise ValueError(f"{config} is damaged or none of a search: give another --out, or --overwrite.")
    differing = sorted(name for name in {*earlier, *arguments} if earlier.get(name) != arguments.get(name))
    raise ValueError(
        f"--out {folder} was made with another {', '.join('--' + name.replace('_', '-') for name in differing)}: give another "
        "folder, or --overwrite to replace it."
    )


def _arguments(options):
    found = {name: value for name, value in vars(options).items() if name not in _NOT_OF_THE_SEARCH}
    for name in ("space", "recipe"):  # what they say, not where they lie
        if found[name] is not None:
            found[name] = pathlib.Path(found[name]).read_text(encoding="utf-8", errors="replace")
    found["beside"] = [pathlib.Path(file).name for file in found["beside"]]
    return found


def _ended(project):
    if not project.is_dir():
        return 0
    trials = (path.read_text(errors="replace") for path in project.glob("trial_*/trial.json"))
    return sum('"RUNNING"' not in text for text in trials)


def _search(folder, options, command):
    import logging
    import warnings

    _common.import_tensorflow()
    logging.basicConfig(format="%(message)s")
    warnings.filterwarnings("ignore", message="Glyph .* missing from")
    import keras

    from kresnets.data import load_data
    from kresnets.hardware import fast_dtype

    spec = _network.spec_of(options.model)
    keras.mixed_precision.set_dtype_policy(fast_dtype() if options.dtype == "auto" else options.dtype)
    data = load_data(options.data, options.limit, options.seed, options.bad_images)

    def build():
        return _network.with_trunk(spec, options.weights, options.size, len(data.class_names))

    hypermodel = _hypermodel(build, options)
    tuner, shown = _tuner(folder, hypermodel, options, command)
    if not options.worker:
        folder.mkdir(parents=True, exist_ok=True)
        _common.write_text(
            folder / "config.json", json.dumps({"arguments": _arguments(options), "command": command}, indent=1)
        )
        print(
            f"{options.model}; {data.name}:\n{data.summary()}\n{options.trials} trials of {options.epochs} epochs.",
            flush=True,
        )
        shown.begin()
    try:
        splits = None if options.chief else _splits(folder, data, hypermodel, options)
        callbacks = [keras.callbacks.TensorBoard(str(folder / "tensorboard"))] if options.tensorboard else []
        tuner.search(splits=splits, callbacks=callbacks, epoch=_epoch(), verbose=0)
    except KeyboardInterrupt:
        best = shown.best()
        so_far = f"best so far: trial {best['trial_id']}, {best['score']:.4g}" if best else "no trial was completed"
        print(f"\nStopped; {so_far}. The same command goes on.", flush=True)
        _finish_page(folder, tuner, shown, best)
        return 130
    if not tuner.finished:
        return 130 if keeper.is_orphan() else keeper.AGAIN
    if options.worker:
        return 0
    return _end(folder, tuner, shown, data, hypermodel, options)


def _hypermodel(build, options):
    import dataclasses

    from kresnets import Recipe
    from kresnets.tuning import RecipeHyperModel

    fields = _network.read_recipe(options.recipe) if options.recipe else {"augment": "none"}
    base = dataclasses.replace(Recipe(**fields), seed=options.seed)
    return RecipeHyperModel(build, options.space, base, options.epochs)


def _tuner(folder, hypermodel, options, command):
    from kresnets.tuning import RecipeTuner

    oracle = _oracle(options)
    shown = live.Live(folder, folder / "search", oracle.objective, hypermodel.space, options, command)
    limit = keeper.resident() + (1 << 30)
    if not 0 < options.prune <= 1:
        raise ValueError(f"--prune must be a share above 0 and up to 1, not {options.prune:g}.")
    tuner = RecipeTuner(
        hypermodel, oracle, directory=str(folder), project_name="search", prune=None if options.prune == 1 else options.prune,
        seed=options.seed, on_change=None if options.worker else shown.changed,
        leave=lambda: keeper.resident() > limit or keeper.is_orphan(),
    )  # fmt: skip
    return tuner, shown


def _oracle(options):
    import keras_tuner

    oracles, told = keras_tuner.oracles, {"objective": options.objective}
    try:
        if options.oracle == "hyperband":
            oracle = oracles.HyperbandOracle(max_epochs=options.epochs, hyperband_iterations=100, **told)
            oracle.max_trials = options.trials
            return oracle
        kinds = {
            "random": oracles.RandomSearchOracle,
            "bayesian": oracles.BayesianOptimizationOracle,
            "grid": oracles.GridSearchOracle,
        }
        return kinds[options.oracle](max_trials=options.trials, **told)
    except ValueError:
        raise ValueError(
            f"--objective {options.objective!r}: whether it is to be large or small is unknown; use val_loss, "
            "val_accuracy or another metric of Keras."
        ) from None


_EPOCH = []


def _epoch():
    """Return the variable that tells pipelines the epoch, one for all."""
    from kresnets.data import epoch_variable

    if not _EPOCH:
        _EPOCH.append(epoch_variable())
    return _EPOCH[0]


def _splits(folder, data, hypermodel, options):
    """Return pairs of batches: the data's own parts, then random splits of both together."""
    import kresnets

    model = hypermodel.make(options.seed)
    size, crop = model.input_shape[1], kresnets.preprocessing_of(model).crop
    parts = [(data.train, data.validation)]
    if options.repeats > 1:
        parts += _more_splits(data, options)
    return [
        (
            train.batches(options.batch_size, size, crop, options.seed, _epoch(), cache=folder / "images"),
            validation.batches(options.batch_size, size, crop, cache=folder / "images"),
        )
        for train, validation in parts
    ]


def _more_splits(data, options):
    import hashlib

    from kresnets.data.split import split

    pool = data.train.joined(data.validation)
    share = len(data.validation) / len(pool)
    digests = [hashlib.sha256(_bytes(pool.encoded(row))).digest() for row in range(len(pool))]
    for repeat in range(1, options.repeats):
        rows = split(
            pool.ids, pool.labels, digests, {"validation": share}, data.class_names, f"{options.seed}.{repeat}"
        )
        yield pool.subset(sorted(rows["train"])), pool.subset(sorted(rows["validation"]))


def _bytes(encoded):
    return pathlib.Path(os.fsdecode(encoded)).read_bytes() if isinstance(encoded, bytes) else encoded.read()


def _finish_page(folder, tuner, shown, best, winner=None, notes=()):
    shown.write_csv()
    if best is not None:
        live.write_recipe(folder / "best_recipe.json", tuner.best_recipe())
    shown.page(winner=winner, notes=notes)


def _end(folder, tuner, shown, data, hypermodel, options):
    """Judge the winner, and write what the search has found."""
    best, stopped = shown.best(), tuner.oracle.stopped_because
    _finish_page(folder, tuner, shown, best)
    if stopped or best is None:
        raise RuntimeError(stopped or "No trial was completed: trials.csv says why each failed.")
    values = ", ".join(f"{name} {value}" for name, value in best["values"].items())
    print(
        f"The best of {options.trials} trials is {best['trial_id']}: {values}: {tuner.oracle.objective.name} {best['score']:.4g}.",
        flush=True,
    )
    path = folder / "verdict.json"
    found = json.loads(path.read_text()) if path.exists() else {}
    if found.get("trial_id") != best["trial_id"]:
        # Of an earlier winner, of fewer trials; while a judgement is under way its answers stay, but for another winner.
        if found:
            _run_folder.clear(folder, ("answers-winner.json", "verdict.json"))
        found = _judge(folder, tuner, best, data, hypermodel, options)
        _common.write_text(path, json.dumps(found, indent=1) + "\n")
        _run_folder.clear(folder, ("answers-winner.json",))
    print(f"Trained on training and validation part, judged on {len(data.test)} test images (95 % intervals):")
    verdict.tell(found)
    tuner.clear()
    shutil.rmtree(folder / "images", ignore_errors=True)
    _finish_page(folder, tuner, shown, best, found)
    print(f"The page: {folder / 'search.html'}. The recipe, for finetune.py --recipe: {folder / 'best_recipe.json'}")
    return 0


def _judge(folder, tuner, best, data, hypermodel, options):
    import dataclasses

    import kresnets

    def train(recipe, part):
        model = hypermodel.make(options.seed)
        preprocessing = kresnets.preprocessing_of(model)
        batches = part.batches(
            options.batch_size, model.input_shape[1], preprocessing.crop, options.seed, _epoch(), folder / "images"
        )
        kresnets.fine_tune(model, batches, recipe=recipe, epoch=_epoch(), verbose=0)
        return model, preprocessing

    recipes = {"winner": tuner.best_recipe(), "default": kresnets.Recipe()}
    recipes |= {pathlib.Path(file).stem: kresnets.Recipe(**_network.read_recipe(file)) for file in options.beside}
    recipes = {name: dataclasses.replace(recipe, seed=options.seed) for name, recipe in recipes.items()}
    return {"trial_id": best["trial_id"], **verdict.judge(folder, train, data, recipes, options.seed)}


if __name__ == "__main__":
    _common.run(main)
