"""Search how to fine-tune a network: python apps/search.py --data FOLDER --model ResNet50 --trials 24 --out runs/search

Which groups thaw, how fast they learn, how long the head trains alone: each trial fine-tunes on the training part and is
scored on the validation part. Writes trials.csv, search.html (which can be opened meanwhile) and best_recipe.json, which
finetune.py --recipe takes; at the end the best recipe and the default one are trained on both parts and judged, once, on
the test part. Interrupted or killed at any moment, the same command goes on where it was.
"""

import contextlib
import errno
import functools
import json
import os
import pathlib
import shlex
import shutil
import signal
import sys

import _common
import _network
import _run_folder
from _search import asked, keeper, live, verdict


def main(argv=None):
    argv = sys.argv[1:] if argv is None else argv
    options = asked.parser(__doc__.splitlines()[0]).parse_args(argv)
    asked.set_role(options)
    folder = pathlib.Path(options.out)
    if keeper.is_child():
        command = ["python", "apps/search.py", *(argument for argument in argv if argument != "--overwrite")]
        return _search(folder, options, shlex.join(command))
    asked.check_folder(folder, options)
    # A worker writes into the folder of its chief.
    with contextlib.nullcontext() if options.worker else _run_folder.alone_in(folder):
        return keeper.keep(__file__, argv, lambda: asked.ended(folder / "search"))


def _search(folder, options, command):
    _at_interrupt(_leave_at_once)  # nothing has been written yet, and imports take Ctrl-C badly
    signal.pthread_sigmask(signal.SIG_UNBLOCK, keeper.ENDS)
    _set_up(options)
    from kresnets.data import load_data

    spec, classes = _network.spec_of(options.model), [2]  # until the photographs tell: they come after all else

    def build():
        return _network.with_trunk(spec, options.weights, options.size, classes[-1])

    hypermodel, oracle = _hypermodel(build, options), _oracle(options)
    beside = _beside(options, hypermodel)
    shown = live.Live(folder, folder / "search", oracle.objective, hypermodel.space, options, command)
    _at_interrupt(signal.default_int_handler)
    try:
        data = load_data(options.data, options.limit, options.seed, options.bad_images)
        classes.append(len(data.class_names))
        if not options.worker:
            _begin(folder, options, command, data, shown)
        tuner = _tuner(folder, hypermodel, oracle, options, None if options.worker else shown.changed)
        splits = None if options.chief else _splits(folder, data, hypermodel, options)
        tuner.search(splits=splits, callbacks=_callbacks(folder, options), epoch=_epoch(), verbose=0)
        if not tuner.finished:
            return 130 if keeper.is_orphan() else keeper.AGAIN
        return 0 if options.worker else _end(folder, tuner, shown, data, hypermodel, options, beside)
    except KeyboardInterrupt:
        _at_interrupt(signal.SIG_IGN)  # a second one is not to cut off what is written now
        return _interrupted(folder, shown, hypermodel, options)
    except OSError as error:
        if error.filename is None and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            error.filename = str(folder)  # which a write itself does not know
        raise


def _at_interrupt(handler):
    for number in keeper.ENDS:
        signal.signal(number, handler)


def _leave_at_once(number, frame):
    print("\nStopped; the same command goes on.", flush=True)
    os._exit(130)


def _set_up(options):
    import logging

    _common.import_tensorflow()
    logging.basicConfig(format="%(message)s")
    import keras

    from kresnets.hardware import fast_dtype

    keras.mixed_precision.set_dtype_policy(fast_dtype() if options.dtype == "auto" else options.dtype)


