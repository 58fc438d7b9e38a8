"""cross_rnn: its forward, a launch for each step.

Letters: T tasks, B rows, D units of which the first S are shared, C context columns, K = C + D, G = 2 (gated) or 1 (cross) vectors a unit,
L steps, and W = L steps with weights of their own, or W = 1. With u = [context, h]::

    a  = W u + b        g = sigmoid(V u + c)        h' = h + g * x0 * a

Row d of W and row d of V are neighbouring columns of one product, so the thread that holds a unit's a also holds its gate. A multiplication
that feeds an addition is written as ``fma``, so that the bits do not depend on what the compiler fuses.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from dcrnn_fast.sharing import GATES

from . import common
from .common import ITEMSIZE, Tile, Tiles, add_product, bank_rows, divide_up, inside, parts, precision, product_operand, sigmoid, store

MAX_TASKS = 65535
"""The most programs in the second dimension of a GPU's grid."""


def _shared_bytes(tile: Tile, kind: str, gates: int, rank: int) -> int:
    return tile.stages * (tile.rows + gates * tile.columns) * tile.products * ITEMSIZE[kind] + 2048


_HALF = [(128, 128, 64, 8, 4), (128, 64, 64, 8, 3), (64, 64, 64, 4, 4), (64, 64, 64, 4, 3), (32, 64, 64, 4, 4)]
TILES = Tiles(
    "cross_rnn",
    {
        "bfloat16": {0: _HALF},
        "float16": {0: _HALF},
        "tf32": {0: [(128, 64, 32, 8, 3), (64, 64, 32, 4, 4), (64, 64, 32, 4, 3), (32, 64, 32, 4, 4)]},
        "float32": {0: [(64, 64, 16, 8, 2), (64, 32, 16, 8, 3)]},
        "float64": {0: [(32, 32, 16, 4, 3)]},
    },
    _shared_bytes,
)


class Sizes(NamedTuple):
    """The sizes of a call, by their letters. A graph may leave B and T open; it fixes the others, which kernels are compiled for."""

    T: int
    B: int
    D: int
    C: int
    G: int
    S: int
    W: int
    L: int
    r: int

    @classmethod
    def of(
        cls, x0: Tensor, shared_bias: Tensor, private_bias: Tensor, steps: int, cell: str, context: Tensor | None, rank: int = 0
    ) -> Sizes:
        """The sizes of an operator's arguments; the full cell has rank 0. Raises ValueError for more tasks than a launch can have."""
        tasks, weight_steps, num_private, _ = private_bias.shape
        if isinstance(tasks, int) and tasks > MAX_TASKS:
            raise ValueError(
                f"private_bias: got {tasks} tasks, expected at most {MAX_TASKS}, as many as a launch can have; use backend='reference'"
            )
        columns, num_shared = 0 if context is None else context.shape[2], shared_bias.shape[1]
        fixed = (num_shared + num_private, columns, GATES[cell], num_shared, weight_steps, steps, rank)
        return cls(tasks, x0.shape[0], *map(int, fixed))

    def constants(self, tiles: Tiles, like: Tensor, allow_tf32: bool, *, rows: int, columns: int) -> dict[str, Any]:
        """What a kernel is compiled for, with a tile for so many rows and columns in all."""
        kind = precision(like.dtype, allow_tf32)
        tile = tiles.chosen(like, kind, rows=rows, columns=columns, gates=self.G, rank=self.r)
        return {"D": self.D, "C": self.C, "G": self.G, "PRECISION": kind, **tile, **({"RANK": self.r} if self.r else {})}

    def grid(self, constants: dict[str, Any], columns: int, second: int) -> Any:
        """The programs that cover B rows and ``columns`` columns, by the number of columns of a tile; and those of the second dimension."""
        rows = divide_up(self.B, constants["BLOCK_B"])
        return lambda meta: (rows * divide_up(columns, meta["BLOCK_D"]), second)


def together(shared: Tensor, private: Tensor) -> Tensor:
    """The rows of all tasks: shared [W, S, ...] before private [T, W, P, ...], contiguous [T, W, S + P, ...]."""
    if shared.shape[1] == 0:
        return private.contiguous()
    return torch.cat([shared.expand(private.shape[0], *shared.shape), private], dim=2)


@triton.jit
def _finish(acc, x0, h, target, activations, b, unit, B, D: tl.constexpr, G: tl.constexpr):
    """a and the gate's argument to h', for the units from ``unit`` on."""
    BLOCK_D: tl.constexpr = acc.shape[1] // G
    d = unit + tl.arange(0, BLOCK_D)
    stored = inside(b, B, d, D)
    at = b.to(tl.int64)[:, None] * D + d[None, :]
    saved = b.to(tl.int64)[:, None] * (G * D) + d[None, :]
    update = tl.load(x0 + at, mask=stored).to(acc.dtype)
    if G == 2:
        a, q = tl.split(tl.reshape(acc, (acc.shape[0], BLOCK_D, 2)))
        g = sigmoid(q)
        update *= g
        if activations is not None:
            store(activations + saved + D, g, stored)
    else:
        a = acc
    if activations is not None:
        store(activations + saved, a, stored)
    store(target + at, tl.fma(update, a, tl.load(h + at, mask=stored).to(acc.dtype)), stored)


