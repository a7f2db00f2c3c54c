"""Oracles of Keras Tuner's made sound: against plain Keras Tuner's own uninterrupted searches and its own reload."""

import collections
import contextlib
import json
import multiprocessing
import multiprocessing.pool
import os
import pathlib
import random
import signal
import socket
import sys
import time

import keras_tuner
import pytest
from keras_tuner.engine.base_tuner import BaseTuner
from keras_tuner.engine.trial import Trial

from kresnets._util.files import write_json
from kresnets.tuning.chief import Worker, heartbeat, serve
from kresnets.tuning.oracle import kind_of, sound
from kresnets.tuning.oracle_storage import WORKER_MARK

SCORE = keras_tuner.Objective("score", "max")


class Halton(keras_tuner.Oracle):
    """A user's own oracle: a state of its own, and `end_trial` overridden, as Keras Tuner's documentation shows."""

    def __init__(self, **arguments):
        super().__init__(**arguments)
        self.place, self.seen = 0, []

    def populate_space(self, trial_id):
        self.place += 1
        values = {"x": (self.place * 0.618) % 1.0, "net": "ab"[self.place % 2]}
        return {"status": "RUNNING", "values": values | ({"depth": self.place % 5} if values["net"] == "b" else {})}

    @keras_tuner.synchronized
    def end_trial(self, trial):
        super().end_trial(trial)
        self.seen.append(trial.trial_id)

    def get_state(self):
        return super().get_state() | {"place": self.place, "seen": self.seen}

    def set_state(self, state):
        super().set_state(state)
        self.place, self.seen = state["place"], state["seen"]


MAKERS = {
    "random": lambda: keras_tuner.oracles.RandomSearchOracle(SCORE, max_trials=6, seed=3),
    "bayesian": lambda: keras_tuner.oracles.BayesianOptimizationOracle(
        SCORE, max_trials=5, seed=3, num_initial_points=2
    ),
    "hyperband": lambda: keras_tuner.oracles.HyperbandOracle(SCORE, max_epochs=4, factor=2, seed=3),
    "grid": lambda: keras_tuner.oracles.GridSearchOracle(SCORE),
    "own": lambda: Halton(objective=SCORE, max_trials=6, seed=3),
}


class Space(keras_tuner.HyperModel):
    def __init__(self, grid=False):
        super().__init__()
        self.grid = grid

    def build(self, hp):
        if not self.grid:
            hp.Float("x", 0.0, 1.0)
        hp.Choice("net", ["a", "b"])
        with hp.conditional_scope("net", ["b"]):
            hp.Int("depth", 0, 4)


class Tuner(BaseTuner):
    """Scores a trial by a formula, and notes each run in a file."""

    def run_trial(self, trial, pause=0.0, fail=()):
        values = trial.hyperparameters.values
        with open(os.path.join(self.project_dir, "runs.log"), "a") as log:
            log.write(f"{trial.trial_id} {os.getpid()}\n")
        with heartbeat(self.oracle, trial.trial_id, every=0.2):
            time.sleep(pause)
        if trial.trial_id in fail:
            raise MemoryError("no room for 3 GiB")
        return {"score": score(values)}


def score(values):
    return values.get("x", 0.5) + 0.1 * values.get("depth", -1) + 0.01 * values.get("tuner/epochs", 0)


def tuner(folder, name="random", plain=False, **options):
    """Return a tuner of the search in a folder, as a process that starts makes it."""
    oracle = MAKERS[name]()
    if not plain:
        sound(oracle, **options)
    made = Tuner(oracle, Space(grid=name == "grid"), directory=str(folder), project_name="search")
    made.oracle.verbose = 0
    return made


def search(folder, name="random", plain=False, **options):
    made = tuner(folder, name, plain, **options)
    with contextlib.redirect_stdout(None):
        made.search()
    return made


def states(folder):
    """Return the trials as their files say."""
    return {
        path.parent.name: json.loads(path.read_text())
        for path in sorted(pathlib.Path(folder, "search").glob("trial_*/trial.json"))
    }


def results(folder):
    """Return (values, status, score) of each trial, from the files."""
    return {
        key: (state["hyperparameters"]["values"], state["status"], state["score"])
        for key, state in states(folder).items()
    }


def runs(folder):
    """Return how often each trial was run."""
    path = pathlib.Path(folder, "search", "runs.log")
    return collections.Counter(line.split()[0] for line in path.read_text().splitlines()) if path.exists() else {}


