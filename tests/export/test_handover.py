"""Versions handed over to a server that polls: whole or not there, each number once, whatever kills the exporter."""

import os
import random
import re
import shutil
import signal
import subprocess
import sys
import textwrap
import time

import keras
import numpy as np
import pytest
import tensorflow as tf
from places import ROOT

from kresnets.export import export_saved_model

PNG = tf.io.encode_png(np.zeros((8, 8, 3), np.uint8)).numpy()

MODEL = """
import sys
import keras
from kresnets.export import export_saved_model
model = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.GlobalAveragePooling2D(),
                          keras.layers.Dense(2, activation="softmax")])
"""
EXPORTER = (
    MODEL
    + """
for _ in range(int(sys.argv[2])):
    print(export_saved_model(model, sys.argv[1], preprocess="tf").name, flush=True)
"""
)
# Hands over copies of a version, byte by byte so to say: there is time to see one that is half there.
COPIER = """
import pathlib, shutil, sys, time
from kresnets.export.versions import folder_beside, publish

path, whole = map(pathlib.Path, sys.argv[1::2])

def slowly(source, target):
    content = pathlib.Path(source).read_bytes()
    with open(target, "wb") as file:
        for start in range(0, len(content), 4096):
            file.write(content[start : start + 4096])
            file.flush()

for _ in range(int(sys.argv[2])):
    with folder_beside(path) as folder:
        shutil.copytree(whole, folder, copy_function=slowly, dirs_exist_ok=True)
        print(publish(folder, path).name, flush=True)
"""


