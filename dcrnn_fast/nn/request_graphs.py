"""Requests on a GPU: each of a few numbers of rows has a CUDA graph, so that a request is some copies and one launch."""

from __future__ import annotations

from collections.abc import Callable
from threading import Lock
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ..support.cuda_graph import CudaGraphs
from ..support.tracing import inputs_checked

if TYPE_CHECKING:
    from .model import DCRNN

ROWS = (1, 8, 64, 512)
"""The numbers of rows that have a graph. A request takes the next larger one, whose other rows repeat earlier ids; no row reads another."""


def recorder_for(model: DCRNN) -> CudaGraphs | None:
    """What records requests of a model, or None: on a CPU, and with scenarios, whose rows the CPU has to count."""
    device = model.embedding.weight.device
    return CudaGraphs(device) if device.type == "cuda" and model.scenario is None else None


class RequestGraphs:
    """Computes the logits of requests of up to 512 rows by recorded work.

    Args:
        work: the conditional logits [B, T] of ids [B, C] and dense features [B, N] or None. Its numbers are those of a call with as many
            rows as the graph has.
        model: whose work it is. The graphs read the weights where they are now.
    """

    def __init__(self, work: Callable[[Tensor, Tensor | None], Tensor], model: DCRNN, recorder: CudaGraphs) -> None:
        self._recorder, self._lock = recorder, Lock()
        self._weights = [parameter.detach() for parameter in model.parameters()]  # keeps their memory
        like = model.embedding.weight
        columns, numbers = len(model.num_embeddings), model.num_dense
        self._ids = torch.zeros(ROWS[-1], columns, dtype=torch.int64, device=like.device)
        self._dense = torch.zeros(ROWS[-1], numbers, dtype=like.dtype, device=like.device) if numbers else None
        self._graphs = {rows: self._recorded(work, rows) for rows in ROWS}

    def _recorded(self, work: Callable[[Tensor, Tensor | None], Tensor], rows: int) -> tuple[Callable[[], None], Tensor]:
        given = self._ids[:rows], None if self._dense is None else self._dense[:rows]
        found: list[Tensor] = []
        with inputs_checked():
            with self._recorder.in_order():
                for _ in range(2):  # backends are chosen, kernels are compiled
                    work(*given)
            launch = self._recorder.record(lambda: found.append(work(*given)))
        return launch, found[-1]

    def __call__(self, ids: Tensor, dense: Tensor | None) -> Tensor | None:
        """Logits [B, T] of checked inputs, or None where no graph takes them: for many rows, and inputs of another dtype or device."""
        rows = next((rows for rows in ROWS if len(ids) <= rows), None)
        same = ids.device == self._ids.device and (dense is None or self._dense is None or dense.dtype == self._dense.dtype)
        if rows is None or not len(ids) or not same:
            return None
        launch, logits = self._graphs[rows]
        with self._lock, self._recorder.in_order():
            self._ids[: len(ids)].copy_(ids)
            if dense is not None and self._dense is not None:
                self._dense[: len(ids)].copy_(dense)
            launch()
            return logits[: len(ids)].clone()
