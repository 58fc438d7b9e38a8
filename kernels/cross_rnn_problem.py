"""The arguments of both cells as their launches need them: contiguous tensors, and one layout of all counts and strides."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

from torch import Tensor

from dcrnn_fast.sharing import GATES

from . import tile_choice
from .launch_options import alignment, divide_up, precision
from .param_gather_launch import gather

MAX_TASKS = 65535
"""The most programs in the second dimension of a GPU's grid."""


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

    def tiles(self, block_b: int, columns: int, block_d: int) -> int:
        """Programs that cover B rows and ``columns`` columns."""
        return divide_up(self.B, block_b) * divide_up(columns, block_d)


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
    sizes: tile_choice.Sizes

    @classmethod
    def of(cls, arguments: Any) -> Problem:
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
            tile_choice.Sizes.of(a.x0, tasks, layout.G, columns + dim, steps, a.allow_tf32),
        )

    def counts(self) -> dict[str, Any]:
        """The sizes that every launch of the cell takes."""
        names = ("B", "D", "C", "R", "num_shared", "num_private")
        return {name: getattr(self.layout, name) for name in names}

    def constants(self) -> dict[str, Any]:
        """What every kernel with a product is compiled for. The compiler may not fuse multiplications and additions by itself."""
        align = alignment((self.layout.D, self.layout.C), self.banks[0], self.banks[2])
        return {"G": self.layout.G, "ALIGN": align, "PRECISION": self.precision, "enable_fp_fusion": False}

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
