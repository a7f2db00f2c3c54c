"""What the demo, the bench and the claims share."""

import argparse

from kresnets_command import end_with as run  # noqa: F401
from kresnets_command import import_tensorflow  # noqa: F401


def positive_int(text):
    """Read an argument that counts something; for `type=` of argparse."""
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number of at least 1, not {text!r}")
    return int(text)
