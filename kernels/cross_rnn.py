"""cross_rnn: its arguments as launches need them, and its forward, a launch for each step.

Letters: T tasks, B rows, D units, C context columns, K = C + D, G = 2 (gated) or 1 (cross) vectors a unit. With u = [context, h]::

    a  = W u + b        g = sigmoid(V u + c)        h' = h + g * x0 * a

Row d of W and row d of V are neighbouring columns of one product, so the thread that holds a unit's a also holds its gate. A multiplication
that feeds an addition is written as ``fma``, so that the bits do not depend on what the compiler fuses.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import triton
import triton.language as tl
from torch import Tensor

from dcrnn_fast.sharing import GATES

from . import common
from .common import (
    ITEMSIZE,
    Tile,
    Tiles,
    add_product,
    aligned,
    alignment,
    bank_rows,
    divide_up,
    inside,
    on_device_of,
    parts,
    precision,
    sigmoid,
    store,
)
from .param_gather import gather

MAX_TASKS = 65535
"""The most programs in the second dimension of a GPU's grid."""


def _shared_bytes(tile: Tile, kind: str, gates: int, rank: int) -> int:
    return tile.stages * (tile.rows + gates * tile.columns) * tile.products * ITEMSIZE[kind] + 2048


_HALF = [(128, 128, 64, 8, 3), (128, 128, 64, 8, 4), (64, 64, 64, 4, 4), (64, 64, 64, 4, 3), (32, 64, 64, 4, 4)]
TILES = Tiles(
    "cross_rnn",
    {
        "bfloat16": {0: _HALF},
        "float16": {0: _HALF},
        "tf32": {0: [(128, 64, 32, 8, 3), (64, 64, 32, 4, 4), (64, 64, 32, 4, 3), (32, 64, 32, 4, 4)]},
        "float32": {0: [(64, 64, 16, 8, 3), (64, 32, 16, 8, 3)]},
        "float64": {0: [(32, 32, 16, 4, 3)]},
    },
    _shared_bytes,
)


@triton.jit
def _finish(acc, x0, h, out, activations, b, unit, B, D, G: tl.constexpr, SAVE: tl.constexpr, STORE: tl.constexpr):
    """a and the gate's argument to h', for the units from ``unit`` on."""
    BLOCK_D: tl.constexpr = acc.shape[1] // G
    d = unit + tl.arange(0, BLOCK_D)
    stored = inside(b, B, d, D)
    at = b.to(tl.int64)[:, None] * D + d[None, :]
    kept = b.to(tl.int64)[:, None] * (G * D) + d[None, :]
    update = tl.load(x0 + at, mask=stored).to(acc.dtype)
    if G == 2:
        a, q = tl.split(tl.reshape(acc, (acc.shape[0], BLOCK_D, 2)))
        g = sigmoid(q)
        update *= g
        if SAVE:
            store(activations + kept + D, g, stored)
    else:
        a = acc
    if SAVE:
        store(activations + kept, a, stored)
    if STORE:
        store(out + at, tl.fma(update, a, tl.load(h + at, mask=stored).to(acc.dtype)), stored)


