"""What the tests of searches share."""

import gc

import pytest
from searching import formula as formula


@pytest.fixture(scope="module", autouse=True)
def _quick_to_tidy():
    """Leave what is there already out of the collections of garbage, one before each trial."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture(scope="module")
def eager():
    """Run TensorFlow's functions as they stand: tracing one takes longer than some steps of a small network."""
    import tensorflow as tf

    tf.config.run_functions_eagerly(True)
    yield
    tf.config.run_functions_eagerly(False)
