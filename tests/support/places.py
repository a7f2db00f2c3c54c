"""Where things are."""

import pathlib

TESTS = pathlib.Path(__file__).resolve().parents[1]
ROOT = TESTS.parent
GOLDEN, SUPPORT, APPS = TESTS / "golden", TESTS / "support", ROOT / "apps"
