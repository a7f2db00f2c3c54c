"""What `kresnets.tuning` touches within Keras Tuner 1.4.8, name by name, and what it mends there, fault by fault.

Where one of the first half fails, Keras Tuner has moved a name, and `keras_tuner_hooks.py` has to follow. Where one of
the second half fails, Keras Tuner has mended a fault, and its repair may go.
"""

import contextlib
import math
import os
import re
import shutil
import threading
from concurrent import futures

import grpc
import keras
import keras_tuner
import pytest
import test_oracle as t
from keras_tuner.engine.trial import Trial
from keras_tuner.src import config
from keras_tuner.src.engine import conditions
from places import ROOT

from kresnets.tuning import keras_tuner_hooks as hooks

TUNING = sorted((ROOT / "kresnets" / "tuning").glob("*.py"))


@pytest.fixture
def plain(tmp_path):
    """Return a function that makes a tuner of plain Keras Tuner's, as a process that starts does."""
    return lambda name="random": t.tuner(tmp_path, name, plain=True)


def run(oracle, value=1.0, tuner_id="tuner0"):
    """Run one trial."""
    trial = oracle.create_trial(tuner_id)
    oracle.update_trial(trial.trial_id, {"score": value})
    trial.status = "COMPLETED"
    oracle.end_trial(trial)
    return trial


# Names.


@pytest.mark.parametrize("path", TUNING, ids=lambda path: path.stem)
def test_one_file_knows_them(path):
    if path.stem == "keras_tuner_hooks":
        return
    own = [made() for made in t.MAKERS.values()]
    classes = [hooks.OracleClient, hooks.OracleServicer, keras_tuner.Tuner, keras_tuner.HyperModel, Trial]
    names = {name for one in [*own, own[0]._display, *classes] for name in dir(one)} | {"_oracle", "_memory"}
    private = "|".join(name for name in names if name.startswith("_") and not name.startswith("__"))
    assert not re.findall(rf"keras_tuner\.src|\.(?:{private})\b|def (?:{private})\(", path.read_text())


def test_the_version():
    assert keras_tuner.__version__ == "1.4.8"  # a newer one: is each of these still needed?


def test_folder(tmp_path, plain):
    oracle = plain().oracle
    assert hooks.folder(oracle) == str(tmp_path / "search")
    assert oracle.directory is None and oracle.project_name is None


def test_waiting(plain):
    oracle = plain().oracle
    oracle.max_retries_per_trial = 1
    run(oracle, math.nan)
    assert hooks.waiting(oracle) == ["0"]
    hooks.waiting(oracle).clear()
    assert oracle.create_trial("tuner0").trial_id == "1"


class Watched(hooks.Oracle, keras_tuner.oracles.RandomSearchOracle):
    """An oracle that chose nothing."""

    def keep_trial(self, trial):
        self.kept.append(trial.status)

    def chose(self, trial):
        return False

    def populate_space(self, trial_id):
        return {"status": "RUNNING", "values": {}}


def test_methods_of_an_oracle(tmp_path):
    oracle = Watched(t.SCORE, max_trials=2)
    oracle.kept = []
    made = t.Tuner(oracle, t.Space(), directory=str(tmp_path), project_name="search")
    made.oracle.verbose = 0
    trial = run(oracle)
    assert oracle.kept == ["RUNNING", "RUNNING", "COMPLETED"] and not t.states(tmp_path)
    assert trial.hyperparameters.values == {}
    assert oracle.get_space().space  # which there is, so that plain Keras Tuner fills it in


def test_was_shown(plain, capsys):
    oracle = plain().oracle
    trial = oracle.create_trial("tuner0")
    assert not hooks.was_shown(oracle, trial.trial_id)
    oracle.verbose = 1
    with pytest.raises(KeyError):
        oracle.update_trial(trial.trial_id, {"score": 1.0})
        trial.status = "COMPLETED"
        oracle.end_trial(trial)
    oracle = t.MAKERS["random"]()
    oracle._set_project_dir(hooks.folder(plain().oracle), "another")
    assert hooks.was_shown(oracle, oracle.create_trial("tuner0").trial_id)


def test_try_longer():
    oracle = t.MAKERS["random"]()
    oracle.hyperparameters.Choice("net", ["a", "b"])
    tried = oracle._compute_values_hash
    oracle._tried_so_far = {tried({"net": net}) for net in "ab"}
    for draws in (21, 51):
        before = oracle._seed_state
        assert oracle.populate_space("0")["status"] == "STOPPED"
        assert oracle._seed_state - before == draws
        hooks.try_longer(oracle, 50)


