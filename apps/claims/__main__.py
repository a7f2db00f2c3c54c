"""Put a claim about residual networks or transfer to the test: python apps/claims.py degradation (or list, or all)

Each claim is measured with several seeds and writes a table (results.csv), a picture (picture.png) and a paragraph
with its verdict (text.md) into runs/claims/NAME. A run that was killed goes on by the same command.
"""

import argparse
import os
import pathlib

import _common

import claims


def main(argv=None):
    options = _parser().parse_args(argv)
    names = _chosen(options.names)
    for option in ("publish", "recipe"):
        if options.quick and getattr(options, option) not in (None, "short"):
            raise ValueError(f"--{option} is for what --quick does not measure: leave one of them out.")
    _common.import_tensorflow()
    from claims import page, runner
    from claims.claim import Options

    if options.names == ["list"]:
        for name in names:
            print(f"{name:20} {page.words(name).title}")
        return 0
    for name in names:
        claim = claims.find(name)
        if options.data is not None and options.data not in claim.data:
            told = f"must be one of {', '.join(claim.data)}" if claim.data else "cannot be chosen"
            raise ValueError(f"{name}: --data {told}. Received: {options.data!r}")
        if options.recipe not in claim.recipes:
            raise ValueError(f"{name} has no --recipe {options.recipe}: leave it out.")
    asked = Options(quick=options.quick, seeds=options.seeds, data=options.data, recipe=options.recipe)
    for name in names:
        folder = options.out / page.folder_name(name, asked)
        print(f"{name}: {page.words(name).title}")
        say = lambda line: print(f"  {line}", flush=True)
        for found in runner.run(name, asked, folder, options.jobs, say, options.publish):
            print(f"  {found.verdict}: {found.claim} {found.numbers}")
        print(f"  {folder / page.TEXT}, {folder / page.PICTURE}, {folder / page.TABLE}")
    if options.publish is not None:
        runner.publish(claims.NAMES, options.out, options.publish)
    return 0


def _parser():
    parser = argparse.ArgumentParser(
        prog="claims.py", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    add, count = parser.add_argument, _common.positive_int
    add("names", metavar="NAME", nargs="+", help=f"{', '.join(claims.NAMES)}; all of them; or list")
    add("--quick", action="store_true", help="minutes in place of hours; proves little")
    add("--seeds", type=count, help="how many (default: each claim's own)")
    told = (
        "what small networks learn from: digits or cifar10; what a carried trunk has learned from: imagenet or "
        "open_nsfw; judge: default-recipe by what it was not chosen by"
    )
    add("--data", metavar="NAME", help=told)
    told = "paper: 164 epochs as in the paper, for days (degradation)"
    add("--recipe", choices=("short", "paper"), default="short", help=told)
    add("--jobs", type=count, default=cores, help="runs at once, a thread each (default: the cores)")
    out = pathlib.Path("runs/claims")
    add("--out", metavar="FOLDER", type=pathlib.Path, default=out, help="default runs/claims")
    told = "also write claims.md, and a page for each claim in claims/, there"
    add("--publish", metavar="FOLDER", type=pathlib.Path, help=told)
    return parser


def _chosen(names):
    if "all" in names or "list" in names:
        if len(names) > 1:
            raise ValueError(f"'all' and 'list' stand alone. Received: {' '.join(names)}")
        return list(claims.NAMES)
    unknown = [name for name in names if name not in claims.NAMES]
    if unknown:
        raise ValueError(f"There is no claim {unknown[0]!r}: use all, list, or some of {', '.join(claims.NAMES)}.")
    return list(dict.fromkeys(names))


if __name__ == "__main__":
    _common.run(main)
