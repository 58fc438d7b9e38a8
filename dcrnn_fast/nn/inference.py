"""A DCRNN prepared for inference: what a request would gather, check or look up again is done once.

On a CPU one operator in C++ goes from ids and numbers to the answer; models that it does not know compute it themselves. On a GPU each of a
few numbers of rows has a CUDA graph, so that a request is some copies and one launch.
"""

from __future__ import annotations

import copy
import math
import os
from collections.abc import Callable
from threading import Lock
from typing import TYPE_CHECKING, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from ..ops import backends
from ..ops.inference import MULTIPLE
from ..support.cuda_graph import CudaGraphs
from ..support.model_inputs import check_dense, check_ids
from ..support.tracing import inputs_checked, transformed
from .cpu_layers import Embedding
from .features import POOLINGS
from .layers import CrossRNN, TaskLinear

if TYPE_CHECKING:
    from .model import DCRNN

ROWS = (1, 8, 64, 512)
"""The numbers of rows that have a graph. A request takes the next larger one, whose other rows repeat earlier ids."""
WARM_UP = 3
"""Calls before the record, of as many rows: they choose backends and compile kernels."""
ENVIRONMENT = "DCRNN_FAST_CUDA_GRAPHS"
"""The environment variable by which requests do without graphs: 0."""
Module = TypeVar("Module", bound=nn.Module)
R = TypeVar("R")


def recorder_for(model: DCRNN) -> CudaGraphs | None:
    """What records requests of a model; None on a CPU, with scenarios, whose rows the CPU has to count, and where the user wants none."""
    device = model.features.embedding.weight.device
    wanted = os.environ.get(ENVIRONMENT, "1")
    if wanted not in ("0", "1"):
        raise ValueError(f"{ENVIRONMENT}={wanted!r}: expected 1 or 0")
    return CudaGraphs(device) if device.type == "cuda" and model.scenario is None and wanted == "1" else None


class RequestGraphs:
    """Computes requests of up to 512 rows by recorded ``work``: the logits [B, T] of ids [B, C] and dense features [B, N] or None.

    The graphs read the weights of the model where they are now. The numbers are those of a call with as many rows as the graph has.
    """

    def __init__(self, work: Callable[[Tensor, Tensor | None], Tensor], model: DCRNN, recorder: CudaGraphs) -> None:
        self._recorder, self._lock = recorder, Lock()
        self._read = [tensor.detach() for tensor in (*model.parameters(), *model.buffers())]  # keeps their memory
        like, sizes = model.features.embedding.weight, model.features.sizes
        columns, numbers = len(model.num_embeddings), model.num_dense
        self._ids = torch.arange(ROWS[-1], device=like.device)[:, None] % sizes if columns else sizes.new_empty(ROWS[-1], 0)
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
        """Logits [B, T] of checked inputs; None for more than 512 rows or none, another dtype or device, and a call that is recorded."""
        rows = next((rows for rows in ROWS if len(ids) <= rows), None)
        same = ids.device == self._ids.device
        if dense is not None and self._dense is not None:
            same = same and (dense.dtype, dense.device) == (self._dense.dtype, self._dense.device)
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


class PreparedDCRNN:
    """A frozen :class:`dcrnn_fast.DCRNN` in evaluation mode, for inference alone. ``DCRNN.prepare_inference`` returns one.

    It holds the model's tables and packed copies of its other weights: prepare again after the weights change or move. It ignores autocast
    and hooks. Its results are inference tensors; clone them for autograd or changes in place. Under transforms of ``torch.func`` and in
    forward mode it raises NotImplementedError.
    """

    def __init__(self, model: DCRNN) -> None:
        self.model, self._evaluated = model, evaluated(model)
        device = model.features.embedding.weight.device
        self._device = device.type
        self._names = [*model.tasks, *(model.conditionals if model.relation == "chain" else ())]
        self._request: Request | None = None
        self._graphs: RequestGraphs | None = None
        if recorder := recorder_for(model):
            self._graphs = self._without_derivatives(lambda: RequestGraphs(self._evaluated.conditional_logits, model, recorder))
        elif device.type == "cpu" and backends.resolve(model.backend, device=device) == "cpp" and Request.knows(model):
            self._request = Request(model)

    def __call__(self, ids: Tensor, dense: Tensor | None = None) -> Tensor:
        """Logits [B, T], as :meth:`dcrnn_fast.DCRNN.forward` gives them, with the same arguments and errors."""
        return self._without_derivatives(lambda: self._logits(ids, dense))

    def predict(self, ids: Tensor, dense: Tensor | None = None) -> dict[str, Tensor]:
        """Probabilities [B] in float32 by name: those of :meth:`dcrnn_fast.DCRNN.predict`, except for rounding."""
        return self._without_derivatives(lambda: self._probabilities(ids, dense))

    def _without_derivatives(self, work: Callable[[], R]) -> R:
        """Without derivatives and autocast. Raises NotImplementedError where somebody asks for derivatives or vmap."""
        if transformed():
            raise NotImplementedError(
                "a prepared model (prepare_inference, Ranker) has no derivatives and no vmap: inside torch.func and in forward mode call "
                "the model itself"
            )
        with torch.inference_mode():
            if not torch.is_autocast_enabled(self._device):
                return work()
            with torch.autocast(self._device, enabled=False):
                return work()

    def _logits(self, ids: Tensor, dense: Tensor | None) -> Tensor:
        if self._request is not None and self._request.takes(dense):
            return self._request(ids, dense).T.to(self._request.dtype)
        logits: Tensor = self.model.event_logits(self._conditional_logits(ids, dense))
        return logits

    def _probabilities(self, ids: Tensor, dense: Tensor | None) -> dict[str, Tensor]:
        if self._request is not None and self._request.takes(dense):
            found = self._request(ids, dense, self.model.negative_rate)
            return dict(zip(self._names, found.float().unbind(), strict=True))
        return self.model.event_logits.probabilities(self._conditional_logits(ids, dense))

    def _conditional_logits(self, ids: Tensor, dense: Tensor | None) -> Tensor:
        if self._graphs is not None:
            check(self.model, ids, dense)
            with inputs_checked():
                found = self._graphs(ids, dense)
            if found is not None:
                return found
        return self._evaluated.conditional_logits(ids, dense)


