"""A DCRNN prepared for inference: what a request would gather, check or look up again is done once.

At one row, most of a request's time is not arithmetic but the way to it: gathers of tower weights, checks of weights that cannot have
changed, wrappers that record derivatives, calls. On a CPU three operators in C++ compute the logits: ``features``, the recurrence, and
``towers``. On a GPU each of a few numbers of rows has a CUDA graph, so that a request is some copies and one launch.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from functools import lru_cache, wraps
from threading import Lock
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar

import torch
from torch import Tensor
from torch.nn.functional import pad

from ..ops import backends
from ..ops.inference import MULTIPLE
from ..support.checks import check_sequence
from ..support.cuda_graph import CudaGraphs
from ..support.model_inputs import check_dense, check_ids
from ..support.tracing import inputs_checked, transformed
from .layers import PartiallySharedLinear
from .lookup import Split, exact, lookup

if TYPE_CHECKING:
    from .model import DCRNN

ROWS = (1, 8, 64, 512)
"""The numbers of rows that have a graph. A request takes the next larger one, whose other rows repeat earlier ids; no row reads another."""
WARM_UP = 3
"""Calls before the record, of as many rows: they choose backends and compile kernels."""
ENVIRONMENT = "DCRNN_FAST_CUDA_GRAPHS"
"""The environment variable by which requests do without graphs: 0."""
Packed = tuple[Tensor, Tensor]
P = ParamSpec("P")
R = TypeVar("R")


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


def _plainly(method: Callable[Concatenate[PreparedDCRNN, P], R]) -> Callable[Concatenate[PreparedDCRNN, P], R]:
    """The method without derivatives and autocast; NotImplementedError where somebody asks for derivatives or vmap."""

    @wraps(method)
    def plain(self: PreparedDCRNN, /, *args: P.args, **kwargs: P.kwargs) -> R:
        if transformed():
            raise NotImplementedError(
                "a prepared model (prepare_inference, Ranker) has no derivatives and no vmap: inside torch.func and in forward mode call "
                "the model itself"
            )
        with torch.inference_mode():
            if not torch.is_autocast_enabled(self._device):
                return method(self, *args, **kwargs)
            with torch.autocast(self._device, enabled=False):
                return method(self, *args, **kwargs)

    return plain


class PreparedDCRNN:
    """Computes what a :class:`dcrnn_fast.DCRNN` in evaluation mode does, sooner, and no gradients. Take one from its ``prepare_inference``.

    It holds the model's tables and packed copies of its towers. When the model's weights change or move, prepare again. Autocast does not
    reach it, nor do hooks. What it returns are inference tensors: autograd and changes in place take a clone of them. Inside a
    transform of ``torch.func`` and in forward mode it raises NotImplementedError: its derivatives would be zero.

    Example:
        >>> import torch
        >>> from dcrnn_fast import DCRNN
        >>> model = DCRNN({"user": 100, "item": 50}, tasks=("click", "consume"))
        >>> prepared = model.prepare_inference()
        >>> prepared(torch.tensor([[7, 3], [99, 0]])).shape
        torch.Size([2, 2])
        >>> list(prepared.predict(torch.tensor([[7, 3]])))
        ['click', 'consume', 'consume_given_click']
    """

    def __init__(self, model: DCRNN, backend: str) -> None:
        """``backend`` is the one that the model's operators use, "auto" or a name."""
        self.model = model
        self._layers = [_packed(layer) for layer in (*model.towers, model.head)]
        device = model.embedding.weight.device
        self._device = device.type
        self._exact = exact(model.embedding.weight)
        on_cpp = device.type == "cpu" and backends.resolve(backend, device=device) == "cpp"
        self._cross = _cpp_recurrence(model) if on_cpp and model.plan.kind == "rows" else model.cross
        self._lookup = found = lookup(model) if on_cpp and not model.pooled else None
        self._binned = model.dense_embedding is not None
        self._split = lru_cache(64)(lambda fields, numbers: Split(model, fields, numbers, found))  # without self: no cycle keeps the tables
        self._towers = _packed_towers(self._layers) if on_cpp and model.transfer is None else None
        self._graphs: RequestGraphs | None = None
        if recorder := recorder_for(model):
            self._graphs = self._recorded(recorder)

    @_plainly
    def _recorded(self, recorder: CudaGraphs) -> RequestGraphs:
        return RequestGraphs(lambda ids, dense: self._logits(*self._inputs(ids, dense)), self.model, recorder)

    @_plainly
    def __call__(self, ids: Tensor, dense: Tensor | None = None) -> Tensor:
        """Logits [B, T], as :meth:`dcrnn_fast.DCRNN.forward` gives them, with the same arguments and errors."""
        return self.model.event_logits(self._conditional_logits(ids, dense))

    @_plainly
    def predict(self, ids: Tensor, dense: Tensor | None = None) -> dict[str, Tensor]:
        """Probabilities [B] in float32 by name, as :meth:`dcrnn_fast.DCRNN.predict` gives them but for rounding."""
        return self.model.probabilities(self._conditional_logits(ids, dense))

    @_plainly
    def score(
        self,
        user_ids: Tensor,
        item_ids: Tensor,
        user_dense: Tensor | None = None,
        item_dense: Tensor | None = None,
        *,
        item_fields: Sequence[str],
        item_numbers: Sequence[int] = (),
    ) -> dict[str, Tensor]:
        """Probabilities [N] by name of one user's N items: what :meth:`predict` gives for N rows, each of which repeats the user.

        With the backend cpp, the user's embeddings are looked up once and written into the items' rows; in a model with ``pooled`` fields
        or projected dense features, rows that repeat the user are scored.

        Args:
            user_ids: int64 [Fu], the user's ids, in the order in which the model has their fields.
            item_ids: int64 [N, Fi], the items' ids.
            user_dense, item_dense: floating [Nu] and [N, Ni], their dense features; None where there are none.
            item_fields: the Fi names of the items' fields, in the order of ``item_ids`` (of a model of a sequence, positions as text; with
                ``pooled``, the columns' names). All other fields are the user's.
            item_numbers: the Ni positions of the items' dense features among the model's. All others are the user's.

        Raises:
            IndexError: an id outside its field's range; the message names the field.
            TypeError, ValueError: a wrong dtype or shape, a dense value that is not finite, or an unknown field.

        Example:
            >>> import torch
            >>> from dcrnn_fast import DCRNN
            >>> prepared = DCRNN({"user": 100, "item": 50, "city": 9}).prepare_inference()
            >>> user, items = torch.tensor([7, 2]), torch.tensor([[3], [4], [49]])
            >>> prepared.score(user, items, item_fields=["item"])["click"].shape
            torch.Size([3])
        """
        check_sequence("item_fields", item_fields, "names of fields")
        check_sequence("item_numbers", item_numbers, "positions")
        split = self._split(tuple(item_fields), tuple(item_numbers))
        split.user.check(user_ids, user_dense)
        split.items.check(item_ids, item_dense)
        if self._lookup is None or (self.model.num_dense and not self._binned) or not self._takes(user_dense, item_dense):
            return self.predict(split.ids(user_ids, item_ids), split.dense(user_dense, item_dense, len(item_ids)))
        try:
            inputs = split.features(user_ids, item_ids, user_dense, item_dense)
        except (RuntimeError, TypeError, ValueError):
            self._check(split.ids(user_ids, item_ids), split.dense(user_dense, item_dense, len(item_ids)))
            raise
        return self.model.probabilities(self._logits(*inputs, *split.scenarios(user_ids, item_ids)))

    def _conditional_logits(self, ids: Tensor, dense: Tensor | None) -> Tensor:
        if self._graphs is not None:
            self._check(ids, dense)
            with inputs_checked():
                found = self._graphs(ids, dense)
                return self._logits(*self._inputs(ids, dense)) if found is None else found
        return self._logits(*self._inputs(ids, dense))

    def _logits(self, x0: Tensor, first_order: Tensor | None, *scenarios: Tensor) -> Tensor:
        states = self._cross(x0, *scenarios)  # [T, B, D]
        if self._towers is not None:
            term = None if first_order is None else first_order.double()
            return torch.ops.dcrnn_fast.towers.default(states, *self._towers, term)
        for weight, bias in self._layers[:-1]:
            states = torch.baddbmm(bias, states, weight).relu_()
        if self.model.transfer is not None:
            states = self.model.transfer(states)
        weight, bias = self._layers[-1]
        z = torch.baddbmm(bias, states, weight).squeeze(-1).T
        return z if first_order is None else z.add_(first_order)

    def _inputs(self, ids: Tensor, dense: Tensor | None) -> tuple[Any, ...]:
        """What :meth:`dcrnn_fast.DCRNN.inputs` gives."""
        model = self.model
        if self._lookup is None or (dense is None) != (model.num_dense == 0) or not self._takes(dense):
            return model._inputs(ids, dense, None)
        try:
            x0, first = self._lookup(ids, dense)
        except (RuntimeError, TypeError, ValueError):
            self._check(ids, dense)
            raise
        if dense is not None and not self._binned:
            check_dense(dense, ids.shape[0], model.num_dense)
            x0 = torch.cat([x0, *model.dense_features(dense)], dim=1)
            first = None if first is None else first + model.first_order_of_numbers(dense)
        return x0, first, *model.scenarios_of(ids)

    def _takes(self, *numbers: Tensor | None) -> bool:
        """Whether the operator ``features`` computes numbers of this dtype; for others the model does."""
        return not self._binned or all([n is None or (isinstance(n, Tensor) and n.dtype == self._exact) for n in numbers])

    def _check(self, ids: Tensor, dense: Tensor | None) -> None:
        """Where an operator refuses its arguments, say what is wrong with them as the model does."""
        check_ids(ids, self.model.num_embeddings, self.model.field_names)
        check_dense(dense, ids.shape[0], self.model.num_dense)


