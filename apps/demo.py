"""Show the whole path on real photographs of solar cells: python apps/demo.py

Carries the trunk that ships with kresnets to 75 labelled photographs by the plain default, sets the head alone on the
same trunk beside it, exports the first one and asks the served model about three photographs.
One seed: a demonstration, no proof.
"""

import importlib.metadata
import json
import pathlib
import shlex
import subprocess
import time

import _common

import kresnets_command

RUNS, SERVED = pathlib.Path("runs/demo"), pathlib.Path("saved_models/demo")
CELLS = "--data elpv/mono --limit 75 --model ResNet18DThin --weights kresnets/distilled"
STEPS = {
    "fine-tuned on 75 photographs": f"finetune {CELLS} --out {RUNS}/carried",
    "head alone, on the same 75": f"finetune {CELLS} --stages --augment none --out {RUNS}/head",
    "exported": f"export {RUNS}/carried {SERVED} --verify 100",
    "served": f"predict {SERVED} {{photographs}}",
}
# What the demo needs beside kresnets: distribution -> extra.
PACKAGES = {"elpv-dataset": "elpv"}


def main():
    _check_packages()
    root = pathlib.Path(__file__).resolve().parent.parent
    seconds = {}
    for name, command in STEPS.items():
        command = command.format(photographs=shlex.join(map(str, _three_photographs())))
        print(f"\n== {name}\n$ kresnets {command}", flush=True)
        began = time.perf_counter()
        done = subprocess.run(kresnets_command.command(*shlex.split(command)), cwd=root)
        seconds[name] = time.perf_counter() - began
        if done.returncode:
            return done.returncode
    print("\n== Result, on the 268 test photographs of monocrystalline cells that no training saw")
    for name, run in zip(STEPS, ("carried", "head")):
        numbers = json.loads((root / RUNS / run / "metrics.json").read_text())
        (low, high), auc = numbers["accuracy_interval"], numbers["auc"]
        print(f"{name:40} accuracy {numbers['accuracy']:.3f} (95 %: {low:.3f} to {high:.3f})  AUC {auc:.3f}")
    for name, took in seconds.items():
        print(f"{name:40} {took:5.0f} s")
    print(f"{'in all':40} {sum(seconds.values()):5.0f} s\nThe page: {RUNS / 'carried' / 'report.html'}")
    return 0


def _check_packages():
    for package, extra in PACKAGES.items():
        try:
            importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            raise ImportError(f"The demo needs the package {package}: pip install 'kresnets[{extra}]'.") from None


def _three_photographs():
    """Return three monocrystalline photographs of the test part: one defective, two functional."""
    files = {file.name: file for file in importlib.metadata.files("elpv-dataset") if file.name.endswith(".png")}
    return [files[name].locate() for name in ("cell0003.png", "cell0397.png", "cell1157.png")]


if __name__ == "__main__":
    _common.run(main)
