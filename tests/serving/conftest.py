"""What the tests of the server share."""

import pytest


@pytest.fixture(scope="session")
def anyio_backend():
    return "asyncio"  # for tests that are coroutines
