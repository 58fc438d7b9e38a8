"""A DCRNN prepared for inference: what a request would gather, check or look up again is done once.

At one row, most of a request's time is not arithmetic but the way to it: gathers of tower weights, checks of weights that cannot have
changed, wrappers that record derivatives. The operators and their results stay.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from . import backends
from .inputs import check_dense, check_ids
from .reference.layers import PartiallySharedLinear
from .reference.model import DCRNN

Packed = tuple[Tensor, Tensor]


class PreparedDCRNN:
    """Computes what a :class:`dcrnn_fast.DCRNN` in evaluation mode does, sooner, and no gradients. Take one from its ``prepare_inference``.

    It holds the model's tables and packed copies of its towers. When the model's weights change or move, prepare again. Autocast does not
    reach it.

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
        on_cpp = device.type == "cpu" and backends.resolve(backend, device=device) == "cpp"
        self._cross = _cpp_recurrence(model) if on_cpp and model.plan.kind == "rows" else model.cross
        self._fields, self._width = len(model.num_embeddings), len(model.num_embeddings) * model.embedding.embedding_dim
        self._plain = device.type == "cpu" and not model.pooled

    @torch.inference_mode()
    def __call__(self, ids: Tensor, dense: Tensor | None = None) -> Tensor:
        """Logits [B, T], as :meth:`dcrnn_fast.DCRNN.forward` gives them, with the same arguments and errors."""
        return self.model.event_logits(self._conditional_logits(ids, dense))

    @torch.inference_mode()
    def predict(self, ids: Tensor, dense: Tensor | None = None) -> dict[str, Tensor]:
        """Probabilities [B] in float32 by name, as :meth:`dcrnn_fast.DCRNN.predict` gives them but for rounding."""
        return self.model.probabilities_of(self._conditional_logits(ids, dense))

    def _conditional_logits(self, ids: Tensor, dense: Tensor | None) -> Tensor:
        device = self.model.embedding.weight.device.type
        if torch.is_autocast_enabled(device):
            with torch.autocast(device, enabled=False):
                return self._conditional_logits(ids, dense)
        states = self._cross(self._features(ids, dense), *self.model.scenarios_of(ids))  # [T, B, D]
        for weight, bias in self._layers[:-1]:
            states = torch.baddbmm(bias, states, weight).relu_()
        if self.model.transfer is not None:
            states = self.model.transfer(states)
        weight, bias = self._layers[-1]
        return torch.baddbmm(bias, states, weight).squeeze(-1).T

    def _features(self, ids: Tensor, dense: Tensor | None) -> Tensor:
        model = self.model
        if not self._plain:
            return model.features(ids, dense)
        # Only where something is wrong are the checks of model.features needed, which find out what.
        fits = type(ids) is Tensor and ids.dtype in (torch.int64, torch.int32) and ids.dim() == 2 and ids.shape[1] == self._fields
        if not fits or not bool(((ids >= 0) & (ids < model.sizes)).all()):
            check_ids(ids, model.num_embeddings, model.field_names)
        parts = []
        if model.num_embeddings:
            rows = (ids + model.offsets).flatten()
            parts.append(model.embedding.weight.index_select(0, rows).view(ids.shape[0], self._width))
        fits = type(dense) is Tensor and dense.is_floating_point() and dense.shape == (ids.shape[0], model.num_dense)
        if dense is None or not fits or not bool(dense.isfinite().all()):
            check_dense(dense, ids.shape[0], model.num_dense)
        return torch.cat([*parts, *model.dense_features(dense)], dim=1)


def _packed(layer: PartiallySharedLinear) -> Packed:
    """Every task's weight [T, in, out] and bias [T, 1, out]."""
    with torch.no_grad():
        weight, bias = layer.of_tasks()
        return weight.detach().mT.contiguous(), bias.detach().unsqueeze(1).contiguous()


def _cpp_recurrence(model: DCRNN) -> Callable[[Tensor], Tensor]:
    """The recurrence of tasks that share rows, by the C++ operator itself, which checks its arguments too."""
    tensors, options = model.cross.operands()
    tasks, operator = model.plan.num_tasks, torch.ops.dcrnn_fast.cross_rnn.default
    return lambda x0: operator(x0, *tensors, **options)[0].expand(tasks, -1, -1)
