"""An optimiser for tables of ids. With sparse gradients its step costs what the rows of the batch cost, however large a table is."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor

from ..ops.backends import REASONS
from ..ops.checks import MAX_ROWS
from ..support.checks import check_deviation


class RowWiseAdagrad(torch.optim.Optimizer):
    """Adagrad (Duchi et al., JMLR 2011) with one state value per row, for tables of ids with sparse or dense gradients.

    A row r [E] that the batch reads, with gradient g, becomes::

        s_r = s_r + mean(g ** 2)
        r   = (1 - lr * weight_decay) * r - lr * g / (sqrt(s_r + prior * m) + eps)

    m is the mean of mean(g ** 2) over the rows that the batch reads. All other rows stay as they are. In a dense gradient, a row of zeros
    counts as not read. The state is ``sum`` [N] for a table [N, E].

    ``prior`` counts as so many earlier steps of each row with the batch's mean gradient, so that rare rows move less. With ``prior=0`` this
    is fbgemm's ``EXACT_ROWWISE_ADAGRAD``, in which a row's first step is about ``lr`` long however small its gradient.

    Args:
        params: tables [N, E] in float32 or float64, or groups of them as in :mod:`torch.optim`.
        lr, weight_decay, eps, prior: finite and at least 0.

    Raises:
        TypeError, ValueError: an argument of a wrong type or outside its range, or a parameter that is not such a table.

    Example:
        >>> import torch
        >>> from dcrnn_fast import DCRNN, RowWiseAdagrad
        >>> model = DCRNN([1000, 500], sparse=True)
        >>> optimiser = RowWiseAdagrad(model.features.id_tables, lr=0.05)
        >>> model(torch.tensor([[7, 3], [7, 0]])).sum().backward()
        >>> optimiser.step()
        >>> int((optimiser.state[model.features.embedding.weight]["sum"] > 0).sum())
        3
    """

    def __init__(
        self,
        params: Iterable[Tensor] | Iterable[dict[str, Any]],
        lr: float = 0.05,
        *,
        weight_decay: float = 0.0,
        eps: float = 1e-8,
        prior: float = 0.0,
    ) -> None:
        options = {"lr": lr, "weight_decay": weight_decay, "eps": eps, "prior": prior}
        for name, value in options.items():
            check_deviation(name, value)
        super().__init__(params, options)
        for group in self.param_groups:
            for table in group["params"]:
                if table.dim() != 2 or table.dtype not in (torch.float32, torch.float64):
                    raise ValueError(
                        f"params: got {table.dtype} {list(table.shape)}, expected tables [rows, width] in torch.float32 or torch.float64"
                    )

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Update the rows that were read."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for table in group["params"]:
                if table.grad is not None:
                    self._update(table, table.grad, group)
        return loss

    def _update(self, table: Tensor, gradient: Tensor, group: dict[str, Any]) -> None:
        state = self.state[table]
        if not state:
            state["sum"] = torch.zeros(table.shape[0], device=table.device, dtype=table.dtype)
        if gradient.is_sparse and gradient._nnz() > gradient.shape[0]:  # adding into all rows is then sooner than sorting
            gradient = row_sums(gradient._indices()[0], gradient._values(), gradient.shape[0])
        if not gradient.is_sparse:
            squares, read = gradient.square().mean(dim=1), gradient.any(dim=1)
            state["sum"].add_(squares)
            if group["weight_decay"]:
                decay, rows = group["lr"] * group["weight_decay"], table * read[:, None]
                table.sub_(rows * decay) if isinstance(decay, Tensor) else table.sub_(rows, alpha=decay)
            rates = _rates(state["sum"].clone(), squares.sum() / read.sum().clamp(min=1), group)
            table.addcmul_(gradient, rates[:, None], value=-1)
            return
        rows, values, own = each_row_once(gradient, wait=not on_gpu(table))
        squares = values.square().mean(dim=1)
        sums = state["sum"].index_select(0, rows).add_(squares)
        written(state["sum"], rows, sums)
        rates = _rates(sums, squares.mean() if own is None else (squares * own).sum() / own.sum(), group)
        updated = table.index_select(0, rows).mul_(1 - group["lr"] * group["weight_decay"]).addcmul_(values, rates[:, None], value=-1)
        written(table, rows, updated)


def each_row_once(gradient: Tensor, *, wait: bool) -> tuple[Tensor, Tensor, Tensor | None]:
    """The rows that a sparse gradient lists [n], the sum of each one's values [n, E], and None.

    How many they are, a GPU knows first. Unless it may ``wait`` for that, n is the number that the gradient lists, which is known: the last
    row and its sum stand at the places that are left over, and the third result [n] says which are none of these.
    """
    if wait or not gradient._nnz():
        gradient = gradient.coalesce()
        return gradient.indices()[0], gradient.values(), None
    rows, order = gradient._indices()[0].sort(stable=True)
    place = torch.cat([rows.new_zeros(1), (rows[1:] != rows[:-1]).cumsum(0)])  # of each, among the rows without repeats
    sums = added(torch.zeros_like(gradient._values()), place, gradient._values()[order])
    every = torch.arange(len(rows), device=rows.device)
    kept = torch.minimum(every, place[-1])
    return written(torch.zeros_like(rows), place, rows)[kept], sums[kept], every <= place[-1]


def row_sums(rows: Tensor, values: Tensor, count: int) -> Tensor:
    """[count, E], for each row the sum of its ``values`` [n, E]; ``rows`` [n] in [0, count)."""
    if not on_gpu(values) and REASONS["cpp"] is None and count <= MAX_ROWS:  # it takes a fifth of the time of index_add_
        sums: Tensor = torch.ops.dcrnn_fast.param_gather_backward(values.unsqueeze(0), rows.int().unsqueeze(0), count, 0)[0]
        return sums
    return added(values.new_zeros(count, values.shape[1]), rows, values)


def on_gpu(tensor: Tensor) -> bool:
    """Whether the CPU would wait for the tensor's device."""
    return not tensor.is_cpu


def added(target: Tensor, rows: Tensor, values: Tensor) -> Tensor:
    """``target.index_add_(0, rows, values)``, with which the CPU waits for a GPU to check the rows if algorithms are deterministic."""
    if on_gpu(target) and torch.are_deterministic_algorithms_enabled():
        return torch._index_put_impl_(target, [rows], values, accumulate=True, unsafe=True)
    return target.index_add_(0, rows, values)


def written(target: Tensor, rows: Tensor, values: Tensor) -> Tensor:
    """``target.index_copy_(0, rows, values)``, as :func:`added`. A row that is listed twice has the same values."""
    if on_gpu(target) and torch.are_deterministic_algorithms_enabled():
        return torch._index_put_impl_(target, [rows], values, unsafe=True)
    return target.index_copy_(0, rows, values)


def _rates(sums: Tensor, mean: Tensor, group: dict[str, Any]) -> Tensor:
    """What each row's gradient is multiplied by, in the memory of ``sums``; ``mean`` is that of the batch's squares."""
    if group["prior"]:
        sums.add_(mean * group["prior"])
    return sums.sqrt_().add_(group["eps"]).reciprocal_().mul_(group["lr"])
