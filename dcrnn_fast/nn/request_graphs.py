"""Requests on a GPU: each of a few numbers of rows has a CUDA graph, so that a request is some copies and one launch."""

from __future__ import annotations

import os
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
WARM_UP = 3
"""Calls before the record, of as many rows: they choose backends and compile kernels."""
ENVIRONMENT = "DCRNN_FAST_CUDA_GRAPHS"
"""The environment variable by which requests do without graphs: 0."""


def recorder_for(model: DCRNN) -> CudaGraphs | None:
    """What records requests of a model; None on a CPU, with scenarios, whose rows the CPU has to count, and where the user wants none.

    Raises ValueError: the environment variable is neither 1 nor 0.
    """
    device = model.embedding.weight.device
    wanted = os.environ.get(ENVIRONMENT, "1")
    if wanted not in ("0", "1"):
        raise ValueError(f"{ENVIRONMENT}={wanted!r}: expected 1 or 0")
    return CudaGraphs(device) if device.type == "cuda" and model.scenario is None and wanted == "1" else None


class RequestGraphs:
    """Computes the logits of requests of up to 512 rows by recorded work.

    Args:
        work: the conditional logits [B, T] of ids [B, C] and dense features [B, N] or None. Its numbers are those of a call with as many
            rows as the graph has.
        model: whose work it is. The graphs read the weights where they are now.
    """

    def __init__(self, work: Callable[[Tensor, Tensor | None], Tensor], model: DCRNN, recorder: CudaGraphs) -> None:
        self._recorder, self._lock = recorder, Lock()
        self._read = [tensor.detach() for tensor in (*model.parameters(), *model.buffers())]  # keeps their memory
        like = model.embedding.weight
        columns, numbers = len(model.num_embeddings), model.num_dense
        self._ids = torch.arange(ROWS[-1], device=like.device)[:, None] % model.sizes if columns else model.sizes.new_empty(ROWS[-1], 0)
        self._dense = torch.linspace(-1, 1, ROWS[-1] * numbers).view(-1, numbers).to(like.device, like.dtype) if numbers else None
        self._graphs = {rows: self._recorded(work, rows) for rows in ROWS}

    def _recorded(self, work: Callable[[Tensor, Tensor | None], Tensor], rows: int) -> tuple[Callable[[], None], Tensor]:
        given = self._ids[:rows], None if self._dense is None else self._dense[:rows]
        found: list[Tensor] = []
        with inputs_checked():
            with self._recorder.in_order():
                for _ in range(WARM_UP):
                    work(*given)
            try:
                launch = self._recorder.record(lambda: found.append(work(*given)))
            except RuntimeError as error:
                raise RuntimeError(
                    f"prepare_inference: a request of {rows} rows cannot be recorded as a CUDA graph: {error}; set {ENVIRONMENT}=0"
                ) from error
        return launch, found[-1]

    def __call__(self, ids: Tensor, dense: Tensor | None) -> Tensor | None:
        """Logits [B, T] of checked inputs, or None where no graph takes them.

        None takes more than 512 rows or no row, numbers of another dtype, tensors on another device, and a call that is being recorded.
        """
        rows = next((rows for rows in ROWS if len(ids) <= rows), None)
        same = ids.device == self._ids.device and (dense is None or self._dense is None or _alike(dense, self._dense))
        if rows is None or not len(ids) or not same or (ids.is_cuda and torch.cuda.is_current_stream_capturing()):
            return None
        launch, logits = self._graphs[rows]
        found = torch.empty_like(logits[: len(ids)])  # on the caller's stream: its memory is not used again before the caller is done
        with self._lock, self._recorder.in_order():
            self._ids[: len(ids)].copy_(ids)
            if dense is not None and self._dense is not None:
                self._dense[: len(ids)].copy_(dense)
            launch()
            found.copy_(logits[: len(ids)])
        return found


def _alike(one: Tensor, other: Tensor) -> bool:
    return one.dtype == other.dtype and one.device == other.device