def _begin(folder, options, command, data, shown):
    asked.make_room(folder, options)
    _common.write_text(
        folder / "config.json", json.dumps({"arguments": asked.arguments(options), "command": command}, indent=1)
    )
    print(
        f"{options.model}; {data.name}:\n{data.summary()}\n{options.trials} trials of {options.epochs} epochs.",
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
    if (folder / "config.json").exists():
        _finish_page(folder, shown, hypermodel, best)
    return 130


def _hypermodel(build, options):
    import dataclasses

    from kresnets import Recipe
    from kresnets.tuning import RecipeHyperModel

    fields = _network.read_recipe(options.recipe) if options.recipe else {"augment": "none"}
    base = dataclasses.replace(Recipe(**fields), seed=options.seed)
    return RecipeHyperModel(build, options.space, base, options.epochs)


def _beside(options, hypermodel):
    """Return the recipes that are judged beside the winner, by the names of their files."""
    import kresnets
    from kresnets.groups import layout

    found = {}
    for file in options.beside:
        recipe = found[pathlib.Path(file).stem] = kresnets.Recipe(**_network.read_recipe(file))
        where = layout(hypermodel.make(options.seed))
        try:
            kresnets.StagedUnfreezing(recipe.staging(where.names), recipe.batchnorm).check(where)
        except ValueError as error:
            raise ValueError(f"{file}: {error}") from None
    return found


def _tuner(folder, hypermodel, oracle, options, on_change):
    from kresnets.tuning import RecipeTuner

    limit = keeper.resident() + (1 << 30)
    with contextlib.redirect_stdout(None):  # Keras Tuner's "Reloading Tuner": `Live` says what there is
        return RecipeTuner(
            hypermodel, oracle, directory=str(folder), project_name="search",
            prune=None if options.prune == 1 else options.prune, seed=options.seed, on_change=on_change,
            leave=lambda: keeper.resident() > limit or keeper.is_orphan(),
        )  # fmt: skip


def _oracle(options):
    import keras_tuner

    oracles, told = keras_tuner.oracles, {"objective": options.objective}
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


@functools.cache
def _epoch():
    """Return the variable that tells pipelines the epoch, one for all."""
    from kresnets.data import epoch_variable

    return epoch_variable()


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


def _finish_page(folder, shown, hypermodel, best, winner=None):
    shown.write_csv()
    if best is not None:
        live.write_recipe(folder / "best_recipe.json", hypermodel.space.recipe(best["values"]))
    shown.page(winner=winner)


def _end(folder, tuner, shown, data, hypermodel, options, beside):
    """Judge the winner, and write what the search has found."""
    import kresnets

    best, stopped = shown.best(), tuner.oracle.stopped_because
    _finish_page(folder, shown, hypermodel, best)
    if stopped or best is None:
        raise RuntimeError(stopped or "No trial was completed: trials.csv says why each failed.")
    values = ", ".join(f"{name} {value}" for name, value in best["values"].items())
    print(
        f"The best of {len(tuner.oracle.trials)} trials is {best['trial_id']}: {values}: {tuner.oracle.objective.name} "
        f"{best['score']:.4g}.",
        flush=True,
    )
    path = folder / "verdict.json"
    found = json.loads(path.read_text()) if path.exists() else {}
    if found.get("trial_id") != best["trial_id"]:  # else of an earlier winner, of fewer trials
        recipes = {"winner": tuner.best_recipe(), "default": kresnets.Recipe(), **beside}
        found = {"trial_id": best["trial_id"], **_judge(folder, recipes, data, hypermodel, options)}
        _common.write_text(path, json.dumps(found, indent=1) + "\n")
        _run_folder.clear(folder, ("answers-winner-*.json",))
    print(f"Trained on training and validation part, judged on {len(data.test)} test images (95 % intervals):")
    verdict.tell(found)
    tuner.clear()
    shutil.rmtree(folder / "images", ignore_errors=True)
    _finish_page(folder, shown, hypermodel, best, found)
    if (folder / "search.html").exists():  # else `Live` has said what is missing
        print(f"The page: {folder / 'search.html'}")
    print(f"The recipe, for finetune.py --recipe: {folder / 'best_recipe.json'}")
    return 0


def _judge(folder, recipes, data, hypermodel, options):
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

    recipes = {name: dataclasses.replace(recipe, seed=options.seed) for name, recipe in recipes.items()}
    return verdict.judge(folder, train, data, recipes, options.seed)


if __name__ == "__main__":
    _common.run(main)