@pytest.mark.parametrize("name", ["random", "bayesian"])
def test_reseed(name):
    assert type(t.MAKERS[name]())(t.SCORE, max_trials=5, seed=0).seed != 0
    found = []
    for _ in range(2):
        oracle = t.MAKERS[name]()
        oracle.hyperparameters.Float("x", 0.0, 1.0)
        hooks.reseed(oracle, 0)
        numbers = hooks.random_state(oracle)
        drawn = (numbers.uniform(), oracle.gpr.random_state) if name == "bayesian" else numbers
        found.append((oracle.seed, oracle.populate_space("0")["values"], drawn))
    assert found[0] == found[1]
    if name == "bayesian":
        assert found[0][2][1] == 0


def test_random_state(tmp_path, plain):
    made = plain("bayesian")
    hooks.random_state(made.oracle).uniform()
    made.save()
    drawn = [hooks.random_state(oracle).uniform() for oracle in (made.oracle, plain("bayesian").oracle)]
    assert drawn[0] != drawn[1]  # it begins anew with the process


def test_find_place(plain):
    """A grid of six, of which the third comes next: plain Keras Tuner's has forgotten so (#1055)."""
    made = plain("grid")
    first = [run(made.oracle).hyperparameters.values for _ in range(2)]
    made.save()
    again = plain("grid").oracle
    assert again.create_trial("tuner0").status == "STOPPED"
    hooks.find_place(again)
    following = made.oracle.create_trial("tuner0").hyperparameters.values
    assert again.populate_space("9")["values"] == following and following not in first


@pytest.mark.parametrize("kind, builds", [(keras_tuner.Tuner, 2), (hooks.Tuner, 0)])
def test_begin_space(tmp_path, kind, builds):
    class Counted(t.Space):
        count = 0

        def build(self, hp):
            self.count += 1
            super().build(hp)

    class Mine(kind):
        begun = False

        def begin_space(self):
            self.begun = True

    space = Counted()
    made = Mine(t.MAKERS["random"](), space, directory=str(tmp_path), project_name="search")
    assert (space.count, made.begun) == (builds, not builds)


def test_log_to_tensorboard(tmp_path):
    pytest.importorskip("tensorboard")
    made = keras_tuner.Tuner(t.MAKERS["random"](), t.Space(), directory=str(tmp_path), project_name="search")
    callbacks = [keras.callbacks.TensorBoard(str(tmp_path / "logs"))]
    hooks.log_to_tensorboard(made, callbacks, Trial(keras_tuner.HyperParameters(), "7"), 1)
    assert callbacks[0].log_dir == str(tmp_path / "logs" / "7" / "execution1") and len(callbacks) == 2


def test_the_wire(monkeypatch, plain):
    for name, value in (("ORACLE_IP", "127.0.0.1"), ("ORACLE_PORT", str(t.free_port())), ("TUNER_ID", "worker0")):
        monkeypatch.setenv(f"KERASTUNER_{name}", value)
    oracle = t.MAKERS["random"]()
    asked = []

    class Stub:
        def __getattr__(self, name):
            return lambda request, **options: asked.append(name) or getattr(hooks.messages(), f"{name}Response")()

    client = hooks.OracleClient(oracle)
    client.stub = Stub()
    trial = Trial(keras_tuner.HyperParameters(), "0")
    client.get_space(), client.update_space(keras_tuner.HyperParameters()), client.create_trial(client.tuner_id)
    client.update_trial("0", {}), client.end_trial(trial), client.get_trial("0"), client.get_best_trials()
    calls = ["GetSpace", "UpdateSpace", "CreateTrial", "UpdateTrial", "EndTrial", "GetTrial", "GetBestTrials"]
    assert asked == calls and all(hasattr(hooks.OracleServicer(oracle), name) for name in calls)
    stub = hooks.wire().OracleStub(grpc.insecure_channel("127.0.0.1:1"))
    assert all(hasattr(stub, name) for name in calls) and hooks.messages().GetTrialRequest(trial_id="0")


def test_quieten(capsys, monkeypatch):
    monkeypatch.delattr(conditions, "print", raising=False)
    monkeypatch.setattr(config, "DEBUG", True)
    hp = keras_tuner.HyperParameters()
    t.Space().build(hp)
    for said in ("b\n", ""):
        capsys.readouterr()
        assert "depth" in [one.name for one in hp.to_proto().space.int_space]
        assert capsys.readouterr().out == said
        hooks.quieten()
    assert config.DEBUG is False


