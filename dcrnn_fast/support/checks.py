"""Checks of numbers and names. Each message names the argument, what came and what was expected. Needs the standard library only."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from numbers import Integral, Real
from typing import Any

from ..errors import DataError, shown


def check_choice(name: str, value: object, choices: Sequence[str]) -> None:
    """Raise ValueError unless ``value`` is one of ``choices``."""
    if value not in choices:
        raise ValueError(f"{name}={value!r}: expected one of {', '.join(map(repr, choices))}")


MAX_STEPS = 65535
"""The most steps of a recurrence, on every backend. It is a GPU's largest grid in one dimension, and far above any use."""


MAX_SIZE = 2**20
"""The most units, widths, features or tasks of a module. A weight matrix of that width would take 4 TiB."""


def check_count(name: str, value: object, minimum: int = 1, maximum: int | None = None) -> int:
    """``value`` as an int. Raise TypeError or ValueError unless it is an integer (NumPy's too) from ``minimum`` to ``maximum``."""
    if type(value) is not int and (isinstance(value, bool) or not isinstance(value, Integral)):
        raise TypeError(f"{name}={value!r}: expected an int, got {type(value).__name__}")
    if value < minimum:
        raise ValueError(f"{name}={value}: expected at least {minimum}")
    if maximum is not None and int(value) > maximum:
        raise ValueError(f"{name}={value}: expected at most {maximum}")
    return int(value)


def check_number(name: str, value: object, expected: str, holds: Callable[[float], bool]) -> None:
    """Raise TypeError or ValueError unless ``value`` is a number for which ``holds`` is true."""
    if isinstance(value, bool) or not isinstance(value, Real):
        raise TypeError(f"{name}={value!r}: expected {expected}, got {type(value).__name__}")
    if not holds(float(value)):
        raise ValueError(f"{name}={value}: expected {expected}")


def check_ratio(name: str, value: object) -> None:
    """Raise TypeError or ValueError unless ``value`` is a number in [0, 1]."""
    check_number(name, value, "a number in [0, 1]", lambda number: 0 <= number <= 1)


def check_deviation(name: str, value: object) -> None:
    """Raise TypeError or ValueError unless ``value`` is a finite number of at least 0."""
    check_number(name, value, "a finite number of at least 0", lambda number: 0 <= number < math.inf)


def check_flag(name: str, value: object) -> None:
    """Raise TypeError unless ``value`` is True or False."""
    if not isinstance(value, bool):
        raise TypeError(f"{name}={value!r}: expected True or False, got {type(value).__name__}")


def check_sequence(name: str, value: object, expected: str) -> None:
    """Raise TypeError unless ``value`` can be iterated over and is not a string."""
    if isinstance(value, str) or not isinstance(value, Iterable):
        raise TypeError(f"{name}={value!r}: expected a sequence of {expected}, got {type(value).__name__}")


def listed(name: str, given: Any) -> list[Any]:
    """A list, tuple, array or column of names as a list. Raises DataError for another type."""
    try:
        if isinstance(given, (str, bytes, Mapping, Iterator)):  # an iterator would be empty at the next call
            raise TypeError
        return [str(one) if isinstance(one, str) else one for one in (given.to_pylist() if hasattr(given, "to_pylist") else given)]
    except TypeError:
        raise DataError(f"{name}={shown(given)}: expected a list; put a single one in a list") from None


def label_columns(name: str, given: Any) -> list[str]:
    """The names of tasks' columns as a list. Raises DataError unless there is one and each differs from the others."""
    columns = listed(name, given)
    if not columns or not all(isinstance(column, str) for column in columns) or len(set(columns)) < len(columns):
        raise DataError(f"{name}={shown(given)}: expected a list of different columns of 0 and 1; put a single one in a list")
    return columns


def check_counts(name: str, values: Iterable[object], expected: str, minimum: int = 1) -> tuple[int, ...]:
    """``values``, from any iterable, as ints. Raise TypeError or ValueError unless they are integers from ``minimum`` to MAX_SIZE."""
    check_sequence(name, values, expected)
    return tuple([check_count(f"{name}[{place}]", value, minimum, MAX_SIZE) for place, value in enumerate(values)])
