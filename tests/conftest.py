"""What all tests share."""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import browsing
import keras
import pytest


@pytest.fixture(autouse=True)
def _seeded():
    keras.utils.set_random_seed(0)


@pytest.fixture(scope="session")
def anyio_backend():
    return "asyncio"  # for tests that are coroutines


@pytest.fixture(scope="module")
def browser():
    """Headless Chromium, or a skip."""
    driver = browsing.start()
    yield driver
    driver.quit()
