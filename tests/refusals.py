"""Tables of what is refused: a call, its error, and a pattern that the message has. Each area has one, in its ``test_refusals.py``."""

from functools import partial
from inspect import signature

import pytest


def row(name, call, error, said, *, marks=()):
    """One refusal. The parameters of ``call`` are fixtures."""
    return pytest.param(call, error, said, id=name, marks=marks)


def rows(name, call, error, *, cases=(), values=(), said=None, within="{}", marks=()):
    """Refusals of one kind. Each case is a tuple of the first arguments of ``call``, of the error, and of what its message says.

    An ``error`` or ``said`` of all cases is left out of them. ``values`` are cases of one argument. ``within`` is the pattern of which
    what is said replaces the braces.
    """
    found = []
    for number, case in enumerate([*cases, *((value,) for value in values)]):
        *arguments, pattern = (*case, said) if said else case
        kind = error or arguments.pop()
        found.append(row(f"{name} {number}", partial(call, *arguments), kind, within.replace("{}", pattern), marks=marks))
    return found


def refused(table):
    """The test that a table is: each call, with the fixtures that its parameters name, gives the error."""

    @pytest.mark.parametrize(("call", "error", "said"), table)
    def test(request, call, error, said):
        fixtures = {name: request.getfixturevalue(name) for name in signature(call).parameters}
        with pytest.raises(error, match=said):
            call(**fixtures)

    return test