def plain_reads(folder, name):
    """Assert that plain Keras Tuner reads the folder, and that its lists agree with its trials."""
    oracle = MAKERS[name]()
    oracle._set_project_dir(str(folder), "search")
    oracle.reload()
    assert sorted(oracle.trials) == sorted(oracle.start_order) == sorted(oracle.end_order)
    assert not oracle._retry_queue and not oracle.ongoing_trials
    assert all(trial.status == "COMPLETED" for trial in oracle.trials.values())
    best = oracle.get_best_trials()[0]
    assert best.score == max(trial.score for trial in oracle.trials.values())
    hashes = {oracle._compute_values_hash(trial.hyperparameters.values) for trial in oracle.trials.values()}
    assert hashes <= oracle._tried_so_far


class Killed(BaseException):
    """The process is dead from here on."""


class Deadly:
    """Ends a process at the n-th time that it would change a file, as Python's own audit events tell."""

    left, folder = None, ""

    def __call__(self, event, arguments):
        if self.left is None or event not in ("open", "os.rename", "os.remove"):
            return
        path = arguments[0]
        if not isinstance(path, (str, os.PathLike)) or not str(path).startswith(self.folder):
            return
        if event == "open" and not set("wax+") & set(arguments[1] or ""):
            return
        self.left -= 1
        if self.left < 0:  # also whatever would be written on the way out
            raise Killed


DEADLY = Deadly()
sys.addaudithook(DEADLY)


def killed_at(count, folder, name):
    """Search until the count-th change of a file; return whether it was killed before its end."""
    DEADLY.folder, DEADLY.left = str(folder), count
    try:
        search(folder, name)
        return False
    except Killed:
        return True
    finally:
        DEADLY.left = None


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    """Plain Keras Tuner's own searches, from begin to end."""
    made = {}

    def of(name):
        if name not in made:
            made[name] = tmp_path_factory.mktemp(name)
            search(made[name], name, plain=True)
        return made[name]

    return of


@pytest.mark.parametrize("name", MAKERS)
def test_a_sound_oracle_searches_as_the_plain_one(tmp_path, uninterrupted, name):
    made = search(tmp_path, name)
    assert isinstance(made.oracle, type(MAKERS[name]()))
    assert results(tmp_path) == results(uninterrupted(name))
    assert set(runs(tmp_path).values()) == {1}
    plain_reads(tmp_path, name)


@pytest.mark.parametrize(
    "name",
    # Fitting a Gaussian process makes one slow, many writes the other.
    [pytest.param(name, marks=pytest.mark.everything if name != "grid" else ()) for name in MAKERS],
)
def test_a_kill_at_each_single_write_changes_nothing(tmp_path, uninterrupted, name):
    expected, moment, killed = results(uninterrupted(name)), 0, True
    while killed:
        folder = tmp_path / str(moment)
        killed = killed_at(moment, folder, name)
        done = {key: state for key, state in states(folder).items() if state["status"] == "COMPLETED"}
        before = runs(folder)
        search(folder, name)
        assert results(folder) == expected, moment
        after = states(folder)
        assert all(after[key]["metrics"] == state["metrics"] for key, state in done.items()), moment
        again = {key for key, count in runs(folder).items() if count > 1}
        assert len(again) <= 1 and not again & {key.removeprefix("trial_") for key in done}, moment
        assert sum(runs(folder).values()) <= len(expected) + 1 and before.keys() <= runs(folder).keys()
        assert not list(folder.rglob(".tmp-*"))
        plain_reads(folder, name)
        moment += 7 if name == "bayesian" else 1  # whose searches take most of a second
    assert moment > 40


def test_a_grid_goes_on_after_the_trial_that_the_search_begins_with(tmp_path):
    """Which is none of the grid's, and has no values."""
    trials = list(search(tmp_path / "whole", "grid", begins=True).oracle.trials.values())
    assert [trial.hyperparameters.values for trial in trials[:3]] == [
        {"tuner/default": True},
        {"net": "a"},
        {"net": "b", "depth": 0},
    ]
    for moment in (21, 47, 73):
        DEADLY.folder, DEADLY.left = str(tmp_path / str(moment)), moment
        with pytest.raises(Killed):
            search(tmp_path / str(moment), "grid", begins=True)
        DEADLY.left = None
        search(tmp_path / str(moment), "grid", begins=True)
        assert results(tmp_path / str(moment)) == results(tmp_path / "whole")


