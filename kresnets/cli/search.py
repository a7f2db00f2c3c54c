"""Search how to fine-tune a network on images."""

import contextlib
import dataclasses
import errno
import json
import logging
import os
import pathlib
import re
import shlex
import signal
from typing import Annotated, Literal

from cyclopts import Group, Parameter

import kresnets_command
from kresnets._util import files
from kresnets.cli.options import PRETRAINED, Count, Flag, Images, Network, Share, flat
from kresnets.runs.folder import load_images
from kresnets.transfer.labels import WATCHED
from kresnets.transfer.trunk import dtype_for, read_recipe, spec_of, with_trunk
from kresnets.tuning import folder as search_folder
from kresnets.tuning import live, splitting, supervisor
from kresnets.tuning.conclusion import choice_so_far, conclude, hand_over

_SEARCH = Group("Search", sort_key=4)
_PROCESSES = Group("Many processes", help="All see the folder OUT; see the guide on searching.", sort_key=5)


@Parameter(name="*", group=_PROCESSES)
@dataclasses.dataclass(frozen=True, kw_only=True)
class Role:
    """What this process is among several.

    Args:
        chief: Hand trials to workers.
        worker: Run trials of the chief, under this name.
        address: host:port of the chief. Left out: KERASTUNER_ORACLE_IP and _PORT.
    """

    chief: Flag = False
    worker: str | None = None
    address: str | None = None


@Parameter(name="*", group=_SEARCH)
@dataclasses.dataclass(frozen=True, kw_only=True)
class Search:
    """How to search.

    Args:
        trials: How many; more of them go on with a search.
        space: A TOML file of fields and their choices or ranges.
        recipe: A JSON file of fields that all trials have in common, and what they are measured by; what is left out is
            resolved as by `kresnets finetune`.
        epochs: Of a trial in all, of the default too. Left out: as its plan has.
        oracle: What chooses the trials.
        objective: What a trial is scored by.
        repeats: Random splits into training and validation a trial; auto: folds, the more the fewer images validate.
        prune: Give a trial up when so great a share of the others is better, or on its first splits the best so far; 1:
            never.
        beside: Further recipes (JSON) to judge beside the winner.
        tensorboard: Write HParams logs for TensorBoard into OUT/tensorboard.
    """

    trials: Count = 24
    space: str | None = None
    recipe: str | None = None
    epochs: Count | None = None
    oracle: Literal["random", "bayesian", "hyperband", "grid"] = "random"
    objective: Literal["val_loss", "val_accuracy", "val_auc", "val_f1", "val_mAP"] = "val_loss"
    repeats: Annotated[int | Literal["auto"], Parameter(validator=lambda kind, value: _at_least_one(value))] = "auto"
    prune: Share = 0.5
    beside: Annotated[list[str], Parameter(consume_multiple=True, negative="")] = dataclasses.field(
        default_factory=list
    )
    tensorboard: Flag = False


def _at_least_one(value: int | str) -> None:
    if value != "auto" and int(value) < 1:
        raise ValueError("Must be auto, or a whole number from 1.")


def search(
    images: Images,
    network: Network = Network(),
    search: Search = Search(),
    role: Role = Role(),
    *,
    out: str,
    overwrite: Flag = False,
) -> int:
    """Search how to fine-tune a network on your images.

    kresnets search --data pets --model ResNet50 --trials 24 --out runs/search

    Which groups are unfrozen, how fast they learn, how long the head trains alone: each trial fine-tunes on the
    training part and is scored on the validation part, or on folds of both where few images validate. The first trial
    is the default, or what --recipe makes of it; only what gains more over it than chance would is handed over. Writes
    trials.csv, search.html (which can be opened meanwhile) and best_recipe.json, which `kresnets finetune --recipe`
    takes; at the end the winner and the default are trained and judged, once, on the test part. Interrupted or killed
    at any moment, the same command goes on where it was.

    Args:
        out: The search's folder.
        overwrite: Replace a search made with other options.
    """
    options = flat(images, network, search, role, out=out, overwrite=overwrite)
    _set_role(options)
    folder, argv = pathlib.Path(options.out), kresnets_command.given[1:]
    if supervisor.is_child():
        command = ["kresnets", "search", *(argument for argument in argv if argument != "--overwrite")]
        return _search(folder, options, shlex.join(command))
    search_folder.check_folder(folder, options)
    # A worker writes into the folder of its chief.
    with contextlib.nullcontext() if options.worker else files.only_writer(folder):
        return supervisor.keep(["search", *argv], lambda: search_folder.ended(folder / "search"))


