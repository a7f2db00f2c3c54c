"""The one place that touches what Keras Tuner keeps to itself: each name with what it is, and why no public one does.

Checked with Keras Tuner 1.4.8, the newest one, for which all of this is needed; setup.cfg allows none from 1.5 on. For
each name a test in tests/tuning/test_keras_tuner_hooks.py fails when Keras Tuner changes it. What Keras Tuner gets
wrong is not here: see `kresnets.tuning.oracle` and `kresnets.tuning.chief`.
"""

import functools

import keras_tuner
import numpy as np
from keras_tuner.src import config, protos
from keras_tuner.src.distribute.oracle_chief import OracleServicer as OracleServicer
from keras_tuner.src.distribute.oracle_client import OracleClient as OracleClient
from keras_tuner.src.engine import conditions

# The two ends of the wire between a chief and its workers, above, and what goes over it: no public module has them.
messages, wire = protos.get_service, protos.get_service_grpc


def quieten():
    """Silence a forgotten print (a line for each condition of the space and each message), and the whole traceback of
    each trial that failed, which no argument turns off."""
    conditions.print = lambda *values: None
    config.DEBUG = False


class Oracle:
    """Stands before the class of an oracle, for the two methods that Keras Tuner's own ones call."""

    def _save_trial(self, trial):  # writes in place, so that a kill leaves half a file
        self.keep_trial(trial)

    def _record_values(self, trial):  # gives values at random to a trial that is to have none
        if self.chose(trial):
            super()._record_values(trial)


def folder(oracle):
    """Return the folder of an oracle's project, which is made: an oracle's own `directory` stays None."""
    return oracle._project_dir


def waiting(oracle):
    """Return the list of the trials that are to be run again. Of it there is but a copy in the oracle's files."""
    return oracle._retry_queue


def was_shown(oracle, trial_id):
    """Return whether the begin of a trial was printed: printing its end fails otherwise."""
    return trial_id in oracle._display.trial_start


def try_longer(oracle, collisions=1000):
    """Have an oracle that draws at random take so many draws for proof that nothing is left, where it takes 20."""
    oracle._max_collisions = max(oracle._max_collisions, collisions)


def reseed(oracle, seed):
    """Give an oracle a seed after it was made: as an argument, 0 is taken for none."""
    oracle.seed = oracle._seed_state = seed
    if isinstance(oracle, keras_tuner.oracles.BayesianOptimizationOracle):
        oracle._random_state = np.random.RandomState(seed)
        oracle.gpr.set_params(random_state=seed)


def random_state(oracle):
    """Return the random numbers of Bayesian optimization, which its state lacks, or None."""
    return oracle._random_state if isinstance(oracle, keras_tuner.oracles.BayesianOptimizationOracle) else None


def find_place(oracle):
    """Have a grid search find anew where it is, by its trials: its state lacks it."""
    values = {key: trial.hyperparameters.values for key, trial in oracle.trials.items()}
    tried = [key for key in oracle.start_order if values[key]]
    oracle._ordered_ids = type(oracle._ordered_ids)()
    for trial_id in sorted(tried, key=functools.cmp_to_key(lambda a, b: oracle._compare(values[a], values[b]))):
        oracle._ordered_ids.insert(trial_id)
    # Those whose next combination was tried already it passes over.
    oracle._populate_next = [key for key in (*tried[:1], *oracle.end_order) if values.get(key)]


class Tuner(keras_tuner.Tuner):
    """A tuner that declares its space by `begin_space`: Keras Tuner's own builds the network for each condition."""

    def _populate_initial_space(self):
        self.begin_space()


def log_to_tensorboard(tuner, callbacks, trial, execution):
    """Give TensorBoard's callbacks a folder for the trial, and its hyperparameters. Only Keras Tuner's own training, in
    place of which a search trains, does it."""
    tuner._configure_tensorboard_dir(callbacks, trial, execution)
