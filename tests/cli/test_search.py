"""`kresnets search` as its user runs it: a whole search, kills and Ctrl-C at any moment, many processes, and bad
input."""

import contextlib
import csv
import errno
import functools
import json
import os
import pathlib
import random
import re
import signal
import socket
import subprocess
import sys
import time

import keras
import numpy as np
import pytest
from commands import ask, command
from PIL import Image
from places import ROOT
from searching import formula as formula

import kresnets
import kresnets.data
import kresnets.tuning
import kresnets_command
from kresnets._util import files as whole
from kresnets.cli.options import flat
from kresnets.transfer.default import RULE
from kresnets.transfer.trunk import with_trunk
from kresnets.tuning import folder as search_folder
from kresnets.tuning import splitting, supervisor
from kresnets.tuning.live import Live

SPACE = """
thaw = ["head", "stage3"]
head_epochs = 1
learning_rate = [1e-3, 3e-3, 1e-2]
ratio = [0.3, 1.0]
"""
TRIALS = 4
# What trials are variations of: next to nothing is learned, so that any of them is better.
BASE = {"augment": "none", "stages": [], "head_epochs": 3, "learning_rate": 1e-7}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with photographs of two classes, one brighter than the other, and the space to search."""
    place, rng = tmp_path_factory.mktemp("search"), np.random.default_rng(0)
    for bright, name in enumerate(("dark", "light")):
        (place / "photographs" / name).mkdir(parents=True)
        for number in range(20):
            pixels = np.clip(rng.normal(90 + 40 * bright, 40, (16, 16, 3)), 0, 255).astype("uint8")
            Image.fromarray(pixels).save(place / "photographs" / name / f"{number}.png")
    (place / "space.toml").write_text(SPACE)
    (place / "base.json").write_text(json.dumps(BASE))
    return place


def arguments(place, out, *more, trials=TRIALS, space="space.toml"):
    """Return the arguments of the verb; of one given twice the last holds."""
    small = (
        "--model CifarResNet8 --weights none --size 16 --batch-size 8 --epochs 3 --dtype float32 --seed 1 --repeats 1"
    )
    small += " --pretrained yes"  # whose default is soon trained
    given = ["--data", place / "photographs", *small.split(), "--recipe", place / "base.json"]
    given += ["--space", place / space, "--trials", trials, "--out", out]
    return [str(argument) for argument in (*given, *more)]


def start(given, **options):
    """Start the command as its user does."""
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command("search", *given), cwd=ROOT, **streams | options)


def options_of(given):
    """Return the options that the verb would see."""
    _, bound, _ = kresnets_command.make_app().parse_args(["search", *given])
    bound.apply_defaults()
    groups = [bound.arguments[name] for name in ("images", "network", "search", "role")]
    return flat(*groups, out=bound.arguments["out"], overwrite=bound.arguments["overwrite"])


def finish(given, code=0, **options):
    process = start(given, **options)
    out, err = process.communicate()
    assert process.returncode == code, err
    assert "Traceback" not in err
    return out, err


@pytest.fixture
def here(monkeypatch, capsys):
    """Run a verb in this process, as the one that trains or as the one that stays: its exit code and what it wrote."""
    policy = keras.mixed_precision.dtype_policy()
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def call(given, trains=True, verb="search"):
        if trains:
            monkeypatch.setenv(supervisor.CHILD, str(os.getppid()))
        else:
            monkeypatch.delenv(supervisor.CHILD, raising=False)
        code = ask(verb, *given)
        captured = capsys.readouterr()
        # pytest lets more warnings through than Python does.
        errors = [line for line in captured.err.splitlines(keepends=True) if ": warning: " not in line]
        return code, captured.out, "".join(errors)

    yield call
    keras.mixed_precision.set_dtype_policy(policy)
    for number, handler in handlers.items():
        signal.signal(number, handler)


_with_trunk = functools.cache(with_trunk)  # a network is built once for all that is wrong with other arguments


@pytest.fixture
def never(monkeypatch):
    """Fail where photographs are looked at, or a process is started."""

    def looked(*args, **kwargs):
        raise AssertionError("too late")

    monkeypatch.setattr(kresnets.data, "load_data", looked)
    monkeypatch.setattr(supervisor, "keep", looked)
    monkeypatch.setattr("kresnets.cli.search.with_trunk", _with_trunk)


def rows(folder):
    with open(folder / "trials.csv", encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def results(folder):
    """Return what a search found: trial -> its status, values and score."""
    found = rows(folder)
    ids = [row["trial_id"] for row in found]
    assert len(set(ids)) == len(ids)
    return {
        row["trial_id"]: (row["status"], row["thaw"], row["learning_rate"], row["ratio"], row["score"]) for row in found
    }


def assert_same(found, wanted):
    """The same trials in the same order with the same scores, up to what threads add up in another order."""
    assert list(found) == list(wanted)
    for trial_id, (*values, score) in wanted.items():
        assert list(found[trial_id][:-1]) == values
        assert float(found[trial_id][-1]) == pytest.approx(float(score), rel=1e-4)


def left(folder):
    """Return the names of what is in a folder, hidden files too."""
    return sorted(path.name for path in folder.iterdir())


@pytest.fixture(scope="module")
def finished(place):
    """One search without interruption, with logs for TensorBoard: its folder and what it said."""
    out, err = finish(arguments(place, place / "finished", "--tensorboard"))
    assert "warning" not in err.lower()
    return place / "finished", out


@pytest.mark.slow
def test_a_whole_search(finished):
    folder, out = finished
    lines = [line for line in out.splitlines() if line.startswith("trial ")]
    assert [line.split(":")[0] for line in lines] == [f"trial {n}, {n + 1}/{TRIALS}" for n in range(TRIALS)]
    assert re.search(r"about \d+:\d\d left", lines[0]) and "about 0:00 left" in lines[-1]
    found = rows(folder)
    assert list(found[0])[:3] == ["trial_id", "status", "score"] and len(found) == TRIALS
    assert all(row["ratio"] == "" for row in found[1:] if row["thaw"] == "head")
    best = min((row for row in found if row["status"] == "completed"), key=lambda row: float(row["score"]))
    assert f"is {best['trial_id']}: " in out and f"(trial {best['trial_id']})" in lines[-1]
    # One line at the least says whether the search was worth it; nothing but results is left.
    verdict = json.loads((folder / "verdict.json").read_text())
    assert verdict["default"]["count"] == verdict["start"]["count"] == 10 and verdict["sentence"] in out
    recipe_file = json.loads((folder / "best_recipe.json").read_text())
    assert recipe_file.pop("rule") == RULE and "seed" not in recipe_file
    if "winner" in verdict and not verdict["worse"]:
        recipe = verdict["recipes"]["winner"]
        assert recipe["learning_rate"] == float(best["learning_rate"]) and verdict["trial_id"] == best["trial_id"]
        assert recipe["stages"] == ([] if best["thaw"] == "head" else ["stage3"])
        assert {name: recipe[name] for name in recipe_file} == recipe_file
    kept = {"best_recipe.json", "config.json", "search", "search.html", "tensorboard", "trials.csv", "verdict.json"}
    assert kept == {name for name in left(folder) if not name.startswith(("answers-default-", "answers-start-"))}
    assert not {"features", "stages"} & set(left(folder / "search"))


@pytest.mark.slow
def test_the_verdict_is_what_scikit_learn_says_of_the_answers(finished, place):
    from sklearn.metrics import accuracy_score, roc_auc_score

    (path,) = finished[0].glob("answers-default-*.json")
    answers = np.array(json.loads(path.read_text()))
    labels = kresnets.data.load_data(str(place / "photographs"), seed=1, progress=False).test.labels
    judged = json.loads((finished[0] / "verdict.json").read_text())["default"]
    assert judged["accuracy"] == pytest.approx(accuracy_score(labels, answers.argmax(1)))
    assert judged["auc"] == pytest.approx(roc_auc_score(labels, answers[:, 1]), abs=1e-6)


@pytest.mark.slow
def test_the_logs_are_read_by_tensorboard(finished):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.plugins.hparams import metadata

    table, seen = {row["trial_id"]: row for row in rows(finished[0])}, {}
    for folder in (finished[0] / "tensorboard").glob("*/*"):
        content = EventAccumulator(str(folder)).Reload().PluginTagToContent("hparams")
        begun = metadata.parse_session_start_info_plugin_data(content[metadata.SESSION_START_INFO_TAG])
        seen[folder.parent.name] = begun.hparams
        curves = EventAccumulator(str(folder / "validation")).Reload()
        assert "epoch_loss" in curves.Tags()["tensors"]
    assert set(seen) == set(table)
    for trial_id, row in list(table.items())[1:]:  # the first one has no values of the search's
        assert seen[trial_id]["thaw"].string_value == row["thaw"]
        assert seen[trial_id]["learning_rate"].number_value == pytest.approx(float(row["learning_rate"]))


@pytest.mark.everything
def test_a_better_choice_is_handed_over_and_finetune_trains_the_very_recipe_that_was_judged(tmp_path, here):
    rng = np.random.default_rng(1)
    for bright, name in enumerate(("dark", "light")):
        (tmp_path / "photographs" / name).mkdir(parents=True)
        for number in range(24):
            pixels = np.clip(rng.normal(60 + 130 * bright, 30, (16, 16, 3)), 0, 255).astype("uint8")
            Image.fromarray(pixels).save(tmp_path / "photographs" / name / f"{number}.png")
    (tmp_path / "space.toml").write_text("learning_rate = [1e-7, 0.03]\nhead_epochs = 12\nbatchnorm = 'train'\n")
    (tmp_path / "base.json").write_text(json.dumps(BASE | {"head_epochs": 12}))
    given = arguments(tmp_path, tmp_path / "search", "--repeats", 4, "--oracle", "grid", trials=3)
    code, out, err = here([*given, "--epochs", 12])
    assert (code, err) == (0, "")
    records = kresnets.tuning.read_records(tmp_path / "search/search")
    assert [record["default"] for record in records] == [True, False, False]
    verdict = json.loads((tmp_path / "search/verdict.json").read_text())
    recipe_file = json.loads((tmp_path / "search/best_recipe.json").read_text())
    assert (
        verdict["names"] == ["winner", "default", "start"]
        and recipe_file["rule"] == RULE
        and recipe_file["learning_rate"] == 0.03
    )
    assert "more than the" in out and verdict["winner"]["accuracy"] > verdict["start"]["accuracy"]

    run = ["--data", tmp_path / "photographs", "--model", "CifarResNet8", "--weights", "none"]
    run += ["--size", 16, "--batch-size", 8]
    run += ["--recipe", tmp_path / "search/best_recipe.json", "--pretrained", "yes", "--seed", 1]
    run += ["--dtype", "float32", "--out", tmp_path / "run"]
    code, out, err = here(run, verb="finetune")
    assert code == 0 and "On the 12 test images" in out
    metrics = json.loads((tmp_path / "run/metrics.json").read_text())
    for name in ("accuracy", "auc", "log_loss"):
        if name in metrics:
            assert metrics[name] == pytest.approx(verdict["winner"][name], abs=1e-3), name
    trained = json.loads((tmp_path / "run/config.json").read_text())["recipe"]
    assert trained == verdict["recipes"]["winner"]


@pytest.mark.everything
@pytest.mark.usefixtures("formula")
def test_where_nothing_is_better_the_default_is_kept(place, tmp_path, here):
    (place / "nothing.toml").write_text("warmup = [0.1, 0.101]\n")
    given = arguments(place, tmp_path / "search", trials=3, space="nothing.toml")
    at = given.index("--recipe")
    code, out, err = here([*given[:at], *given[at + 2 :]])
    assert code == 0 and err == ""
    assert (tmp_path / "search/best_recipe.json").read_text() == f'{{"rule": {RULE}}}\n'
    verdict = json.loads((tmp_path / "search/verdict.json").read_text())
    assert verdict["names"] == ["default"]
    assert verdict["sentence"].startswith("Keep the default: ") and verdict["sentence"] in out
    assert "The default, from which the search starts:" in out and "by rule 1 " in out
    assert "3 trials, 3 epochs each in place of " in out and "(the default: nothing differs from it)" in out
    # What the search resolves, the fine-tuning resolves.
    run = ["--data", place / "photographs", "--model", "CifarResNet8", "--weights", "none"]
    run += ["--size", 16, "--batch-size", 8]
    run += ["--pretrained", "yes", "--seed", 1, "--dtype", "float32", "--dry-run", "--out", tmp_path / "run"]
    plain = here(run, verb="finetune")
    taken = here([*run, "--recipe", tmp_path / "search/best_recipe.json"], verb="finetune")
    assert plain == taken and plain[0] == 0
    table = plain[1][plain[1].index("26 images to learn from") :].strip()
    assert table in out


@pytest.mark.slow
def test_few_validation_images_choose_by_folds(place, tmp_path, here):
    data = kresnets.data.load_data(str(place / "photographs"), seed=1, progress=False)
    options = options_of(arguments(place, tmp_path, "--repeats", "auto"))
    parts, sentence = splitting.parts(data, options)
    assert (
        len(parts) == 10 and "twice 5 folds of the 30 images" in sentence and "4 for validation, below 100" in sentence
    )
    pool = {*data.train.ids, *data.validation.ids}
    for number in (0, 5):
        held = [one for _, validation in parts[number : number + 5] for one in validation.ids]
        assert sorted(held) == sorted(pool)
    for train, validation in parts:
        assert {*train.ids} | {*validation.ids} == pool and not {*train.ids} & {*validation.ids}
        assert validation.counts() == {"dark": 3, "light": 3}
    options.repeats = 3
    parts, sentence = splitting.parts(data, options)
    assert len(parts) == 3 and "3 splits, as --repeats says" in sentence
    assert [part.ids for part in parts[0]] == [data.train.ids, data.validation.ids]


# Kills.


def child_of(process):
    """Return the id of the process that trains, once there is one."""
    path = pathlib.Path(f"/proc/{process.pid}/task/{process.pid}/children")
    if not path.exists():
        pytest.skip("the processes of this system are not under /proc")
    wait_for(lambda: path.read_text().split(), process)
    return int(path.read_text().split()[0])


def wait_for(condition, process, seconds=300):
    """Wait until a condition holds, which it has to while a process lives."""
    until = time.monotonic() + seconds
    while not condition():
        assert process.poll() is None, process.communicate()
        if time.monotonic() > until:
            raise TimeoutError
        time.sleep(0.02)


def gone(pid, seconds=15):
    """Whether a process ends in time; one that nobody has waited for has ended."""
    path, until = pathlib.Path(f"/proc/{pid}/stat"), time.monotonic() + seconds
    while time.monotonic() < until:
        try:
            if path.read_text().rpartition(")")[2].split()[0] == "Z":
                return True
        except OSError:
            return True
        time.sleep(0.05)
    return False


def kill_all(process):
    """Kill -9 a process, with the group that it leads, and see the one that trains die with it."""
    child = child_of(process)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    assert gone(child)


@pytest.mark.everything
def test_kills_and_ctrl_c_change_no_result(finished, place, tmp_path):
    folder = tmp_path / "search"
    given, project = arguments(place, folder), folder / "search"
    first = start(given, start_new_session=True)
    wait_for(lambda: search_folder.ended(project) >= 1, first)
    killed = child_of(first)
    os.kill(killed, signal.SIGKILL)
    wait_for(lambda: search_folder.ended(project) >= 2, first)
    assert child_of(first) != killed
    kill_all(first)

    second = start(given, start_new_session=True)
    wait_for(lambda: search_folder.ended(project) >= 3, second)
    child = child_of(second)
    os.kill(second.pid, signal.SIGSTOP)
    os.kill(child, signal.SIGSTOP)
    _, err = finish(given, code=2)
    assert err == f"kresnets search: Another process is working on {folder}: wait for it, or give another --out.\n"
    os.kill(child, signal.SIGCONT)
    os.kill(second.pid, signal.SIGCONT)
    os.kill(second.pid, signal.SIGINT)
    out, err = second.communicate()
    best = min((row for row in rows(folder) if row["status"] == "completed"), key=lambda row: float(row["score"]))
    assert second.returncode == 130 and err == "" and gone(child)
    assert f"Stopped; best so far: trial {best['trial_id']}, " in out
    assert json.loads((folder / "best_recipe.json").read_text())["rule"] == RULE

    third = start(given, start_new_session=True)
    wait_for(lambda: list(folder.glob("answers-default-*")), third)
    kill_all(third)
    out, _ = finish(given)
    assert f"Going on after {TRIALS} of {TRIALS} trials" in out and "The default recipe trains" not in out
    assert_same(results(folder), results(finished[0]))
    sentences = [json.loads((each / "verdict.json").read_text())["sentence"] for each in (folder, finished[0])]
    assert sentences[0] == sentences[1]
    assert left(folder) == [name for name in left(finished[0]) if name != "tensorboard"]


@pytest.mark.everything
def test_many_kills_change_no_result(place, tmp_path):
    began = time.monotonic()
    finish(arguments(place, tmp_path / "whole", trials=9))
    latest = (time.monotonic() - began) / 3  # so that a search of nine trials does not end before many kills
    folder, choose = tmp_path / "search", random.Random(0)
    given, project = arguments(place, folder, trials=9), folder / "search"
    kills, process = [], None
    while len(kills) < 20:
        process = process or start(given, start_new_session=True)
        # At any moment from the import of TensorFlow on; but a trial under which it dies three times is given up.
        with contextlib.suppress(TimeoutError):
            wait_for(lambda: search_folder.ended(project) == 9, process, choose.uniform(0, latest))
        wait_for(lambda: most_handed_out(project) < 3 or search_folder.ended(project) == 9, process)
        if search_folder.ended(project) == 9:
            break
        kind = choose.choice(("child", "parent", "group", signal.SIGINT, signal.SIGTERM))
        kills.append(kind)
        if kind == "child":
            os.kill(child_of(process), signal.SIGKILL)
            continue
        if kind == "group":
            kill_all(process)
        else:
            child = child_of(process)
            process.send_signal(signal.SIGKILL if kind == "parent" else kind)
            out, err = process.communicate()
            assert gone(child) and "Traceback" not in err, err
            assert kind == "parent" or process.returncode == 130 and "Stopped; " in out, (process.returncode, out, err)
        process = None
    if process is not None:
        process.communicate()
    finish(given)
    print(f"{len(kills)} kills: {kills}")
    assert len(kills) >= 5
    assert_same(results(folder), results(tmp_path / "whole"))


def most_handed_out(project):
    """Return how often the trial that runs has been begun."""
    try:
        state = json.loads((project / "oracle.json").read_text())
    except FileNotFoundError:
        return 0
    handed = state["kresnets"]["handed"]
    return max((times for trial_id, times in handed.items() if trial_id not in state["end_order"]), default=0)


@pytest.mark.everything
def test_memory_ends_with_the_process_that_trains(place, tmp_path):
    (place / "many.toml").write_text(
        "thaw = ['head', 'stage3']\nhead_epochs = 1\nlearning_rate = {min=1e-3, max=1e-2}\n"
    )
    folder = tmp_path / "search"
    process = start(arguments(place, folder, "--epochs", 2, space="many.toml", trials=100), stdout=subprocess.DEVNULL)
    children, began, first = {}, None, None
    while process.poll() is None:
        ids = pathlib.Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        for child in ids:
            first = first or resident(process.pid)  # by then it has imported what it needs
            if child not in children:
                children[child], began = [0, None], time.time()
            children[child][0] = max(children[child][0], resident(int(child)))
            oracle = folder / "search/oracle.json"
            if children[child][1] is None and oracle.exists() and oracle.stat().st_mtime > began:
                children[child][1] = time.time() - began
        grown = max(0, resident(process.pid) - (first or 0))
        time.sleep(0.2)
    assert process.returncode == 0, process.communicate()
    processes = ", ".join(f"{most >> 20} MB, {begin:.1f} s to its first trial" for most, begin in children.values())
    print(f"the process that stays grew by {grown / 2**20:.1f} MB; those that train: {processes}")
    assert len(rows(folder)) == 100 and grown < 100 * 2**20


def resident(pid):
    """Return the bytes of memory that a process holds, 0 for one that has ended."""
    try:
        pages = pathlib.Path(f"/proc/{pid}/statm").read_text().split()
    except OSError:
        return 0
    return int(pages[1]) * os.sysconf("SC_PAGE_SIZE") if pages else 0


# Bad input, before any photograph is looked at: one sentence, exit code 2, and nothing written.

FILES = {
    "group.toml": "thaw = ['head', 'stage9']",
    "field.toml": "thaw = ['head', 'stage3']\nrate = [1, 2]",
    "damaged.toml": "thaw = ['head'",
    "latin.toml": "# \xe9\nthaw = 1",
    "empty.toml": "",
    "one.toml": "ratio = 0.3\nhead_epochs = 1\nthaw = 'stage3'",
    "ratio.toml": "thaw = ['head', 'stage3']\nratio = [-0.3, 1.0]",
    "long.toml": "thaw = ['head', 'stage1']",
    "list.json": "[1, 2]",
    "damaged.json": '{"ratio": 0.3',
    "field.json": '{"rate": 0.3}',
    "value.json": '{"ratio": "high"}',
    "group.json": '{"stages": ["stage9"]}',
    "plateau.json": '{"advance": "plateau"}',
    "default.json": '{"ratio": 0.3}',
}


@pytest.fixture
def files(place):
    for name, text in FILES.items():
        (place / name).write_bytes(text.encode("latin-1"))
    return place


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (("--model", "ResNet55"), "There is no network 'ResNet55'"),
        (("--space", "group.toml"), "has no group or block 'stage9'"),
        (("--space", "field.toml"), "names 'rate', which is no field: use thaw, "),
        (("--space", "damaged.toml"), "is no TOML file"),
        (("--space", "latin.toml"), "is no TOML file"),
        (("--space", "empty.toml"), "at least one field"),
        (("--space", "one.toml"), "holds one recipe alone"),
        (("--space", "ratio.toml"), "ratio"),
        (("--space", "long.toml"), "give more epochs"),
        (("--epochs", "1"), "whole number from 2"),
        (("--size", "4"), "4"),
        (("--weights", "nowhere.npz"), "nowhere.npz"),
        (("--weights", "photographs"), "photographs"),
        (("--recipe", "list.json"), "list.json is no recipe"),
        (("--recipe", "damaged.json"), "damaged.json is no recipe"),
        (("--recipe", "field.json"), "of kresnets.Recipe: it holds rate; did you mean ratio?"),
        (("--recipe", "value.json"), "value.json: "),
        (("--recipe", "plateau.json"), "advance='plateau'"),
        (("--beside", "field.json"), "of kresnets.Recipe: it holds rate; did you mean ratio?"),
        (("--beside", "group.json"), "stage9"),
    ],
)
def test_what_is_wrong_with_the_search_is_told_before_any_photograph(files, tmp_path, here, never, more, words):
    more = [files / word if "." in word or word == "photographs" else word for word in more]
    code, out, err = here(arguments(files, tmp_path / "search", *more))
    assert (code, out) == (2, "") and words in err and err.count("\n") == 1
    assert not (tmp_path / "search").exists()


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (("--prune", "0"), '"0.0" for --prune. Must be > 0'),
        (("--prune", "nan"), "--prune"),
        (("--prune", "1.1"), "Must be <= 1"),
        (("--repeats", "0"), "from 1"),
        (("--objective", "nonsense"), "Choose from: "),
        (("--oracle", "tarot"), "Choose from: "),
        (("--trials", "0"), '"0" for --trials. Must be >= 1'),
        (("--space", "missing.toml"), "missing.toml: No such file or directory"),
        (("--recipe", "missing.json"), "missing.json: No such file or directory"),
        (("--beside", "default.json"), "winner and default are taken"),
        (("--worker", "a"), "Where is the chief?"),
        (("--worker", ""), "A worker's name is of letters"),
        (("--worker", "a/b", "--address", "127.0.0.1:80"), "A worker's name is of letters"),
        (("--worker", "mischief", "--address", "127.0.0.1:80"), "must not hold 'chief'"),
        (("--worker", "a", "--chief", "--address", "127.0.0.1:80"), "exclude each other"),
        (("--worker", "a", "--overwrite", "--address", "127.0.0.1:80"), "--overwrite is the chief's"),
        (("--chief", "--address", "127.0.0.1"), "must be host:port"),
        (("--chief", "--address", "127.0.0.1:65536"), "must be host:port"),
        (("--address", "127.0.0.1:80"), "give --chief or --worker"),
    ],
)
def test_bad_arguments_are_told_before_a_process_starts(files, tmp_path, here, never, monkeypatch, more, words):
    for name in ("KERASTUNER_ORACLE_IP", "KERASTUNER_ORACLE_PORT", "KERASTUNER_TUNER_ID"):
        monkeypatch.delenv(name, raising=False)
    more = [files / word if word.endswith((".toml", ".json")) else word for word in more]
    code, out, err = here(arguments(files, tmp_path / "search", *more), trains=False)
    assert (code, out) == (2, "") and err.count("\n") == 1 and words in err and err.startswith("kresnets search: ")
    assert not (tmp_path / "search").exists()


def made(folder, given, ended=0):
    """Make what a search with these arguments leaves when so many trials have ended."""
    options = options_of(given)
    whole.write_text(folder / "config.json", json.dumps({"arguments": search_folder.arguments(options)}))
    for number in range(ended):
        whole.write_text(folder / f"search/trial_{number}/trial.json", '{"status": "COMPLETED"}')


def test_folders_of_something_else_are_left_alone(place, tmp_path, here, never):
    def refusal(folder, *more):
        before = sorted(folder.rglob("*")) if folder.is_dir() else None
        code, out, err = here(arguments(place, folder, *more), trains=False)
        assert (code, out) == (2, "") and err.count("\n") == 1
        assert before is None or sorted(folder.rglob("*")) == before
        return err

    for name in ("notes.txt", "images/mine.png"):  # a search has a folder of that name, but not before its config.json
        whole.write_text(tmp_path / name.split(".")[0] / name, "mine")
        assert f"holds {name.split('/')[0]!r} and is no search" in refusal(tmp_path / name.split(".")[0])
    (tmp_path / "a file").write_text("mine")
    assert "is a file: give a folder" in refusal(tmp_path / "a file")
    whole.write_text(tmp_path / "run/config.json", json.dumps({"arguments": {"model": "ResNet18"}}))
    for more in ((), ("--overwrite",)):
        assert "none of a search: give another --out" in refusal(tmp_path / "run", *more)
    made(tmp_path / "search", arguments(place, tmp_path / "search"), ended=6)
    assert "holds 6 trials already: give --trials 6 or more" in refusal(tmp_path / "search")
    assert "another --oracle (random, now grid), --size (16, now 32): give another folder, or" in refusal(
        tmp_path / "search", "--oracle", "grid", "--size", 32
    )


def test_what_is_replaced_lasts_until_all_else_is_found_good(place, tmp_path, here, monkeypatch):
    folder = tmp_path / "search"
    given = arguments(place, folder, "--overwrite", "--size", 32)
    made(folder, arguments(place, folder), ended=3)
    before = sorted(folder.rglob("*"))

    def damaged(*args, **options):
        raise ValueError("The photographs are damaged.")

    with monkeypatch.context() as patched:
        patched.setattr(kresnets.data, "load_data", damaged)
        assert here(given)[0] == 2 and here([*given, "--epochs", 1])[0] == 2
    assert sorted(folder.rglob("*")) == before
    options = options_of(given)
    search_folder.make_room(folder, options)
    assert not left(folder)


def test_a_search_goes_on_in_its_precision_and_with_its_images(place, tmp_path):
    folder = tmp_path / "search"
    options = options_of(arguments(place, folder))
    config = {"arguments": search_folder.arguments(options), "dtype": "mixed_bfloat16", "contents": "these"}
    whole.write_text(folder / "config.json", json.dumps(config))
    assert search_folder.dtype(folder, options) == "mixed_bfloat16"
    assert search_folder.dtype(folder, options_of(arguments(place, folder, "--size", 32))) is None
    with pytest.raises(ValueError, match="was begun with other images or labels in .*, or --overwrite to replace it"):
        search_folder.make_room(folder, options, None, "others")
    options.overwrite = True
    search_folder.make_room(folder, options, None, "these")
    assert left(folder) == ["config.json"]
    search_folder.make_room(folder, options, None, "others")
    assert not left(folder)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_without_the_right_to_write(place, tmp_path, here, never):
    folder = tmp_path / "closed"
    folder.mkdir(mode=0o500)
    code, _, err = here(arguments(place, folder), trains=False)
    assert code == 2 and "cannot be written to" in err


@pytest.fixture
def shown(tmp_path, place):
    import keras_tuner

    options = options_of(arguments(place, tmp_path))
    space = kresnets.tuning.Space({"thaw": ["head", "stage3"]}, ("stem", "stage3", "head"))
    found = Live(tmp_path, tmp_path / "search", keras_tuner.Objective("val_loss", "min"), space, options, "command")
    found.begin()
    return found


def test_without_plotly_the_search_says_so_once(shown, monkeypatch, capsys):
    for module in ("plotly", "plotly.offline"):
        monkeypatch.setitem(sys.modules, module, None)
    shown.page()
    shown.page()
    out = capsys.readouterr().out
    assert out.count("\n") == 1 and out.startswith("No page is written: ") and "pip install kresnets[search]" in out


def test_a_table_that_cannot_be_written_ends_no_search(shown, monkeypatch, capsys):
    def full(*args):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(whole, "write_text", full)
    shown.changed()
    assert capsys.readouterr().out == "trials.csv or search.html could not be written: No space left on device.\n"


@pytest.fixture
def scripted(monkeypatch):
    """Have a script of Python run in the place of the command."""
    monkeypatch.setattr(kresnets_command, "command", lambda *argv: [sys.executable, *argv])


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGSEGV, signal.SIGABRT])
def test_a_process_that_dies_again_and_again_ends_the_search(tmp_path, capfd, scripted, end):
    script = tmp_path / "dies.py"
    script.write_text(f"import os; os.kill(os.getpid(), {end.value})")
    with pytest.raises(RuntimeError, match="killed 9 times in a row without a trial coming to its end"):
        supervisor.keep([str(script)], lambda: 0)
    messages = capfd.readouterr().err
    assert messages.count(f"was killed ({end.name}); another one goes on.") == supervisor.MOST_DEATHS - 1


def test_an_interrupt_that_was_lost_is_sent_again(tmp_path):
    script = tmp_path / "deaf.py"
    script.write_text(
        "import signal, sys; heard = []\n"
        "signal.signal(signal.SIGINT, lambda *_: heard.append(1))\n"
        "signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGINT, signal.SIGTERM))\n"
        "while len(heard) < 2: signal.pause()\n"
        "sys.exit(130)"
    )
    keep = (  # without TensorFlow, which the room imports
        "import importlib.util, sys, kresnets_command\n"
        f"spec = importlib.util.spec_from_file_location('supervisor', {supervisor.__file__!r})\n"
        "supervisor = importlib.util.module_from_spec(spec)\n"
        "spec.loader.exec_module(supervisor)\n"
        "print('here', flush=True)\n"
        "kresnets_command.command = lambda *argv: [sys.executable, *argv]\n"
        f"sys.exit(supervisor.keep([{str(script)!r}], lambda: 0))"
    )
    process = subprocess.Popen([sys.executable, "-c", keep], stdout=subprocess.PIPE, cwd=ROOT)
    process.stdout.readline()
    child_of(process)
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=60) == 130


@pytest.mark.parametrize("code", [0, 2])
def test_the_process_that_stays_starts_another_one_when_asked_to(tmp_path, scripted, code):
    script, ends = tmp_path / "again.py", tmp_path / "ends"
    ends.write_text(f"{supervisor.AGAIN} {supervisor.AGAIN} {code}")
    script.write_text(
        "import pathlib, sys; path = pathlib.Path(sys.argv[1]); first, _, rest = path.read_text().partition(' ')\n"
        "path.write_text(rest); sys.exit(int(first))"
    )
    assert supervisor.keep([str(script), str(ends)], lambda: 0) == code and ends.read_text() == ""


# Many processes, every oracle.


@pytest.mark.everything
def test_a_chief_and_its_workers_run_each_trial_once(place, tmp_path):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    folder = tmp_path / "search"

    def begin(*role):
        return start(arguments(place, folder, *role, "--address", address, trials=9), start_new_session=True)

    chief = begin("--chief")
    workers = {name: begin("--worker", name) for name in "abc"}
    wait_for(lambda: search_folder.ended(folder / "search") >= 2, chief)
    kill_all(workers.pop("a"))
    workers["d"] = begin("--worker", "d")
    wait_for(lambda: search_folder.ended(folder / "search") >= 5, chief)
    kill_all(chief)
    chief = begin("--chief")
    for process in (*workers.values(), chief):
        out, err = process.communicate()
        assert process.returncode == 0 and "Traceback" not in err, err
    assert "The best of 9 trials" in out
    found = results(folder)
    assert len(found) == 9 and {status for status, *_ in found.values()} <= {"completed", "pruned", "repeated"}
    assert len({(thaw, rate, ratio) for _, thaw, rate, ratio, _ in list(found.values())[1:]}) == len(found) - 1


@pytest.mark.everything
@pytest.mark.parametrize(
    ("oracle", "objective"),
    [("random", "val_auc"), ("bayesian", "val_accuracy"), ("hyperband", "val_f1"), ("grid", "val_mAP")],
)
def test_every_oracle(place, tmp_path, here, oracle, objective):
    folder = tmp_path / "search"
    given = arguments(place, folder, "--oracle", oracle, "--objective", objective, trials=6)
    code, out, err = here(given)
    assert (code, err) == (0, "") and "The best of 6 trials" in out
    found = [row for row in rows(folder) if row["status"] in ("completed", "pruned", "repeated")]
    assert len(found) == 6 and all(0 <= float(row["score"]) <= 1 for row in found)
    code, out, err = here(given)
    assert (code, err) == (0, "") and "Going on after 6 of 6 trials." in out and "recipe trains" not in out


@pytest.mark.everything
def test_repeats_are_other_splits_of_what_is_not_for_testing(place, tmp_path, here):
    code, _, err = here(arguments(place, tmp_path / "search", "--repeats", 2, "--prune", 1, trials=3))
    assert (code, err) == (0, "")
    for path in (tmp_path / "search/search").glob("trial_*/record.json"):
        record, trial = json.loads(path.read_text()), json.loads(path.with_name("trial.json").read_text())
        assert len(set(record["scores"])) == 2 and trial["score"] == pytest.approx(np.mean(record["scores"]))
