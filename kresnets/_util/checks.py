"""What counts as a number: Python's and numpy's, a bool never."""

import dataclasses
import difflib
import functools
import math
import numbers
from collections.abc import Iterable, Sequence
from typing import Any, TypeVar

Class = TypeVar("Class", bound=type)


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


def refuse(obstacles: Sequence[str]) -> None:
    """Raise a ValueError that tells all of these at once; none where there are none.

    Example:
        >>> refuse(["It is too small.", "It has no name."])
        Traceback (most recent call last):
        ValueError: There are 2 obstacles. (1) It is too small. (2) It has no name.
    """
    if len(obstacles) == 1:
        raise ValueError(obstacles[0])
    if obstacles:
        numbered = (f"({number}) {told}" for number, told in enumerate(obstacles, 1))
        raise ValueError(f"There are {len(obstacles)} obstacles. {' '.join(numbered)}")


def close_to(name: str, known: Iterable[str]) -> str:
    """Return which of the known names are meant, as a question, or nothing where none is close.

    Example:
        >>> close_to("resnet50", ["ResNet50", "ResNet50D", "InceptionV3"])
        'did you mean ResNet50 or ResNet50D?'
        >>> close_to("x", ["ResNet50"])
        ''
    """
    named = {one.lower(): one for one in known}
    close = [named[one] for one in difflib.get_close_matches(name.lower(), named, n=3)]
    return f"did you mean {' or '.join(close)}?" if close else ""


def asks_what_is_meant(made: Class) -> Class:
    """Have a dataclass ask what is meant by an argument that it has not, which Python does from 3.13 on.

    Example:
        >>> @asks_what_is_meant
        ... @dataclasses.dataclass
        ... class Point:
        ...     across: int = 0
        >>> Point(acros=1)
        Traceback (most recent call last):
        TypeError: Point has no argument acros: did you mean across?
    """
    init = made.__init__  # type: ignore[misc]
    known = [field.name for field in dataclasses.fields(made) if field.init]

    @functools.wraps(init)
    def asking(self, *values, **named):
        for name in named:
            if name not in known:
                meant = close_to(name, known) or f"there are {', '.join(known)}."
                raise TypeError(f"{made.__name__} has no argument {name}: {meant}")
        init(self, *values, **named)

    made.__init__ = asking  # type: ignore[misc, method-assign]
    return made
