"""The fast modules: each has the parameters and state_dict of its counterpart in :mod:`dcrnn_fast.reference`, and computes on a backend."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .. import functional, reference
from ..ops.backends import require
from ..sharing import Cell, SharingPlan
from ..support.checks import check_flag
from .inference import PreparedDCRNN


class CrossRNN(reference.CrossRNN):
    """:class:`dcrnn_fast.reference.CrossRNN` on a backend: x0 [B, D] to each task's last state, [T, B, D].

    Args:
        plan: which units tasks share, the number of steps and the cell.
        backend: "auto", or a backend's name.
        recompute: do not keep a and g for the backward; compute them again there.

    Raises BackendUnavailable: the named backend cannot run here.

    Example:
        >>> import torch
        >>> from dcrnn_fast import CrossRNN, SharingPlan
        >>> plan = SharingPlan.from_ratio("rows", num_tasks=2, dim=8, share_ratio=0.5, steps=3)
        >>> CrossRNN(plan)(torch.randn(4, 8)).shape
        torch.Size([2, 4, 8])
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
        check_flag("recompute", recompute)
        super().__init__(plan, device=device, dtype=dtype)
        self.backend, self.recompute = backend, recompute

    def cross_rnn(self, *tensors: Tensor, **options: Any) -> Tensor:
        """The operator, on this module's backend."""
        return functional.cross_rnn(*tensors, recompute=self.recompute, backend=self.backend, **options)


class ScenarioCrossRNN(CrossRNN, reference.ScenarioCrossRNN):
    """:class:`dcrnn_fast.reference.ScenarioCrossRNN` on a backend, with the arguments of :class:`CrossRNN`.

    Example:
        >>> import torch
        >>> from dcrnn_fast import ScenarioCrossRNN, SharingPlan
        >>> plan = SharingPlan.from_ratio("trunk", num_tasks=2, dim=8, share_ratio=0.5, num_scenarios=3, scenario_ratio=0.25)
        >>> ScenarioCrossRNN(plan)(torch.randn(4, 8), torch.tensor([1, 3, 0, 1])).shape
        torch.Size([2, 4, 8])
    """


class PartiallySharedLinear(reference.PartiallySharedLinear):
    """:class:`dcrnn_fast.reference.PartiallySharedLinear` on the backend that its attribute ``backend`` names ("auto" at first).

    Example:
        >>> import torch
        >>> from dcrnn_fast import PartiallySharedLinear
        >>> layer = PartiallySharedLinear(in_features=8, out_features=4, num_tasks=2, share_ratio=0.5)
        >>> layer(torch.randn(2, 5, 8)).shape
        torch.Size([2, 5, 4])
    """

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
        rank: int | None = None,
        backend: str = "auto",
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        plan = SharingPlan.from_ratio("rows", 1, in_features, 1.0, steps=num_layers, cell=self.cell, tied=False, rank=rank)
        super().__init__(plan, backend=backend, device=device, dtype=dtype)

    def forward(self, x0: Tensor) -> Tensor:
        """x0 [B, in_features] to [B, in_features]."""
        return super().forward(x0)[0]


class DCNv2(_SingleTaskCross):
    """The cross network of DCN-v2 (Wang et al., WWW 2021): ``x_{l+1} = x_0 * (W_l x_l + b_l) + x_l``, [B, D] to [B, D].

    It does what torchrec's ``CrossNet(in_features, num_layers)`` does: row l * D + d of ``shared_weight`` [L * D, 1, D] is row d of W_l.
    With ``rank``, W_l is a product of two thin matrices, ``x_{l+1} = x_0 * (W_l (V_l x_l) + b_l) + x_l``, as in torchrec's
    ``LowRankCrossNet(in_features, num_layers, low_rank)``: row l * r + j of ``shared_projection`` [L * r, 1, D] is row j of V_l.

    Example:
        >>> import torch
        >>> from dcrnn_fast import DCNv2
        >>> DCNv2(in_features=8, num_layers=3)(torch.randn(4, 8)).shape
        torch.Size([4, 8])
    """

    cell = "cross"


class GDCN(_SingleTaskCross):
    """The gated cross network of GDCN (Wang et al., 2023): ``x_{l+1} = x_0 * (W_l x_l + b_l) * sigmoid(V_l x_l + c_l) + x_l``.

    GDCN's gate has no bias. Here it has one, c, which starts at zero. With ``rank``, W_l and V_l have low rank, each with a projection of
    its own.

    Example:
        >>> import torch
        >>> from dcrnn_fast import GDCN
        >>> GDCN(in_features=8, num_layers=3)(torch.randn(4, 8)).shape
        torch.Size([4, 8])
    """

    cell = "gated"


class DCRNN(reference.DCRNN):
    """:class:`dcrnn_fast.reference.DCRNN` on a backend, with the same arguments, parameters and results.

    Raises BackendUnavailable: the named ``backend`` cannot run here.

    Example:
        >>> import torch
        >>> from dcrnn_fast import DCRNN
        >>> model = DCRNN({"user": 100, "item": 50}, tasks=("click", "consume"))
        >>> ids = torch.tensor([[7, 3], [99, 0], [7, 49]])  # [B, fields]
        >>> labels = torch.tensor([[0.0, 0.0], [1.0, 0.0], [1.0, 1.0]])  # [B, tasks]
        >>> model.loss(model(ids), labels).backward()
        >>> list(model.eval().predict(ids))
        ['click', 'consume', 'consume_given_click']
    """

    cross_layer = CrossRNN
    scenario_layer = ScenarioCrossRNN
    tower_layer = PartiallySharedLinear

    def prepare_inference(self) -> PreparedDCRNN:
        """What computes this model's logits and probabilities soonest: in evaluation mode, without gradients, until the weights change."""
        return PreparedDCRNN(self, self.backend)

    def _route(self, backend: str) -> None:
        require(backend)
        for module in self.modules():
            if isinstance(module, (CrossRNN, PartiallySharedLinear)):
                module.backend = backend