def _packed(layer: PartiallySharedLinear) -> Packed:
    """Every task's weight [T, in, out] and bias [T, 1, out]."""
    with torch.no_grad():
        weight, bias = layer.of_tasks()
        return weight.detach().mT.contiguous(), bias.detach().unsqueeze(1).contiguous()


def _cpp_recurrence(model: DCRNN) -> Callable[[Tensor], Tensor]:
    """The recurrence of tasks that share rows, by the C++ operator itself, which checks its arguments too."""
    if model.cross.is_reordered:
        return model.cross
    (tensors, options), tasks = model.cross.operands(), model.plan.num_tasks
    operators, projections = torch.ops.dcrnn_fast, [options[name] for name in options if name.endswith("projection")]
    operator = operators.low_rank_cross_rnn.default if projections else operators.cross_rnn.default
    given = *tensors, *projections, options["steps"], options["cell"]  # by place: names take longer
    if model.cross.distinct_tasks < tasks:
        return lambda x0: operator(x0, *given)[0].expand(tasks, -1, -1)
    return lambda x0: operator(x0, *given)[0]


def _packed_towers(layers: Sequence[Packed]) -> Packed:
    """What the operator ``towers`` reads: each task's layers in a row [T, P], the head last, and the widths of the hidden ones.

    Units of zeros fill each hidden layer up to a multiple of 16.
    """
    parts, widths, below = [], [], 0
    for weight, bias in layers[:-1]:
        more = -weight.shape[2] % MULTIPLE
        parts += [pad(weight, (0, more, 0, below)), pad(bias, (0, more))]
        widths.append(weight.shape[2] + more)
        below = more
    weight, bias = layers[-1]
    parts += [pad(weight, (0, 0, 0, below)), bias]
    packed = torch.cat([part.flatten(1) for part in parts], dim=1)
    return packed.to(exact(packed)), torch.tensor(widths, dtype=torch.int64, device=packed.device)
