"""What the kernels share: on the host tile sizes and launches; on the device products of tiles and the gate.

Triton times the tiles of a kernel at the first launch of a size (``triton.autotune``) and keeps the choice: a tile's columns, warps and
pipeline stages. Its rows and the length of its products, on which buffers and the order of sums depend, follow from the sizes.
"""

import threading
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor
from torch.library import wrap_triton

from dcrnn_fast.errors import BackendUnavailable

from . import INTERPRETED as _INTERPRETED

INTERPRETED = tl.constexpr(_INTERPRETED)
ITEMSIZE = {"bfloat16": 2, "float16": 2, "tf32": 4, "float32": 4, "float64": 8}
"""Bytes of a value, by ``kind``: the dtype as the products see it. "float32" is exact, "tf32" is float32 rounded for the tensor cores."""
_launching = threading.RLock()
"""Triton's tuner keeps the arguments of a launch in itself."""


class Card(NamedTuple):
    """A GPU's multiprocessors, and the bytes of shared memory that a program can have."""

    multiprocessors: int
    shared_memory: int


H100 = Card(132, 232_448)


@cache
def card_of(device: torch.device) -> Card:
    """The card of a tensor's device; for a CPU, where kernels are interpreted or traced, an H100."""
    if device.type != "cuda":
        return H100
    found: Any = torch.cuda.get_device_properties(device)  # PyTorch's types leave out the shared memory
    return Card(found.multi_processor_count, found.shared_memory_per_block_optin)


class Tile(NamedTuple):
    """A tile's rows, columns and products; the warps of a program; the stages of its software pipeline."""

    rows: int
    columns: int
    products: int
    warps: int
    stages: int

    def config(self) -> triton.Config:
        """What Triton times."""
        return triton.Config({"BLOCK_D": self.columns}, num_warps=self.warps, num_stages=self.stages)


INTERPRETED_TILE = Tile(16, 64, 32, 4, 1)
"""The tile of every kernel in the interpreter, which times nothing; tests replace it."""


class Tiles:
    """The tiles of a kernel.

    Args:
        kernel: its name.
        by_kind: by kind, and by the largest rank that they serve (0: the full cell), the tiles. Those with as many rows are timed.
        shared_bytes: at most so many bytes of shared memory does a tile take, from the tile, the kind, G and the rank.
    """

    def __init__(
        self,
        kernel: str,
        by_kind: Mapping[str, Mapping[int, Sequence[tuple[int, int, int, int, int]]]],
        shared_bytes: Callable[[Tile, str, int, int], int],
    ) -> None:
        self.kernel, self.shared_bytes = kernel, shared_bytes
        self.by_kind = {kind: {rank: [Tile(*one) for one in tiles] for rank, tiles in ranks.items()} for kind, ranks in by_kind.items()}

    def fitting(self, kind: str, gates: int, rank: int, card: Card) -> list[Tile]:
        """The tiles that a card has room for. Raises BackendUnavailable where there is none."""
        tiles = next((self.by_kind[kind][most] for most in sorted(self.by_kind[kind]) if rank <= most), [])
        found = [tile for tile in tiles if self.shared_bytes(tile, kind, gates, rank) <= card.shared_memory]
        if not found:
            raise BackendUnavailable(
                f"backend='triton' has no tiles of {self.kernel} for {f'rank {rank} in ' if rank else ''}{kind} that fit "
                f"{card.shared_memory} bytes of shared memory a block (ranks go up to {max(self.by_kind[kind])}). Use a lower rank, "
                "backend='auto' or backend='reference'"
            )
        return found

    def chosen(self, like: Tensor, precision: str, *, rows: int, columns: int, gates: int, rank: int) -> dict[str, int]:
        """The rows and products of a launch's tiles, by the names of the kernels' constants.

        It takes the most rows with which the programs keep three of four multiprocessors busy, else the fewest: operands are read once a
        tile. Of a size that a traced graph leaves open, the traced value counts.
        """
        card = card_of(like.device)
        tiles = sorted(self.fitting(kind_of(like.dtype, precision), gates, rank, card), reverse=True)
        if _INTERPRETED:
            return {"BLOCK_B": INTERPRETED_TILE.rows, "BLOCK_D": INTERPRETED_TILE.columns, "BLOCK_K": INTERPRETED_TILE.products}
        programs = [divide_up(_hint(rows), tile.rows) * divide_up(_hint(columns), tile.columns) for tile in tiles]
        busy = [tile for tile, count in zip(tiles, programs, strict=True) if 4 * count >= 3 * card.multiprocessors]
        tile = busy[0] if busy else tiles[-1]
        return {"BLOCK_B": tile.rows, "BLOCK_K": tile.products}

    def tuned(self, *key: str) -> Callable[[Any], Any]:
        """Decorate a kernel so that Triton times the tiles that have a launch's rows and products, once for each ``key`` of its arguments.

        A launch must write the same values if it is made again.
        """

        def prune(configs: list[triton.Config], named_args: Mapping[str, Any], **given: Any) -> list[triton.Config]:
            like = next(value for value in given.values() if isinstance(value, Tensor))  # every launch names one of the call's dtype first
            kind = kind_of(like.dtype, given["PRECISION"])
            fitting = self.fitting(kind, given["G"], given.get("RANK", 0), card_of(like.device))
            wanted = [tile.config() for tile in fitting if (tile.rows, tile.products) == (given["BLOCK_B"], given["BLOCK_K"])]
            found = [config for config in configs if config in wanted]
            return found[:1] if _captures() else found  # a graph that is captured can time nothing

        def decorate(kernel: Any) -> Any:
            if _INTERPRETED:
                return kernel
            every = [tile.config() for ranks in self.by_kind.values() for tiles in ranks.values() for tile in tiles]
            tuner = triton.autotune(
                list(dict.fromkeys(every)), [*key, "BLOCK_B", "BLOCK_K"], prune_configs_by={"early_config_prune": prune},
                do_bench=_seconds, cache_results=True,
            )(kernel)  # fmt: skip
            tuner.tiles = self
            return tuner

        return decorate


