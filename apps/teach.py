"""Teach a small trunk on pictures made by procedure: python apps/teach.py SmallResNet18D --out small.weights.h5

No photograph is needed: textures, gratings, noise and shapes are drawn anew in each epoch, the classes are how they are
drawn. The weights that ship with kresnets were taught so; what they gain is told by apps/claims.py small-weights.
"""

import argparse
import pathlib
import time

import _common


def main(argv=None):
    options = _parser().parse_args(argv)
    if not options.out.name.endswith(".weights.h5"):
        raise ValueError(f"--out must end in .weights.h5. Received: {options.out}")
    if options.out.is_dir():
        raise ValueError(f"{options.out} is a folder: give --out the name of a file.")
    if options.out.exists() and not options.overwrite:
        raise ValueError(f"{options.out} is there already: give another --out, or --overwrite to replace it.")
    if not 32 <= options.size <= 96:
        raise ValueError(f"--size must be 32 to 96, for which the pictures are drawn. Received: {options.size}")
    if options.classes < 2:
        raise ValueError(
            f"--classes must be 2 or more, for there to be something to tell apart. Received: {options.classes}"
        )
    if not 0 <= options.seed < 2**32:
        raise ValueError(f"--seed must be 0 to {2**32 - 1}. Received: {options.seed}")
    _common.import_tensorflow()
    from claims import teach

    from kresnets.transfer.trunk import spec_of

    spec_of(options.name)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    began = time.perf_counter()
    model, accuracy = teach.teach(options.name, options.size, options.epochs, options.seed, options.classes)
    beside = options.out.with_name(f".tmp-{options.out.name}")
    try:
        teach.save(model, options.name, beside)
        beside.replace(options.out)
    finally:
        beside.unlink(missing_ok=True)
    print(
        f"{options.out}: {options.out.stat().st_size / 1e6:.1f} MB; {100 * accuracy:.1f} % right of unseen pictures "
        f"of its {options.classes} classes, after {time.perf_counter() - began:.0f} s. Its head is of those classes: "
        f'build your own on it with kresnets.{options.name}(weights="{options.out}", classes=...).'
    )
    return 0


def _parser():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("name", metavar="NETWORK", help="such as SmallResNet20 or SmallResNet18D")
    parser.add_argument("--size", type=_common.positive_int, default=64, help="pixels a side, 32 to 96; default 64")
    parser.add_argument("--epochs", type=_common.positive_int, default=6, help="of 100 new pictures a class; default 6")
    parser.add_argument("--classes", type=_common.positive_int, default=200, help="default 200")
    parser.add_argument("--seed", type=int, default=0, help="of the pictures and the start; default 0")
    parser.add_argument("--out", type=pathlib.Path, required=True, help="file to write, NAME.weights.h5, as float16")
    parser.add_argument("--overwrite", action="store_true", help="replace the file where it is there")
    return parser


if __name__ == "__main__":
    _common.run(main)