@triton.jit
def _tile(
    x0, h, context, out, activations, shared_weight, shared_bias, private_weight, private_bias, index,
    B, D, C, num_shared, num_private, task, row_tile, unit_tile,
    G: tl.constexpr, HAS_CONTEXT: tl.constexpr, GATHERED: tl.constexpr, SAVE: tl.constexpr, STORE: tl.constexpr, ALIGN: tl.constexpr,
    PRECISION: tl.constexpr, BLOCK_B: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    """One tile of one step of one task, where the pointers begin. Writes a, g to ``activations`` [B, G, D] and h' to ``out`` [B, D].

    With GATHERED, ``shared_weight`` are the step's weights [D, G, K], gathered before; else they are found by the index.
    """
    K = C + D
    # tiles at the edge compute the last row and unit several times and store them once, which saves a mask
    n = tl.arange(0, BLOCK_D * G)
    b = row_tile * BLOCK_B + tl.arange(0, BLOCK_B)
    row = tl.minimum(b, B - 1).to(tl.int64)
    unit = tl.minimum(unit_tile * BLOCK_D + n // G, D - 1)
    bias, valid = bank_rows(shared_bias, private_bias, index, unit, num_shared, num_private, G, task, 1)
    if GATHERED:
        weight = shared_weight + unit.to(tl.int64) * (G * K)
    else:
        weight, _ = bank_rows(shared_weight, private_weight, index, unit, num_shared, num_private, G * K, task, ALIGN)
    weight += n % G * K

    # the sums start at the biases: loaded after the loop, the biases would need registers that the accumulator holds
    ACC: tl.constexpr = tl.float64 if x0.dtype.element_ty == tl.float64 else tl.float32
    first = tl.where(valid, tl.load(bias + n % G).to(ACC), float("nan"))
    acc = tl.broadcast_to(first[None, :], (BLOCK_B, BLOCK_D * G))
    if HAS_CONTEXT:
        acc = add_product(acc, context + row * C, weight, C, PRECISION, BLOCK_K)
    acc = add_product(acc, h + row * D, weight + C, D, PRECISION, BLOCK_K)

    COUNT: tl.constexpr = 2 if BLOCK_D >= 64 else 1
    split = parts(acc, COUNT)
    for i in tl.static_range(COUNT):
        _finish(split[i], x0, h, out, activations, b, unit_tile * BLOCK_D + i * (BLOCK_D // COUNT), B, D, G, SAVE, STORE)


@TILES.tuned(["D", "C", "G"])
@triton.jit
def cross_rnn_step(
    x0, states, context, out, activations, shared_weight, shared_bias, private_weight, private_bias, index,
    B, D, C, R, num_shared, num_private, first_row, read, write, states_stride, context_at, activations_at, activations_stride,
    G: tl.constexpr, HAS_CONTEXT: tl.constexpr, GATHERED: tl.constexpr, FIRST: tl.constexpr, LAST: tl.constexpr, SAVE: tl.constexpr,
    STORE: tl.constexpr, ALIGN: tl.constexpr, PRECISION: tl.constexpr, BLOCK_B: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    """One step; a program computes a tile. Reads x0 (FIRST) or ``states + read``; writes ``out`` [T, B, D] (LAST) or ``states + write``.

    Offsets and strides are in values: ``read``, ``write``, ``context_at`` and ``activations_at`` to the step, ``states_stride`` and
    ``activations_stride`` from task to task; ``first_row`` is the step's first row of the index.
    """
    task = tl.program_id(1).to(tl.int64)
    V: tl.constexpr = ALIGN // (x0.dtype.element_ty.primitive_bitwidth // 8)
    D, C = aligned(D, V), aligned(C, V)
    unit_tiles = tl.cdiv(D, BLOCK_D)
    h = x0
    if not FIRST:
        h = states + aligned(read + task * states_stride, V)
    target = states + aligned(write + task * states_stride, V)
    if LAST:
        target = out + task * B * D
    context += aligned(context_at, V)
    activations += aligned(activations_at + task * activations_stride, V)
    if GATHERED:
        shared_weight += (task * R + first_row) * G * (C + D)
    _tile(
        x0, h, context, target, activations,
        shared_weight, shared_bias, private_weight, private_bias, index + task * R + first_row,
        B, D, C, num_shared, num_private, task, tl.program_id(0) // unit_tiles, tl.program_id(0) % unit_tiles,
        G, HAS_CONTEXT, GATHERED, SAVE, STORE, ALIGN, PRECISION, BLOCK_B, BLOCK_D, BLOCK_K,
    )  # fmt: skip


@dataclass(frozen=True)
class Layout:
    """Counts in the kernels' letters, and strides in values. Every buffer is contiguous: task, then step, then row."""

    T: int
    B: int
    D: int
    C: int
    R: int
    G: int
    L: int
    num_shared: int
    num_private: int

    @property
    def size(self) -> int:
        """Values of a state [B, D]."""
        return self.B * self.D

    @property
    def plane(self) -> int:
        """Values of a step's activations, or of its da and dq, [B, G, D]."""
        return self.G * self.size

    @property
    def step_rows(self) -> int:
        """Rows of the index from a step to the next one: D for untied weights, else 0."""
        return self.D if self.R != self.D else 0

    def context_at(self, step: int) -> int:
        """Where a step's context begins."""
        return step * self.B * self.C

    def grid(self, tile: dict[str, int], columns: int, *more: int) -> Any:
        """The programs that cover B rows and ``columns`` columns, by the number of columns of a tile, and those of further dimensions."""
        rows = divide_up(self.B, tile["BLOCK_B"])
        return lambda meta: (rows * divide_up(columns, meta["BLOCK_D"]), *more)


@dataclass(frozen=True)
class Problem:
    """The arguments of cross_rnn and of its backward; of low_rank_cross_rnn, all but the projection."""

    layout: Layout
    x0: Tensor
    banks: tuple[Tensor, Tensor, Tensor, Tensor]
    index: Tensor
    context: Tensor | None
    return_states: bool
    precision: str

    @classmethod
    def of(cls, arguments: Any) -> "Problem":
        """The problem of an operator's arguments, which have the names of its schema."""
        a = arguments
        (tasks, rows), (batch, dim) = a.index.shape, a.x0.shape
        if isinstance(tasks, int) and tasks > MAX_TASKS:
            raise ValueError(
                f"index: got {tasks} tasks, expected at most {MAX_TASKS}, as many as a launch can have; use backend='reference'"
            )
        steps = int(a.steps)  # a graph fixes it: each step is a launch
        columns = 0 if a.context is None else a.context.shape[2]
        layout = Layout(tasks, batch, dim, columns, rows, GATES[a.cell], steps, a.shared_weight.shape[0], a.private_weight.shape[1])
        banks = a.shared_weight.contiguous(), a.shared_bias.contiguous(), a.private_weight.contiguous(), a.private_bias.contiguous()
        return cls(
            layout,
            a.x0.contiguous(),
            banks,
            a.index.contiguous(),
            None if a.context is None else a.context.contiguous(),
            a.return_states,
            precision(a.x0.dtype, a.allow_tf32),
        )

    def counts(self) -> dict[str, Any]:
        """The sizes that every launch of the cell takes."""
        names = ("B", "D", "C", "R", "num_shared", "num_private")
        return {name: getattr(self.layout, name) for name in names}

    def constants(self) -> dict[str, Any]:
        """What every kernel with a product is compiled for. The compiler may not fuse multiplications and additions by itself."""
        align = alignment((self.layout.D, self.layout.C), self.banks[0], self.banks[2])
        return {"G": self.layout.G, "ALIGN": align, "PRECISION": self.precision, "enable_fp_fusion": False}

    def tile(self, tiles: Tiles, *, rows: int, columns: int, rank: int = 0) -> dict[str, int]:
        """A launch's rows and products of a tile, for so many rows and columns in all."""
        return tiles.chosen(self.x0, self.precision, rows=rows, columns=columns, gates=self.layout.G, rank=rank)

    @cached_property
    def weights(self) -> Tensor:
        """The weights of all tasks, gathered, [T, R, G, K]; for tf32 rounded to it, because a product's right operand must be."""
        return gather(self.banks[0], self.banks[2], self.index, tf32=self.precision == "tf32")

    @cached_property
    def backward_weights(self) -> Tensor:
        """The gathered weights as the backward reads them: for tf32 those of each step transposed, [T, R / D, K, D * G]."""
        p, weights = self.layout, self.weights
        return weights.view(p.T, p.R // p.D, p.D * p.G, p.C + p.D).mT.contiguous() if self.precision == "tf32" else weights

    def bank_pointers(self) -> dict[str, Any]:
        """The banks and the index as a forward launch takes them. GATHERED: the gathered weights stand in the place of both banks."""
        shared_weight, shared_bias, private_weight, private_bias = self.banks
        gathered = self.precision == "tf32"
        if gathered:
            shared_weight = private_weight = self.weights
        return {
            "shared_weight": shared_weight, "shared_bias": shared_bias, "private_weight": private_weight, "private_bias": private_bias,
            "index": self.index, "GATHERED": gathered,
        }  # fmt: skip


def forward(problem: Problem, *, keep_states: bool, keep_activations: bool) -> tuple[Tensor, Tensor, Tensor]:
    """The output, the states 1 to L - 1 unless the output holds them, and the activations; [0] for what is not kept."""
    p, x0 = problem.layout, problem.x0
    out = x0.new_empty(p.T, p.L + 1, p.B, p.D) if problem.return_states else x0.new_empty(p.T, p.B, p.D)
    slots = p.L - 1 if keep_states else min(2, p.L - 1)
    states = x0.new_empty(0) if problem.return_states else x0.new_empty(p.T, slots, p.B, p.D)
    activations = x0.new_empty(p.T, p.L, p.B, p.G, p.D) if keep_activations else x0.new_empty(0)
    if problem.return_states:
        out[:, 0] = x0
    if out.numel():
        buffer, slots, first_slot = (out, p.L + 1, 1) if problem.return_states else (states, max(slots, 1), 0)
        with on_device_of(x0):
            for step in range(p.L):
                read, write = ((first_slot + at) % slots * p.size for at in (step - 1, step))
                launch_step(
                    problem, step, states=buffer, states_stride=slots * p.size, read=read, write=write, out=out,
                    activations=activations, activations_at=step * p.plane, activations_stride=p.L * p.plane,
                )  # fmt: skip
    return out, states if keep_states and not problem.return_states else x0.new_empty(0), activations


def launch_step(
    problem: Problem,
    step: int,
    *,
    states: Tensor,
    states_stride: int,
    read: int,
    write: int,
    out: Tensor | None,
    activations: Tensor,
    activations_at: int,
    activations_stride: int,
) -> None:
    """Launch one step. It reads the state at ``states + read`` and writes the next one to ``states + write``, or the last one to ``out``.

    Without ``out`` it writes the activations alone. Strides are from task to task.
    """
    p = problem.layout
    tile = problem.tile(TILES, rows=p.B * p.T, columns=p.D)
    save = activations.numel() > 0
    unused = states if out is None else out
    common.launch(
        cross_rnn_step, p.grid(tile, p.D, p.T),
        x0=problem.x0, states=states, context=context_of(problem), out=unused, activations=activations if save else unused,
        **problem.bank_pointers(), **problem.counts(), first_row=step * p.step_rows,
        read=read, write=write, states_stride=states_stride, context_at=p.context_at(step),
        activations_at=activations_at, activations_stride=activations_stride,
        FIRST=step == 0, LAST=out is not None and step == p.L - 1 and not problem.return_states, SAVE=save, STORE=out is not None,
        HAS_CONTEXT=p.C > 0, **problem.constants(), **tile,
    )  # fmt: skip


def context_of(problem: Problem) -> Tensor:
    """The context, or a tensor in its place that the kernels do not read."""
    return problem.x0 if problem.context is None else problem.context
