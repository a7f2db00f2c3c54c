"""Fine-tune a network on photographs: python apps/finetune.py --data FOLDER --model ResNet50D --out runs/mine

Writes into the run's folder: config.json, plan.txt, history.csv, model.keras, metrics.json, bad_images.txt, curves.png,
confusion.png, mistakes.png and report.html. Interrupted at any moment, the same command goes on where it was; on a
finished run it prints its metrics.
"""

import argparse
import contextlib
import dataclasses
import json
import logging
import os
import pathlib
import shlex
import sys
import warnings

import _common
import _machines
import _network
import _run_folder

# Options that do not change what is trained.
_NOT_OF_THE_RUN = ("out", "overwrite", "dry_run", "cache", "devices", "coordinator", "processes", "process")
_NOTHING = contextlib.nullcontext()


def main(argv=None):
    argv = sys.argv[1:] if argv is None else argv
    options = _parser().parse_args(argv)
    _machines.check(options)
    if _machines.watched():
        _machines.speak()
    elif options.coordinator:
        return _machines.watch(options, __file__, argv)
    command = shlex.join(["python", "apps/finetune.py", *(argument for argument in argv if argument != "--overwrite")])
    arguments = {name: value for name, value in vars(options).items() if name not in _NOT_OF_THE_RUN}
    run = pathlib.Path(options.out)
    with _machines.joined(options) as machines, _run_folder.alone_in(run) if machines.first else _NOTHING:
        finished = machines.agreed(lambda: _run_folder.is_finished(run, arguments, options.overwrite))
        if not finished:
            _train(run, options, arguments, command, machines)
    if options.dry_run:
        return 0
    if not machines.first:
        return 0
    if finished:
        print(f"{run} is finished; nothing was changed.")
    _run_folder.print_metrics(run)
    if not finished:
        print(f"The page: {run / 'report.html'}")
    return 0


def _parser():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    add = parser.add_argument
    add(
        "--data",
        required=True,
        help="a folder of class folders, a CSV file of path,label, elpv, elpv/mono, elpv/poly, or a TFDS name",
    )
    add("--model", default="ResNet50", help="a network of kresnets.list_models(); default ResNet50")
    add("--weights", default="imagenet", help="imagenet, none, a tag, a file, or another run's folder; default imagenet")
    add("--size", type=_common.positive_int, help="pixels a side; default that of the weights, else the network's own")
    add("--limit", type=_common.positive_int, help="most images for training and validation together")
    add("--batch-size", type=_common.positive_int, default=32, help="of all devices together; default 32")
    add("--dtype", choices=("auto", "float32", "mixed_bfloat16", "mixed_float16"), default="auto")
    add("--class-weight", choices=("none", "balanced"), default="none")
    add("--bad-images", choices=("skip", "error"), default="error")
    add(
        "--from-scratch",
        action="store_true",
        help="everything trains from the first epoch at one rate (--learning-rate, --epochs-per-stage)",
    )
    add(
        "--cache",
        choices=("auto", "off"),
        default="auto",
        help="keep what frozen layers give, and large photographs decoded, in --out until the run ends; changes no result",
    )
    add(
        "--pretrained",
        choices=("auto", "yes", "no"),
        default="auto",
        help="whether the trunk was taught; default auto: what its weights tell",
    )
    add("--dry-run", action="store_true", help="print the plan, and stop")
    add("--recompute", action="store_true", help="train in less memory and more time; features are then not kept")
    add("--out", required=True, help="the run's folder")
    add("--overwrite", action="store_true", help="replace a run made with other arguments")
    _machines.add_options(parser)
    recipe = parser.add_argument_group(
        "recipe",
        "what is left out is resolved by the images, the classes and the trunk; --dry-run shows to what",
    )
    add = recipe.add_argument
    add(
        "--recipe",
        metavar="FILE",
        help="a JSON file of fields, such as the best_recipe.json of a search; options go before it",
    )
    add("--head-epochs", type=_whole)
    add(
        "--stages",
        nargs="*",
        metavar="GROUP",
        help="groups or blocks to thaw, one after the other; none: the head alone",
    )
    add("--epochs-per-stage", type=_common.positive_int)
    add("--learning-rate", type=_rate_or_find, help="a number, or find: by a range test on the first stage")
    for name in (
        "--trunk-learning-rate",
        "--ratio",
        "--weight-decay",
        "--warmup",
        "--label-smoothing",
        "--mixup",
        "--ema",
        "--ramp",
    ):
        add(name, type=float)
    for name in ("--batchnorm", "--optimizer", "--augment", "--advance", "--keep"):
        add(name)
    add("--schedule", help="cosine, constant, or a TOML file of stages, such as the schedule.toml of another run")
    add("--views", type=_common.positive_int, help="augmented copies of each image that are kept; 1: none")
    add("--patience", type=_whole)
    add("--max-epochs-per-stage", type=_common.positive_int)
    add("--seed", type=_whole, default=0)
    return parser