@pytest.mark.parametrize("name", ["random", "grid", "hyperband"])
def test_a_folder_that_plain_keras_tuner_left_half_done(tmp_path, uninterrupted, name):
    """Killed in its two bad places: before oracle.json knows of an end, and while it still says "ongoing" (#835)."""
    for place in ("_save_trial", "save"):
        folder, made = tmp_path / place, tuner(tmp_path / place, name, plain=True)
        original = getattr(made.oracle, place)

        def deadly(*arguments, original=original, oracle=made.oracle):
            original(*arguments)
            if len(oracle.end_order) == 3:
                raise Killed

        setattr(made.oracle, place, deadly)
        with pytest.raises(Killed):
            made.search()
        search(folder, name)
        assert set(runs(folder).values()) == {1}
        ours, theirs = results(folder), results(uninterrupted(name))
        assert sorted(map(str, ours.values())) == sorted(map(str, theirs.values()))
        plain_reads(folder, name)


def test_half_a_file_and_a_lost_folder(tmp_path):
    made = tuner(tmp_path)
    for _ in range(3):
        trial = made.oracle.create_trial("tuner0")
        made.oracle.update_trial(trial.trial_id, {"score": 1.0})
        trial.status = "COMPLETED"
        made.oracle.end_trial(trial)
    made.save()
    folder = tmp_path / "search"
    (folder / "trial_1" / "trial.json").unlink()
    (folder / "trial_2" / "trial.json").write_text('{"trial')
    (folder / "tuner0.json").write_text("")
    again = search(tmp_path)
    # Six trials in all, of which two count as failed: no id came twice, and the first is as it was.
    assert sorted(again.oracle.trials) == list("012345")
    assert [again.oracle.trials[key].status for key in "012"] == ["COMPLETED", "FAILED", "FAILED"]
    assert runs(tmp_path) == {"3": 1, "4": 1, "5": 1}
    (folder / "oracle.json").write_text('{"half')
    with pytest.raises(ValueError, match=r"oracle\.json cannot be read .* take another folder, or overwrite this one"):
        tuner(tmp_path)


def test_trials_of_a_lost_oracle_json_are_none_of_the_search_and_stay(tmp_path, caplog):
    search(tmp_path)
    (tmp_path / "search" / "oracle.json").unlink()
    (tmp_path / "search" / "tuner0.json").unlink()
    assert len(search(tmp_path).oracle.trials) == 6 and set(runs(tmp_path).values()) == {2}
    assert caplog.text.count("oracle.json does not know") == 6
    assert len(list(tmp_path.rglob("trial.json.unknown"))) == 6


def test_another_oracle_is_told(tmp_path):
    search(tmp_path)
    with pytest.raises(ValueError, match="begun with RandomSearchOracle, not with HyperbandOracle"):
        tuner(tmp_path, "hyperband")


def test_the_command_holds_over_what_the_search_was_begun_with(tmp_path):
    """Keras Tuner takes the old arguments from oracle.json without a word (#803, #234)."""
    search(tmp_path / "a", "hyperband")
    before = results(tmp_path / "a")
    oracle = sound(keras_tuner.oracles.HyperbandOracle(SCORE, max_epochs=4, factor=2, hyperband_iterations=2, seed=3))
    oracle.verbose = 0
    Tuner(oracle, Space(), directory=str(tmp_path / "a"), project_name="search").search()
    after = results(tmp_path / "a")
    assert before.items() < after.items()
    assert len(after) > len(before) + 2
    oracle = sound(keras_tuner.oracles.HyperbandOracle(SCORE, max_epochs=9, factor=2, seed=3))
    made = Tuner(oracle, Space(), directory=str(tmp_path / "a"), project_name="search")
    assert made.get_best_hyperparameters()  # to look is no harm
    with pytest.raises(ValueError, match="begun with max_epochs=4, not 9, .* give that, or take another folder"):
        made.search()
    search(tmp_path / "b", "bayesian")
    oracle = sound(keras_tuner.oracles.BayesianOptimizationOracle(SCORE, max_trials=5, beta=9.0))
    Tuner(oracle, Space(), directory=str(tmp_path / "b"), project_name="search").save()
    assert json.loads((tmp_path / "b" / "search" / "oracle.json").read_text())["beta"] == 9.0


