"""The command itself: what it says without work, and what wrong words get."""

import csv
import json
import os
import subprocess
import sys
import time

import keras
import numpy as np
import pytest
from commands import ask
from PIL import Image
from places import ROOT

import kresnets_command
from kresnets.cli import options

VERBS = tuple(kresnets_command.VERBS)
HELP = "import kresnets_command, sys\ntry: kresnets_command.main(['--help'])\n"
HELP += "finally: print(*sorted({'tensorflow', 'keras', 'kresnets'} & sys.modules.keys()), file=sys.stderr)"


@pytest.fixture
def said(monkeypatch, capsys):
    """Run the command in this process: its exit code, and what it wrote to stdout and stderr."""
    monkeypatch.setenv("KERAS_BACKEND", "tensorflow")  # put back afterwards: some verbs set it
    policy = keras.mixed_precision.dtype_policy()

    def call(*argv):
        code, captured = ask(*argv), capsys.readouterr()
        # pytest lets more warnings through than Python does.
        errors = [line for line in captured.err.splitlines(keepends=True) if ": warning: " not in line]
        return code, captured.out, "".join(errors)

    yield call
    keras.mixed_precision.set_dtype_policy(policy)


def test_help_waits_for_no_tensorflow():
    took = []
    for _ in range(3):  # the best of them: other processes compute here too
        began = time.monotonic()
        done = subprocess.run([sys.executable, "-c", HELP], cwd=ROOT, capture_output=True, text=True)
        took.append(time.monotonic() - began)
        assert (done.returncode, done.stderr) == (0, "\n") and all(verb in done.stdout for verb in VERBS)
    assert min(took) < 1.5, took


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (["finetun"], "kresnets: There is no verb 'finetun'. Did you mean 'finetune'? See kresnets --help."),
        (["dance"], f"There are {', '.join(VERBS)}."),
        (["--versio"], "kresnets: There is no option '--versio'. Did you mean '--version'? See kresnets --help."),
        (["finetune", "--dat", "x", "--out", "y"], "Did you mean --data instead of --dat?"),
        (["finetune", "--data", "x", "--out", "y", "--batchsize", 3], "Did you mean --batch-size?"),
        (["finetune", "--data", "x"], "--out"),
        (["finetune", "--data", "x", "--out", "y", "--batch-size", 0], "Must be >= 1"),
        (["finetune", "--data", "x", "--out", "y", "--batch-size", "many"], "--batch-size"),
        (["finetune", "--data", "x", "--out", "y", "--dtype", "float3"], "Choose from: "),
        (["finetune", "--data", "x", "--out", "y", "--learning-rate", "fast"], "--learning-rate"),
        (["predict"], "MODEL"),
        (["export", "a", "b", "c"], "c"),
        (["search", "--data", "x", "--out", "y", "--oracle", "tarot"], "--oracle"),
        (["serve", "x", "--port", -1], "--port"),
        (["compare", "--size", "x"], "--size"),
        (["networks", "--markdow"], "Did you mean --markdown?"),
    ],
)
def test_wrong_words_get_one_line(said, tmp_path, monkeypatch, wrong, words):
    monkeypatch.chdir(tmp_path)
    code, out, err = said(*wrong)
    assert (code, out) == (2, "") and words in err and err.count("\n") == 1
    program = f"kresnets {wrong[0]}" if wrong[0] in VERBS else "kresnets"
    assert err.startswith(f"{program}: ") and (wrong[0] not in VERBS or err.endswith(f" See {program} --help.\n"))
    assert not list(tmp_path.iterdir())


def test_python_m_is_the_command():
    clean = {name: value for name, value in os.environ.items() if name != "KERAS_BACKEND"}
    run = [sys.executable, "-m", "kresnets", "predict", "nowhere", "x.jpg"]
    # Else the package would take this backend before the command can choose TensorFlow, which a SavedModel needs.
    done = subprocess.run(run, cwd=ROOT, env=clean | {"KERAS_BACKEND": "jax"}, capture_output=True, text=True)
    assert done.returncode == 2 and done.stderr.endswith(
        "kresnets predict: There is no nowhere here: give a run, or an exported model such as saved_models/NAME.\n"
    )


def test_an_interrupted_training_says_how_to_go_on(capsys):
    def interrupted():
        raise KeyboardInterrupt

    with pytest.raises(SystemExit) as ended:
        kresnets_command.end_with(interrupted, "kresnets finetune")
    said = "\nkresnets finetune: interrupted; the same command goes on after the last whole epoch.\n"
    assert (ended.value.code, capsys.readouterr().err) == (130, said)


@pytest.mark.parametrize("verb", VERBS)
def test_every_option_says_what_it_is(verb):
    taken = kresnets_command.make_app()[verb].assemble_argument_collection(parse_docstring=True)
    shown = [option for option in taken if option.show]
    assert len(shown) > 1 and [option.name for option in shown if not option.parameter.help] == []


