"""The errors that a user can fix. Each message says what came, what was expected and what to do.

The command line prints the message of a :class:`DcrnnFastError` and exits with 2. Any other exception is a bug and keeps its traceback.
"""

from __future__ import annotations

import difflib
import re
import reprlib
from importlib.util import find_spec

_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = _SHORT.maxlong = 60
_SHORT.maxlevel = 3


class DcrnnFastError(Exception):
    """Base class of the errors that a user can fix.

    Example:
        >>> from dcrnn_fast import DcrnnFastError
        >>> from dcrnn_fast.ops import backends
        >>> try:
        ...     backends.resolve("cpp", device="cuda")
        ... except DcrnnFastError as error:
        ...     print(error)  # doctest: +ELLIPSIS
        backend='cpp' cannot be used: ...
    """

    shown_by_another_rank: bool | None = None
    """In a run of several processes: whether another one prints the error. None where they agreed on none; then the first one does."""

    def __str__(self) -> str:
        return printable(super().__str__())


class BackendUnavailable(DcrnnFastError, RuntimeError):  # noqa: N818 (it names a state, not a failure)
    """The backend that was asked for by name cannot run here. The message says why and what to do.

    Example:
        >>> from dcrnn_fast import DCRNN, BackendUnavailable
        >>> try:
        ...     model = DCRNN([100, 50], backend="cuda")
        ... except BackendUnavailable:
        ...     model = DCRNN([100, 50])
    """


class MissingExtra(DcrnnFastError, ImportError):  # noqa: N818 (it names a state, not a failure)
    """A package that a part of this one needs is not installed, or does not fit the others. The message says what to install."""


class ConfigError(DcrnnFastError, ValueError):
    """A run configuration has an unknown key or a value outside its range."""


class DataError(DcrnnFastError, ValueError):
    """A table, schema or packed data set is missing, incomplete or inconsistent.

    Where a table is at fault, ``table`` names it; ``row`` is its row, counted from 1, and ``column`` its column, or None. The message is
    made of these and the problem whenever it is shown: a caller that has another name for the table, or other rows, sets them.

    >>> from dcrnn_fast.errors import DataError
    >>> error = DataError("holds 'x', expected a number", table="/tmp/part.csv", row=1200, column="price")
    >>> error.table = "the log"
    >>> print(error)
    the log, row 1,200: column 'price' holds 'x', expected a number
    """

    def __init__(self, problem: str, *, table: str | None = None, row: int | None = None, column: str | None = None) -> None:
        super().__init__(problem)
        self.problem, self.table, self.row, self.column = problem, table, row, column

    def __str__(self) -> str:
        problem = self.problem if self.column is None else f"column {self.column!r} {self.problem}"
        place = ", ".join(filter(None, (self.table, None if self.row is None else f"row {self.row:,}")))
        mark = "" if self.row is None and self.column is None else ":"  # a table alone is the problem's subject
        return printable(f"{place}{mark} {problem}" if place else problem)


class CheckpointError(DcrnnFastError, RuntimeError):
    """A checkpoint or weight file is missing, damaged, or belongs to another model."""


class ExportError(DcrnnFastError, RuntimeError):
    """A model cannot be exported here, its export differs from it, or an exported file is damaged or does not fit this machine."""


class RunFolderError(DcrnnFastError, OSError):
    """The run folder cannot be written: it is read-only or not a folder, or the disk is full."""


class TrainingDivergedError(DcrnnFastError, ArithmeticError):
    """The loss or a weight became infinite or NaN. The last checkpoint was written before that."""


class RanksError(DcrnnFastError, RuntimeError):
    """The processes of a run cannot go on together: one of them has ended or hangs, or they do not hold the same weights."""


def check_installed(what: str, extra: str, packages: tuple[str, ...]) -> None:
    """Raise MissingExtra where one of the packages of an extra, which ``what`` needs, is not installed."""
    if missing := [name for name in packages if find_spec(name) is None]:
        raise MissingExtra(f"{what} needs {', '.join(missing)}; run: pip install 'dcrnn_fast[{extra}]'")


def did_you_mean(name: str, known: list[str]) -> str:
    """A question about the known name that is nearest, for the end of a message; empty if none is near.

    >>> from dcrnn_fast.errors import did_you_mean
    >>> did_you_mean("usr_id", ["item_id", "user_id"])
    "; did you mean 'user_id'?"
    """
    near = difflib.get_close_matches(name, known, 1, 0.7)
    return f"; did you mean {near[0]!r}?" if near else ""


def one_line(error: BaseException, most: int = 300) -> str:
    """The message of another library's error in one line of at most so many characters."""
    return " ".join(str(error).split())[:most]


def printable(text: str) -> str:
    r"""The text as a terminal may show it: a control character but the end of a line, such as one that clears the screen, as in ``repr``.

    >>> from dcrnn_fast.errors import printable
    >>> print(printable("a\x1b[2Jb"))
    a\x1b[2Jb
    """
    return re.sub(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]", lambda found: repr(found[0])[1:-1], text)


def shown(value: object) -> str:
    """A value as an error message shows it: like repr, but short, whatever the value."""
    try:
        return _SHORT.repr(value)
    except ValueError:  # Python writes out no integer of more than 4,300 digits.
        return f"a {type(value).__name__} too large to show"