class Request:
    """What the operator ``request`` reads of a model that :meth:`knows`, packed."""

    def __init__(self, model: DCRNN) -> None:
        self._model, self._operator = model, torch.ops.dcrnn_fast.request.default
        features, towers = model.features, model.towers
        table, layer, term = features.embedding.weight.detach(), features.dense_embedding, features.first_order
        self._exact = torch.float64 if table.dtype == torch.float64 else torch.float32
        self.dtype = self._exact if model.relation == "chain" else table.dtype
        """Of the logits that the model itself computes."""
        starts, pooling = list[int](), list[int]()
        for span in features.spans:
            fields = range(span.start, span.stop) if span.pooling is None else [span.start]
            starts += fields
            pooling += [POOLINGS.index(span.pooling)] * len(fields)
        bins = [None] * 4 if layer is None else [layer.lower, layer.scale, layer.weight, layer.bias]
        of_numbers = [*bins, None if layer is None or term is None else term.dense_weight]
        banks, options = model.cross.operands()
        projections = options["shared_projection"], options["private_projection"]
        with torch.no_grad():
            packed = torch.ops.dcrnn_fast.request_pack.default(
                table, features.sizes, features.offsets, _whole([*starts, len(model.num_embeddings)]), _whole(pooling),
                *[None if tensor is None else tensor.detach().to(self._exact) for tensor in of_numbers], *banks, *projections,
                options["steps"], options["cell"], *_packed_towers([*towers.layers, towers.head], self._exact),
                term is not None, model.relation == "chain",
            )  # fmt: skip
        first_order = None if term is None or term.table is None or not starts else term.table.weight.detach()
        self._tables = table, first_order, packed

    @staticmethod
    def knows(model: DCRNN) -> bool:
        """Whether the operator computes a model: a low-rank recurrence that shares rows, towers without a transfer, numbers by bins."""
        plan, cross = model.plan, model.cross
        numbers = not model.num_dense or model.features.dense_embedding is not None
        plain = type(model.features.embedding) is Embedding and type(cross) is CrossRNN and list(plan.order) == list(range(plan.dim))
        plain = plain and not any(bool(rows.any()) for rows in model.features.unread_rows)  # it reads every embedding
        return plain and numbers and plan.kind == "rows" and plan.rank is not None and model.towers.transfer is None

    def takes(self, dense: Tensor | None) -> bool:
        """Whether the operator computes numbers of this dtype; for others the model does."""
        return not isinstance(dense, Tensor) or dense.dtype == self._exact

    def __call__(self, ids: Tensor, dense: Tensor | None, negative_rate: float | None = None) -> Tensor:
        """The events' logits [T, B]; with a rate of negatives, probabilities [T, B], and after them a chain's conditionals [T - 1, B]."""
        rate = 0.0 if negative_rate is None else math.log(negative_rate)
        try:
            found: Tensor = self._operator(ids, dense, *self._tables, rate, negative_rate is not None)
        except (RuntimeError, TypeError, ValueError):
            check(self._model, ids, dense)  # which has the fields' names
            raise
        return found


def check(model: DCRNN, ids: Tensor, dense: Tensor | None) -> None:
    """Raise for ids and numbers that a model cannot read, in its words."""
    check_ids(ids, model.num_embeddings, model.field_names)
    check_dense(dense, ids.shape[0], model.num_dense)


def evaluated(module: Module) -> Module:
    """A module again in evaluation mode, with the same parameters; the given one stays in its mode."""
    view = copy.copy(module)
    view._modules = {name: None if child is None else evaluated(child) for name, child in module._modules.items()}
    view.training = False
    return view


def _whole(numbers: list[int]) -> Tensor:
    return torch.tensor(numbers, dtype=torch.int64, device="cpu")


def _packed_towers(layers: list[TaskLinear], dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """What the operator reads of the layers: each task's weights and biases in a row [T, P], the head last; and the hidden widths.

    Units of zeros fill each hidden layer up to a multiple of 16.
    """
    parts, widths, below = [], [], 0
    for layer in layers:
        width = layer.private_bias.shape[1]
        more = 0 if layer is layers[-1] else -width % MULTIPLE
        parts += [pad(layer.private_weight.mT, (0, more, 0, below)), pad(layer.private_bias, (0, more))]
        widths.append(width + more)
        below = more
    return torch.cat([part.detach().flatten(1) for part in parts], dim=1).to(dtype), _whole(widths[:-1])