def test_to_look_disturbs_nothing(tmp_path):
    made = tuner(tmp_path)
    made.oracle.create_trial("tuner0")
    made.save()
    before = {path: path.read_bytes() for path in tmp_path.rglob("*.json")}
    for _ in range(5):
        assert len(tuner(tmp_path).oracle.trials) == 1
    assert {path: path.read_bytes() for path in tmp_path.rglob("*.json")} == before
    assert search(tmp_path).oracle.trials["0"].status == "COMPLETED"


def test_a_search_killed_in_its_first_trial_is_gone_on_with_by_any_process(tmp_path):
    """Keras Tuner reads the state only where a file of the same tuner's name lies, else it writes over it (#976)."""
    first = tuner(tmp_path).oracle.create_trial("somebody")
    assert not (tmp_path / "search" / "tuner0.json").exists()
    again = tuner(tmp_path).oracle.create_trial("tuner0")
    assert (again.trial_id, again.hyperparameters.values) == (first.trial_id, first.hyperparameters.values)


def test_three_deaths_under_one_trial_make_it_a_failure(tmp_path):
    for _ in range(3):
        assert tuner(tmp_path).oracle.create_trial("tuner0").trial_id == "0"
    search(tmp_path)
    state = states(tmp_path)["trial_0"]
    assert state["status"] == "FAILED"
    assert state["message"] == "Killed: the process ended while this trial ran, 3 times: out of memory?"
    assert runs(tmp_path) == dict.fromkeys("12345", 1)


def test_what_is_given_back_is_no_death(tmp_path):
    for _ in range(5):
        made = tuner(tmp_path)
        trial = made.oracle.create_trial("tuner0")
        assert trial.trial_id == "0"
        made.oracle.give_back("0")
    search(tmp_path)
    assert [state["status"] for state in states(tmp_path).values()] == ["COMPLETED"] * 6


def test_a_kind_of_failure_in_a_row_stops_the_search(tmp_path):
    made = tuner(tmp_path)
    made.search(fail=["1", "2", "3"])
    said = json.loads((tmp_path / "search" / "oracle.json").read_text())["kresnets"]["stopped_because"]
    assert said == made.oracle.stopped_because
    assert said.startswith("The search stopped since 3 trials in a row failed in the same way")
    assert "MemoryError: no room for 3 GiB" in said
    assert [state["status"] for state in states(tmp_path).values()] == ["COMPLETED", *["FAILED"] * 3]
    # One who looks sees why; who searches again goes on, and the failed ones stay failed.
    assert tuner(tmp_path).oracle.stopped_because == said
    again = search(tmp_path)
    assert again.oracle.stopped_because is None
    assert [state["status"] for state in states(tmp_path).values()] == [
        "COMPLETED",
        *["FAILED"] * 3,
        *["COMPLETED"] * 2,
    ]
    assert runs(tmp_path) == dict.fromkeys("012345", 1)


def fail(oracle, message):
    trial = oracle.create_trial("tuner0")
    trial.status, trial.message = "FAILED", message
    oracle.end_trial(trial)


def test_failures_of_different_kinds_do_not_stop_it(tmp_path):
    oracle = tuner(tmp_path).oracle
    for message in ["NaN: at epoch 1.", "MemoryError: a", "NaN: at epoch 2.", "NaN: at epoch 3."]:
        fail(oracle, message)
    assert oracle.stopped_because is None
    fail(oracle, "NaN: at epoch 4.")
    assert "'NaN: at epoch 4'" in oracle.stopped_because
    assert oracle.create_trial("tuner0").status == "STOPPED"


def test_kinds_of_messages():
    traceback = (
        'Traceback (most recent call last):\n  File "a.py", line 1, in f\n    raise g()\n'
        "keras_tuner.src.errors.FailedTrialError: Oversized model: 3\nAnd: more\n"
    )
    assert kind_of(traceback) == "FailedTrialError"
    assert kind_of("NaN: the loss: nan") == "NaN"
    assert kind_of("") == kind_of(None) == "unknown"


