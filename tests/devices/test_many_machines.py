"""One training in two processes, as on two machines: the same result as in one, one sentence when one is lost, and the
same result after both are started again."""

import argparse
import csv
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
from cells import copy_to
from commands import ask, command, finish_alone
from places import ROOT

import kresnets_command
from kresnets.devices import watch

JAX = {"KERAS_BACKEND": "jax", "XLA_FLAGS": "--xla_backend_optimization_level=0"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return copy_to(tmp_path_factory.mktemp("photographs"))


def free_port():
    """Return a port that is free, and the next one too."""
    while True:
        with socket.socket() as one, socket.socket() as other:
            one.bind(("127.0.0.1", 0))
            port = one.getsockname()[1]
            try:
                other.bind(("127.0.0.1", port + 1))
            except (OSError, OverflowError):
                continue
            return port


def arguments(data, run, *more):
    small = "--model CifarResNet8 --weights none --size 32 --batch-size 16 --dtype float32 --optimizer sgd".split()
    return ["finetune", "--data", data, "--out", run, *small, *more]


def start(data, run, *more, processes=2):
    """Start the processes of a training; return them."""
    several = ["--coordinator", f"127.0.0.1:{free_port()}", "--processes", str(processes), "--process"]
    # Where the others write, if they do, is not where process 0 does.
    return [
        subprocess.Popen(
            command(*arguments(data, run if not process else f"{run}-{process}", *more, *several, process)),
            cwd=ROOT, env=os.environ | JAX, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )
        for process in range(processes)
    ]  # fmt: skip


def end(process, seconds=300):
    """Wait for a process; return its code and what it said."""
    out, err = process.communicate(timeout=seconds)
    assert "Traceback" not in err and "gloo" not in (out + err).lower(), err
    return process.returncode, out, err


def history(run):
    with open(run / "history.csv", newline="") as file:
        return list(csv.DictReader(file))


def same(run, other, tolerance):
    ours, theirs = history(run), history(other)
    assert [(row["epoch"], row["stage"]) for row in ours] == [(row["epoch"], row["stage"]) for row in theirs]
    for name in ("loss", "accuracy", "val_loss", "val_accuracy", "learning_rate/head", "trainable_parameters"):
        columns = [[float(row[name]) for row in rows] for rows in (ours, theirs)]
        np.testing.assert_allclose(*columns, rtol=tolerance, atol=tolerance, err_msg=name)
    a, b = (json.loads((path / "metrics.json").read_text()) for path in (run, other))
    assert abs(a["auc"] - b["auc"]) < 0.02 and a["count"] == b["count"]
    assert {path.name for path in run.iterdir()} == {path.name for path in other.iterdir()}


@pytest.mark.everything
@pytest.mark.jax
def test_two_processes_train_as_one(folder, tmp_path):
    pytest.importorskip("jax")
    head = "--head-epochs 2 --stages --augment none".split()  # batches of 16, 16 and 6
    both = start(folder, tmp_path / "two", *head)
    (code, said, _), (other, little, nothing) = map(end, both)
    assert code == other == 0
    assert "Trains on 2 devices." in said and "The page: " in said
    assert little.startswith("Process 1 of 2 trains along") and little.count("\n") == 1 and not nothing
    assert not (tmp_path / "two-1").exists()
    alone = finish_alone(*arguments(folder, tmp_path / "one", *head), env=os.environ | JAX)
    assert alone.returncode == 0, alone.stderr
    same(tmp_path / "two", tmp_path / "one", 1e-4)


@pytest.mark.everything
@pytest.mark.jax
@pytest.mark.parametrize("victim", [0, 1])
def test_one_lost_ends_the_others_and_the_same_commands_go_on(folder, tmp_path, victim):
    pytest.importorskip("jax")
    stages = ["--head-epochs", "3", "--stages", "stage3", "--epochs-per-stage", "3", "--class-weight", "balanced"]
    for process in start(folder, tmp_path / "whole", *stages):
        assert end(process)[0] == 0
    for epochs in (1, 4):
        both = start(folder, tmp_path / "cut", *stages)
        while not (tmp_path / "cut" / "history.csv").exists() or len(history(tmp_path / "cut")) < epochs:
            assert all(process.poll() is None for process in both)
            time.sleep(0.05)
        both[victim].send_signal(signal.SIGKILL)
        killed = time.monotonic()
        code, _, err = end(both[1 - victim], 120)
        assert time.monotonic() - killed < 20
        assert code == os.EX_TEMPFAIL
        told = f"kresnets finetune: process {victim} of 2 has ended, its own output may say why: "
        assert err.splitlines()[-1].startswith(told)
        both[victim].communicate()
    for process in start(folder, tmp_path / "cut", *stages):
        assert end(process)[0] == 0
    same(tmp_path / "cut", tmp_path / "whole", 1e-5)


def options(process, processes=2, port=None, **others):
    given = {"coordinator": f"127.0.0.1:{port}", "processes": processes, "process": process, **others}
    return argparse.Namespace(**{"data": f"at {process}", "out": "x", "batch_size": 32, **given})


def together(tmp_path, scripts, **differing):
    """Watch a script in the place of each process's training; return their codes or errors."""
    port, results = free_port(), [None] * len(scripts)

    def run(process):
        script = tmp_path / f"{process}.py"
        script.write_text(scripts[process])
        try:
            mine = options(process, len(scripts), port, **(differing if process else {}))
            results[process] = watch.watch(mine, str(script), [])
        except ValueError as error:
            results[process] = str(error)

    threads = [threading.Thread(target=run, args=(process,)) for process in range(len(scripts))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    return results


LONG = "import time; time.sleep(100)"
# Without the package, whose import takes seconds.
SPEAKING = f"""
import importlib.util, sys
sys.path.insert(0, {str(ROOT)!r})
import kresnets_command
spec = importlib.util.spec_from_file_location("watch", {watch.__file__!r})
watch = importlib.util.module_from_spec(spec)
spec.loader.exec_module(watch)
kresnets_command.listeners.append(watch.speak())
"""


@pytest.fixture
def scripted(monkeypatch):
    """Have watchers start a script of Python in the place of the command."""
    monkeypatch.setattr(kresnets_command, "command", lambda *argv: [sys.executable, *argv])


def test_a_watcher_ends_its_child_when_another_process_is_lost(tmp_path, monkeypatch, scripted, capfd):
    monkeypatch.setattr(watch, "GRACE", 1)
    assert together(tmp_path, ["print('noise')", ""]) == [0, 0]
    assert capfd.readouterr() == ("", "")
    began = time.monotonic()
    assert together(tmp_path, [LONG, "import os; os.kill(os.getpid(), 9)", LONG]) == [75, 137, 75]
    assert time.monotonic() - began < 10
    err = capfd.readouterr().err
    assert err.count("process 1 of 3 has ended, its own output may say why: give all 3 the same commands") == 2
    assert "the training was ended by signal 9." in err
    # What a step that lost its partner says, by exception or by abort, is not worth a word.
    fails = SPEAKING + "class JaxRuntimeError(RuntimeError): pass\n"
    fails += "def fail(): raise JaxRuntimeError('Gloo all-reduce failed')\nkresnets_command.end_with(fail)"
    assert together(tmp_path, [fails, "import os; os._exit(3)", "import os; os.abort()"]) == [75, 3, 75]
    err = capfd.readouterr().err
    assert "Gloo" not in err and err.count("\n") == 2 == err.count("process 1 of 3 has ended")
    # But its own error is.
    own = SPEAKING + "def fail(): raise ValueError('no such folder')\nkresnets_command.end_with(fail)"
    assert together(tmp_path, [own, LONG]) == [2, 75]
    assert capfd.readouterr().err.count("no such folder") == 1
    assert together(tmp_path, [LONG, fails]) == [75, 2]
    assert capfd.readouterr().err.count("Gloo all-reduce failed") == 1


def test_silence_counts_as_lost(tmp_path, monkeypatch, scripted, capfd):
    monkeypatch.setattr(watch, "SILENCE", 1)  # signs of life come every 5 seconds
    assert together(tmp_path, [LONG, LONG]) == [75, 75]


def test_processes_that_do_not_fit_together_are_told(tmp_path, monkeypatch, scripted):
    for differing, sentence in (
        ({"batch_size": 16}, "A process came with another --batch-size: give all the same command"),
        ({"process": 3}, None),
    ):
        if sentence:
            results = together(tmp_path, ["", ""], **differing)
            assert all(result.startswith(sentence) for result in results), results
    monkeypatch.setattr(watch, "WAIT", 0.5)
    port = free_port()
    with pytest.raises(ValueError, match="Process 1, 2 did not come within 0.5 seconds"):
        watch.watch(options(0, 3, port), "", [])
    with pytest.raises(ValueError, match=f"Process 0 was not reached at 127.0.0.1:{port + 1} within 0.5 seconds"):
        watch.watch(options(1, 3, port), "", [])
    with socket.create_server(("", port + 1)), pytest.raises(ValueError, match=f"Port {port + 1}, .* cannot be used"):
        watch.watch(options(0, 3, port), "", [])


@pytest.mark.parametrize(
    "given, sentence",
    [
        ("--coordinator a:1 --process 0", "--processes is missing"),
        ("--processes 2", "--coordinator and --process is missing"),
        ("--coordinator a --processes 2 --process 0", "must be host:port"),
        ("--coordinator :12 --processes 2 --process 0", "must be host:port"),
        ("--coordinator a:65535 --processes 2 --process 0", "from 1 to 65534"),
        ("--coordinator a:12 --processes 1 --process 0", "must be at least 2"),
        ("--coordinator a:12 --processes 2 --process 2", "must be below --processes 2"),
        ("--coordinator a:12 --processes 2 --process -1", "Must be >= 0"),
        ("--coordinator a:12 --processes 2 --process 1", "set KERAS_BACKEND=jax, not tensorflow"),
    ],
)
def test_options_that_do_not_fit_get_a_sentence(given, sentence, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("KERAS_BACKEND", "tensorflow")
    assert ask("finetune", "--data", "nowhere", "--out", str(tmp_path / "run"), *given.split()) == 2
    assert sentence in capsys.readouterr().err and not (tmp_path / "run").exists()


def test_the_tables_of_the_page_are_those_that_its_code_prints(capsys):
    page = (ROOT / "docs" / "many-machines.md").read_text(encoding="utf-8")
    code = [block for block in re.findall(r"```python\n(.*?)```", page, re.DOTALL) if "def exchange" in block]
    exec(compile(code[0], "docs/many-machines.md", "exec"), {})
    assert capsys.readouterr().out.rstrip() in page


@pytest.mark.everything
def test_the_python_of_the_page_runs(folder, tmp_path, monkeypatch):
    page = (ROOT / "docs" / "many-machines.md").read_text(encoding="utf-8")
    [code] = [block for block in re.findall(r"```python\n(.*?)```", page, re.DOTALL) if "all_devices" in block]
    (tmp_path / "my_folder").symlink_to(folder)
    monkeypatch.chdir(tmp_path)
    small = code.replace("ResNet50", "CifarResNet8").replace('weights="imagenet"', "weights=None").replace("224", "32")
    exec(small.replace("Recipe()", "Recipe.textbook(head_epochs=1, stages=())"), {})
