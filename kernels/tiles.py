"""What the kernels share: rows of the two banks by index, products of tiles, and the gate."""

import os

import triton
import triton.language as tl

INTERPRETED = tl.constexpr(os.environ.get("TRITON_INTERPRET") == "1")  # not the package's: the compiler's report loads this file without it


@triton.jit
def bank_rows(shared, private, index, unit, num_shared, num_private, row_size, task, ALIGN: tl.constexpr):
    """Pointers [N] to the rows of units ``unit`` [N] of a task, whose part of the index starts at ``index``, and whether each is in range.

    A row out of range gets a pointer into the banks too. The caller makes its results NaN, for a kernel cannot raise. All addresses are
    multiples of ``ALIGN`` bytes; the compiler cannot derive this through the choice between two banks.
    """
    row = tl.load(index + unit).to(tl.int64)
    valid = (row >= 0) & (row < num_shared + num_private)
    row = tl.where(valid, row, 0)
    own = task * num_private + row - num_shared
    return tl.multiple_of(tl.where(row < num_shared, shared + row * row_size, private + own * row_size), ALIGN), valid


@triton.jit
def aligned(value, V: tl.constexpr):
    """``value``, a multiple of V, in a form in which the compiler sees that it is one.

    Triton sees only whether an argument is a multiple of 16. Without this, rows of 312 values use scalar loads.
    """
    return value // V * V


@triton.jit
def inside(b, B, n, N):
    """Which values of a tile are part of a matrix [B, N]: rows ``b``, columns ``n``."""
    return (b < B)[:, None] & (n < N)[None, :]


@triton.jit
def to_tf32(x):
    """``x`` in float32, rounded to the nearest value of tf32. A tensor core drops the last 13 bits instead, and sums come out too small."""
    if INTERPRETED:
        bits = (x.to(tl.uint32, bitcast=True) + 0x1000) & 0xFFFFE000  # a carry goes on into the exponent, as it should
        return tl.where(x == x, bits.to(tl.float32, bitcast=True), x)
    else:
        return tl.inline_asm_elementwise("cvt.rna.tf32.f32 $0, $1;", "=r,r", [x], dtype=tl.float32, is_pure=True, pack=1)


@triton.jit
def _as_tensor_cores_read(x):
    """What a tensor core makes of a float32 that it reads as tf32; for the interpreter."""
    return (x.to(tl.uint32, bitcast=True) & 0xFFFFE000).to(tl.float32, bitcast=True)


@triton.jit
def dot(left, right, acc, PRECISION: tl.constexpr):
    """``acc + left @ right`` in the accumulator's dtype. For "tf32", ``right`` must have been rounded to tf32 before.

    The interpreter multiplies bfloat16 wrongly and rounds float16, so it upcasts.
    """
    if PRECISION == "tf32":
        left = to_tf32(left)
    if INTERPRETED:
        if PRECISION == "tf32":
            left, right = _as_tensor_cores_read(left), _as_tensor_cores_read(right)
        return acc + tl.dot(left.to(acc.dtype), right.to(acc.dtype), out_dtype=acc.dtype)
    else:
        return tl.dot(left, right, acc, input_precision=PRECISION, out_dtype=acc.dtype)


@triton.jit
def add_product(acc, left, right, columns, PRECISION: tl.constexpr, BLOCK_K: tl.constexpr):
    """``acc`` plus the product of two matrices' rows; ``left`` and ``right`` point to the first of ``columns`` columns of each row."""
    for start in range(0, columns, BLOCK_K):
        k = start + tl.arange(0, BLOCK_K)
        u = tl.load(left[:, None] + k[None, :], mask=(k < columns)[None, :], other=0.0)
        w = tl.load(right[None, :] + k[:, None], mask=(k < columns)[:, None], other=0.0)
        acc = dot(u, w, acc, PRECISION)
    return acc


@triton.jit
def halves(tile):
    """The left and the right half of a tile's columns."""
    return tl.split(tl.permute(tl.reshape(tile, (tile.shape[0], 2, tile.shape[1] // 2)), (0, 2, 1)))


@triton.jit
def parts(tile, COUNT: tl.constexpr):
    """A tile's columns in COUNT parts from left to right: 1, 2 or 8. All of a wide tile's operands at once do not fit the registers."""
    if COUNT == 1:
        return (tile,)
    elif COUNT == 2:
        return halves(tile)
    else:
        left, right = halves(tile)
        a, b = halves(left)
        c, d = halves(right)
        return halves(a) + halves(b) + halves(c) + halves(d)


@triton.jit
def sigmoid(x):
    """1 / (1 + exp(-x)): 0 and 1 at the ends, where exp overflows to infinity or to 0.

    In float32 by four instructions. 1 + exp(-x) is no small number, so Triton's division and exp, which take thirteen, would scale in vain.
    """
    if INTERPRETED or x.dtype == tl.float64:
        return 1.0 / (1.0 + tl.exp(-x))
    else:
        code: tl.constexpr = """{
            .reg .f32 t;
            mul.f32 t, $1, 0fBFB8AA3B;
            ex2.approx.ftz.f32 t, t;
            add.f32 t, t, 0f3F800000;
            rcp.approx.ftz.f32 $0, t;
        }"""  # the constants are -log2(e) and 1
        return tl.inline_asm_elementwise(code, "=r,r", [x], dtype=tl.float32, is_pure=True, pack=1)


@triton.jit
def rounded(value, DTYPE: tl.constexpr):
    """``value``, rounded to the nearest value of a dtype. The interpreter would truncate bfloat16, so there it stays float32."""
    if INTERPRETED and tl.bfloat16 == DTYPE:
        bits = value.to(tl.uint32, bitcast=True)
        nearest = (bits + 0x7FFF + ((bits >> 16) & 1)) & 0xFFFF0000  # left in, the low bits of a zero would become the smallest number
        return tl.where(value == value, nearest.to(tl.float32, bitcast=True), value)
    else:
        return value.to(DTYPE)


@triton.jit
def store(pointer, value, mask):
    """Store ``value``, rounded to the nearest value of the memory's dtype."""
    tl.store(pointer, rounded(value, pointer.dtype.element_ty), mask=mask)
