"""apps/claims.py: what is measured is kept, statistics are scipy's, quick claims hold what is true by construction."""

import functools
import importlib.util
import json
import pathlib
import subprocess
import sys
import time
import types

import claims
import numpy as np
import pytest
from claims import cifar10, pictures, rates, results, runner, training, verdicts
from claims.claim import Claim, Finding, Options
from places import APPS
from quick_claims import run as quick
from scipy import stats


def _app():
    spec = importlib.util.spec_from_file_location("claims_app", APPS / "claims.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


# A claim of numbers, to see what the runner does with it.


@pytest.fixture
def numbers(monkeypatch):
    measured = []

    def measure(setting):
        measured.append(setting)
        return [{"value": np.float32(setting["x"] ** 2)}]

    def settings(options, rows):
        first = [{"x": x, "seed": 0} for x in range(4)]
        found = [row["value"] for row in rows if row["x"] < 4]
        return first + [{"x": 10 + int(max(found)), "seed": 0}] if found else first

    module = types.ModuleType("claims.numbers")
    module.CLAIM = Claim(
        title="squares grow",
        source="none",
        settings=settings,
        measure=measure,
        findings=lambda options, rows: [Finding(claim="It grows.", verdict="confirmed", numbers=f"{len(rows)} rows.")],
        draw=lambda options, rows, path: path.write_bytes(b"picture"),
    )
    monkeypatch.setitem(sys.modules, "claims.numbers", module)
    monkeypatch.setitem(claims.NAMES, "numbers", "numbers")
    return types.SimpleNamespace(claim=module.CLAIM, measured=measured, module=module)


def test_a_second_phase_depends_on_the_first_and_equal_settings_run_once(numbers, tmp_path):
    lines = []
    runner.run("numbers", Options(), tmp_path / "n", 1, lines.append)
    assert [setting["x"] for setting in numbers.measured] == [0, 1, 2, 3, 19]
    assert (tmp_path / "n" / "results.csv").read_text().splitlines()[-1] == "19,0,361.0"
    assert "left" in lines[1] and lines[0].startswith("4 runs to go")
    runner.run("numbers", Options(), tmp_path / "n", 1, lines.append)
    assert len(numbers.measured) == 5


def test_what_was_finished_survives_an_interruption(numbers, tmp_path, monkeypatch):
    folder = tmp_path / "n"
    measure = numbers.claim.measure
    stopping = types.SimpleNamespace(after=2)

    def interrupted(setting):
        if len(numbers.measured) == stopping.after:
            raise KeyboardInterrupt
        return measure(setting)

    import dataclasses

    monkeypatch.setattr(numbers.module, "CLAIM", dataclasses.replace(numbers.claim, measure=interrupted))
    with pytest.raises(KeyboardInterrupt):
        runner.run("numbers", Options(), folder, 1, lambda line: None)
    assert not (folder / "results.csv").exists() and len(list((folder / "done").iterdir())) == 2
    # A half-written file, one of another setting and one that is no run count as missing.
    kept = sorted((folder / "done").iterdir())
    kept[0].write_text(kept[0].read_text()[:20])
    (folder / "done" / "0123.json").write_text(json.dumps({"setting": {"x": 1}, "rows": [{}], "seconds": 1}))
    (folder / "done" / "4567.json").write_text("[]")
    stopping.after = None
    runner.run("numbers", Options(), folder, 1, lambda line: None)
    assert len(numbers.measured) == 2 + 4  # two before; of those one again, and three more


def test_two_processes_do_not_share_a_folder(numbers, tmp_path, monkeypatch):
    from kresnets._util import files

    monkeypatch.setattr(files, "alone_in", functools.partial(files.alone_in, seconds=0))
    with files.only_writer(tmp_path / "n"), pytest.raises(ValueError, match="Another process"):
        runner.run("numbers", Options(), tmp_path / "n", 1, lambda line: None)


@pytest.mark.everything
def test_workers_measure_the_same_as_this_process(tmp_path):
    # Real ones, started anew: they find the claim by its name. Degradation's first setting, a network of 20 layers.
    setting = claims.find("degradation").settings(Options(quick=True), [])[0] | {"epochs": 1}
    with runner._workers(2) as measure:
        ((_, rows, seconds),) = measure("degradation", [setting], str(tmp_path))
    assert rows[-1]["epoch"] == 1 and seconds > 0
    _, here, _ = runner._measured("degradation", setting, str(tmp_path))
    # A thread more adds up in another order, which a rising rate soon makes more of.
    assert abs(rows[-1]["loss"] - here[-1]["loss"]) < 0.1


@pytest.mark.everything
def test_a_kill_ends_the_workers_and_the_same_command_goes_on(tmp_path):
    command = [sys.executable, str(APPS / "claims.py"), "shortcuts", "--quick", "--jobs", "2", "--out", str(tmp_path)]
    done = tmp_path / "shortcuts-quick" / "done"
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    until(lambda: done.is_dir() and any(done.glob("*.json")), 120)
    workers = subprocess.run(["pgrep", "-P", str(process.pid)], capture_output=True, text=True).stdout.split()
    process.kill()
    process.wait()
    until(lambda: not any(pathlib.Path(f"/proc/{worker}/fd/0").exists() for worker in workers), 10)
    kept = {path: path.stat().st_mtime_ns for path in done.glob("*.json")}
    assert len(workers) >= 2 and 0 < len(kept) < 4
    assert subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=120).returncode == 0
    assert len(list(done.glob("*.json"))) == 4
    assert {path: path.stat().st_mtime_ns for path in kept} == kept


