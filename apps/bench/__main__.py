"""Measure kresnets against its peers, alternating: python apps/bench.py step (or serving, soak, finetune, search,
input, trace, peak, build, load, import)

Every figure is a ratio of medians over rounds A B A B, with the spread of the ratios round by round: machines are
noisy. What has a limit says whether it is kept, and the exit code is 1 where one is not. Each run writes a JSON file,
runs/bench/COMMAND.json unless --out says otherwise, and step and trace a picture beside it.
"""

import argparse
import importlib
import os
import pathlib

import _common

DTYPES = ("float32", "mixed_bfloat16")
_COUNT = {"type": _common.positive_int}
_OWN_SIZE = {"--size": _COUNT | {"help": "pixels a side; default the network's own"}}
_BOTH = "a network of both libraries; default %(default)s"
_CELLS = {
    "--images": _COUNT | {"default": 600, "help": "photographs of solar cells, to learn and to validate; default 600"},
    "--size": _COUNT | {"default": 224},
    "--batch-size": _COUNT | {"default": 32},
}
# Command -> its module, what it measures, how many rounds, its options.
COMMANDS = {
    "step": ("step", "training and prediction, images a second and share of the machine's peak", 4, {
        "--model": {"nargs": "+", "default": ["ResNet50"], "help": "networks of kresnets; default ResNet50"},
        **_OWN_SIZE,
        "--batch-size": _COUNT | {"default": 16},
        "--steps": _COUNT | {"default": 3, "help": "timed steps a round; default 3"},
        "--dtype": {"nargs": "+", "choices": DTYPES, "default": DTYPES},
        "--memory": {"action": "store_true", "help": "also what a training step adds to a process's peak memory"},
    }),
    "serving": ("serving", "an exported model against Keras's own export, and `kresnets serve` with it", 5, {
        "--model": {"default": "ResNet50", "help": "a network of kresnets; default ResNet50"},
        **_OWN_SIZE,
        "--batch-size": _COUNT | {"nargs": "+", "default": [1, 32]},
        "--clients": _COUNT | {"nargs": "+", "default": [1, 4, 16], "help": "at once; default 1 4 16"},
        "--seconds": {"type": float, "default": 10.0, "help": "of each measurement of the server; default 10"},
        "--parts": {"nargs": "+", "choices": ("graph", "server"), "default": ["graph", "server"]},
    }),
    "finetune": ("finetune", "fine-tuning with the feature cache, without, and as Keras's guide", None, _CELLS),
    "search": ("search", "a search for a recipe against Keras Tuner with keras.applications", 1, _CELLS | {
        "--trials": _COUNT | {"default": 24},
        "--spaces": {"nargs": "+", "choices": ("to stage3", "to stage4"), "default": ["to stage3", "to stage4"]},
        "--ways": {"nargs": "+", "choices": ("whole", "pruned"), "default": ["whole", "pruned"], "help": "of ours"},
    }),
    "input": ("pipeline", "a folder of large JPEGs: what the pipeline delivers, what a step uses", 3, {}),
    "soak": ("soak", "`kresnets serve` saturated, with new versions and hostile requests: what goes wrong", None, {
        "--model": {"default": "CifarResNet20", "help": "a network of kresnets; default CifarResNet20"},
        **_OWN_SIZE,
        "--minutes": {"type": float, "default": 30.0, "help": "default 30"},
        "--changes": _COUNT | {"default": 5, "help": "new versions meanwhile; default 5"},
        "--hostile": {"type": float, "default": 0.01, "help": "share of hostile requests; default 0.01"},
    }),
    "trace": ("trace", "where the time of a training step goes, by kind of operation", None, {
        "--model": {"default": "ResNet50", "help": _BOTH},
        "--size": _COUNT | {"default": 224},
        "--batch-size": _COUNT | {"default": 16},
        "--dtype": {"choices": DTYPES, "default": "float32"},
    }),
    "peak": ("peak", "the machine's convolution and matrix peak", 5, {}),
    "build": ("start", "time to build a network, against keras.applications", 9, {
        "--model": {"default": "ResNet50", "help": _BOTH},
    }),
    "load": ("start", "time and memory to load a local weights file, against keras.applications", 5, {
        "--model": {"default": "ResNet152", "help": _BOTH},
    }),
    "import": ("start", "seconds that importing kresnets adds to importing keras", 9, {}),
}  # fmt: skip


def main(argv=None):
    options = _parser().parse_args(argv)
    if options.out.is_dir() or options.out.suffix != ".json":
        raise ValueError(f"--out must be a file that ends in .json. Received: {options.out}")
    if os.environ.get("KERAS_BACKEND", "tensorflow") != "tensorflow":
        raise ValueError("The bench measures on TensorFlow: leave KERAS_BACKEND out.")
    if options.command != "import":
        _common.import_tensorflow()
    if hasattr(options, "model"):
        _check_models(options)
    module = importlib.import_module(f"bench.{COMMANDS[options.command][0]}")
    return getattr(module, f"bench_{options.command}")(options)


def _parser():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    commands = parser.add_subparsers(dest="command", required=True)
    for name, (_, text, rounds, options) in COMMANDS.items():
        command = commands.add_parser(name, help=text, allow_abbrev=False)
        if rounds:
            command.add_argument("--rounds", **_COUNT, default=rounds, help=f"default {rounds}")
        command.add_argument("--out", type=pathlib.Path, default=pathlib.Path(f"runs/bench/{name}.json"))
        for option, how in options.items():
            command.add_argument(option, **how)
    return parser


def _check_models(options):
    import keras

    import kresnets

    names, kind = kresnets.list_models(), "networks of kresnets"
    if options.command not in ("step", "serving", "soak"):  # where peers that lack a network are left out
        names, kind = [name for name in names if hasattr(keras.applications, name)], "a network of both libraries"
    for model in [options.model] if isinstance(options.model, str) else options.model:
        if model not in names:
            raise ValueError(f"--model must be {kind}: {', '.join(names)}. Received: {model}")


if __name__ == "__main__":
    _common.run(main)
