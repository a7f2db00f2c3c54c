"""Where things are."""

import os
import pathlib

TESTS = pathlib.Path(__file__).resolve().parents[1]
ROOT = TESTS.parent
GOLDEN, SUPPORT, APPS = TESTS / "golden", TESTS / "support", ROOT / "apps"


def python_path(file):
    """Return the PYTHONPATH of a process that imports this test's module, and this very kresnets."""
    return os.pathsep.join(map(str, (ROOT, SUPPORT, pathlib.Path(file).parent)))
