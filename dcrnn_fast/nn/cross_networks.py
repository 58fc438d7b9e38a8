"""Cross networks for one task: DCN-v2, which takes trained weights of other libraries, and GDCN."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn

from ..sharing import Cell, SharingPlan
from ..support.checks import MAX_SIZE, MAX_STEPS, check_count, check_sequence
from ..support.tensors import check_alike, check_floats
from .layers import CrossRNN

Named = Mapping[str, Tensor]


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
        check_count("in_features", in_features, maximum=MAX_SIZE)
        check_count("num_layers", num_layers, maximum=MAX_STEPS)
        plan = SharingPlan.from_ratio("rows", 1, in_features, 1.0, steps=num_layers, cell=self.cell, tied=False, rank=rank)
        super().__init__(plan, backend=backend, device=device, dtype=dtype)

    def forward(self, x0: Tensor) -> Tensor:
        """x0 [B, in_features] to [B, in_features]."""
        return super().forward(x0).squeeze(0)  # whose gradient is a view; that of [0] fills a tensor with zeros first


class DCNv2(_SingleTaskCross):
    """The cross network of DCN-v2 (Wang et al., WWW 2021): ``x_{l+1} = x_0 * (W_l x_l + b_l) + x_l``, [B, D] to [B, D].

    It computes what torchrec's ``CrossNet(in_features, num_layers)`` does. With ``rank``, W_l is a product of two thin matrices,
    ``x_{l+1} = x_0 * (W_l (V_l x_l) + b_l) + x_l``, as in torchrec's ``LowRankCrossNet(in_features, num_layers, low_rank)``.

    Parameters: ``shared_weight`` [L, D, 1, D] has the rows of W_l; with a rank, ``shared_projection`` [L, r, 1, D] has those of V_l.

    Example:
        >>> import torch
        >>> from dcrnn_fast import DCNv2
        >>> DCNv2(in_features=8, num_layers=3)(torch.randn(4, 8)).shape
        torch.Size([4, 8])
    """

    cell = "cross"

    @classmethod
    def from_linear(cls, layers: Iterable[nn.Linear], projections: Iterable[nn.Linear] | None = None, *, backend: str = "auto") -> DCNv2:
        """Copy trained weights, in their dtype and on their device.

        FuxiCTR's ``CrossNetV2`` is ``from_linear(module.cross_layers)``. torch-rechub's ``CrossNetV2`` has another formula,
        ``x_{l+1} = x_0 * (W_l x_l) + b_l + x_l``, and cannot be converted.

        Args:
            layers: L times ``Linear(D, D)`` with W_l and b_l, or L times ``Linear(r, D)`` with ``projections``. A missing bias is zero.
            projections: L times ``Linear(D, r, bias=False)`` with V_l.
            backend: "auto", or a backend's name.

        Raises:
            TypeError, ValueError: a layer is none of these; the message names it.
        """
        found, thin = _linears("layers", layers), {} if projections is None else _linears("projections", projections)
        if thin and (len(thin) != len(found) or any(one.bias is not None for one in thin.values())):
            raise ValueError(f"projections={list(thin.values())}: expected {len(found)} with bias=False, one for each of layers")
        biases = [one.weight.new_zeros(len(one.weight)) if one.bias is None else one.bias for one in found.values()]
        weight, projection = ({f"{name}.weight": one.weight for name, one in ones.items()} for ones in (found, thin))
        return cls._holding(weight, {f"{name}.bias": bias for name, bias in zip(found, biases, strict=True)}, projection, backend)

    @classmethod
    def from_torchrec(cls, module: nn.Module, *, backend: str = "auto") -> DCNv2:
        """Copy the weights of torchrec's ``CrossNet`` or ``LowRankCrossNet``. Needs no torchrec.

        Raises:
            TypeError, ValueError: ``module`` is another one. torchrec's other cross networks have other formulas.
        """
        parts = {"CrossNet": ("kernels", "bias"), "LowRankCrossNet": ("W_kernels", "bias", "V_kernels")}.get(type(module).__name__, ())
        held = [{f"module.{part}[{layer}]": value for layer, value in enumerate(getattr(module, part, ()))} for part in parts]
        if not held or not all(held):
            raise TypeError(f"module: got {type(module).__name__}, expected a CrossNet or LowRankCrossNet of torchrec")
        if len({len(named) for named in held}) > 1:
            raise ValueError(f"module: got {dict(zip(parts, map(len, held), strict=True))}, expected one of each for every layer")
        weight, bias, projection = (*held, {})[:3]
        return cls._holding(weight, {name: value.flatten() for name, value in bias.items()}, projection, backend)

    @classmethod
    def _holding(cls, weight: Named, bias: Named, projection: Named, backend: str) -> DCNv2:
        """The network of W_l [D, D] and b_l [D]; or of W_l [D, r], b_l and V_l [r, D]. Errors take the tensors' names."""
        first, like = next(iter(weight.items()))
        check_floats(first, like, "[D, r]" if projection else "[D, D]")
        dim, rank = like.shape[0], like.shape[1] if projection else None
        network = cls(dim, len(weight), rank=rank, backend=backend, device=like.device, dtype=like.dtype)
        for part, named, shape in (("weight", weight, [dim, rank or dim]), ("bias", bias, [dim]), ("projection", projection, [rank, dim])):
            check_alike(first, like, dict(named))
            for name, value in named.items():
                if list(value.shape) != shape:
                    raise ValueError(f"{name}: got shape {list(value.shape)}, expected {shape}")
            if named:
                bank = getattr(network, f"shared_{part}")
                with torch.no_grad():
                    bank.copy_(torch.cat(list(named.values())).view_as(bank))
        return network


class GDCN(_SingleTaskCross):
    """The gated cross network of GDCN (Wang et al., 2023): ``x_{l+1} = x_0 * (W_l x_l + b_l) * sigmoid(V_l x_l + c_l) + x_l``.

    The bias c of the gate is an addition; it starts at zero. With ``rank``, W_l and V_l have low rank, each with its own projection.

    Example:
        >>> import torch
        >>> from dcrnn_fast import GDCN
        >>> GDCN(in_features=8, num_layers=3)(torch.randn(4, 8)).shape
        torch.Size([4, 8])
    """

    cell = "gated"


def _linears(name: str, given: Iterable[nn.Linear]) -> dict[str, nn.Linear]:
    check_sequence(name, given, "torch.nn.Linear")
    layers = list(given)
    if not layers or not all(isinstance(one, nn.Linear) for one in layers):
        raise TypeError(f"{name}={layers}: expected one torch.nn.Linear or more")
    return {f"{name}[{layer}]": one for layer, one in enumerate(layers)}
