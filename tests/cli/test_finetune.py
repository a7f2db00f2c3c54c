"""`kresnets finetune` as its user runs it: the whole run, the second run, kills, and what bad input gets."""

import csv
import importlib.metadata
import json
import os
import pathlib
import random
import re
import shutil
import signal
import subprocess
import sys
import time
import urllib.parse

import keras
import numpy as np
import pytest
from cells import copy_to
from commands import ask, command, finish, finish_alone
from places import ROOT

from kresnets import Recipe
from kresnets.cli import finetune
from kresnets.cli.options import Images, Network, RecipeOptions, flat
from kresnets.runs.folder import RunFolder
from kresnets.transfer import trunk

HALF = (0.5, 0.5, 0.5)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder of two class folders with 60 real photographs of solar cells."""
    return copy_to(tmp_path_factory.mktemp("photographs"))


def small(folder, run, *more):
    """Return the arguments of a run of seconds."""
    given = (
        "--model CifarResNet8 --weights none --pretrained yes --size 32 --batch-size 16 --head-epochs 2 "
        "--epochs-per-stage 2 --stages stage3 stage2"
    ).split()
    return ["finetune", "--data", folder, "--out", run, "--dtype", "float32", *given, *more]


def start(arguments):
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command(*arguments), cwd=ROOT, **streams)


def history(run):
    with open(run / "history.csv", newline="") as file:
        return list(csv.DictReader(file))


@pytest.fixture(scope="module")
def finished(folder, tmp_path_factory):
    run = tmp_path_factory.mktemp("runs") / "whole"
    done = finish_alone(*small(folder, run))
    assert done.returncode == 0, done.stderr
    # What TensorFlow says of a graph that it cannot optimise, or of a kernel that it has not.
    assert not re.search("failed: INVALID_ARGUMENT|oneDNN supports", done.stderr)
    return run, done.stdout


def snapshot(run):
    return {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in run.iterdir()}


def test_a_run_leaves_what_it_promises(finished):
    run, output = finished
    pictures = {"curves.png", "confusion.png", "mistakes.png", "calibration.png", "threshold.png", "feature_map.png"}
    pictures |= {"augmented.png"}
    found = {path.name for path in run.iterdir()}
    where_there_are_any = {"label_issues.csv", "near_duplicates.csv", "near_duplicates.png", "learning_curve.png"}
    where_there_are_any |= {"neighbours.png"}
    assert found - where_there_are_any == pictures | {
        "config.json", "history.csv", "model.keras", "metrics.json", "bad_images.txt", "report.html", "schedule.toml",
        "plan.txt", "files.csv", "predictions.csv",
    }  # fmt: skip
    rows = history(run)
    assert [row["epoch"] for row in rows] == [str(epoch) for epoch in range(6)]
    assert [row["stage"] for row in rows] == ["head"] * 2 + ["stage3"] * 2 + ["stage2"] * 2
    assert (
        float(rows[0]["learning_rate/stage3"])
        == 0
        < float(rows[2]["learning_rate/stage3"])
        < float(rows[2]["learning_rate/head"])
    )
    assert float(rows[0]["trainable_parameters"]) == 130
    numbers = json.loads((run / "metrics.json").read_text())
    assert {
        "accuracy",
        "balanced_accuracy",
        "auc",
        "seconds",
        "images_per_second",
        "accuracy_interval",
        "per_class",
    } <= set(numbers)
    assert numbers["accuracy_interval"][0] <= numbers["accuracy"] <= numbers["accuracy_interval"][1]
    assert set(numbers["per_class"]["defective"]) >= {"recall", "precision", "count"}
    lines = output.splitlines()
    begins = next(i for i, line in enumerate(lines) if line.startswith("Stage 2 of 3: stage3 and above train (0.0"))
    assert lines[begins + 1].startswith("epoch 3/6: loss ") and "accuracy" in lines[begins + 1]
    assert max(len(line) for line in lines if line.startswith("epoch ")) <= 80
    assert "taken for pretrained: as was said" in (run / "plan.txt").read_text()
    page = (run / "report.html").read_text()
    assert "http" not in re.sub(r'base64,[^"]+', "", page.split("<body")[1].split("The same again")[0])
    assert page.count("data:image/png") == sum(name.endswith(".png") for name in found)


def test_the_metrics_are_those_of_the_saved_model_on_the_test_part(finished, folder):
    from sklearn.metrics import accuracy_score, roc_auc_score

    from kresnets.data import load_data

    run = finished[0]
    numbers, test = json.loads((run / "metrics.json").read_text()), load_data(folder, progress=False).test
    model = keras.saving.load_model(run / "model.keras")
    prepared = keras.applications.imagenet_utils.preprocess_input(test.pixels(32), mode="torch")
    scores = model.predict(prepared, verbose=0)
    assert numbers["accuracy"] == pytest.approx(accuracy_score(test.labels, scores.argmax(1)))
    assert numbers["auc"] == pytest.approx(roc_auc_score(test.labels, scores[:, 1]), abs=1e-6)
    assert model.optimizer.iterations > 0
    # The table says of each image what the model does; the page links each mistake's photograph.
    with open(run / "predictions.csv", newline="", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["part"] == "test"]
    assert [row["file"] for row in rows] == list(test.ids)
    table = np.array([[float(row[f"p({name})"]) for name in test.class_names] for row in rows])
    np.testing.assert_allclose(table, scores, atol=1e-4)
    assert [row["prediction"] for row in rows] == [test.class_names[answer] for answer in scores.argmax(1)]
    wrong = [row["file"] for row in rows if row["label"] != row["prediction"]]
    assert wrong == [row["file"] for row in rows if row["correct"] == "0"]
    page = (run / "report.html").read_text().partition("Mistakes on the test images")[2].partition("<h2>")[0]
    links = re.findall('<a href="([^"]*)">([^<]*)</a>', page)
    assert sorted(name for _, name in links) == sorted(wrong)
    for link, name in links:
        assert (run / urllib.parse.unquote(link)).samefile(folder / name)


def test_the_same_command_again_changes_nothing(finished, folder):
    run, first = finished
    before = snapshot(run)
    done = finish(*small(folder, run))
    assert done.returncode == 0 and "is finished; nothing was changed" in done.stdout
    assert first.splitlines()[-6] in done.stdout
    assert snapshot(run) == before


def test_other_arguments_are_refused_unless_told_to_overwrite(finished, folder):
    run = finished[0]
    before = snapshot(run)
    done = finish(*small(folder, run, "--seed", "1"))
    assert done.returncode == 2 and "made with another --seed (0, now 1)" in done.stderr
    assert done.stderr.count("\n") == 1
    assert snapshot(run) == before


def test_half_precision_is_for_networks_that_gain_by_it(monkeypatch, folder, tmp_path, capsys):
    """By multiply-adds, which are the network's and the size's; a run that began in another dtype goes on in it."""
    monkeypatch.setattr(trunk, "fast_dtype", lambda: "mixed_bfloat16")
    taken = {
        ("CifarResNet20", "none", None): "float32",  # 0.04 G
        ("CifarResNet20", "none", 128): "mixed_bfloat16",  # 16 times as many
        ("ResNet18", "imagenet", None): "mixed_bfloat16",  # 1.8 G at its weights' 224
        ("ResNet18", "imagenet", 64): "float32",
    }
    for (network, weights, size), dtype in taken.items():
        assert trunk.dtype_for(trunk.spec_of(network), weights, size)[0] == dtype
    given = [*small(folder, tmp_path / "run"), "--dtype", "auto", "--dry-run"]
    assert ask(*given) == 0
    said = "CifarResNet8, 32 pixels, float32 (bfloat16 gains nothing where an image takes 0.012 G multiply-adds); "
    assert said in capsys.readouterr().out
    options, spec = flat(Network(model="CifarResNet20")), trunk.spec_of("CifarResNet20")
    assert finetune._dtype(options, {"dtype": "mixed_bfloat16"}, spec) == ("mixed_bfloat16", "")


def epochs_done(run):
    return len(history(run)) if (run / "history.csv").exists() else 0


def kill_and_resume(folder, run, kills, rng):
    """Kill the command with -9 at random moments, then let it end; return how many kills found it running."""
    found = 0
    for _ in range(kills):
        process = start(small(folder, run))
        # By what it has done, not by the clock alone: machines differ, and so does each run after the first kill.
        enough = epochs_done(run) + rng.randrange(3)
        while process.poll() is None and epochs_done(run) < min(enough, 6):
            time.sleep(0.02)
        time.sleep(rng.uniform(0, 1.5))
        found += process.poll() is None
        process.send_signal(signal.SIGKILL)
        process.communicate()
    done = finish_alone(*small(folder, run))
    assert done.returncode == 0, done.stderr
    return found


def same_result(run, whole):
    ours, theirs = history(run), history(whole)
    assert [row["epoch"] for row in ours] == [row["epoch"] for row in theirs]
    for mine, other in zip(ours, theirs):
        for column in ("loss", "val_loss", "learning_rate/head", "trainable_parameters"):
            assert float(mine[column]) == pytest.approx(float(other[column]), rel=1e-3), column
    a, b = (json.loads((path / "metrics.json").read_text())["accuracy"] for path in (run, whole))
    assert abs(a - b) <= 0.02
    assert {path.name for path in run.iterdir()} == {path.name for path in whole.iterdir()}


@pytest.mark.everything
def test_killed_twice_it_ends_with_the_same_history_and_result(finished, folder, tmp_path):
    assert kill_and_resume(folder, tmp_path / "run", 2, random.Random(0)) >= 1
    same_result(tmp_path / "run", finished[0])


@pytest.mark.everything
def test_killed_twenty_times(finished, folder, tmp_path):
    rng, found = random.Random(1), 0
    for number in range(10):
        found += kill_and_resume(folder, tmp_path / f"run{number}", 2, rng)
        same_result(tmp_path / f"run{number}", finished[0])
    assert found >= 15  # of 20 kills


@pytest.mark.everything
@pytest.mark.slow
def test_a_second_process_is_told(folder, tmp_path):
    import fcntl

    held = os.open(tmp_path, os.O_RDONLY)
    fcntl.flock(held, fcntl.LOCK_EX)
    done = finish_alone(*small(folder, tmp_path))
    os.close(held)
    assert done.returncode == 2 and "Another process is working on" in done.stderr
    assert not list(tmp_path.iterdir())


def test_a_finished_run_says_what_has_changed_among_its_images(finished, folder, tmp_path, capsys):
    """And is trained anew when told to; a file that was only touched, or copied, is the same."""
    data, copy = tmp_path / "data", tmp_path / "copy"
    shutil.copytree(folder, data, copy_function=shutil.copy)  # with times of its own
    shutil.copytree(finished[0], copy)
    config = json.loads((copy / "config.json").read_text())
    config["arguments"]["data"] = str(data)
    (copy / "config.json").write_text(json.dumps(config))
    given = small(data, copy)
    assert ask(*given) == 0 and "But the images" not in capsys.readouterr().out
    one, two, *_ = sorted((data / "functional").iterdir())
    one.rename(data / "defective" / "new, one.png")
    two.write_bytes(two.read_bytes()[:-20] + b"another ends")
    before = snapshot(copy)
    assert ask(*given) == 0 and snapshot(copy) == before
    assert (
        f"But the images in {data} are not those that it learned from: 1 moved (functional/{one.name} to "
        f"defective/new, one.png), 1 changed (functional/{two.name}). To train anew, give another --out, or --overwrite"
    ) in capsys.readouterr().out
    two.unlink()
    assert ask(*given, "--overwrite", "--dry-run") == 0 and snapshot(copy) == before
    assert "is finished" not in capsys.readouterr().out
    shutil.rmtree(data)
    assert ask(*given) == 0 and "there is nothing of this name" in capsys.readouterr().out


def test_other_photographs_and_damaged_notes_are_refused(finished, folder, tmp_path):
    copy, data = tmp_path / "copy", tmp_path / "data"
    shutil.copytree(finished[0], copy)
    (copy / "metrics.json").unlink()
    shutil.copytree(folder, data)
    config = json.loads((copy / "config.json").read_text())
    config["arguments"]["data"] = str(data)
    (copy / "config.json").write_text(json.dumps(config))
    # Two images changed places: no name and no label tells it.
    first, second = (path for path in sorted((data / "functional").iterdir())[:2])
    contents = first.read_bytes(), second.read_bytes()
    first.write_bytes(contents[1])
    second.write_bytes(contents[0])
    done = finish(*small(data, copy))
    assert done.returncode == 2 and "have changed since" in done.stderr
    with pytest.raises(ValueError, match="have changed since .* learned them"):
        RunFolder(copy).images()
    # A run of before contents were noted is taken at its word.
    (copy / "config.json").write_text(json.dumps({k: v for k, v in config.items() if k != "contents"}))
    assert len(RunFolder(copy).images().train)
    (copy / "config.json").write_text(json.dumps(config))
    first.unlink()
    done = finish(*small(data, copy))
    assert done.returncode == 2 and "have changed since" in done.stderr
    (copy / "config.json").write_text('{"argum')
    done = finish(*small(data, copy))
    assert done.returncode == 2 and "config.json is damaged" in done.stderr and "--overwrite" in done.stderr


def test_overwrite_destroys_nothing_until_the_new_run_can_begin(finished, folder, tmp_path, capsys):
    copy = tmp_path / "copy"
    shutil.copytree(finished[0], copy)
    before = snapshot(copy)
    for wrong in (
        ["--model", "Nope"],
        ["--optimizer", "magic"],
        ["--stages", "stage9"],
        ["--weights", "lost.h5"],
        ["--size", "4"],
    ):
        given = ["--data", folder, "--out", copy, "--overwrite", "--model", "CifarResNet8", "--weights", "none"]
        assert ask("finetune", *given, *wrong) == 2
        assert capsys.readouterr().err
    keras.mixed_precision.set_dtype_policy("float32")
    assert snapshot(copy) == before


@pytest.mark.everything  # `make demo` does the same, from the photographs to the answers
def test_real_photographs_are_learned_carried_on_and_served(tmp_path):
    import kresnets  # noqa: F401, its layers: without them the files do not load

    source, carried, served = tmp_path / "source", tmp_path / "carried", tmp_path / "served"
    shared = "--model CifarResNet20 --size 64 --dtype float32 --batch-size 16".split()
    learn = "--data elpv/poly --from-scratch --weights none --epochs-per-stage 4 --out".split()
    assert finish_alone("finetune", *learn, source, *shared).returncode == 0
    assert json.loads((source / "metrics.json").read_text())["auc"] > 0.75
    carry = (
        "--data elpv/mono --limit 75 --head-epochs 1 --stages stage3 --epochs-per-stage 1 --class-weight balanced"
    ).split()
    done = finish_alone("finetune", *carry, "--weights", source, "--out", carried, *shared)
    assert done.returncode == 0, done.stderr
    trunks = [
        keras.saving.load_model(run / "model.keras").get_layer("stage2_block1_conv1").get_weights()[0]
        for run in (source, carried)
    ]
    np.testing.assert_array_equal(*trunks)
    done = finish_alone("export", carried, served, "--verify", 5)
    assert done.returncode == 0 and "verified: 5 images, scores within" in done.stdout, done.stderr
    card = json.loads((served / "1" / "assets" / "model_card.json").read_text(encoding="utf-8"))
    assert card["verified"]["largest_difference"] < 1e-4 and card["weights"] == str(source) and not card["licence"]
    assert card["metrics"] == json.loads((carried / "metrics.json").read_text()) and card["network"] == "CifarResNet20"
    photographs = [
        str(file.locate())
        for file in importlib.metadata.files("elpv-dataset")
        if file.name in ("cell0003.png", "cell0397.png")
    ]
    answers = [finish_alone("predict", model, *photographs).stdout for model in (carried, served)]
    assert answers[0].count("defective") == 2
    scores = [[float(line.split()[-1]) for line in answer.splitlines()[1:]] for answer in answers]
    np.testing.assert_allclose(*scores, atol=2e-4)


def test_the_size_is_the_users_else_that_of_the_weights_else_the_networks(finished, tmp_path):
    import kresnets

    spec, wanted = kresnets.SPECS["CifarResNet8"], kresnets.Preprocessing("torch", 0.875, HALF, HALF, 48)
    source = kresnets.CifarResNet8(include_top=False)
    source.get_layer("stem_bn1").preprocessing = wanted
    file = str(tmp_path / "trunk.weights.h5")
    source.save_weights(file)
    run, kernel = str(tmp_path / "run"), source.get_layer("stage3_block1_conv2").get_weights()[0]
    shutil.copytree(finished[0], run)
    learned = keras.saving.load_model(f"{run}/model.keras").get_layer("stage3_block1_conv2").get_weights()[0]
    expected_images = {
        file: wanted,
        "none": kresnets.Preprocessing(),
        run: kresnets.Preprocessing(decoding=kresnets.Decoding()),
    }
    for weights, size, expected, wanted_kernel in (
        (file, None, 48, kernel), (file, 40, 40, kernel), ("none", None, 32, None), (run, None, 32, learned),
        (run, 64, 64, learned),
    ):  # fmt: skip
        model = trunk.with_trunk(spec, weights, size, 2)
        assert model.input_shape == (None, expected, expected, 3) and model.output_shape == (None, 2)
        assert kresnets.preprocessing_of(model) == expected_images[weights]
        if wanted_kernel is not None:
            np.testing.assert_array_equal(model.get_layer("stage3_block1_conv2").get_weights()[0], wanted_kernel)


def test_how_the_images_of_a_file_are_wanted_can_be_said(tmp_path):
    import kresnets

    spec, file = kresnets.SPECS["CifarResNet20"], str(tmp_path / "trunk.weights.h5")
    kresnets.CifarResNet20(include_top=False).save_weights(file)
    for said, size in (("caffe", None), ("none", 40), ("timm/resnet18d.ra4_e3600_r224_in1k", 40)):
        found = kresnets.preprocessing_of(trunk.with_trunk(spec, file, size, 2, said))
        assert (found.mode, found.mean) == ((said, None) if "/" not in said else ("torch", HALF))
    for weights, said, sentence in (
        (file, "coffee", "`preprocess` must be caffe, tf, torch, none, or a tag"),
        ("imagenet", "tf", "weights='imagenet' say it themselves"),
    ):
        with pytest.raises(ValueError, match=sentence):
            trunk.with_trunk(spec, weights, None, 2, said)


@pytest.mark.everything
def test_means_crop_and_size_of_the_weights_are_used_from_file_to_answer(folder, tmp_path, monkeypatch, capsys):
    """torch with .5 thrice is the tf mode of keras.applications: trained, judged and served so."""
    from sklearn.metrics import roc_auc_score

    import kresnets
    from kresnets.data import load_data
    from kresnets.data.images import load_image

    run, file = tmp_path / "run", tmp_path / "trunk.weights.h5"
    source = kresnets.CifarResNet8(include_top=False)
    source.get_layer("stem_bn1").preprocessing = kresnets.Preprocessing("torch", 0.875, HALF, HALF, 48)
    source.save_weights(file)
    options = "--model CifarResNet8 --dtype float32 --head-epochs 1 --stages --weights".split()
    done = finish("finetune", "--data", folder, "--out", run, *options, file)
    assert done.returncode == 0 and "CifarResNet8, 48 pixels" in done.stdout, done.stderr
    noted = json.loads((run / "config.json").read_text())["preprocess"]
    decoding = {"bits": None, "background": [255, 255, 255], "whole": 50_000_000}
    assert noted.pop("decoding").items() >= decoding.items()
    assert noted == {"mode": "torch", "crop": 0.875, "mean": [0.5] * 3, "std": [0.5] * 3, "size": 48}
    test = load_data(folder, progress=False).test
    model = keras.saving.load_model(run / "model.keras")
    scores = model.predict(
        keras.applications.imagenet_utils.preprocess_input(test.pixels(48, crop=0.875), mode="tf"), verbose=0
    )
    judged = json.loads((run / "metrics.json").read_text())
    assert judged["auc"] == pytest.approx(roc_auc_score(test.labels, scores[:, 1]), abs=1e-6)
    photographs = [str(path) for path in sorted((folder / "defective").iterdir())[:3]]
    monkeypatch.setenv("KERAS_BACKEND", "tensorflow")  # put back afterwards: the verb sets it

    def predicted():
        code, said = ask("predict", run, *photographs), capsys.readouterr()
        return code, said.out.splitlines(), said.err.splitlines()

    code, lines, _ = predicted()
    seen = np.stack([load_image(pathlib.Path(path).read_bytes(), 48, 0.875) for path in photographs])
    best = model.predict(keras.applications.imagenet_utils.preprocess_input(seen, mode="tf"), verbose=0).max(axis=1)
    said = [float(line.split()[-1]) for line in lines if line.startswith("/")]
    assert code == 0
    np.testing.assert_allclose(said, best, atol=2e-4)
    # Notes that were changed by hand no longer say what the weights carry: one line on stderr, and they hold.
    config = json.loads((run / "config.json").read_text())
    (run / "config.json").write_text(json.dumps(config | {"preprocess": {"mode": "caffe"}}))
    code, _, errors = predicted()
    assert code == 0 and len(errors) == 1
    assert errors[0].startswith("kresnets predict: warning: ") and "is used as asked for" in errors[0]
    (run / "config.json").write_text(json.dumps(config | {"preprocess": {"mode": "torch", "gamma": 2}}))
    code, _, errors = predicted()
    assert code == 2 and len(errors) == 1 and "not in a way that is known" in errors[0]


def test_what_is_left_out_is_left_to_the_rule_and_what_is_given_stays():
    def recipe(seed=None, from_scratch=False, **given):
        options = flat(Images(data="d", seed=seed), RecipeOptions(**given), from_scratch=from_scratch)
        return finetune._recipe(options)

    assert recipe(ratio=0.7, keep="best", seed=3) == Recipe(ratio=0.7, keep="best", seed=3)
    assert recipe(from_scratch=True) == Recipe.from_scratch()


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--data", "nowhere", "--weights", "none"], "nowhere"),
        (["--data", "{folder}", "--model", "ResNet51"], "There is no network 'ResNet51'"),
        (["--data", "{folder}", "--ratio", "-1"], "--ratio must be"),
        (["--data", "{folder}", "--batchnorm", "off"], "--batchnorm"),
        (["--data", "{folder}", "--weights", "none", "--size", "4"], "at least 8 pixels"),
        (["--data", "{folder}", "--weights", "none", "--stages", "stage7"], "no group or block 'stage7'"),
        (["--data", "{folder}", "--weights", "lost.h5"], "lost.h5"),
        (["--data", "{folder}", "--weights", "imagenet"], "pass --weights none"),
        (["--data", "{folder}", "--weights", "none", "--limit", "2"], "2"),
        (["--data", "{folder}", "--from-scratch", "--ratio", "0.5"], "--ratio does not go with --from-scratch"),
        (["--data", "{folder}", "--weights", "none", "--optimizer", "magic"], "name of a Keras optimizer"),
    ],
)
def test_bad_input_gets_one_sentence_and_leaves_nothing(folder, tmp_path, capsys, arguments, sentence):
    arguments = [argument.format(folder=folder) for argument in arguments]
    if "--model" not in arguments:
        arguments += ["--model", "CifarResNet8"]
    assert ask("finetune", *arguments, "--out", tmp_path / "run") == 2
    error = capsys.readouterr().err
    assert sentence in error and "Traceback" not in error
    assert len([line for line in error.splitlines() if line.startswith("pytest") or ":" in line]) >= 1
    assert not (tmp_path / "run").exists() or not list((tmp_path / "run").iterdir())
    keras.mixed_precision.set_dtype_policy("float32")


@pytest.mark.parametrize("beside", [None, "thesis.txt"])
def test_a_folder_of_images_is_not_taken_for_our_own(folder, tmp_path, capsys, beside):
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "holiday.png").write_bytes(b"of 1987")
    if beside:
        (tmp_path / beside).write_text("years of work")
    assert ask("finetune", "--data", folder, "--out", tmp_path) == 2
    assert "is no run" in capsys.readouterr().err
    assert (tmp_path / "images" / "holiday.png").read_bytes() == b"of 1987"


def test_a_folder_that_is_no_run_is_not_touched(folder, tmp_path, capsys):
    (tmp_path / "thesis.txt").write_text("years of work")
    assert ask("finetune", "--data", folder, "--out", tmp_path, "--overwrite") == 2
    assert "is no run" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


@pytest.mark.slow
def test_a_damaged_image_is_refused_or_skipped_and_listed(finished, folder, tmp_path):
    """In the place of an earlier run, too, where that is to be overwritten."""
    data = tmp_path / "data"
    shutil.copytree(folder, data)
    half = next((data / "functional").iterdir())
    half.write_bytes(half.read_bytes()[:2000])
    done = finish(*small(data, tmp_path / "run"))
    assert done.returncode == 2 and half.name in done.stderr and "--bad-images" in done.stderr
    shutil.copytree(finished[0], tmp_path / "run")
    asked = small(data, tmp_path / "run", "--bad-images", "skip", "--stages", "--head-epochs", "1")
    assert finish(*asked).returncode == 2
    done = finish(*asked, "--overwrite")
    assert done.returncode == 0, done.stderr
    assert len(history(tmp_path / "run")) == 1
    assert half.name in (tmp_path / "run" / "bad_images.txt").read_text()
    assert half.name in done.stdout or "left out as damaged" in done.stdout


def test_it_runs_with_its_streams_closed():
    code = "import kresnets_command; kresnets_command.end_with(lambda: print('said') or 7)"
    command = ["sh", "-c", f'"{sys.executable}" -c "{code}" <&- >&- 2>&-']
    assert subprocess.run(command, cwd=ROOT).returncode == 7


def test_the_range_test_sees_shuffled_images(folder, tmp_path, monkeypatch):
    """In the order of the classes each step would see one class alone."""
    import kresnets
    from kresnets.transfer.lr_range_test import RangeTest

    seen = []

    def range_test(model, batches, **options):
        seen.extend(set(labels.numpy().tolist()) for _, labels in batches)
        return RangeTest(np.ones(2), np.ones(2), np.ones(2), False, {"valley": 1e-3, "steepest": None})

    monkeypatch.setattr(kresnets, "find_learning_rate", range_test)
    given = "--model CifarResNet8 --weights none --size 16 --batch-size 12 --dtype float32 --dry-run".split()
    ask("finetune", "--data", folder, "--out", tmp_path / "run", "--learning-rate", "find", *given)
    assert len(seen) > 2 and all(labels == {0, 1} for labels in seen[:-1])


def test_nan_ends_with_a_sentence_and_the_last_good_epoch(folder, tmp_path, capsys):
    run = tmp_path / "run"
    given = (*small(folder, run, "--trunk-learning-rate", "1e30", "--optimizer", "sgd", "--augment", "none"),)
    for _ in range(2):  # begun again, it says so again
        assert ask(*given) == 2
        said = capsys.readouterr().err.strip().splitlines()[-1]
        assert "weights are those of epoch 1." in said and "Try lower rates" in said
        why, rest = (run / "stopped.txt").read_text(), "--learning-rate 0.01, --trunk-learning-rate 1e+30"
        assert why.replace("learning_rate=0.01, trunk_learning_rate=1e+30", rest) in said
        assert not (run / "metrics.json").exists() and len(history(run)) == 2
    model, labels, _ = RunFolder(run).load()
    assert len(labels) == 2 and all(np.isfinite(weight).all() for weight in model.get_weights())


@pytest.mark.everything
@pytest.mark.slow
def test_a_model_of_ones_own_with_one_sigmoid_unit(folder, tmp_path, capsys):
    import kresnets

    own, run = tmp_path / "own.keras", tmp_path / "run"
    kresnets.CifarResNet8(classes=1, classifier_activation="sigmoid", weights=None).save(own)
    given = ("finetune", "--data", folder, "--model", own, "--dtype", "float32")
    recipe = (
        "--pretrained yes --head solved --epochs-per-stage 1 --stages stage3 --augment none --batch-size 16".split()
    )
    assert ask(*given, *recipe, "--out", run) == 0
    assert RunFolder(run).metrics["auc"] is not None and (run / "mistakes.png").stat().st_size > 1000
    image = next(path for path in sorted(pathlib.Path(folder).rglob("*")) if path.is_file())
    capsys.readouterr()
    assert ask("predict", run, image) == 0
    scores = [float(line.split()[-1]) for line in capsys.readouterr().out.splitlines()[1:]]
    assert len(scores) == 2 and sum(scores) == pytest.approx(1, abs=1e-3) and scores[0] >= scores[1]
    for more, sentence in ((("--size", "64"), "takes 32 pixels"), (("--weights", "none"), "brings its own")):
        assert ask(*given, *more, "--out", tmp_path / "other") == 2
        assert sentence in capsys.readouterr().err