def test_a_score_that_is_no_number_or_is_missing(tmp_path):
    oracle = tuner(tmp_path).oracle
    oracle.max_retries_per_trial = 1
    trial = oracle.create_trial("tuner0")
    oracle.update_trial(trial.trial_id, {"score": float("nan")})
    trial.status = "COMPLETED"
    oracle.end_trial(trial)
    assert states(tmp_path)["trial_0"]["status"] == "INVALID"
    # The second run's result counts, not the mean with the first one's.
    again = oracle.create_trial("tuner0")
    assert again.trial_id == "0"
    oracle.update_trial("0", {"score": 0.5})
    again.status = "COMPLETED"
    oracle.end_trial(again)
    assert states(tmp_path)["trial_0"]["score"] == 0.5
    trial = oracle.create_trial("tuner0")
    trial.status = "COMPLETED"
    oracle.end_trial(trial)
    assert states(tmp_path)["trial_1"]["message"].startswith("NoScore: Unknown metric: score")


def test_an_exception_leaves_the_oracle_open(tmp_path):
    oracle = tuner(tmp_path).oracle
    with pytest.raises(ValueError, match="Objective value missing"):
        oracle.update_trial(oracle.create_trial("tuner0").trial_id, {"other": 1.0})
    with pytest.raises(ValueError, match="Trial 77 ended, which is none of this search"):
        oracle.end_trial(Trial(oracle.get_space(), trial_id="77", status="COMPLETED"))
    with multiprocessing.pool.ThreadPool(1) as pool:
        assert pool.apply_async(oracle.create_trial, ["another"]).get(timeout=10).trial_id == "1"


def test_a_small_space_is_tried_whole(tmp_path):
    """24 combinations, of which plain Keras Tuner leaves some out (#596)."""

    class Small(keras_tuner.HyperModel):
        def build(self, hp):
            hp.Choice("a", list(range(6))), hp.Choice("b", list(range(4)))

    tried = {}
    for name, wrap in (("plain", lambda oracle: oracle), ("sound", sound)):
        oracle = wrap(keras_tuner.oracles.RandomSearchOracle(SCORE, max_trials=30, seed=1))
        oracle.verbose = 0
        Tuner(oracle, Small(), directory=str(tmp_path), project_name=name).search()
        tried[name] = {tuple(trial.hyperparameters.values.values()) for trial in oracle.trials.values()}
    assert len(tried["sound"]) == len(oracle.trials) == 24 > len(tried["plain"])


@pytest.mark.parametrize("name", ["random", "hyperband"])  # of a Gaussian process: `test_reseed`
def test_seed_0_is_a_seed(tmp_path, name):
    values = []
    for number in range(2):
        oracle = sound(MAKERS[name](), seed=0)
        oracle.verbose = 0
        Tuner(oracle, Space(), directory=str(tmp_path), project_name=str(number)).search()
        values.append([trial.hyperparameters.values for trial in oracle.trials.values()])
    assert oracle.seed == 0
    assert values[0] == values[1]


def test_the_hook_follows_each_end_and_hurts_nothing(tmp_path, caplog):
    seen = []

    def hook(oracle):
        state = json.loads((tmp_path / "search" / "oracle.json").read_text())
        with multiprocessing.pool.ThreadPool(1) as pool:  # not locked: another thread gets in
            seen.append((len(state["end_order"]), pool.apply_async(oracle.is_over).get(timeout=10)))
        raise RuntimeError("no paper")

    search(tmp_path, on_change=hook)
    assert [count for count, _ in seen] == [1, 2, 3, 4, 5, 6]
    assert caplog.text.count("RuntimeError: no paper") == 6


