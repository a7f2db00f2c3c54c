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
    if options.quick and options.publish is not None:
        raise ValueError("--publish is for what --quick does not measure: leave one of them out.")
    _common.import_tensorflow()
    from claims import page, runner
    from claims.claim import Options

    if options.names == ["list"]:
        for name in names:
            print(f"{name:20} {page.words(name).title}")
        return 0
    for name in names:
        if options.data is not None and options.data not in (data := claims.find(name).data):
            told = f"must be one of {', '.join(data)}" if data else "cannot be chosen"
            raise ValueError(f"{name}: --data {told}. Received: {options.data!r}")
    asked = Options(quick=options.quick, seeds=options.seeds, data=options.data)
    for name in names:
        folder = options.out / page.folder_name(name, asked)
        print(f"{name}: {page.words(name).title}")
        for found in runner.run(name, asked, folder, options.jobs, lambda line: print(f"  {line}", flush=True)):
            print(f"  {found.verdict}: {found.claim} {found.numbers}")
        print(f"  {folder / page.TEXT}, {folder / page.PICTURE}, {folder / page.TABLE}")
    if options.publish is not None:
        runner.publish(claims.NAMES, options.out, options.publish)
    return 0


def _parser():
    how = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser("claims.py", description=__doc__, formatter_class=how, allow_abbrev=False)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    add, count, path = parser.add_argument, _common.positive_int, pathlib.Path
    add("names", metavar="NAME", nargs="+", help=f"{', '.join(claims.NAMES)}; all of them; or list")
    add("--quick", action="store_true", help="minutes in place of hours; proves little")
    add("--seeds", type=count, help="how many (default: each claim's own)")
    add("--data", metavar="NAME", help="what small networks learn from: digits or cifar10")
    add("--jobs", type=count, default=cores, help="runs at once, a thread each (default: the cores)")
    add("--out", metavar="FOLDER", type=path, default=path("runs/claims"), help="default runs/claims")
    told = "also write claims.md, and a page for each claim in claims/, there"
    add("--publish", metavar="FOLDER", type=path, help=told)
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