# Faults of plain Keras Tuner's.


@pytest.mark.parametrize("sounds", [False, True])
def test_files_are_written_over(tmp_path, sounds):
    """A reader, or whoever goes on after a kill, may meet half of one (#835); not where it is written beside."""
    made, path, files = t.tuner(tmp_path, plain=not sounds), tmp_path / "search" / "oracle.json", set()
    for _ in range(2):
        with contextlib.suppress(FileNotFoundError), path.open() as file:  # which keeps its number from coming again
            files.add(os.fstat(file.fileno()).st_ino)
            made.oracle.save()
            files.add(path.stat().st_ino)
        made.oracle.save()
    assert len(files) == (2 if sounds else 1)


def test_a_trial_that_oracle_json_does_not_know_is_never_run(tmp_path, plain, monkeypatch):
    """#987."""
    made = plain()
    made.save()
    monkeypatch.setattr(made.oracle, "save", lambda: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        made.oracle.create_trial("tuner0")
    again = plain()
    again.search()
    assert t.states(tmp_path)["trial_0"]["status"] == "RUNNING" and "0" not in t.runs(tmp_path)


def test_a_search_is_not_found_by_another_name(plain):
    """#976."""
    run(plain().oracle, tuner_id="somebody")
    assert not plain().oracle.trials


def test_a_lost_trial_s_id_comes_again(tmp_path, plain):
    made = plain()
    for _ in range(3):
        run(made.oracle)
    made.save()
    shutil.rmtree(tmp_path / "search" / "trial_1")
    assert plain().oracle.create_trial("tuner0").trial_id == "2"


def test_an_exception_locks_the_oracle(plain):
    oracle = plain().oracle
    with pytest.raises(ValueError, match="Objective value missing"):
        oracle.update_trial(oracle.create_trial("tuner0").trial_id, {"other": 1.0})
    other = threading.Thread(target=oracle.create_trial, args=["another"], daemon=True)
    other.start()
    other.join(0.5)
    assert other.is_alive()


def test_three_failures_of_any_kind_raise_before_the_last_is_written(tmp_path, plain):
    oracle = plain().oracle
    t.fail(oracle, "NaN: a"), t.fail(oracle, "MemoryError: b")
    with pytest.raises(RuntimeError, match="Number of consecutive failures"):
        t.fail(oracle, "ValueError: c")
    assert t.states(tmp_path)["trial_2"]["status"] == "RUNNING"


def test_a_retried_trial_keeps_the_results_of_the_run_that_failed(plain):
    oracle = plain().oracle
    oracle.max_retries_per_trial = 1
    run(oracle, math.nan)
    assert oracle.create_trial("tuner0").metrics.exists("score")


def test_a_score_that_is_no_number_is_kept(tmp_path, plain):
    run(plain().oracle, math.nan)
    assert math.isnan(t.states(tmp_path)["trial_0"]["score"])


def test_a_trial_without_a_result_raises_when_it_ends(plain):
    oracle = plain().oracle
    trial = oracle.create_trial("tuner0")
    trial.status = "COMPLETED"
    with pytest.raises(ValueError, match="Unknown metric"):
        oracle.end_trial(trial)


def test_the_state_holds_over_the_command(tmp_path, plain):
    """#803, #234."""
    plain("hyperband").save()
    oracle = keras_tuner.oracles.HyperbandOracle(t.SCORE, max_epochs=9, hyperband_iterations=2)
    t.Tuner(oracle, t.Space(), directory=str(tmp_path), project_name="search")
    assert (oracle.max_epochs, oracle.hyperband_iterations) == (4, 1)


def test_workers_are_let_go_while_a_trial_may_come_back(plain):
    """#915: of a worker that dies nobody hears."""
    oracle = plain().oracle
    oracle.max_trials = 1
    oracle.create_trial("a")
    assert oracle.create_trial("b").status == "STOPPED"


def test_a_reason_does_not_go_over_the_wire():
    trial = Trial(keras_tuner.HyperParameters(), "0", "FAILED", "MemoryError: 3 GiB.")
    assert Trial.from_proto(trial.to_proto()).message is None


def test_two_chiefs_share_a_port():
    port = t.free_port()
    for _ in range(2):
        server = grpc.server(futures.ThreadPoolExecutor(max_workers=1))
        assert server.add_insecure_port(f"127.0.0.1:{port}") == port
