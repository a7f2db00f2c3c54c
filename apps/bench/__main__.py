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
import sys

import _common

# Where each command is.
COMMANDS = {
    "step": "step",
    "serving": "serving",
    "finetune": "finetune",
    "search": "search",
    "input": "pipeline",
    "soak": "soak",
    "trace": "trace",
    "peak": "peak",
    "build": "start",
    "load": "start",
    "import": "start",
}
DTYPES = ("float32", "mixed_bfloat16")


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
    module = importlib.import_module(f"bench.{COMMANDS[options.command]}")
    return getattr(module, f"bench_{options.command}")(options)


def _parser():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    commands = parser.add_subparsers(dest="command", required=True)
    count = _common.positive_int

    add = _command(commands, "step", "training and prediction, images a second and share of the machine's peak", 4)
    add("--model", nargs="+", default=["ResNet50"], help="networks of kresnets; default ResNet50")
    add("--size", type=count, help="pixels a side; default each network's own")
    add("--batch-size", type=count, default=16)
    add("--steps", type=count, default=3, help="timed steps a round; default 3")
    add("--dtype", nargs="+", choices=DTYPES, default=list(DTYPES))
    add("--memory", action="store_true", help="also what a training step adds to a process's peak memory")
    add("--timm-python", default=sys.executable, help="a Python that has timm; default this one")

    add = _command(commands, "serving", "an exported model against Keras's own export, and `kresnets serve` with it", 5)
    add("--model", default="ResNet50", help="a network of kresnets; default ResNet50")
    add("--size", type=count, help="pixels a side; default the network's own")
    add("--batch-size", type=count, nargs="+", default=[1, 32])
    add("--steps", type=count, default=5, help="timed requests a round; default 5")
    add("--dtype", nargs="+", choices=("float32", "bfloat16"), default=["float32", "bfloat16"])
    add("--clients", type=count, nargs="+", default=[1, 4, 16], help="that ask the server at once; default 1 4 16")
    add("--seconds", type=float, default=10.0, help="of each measurement of the server; default 10")
    parts = ("graph", "server")
    add("--parts", nargs="+", choices=parts, default=list(parts), help="what is measured; default both")

    add = _command(commands, "finetune", "fine-tuning with the feature cache, without, and as Keras's guide", None)
    add("--images", type=count, default=600, help="photographs of solar cells, to learn and to validate; default 600")
    add("--size", type=count, default=224)
    add("--batch-size", type=count, default=32)
    add("--seeds", type=count, default=1)
    from bench.finetune import RECIPES, WAYS

    add("--recipes", nargs="+", choices=tuple(RECIPES), default=list(RECIPES))
    add("--ways", nargs="+", choices=WAYS[1:], default=list(WAYS[1:]), help="what the cached way is measured against")

    add = _command(commands, "search", "a search for a recipe against Keras Tuner with keras.applications", 1)
    add("--images", type=count, default=600, help="photographs of solar cells, to learn and to validate; default 600")
    add("--size", type=count, default=224)
    add("--batch-size", type=count, default=32)
    add("--trials", type=count, default=24)
    add("--prune", type=float, default=0.5, help="share of the others that may be better; default 0.5")
    from bench import search

    add("--spaces", nargs="+", choices=tuple(search.SPACES), default=list(search.SPACES))
    add("--ways", nargs="+", choices=search.WAYS, default=list(search.WAYS), help="of ours")

    add = _command(commands, "input", "a folder of large JPEGs: what the pipeline delivers, what a step uses", 3)
    add("--images", type=count, default=128)
    add("--dtype", choices=DTYPES, default="float32")

    add = _command(
        commands, "soak", "`kresnets serve` saturated, with new versions and hostile requests: what goes wrong", None
    )
    add("--model", default="CifarResNet20", help="a network of kresnets; default CifarResNet20")
    add("--size", type=count, help="pixels a side; default the network's own")
    add("--minutes", type=float, default=30.0, help="default 30")
    add("--changes", type=count, default=5, help="new versions meanwhile; default 5")
    add("--hostile", type=float, default=0.01, help="share of hostile requests; default 0.01")

    add = _command(commands, "trace", "where the time of a training step goes, by kind of operation", None)
    add("--model", default="ResNet50", help="a network of both libraries; default ResNet50")
    add("--size", type=count, default=224)
    add("--batch-size", type=count, default=16)
    add("--steps", type=count, default=3)
    add("--optimizer", default="sgd")
    add("--dtype", choices=DTYPES, default="float32")

    _command(commands, "peak", "the machine's convolution and matrix peak", 5)
    add = _command(commands, "build", "time to build a network, against keras.applications", 9)
    add("--model", default="ResNet50", help="a network of both libraries; default ResNet50")
    add = _command(commands, "load", "time and memory to load a local weights file, against keras.applications", 5)
    add("--model", default="ResNet152", help="a network of both libraries; default ResNet152")
    _command(commands, "import", "seconds that importing kresnets adds to importing keras", 9)
    return parser


def _command(commands, name, text, rounds):
    command = commands.add_parser(name, help=text, allow_abbrev=False)
    if rounds:
        command.add_argument("--rounds", type=_common.positive_int, default=rounds, help=f"default {rounds}")
    command.add_argument("--out", type=pathlib.Path, default=pathlib.Path(f"runs/bench/{name}.json"))
    return command.add_argument


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
