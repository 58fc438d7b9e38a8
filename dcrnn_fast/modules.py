"""The fast modules: the reference's parameters, layout and state_dict, with the operators sent to a backend."""

from __future__ import annotations

import torch
from torch import Tensor

from . import functional, reference
from .backends import require
from .sharing import Cell, SharingPlan


class CrossRNN(reference.CrossRNN):
    """:class:`dcrnn_fast.reference.CrossRNN` on a backend: x0 [B, D] to the tasks' last states [T, B, D].

    Args:
        plan: what is shared, how many steps, which cell.
        backend: "auto", or a backend by name.
        recompute: keep nothing for the backward but the inputs, and run the forward again there.

    Raises BackendUnavailable: a named backend that cannot run here.
    """

    def __init__(
        self,
        plan: SharingPlan,
        *,
        backend: str = "auto",
        recompute: bool = False,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        require(backend)
        super().__init__(plan, device=device, dtype=dtype)
        self.backend, self.recompute = backend, recompute

    def cross_rnn(self, x0: Tensor, *parameters: Tensor, context: Tensor | None = None, return_states: bool = False) -> Tensor:
        """The operator, on this module's backend."""
        return functional.cross_rnn(
            x0,
            *parameters,
            steps=self.plan.steps,
            cell=self.plan.cell,
            context=context,
            return_states=return_states,
            recompute=self.recompute,
            backend=self.backend,
        )


class PartiallySharedLinear(reference.PartiallySharedLinear):
    """:class:`dcrnn_fast.reference.PartiallySharedLinear` on a backend, set by the attribute ``backend`` ("auto" at first)."""

    backend = "auto"

    def param_gather(self, shared: Tensor, private: Tensor, index: Tensor) -> Tensor:
        """The operator, on this module's backend."""
        return functional.param_gather(shared, private, index, backend=self.backend)


class _SingleTaskCross(CrossRNN):
    cell: Cell

    def __init__(
        self,
        in_features: int,
        num_layers: int,
        *,
        backend: str = "auto",
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        plan = SharingPlan.from_ratio("rows", 1, in_features, 1.0, steps=num_layers, cell=self.cell, tied=False)
        super().__init__(plan, backend=backend, device=device, dtype=dtype)

    def forward(self, x0: Tensor) -> Tensor:
        """x0 [B, in_features] to [B, in_features]."""
        return super().forward(x0)[0]


class DCNv2(_SingleTaskCross):
    """The full-rank cross network of DCN-v2 (Wang et al., WWW 2021): ``x_{l+1} = x_0 * (W_l x_l + b_l) + x_l``, [B, D] to [B, D].

    The same job as torchrec's ``CrossNet(in_features, num_layers)``: row l * D + d of ``shared_weight`` [L * D, 1, D] is row d of W_l.
    """

    cell = "cross"


class GDCN(_SingleTaskCross):
    """The gated cross network of GDCN (Wang et al., 2023): ``x_{l+1} = x_0 * (W_l x_l + b_l) * sigmoid(V_l x_l + c_l) + x_l``.

    GDCN's gate has no bias; here it has one, c, which starts at zero.
    """

    cell = "gated"


class DCRNN(reference.DCRNN):
    """:class:`dcrnn_fast.reference.DCRNN`, argument for argument and parameter for parameter, computed by a backend.

    Raises BackendUnavailable: ``backend`` names one that cannot run here.
    """

    cross_layer = CrossRNN
    tower_layer = PartiallySharedLinear

    def _route(self, backend: str) -> None:
        require(backend)
        for module in self.modules():
            if isinstance(module, (CrossRNN, PartiallySharedLinear)):
                module.backend = backend