def until(holds, seconds):
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.05)


# Statistics.


def test_an_interval_is_the_wider_one_of_scipys_bootstrap_and_students():
    values = np.array([0.3, 0.1, 0.25, 0.4, 0.2])
    found = verdicts.interval(values)
    student = stats.t.interval(0.95, 4, values.mean(), stats.sem(values))
    bootstrap = stats.bootstrap((values,), np.mean, n_resamples=9999, method="percentile", rng=0).confidence_interval
    assert found.low == pytest.approx(min(student[0], bootstrap.low))
    assert found.high == pytest.approx(max(student[1], bootstrap.high))
    assert found.low < bootstrap.low  # of so few the bootstrap alone would promise too much


def test_differences_are_paired_by_seed():
    # Seeds differ by far more than the two do: unpaired nothing could be told.
    ones, others = {seed: 10.0**seed + 1 for seed in range(5)}, {seed: 10.0**seed for seed in range(4)}
    found = verdicts.paired(ones, others)
    assert found.values == (1.0,) * 4 and verdicts.above(found) == verdicts.CONFIRMED


@pytest.mark.parametrize(
    "values, least, verdict",
    [
        ([1.0, 1.1, 0.9, 1.0], 0.0, "confirmed"),
        ([-1.0, -1.1, -0.9], 0.0, "not confirmed"),
        ([1.0, 1.1, 0.9], 2.0, "not confirmed"),
        ([1.0, -1.0, 0.5], 0.0, "not decidable here"),
        ([1.0, 1.1], 0.0, "not decidable here"),
        ([5.0], 0.0, "not decidable here"),
        ([], 0.0, "not decidable here"),
    ],
)
def test_a_verdict_needs_three_seeds_and_the_whole_interval(values, least, verdict):
    assert verdicts.above(verdicts.interval(values), least) == verdict


def test_what_is_said_of_each_holds_for_each():
    sure, lost, unsure = (verdicts.interval(values) for values in ((1, 1.1, 0.9), (-1, -1.1, -0.9), (1, -1, 0.5)))
    assert verdicts.everywhere([sure, sure]) == verdicts.CONFIRMED
    assert verdicts.everywhere([sure, unsure]) == verdicts.UNDECIDED
    assert verdicts.everywhere([unsure, lost, sure]) == verdicts.NOT_CONFIRMED


def test_the_text_tells_what_was_learned_from_and_which_seeds_are_compared(numbers):
    settings = [{"data": "digits", "rate": rate, "seed": results.TUNING_SEED} for rate in (0.1, 0.3)]
    settings += [{"data": "digits", "rate": 0.3, "seed": seed} for seed in range(3)]
    text = runner.to_text("numbers", numbers.claim, Options(), [], settings, 60.0)
    assert "5 runs with 3 seeds and one more to choose by; data: digits; rate: 0.1, 0.3. 1.0 minutes" in text


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 cut off", b"none"])
def test_a_damaged_copy_of_cifar10_is_brought_again(content, tmp_path, monkeypatch):
    brought = tuple(np.full(2, number) for number in range(4))
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    monkeypatch.setattr(cifar10, "_brought", lambda: brought)
    (tmp_path / "datasets").mkdir()
    (tmp_path / "datasets" / "cifar10.npz").write_bytes(content)
    for _ in range(2):
        for one, other in zip(cifar10.cifar10(), brought, strict=True):
            np.testing.assert_array_equal(one, other)
        monkeypatch.setattr(cifar10, "_brought", lambda: pytest.fail("it is kept"))
    assert [path.name for path in (tmp_path / "datasets").iterdir()] == ["cifar10.npz"]


def test_chance_alone_is_rarely_confirmed():
    random = np.random.default_rng(0)
    confirmed = [verdicts.above(verdicts.interval(random.normal(size=5))) == verdicts.CONFIRMED for _ in range(60)]
    assert np.mean(confirmed) < 0.09


# Rates, pictures, training.


def test_each_network_gets_its_own_best_rate_by_a_seed_that_is_not_compared():
    networks = [{"kind": "a"}, {"kind": "b"}]
    trials = rates.tuned(networks, (0.1, 1.0), 3, [])
    assert len(trials) == 4 and {setting["seed"] for setting in trials} == {results.TUNING_SEED}
    losses = {("a", 0.1): 1.0, ("a", 1.0): 2.0, ("b", 0.1): 2.0, ("b", 1.0): 1.0}
    rows = [setting | {"train_loss": losses[setting["kind"], setting["rate"]]} for setting in trials]
    settings = rates.tuned(networks, (0.1, 1.0), 3, rows)[4:]
    assert {(s["kind"], s["rate"]) for s in settings} == {("a", 0.1), ("b", 1.0)} and len(settings) == 6
    assert results.of(rows, "train_loss", kind="a") == {}


