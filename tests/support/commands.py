"""The command `kresnets`, in this process and in one of its own."""

import contextlib
import csv
import io
import subprocess

import pytest
from places import ROOT

import kresnets_command


def ask(*argv):
    """Run the command in this process; return its exit code."""
    with pytest.raises(SystemExit) as ended:
        kresnets_command.main([str(argument) for argument in argv])
    return ended.value.code


def command(*argv):
    """Return the command line of a process of its own."""
    return kresnets_command.command(*map(str, argv))


def finish(*argv):
    """Run the command in this process, which spares the start of another; return its exit code and what it wrote."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = ask(*argv)
    return subprocess.CompletedProcess(argv, code, out.getvalue(), err.getvalue())


def finish_alone(*argv, **options):
    """Run the command in a process of its own, to its end; return that."""
    done = subprocess.run(command(*argv), cwd=ROOT, capture_output=True, text=True, **options)
    assert "Traceback" not in done.stderr, done.stderr
    return done


def rows_of(path):
    """Return the rows of a CSV file that a command wrote, as dicts."""
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def small_run(data, out, *more, epochs=1, size=48):
    """Run `kresnets finetune` for seconds: the head alone on a small trunk that ships; return what `finish` does."""
    given = "--model CifarResNet8 --weights none --pretrained yes --dtype float32 --stages".split()
    given += ["--head-epochs", epochs, "--size", size]
    return finish("finetune", "--data", data, "--out", out, *given, *more)
