"""Reads the rank of this process from the variables that ``torchrun`` sets: one of several processes that train one model together."""

from __future__ import annotations

import os
from dataclasses import dataclass

from ..errors import ConfigError, shown

VARIABLES = ("RANK", "WORLD_SIZE", "LOCAL_RANK")


@dataclass(frozen=True)
class Place:
    """A process's number ``rank`` among ``count`` ranks, and its number ``local`` among the ranks of its machine."""

    rank: int
    count: int
    local: int


def place() -> Place | None:
    """This process's place among several ranks; None without torchrun, or where it starts one process alone.

    Raises :class:`dcrnn_fast.errors.ConfigError` if the environment variables of torchrun hold no place.
    """
    given = {name: os.environ[name] for name in VARIABLES if name in os.environ}
    if len(given) < len(VARIABLES):
        return None
    for name, value in given.items():
        if not (value.isascii() and value.isdigit()) or len(value) > 9:
            raise ConfigError(f"the environment variable {name} is {shown(value)}, expected a whole number, as torchrun sets it")
    found = Place(*map(int, given.values()))
    if found.rank >= found.count:
        raise ConfigError(f"the environment has RANK={found.rank} and WORLD_SIZE={found.count}, expected RANK < WORLD_SIZE")
    return found if found.count > 1 else None


def is_first() -> bool:
    """Whether this process is rank 0, or alone. Only this one prints for the user."""
    try:
        found = place()
    except ConfigError:
        return True
    return found is None or found.rank == 0