@pytest.mark.parametrize("name", ["digits", pytest.param("patches", marks=pytest.mark.slow)])
def test_pictures_have_two_parts_that_share_nothing(name):
    data = pictures.pictures(name, 8)
    seen = {image.tobytes() for image in data.train}
    shared = np.mean([image.tobytes() in seen for image in data.test])
    assert shared < 0.01 and abs(data.train.mean()) < 1e-3
    for labels in (data.train_labels, data.test_labels):
        assert set(labels) == set(range(data.classes))


def test_the_papers_augmentation_keeps_pixels():
    images = np.arange(2 * 8 * 8 * 3, dtype="float32").reshape(2, 8, 8, 3) + 1
    made = training.shifted_and_mirrored(images, np.random.default_rng(0))
    assert made.shape == images.shape
    for one, other in zip(made, images):
        assert set(one[one > 0].tolist()) <= set(other.ravel().tolist())


def test_rates_follow_the_paper_and_a_cosine():
    paper = training.Paper()
    assert [round(paper.rate(epoch), 6) for epoch in (0, 81, 83, 130)] == [0.1, 0.1, 0.01, 0.001]
    cosine = training.Cosine(0.2, 10)
    assert cosine.rate(1) > 0.19 and cosine.rate(5) == pytest.approx(0.1) and cosine.rate(10) == pytest.approx(0)


# The claims.


def test_every_claim_can_be_listed(capsys):
    assert _app().main(["list"]) == 0
    listed = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in listed] == list(claims.NAMES)


@pytest.mark.parametrize(
    "arguments, sentence",
    [
        (["degradtion"], "There is no claim 'degradtion'"),
        (["all", "degradation"], "stand alone"),
        (["degradation", "--data", "imagenet", "--quick"], "--data must be one of"),
        (["degradation", "--publish", "x", "--quick"], "leave one of them out"),
        (["degradation", "--recipe", "paper", "--quick"], "leave one of them out"),
        (["identity", "--recipe", "paper"], "identity has no --recipe paper"),
        (["freeze-or-finetune", "--data", "cifar10"], "--data must be one of imagenet"),
        (["head-first", "--data", "digits"], "--data must be one of imagenet, open_nsfw"),
        (["variants", "--data", "patches"], "--data cannot be chosen"),
    ],
)
def test_bad_input_gets_a_sentence(arguments, sentence, tmp_path):
    with pytest.raises(ValueError, match=sentence):
        _app().main([*arguments, "--out", str(tmp_path)])


@pytest.mark.everything
def test_degradation(tmp_path):
    findings, rows, _ = quick("degradation", tmp_path / "d")
    ends = {(row["kind"], row["depth"]): row["train_loss"] for row in rows if "train_loss" in row}
    # With these seeds the margin is 2 nats: a plain network of 56 layers has learned next to nothing.
    assert ends["plain", 56] > ends["plain", 20] + 0.5
    assert ends["residual", 56] < ends["plain", 56] - 0.5
    assert {found.verdict for found in findings} == {verdicts.UNDECIDED}  # one seed proves nothing


@pytest.mark.everything
@pytest.mark.slow
def test_shortcuts(tmp_path):
    findings, rows, _ = quick("shortcuts", tmp_path / "s")
    parameters = {row["kind"]: row["parameters"] for row in rows}
    # By hand, 8 layers: B projects 16 to 32 and 32 to 64 channels with a norm each; C also 16 to 16 in the first stage.
    assert parameters["A"] == parameters["plain"]
    assert parameters["B"] - parameters["A"] == 16 * 32 + 2 * 32 + 32 * 64 + 2 * 64
    assert parameters["C"] - parameters["B"] == 16 * 16 + 2 * 16
    assert findings[0].verdict == verdicts.CONFIRMED


@pytest.mark.everything
@pytest.mark.slow
def test_preactivation(tmp_path):
    _, rows, _ = quick("preactivation", tmp_path / "p")
    assert {row["kind"] for row in rows} == {"v1", "v2"} and {row["depth"] for row in rows} == {8, 20}
    from claims.preactivation import spec

    import kresnets

    built = [kresnets.build(row, classes=10) for row in (spec("v2", 110), kresnets.SPECS["CifarResNet110V2"])]
    assert [layer.name for layer in built[0].layers] == [layer.name for layer in built[1].layers]


@pytest.mark.slow
def test_identity(tmp_path):
    findings, rows, _ = quick("identity", tmp_path / "i")
    assert [found.verdict for found in findings[:2]] == [verdicts.CONFIRMED] * 2
    assert findings[3].verdict == verdicts.CONFIRMED  # a plain network forgets all
    # Equal computing: no way spends more than the deepest network's epochs.
    assert all(row["compute"] <= 1 + 1e-9 for row in rows if row["part"] == "train")
    starts = [row for row in rows if row["part"] == "start"]
    assert {row["zero_gamma"] for row in starts} == {True, False}
    # With zero-gamma the last norm's gamma and beta get a gradient, so no block is without one.
    assert all(row["gradient"] > 0 for row in starts)
