"""What DCRNN's gate does to each column of its input: the quantities of the recurrence's first step, in which h = x0."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from dcrnn_fast import DCRNN, CrossRNN
from dcrnn_fast.data import PackedDataset

from .synthetic_data import SIGNAL


def signal_and_noise(networks: Sequence[nn.Module], dataset: PackedDataset) -> dict[str, dict[str, float]]:
    """Means of :func:`gates` over the networks, of the units of signal columns and of noise columns apart, on test rows."""
    signal = np.array([name.startswith(SIGNAL) for name in dataset.meta.dense])
    split = dataset.split("test")
    ids, dense = torch.from_numpy(split.ids[:2000]).long(), torch.from_numpy(split.dense[:2000])
    found = [gates(network, ids, dense) for network in networks]
    means: dict[str, dict[str, float]] = {}
    for quantity in found[0]:
        by_column = np.mean([values[quantity].numpy() for values in found], axis=0)
        means[quantity] = {"signal": float(by_column[signal].mean()), "noise": float(by_column[~signal].mean())}
    return means


@torch.no_grad()
def gates(model: nn.Module, ids: Tensor, dense: Tensor) -> dict[str, Tensor]:
    """Means over tasks, rows and a column's units, by dense column [N]: the gate g, |x0 * a| and the update |g * x0 * a|.

    ``model`` is a DCRNN with ``cell="gated"``, without a rank, with ``dense_bins`` and no ids: the units of its columns lie side by side.
    """
    if not isinstance(model, DCRNN) or model.plan.cell != "gated" or model.plan.rank is not None or model.num_embeddings:
        raise TypeError(f"model={type(model).__name__}: expected a DCRNN with a gated cell of full rank and dense_bins, without ids")
    model.eval()
    x0 = model.features(ids, dense).x0
    a, g = first_step(model.cross, x0)
    crossed = (x0 * a).abs()
    values = {"gate": g, "without the gate": crossed, "update": g * crossed}
    return {name: value.mean((0, 1)).unflatten(0, (model.num_dense, -1)).mean(1) for name, value in values.items()}


def first_step(cross: CrossRNN, x0: Tensor) -> tuple[Tensor, Tensor]:
    """a and g [T, B, D] of the first step from x0 [B, D], for a gated cell of full rank that shares its first units."""
    weight, bias = _rows_of_tasks(cross)
    a, q = (torch.einsum("bk,tdk->tbd", x0, weight[:, :, part]) + bias[:, None, :, part] for part in (0, 1))
    return a, torch.sigmoid(q)


def _rows_of_tasks(cross: CrossRNN) -> tuple[Tensor, Tensor]:
    """Each task's weights [T, D, G, D] and biases [T, D, G] at the first step. Trunk units do not read private ones: zeros stand there."""
    plan, units = cross.plan, len(cross.plan.shared_units)
    weight = cross.private_weight.new_zeros(plan.num_tasks, plan.dim, plan.gates, plan.dim)
    weight[:, :units, :, : plan.shared_columns] = cross.shared_weight[0]
    weight[:, units:] = cross.private_weight[:, 0]
    bias = torch.cat([cross.shared_bias[0].expand(plan.num_tasks, -1, -1), cross.private_bias[:, 0]], dim=1)
    return weight, bias
