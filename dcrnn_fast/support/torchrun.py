"""Reads the rank of this process from the variables that ``torchrun`` sets: one of several processes that train one model together."""

from __future__ import annotations

import os
from dataclasses import dataclass

VARIABLES = ("RANK", "WORLD_SIZE", "LOCAL_RANK")


@dataclass(frozen=True)
class Place:
    """A process's number ``rank`` among ``count`` ranks, and its number ``local`` among the ranks of its machine."""

    rank: int
    count: int
    local: int


def place() -> Place | None:
    """This process's place among several ranks; None without torchrun, or where it starts one process alone."""
    given = [os.environ[name] for name in VARIABLES if name in os.environ]
    found = Place(*map(int, given)) if len(given) == len(VARIABLES) else None
    return found if found is not None and found.count > 1 else None


def is_first() -> bool:
    """Whether this process is rank 0, or alone. Only this one prints for the user."""
    found = place()
    return found is None or found.rank == 0