def _hint(size: int | torch.SymInt) -> int:
    """The size in the call that is traced; the graph stays open for others."""
    hint = size if isinstance(size, int) else size.node.hint
    return 8192 if hint is None else int(hint)


def _captures() -> bool:
    return torch.cuda.is_available() and torch.cuda.is_current_stream_capturing()


def _seconds(call: Callable[[], object], quantiles: Sequence[float]) -> Any:
    """What Triton's tuner takes for the time of a launch."""
    return [0.0] * len(quantiles) if _captures() else triton.testing.do_bench(call, quantiles=quantiles)


def launch(kernel: Any, grid: Sequence[int] | Callable[[Mapping[str, int]], Sequence[int]], **arguments: Any) -> None:
    """Launch a kernel on the device of its first tensor; a graph that is traced has the launch as a node.

    A grid may depend on the tile's BLOCK_D. The compiler may not fuse multiplications and additions by itself.
    """
    if _INTERPRETED:
        kernel[grid](**arguments)
    else:
        with _launching, torch.cuda.device_of(next(value for value in arguments.values() if isinstance(value, Tensor))):
            wrap_triton(kernel)[grid](**arguments, enable_fp_fusion=False)


def divide_up(number: int, by: int) -> int:
    """The quotient, rounded up. On the host, Triton's ``cdiv`` takes as long as a launch."""
    return -(-number // by)


def precision(dtype: torch.dtype, allow_tf32: bool) -> str:
    """How a product of values of ``dtype`` is computed: "ieee", or "tf32" for float32 where that is allowed."""
    return "tf32" if dtype == torch.float32 and allow_tf32 else "ieee"


def kind_of(dtype: torch.dtype, precision: str) -> str:
    """The dtype as the products see it, one of :data:`ITEMSIZE`."""
    return "tf32" if precision == "tf32" else str(dtype).removeprefix("torch.")


def aligned(bank: Tensor) -> Tensor:
    """The bank, contiguous and from a multiple of 16 bytes on, as :func:`bank_rows` promises the compiler.

    A tensor that is traced has no address; PyTorch's allocators begin its storage on a boundary of more than 16 bytes.
    """
    bank = bank.contiguous()
    traced = torch.compiler.is_compiling() or type(bank) not in (Tensor, torch.nn.Parameter)
    start = bank.storage_offset() * bank.element_size() if traced else bank.data_ptr()
    return bank.clone() if start % 16 else bank


@triton.jit
def bank_rows(is_shared, shared, private, SIZE: tl.constexpr):
    """Pointers to rows of SIZE values in one of two banks. The compiler cannot derive through the choice how they are aligned."""
    ROW: tl.constexpr = SIZE * (shared.dtype.element_ty.primitive_bitwidth // 8)
    return tl.multiple_of(tl.where(is_shared, shared, private), (ROW | 16) & -(ROW | 16))


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
def tf32_copy(x, out, N, BLOCK: tl.constexpr):
    """Copy N values, rounded to tf32."""
    n = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    tl.store(out + n, to_tf32(tl.load(x + n, mask=n < N)), mask=n < N)


def product_operand(weight: Tensor, allow_tf32: bool) -> Tensor:
    """Weights as a product's right operand: aligned, and rounded if the product is in tf32."""
    weight = aligned(weight)
    if weight.numel() == 0 or precision(weight.dtype, allow_tf32) != "tf32":
        return weight
    out = torch.empty_like(weight)
    launch(tf32_copy, (divide_up(weight.numel(), 1024),), x=weight, out=out, N=weight.numel(), BLOCK=1024)
    return out


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