def python(code, *arguments, **options):
    environment = os.environ | {"PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "2"}
    return subprocess.Popen([sys.executable, "-c", code, *map(str, arguments)], env=environment, **options)


@pytest.fixture(scope="module")
def model():
    keras.utils.set_random_seed(0)
    pooling, head = keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(2, activation="softmax")
    return keras.Sequential([keras.Input((8, 8, 3)), pooling, head])


@pytest.fixture(scope="module")
def whole(model, tmp_path_factory):
    return export(model, tmp_path_factory.mktemp("whole") / "net")


def export(model, path):
    return export_saved_model(model, path, preprocess="tf")


def left_in(path):
    return sorted(child.name for child in path.iterdir()) if path.exists() else None


def versions_in(path):
    return {child for child in path.iterdir() if re.fullmatch("[0-9]+", child.name)} if path.exists() else set()


def loads(version):
    """Load a version as TF Serving does, and ask it."""
    with tf.Graph().as_default(), tf.compat.v1.Session() as session:
        signatures = tf.compat.v1.saved_model.loader.load(session, ["serve"], str(version)).signature_def
        asked, answered = (getattr(signatures["serving_default"], side) for side in ("inputs", "outputs"))
        return session.run(answered["valid"].name, {asked["image_bytes"].name: [PNG]}).tolist() == [True]


def polled(path, exporters, count):
    """Load each version that appears until there are `count`; return what each exporter said it wrote."""
    seen = set()
    while len(seen) < count:
        running = any(each.poll() is None for each in exporters)
        new = versions_in(path) - seen
        assert new or running, [each.communicate() for each in exporters]
        for version in new:
            assert loads(version), version
        seen |= new
        time.sleep(0.002)
    printed = [each.communicate(timeout=60)[0].decode().split() for each in exporters]
    assert all(each.returncode == 0 for each in exporters)
    assert left_in(path) == sorted(map(str, range(1, count + 1)))
    return printed


def is_each_once(printed, rounds):
    numbers = [[int(number) for number in each] for each in printed]
    return sorted(numbers[0] + numbers[1]) == list(range(1, 2 * rounds + 1)) and all(
        each == sorted(each) for each in numbers
    )


def test_versions_count_up_past_what_is_there(model, tmp_path):
    (tmp_path / "7").mkdir()  # another's, even if it holds nothing
    (tmp_path / "notes").mkdir()
    first, second = export(model, tmp_path), export(model, str(tmp_path))
    assert (first, second) == (tmp_path / "8", tmp_path / "9")
    assert first.stat().st_mode & 0o777 == (tmp_path / "notes").stat().st_mode & 0o777  # a server may read it
    assert left_in(tmp_path) == ["7", "8", "9", "notes"]


def test_a_number_that_no_server_can_hold_is_no_version(whole, tmp_path):
    from kresnets.export import versions

    (tmp_path / "20261127142100000000").mkdir()
    (tmp_path / "4").mkdir()
    with versions.folder_beside(tmp_path) as folder:
        shutil.copytree(whole, folder, dirs_exist_ok=True)
        assert versions.publish(folder, tmp_path) == tmp_path / "5"


@pytest.mark.everything
def test_an_exporter_waits_for_another_one(whole, tmp_path):
    fcntl = pytest.importorskip("fcntl", reason="locks of folders are POSIX")
    held = os.open(tmp_path, os.O_RDONLY)
    fcntl.flock(held, fcntl.LOCK_EX)
    copier = python(COPIER, tmp_path, 1, whole, stdout=subprocess.PIPE)
    while not list(tmp_path.glob(".tmp-*/assets/model_card.json")) and copier.poll() is None:
        time.sleep(0.01)
    (tmp_path / "1").mkdir()  # what the other one publishes meanwhile
    time.sleep(0.3)
    assert copier.poll() is None and versions_in(tmp_path) == {tmp_path / "1"}
    os.close(held)
    assert copier.communicate(timeout=60)[0].decode().split() == ["2"]


def test_without_locks_the_rename_is_the_claim(whole, tmp_path, monkeypatch):
    fcntl = pytest.importorskip("fcntl", reason="locks of folders are POSIX")

    from kresnets.export import versions

    def without(*_):
        raise OSError("no locks here")

    monkeypatch.setattr(fcntl, "flock", without)
    real = os.rename

    def late(folder, target):  # the other exporter comes in between our look at the folder and our rename
        if target == tmp_path / "1":
            shutil.copytree(whole, target)
        real(folder, target)

    monkeypatch.setattr(os, "rename", late)
    with versions.folder_beside(tmp_path) as folder:
        shutil.copytree(whole, folder, dirs_exist_ok=True)
        assert versions.publish(folder, tmp_path) == tmp_path / "2"
    assert left_in(tmp_path) == ["1", "2"]


def test_litter_of_the_dead_is_cleared_and_work_of_the_living_is_not(model, tmp_path):
    host = os.uname().nodename
    dead = subprocess.Popen(["true"])
    dead.wait()
    alive = [f".tmp-{host}-{os.getpid()}-ab", f".tmp-elsewhere-{dead.pid}-ab", f".tmp-{host}-{'9' * 20}-ab"]
    litter = [f".tmp-{host}-{dead.pid}-ab", ".tmp-elsewhere-1-ab"]
    for name in alive + litter:
        (tmp_path / name / "variables").mkdir(parents=True)
    os.utime(tmp_path / litter[1], (time.time() - 2 * 86400,) * 2)
    export(model, tmp_path)
    assert left_in(tmp_path) == sorted([*alive, "1"])


@pytest.mark.everything
def test_two_exporters_and_a_poller(whole, tmp_path):
    rounds, path = 20, tmp_path / "net"
    exporters = [python(COPIER, path, rounds, whole, stdout=subprocess.PIPE) for _ in range(2)]
    assert is_each_once(polled(path, exporters, 2 * rounds), rounds)


@pytest.mark.everything
def test_two_exporters_and_a_poller_for_long(tmp_path):
    rounds, path = 200, tmp_path / "net"
    exporters = [python(EXPORTER, path, rounds, stdout=subprocess.PIPE) for _ in range(2)]
    assert is_each_once(polled(path, exporters, 2 * rounds), rounds)


@pytest.mark.everything
def test_a_killed_export_leaves_no_version_and_its_litter_goes_with_the_next(model, tmp_path):
    path = tmp_path / "net"
    process = python(EXPORTER, path, 1)
    while not list(path.glob(".tmp-*/*")):
        assert process.poll() is None
        time.sleep(0.001)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert versions_in(path) == set()
    assert len(left_in(path)) == 1
    assert export(model, path) == path / "1"
    assert left_in(path) == ["1"]


@pytest.mark.everything
@pytest.mark.parametrize("seed", range(5))
def test_kills_at_any_moment(model, tmp_path, seed):
    chance, path = random.Random(seed), tmp_path / "net"
    process = python(EXPORTER, path, 1000, stdout=subprocess.DEVNULL)
    while not versions_in(path):
        time.sleep(0.01)
    time.sleep(chance.uniform(0, 4))
    process.kill()
    process.wait()
    left = versions_in(path)
    assert all(loads(version) for version in left) and len(left_in(path)) <= len(left) + 1
    assert export(model, path).name == str(len(left) + 1)
    assert left_in(path) == sorted(version.name for version in versions_in(path))


FILLED = """
import keras, os, sys
from kresnets.export import export_file, export_saved_model
model = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.GlobalAveragePooling2D(),
                          keras.layers.Dense(5000), keras.layers.Dense(2, activation="softmax")])
before = sorted(os.listdir(sys.argv[1]))
try:
    if sys.argv[2] == "saved-model":
        export_saved_model(model, sys.argv[1] + "/net", preprocess="tf")
    else:
        export_file(model, sys.argv[1] + "/net.xml", sys.argv[2], preprocess="tf")
except OSError as error:
    print(error)
assert sorted(os.listdir(sys.argv[1])) == before, os.listdir(sys.argv[1])
"""


@pytest.mark.everything
@pytest.mark.slow
@pytest.mark.parametrize("format", ["saved-model", pytest.param("openvino", marks=pytest.mark.everything)])
def test_a_full_disk_is_a_sentence_and_nothing_is_left(tmp_path, format):
    """On a disk of 60 kB, of a file system that a process mounts for itself."""
    if format != "saved-model":
        pytest.importorskip(format)
    inside = f'mount -t tmpfs -o size=60k none {tmp_path} && exec "$0" -c "$1" {tmp_path} {format}'
    command = ["unshare", "--map-root-user", "--mount", "sh", "-c", inside, sys.executable, textwrap.dedent(FILLED)]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "2"}
    done = subprocess.run(command, check=False, env=environment, capture_output=True, text=True, timeout=120)
    if "mount" in done.stderr or "unshare" in done.stderr:
        pytest.skip("this system lets no process mount a file system of its own")
    assert done.returncode == 0, done.stderr
    assert "could not be written" in done.stdout and "No space left on device" in done.stdout
    assert done.stdout.count("\n") == 1