def _whole(text):
    if not text.isascii() or not text.isdigit():
        raise argparse.ArgumentTypeError(f"must be a whole number from 0, not {text!r}")
    return int(text)


def _rate_or_find(text):
    try:
        return text if text == "find" else float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"must be a number or 'find', not {text!r}") from None


def _train(run, options, arguments, command, machines):
    _set_up(quiet=not machines.first)
    import keras

    import kresnets
    from kresnets.data import load_data
    from kresnets.devices import Devices, all_devices, apart, disconnect
    from kresnets.devices.hardware import fast_dtype

    spec, recipe = _network.spec_of(options.model), _recipe(options)
    if options.recompute and recipe.views not in (1, "auto"):
        raise ValueError(
            f"--views {recipe.views} are copies in the feature cache, which --recompute goes without: leave one out."
        )
    _check_plan(spec, recipe)
    policy = machines.agreed(fast_dtype) if options.dtype == "auto" else options.dtype
    keras.mixed_precision.set_dtype_policy(policy)
    data = load_data(options.data, options.limit, options.seed, options.bad_images)
    digest = _common.digest(data)
    if machines.agreed(lambda: digest) != digest:
        raise ValueError(f"The photographs or their labels in {options.data} are not those of process 0.")
    several = options.devices or options.coordinator
    one = contextlib.nullcontext(Devices(1, contextlib.nullcontext))
    with all_devices(options.batch_size) if several else one as devices:
        if several:
            print(
                f"Trains on {devices.count} devices." if devices.count > 1 else "There is one device here: it trains."
            )
        keras.utils.set_random_seed(options.seed)
        with devices.scope():
            model = _network.with_trunk(spec, options.weights, options.size, len(data.class_names))
            model = kresnets.recompute(model) if options.recompute else model
        plan, found = _plan(recipe, options, model, data), None
        if options.learning_rate == "find":
            recipe, found = _with_found_rate(plan.recipe, options, arguments, model, data, run, machines, devices.count)
            given = dict.fromkeys((*plan.given, "learning_rate", "trunk_learning_rate"))
            plan = dataclasses.replace(_plan(recipe, options, model, data), given=tuple(given))
        config = _config(arguments, command, digest, data, model, policy, plan.recipe)
        if options.dry_run:
            _introduce(config, data)
            print(plan.table())
            return
        machines.agreed(lambda: _run_folder.replace_or_resume(run, config))
        if found is not None and machines.first:
            found.plot(run / "learning_rate.png")
        _introduce(config, data)
        history = _fit(run, options, model, data, plan, config, machines)
        if machines.first:
            beside = run / ".tmp-model.keras"
            with apart():
                model.save(beside)
            os.replace(beside, run / "model.keras")
    if options.coordinator:
        disconnect()
    if not machines.first:
        return
    if devices.count > 1:
        model = keras.saving.load_model(run / "model.keras", compile=False)  # on one device
    _judge(run, model, data, config, history)
    # Only now is the state of no more use; a run cut off before goes on from it.
    _run_folder.clear(
        run, ("epoch-*.weights.h5", "best-*.npz", "stage-*-*.npz", "stages.json", "run.json", "done", "images")
    )


def _plan(recipe, options, model, data):
    import kresnets

    size, known = model.input_shape[1], {"auto": None, "yes": True, "no": False}[options.pretrained]
    train, validation = (part.batches(options.batch_size, size, cache=False) for part in (data.train, data.validation))
    return kresnets.plan(model, train, validation, recipe, pretrained=known)


