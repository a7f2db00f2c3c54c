"""Fine-tune a network on images."""

import contextlib
import dataclasses
import logging
import shlex
import shutil
import types
import warnings
from typing import Annotated, Any, Literal

from cyclopts import Parameter
from cyclopts.validators import Number

import kresnets_command
from kresnets import augmentations
from kresnets._util import files
from kresnets._util.store import SharedStore, as_text
from kresnets.cli.options import PRETRAINED, Flag, Images, Machines, Network, RecipeOptions, flat
from kresnets.decoding import Decoding
from kresnets.devices import watch
from kresnets.report.judge import judge
from kresnets.report.metrics import told
from kresnets.runs.folder import RunFolder, data_digest, load_images
from kresnets.runs.state import disk_needed
from kresnets.transfer.frozen import frozen
from kresnets.transfer.labels import WATCHED
from kresnets.transfer.trunk import check_weights, dtype_for, head_of, own_model, read_recipe, spec_of, with_trunk

_WATCHED = tuple(f"val_{name}" for name in WATCHED)
# Options that do not change what is trained.
_NOT_OF_THE_RUN = (
    "out", "overwrite", "dry_run", "cache", "index", "devices", "coordinator", "processes", "process",
)  # fmt: skip
_SHARED = ".shared"  # beside the runs of folds, until the last of them ends: what is computed once for all
_NOTHING = contextlib.nullcontext()


def finetune(
    images: Images,
    network: Network = Network(),
    recipe: RecipeOptions = RecipeOptions(),
    machines: Machines = Machines(),
    *,
    out: str,
    overwrite: Flag = False,
    dry_run: Flag = False,
    class_weight: Literal["none", "balanced"] = "none",
    sampling: Literal["natural", "balanced"] = "natural",
    from_scratch: Flag = False,
    recompute: Flag = False,
    cache: Literal["auto", "off"] = "auto",
    loss: Literal["mse", "mae", "huber"] = "mse",
    folds: Annotated[int | None, Parameter(validator=Number(gte=2))] = None,
) -> int:
    """Fine-tune a network on your images.

    kresnets finetune --data pets --model ResNet50D --out runs/pets

    Writes into the run's folder: the model, history.csv, metrics.json, the plan, pictures and report.html. Interrupted
    at any moment, the same command goes on where it was; on a finished run it prints its metrics.

    Args:
        out: The run's folder.
        overwrite: Replace a run made with other options.
        dry_run: Print the plan, and stop.
        class_weight: balanced: a class counts the more, the fewer images it has.
        sampling: balanced: each class is drawn as often as the others, images of rare ones several times an epoch.
        from_scratch: Everything trains from the first epoch at one rate (--learning-rate, --epochs-per-stage).
        recompute: Train in less memory and more time; features are then not kept.
        loss: What is made small where the labels are numbers.
        folds: Deal the images out to so many folds and train once without each, so that every image is tested by a
            model that never saw it. The runs are OUT/fold-1, ...; the page of all is OUT/report.html.
        cache: auto: keep what frozen layers give, and large images decoded, in --out until the run ends; changes no
            result.
    """
    options = flat(
        images, network, recipe, machines, out=out, overwrite=overwrite, dry_run=dry_run, class_weight=class_weight,
        sampling=sampling, from_scratch=from_scratch, recompute=recompute, cache=cache, loss=loss, folds=folds,
        fold=None,
    )  # fmt: skip
    return _finetune(options, _arguments()) if folds is None else _finetune_folds(options, _arguments())


