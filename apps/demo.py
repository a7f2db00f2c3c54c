"""Show the whole path on real photographs of solar cells: python apps/demo.py

Teaches a small residual network defects on polycrystalline cells, carries its trunk to monocrystalline ones with only
75 labelled photographs, sets the same network from scratch on the same 75 beside it, exports the carried one and asks
the served model about three photographs in a process without Keras. One seed: a demonstration, no proof.
"""

import importlib.metadata
import json
import pathlib
import shlex
import subprocess
import sys
import time

import _common

RUNS, SERVED = pathlib.Path("runs/demo"), pathlib.Path("saved_models/demo")
NETWORK = "--model CifarResNet20 --size 64 --dtype float32"
FEW = f"--data elpv/mono --limit 75 {NETWORK} --batch-size 8"
STEPS = {
    "taught on 1,162 polycrystalline cells": f"apps/finetune.py --data elpv/poly --from-scratch {NETWORK} --weights none --out {RUNS}/source",
    "carried to 75 monocrystalline cells": (
        f"apps/finetune.py {FEW} --weights {RUNS}/source --head-epochs 10 --stages stage3 stem --epochs-per-stage 40 "
        f"--learning-rate 1e-2 --trunk-learning-rate 3e-3 --ratio 1 --augment none --out {RUNS}/carried"
    ),
    "from scratch on the same 75": (
        f"apps/finetune.py {FEW} --weights none --from-scratch --epochs-per-stage 60 --learning-rate 3e-3 --out {RUNS}/scratch"
    ),
    "exported": f"apps/export.py {RUNS}/carried {SERVED} --verify 100",
    "served": f"apps/predict.py {SERVED} {{photographs}}",
}


def main():
    _check_photographs()
    root = pathlib.Path(__file__).resolve().parent.parent
    seconds = {}
    for name, command in STEPS.items():
        command = command.format(photographs=shlex.join(map(str, _three_photographs())))
        print(f"\n== {name}\n$ python {command}", flush=True)
        began = time.perf_counter()
        done = subprocess.run([sys.executable, *shlex.split(command)], cwd=root)
        seconds[name] = time.perf_counter() - began
        if done.returncode:
            return done.returncode
    print("\n== Result, on the 268 test photographs of monocrystalline cells that no training saw")
    for name, run in (("carried to 75 monocrystalline cells", "carried"), ("from scratch on the same 75", "scratch")):
        numbers = json.loads((root / RUNS / run / "metrics.json").read_text())
        (low, high), auc = numbers["accuracy_interval"], numbers["auc"]
        print(f"{name:40} accuracy {numbers['accuracy']:.3f} (95 %: {low:.3f} to {high:.3f})  AUC {auc:.3f}")
    for name, took in seconds.items():
        print(f"{name:40} {took:5.0f} s")
    print(f"{'in all':40} {sum(seconds.values()):5.0f} s\nThe page: {RUNS / 'carried' / 'report.html'}")
    return 0


def _check_photographs():
    try:
        importlib.metadata.version("elpv-dataset")
    except importlib.metadata.PackageNotFoundError:
        raise ImportError('The photographs are in a package of their own: pip install "kresnets[elpv]".') from None


def _three_photographs():
    """Return three monocrystalline photographs of the test part: one defective, two functional."""
    files = {file.name: file for file in importlib.metadata.files("elpv-dataset") if file.name.endswith(".png")}
    return [files[name].locate() for name in ("cell0003.png", "cell0397.png", "cell1157.png")]


if __name__ == "__main__":
    _common.run(main)
