"""What all tests share."""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import browsing
import keras
import pytest


@pytest.hookimpl(tryfirst=True)  # before cases are chosen by their markers
def pytest_collection_modifyitems(config, items):
    """Leave the cases that `always` does not name to `make everything`."""
    named, found = {}, {}
    for item in items:
        if always := item.get_closest_marker("always"):
            test = item.nodeid.partition("[")[0]
            named[test] = set(always.args)
            found.setdefault(test, set()).add(item.callspec.id)
            if item.callspec.id not in always.args:
                item.add_marker(pytest.mark.everything)
    for test, ids in named.items():
        if ids - found[test] and not any("::" in argument for argument in config.args):
            raise pytest.UsageError(f"{test}: `always` names cases that there are not: {ids - found[test]}")


_OPTIMISED = ("apps", "data", "devices", "export", "serving")  # rooms whose graphs are the point
_EAGER = ("test_labels", "test_numbers")  # whose many fits of a few small steps take less time than to trace them


@pytest.fixture(autouse=True)
def _seeded(request):
    keras.utils.set_random_seed(0)
    if keras.config.backend() == "tensorflow":
        # A fifth of a test's time goes into making graphs faster that then run for a moment.
        import tensorflow as tf

        as_users = request.path.parent.name in _OPTIMISED
        tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": not as_users})
        tf.config.run_functions_eagerly(request.path.stem in _EAGER)


@pytest.fixture(scope="session")
def anyio_backend():
    return "asyncio"  # for tests that are coroutines


@pytest.fixture(scope="module")
def browser():
    """Headless Chromium, or a skip."""
    driver = browsing.start()
    yield driver
    driver.quit()
