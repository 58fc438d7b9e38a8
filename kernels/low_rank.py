"""What the low-rank kernels share: tuples of tiles over the rank, and a step's two thin products.

Letters as in cross_rnn_forward, and r the rank. Of a step, with u = [context, h]::

    z = P u      y = Q u      a = W z + b      g = sigmoid(V y + c)      h' = h + g * x0 * a

z and y stay in registers as a tuple of G * SLICES tiles [BLOCK_B, BLOCK_K], first those of z, then those of y. The gathered weights are
[W, D, G, r] and projections [W, r, G, K] of each task, W = 1 if tied. Columns beyond the rank are zero: masks of the loads see to it.
"""

import triton
import triton.language as tl

from .tiles import dot, inside, store


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
