"""The low-rank cell: all steps of a tile of rows of one task in one launch, and the states again from kept z and y.

Letters as in cross_rnn, and r the rank. Of a step, with u = [context, h]::

    z = P u      y = Q u      a = W z + b      g = sigmoid(V y + c)      h' = h + g * x0 * a

z and y stay in registers as a tuple of G * SLICES tiles [BLOCK_B, BLOCK_K], first those of z, then those of y. The gathered weights are
[W, D, G, r] and projections [W, r, G, K] of each task, W = 1 if tied. Columns beyond the rank are zero: masks of the loads see to it.

A step goes once over the units. A block of units computes a, g and h' from z and y, and adds the product of its h' with P and Q to the next
step's z and y. So h is read once a step, and written once, in place where the output lies; a program reads back its own rows alone.
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import triton
import triton.language as tl
from torch import Tensor

from dcrnn_fast.errors import BackendUnavailable

from . import common
from .common import ITEMSIZE, Tile, Tiles, aligned, alignment, divide_up, dot, inside, on_device_of, rounded, sigmoid, store
from .cross_rnn import Problem, context_of
from .param_gather import gather_low_rank


def shared_bytes(tile: Tile, kind: str, gates: int, rank: int, held: int = 1) -> int:
    """At most so many bytes of shared memory: ``held`` times z and y; the weights; values between two layouts."""
    columns = gates * divide_up(rank, tile.products) * tile.products
    weights = (2 * tile.stages - 1) * tile.columns * columns
    return (held * tile.rows * columns + weights) * ITEMSIZE[kind] + 2 * tile.rows * tile.columns * max(4, ITEMSIZE[kind]) + 16384


_HALF = {
    16: [(128, 64, 16, 8, 2), (128, 32, 16, 8, 2), (32, 64, 16, 4, 2), (32, 32, 16, 4, 2), (16, 64, 16, 4, 2), (16, 32, 16, 4, 2)],
    32: [(128, 32, 32, 8, 2), (64, 64, 32, 8, 2), (64, 32, 32, 4, 2), (32, 32, 32, 4, 2), (16, 64, 32, 4, 2), (16, 32, 32, 4, 2)],
    64: [(128, 32, 64, 8, 2), (32, 64, 64, 4, 2), (32, 32, 64, 4, 2), (16, 32, 64, 4, 2)],
    128: [(64, 32, 128, 8, 2), (32, 32, 64, 4, 2), (16, 32, 64, 4, 2)],
    256: [(32, 32, 64, 8, 2), (16, 32, 64, 8, 2), (16, 16, 64, 8, 2)],
}
_TF32 = {
    16: [(32, 32, 16, 4, 2), (16, 32, 16, 4, 2)],
    32: [(32, 32, 32, 4, 2), (32, 32, 32, 8, 2), (16, 32, 32, 4, 2), (16, 16, 32, 4, 2)],
    64: [(32, 32, 64, 4, 2), (16, 32, 64, 4, 2)],
    256: [(16, 16, 64, 8, 2)],
}
TILES = Tiles(
    "low_rank_cross_rnn",
    {
        "bfloat16": _HALF,
        "float16": _HALF,
        "tf32": _TF32,
        "float32": {
            32: [(32, 16, 16, 8, 2), (32, 32, 16, 8, 1), (16, 32, 16, 4, 2), (16, 16, 16, 4, 2)],
            64: [(32, 16, 16, 8, 2), (16, 16, 16, 8, 2)],
            256: [(16, 16, 16, 8, 1)],
        },
        "float64": {16: [(16, 16, 16, 4, 2)], 64: [(16, 16, 64, 4, 2)], 256: [(16, 16, 64, 8, 1)]},
    },
    shared_bytes,
)
"""Of all kernels but the backward's walk. With a larger rank than D / 2 the thin products cost more than the full cell's."""


@triton.jit
def zero_tiles(COUNT: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr, DTYPE: tl.constexpr):
    """COUNT tiles of zeros."""
    found = ()
    for _ in tl.static_range(COUNT):
        found += (tl.zeros((ROWS, COLUMNS), dtype=DTYPE),)
    return found


@triton.jit
def tile_rows(first, B, BLOCK_B: tl.constexpr):
    """A tile's rows counted from its first, the same with rows beyond B repeating the last one, for loads, and how many rows it has.

    Pointers to the first row and distances of 32 bits from it take fewer registers than distances of 64 bits.
    """
    b = tl.arange(0, BLOCK_B)
    rows = tl.minimum(B - first, BLOCK_B).to(tl.int32)
    return b, tl.minimum(b, rows - 1), rows


@triton.jit
def of_task(weight, bias, projection, task, D, K, steps, G: tl.constexpr, RANK: tl.constexpr, TIED: tl.constexpr):
    """Where a task's gathered weights, biases and projections begin."""
    first = task if TIED else task * steps
    return of_step(weight, bias, projection, first, D, K, G, RANK, False)


