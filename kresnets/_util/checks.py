"""What counts as a number: Python's and numpy's, a bool never."""

import math
import numbers
from typing import Any


def is_whole(value: Any, least: float = -math.inf) -> bool:
    """Whether a value is a whole number, from `least` on.

    Example:
        >>> is_whole(3, 1), is_whole(True), is_whole(2.0)
        (True, False, False)
    """
    return isinstance(value, numbers.Integral) and not isinstance(value, bool) and int(value) >= least


def is_number(value: Any) -> bool:
    """Whether a value is a finite number.

    Example:
        >>> is_number(0.5), is_number(10**400), is_number(float("nan"))
        (True, False, False)
    """
    if not isinstance(value, numbers.Real) or isinstance(value, bool):
        return False
    try:
        return math.isfinite(value)
    except OverflowError:  # a whole number above all floats
        return False
