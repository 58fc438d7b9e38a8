"""The *ranks* of a run: the processes that train one model together, as ``torchrun`` starts them.

All ranks hold the same weights. Each computes its part of the rows of every batch and of every evaluation. Rank 0 alone writes the run
folder.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

from torch import Tensor, nn

T = TypeVar("T")


class Ranks:
    """A run of one process: nobody waits, and nothing is exchanged. :class:`.process_group.ManyRanks` does what the methods say.

    ``rank`` is this process's number in [0, ``count``), and ``local`` its number on its machine.
    """

    rank, count, local = 0, 1, 0

    @property
    def is_first(self) -> bool:
        """Whether this is rank 0, which writes the run folder and speaks to the user."""
        return self.rank == 0

    def from_first(self, call: Callable[[], T]) -> T:
        """Let rank 0 make the call, and give its result, which is plain JSON types, to all ranks."""
        return call()

    def one_after_another(self, call: Callable[[], T]) -> T:
        """Make the call on one rank of each machine, and then on the others, which find what the first has written."""
        return call()

    def check_same(self, what: Callable[[], Mapping[str, Any]]) -> None:
        """Wait until all ranks are here. Raises :class:`dcrnn_fast.errors.RanksError` if a value is not the same on all of them."""

    def rows(self, *own: Tensor) -> tuple[Tensor, ...]:
        """The rows [B, ...] of all ranks, in the ranks' order, for each of some tensors [b, ...] of one dtype that hold this rank's rows.

        A gradient reaches this rank's rows alone.
        """
        return own

    def add_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Replace the gradient of each parameter by the sum of all ranks' gradients."""


ONE = Ranks()