@triton.jit
def of_step(weight, bias, projection, step, D, K, G: tl.constexpr, RANK: tl.constexpr, TIED: tl.constexpr):
    """Where those of a step begin, from where those of its task do."""
    if TIED:
        return weight, bias, projection
    else:
        at = tl.cast(step, tl.int64)
        return weight + at * D * (G * RANK), bias + at * D * G, projection + at * K * (G * RANK)


@triton.jit
def rank_columns(i: tl.constexpr, BLOCK_K: tl.constexpr):
    """The columns of slice ``i`` of the rank."""
    return i * BLOCK_K + tl.arange(0, BLOCK_K)


@triton.jit
def weight_tiles(weight, n, D, G: tl.constexpr, RANK: tl.constexpr, SLICES: tl.constexpr, BLOCK_K: tl.constexpr):
    """Rows ``n`` of W, then of V, from weights [D, G, r]: tiles [len(n), BLOCK_K]."""
    found = ()
    for g in tl.static_range(G):
        for i in tl.static_range(SLICES):
            j = rank_columns(i, BLOCK_K)
            rows = weight + n[:, None] * (G * RANK) + (g * RANK + j)[None, :]
            found += (tl.load(rows, mask=inside(n, D, j, RANK), other=0.0),)
    return found


@triton.jit
def projection_tiles(projection, n, columns, K, G: tl.constexpr, RANK: tl.constexpr, SLICES: tl.constexpr, BLOCK_K: tl.constexpr):
    """Columns ``n`` of P, then of Q, from projections [r, G, K], of which there are ``columns``: tiles [BLOCK_K, len(n)]."""
    found = ()
    for g in tl.static_range(G):
        for i in tl.static_range(SLICES):
            j = rank_columns(i, BLOCK_K)
            rows = projection + j[:, None] * (G * K) + (g * K + n)[None, :]
            found += (tl.load(rows, mask=inside(j, RANK, n, columns), other=0.0),)
    return found


@triton.jit
def add_each(acc, left, right, PRECISION: tl.constexpr):
    """Each accumulator plus ``left`` times the transposed tile of ``right`` in its place."""
    found = ()
    for i in tl.static_range(len(right)):
        found += (dot(left, tl.trans(right[i]), acc[i], PRECISION),)
    return found


@triton.jit
def load_tiles(pointer, row, G: tl.constexpr, RANK: tl.constexpr, SLICES: tl.constexpr, BLOCK_K: tl.constexpr):
    """Rows ``row`` of z and y, or of their gradients, [B, G, r]."""
    found = ()
    for g in tl.static_range(G):
        for i in tl.static_range(SLICES):
            j = rank_columns(i, BLOCK_K)
            at = pointer + row[:, None] * (G * RANK) + (g * RANK + j)[None, :]
            found += (tl.load(at, mask=(j < RANK)[None, :], other=0.0),)
    return found


@triton.jit
def through_memory(pointer, tiles, b, row, rows, G: tl.constexpr, RANK: tl.constexpr, SLICES: tl.constexpr, BLOCK_K: tl.constexpr):
    """Store sums [B, G, r], and load them as operands of the next products: from shared memory, which leaves registers to other values.

    Beyond the rank a row with an infinity has NaN, of 0 * infinity; it is not stored, and loaded as 0.
    """
    for g in tl.static_range(G):
        for i in tl.static_range(SLICES):
            j = rank_columns(i, BLOCK_K)
            at = pointer + b[:, None] * (G * RANK) + (g * RANK + j)[None, :]
            store(at, tiles[g * SLICES + i], inside(b, rows, j, RANK))
    tl.debug_barrier()
    return load_tiles(pointer, row, G, RANK, SLICES, BLOCK_K)


@triton.jit
def biases(bias, start, n, D, G: tl.constexpr, ACC: tl.constexpr):
    """b, and with a gate c, of units ``n``, which begin with ``start``, from [D, G]; read side by side, as they lie."""
    if G == 1:
        return (tl.load(bias + n, mask=n < D, other=0.0).to(ACC),)
    else:
        both = start * 2 + tl.arange(0, 2 * n.shape[0])
        values = tl.load(bias + both, mask=both < 2 * D, other=0.0).to(ACC)
        return tl.split(tl.reshape(values, (n.shape[0], 2)))