def _search(folder, options, command):
    _at_interrupt(_leave_at_once)  # nothing has been written yet, and imports take Ctrl-C badly
    signal.pthread_sigmask(signal.SIG_UNBLOCK, supervisor.ENDS)
    spec, classes = spec_of(options.model), [2]  # until the images tell: they come after all else
    dtype = _set_up(options, spec, folder)

    def build():
        return with_trunk(spec, options.weights, options.size, classes[-1], options.preprocess)

    hypermodel = _hypermodel(build, options)
    beside = _beside(options, hypermodel)
    shown = live.Live(folder, folder / "search", _objective(options), hypermodel.space, options, command)
    _at_interrupt(signal.default_int_handler)
    try:
        data = load_images(vars(options), search_folder.decoding(folder, options))
        if data.task != "classes":
            raise ValueError(
                f"A search compares recipes on classes, and {options.data} has {data.task}: kresnets finetune takes "
                "them; what a search of classes found can be given to it by --recipe."
            )
        classes.append(len(data.class_names))
        _resolve(hypermodel, data, options)
        shown.space, oracle = hypermodel.space, _oracle(options, hypermodel)
        parts, split = splitting.parts(data, options)
        if not options.worker:
            _begin(folder, options, command, data, shown, hypermodel, split, dtype)
        # Before the tuner, which leaves when the process has grown.
        splits = None if options.chief else _splits(folder, parts, hypermodel, options)
        tuner = _tuner(folder, hypermodel, oracle, options, None if options.worker else shown.changed)
        tuner.search(splits=splits, callbacks=_callbacks(folder, options), verbose=0)
        if not tuner.finished:
            return 130 if supervisor.is_orphan() else supervisor.AGAIN
        return 0 if options.worker else conclude(folder, tuner, shown, data, hypermodel, options, beside)
    except KeyboardInterrupt:
        _at_interrupt(signal.SIG_IGN)  # a second one is not to cut off what is written now
        return _interrupted(folder, shown, hypermodel, options)
    except OSError as error:
        if error.filename is None and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            error.filename = str(folder)  # which a write itself does not know
        raise


def _at_interrupt(handler):
    for number in supervisor.ENDS:
        signal.signal(number, handler)


def _leave_at_once(number, frame):
    print("\nStopped; the same command goes on.", flush=True)
    os._exit(130)


def _set_up(options, spec, folder):
    """Set the precision and return it: that in which the search began, wherever it goes on."""
    kresnets_command.log(logging.WARNING)
    import keras

    dtype, why = options.dtype, ""
    if dtype == "auto":
        begun = search_folder.dtype(folder, options)
        dtype, why = (begun, "") if begun else dtype_for(spec, options.weights, options.size)
    keras.mixed_precision.set_dtype_policy(dtype)
    if why and not supervisor.is_later():
        print(f"Trains in {dtype}: {why}.")
    return dtype


def _begin(folder, options, command, data, shown, hypermodel, split, dtype):
    recipe = json.loads(json.dumps(dataclasses.asdict(hypermodel.space.recipe({}))))
    search_folder.make_room(folder, options, recipe, data.contents)
    config = {"arguments": search_folder.arguments(options), "command": command, "recipe": recipe}
    config |= {"decoding": dataclasses.asdict(data.decoding), "dtype": dtype, "contents": data.contents}
    files.write_json(folder / "config.json", config, indent=1)
    epochs = hypermodel.space.epochs
    each = f"{epochs} epochs each" if epochs else "each of as many epochs as its recipe says"
    whole = hypermodel.plan.recipe.epochs(hypermodel.names)
    each += f" in place of {whole}" if options.epochs and epochs != whole else ""
    if supervisor.is_later():
        return shown.begin()
    print(
        f"{options.model}; {data.name}:\n{data.summary()}\n{'The recipe given' if options.recipe else 'The default'}, "
        f"from which the search starts:\n{kresnets_command.spelled(hypermodel.plan.table())}\n{options.trials} trials, "
        f"{each}, that one first. {split}",
        flush=True,
    )
    shown.begin()


