"""Put a claim about residual networks or transfer to the test: python apps/claims.py degradation (or list, or all)

Each claim is measured with several seeds and writes a table (results.csv), a picture (picture.png) and a paragraph
with its verdict (text.md) into runs/claims/NAME. A run that was killed goes on by the same command.
"""

import argparse
import pathlib

import _claims
import _common


def main(argv=None):
    options = _parser().parse_args(argv)
    names = _chosen(options.names)
    if options.publish is not None and options.quick:
        raise ValueError("--publish is for what --quick does not measure: leave one of them out.")
    if options.recipe == "paper" and options.quick:
        raise ValueError("--recipe paper takes days and --quick minutes: leave one of them out.")
    if options.names == ["list"]:
        for name in names:
            print(f"{name:20} {_claims.find(name).title}")
        return 0
    for name in names:
        allowed = _claims.find(name).data
        if options.data is not None and options.data not in allowed:
            allowed_text = f"must be one of {', '.join(allowed)}" if allowed else "cannot be chosen"
            raise ValueError(f"{name}: --data {allowed_text}. Received: {options.data!r}")
        if options.recipe not in _claims.find(name).recipes:
            raise ValueError(f"{name} has no --recipe {options.recipe}: leave it out.")
    _common.import_tensorflow()
    from _claims import runner
    from _claims.claim import Options

    asked = Options(quick=options.quick, seeds=options.seeds, data=options.data, recipe=options.recipe)
    for name in names:
        folder = options.out / runner.folder_name(name, asked)
        print(f"{name}: {_claims.find(name).title}")
        say = lambda line: print(f"  {line}", flush=True)  # noqa: E731
        for found in runner.run(name, asked, folder, options.jobs, say, options.publish):
            print(f"  {found.verdict}: {found.claim} {found.numbers}")
        print(f"  {folder / runner.TEXT}, {folder / runner.PICTURE}, {folder / runner.TABLE}")
    if options.publish is not None:
        runner.publish(_claims.NAMES, options.out, options.publish)
    return 0


def _parser():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("names", metavar="NAME", nargs="+", help=f"{', '.join(_claims.NAMES)}; all of them; or list")
    parser.add_argument("--quick", action="store_true", help="minutes in place of hours; proves little")
    parser.add_argument("--seeds", type=_common.positive_int, help="how many (default: each claim's own)")
    parser.add_argument(
        "--data",
        metavar="NAME",
        help=(
            "what small networks learn from: digits, patches or cifar10; what freeze-or-finetune's trunk has "
            "learned from: imagenet; judge: default-recipe by what it was not chosen by"
        ),
    )
    parser.add_argument(
        "--recipe",
        choices=("short", "paper"),
        default="short",
        help="paper: 164 epochs as in the paper, for days (degradation)",
    )
    parser.add_argument(
        "--jobs", type=_common.positive_int, default=_cores(), help="runs at once, a thread each (default: the cores)"
    )
    parser.add_argument(
        "--out", metavar="FOLDER", type=pathlib.Path, default=pathlib.Path("runs/claims"), help="default runs/claims"
    )
    parser.add_argument(
        "--publish",
        metavar="FOLDER",
        type=pathlib.Path,
        help="also write claims.md, and a page for each claim in claims/, there",
    )
    return parser


def _chosen(names):
    if "all" in names or "list" in names:
        if len(names) > 1:
            raise ValueError(f"'all' and 'list' stand alone. Received: {' '.join(names)}")
        return list(_claims.NAMES)
    unknown = [name for name in names if name not in _claims.NAMES]
    if unknown:
        raise ValueError(f"There is no claim {unknown[0]!r}: use all, list, or some of {', '.join(_claims.NAMES)}.")
    return list(dict.fromkeys(names))


def _cores():
    import os

    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


if __name__ == "__main__":
    _common.run(main)