@pytest.mark.parametrize(
    "arguments, message",
    [
        ({"oracle": "random"}, "The oracle was 'random'; it has to be an instance"),
        ({"failures": 0}, "failures was 0"),
        ({"deadline": 0}, "deadline 0"),
        ({"seed": -1}, "seed was -1"),
        ({"seed": True}, "seed was True"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        sound(**({"oracle": MAKERS["random"]()} | arguments))


def test_sound_twice_is_sound_once():
    oracle = sound(MAKERS["random"]())
    kind = type(oracle)
    assert type(sound(oracle, failures=5)) is kind


# Many machines. The processes are forked from one that has imported everything, which costs seconds else.


def _chief(folder, port, name, deadline):
    os.environ |= {"KERASTUNER_ORACLE_IP": "127.0.0.1", "KERASTUNER_ORACLE_PORT": str(port)}
    os.environ["KERASTUNER_TUNER_ID"] = "chief"
    made = tuner(folder, name, deadline=deadline)
    made.save()
    serve(made.oracle, pause=0.05, linger=0.5)


def _worker(folder, port, name, number, pause):
    os.environ |= {"KERASTUNER_ORACLE_IP": "127.0.0.1", "KERASTUNER_ORACLE_PORT": str(port)}
    os.environ["KERASTUNER_TUNER_ID"] = f"worker{number}"
    oracle = sound(MAKERS[name]())
    made = Tuner(oracle, Space(grid=name == "grid"), directory=str(folder), project_name="search")
    oracle.verbose = 0
    made.oracle = Worker(oracle, first=60.0, again=30.0, idle=0.05)
    made.search(pause=pause)


def _single(folder, name, pause):
    made = tuner(folder, name, kills=1000)
    made.search(pause=pause)


@pytest.fixture(scope="module")
def fork():
    """Return a function that starts a process, and end all at the end."""
    context, started = multiprocessing.get_context("forkserver"), []
    # Not this file: the forkserver's path lacks tests/, and what it cannot import it passes over without a word.
    context.set_forkserver_preload(["keras_tuner", "kresnets.tuning.chief"])

    def start(target, *arguments):
        process = context.Process(target=target, args=arguments, daemon=True)
        process.start()
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.join()


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def until(condition, seconds=60):
    begun = time.monotonic()
    while not condition():
        assert time.monotonic() - begun < seconds, "it did not come to that"
        time.sleep(0.02)


def ended(folder):
    path = pathlib.Path(folder, "search", "oracle.json")
    return len(json.loads(path.read_text())["end_order"]) if path.exists() else 0


@pytest.mark.always("grid")
@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["random", "grid", *(pytest.param(name, marks=pytest.mark.everything) for name in ("hyperband", "own"))]
)
def test_chief_and_workers_of_whom_some_die(tmp_path, uninterrupted, fork, name):
    port, expected = free_port(), results(uninterrupted(name))
    chief = fork(_chief, tmp_path, port, name, 3.0)
    workers = [fork(_worker, tmp_path, port, name, number, 0.3) for number in range(3)]
    until(lambda: ended(tmp_path) >= 1)
    # Which alone may have had time to work so far
    first = int((tmp_path / "search" / "runs.log").read_text().split()[1])
    (killed,) = (worker for worker in workers if worker.pid == first)
    killed.kill()
    workers.append(fork(_worker, tmp_path, port, name, 3, 0.3))
    until(lambda: ended(tmp_path) >= 2)
    chief.kill()
    chief.join()
    time.sleep(0.5)
    chief = fork(_chief, tmp_path, port, name, 3.0)
    for process in [chief, *(worker for worker in workers if worker is not killed)]:
        process.join(60)
        assert process.exitcode == 0
    assert len(results(tmp_path)) == len(expected)
    if (
        name in ("random", "grid")
        # The others' later trials depend on the order in which the earlier ones end, or on nothing but the number of
        # calls
    ):
        assert sorted(map(str, results(tmp_path).values())) == sorted(map(str, expected.values()))
    assert all(state["score"] == score(state["hyperparameters"]["values"]) for state in states(tmp_path).values())
    # Twice ran at most what the dead worker had.
    assert sum(runs(tmp_path).values()) <= len(expected) + 1
    assert len({line.split()[1] for line in (tmp_path / "search" / "runs.log").read_text().splitlines()}) >= 2
    plain_reads(tmp_path, name)


def test_a_worker_without_a_chief(tmp_path, monkeypatch):
    """It leaves where the folder says that the search is over; else it waits for a while, and says so."""
    made = search(tmp_path)
    made.oracle.finish()
    monkeypatch.setenv("KERASTUNER_ORACLE_IP", "127.0.0.1")
    monkeypatch.setenv("KERASTUNER_ORACLE_PORT", str(free_port()))
    monkeypatch.setenv("KERASTUNER_TUNER_ID", "worker9")
    worker = Worker(made.oracle)
    worker.stub._met = True
    assert worker.create_trial("worker9").status == "STOPPED"
    oracle = sound(MAKERS["random"]())
    oracle._set_project_dir(str(tmp_path), "none")
    with pytest.raises(ConnectionError, match="No chief answered at 127.0.0.1:.* start it"):
        Worker(oracle, first=0.1).get_trial("0")


def test_two_chiefs_at_one_port(tmp_path, monkeypatch):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        monkeypatch.setenv("KERASTUNER_ORACLE_IP", "127.0.0.1")
        monkeypatch.setenv("KERASTUNER_ORACLE_PORT", str(taken.getsockname()[1]))
        with pytest.raises(OSError, match="cannot listen at 127.0.0.1:.*: another one does"):
            serve(sound(MAKERS["random"]()))


@pytest.fixture
def as_chief(monkeypatch):
    monkeypatch.setenv("KERASTUNER_ORACLE_IP", "127.0.0.1")
    monkeypatch.setenv("KERASTUNER_ORACLE_PORT", "1")
    monkeypatch.setenv("KERASTUNER_TUNER_ID", "chief")


def end(oracle, trial, value):
    oracle.update_trial(trial.trial_id, {"score": value})
    copy = Trial(trial.hyperparameters, trial_id=trial.trial_id, status="COMPLETED")
    oracle.end_trial(copy)


def test_the_first_result_counts(tmp_path, as_chief):
    """A worker thought dead, and the one that repeated its trial, both end it, in both orders, and while it waits."""
    oracle = tuner(tmp_path, deadline=0.05).oracle
    dead, other = f"a{WORKER_MARK}1", f"b{WORKER_MARK}2"
    trial = oracle.create_trial(dead)
    time.sleep(0.1)
    repeated = oracle.create_trial(other)
    assert repeated.trial_id == trial.trial_id
    end(oracle, trial, 0.25)
    end(oracle, repeated, 0.75)
    assert states(tmp_path)["trial_0"]["score"] == 0.25
    waiting = oracle.create_trial(dead)
    time.sleep(0.1)
    oracle.forget_silent()
    assert oracle._retry_queue == [waiting.trial_id] and not oracle.tuner_ids
    end(oracle, waiting, 0.5)
    assert oracle.create_trial(other).trial_id == "2"
    assert oracle.end_order == ["0", "1"] and oracle._run_times == {"0": 1, "1": 1}


def test_signs_of_life_keep_a_worker(tmp_path, as_chief):
    oracle = tuner(tmp_path, deadline=0.2).oracle
    trial = oracle.create_trial(f"a{WORKER_MARK}1")
    plain = oracle.create_trial("a-worker-of-plain-keras-tuner")
    for _ in range(5):
        time.sleep(0.08)
        oracle.get_trial(trial.trial_id)
        oracle.forget_silent()
    assert {held.trial_id for held in oracle.ongoing_trials.values()} == {trial.trial_id, plain.trial_id}


def test_nobody_leaves_while_a_trial_may_come_back(tmp_path, as_chief):
    oracle = tuner(tmp_path, deadline=0.1).oracle
    oracle.max_trials = 1
    dead, other = f"a{WORKER_MARK}1", f"b{WORKER_MARK}2"
    oracle.create_trial(dead)
    assert oracle.create_trial(other).status == "IDLE"
    time.sleep(0.15)
    again = oracle.create_trial(other)
    assert (again.trial_id, again.status) == ("0", "RUNNING")
    end(oracle, again, 1.0)
    assert not oracle.is_over()
    assert oracle.create_trial(other).status == "STOPPED"
    assert oracle.is_over()


def test_the_reason_comes_from_the_folder(tmp_path, as_chief):
    oracle = tuner(tmp_path).oracle
    trial = oracle.create_trial(f"a{WORKER_MARK}1")
    write_json(tmp_path / "search" / "trial_0" / "record.json", {"reason": "MemoryError: 3 GiB."})
    oracle.end_trial(Trial(trial.hyperparameters, trial_id="0", status="FAILED"))
    assert states(tmp_path)["trial_0"]["message"] == "MemoryError: 3 GiB."


def kill_nine(folder, fork, name, kills, chance):
    done = 0
    while done < kills:
        process = fork(_single, folder, name, 0.02)
        process.join(chance.uniform(0.05, 0.5))
        if process.exitcode is None:
            os.kill(process.pid, signal.SIGKILL)
            process.join()
            done += 1
        elif process.exitcode == 0:
            break
    return done


@pytest.mark.parametrize(
    "name, kills", [("random", 3), *(pytest.param(name, 20, marks=pytest.mark.everything) for name in MAKERS)]
)
def test_kill_nine(tmp_path, uninterrupted, fork, name, kills):
    chance, total, folder = random.Random(1), 0, tmp_path / "0"
    while total < kills:
        folder = tmp_path / str(total)
        total += kill_nine(folder, fork, name, kills - total, chance)
        fork(_single, folder, name, 0.0).join(60)
        assert results(folder) == results(uninterrupted(name))
        plain_reads(folder, name)