def _finetune_folds(options: Any, argv: list[str]) -> int:
    """Train once for each fold, each in a run of its own, which is gone on with as any other; then sum them up."""
    import keras

    from kresnets.report.folds import check_folder, summarize

    if options.coordinator:
        raise ValueError("--folds does not go with --coordinator: run the folds on one machine, or leave it out.")
    out = check_folder(options.out)
    for number in range(1, options.folds + 1):
        print(f"Fold {number} of {options.folds}:", flush=True)
        one = types.SimpleNamespace(**vars(options) | {"out": str(out / f"fold-{number}"), "fold": number})
        if code := _finetune(one, argv):
            return code
        if options.dry_run:
            return 0
        keras.utils.clear_session()
    numbered = {int(path.name[5:]): path for path in out.glob("fold-*") if path.name[5:].isdecimal()}
    more = [path for number, path in numbered.items() if number > options.folds and (path / "config.json").is_file()]
    for path in (out / _SHARED, *(more if options.overwrite else ())):
        shutil.rmtree(path, ignore_errors=True)
    for line in summarize(out, options.folds):
        print(line)
    return 0


def _arguments() -> list[str]:
    """Return the arguments behind the verb."""
    return kresnets_command.given[1:]


def _finetune(options: Any, argv: list[str]) -> int:
    watch.check(options)
    if watch.watched():
        kresnets_command.listeners.append(watch.speak())
    elif options.coordinator:
        return watch.watch(options, "finetune", argv)
    if (options.augment or "").endswith(".toml"):
        options.augment = augmentations.read(options.augment)  # as what it says, by which a changed file is noticed
    command = shlex.join(["kresnets", "finetune", *(argument for argument in argv if argument != "--overwrite")])
    arguments = {name: value for name, value in vars(options).items() if name not in _NOT_OF_THE_RUN}
    run = RunFolder(options.out)
    with watch.joined(options) as machines, run.alone() if machines.first else _NOTHING:
        phase = machines.agreed(lambda: run.check(arguments, options.overwrite))
        earlier = {} if phase == "new" else machines.agreed(lambda: run.config)
        if not (finished := phase == "finished"):
            _train(run, options, arguments, earlier, command, machines)
    if options.dry_run or not machines.first:
        return 0
    if finished:
        print(f"{run} is finished; nothing was changed.")
        if changes := run.changes():
            print(
                f"But the images in {options.data} are not those that it learned from: {changes}. To train anew, give "
                "another --out, or --overwrite to replace this run."
            )
    _print_metrics(run)
    if not finished:
        print(f"The page: {run / 'report.html'}")
    return 0


def _train(run, options, arguments, earlier, command, machines):
    """Make the model and its plan, fine-tune it, and judge it: what is in the run's folder afterwards."""
    _set_up(quiet=not machines.first)
    import keras

    import kresnets
    from kresnets.devices import Devices, all_devices, disconnect

    recipe, spec = _recipe(options), None if options.model.endswith(".keras") else spec_of(options.model)
    _check_network(spec, recipe, options)
    policy, why = machines.agreed(lambda: _dtype(options, earlier, spec))
    keras.mixed_precision.set_dtype_policy(policy)
    data, known = _data(run, options, arguments, earlier, machines)
    _check_task(options, recipe, data)
    several = options.devices or options.coordinator
    one = contextlib.nullcontext(Devices(1, contextlib.nullcontext))
    with all_devices(options.batch_size) if several else one as devices:
        if several:
            print(
                f"Trains on {devices.count} devices." if devices.count > 1 else "There is one device here: it trains."
            )
        keras.utils.set_random_seed(options.seed)
        with devices.scope():
            model = _model(options, spec, data)
            model = kresnets.recompute(model) if options.recompute else model
        plan, found = _plan(recipe, options, model, data), None
        if options.learning_rate == "find":
            recipe, found = _with_found_rate(plan.recipe, options, earlier, model, data, run, machines, devices.count)
            given = dict.fromkeys((*plan.given, "learning_rate", "trunk_learning_rate"))
            plan = dataclasses.replace(_plan(recipe, options, model, data), given=tuple(given))
        config = _config(arguments, command, known, data, model, policy, plan.recipe)
        if options.dry_run:
            _introduce(config, data, why)
            print(kresnets_command.spelled(plan.table()))
            return
        machines.agreed(lambda: run.make_room(config, options.overwrite))
        if found is not None and machines.first:
            found.plot(run / "learning_rate.png")
        _introduce(config, data, why)
        print("Its files take {1} at most while it trains, {0} afterwards.".format(*map(as_text, disk_needed(model))))
        history = _fit_and_save(run, options, model, data, plan, config, machines)
    if options.coordinator:
        disconnect()
    if machines.first:
        model = keras.saving.load_model(run / "model.keras", compile=False) if devices.count > 1 else model  # on one
        notes = [*data.decoded, *map(kresnets_command.spelled, data.notes())]
        judge(run, model, data, config, history, notes, _as_it_began(options, spec, plan, config, data))


