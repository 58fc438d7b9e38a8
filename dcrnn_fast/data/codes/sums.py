"""What the numbers of a column say as sums: parts of a table, in any order and however it is cut, add up to the same bits."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from fractions import Fraction
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.float64]
MOST_DISTINCT = 1 << 22
"""Distinct numbers that are kept."""
SORTED_AT_ONCE = 1 << 23
"""Numbers that are counted at a time."""
SHORTER = (0, 8, 16, *range(18, 42, 2))
"""How many of their last bits numbers lose where there are more distinct ones."""
ADDED_AT_ONCE, BITS_AT_ONCE = 1 << 16, 36
"""So many numbers of so many bits add up to 52 bits, which a float64 holds."""
UNIT = 1074
"""Every float64 is a multiple of 2**-1074."""


class NumberCounts(NamedTuple):
    """How often each number occurs: `values` rise, and none is NaN. -0.0 counts as 0.0.

    Exact for at most 4.2 million distinct numbers. Where there are more, all lose as few of their last bits as it takes, and are rounded
    down: 16 bits leave a relative error of 1.5e-11, 24 of 3.7e-9, 32 of 9.5e-7. A part never loses more bits than the whole, so the sum of
    all parts is the same whatever the parts are.
    """

    values: FloatArray
    counts: npt.NDArray[np.int64]
    bits: int = 0
    """How many last bits the numbers have lost."""

    @classmethod
    def of(cls, pieces: Iterable[FloatArray]) -> NumberCounts:
        """The counts of numbers that come some at a time."""
        whole = cls(np.zeros(0), np.zeros(0, np.int64))
        for some in _joined(pieces):
            some += 0.0
            some.sort()
            part = _shortened(places_of(some), None, 0)
            del some
            whole += part
        return whole

    def __add__(self, other: NumberCounts) -> NumberCounts:  # type: ignore[override]
        """The counts of both parts."""
        places = np.concatenate([places_of(self.values), places_of(other.values)])
        counts = np.concatenate([self.counts, other.counts])
        order = places.argsort(kind="stable")  # which merges what is sorted already
        return _shortened(places[order], counts[order], max(self.bits, other.bits))

    def total(self, of: Callable[[FloatArray], FloatArray]) -> Total:
        """The exact sum of a function of the numbers, as :class:`Total` has it of all of them where none has lost bits."""
        values, whole = of(self.values), Total(0, 0)
        for bit in range(int(self.counts.max(initial=0)).bit_length()):
            part = Total.of([values[self.counts >> bit & 1 == 1]])
            whole += Total(part.numbers << bit, part.scaled << bit)
        return whole

    def next_values(self) -> FloatArray:
        """For each value the least number that is not counted with it."""
        return _numbers(((places_of(self.values) >> self.bits) + 1) << self.bits)


class Total(NamedTuple):
    """The exact sum of so many numbers, `scaled` by 2**1074."""

    numbers: int
    scaled: int

    @classmethod
    def of(cls, pieces: Iterable[FloatArray]) -> Total:
        """The sum of numbers that come some at a time. Raises OverflowError for one that is not finite."""
        whole = cls(0, 0)
        for piece in pieces:
            parts = np.split(piece, range(ADDED_AT_ONCE, len(piece), ADDED_AT_ONCE))
            whole += cls(len(piece), sum(map(_scaled_sum, parts)))
        return whole

    def __add__(self, other: Total) -> Total:  # type: ignore[override]
        """The sum of both parts."""
        return Total(self.numbers + other.numbers, self.scaled + other.scaled)

    @property
    def mean(self) -> float:
        """The mean, rounded once; 0 of no numbers."""
        return float(Fraction(self.scaled, self.numbers << UNIT)) if self.numbers else 0.0


def _shortened(places: npt.NDArray[np.int64], counts: npt.NDArray[np.int64] | None, least: int) -> NumberCounts:
    """The counts of numbers at these places, which rise, each once or so often; they lose at least so many bits."""
    for bits in SHORTER[SHORTER.index(least) :]:
        leading = places >> bits if bits else places
        changes = leading[1:] != leading[:-1]
        if np.count_nonzero(changes) < MOST_DISTINCT:
            break
    starts = np.flatnonzero(np.append(True, changes)[: len(places)])
    found = np.diff(starts, append=len(places)) if counts is None else np.add.reduceat(counts, starts)
    return NumberCounts(_numbers(leading[starts] << bits), found, bits)


def places_of(numbers: FloatArray) -> npt.NDArray[np.int64]:
    """The place of each float64 among all of them: neighbours have neighbouring places. -0.0 stands below 0.0."""
    bits = numbers.view(np.int64)
    found = bits >> 63
    found &= np.int64(2**63 - 1)
    found ^= bits
    return found


def _numbers(places: npt.NDArray[np.int64]) -> FloatArray:
    """The inverse of :func:`places_of`, which is its own."""
    return places_of(places.view(np.float64)).view(np.float64)


def _scaled_sum(values: FloatArray) -> int:
    """The exact sum of at most ADDED_AT_ONCE numbers, scaled by 2**UNIT.

    It takes the leading bits of all numbers together, as multiples of one power of two whose sum a float64 holds exactly, and goes on with
    what is left of each.
    """
    rest, total = values.copy(), 0
    while largest := float(np.abs(rest).max(initial=0.0)):
        if not math.isfinite(largest):
            raise OverflowError(f"the sum of numbers, one of which is {largest}")
        step = max(math.frexp(largest)[1] - BITS_AT_ONCE, -UNIT)
        if step + 53 > 1023:  # the next line has no such number
            return sum(int(Fraction(value) * 2**UNIT) for value in values.tolist())
        rounding = math.ldexp(1.5, step + 52)  # a number plus this one has no bits below 2**step
        leading = (rest + rounding) - rounding
        rest -= leading
        total += int(Fraction(float(leading.sum())) * Fraction(2) ** UNIT)
    return total


def _joined(pieces: Iterable[FloatArray]) -> Iterator[FloatArray]:
    waiting, held = list[FloatArray](), 0
    for piece in pieces:
        waiting.append(piece)
        held += len(piece)
        if held >= SORTED_AT_ONCE:
            waiting, held = [np.concatenate(waiting)], 0
            yield waiting.pop()  # which nobody else holds
    if held:
        yield np.concatenate(waiting)