@pytest.mark.parametrize("verb", VERBS)
def test_help_of_a_verb_starts_no_work(said, tmp_path, monkeypatch, verb):
    monkeypatch.chdir(tmp_path)
    given = {"finetune": ["--data", "x", "--out", "run"], "search": ["--data", "x", "--out", "search"]}
    code, out, err = said(verb, *given.get(verb, ()), "--help")
    assert (code, err) == (0, "") and out.startswith(f"Usage: kresnets {verb}")
    assert f"kresnets {verb} " in out[20:]  # an example
    assert not list(tmp_path.iterdir())


def test_of_an_option_given_twice_the_last_holds():
    given = "--data x --out y --size 32 --stages stage3 --dtype float32 --dtype auto --size 64 --stages".split()
    _, bound, _ = kresnets_command.make_app().parse_args(["finetune", *given])
    assert bound.arguments["network"] == options.Network(size=64) and bound.arguments["recipe"].stages == []


def test_errors_of_the_library_name_options(said, pictures, tmp_path):
    code, _, err = said(*small(pictures, tmp_path / "run", "--label-smoothing", 2))
    assert code == 2 and "--label-smoothing must be" in err and "`" not in err


# --epochs


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """A folder with small pictures of two classes."""
    folder, rng = tmp_path_factory.mktemp("pictures"), np.random.default_rng(0)
    for name in ("a", "b"):
        (folder / name).mkdir()
        for number in range(12):
            pixels = rng.integers(0, 256, (16, 16, 3), dtype="uint8")
            Image.fromarray(pixels).save(folder / name / f"{number}.png")
    return folder


GROUPS = ("stage3", "stage2", "stage1", "stem")


def small(pictures, run, *more):
    given = "--model CifarResNet8 --weights none --pretrained yes --size 16 --batch-size 8 --dtype float32".split()
    return ["finetune", "--data", pictures, "--out", run, *given, *more]


def test_epochs_are_shared_out_among_the_stages(said, pictures, tmp_path):
    given = small(pictures, tmp_path / "run", "--stages", "stage3", "stage2", "--epochs", 5)
    code, out, err = said(*given, "--dry-run")
    assert (code, err) == (0, "") and not (tmp_path / "run").exists()
    rows = [line.split() for line in out.splitlines()]
    first = next(number for number, row in enumerate(rows) if row[:2] == ["stage", "epochs"])
    stages = {row[0]: int(row[1]) for row in rows[first + 1 :]}
    assert stages == {"stage3": 3, "stage2": 2}


@pytest.mark.everything
@pytest.mark.slow
def test_so_many_epochs_are_trained(said, pictures, tmp_path):
    code, _, err = said(*small(pictures, tmp_path / "run", "--stages", "stage3", "stage2", "--epochs", 3))
    assert (code, err) == (0, "")
    with open(tmp_path / "run/history.csv", newline="") as file:
        stages = [row["stage"] for row in csv.DictReader(file)]
    assert stages == ["stage3", "stage3", "stage2"]
    config = json.loads((tmp_path / "run/config.json").read_text())
    assert config["command"].startswith("kresnets finetune --data ") and config["arguments"]["epochs"] == 3


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (("--head-epochs", 2), "--epochs does not go with --head-epochs: leave one of them out."),
        (("--epochs-per-stage", 2), "--epochs does not go with --epochs-per-stage"),
        (("--stages", *GROUPS), "--epochs must be a whole number, at least 4, 1 for each stage (stage3, stage2, "),
        (("--advance", "plateau"), "wait for a plateau"),
    ],
)
def test_epochs_that_do_not_fit_are_refused(said, pictures, tmp_path, more, words):
    code, _, err = said(*small(pictures, tmp_path / "run", "--epochs", 3, *more))
    assert code == 2 and words in err and err.count("\n") == 1 and not (tmp_path / "run").exists()


def test_a_line_of_python_stays_one(monkeypatch):
    monkeypatch.setattr(kresnets_command, "options", {"--weights", "--size"})
    text = "pass weights=None, or give Preprocessing(mode='torch', size=224) (a mode of `size`)"
    assert kresnets_command.spelled(text) == (
        "pass --weights none, or give Preprocessing(mode='torch', size=224) (a mode of --size)"
    )


def test_texts_of_the_library_name_what_is_to_be_typed(monkeypatch):
    monkeypatch.setattr(kresnets_command, "options", {"--weights", "--size", "--pretrained", "--bad-images"})
    texts = {
        "pass weights='open_nsfw', weights=None or weights='two words'.": "pass --weights open_nsfw, --weights none or "
        "--weights 'two words'.",
        "Recipe: `size` must be larger. Received: size=8": "--size must be larger. Received: --size 8",
        '(pretrained=False; `pretrained`) bad_images="skip", groups=2': "(--pretrained no; --pretrained) --bad-images "
        "skip, groups=2",
        "Recipe(size=3) keeps it": "Recipe(size=3) keeps it",
        "/data/weights=None/size=3 is no folder": "/data/weights=None/size=3 is no folder",
    }
    assert [kresnets_command.spelled(text) for text in texts] == list(texts.values())
