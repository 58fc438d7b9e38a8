"""Embeddings of numbers: each dense feature gets a vector of its own, linear between the edges of bins."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..support.model_inputs import check_edges


class PiecewiseLinearEmbedding(nn.Module):
    """Dense features [B, N] to N embeddings side by side, [B, N * E].

    Feature n has Q bins with edges e_0 < ... < e_Q. Bin q contributes ``clamp((x - e_q) / (e_{q+1} - e_q), 0, 1)`` of its vector, so the
    embedding is continuous and linear within a bin: the piecewise linear encoding of Gorishniy, Rubachev and Babenko (NeurIPS 2022,
    section 3.2) and a linear layer for each feature. Unlike theirs, the outer bins do not extrapolate: a value beyond the outer edges is
    read as the edge, so that an outlier cannot dominate.

    Parameters: ``weight`` [N, Q, E] and ``bias`` [N, E], which start uniform in +-1/sqrt(Q). Buffers of the state_dict: ``lower`` [N, Q],
    the lower edges, and ``scale`` [N, Q], one over the width of each bin, 0 for a bin that is not used. They start with edges from -2 to 2,
    which suit standardised features; :meth:`set_edges` puts others in place.

    Args:
        num_dense: N.
        embedding_dim: E.
        bins: Q.
        device, dtype: of the parameters; the buffers are float32.

    Example:
        >>> import torch
        >>> from dcrnn_fast.nn.numeric import PiecewiseLinearEmbedding
        >>> layer = PiecewiseLinearEmbedding(num_dense=2, embedding_dim=4, bins=3)
        >>> layer.set_edges([torch.tensor([0.0, 1.0]), torch.tensor([0.0, 5.0, 10.0, 100.0])])
        >>> layer(torch.tensor([[0.5, 20.0]])).shape
        torch.Size([1, 8])
    """

    lower: Tensor
    scale: Tensor

    def __init__(
        self,
        num_dense: int,
        embedding_dim: int,
        bins: int,
        *,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(num_dense, bins, embedding_dim, device=device, dtype=dtype))
        self.bias = nn.Parameter(torch.empty(num_dense, embedding_dim, device=device, dtype=dtype))
        for name in ("lower", "scale"):
            self.register_buffer(name, torch.empty(num_dense, bins, device=device, dtype=torch.float32))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw new parameters, and go back to edges from -2 to 2."""
        bins = self.weight.shape[1]
        self.lower.copy_(torch.linspace(-2, 2, bins + 1)[:-1])
        self.scale.fill_(bins / 4)
        for parameter in (self.weight, self.bias):
            nn.init.uniform_(parameter, -(bins**-0.5), bins**-0.5)

    def set_edges(self, edges: list[Tensor]) -> None:
        """Take the edges of each feature: N tensors of 2 to Q + 1 rising numbers. Bins that are left over stay unused.

        Raises ValueError: another number of tensors, or numbers that do not rise, are not finite, or are too many or too few.
        """
        num_dense, bins = self.lower.shape
        check_edges(edges, num_dense, bins)
        lower, scale = torch.zeros(num_dense, bins), torch.zeros(num_dense, bins)
        for feature, values in enumerate(edges):
            values = values.to("cpu", torch.float32)
            lower[feature, : len(values) - 1] = values[:-1]
            scale[feature, : len(values) - 1] = 1 / (values[1:] - values[:-1])
        self.lower.copy_(lower)
        self.scale.copy_(scale.clamp(max=torch.finfo(torch.float32).max))

    def forward(self, x: Tensor) -> Tensor:
        """x [B, N] to [B, N * E] in the dtype of the parameters."""
        return torch.baddbmm(self.bias.unsqueeze(1), self.bins(x).transpose(0, 1), self.weight).transpose(0, 1).flatten(1)

    def bins(self, x: Tensor) -> Tensor:
        """How far x [B, N] lies in each bin, [B, N, Q] in [0, 1]. A value is compared with the edges in float32 at least."""
        x = x.to(torch.promote_types(x.dtype, torch.float32))
        return ((x.unsqueeze(-1) - self.lower) * self.scale).clamp(0, 1).to(self.weight.dtype)