@TILES.tuned("D", "C", "G")
@triton.jit(do_not_specialize=["step", "steps"])
def cross_rnn_step(
    x0, context, states, out, activations, shared_weight, private_weight, bias, B, S, W, step, steps,
    D: tl.constexpr, C: tl.constexpr, G: tl.constexpr, PRECISION: tl.constexpr,
    BLOCK_B: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    """One step of all tasks; a program computes a tile.

    The states between the steps lie in ``states`` [T, L - 1, B, D], and the last one in ``out`` [T, B, D]. Without ``out``, all states lie
    in ``states`` [T, L + 1, B, D], the start state first. ``activations`` [T, L, B, G, D], if any, get a and g. ``bias`` is [T, W, D, G].
    """
    task = tl.program_id(1).to(tl.int64)
    K: tl.constexpr = C + D
    UNIT_TILES: tl.constexpr = (D + BLOCK_D - 1) // BLOCK_D
    b = tl.program_id(0) // UNIT_TILES * BLOCK_B + tl.arange(0, BLOCK_B)
    first_unit = tl.program_id(0) % UNIT_TILES * BLOCK_D
    size = tl.cast(B, tl.int64) * D
    if out is None:
        h = states + (task * (steps + 1) + step) * size
        target = h + size
    else:
        target = states + (task * (steps - 1) + step) * size
        h = tl.where(step == 0, x0, target - size)
        target = tl.where(step == steps - 1, out + task * size, target)
    if activations is not None:
        activations += (task * steps + step) * G * size

    # tiles at the edge compute the last row and unit several times and store them once, which saves a mask
    n = tl.arange(0, BLOCK_D * G)
    row = tl.minimum(b, B - 1).to(tl.int64)
    unit = tl.minimum(first_unit + n // G, D - 1)
    own_step, shared_step = task * W + step % W, tl.cast(step % W, tl.int64)
    own_row, shared_row = own_step * (D - S) + unit - S, shared_step * S + unit
    weight = bank_rows(unit < S, shared_weight + shared_row * (G * K), private_weight + own_row * (G * K), K) + n % G * K

    # the sums start at the biases: loaded after the loop, the biases would need registers that the accumulator holds
    ACC: tl.constexpr = tl.float64 if x0.dtype.element_ty == tl.float64 else tl.float32
    first = tl.load(bias + (own_step * D + unit) * G + n % G).to(ACC)
    acc = tl.broadcast_to(first[None, :], (BLOCK_B, BLOCK_D * G))
    if context is not None:
        acc = add_product(acc, context + (tl.cast(step, tl.int64) * B + row) * C, weight, C, PRECISION, BLOCK_K)
    acc = add_product(acc, h + row * D, weight + C, D, PRECISION, BLOCK_K)

    COUNT: tl.constexpr = 2 if BLOCK_D >= 64 else 1
    split = parts(acc, COUNT)
    for i in tl.static_range(COUNT):
        _finish(split[i], x0, h, target, activations, b, first_unit + i * (BLOCK_D // COUNT), B, D, G)


def cross_rnn(
    x0: Tensor,
    shared_weight: Tensor,
    shared_bias: Tensor,
    private_weight: Tensor,
    private_bias: Tensor,
    steps: int,
    cell: str = "gated",
    context: Tensor | None = None,
    return_states: bool = False,
    allow_tf32: bool = False,
    saved: bool = False,
) -> tuple[Tensor, Tensor]:
    """The operator: the output; and a and g, [0] where they are not saved."""
    n = Sizes.of(x0, shared_bias, private_bias, steps, cell, context)
    x0, empty = x0.contiguous(), x0.new_empty
    out = empty(n.T, n.L + 1, n.B, n.D) if return_states else empty(n.T, n.B, n.D)
    states = out if return_states else empty(n.T, n.L - 1, n.B, n.D)
    activations = empty(n.T, n.L, n.B, n.G, n.D) if saved else None
    if return_states:
        out[:, 0] = x0
    if out.numel():
        arguments = {
            "x0": x0, "context": context.contiguous() if n.C and context is not None else None,
            "states": states, "out": None if return_states else out, "activations": activations,
            "shared_weight": product_operand(shared_weight, allow_tf32), "private_weight": product_operand(private_weight, allow_tf32),
            "bias": together(shared_bias, private_bias), "B": n.B, "S": n.S, "W": n.W, "steps": n.L,
            **n.constants(TILES, x0, allow_tf32, rows=n.B * n.T, columns=n.D),
        }  # fmt: skip
        for step in range(n.L):
            common.launch(cross_rnn_step, n.grid(arguments, n.D, n.T), step=step, **arguments)
    return out, empty(0) if activations is None else activations