def _check_network(spec, recipe, options):
    """Hold the options against the network, before any image is looked at; `spec` is None for one of the user's own."""
    if options.recompute and recipe.views not in (1, "auto"):
        raise ValueError(
            f"--views {recipe.views} are copies in the feature cache, which --recompute goes without: leave one out."
        )
    if spec is not None:
        _check_plan(spec, recipe)
        check_weights(spec, options.weights)


def _data(run, options, arguments, earlier, machines):
    """Return the images, the same in all processes, and what tells them from others."""
    # A run that goes on sees the pixels that it began with.
    decoding = machines.agreed(lambda: dataclasses.asdict(run.decoding) if earlier else None)
    data = load_images(arguments | {"index": options.index}, decoding and Decoding.of_data(decoding))
    known = data_digest(data)
    if machines.agreed(lambda: known) != known:
        raise ValueError(f"The images or their labels in {options.data} are not those of process 0.")
    return data, known


def _model(options, spec, data):
    make, what = (own_model, options.model) if spec is None else (with_trunk, spec)
    return make(what, options.weights, options.size, preprocess=options.preprocess, **head_of(data))


def _fit_and_save(run, options, model, data, plan, config, machines):
    """Fine-tune the model and save it, also where training ends with numbers that are none: its last good epoch."""
    from kresnets.devices import apart

    history = stopped = None
    try:
        history = _fit(run, options, model, data, plan, config, machines)
    except FloatingPointError as error:  # the last good epoch is kept, if there is one
        stopped = error
    if machines.first and (stopped is None or any(run.path.glob("epoch-*.weights.h5"))):
        with apart(), files.replacing(run / "model.keras") as beside:
            model.save(beside)
    if stopped is not None:
        raise stopped
    return history


def _as_it_began(options, spec, plan, config, data):
    """Return the `Frozen` images by the pretrained trunk as it was, which the page asks; None where there is none."""
    if not plan.facts.pretrained or data.task != "classes":
        return None
    logging.disable(logging.INFO)  # all of it has been said
    try:
        begun = _model(options, spec, data)
    finally:
        logging.disable(logging.NOTSET)
    return frozen(begun, config, data)


def _check_task(options, recipe, data):
    """Hold options that are for one task against the images' own, before anything is built."""
    if options.sampling == "balanced" and (options.class_weight != "none" or data.task != "classes"):
        with_what = "--class-weight balanced, which mends the same" if data.task == "classes" else f"--task {data.task}"
        raise ValueError(f"--sampling balanced does not go with {with_what}: leave one out.")
    if options.class_weight != "none" and data.task != "classes":
        raise ValueError(f"--class-weight {options.class_weight} is for classes, and {options.data} has {data.task}.")
    watched = {"val_loss", "val_mae"} if data.task == "numbers" else {"val_loss", "val_accuracy", *_WATCHED}
    if recipe.monitor not in watched:
        raise ValueError(
            f"--monitor must be one of {', '.join(sorted(watched))} for {data.task}. Received: {recipe.monitor}"
        )
    for option, value in (("class-weight", options.class_weight), ("mixup", recipe.mixup)):
        if data.train.weights is not None and value not in ("none", "auto", 0):
            raise ValueError(f"--{option} does not go with a weight for each image: leave one out.")
    if options.loss != "mse" and data.task != "numbers":
        raise ValueError(f"--loss {options.loss} is for numbers, and {options.data} has {data.task}: leave it out.")