@triton.jit
def with_bias(z, tiles, bias, gate: tl.constexpr, SLICES: tl.constexpr, PRECISION: tl.constexpr):
    """a (``gate`` 0) or the gate's argument (1): the sums start at the biases."""
    acc = tl.broadcast_to(bias[None, :], (z[0].shape[0], bias.shape[0]))
    for i in tl.static_range(SLICES):
        acc = dot(z[gate * SLICES + i], tl.trans(tiles[gate * SLICES + i]), acc, PRECISION)
    return acc


@triton.jit
def _next_state(h, x, z, tiles, bias, n, D, G: tl.constexpr, SLICES: tl.constexpr, PRECISION: tl.constexpr):
    """h' of units ``n``; 0 beyond D, where an infinite z leaves NaN."""
    a = with_bias(z, tiles, bias[0], 0, SLICES, PRECISION)
    if G == 2:
        x *= sigmoid(with_bias(z, tiles, bias[1], 1, SLICES, PRECISION))
    return tl.where((n < D)[None, :], tl.fma(x, a, h), 0.0)


@triton.jit
def _project(
    acc, left, projection, columns, K,
    G: tl.constexpr, RANK: tl.constexpr, SLICES: tl.constexpr, PRECISION: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    """z and y plus the products of ``columns`` columns of u, to which ``left`` points, with those of the projections."""
    for start in range(0, columns, BLOCK_D):
        n = start + tl.arange(0, BLOCK_D)
        u = tl.load(left[:, None] + n[None, :], mask=(n < columns)[None, :], other=0.0)
        acc = add_each(acc, u, projection_tiles(projection, n, columns, K, G, RANK, SLICES, BLOCK_K), PRECISION)
    return acc


@triton.jit
def _step(
    acc, z, x0, h, target, weight, bias, projection, b, row, rows, D, K,
    PROJECT: tl.constexpr, G: tl.constexpr, RANK: tl.constexpr, SLICES: tl.constexpr, PRECISION: tl.constexpr,
    BLOCK_D: tl.constexpr, BLOCK_K: tl.constexpr,
):  # fmt: skip
    """Write h' of all units to ``target``; with PROJECT add its products with the next step's projections to ``acc``, which is returned."""
    ACC: tl.constexpr = tl.float64 if x0.dtype.element_ty == tl.float64 else tl.float32
    for start in range(0, D, BLOCK_D):
        n = start + tl.arange(0, BLOCK_D)
        read = row[:, None] * D + n[None, :]
        units = (n < D)[None, :]
        x = tl.load(x0 + read, mask=units, other=0.0).to(ACC)
        old = tl.load(h + read, mask=units, other=0.0).to(ACC)
        tiles = weight_tiles(weight, n, D, G, RANK, SLICES, BLOCK_K)
        new = _next_state(old, x, z, tiles, biases(bias, start, n, D, G, ACC), n, D, G, SLICES, PRECISION)
        store(target + b[:, None] * D + n[None, :], new, inside(b, rows, n, D))
        if PROJECT:
            columns = projection_tiles(projection, n, D, K, G, RANK, SLICES, BLOCK_K)
            acc = add_each(acc, rounded(new, x0.dtype.element_ty), columns, PRECISION)
    return acc


@TILES.tuned(["D", "C", "G", "RANK"])
@triton.jit
def low_rank_forward(
    x0, context, out, activations, weight, bias, projection,
    B, D, C, steps, out_stride, out_step,
    G: tl.constexpr, RANK: tl.constexpr, TIED: tl.constexpr, HAS_CONTEXT: tl.constexpr, SAVE: tl.constexpr, ALIGN: tl.constexpr,
    PRECISION: tl.constexpr, BLOCK_B: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_K: tl.constexpr, SLICES: tl.constexpr,
):  # fmt: skip
    """All steps. The state after step l goes to ``out + (l + 1) * out_step``: with 0, all go to one place, and the last one stays.

    ``out_stride`` is the distance from task to task. ``activations`` get z and y: of every step, [T, L, B, G, r] (SAVE), or of
    the current one, [T, B, G, r].
    """
    task = tl.program_id(1).to(tl.int64)
    V: tl.constexpr = ALIGN // (x0.dtype.element_ty.primitive_bitwidth // 8)
    ACC: tl.constexpr = tl.float64 if x0.dtype.element_ty == tl.float64 else tl.float32
    D, C = aligned(D, V), aligned(C, V)
    K = C + D
    first = tl.program_id(0).to(tl.int64) * BLOCK_B
    b, row, rows = tile_rows(first, B, BLOCK_B)
    x0 += first * D
    context += first * C
    kept_step = tl.cast(B, tl.int64) * (G * RANK)
    activations += first * (G * RANK)
    if SAVE:
        activations += task * steps * kept_step
    else:
        activations += task * kept_step
        kept_step *= 0
    out += aligned(task * out_stride, V) + first * D
    weight, bias, projection = of_task(weight, bias, projection, task, D, K, steps, G, RANK, TIED)

    acc = zero_tiles(G * SLICES, BLOCK_B, BLOCK_K, ACC)
    if HAS_CONTEXT:
        acc = _project(acc, context + row * C, projection, C, K, G, RANK, SLICES, PRECISION, BLOCK_D, BLOCK_K)
    acc = _project(acc, x0 + row * D, projection + C, D, K, G, RANK, SLICES, PRECISION, BLOCK_D, BLOCK_K)
    for step in range(steps - 1):
        z = through_memory(activations + step * kept_step, acc, b, row, rows, G, RANK, SLICES, BLOCK_K)
        w, c, _ = of_step(weight, bias, projection, step, D, K, G, RANK, TIED)
        _, _, p = of_step(weight, bias, projection, step + 1, D, K, G, RANK, TIED)
        acc = zero_tiles(G * SLICES, BLOCK_B, BLOCK_K, ACC)
        if HAS_CONTEXT:
            upstream = context + (step + 1) * C * tl.cast(B, tl.int64)
            acc = _project(acc, upstream + row * C, p, C, K, G, RANK, SLICES, PRECISION, BLOCK_D, BLOCK_K)
        h = tl.where(step == 0, x0, out + aligned(step * out_step, V))
        target = out + aligned((step + 1) * out_step, V)
        acc = _step(acc, z, x0, h, target, w, c, p + C, b, row, rows, D, K, True, G, RANK, SLICES, PRECISION, BLOCK_D, BLOCK_K)
    last = steps - 1
    z = through_memory(activations + last * kept_step, acc, b, row, rows, G, RANK, SLICES, BLOCK_K)
    w, c, p = of_step(weight, bias, projection, last, D, K, G, RANK, TIED)
    h = tl.where(last == 0, x0, out + aligned(last * out_step, V))
    target = out + aligned(steps * out_step, V)
    _step(acc, z, x0, h, target, w, c, p, b, row, rows, D, K, False, G, RANK, SLICES, PRECISION, BLOCK_D, BLOCK_K)


@TILES.tuned(["D", "G", "RANK"])
@triton.jit
def low_rank_states(
    x0, states, activations, weight, bias,
    B, D, steps,
    G: tl.constexpr, RANK: tl.constexpr, TIED: tl.constexpr, ALIGN: tl.constexpr, PRECISION: tl.constexpr,
    BLOCK_B: tl.constexpr, BLOCK_D: tl.constexpr, BLOCK_K: tl.constexpr, SLICES: tl.constexpr,
):  # fmt: skip
    """States 1 to L - 1, [L - 1, T, B, D], from x0 and the kept z and y. A program computes a tile of all steps of one task."""
    task = tl.program_id(1).to(tl.int64)
    tasks = tl.num_programs(1)
    V: tl.constexpr = ALIGN // (x0.dtype.element_ty.primitive_bitwidth // 8)
    ACC: tl.constexpr = tl.float64 if x0.dtype.element_ty == tl.float64 else tl.float32
    D = aligned(D, V)
    unit_tiles = tl.cdiv(D, BLOCK_D)
    first = (tl.program_id(0) // unit_tiles).to(tl.int64) * BLOCK_B
    b, row, rows = tile_rows(first, B, BLOCK_B)
    start = tl.program_id(0) % unit_tiles * BLOCK_D
    n = start + tl.arange(0, BLOCK_D)
    kept = tl.cast(B, tl.int64) * (G * RANK)
    activations += task * steps * kept + first * (G * RANK)
    states += first * D
    weight, bias, _ = of_task(weight, bias, weight, task, D, 0, steps, G, RANK, TIED)

    x = tl.load(x0 + first * D + row[:, None] * D + n[None, :], mask=(n < D)[None, :], other=0.0).to(ACC)
    h = x
    for step in range(steps - 1):
        z = load_tiles(activations + step * kept, row, G, RANK, SLICES, BLOCK_K)
        w, c, _ = of_step(weight, bias, weight, step, D, 0, G, RANK, TIED)
        tiles = weight_tiles(w, n, D, G, RANK, SLICES, BLOCK_K)
        h = _next_state(h, x, z, tiles, biases(c, start, n, D, G, ACC), n, D, G, SLICES, PRECISION)
        target = states + (step * tasks + task) * (D * tl.cast(B, tl.int64))
        store(target + b[:, None] * D + n[None, :], h, inside(b, rows, n, D))


@dataclass(frozen=True)
class LowRankProblem(Problem):
    """The arguments of low_rank_cross_rnn and of its backward."""

    projection: tuple[Tensor, Tensor, Tensor]
    """The shared and the private projections, and their index."""
    rank: int

    @classmethod
    def of(cls, arguments: Any) -> "LowRankProblem":
        """The problem of an operator's arguments, which have the names of its schema."""
        cell, a = Problem.of(arguments), arguments
        p = cell.layout
        rank = int(a.projection_index.shape[1] // (p.R // p.D)) if p.D else 1  # a graph fixes it: the kernels are compiled for it
        values = 2 * rank * (p.C + p.D)
        if isinstance(values, int) and values >= 2**31:  # a traced graph may leave it open
            raise BackendUnavailable(
                f"backend='triton' counts the values of a step's projection in 32 bits: got rank {rank} and {p.C + p.D} columns, expected "
                "less than 2**30 in all. Use backend='reference'"
            )
        projection = a.shared_projection, a.private_projection, a.projection_index
        return cls(**vars(cell), projection=projection, rank=rank)

    @property
    def tied(self) -> bool:
        """Whether all steps have the same weights."""
        return self.layout.R == self.layout.D

    @cached_property
    def gathered(self) -> dict[str, Tensor]:
        """What all launches read: the gathered weights and projections, rounded for tf32, and the biases."""
        return gather_low_rank(self.banks, self.index, self.projection, self.layout.G, self.rank, tf32=self.precision == "tf32")

    def tile_constants(self, tile: dict[str, int]) -> dict[str, Any]:
        """What every kernel is compiled for. The compiler may not fuse multiplications and additions by itself."""
        p = self.layout
        return {
            "B": p.B, "D": p.D, "steps": p.L,
            "G": p.G, "RANK": self.rank, "TIED": self.tied, "SLICES": divide_up(self.rank, tile["BLOCK_K"]),
            "ALIGN": alignment((p.D, p.C), self.x0), "PRECISION": self.precision, **tile,
            "enable_fp_fusion": False,
        }  # fmt: skip


def low_rank_cross_rnn(problem: LowRankProblem, *, keep_activations: bool) -> tuple[Tensor, Tensor]:
    """The output, and z and y or [0]."""
    p, x0, every = problem.layout, problem.x0, problem.return_states
    out = x0.new_empty(p.T, p.L + 1, p.B, p.D) if every else x0.new_empty(p.T, p.B, p.D)
    activations = x0.new_empty(p.T, p.L if keep_activations else 1, p.B, p.G, problem.rank)
    if every:
        out[:, 0] = x0
    if out.numel():
        tile = problem.tile(TILES, rows=p.B * p.T, columns=1, rank=problem.rank)
        with on_device_of(x0):
            common.launch(
                low_rank_forward, (divide_up(p.B, tile["BLOCK_B"]), p.T),
                x0=x0, context=context_of(problem), out=out, activations=activations,
                **problem.gathered, C=p.C, out_stride=(p.L + 1) * p.size if every else p.size, out_step=p.size if every else 0,
                HAS_CONTEXT=p.C > 0, SAVE=keep_activations, **problem.tile_constants(tile),
            )  # fmt: skip
    return out, activations if keep_activations else x0.new_empty(0)


def states_again(problem: LowRankProblem, activations: Tensor) -> Tensor:
    """The states before every step but the first, [L - 1, T, B, D]."""
    p = problem.layout
    states = problem.x0.new_empty(p.L - 1, p.T, p.B, p.D)
    tile = problem.tile(TILES, rows=p.B * p.T, columns=p.D, rank=problem.rank)
    with on_device_of(problem.x0):
        common.launch(
            low_rank_states, p.grid(tile, p.D, p.T),
            x0=problem.x0, states=states, activations=activations, weight=problem.gathered["weight"], bias=problem.gathered["bias"],
            **problem.tile_constants(tile),
        )  # fmt: skip
    return states