def _callbacks(folder, options):
    import keras

    return [keras.callbacks.TensorBoard(str(folder / "tensorboard"))] if options.tensorboard else []


def _interrupted(folder, shown, hypermodel, options):
    if options.worker:
        print("\nStopped; the chief gives the trial to another worker.", flush=True)
        return 130
    best = shown.best()
    so_far = f"best so far: trial {best['trial_id']}, {best['score']:.4g}" if best else "no trial was completed"
    print(f"\nStopped; {so_far}. The same command goes on.", flush=True)
    if hypermodel.plan is not None and (folder / "config.json").exists():
        hand_over(folder, shown, hypermodel, choice_so_far(shown, hypermodel))
    return 130


def _hypermodel(build, options):
    from kresnets import Recipe
    from kresnets.tuning import RecipeHyperModel

    given = (read_recipe(options.recipe) if options.recipe else {}) | {"seed": options.seed}
    if options.objective.removeprefix("val_") in WATCHED:  # which is measured only where it is asked for
        given |= {"monitor": options.objective}
    base = Recipe(**given)
    known = PRETRAINED[options.pretrained]
    return RecipeHyperModel(build, options.space, base, options.epochs, pretrained=known)


def _resolve(hypermodel, data, options):
    """Have the recipe resolved as `kresnets finetune` does, by its own parts of the data."""
    size = hypermodel.make(options.seed).input_shape[1]
    train, validation = (part.batches(options.batch_size, size, cache=False) for part in (data.train, data.validation))
    hypermodel.resolve(train, validation)


def _beside(options, hypermodel):
    """Return the recipes that are judged beside the winner, by the names of their files."""
    import kresnets
    from kresnets.groups import layout
    from kresnets.transfer.plan import check_stages

    found, model_layout = {}, layout(hypermodel.make(options.seed)) if options.beside else None
    for file in options.beside:
        recipe = found[pathlib.Path(file).stem] = kresnets.Recipe(**read_recipe(file))
        try:
            check_stages(recipe, model_layout)
        except ValueError as error:
            raise ValueError(f"{file}: {error}") from None
    return found


def _tuner(folder, hypermodel, oracle, options, on_change):
    from kresnets.tuning import RecipeTuner

    limit, prune = supervisor.resident() + (1 << 30), None if options.prune == 1 else options.prune
    with contextlib.redirect_stdout(None):  # Keras Tuner's "Reloading Tuner": `Live` says what there is
        return RecipeTuner(
            hypermodel, oracle, directory=str(folder), project_name="search",
            prune=prune, seed=options.seed, on_change=on_change,
            leave=lambda: supervisor.resident() > limit or supervisor.is_orphan(), begins=True,
            race=None if prune is None else 1,
        )  # fmt: skip


def _objective(options):
    import keras_tuner

    return keras_tuner.Objective(options.objective, "min" if options.objective == "val_loss" else "max")


def _oracle(options, hypermodel):
    import keras_tuner

    oracles, arguments = keras_tuner.oracles, {"objective": _objective(options)}
    if options.oracle == "hyperband":
        epochs = hypermodel.space.epochs or hypermodel.plan.recipe.epochs(hypermodel.names)
        oracle = oracles.HyperbandOracle(max_epochs=epochs, hyperband_iterations=100, **arguments)
        oracle.max_trials = options.trials
        return oracle
    kinds = {
        "random": oracles.RandomSearchOracle,
        "bayesian": oracles.BayesianOptimizationOracle,
        "grid": oracles.GridSearchOracle,
    }
    return kinds[options.oracle](max_trials=options.trials, **arguments)


def _splits(folder, parts, hypermodel, options):
    """Return pairs of batches, one a pair of parts."""
    import kresnets
    from kresnets.data import epoch_variable

    model = hypermodel.make(options.seed)
    size, crop = model.input_shape[1], kresnets.preprocessing_of(model).crop
    cache = folder / "images"
    return [
        (
            train.batches(options.batch_size, size, crop, options.seed, epoch_variable(), cache=cache),
            validation.batches(options.batch_size, size, crop, cache=cache),
        )
        for train, validation in parts
    ]


def _set_role(options):
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
