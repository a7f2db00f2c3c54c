"""Real photographs of solar cells, of the package elpv-dataset."""

import importlib.metadata
import pathlib
import shutil


def copy_to(target):
    """Copy 60 of them into two class folders; return `target`."""
    package = [file for file in importlib.metadata.files("elpv-dataset") if file.name == "labels.csv"][0].locate()
    rows = [line.split() for line in pathlib.Path(package).read_text().splitlines()]
    for name, wanted in (("defective", 1.0), ("functional", 0.0)):
        (target / name).mkdir()
        chosen = [row[0] for row in rows if float(row[1]) == wanted and row[2] == "mono"][:30]
        for path in chosen:
            shutil.copy(pathlib.Path(package).parent / path, target / name)
    return target