def _plan(recipe, options, model, data):
    import kresnets

    size, known = model.input_shape[1], PRETRAINED[options.pretrained]
    train, validation = (part.batches(options.batch_size, size, cache=False) for part in (data.train, data.validation))
    plan = kresnets.plan(model, train, validation, recipe, pretrained=known)
    return plan if options.epochs is None else plan.lasting(options.epochs)


def _fit(run, options, model, data, plan, config, machines):
    import keras

    import kresnets
    from kresnets.cli.progress import ProgressLines
    from kresnets.data import epoch_variable
    from kresnets.transfer.cache.choice import forbids

    images = _images_cache(run, options, data, machines)
    size, crop = config["size"], config["preprocess"]["crop"]
    callbacks = [
        # When training begins: by then every argument has been found good, and bad ones leave nothing behind.
        keras.callbacks.LambdaCallback(on_train_begin=lambda logs: run.begin(config, data)),
        ProgressLines(plan, options.cache == "auto" and not options.recompute and forbids(plan.recipe) is None),
    ]
    return kresnets.fine_tune(
        model,
        data.train.batches(
            options.batch_size, size, crop, options.seed, epoch_variable(), images, options.sampling == "balanced"
        ),
        data.validation.batches(options.batch_size, size, crop, cache=images),
        plan,
        cache=_features_cache(run, options, data),
        callbacks=callbacks if machines.first else (),
        class_weight=None if options.class_weight == "none" else options.class_weight,
        state_dir=run.path,
        loss=options.loss if data.task == "numbers" else None,
        verbose=0,
    )


def _images_cache(run, options, data, machines):
    """Return where images are kept decoded: large ones in the run's folder, if this process may write there."""
    if options.cache != "auto" or not machines.first:
        return "auto"
    return (run.path.parent / _SHARED if _shares(options, data) else run.path) / "images"


def _features_cache(run, options, data):
    if options.cache != "auto":
        return False
    return SharedStore(run.path.parent / _SHARED / "features", always=False) if _shares(options, data) else "auto"


def _shares(options, data):
    """Whether the run is one of folds that share what is computed of their images."""
    return options.fold is not None and data.train.within[1] is not None


def _set_up(quiet):
    kresnets_command.log(logging.ERROR if quiet else logging.INFO)
    # A name that matplotlib's font cannot draw: the boxes in its place say so.
    warnings.filterwarnings("ignore", message="Glyph .* missing from")


def _config(arguments, command, known, data, model, policy, recipe):
    import kresnets

    return {
        "kresnets": kresnets.__version__,
        "arguments": arguments,
        "class_names": list(data.class_names),
        "task": data.task,
        "model": arguments["model"],
        "size": model.input_shape[1],
        "dtype": policy,
        "preprocess": dataclasses.replace(kresnets.preprocessing_of(model), decoding=data.decoding).as_data(),
        "recipe": recipe.as_data(),
        "command": command,
        "data": known,
        "contents": data.contents,
    }


def _introduce(config, data, why):
    dtype = config["dtype"] + f" ({why})" * bool(why)
    print(f"{config['model']}, {config['size']} pixels, {dtype}; {data.name}:\n{data.summary()}")
    for note in data.notes():
        print(kresnets_command.spelled(note))


def _recipe(options):
    from kresnets import Recipe

    given = {
        field.name: getattr(options, field.name)
        for field in dataclasses.fields(Recipe)
        if getattr(options, field.name, None) not in (None, "find")
    }
    if options.epochs and (both := {"head_epochs", "epochs_per_stage"} & given.keys()):
        raise ValueError(f"--epochs does not go with --{min(both).replace('_', '-')}: leave one of them out.")
    if options.recipe:
        given = read_recipe(options.recipe) | given
    if (given.get("schedule") or "").endswith(".toml"):
        refused = sorted(
            {"head_epochs", "stages", "epochs_per_stage", "advance", "patience", "max_epochs_per_stage", "ramp"}
            & set(given)
        )
        if refused or options.from_scratch:
            name = refused[0].replace("_", "-") if refused else "from-scratch"
            raise ValueError(
                f"--{name} does not go with --schedule {given['schedule']}, which says it already; leave one out."
            )
        return Recipe(**{**given, "schedule": "constant"}).with_schedule(given["schedule"])
    if not options.from_scratch:
        return Recipe(**given)
    refused = sorted({"head_epochs", "stages", "trunk_learning_rate", "ratio", "batchnorm"} & set(given))
    if refused:
        raise ValueError(
            f"--{refused[0].replace('_', '-')} does not go with --from-scratch, where everything trains at one rate; "
            "leave one out."
        )
    start = {"epochs": given.pop("epochs_per_stage", 20), "learning_rate": given.pop("learning_rate", 3e-3)}
    return dataclasses.replace(Recipe.from_scratch(**start), **given)