def _fit(run, options, model, data, plan, config, machines):
    import keras
    from _progress import Progress

    import kresnets
    from kresnets.data import class_weight, epoch_variable

    epoch, images = epoch_variable(), _images_cache(run, options, machines)
    size, crop = config["size"], config["preprocess"]["crop"]
    callbacks = [
        # When training begins: by then every argument has been found good, and bad ones leave nothing behind.
        keras.callbacks.LambdaCallback(on_train_begin=lambda logs: _run_folder.note_down(run, config, data)),
        Progress([stage.group for stage in plan.stages], sum(stage.epochs for stage in plan.stages)),
    ]
    return kresnets.fine_tune(
        model,
        data.train.batches(options.batch_size, size, crop, shuffle_seed=options.seed, epoch=epoch, cache=images),
        data.validation.batches(options.batch_size, size, crop, cache=images),
        plan,
        cache="auto" if options.cache == "auto" else False,
        callbacks=callbacks if machines.first else (),
        class_weight=class_weight(data.train.labels) if options.class_weight == "balanced" else None,
        epoch=epoch,
        state_dir=run,
        verbose=0,
    )


def _images_cache(run, options, machines):
    """Return where photographs are kept decoded: large ones in the run's folder, if this process may write there."""
    return run / "images" if options.cache == "auto" and machines.first else "auto"


def _set_up(quiet):
    _common.import_tensorflow()
    logging.basicConfig(format="%(message)s")
    logging.getLogger("kresnets").setLevel(logging.ERROR if quiet else logging.INFO)
    # A name that matplotlib's font cannot draw: the boxes in its place say so.
    warnings.filterwarnings("ignore", message="Glyph .* missing from")


def _config(arguments, command, digest, data, model, policy, recipe):
    import kresnets

    return {
        "kresnets": kresnets.__version__,
        "arguments": arguments,
        "class_names": list(data.class_names),
        "model": arguments["model"],
        "size": model.input_shape[1],
        "dtype": policy,
        "preprocess": dataclasses.asdict(kresnets.preprocessing_of(model)),
        "recipe": dataclasses.asdict(recipe),
        "command": command,
        "data": digest,
    }


def _introduce(config, data):
    print(f"{config['model']}, {config['size']} pixels, {config['dtype']}; {data.name}:\n{data.summary()}")
    for note in _data_notes(data):
        print(note)


def _recipe(options):
    from kresnets import Recipe

    given = {
        field.name: getattr(options, field.name)
        for field in dataclasses.fields(Recipe)
        if getattr(options, field.name, None) not in (None, "find")
    }
    if options.recipe:
        given = _network.read_recipe(options.recipe) | given
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
            f"--{refused[0].replace('_', '-')} does not go with --from-scratch, where everything trains at one rate; leave one out."
        )
    start = {"epochs": given.pop("epochs_per_stage", 20), "learning_rate": given.pop("learning_rate", 3e-3)}
    return dataclasses.replace(Recipe.from_scratch(**start), **given)


def _with_found_rate(recipe, options, arguments, model, data, run, machines, devices):
    """Return the recipe at the rate that a range test finds for its first stage, and the test; an interrupted run keeps
    its own rate and has no test."""
    import kresnets
    from kresnets.freezing import set_trainable
    from kresnets.groups import layout

    earlier = machines.agreed(lambda: _rates_of(run, arguments))
    if earlier is not None:
        return dataclasses.replace(recipe, **earlier), None
    where = layout(model)
    start = where.first(recipe.staging(where.names).stages[0][0])
    set_trainable(model, where, lambda place: place >= start, recipe.batchnorm)
    size, crop = model.input_shape[1], kresnets.preprocessing_of(model).crop
    batches = data.train.batches(options.batch_size, size, crop, cache=_images_cache(run, options, machines))
    if devices > 1 and len(data.train) >= options.batch_size:
        batches = batches.take(len(data.train) // options.batch_size)  # a short one need not divide among them
    found = kresnets.find_learning_rate(model, batches, optimizer=recipe.optimizer, preprocess=True)
    rate = machines.agreed(lambda: float(f"{found.suggestions['valley']:.2g}"))
    print(
        f"Learning rate {rate:g}, found by a range test (learning_rate.png); once the trunk thaws a tenth of it, unless told."
    )
    first = not recipe.head_epochs and recipe.timetable is None  # the trunk trains from the first epoch
    trunk = rate if first else options.trunk_learning_rate or rate / 10
    return dataclasses.replace(recipe, learning_rate=rate, trunk_learning_rate=trunk), found


def _rates_of(run, arguments):
    """Return the rates that were found when this very run began, or None."""
    try:
        earlier = json.loads((run / "config.json").read_text(encoding="utf-8"))
        rates = {name: earlier["recipe"][name] for name in ("learning_rate", "trunk_learning_rate")}
        return rates if earlier["arguments"] == arguments else None
    except (OSError, ValueError, KeyError, TypeError):
        return None  # no run yet, or one that is about to be replaced


def _check_plan(spec, recipe):
    """Hold the recipe's stages against the network before any photograph is looked at."""
    import kresnets
    from kresnets.groups import Layout
    from kresnets.transfer.plan import Facts, resolve

    names = ("stem", *(f"stage{stage}" for stage in range(1, len(spec.depths) + 1)), "head")
    places = (
        ((stage, block), None) for stage, depth in enumerate(spec.depths, start=1) for block in range(1, depth + 1)
    )
    facts = Facts(groups=names, images=1, steps=1, validation=0, classes=2, pretrained=True, why="")
    recipe = resolve(recipe, facts).recipe
    kresnets.StagedUnfreezing(recipe.staging(names), recipe.batchnorm).check(Layout(names, tuple(places)))


def _data_notes(data):
    notes = []
    if data.bad:
        notes.append(f"{len(data.bad)} images were left out as damaged; bad_images.txt names them.")
    if data.rotated:
        notes.append(f"{data.rotated} images carry an EXIF rotation, which is ignored here and in serving alike.")
    counts = data.train.counts()
    most, least = max(counts, key=counts.get), min(counts, key=counts.get)
    if counts[most] >= 2 * counts[least]:
        notes.append(
            f"{most!r} has {counts[most] / counts[least]:.1f} times as many training images as {least!r}; see --class-weight balanced."
        )
    return notes


def _judge(run, model, data, config, history):
    """Ask the model about the test part, once; write the pictures, the page and, last, metrics.json."""
    import numpy as np

    import kresnets
    from kresnets import report
    from kresnets.devices.hardware import describe
    from kresnets.report import metrics

    size, preprocessing = config["size"], kresnets.Preprocessing(**config["preprocess"])
    images = data.test.batches(64, size, preprocessing.crop, cache=False)  # drawn once
    probabilities = model.predict(images.map(lambda x, y: preprocessing(x, "channels_last")), verbose=0)
    labels = data.test.labels
    numbers = metrics.evaluate(labels, probabilities, list(data.class_names), seed=config["arguments"]["seed"])
    seconds = sum(history.history["seconds"])
    numbers |= {"seconds": seconds, "images_per_second": len(data.train) * len(history.epoch) / seconds}

    report.curves(run / "history.csv", run / "curves.png")
    report.confusion(labels, metrics.predict_classes(probabilities), list(data.class_names), run / "confusion.png")
    worst = report.worst_mistakes(labels, probabilities)
    photographs = data.test.pixels(size, worst, preprocessing.crop)
    heat = report.grad_cam(model, preprocessing(photographs, "channels_last"), np.argmax(probabilities[worst], axis=1))
    report.mistakes(
        photographs, labels[worst], probabilities[worst], heat, list(data.class_names), run / "mistakes.png"
    )
    rows = [("class", "training", "validation", "test")]
    counts = [part.counts() for part in (data.train, data.validation, data.test)]
    rows += [(name, *(count[name] for count in counts)) for name in data.class_names]
    notes = [*history.notes, *_data_notes(data), f"Trained on: {describe()}, {config['dtype']}."]
    report.html(
        run / "report.html",
        f"{config['model']} on {data.name}",
        numbers,
        {**config["recipe"], **{k: v for k, v in config["arguments"].items() if k not in config["recipe"]}},
        config["command"],
        {caption: run / name for caption, name in _run_folder.PICTURES.items()},
        notes,
        {"Plan": history.plan.rows(), "Images": rows},
    )
    _common.write_text(run / "metrics.json", json.dumps(numbers, indent=1) + "\n")


if __name__ == "__main__":
    _common.run(main)