def _with_found_rate(recipe, options, earlier, model, data, run, machines, devices):
    """Return the recipe at the rate that a range test finds for its first stage, and the test; an interrupted run keeps
    its own rate and has no test."""
    import kresnets
    from kresnets.freezing import set_trainable
    from kresnets.groups import layout

    if rates := _rates_of(earlier):
        return dataclasses.replace(recipe, **rates), None
    model_layout = layout(model)
    start = model_layout.first(recipe.staging(model_layout.names).stages[0][0])
    set_trainable(model, model_layout, lambda place: place >= start, recipe.batchnorm)
    size, crop = model.input_shape[1], kresnets.preprocessing_of(model).crop
    cache = _images_cache(run, options, data, machines)
    # Shuffled: in the order of the classes each step would see one class, whose loss falls at any rate.
    batches = data.train.batches(options.batch_size, size, crop, shuffle_seed=recipe.seed, cache=cache)
    if devices > 1 and len(data.train) >= options.batch_size:
        batches = batches.take(len(data.train) // options.batch_size)  # a short one need not divide among them
    found = kresnets.find_learning_rate(model, batches, optimizer=recipe.optimizer, preprocess=True)
    rate = machines.agreed(lambda: float(f"{found.suggestions['valley']:.2g}"))
    print(
        f"Learning rate {rate:g}, found by a range test (learning_rate.png); once the trunk is unfrozen a tenth of it, "
        "unless told."
    )
    first = not recipe.head_epochs and recipe.timetable is None  # the trunk trains from the first epoch
    trunk = rate if first else options.trunk_learning_rate or rate / 10
    return dataclasses.replace(recipe, learning_rate=rate, trunk_learning_rate=trunk), found


def _dtype(options, earlier, spec):
    """Return the dtype policy to train in, and why it is that; an interrupted run keeps its own."""
    if options.dtype != "auto" or spec is None:  # a model of one's own has its types
        return options.dtype.replace("auto", "float32"), ""
    return (earlier["dtype"], "") if "dtype" in earlier else dtype_for(spec, options.weights, options.size)


def _rates_of(earlier):
    """Return the rates that were found when this very run began, or None."""
    recipe = earlier.get("recipe") or {}
    rates = {name: recipe.get(name) for name in ("learning_rate", "trunk_learning_rate")}
    return None if None in rates.values() else rates


def _check_plan(spec, recipe):
    """Hold the recipe's stages against the network before any image is looked at."""
    from kresnets.groups import Layout
    from kresnets.transfer.plan import check_stages

    names = ("stem", *(f"stage{stage}" for stage in range(1, len(spec.depths) + 1)), "head")
    places = (
        ((stage, block), None) for stage, depth in enumerate(spec.depths, start=1) for block in range(1, depth + 1)
    )
    check_stages(recipe, Layout(names, tuple(places)))


def _print_metrics(run):
    """Print what a finished run found on its test images."""
    numbers = run.metrics
    print(f"On the {numbers['count']} test images:")
    print(*told(numbers), sep="\n")
    near = numbers.get("near_duplicates") or {}
    if near.get("accuracy_without") is not None:
        print(
            f"  Nearly the same as a training image: {near['count']} of them; without these accuracy "
            f"{near['accuracy_without']:.3f}"
        )
    rate = numbers["images_per_second"]
    print(f"  {'seconds':18} {numbers['seconds']:.0f}  ({rate:.0f} training images/s, validation included)")
