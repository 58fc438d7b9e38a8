"""DCRNN, the whole model: one merged embedding, the cross recurrence, a tower a task, and the relation between tasks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn

from ..backends import NAMES as BACKEND_NAMES
from ..inputs import check_choice, check_count, check_dense, check_ids, check_labels, check_ratio, check_sequence, merge_ids
from ..losses import CALIBRATOR_WEIGHT, at_least_float32, combine, expectation_calibrator, task_losses
from ..relations import InformationTransfer, chain_logits
from ..sharing import Cell, Sharing, SharingPlan
from .layers import CrossRNN, PartiallySharedLinear

Relation = Literal["chain", "independent", "transfer"]


def conditional_name(before: str, task: str) -> str:
    """The name under which ``predict`` gives P(task | the task before)."""
    return f"{task}_given_{before}"


class DCRNN(nn.Module):
    """Click and consume, or any funnel of tasks, from one model (Zhou and Yu, 2023, arXiv 2310.11777).

    What the paper's abstract leaves open is our reading of it.

    Args:
        num_embeddings: ids of each categorical field, F sizes, or a mapping from field name to size; field f takes ids in [0, size).
        embedding_dim: E. The cross recurrence runs on D = F * E units, plus E for the projected dense features.
        num_dense: N, the number of dense features; 0 for none.
        tasks: task names in funnel order.
        steps: L, applications of the cross cell.
        cell: "gated", or "cross" (no gate).
        tied: one set of weights for all steps (an RNN), or one a step (a deep cross network).
        sharing: "rows" (tasks share parameters) or "trunk" (tasks share computation too).
        share_ratio: fraction of units shared, in [0, 1]; 1 is hard sharing, 0 none.
        tower_dims: widths of each task's hidden tower layers.
        dropout: probability in [0, 1) after every hidden tower layer.
        relation: "chain", "independent" or "transfer" between consecutive tasks.
        backend: which kernels compute; here accepted so that imports can be swapped, and the reference always computes.
        tower_share_ratio: fraction of each hidden tower layer's rows that tasks share.
        device, dtype: of the parameters.

    Raises ValueError, TypeError: an argument outside its range; the message names it.
    """

    cross_layer = CrossRNN
    tower_layer = PartiallySharedLinear
    sizes: Tensor
    offsets: Tensor

    def __init__(
        self,
        num_embeddings: Sequence[int] | Mapping[str, int],
        *,
        embedding_dim: int = 16,
        num_dense: int = 0,
        tasks: Sequence[str] = ("click", "consume"),
        steps: int = 3,
        cell: Cell = "gated",
        tied: bool = True,
        sharing: Sharing = "rows",
        share_ratio: float = 0.5,
        tower_dims: Sequence[int] = (128, 64),
        dropout: float = 0.0,
        relation: Relation = "chain",
        backend: str = "auto",
        tower_share_ratio: float = 0.0,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        check_sequence("num_embeddings", num_embeddings, "sizes, or a mapping from field names to sizes")
        named = isinstance(num_embeddings, Mapping)
        sizes = tuple(num_embeddings.values()) if isinstance(num_embeddings, Mapping) else tuple(num_embeddings)
        self.field_names: tuple[str, ...] = tuple(map(str, num_embeddings if named else range(len(sizes))))
        for name, size in zip(self.field_names, sizes, strict=True):
            check_count(f"num_embeddings[{name!r}]" if named else f"num_embeddings[{name}]", size)
        self.num_embeddings = tuple(int(size) for size in sizes)
        check_count("embedding_dim", embedding_dim)
        check_count("num_dense", num_dense, minimum=0)
        if not self.num_embeddings and not num_dense:
            raise ValueError("num_embeddings is empty and num_dense is 0: expected at least one feature")
        check_sequence("tasks", tasks, "task names")
        self.tasks = tuple(tasks)
        if not all(isinstance(task, str) and task for task in self.tasks):
            raise TypeError(f"tasks={tasks!r}: expected names, each a text that is not empty")
        predicted = [*self.tasks, *(conditional_name(*pair) for pair in pairwise(self.tasks))]
        if not self.tasks or len(set(predicted)) != len(predicted):
            raise ValueError(f"tasks={tasks!r}: expected at least one task, names distinct, also from the conditionals' in {predicted}")
        check_sequence("tower_dims", tower_dims, "widths")
        for position, width in enumerate(tower_dims):
            check_count(f"tower_dims[{position}]", width)
        check_ratio("dropout", dropout)
        if dropout == 1:
            raise ValueError("dropout=1: expected a probability in [0, 1)")
        check_choice("relation", relation, ("chain", "independent", "transfer"))
        check_ratio("tower_share_ratio", tower_share_ratio)
        self.num_dense, self.relation, self.backend = num_dense, relation, backend
        dim = (len(self.num_embeddings) + bool(num_dense)) * embedding_dim
        self.plan = SharingPlan.from_ratio(sharing, len(self.tasks), dim, share_ratio, steps=steps, cell=cell, tied=tied)

        # One table for all fields: field f's rows start at offsets[f].
        for name in ("sizes", "offsets"):
            self.register_buffer(name, torch.empty(len(self.num_embeddings), dtype=torch.int64, device=device), persistent=False)
        self.embedding = nn.Embedding(sum(self.num_embeddings), embedding_dim, device=device, dtype=dtype)
        self.embedding.weight.requires_grad_(bool(self.num_embeddings))  # as with an empty bank
        self._reset_table()
        self.dense_projection = nn.Linear(num_dense, embedding_dim, device=device, dtype=dtype) if num_dense else None

        self.cross = self.cross_layer(self.plan, device=device, dtype=dtype)
        widths = [dim, *tower_dims]
        self.towers = nn.ModuleList(
            self.tower_layer(below, width, len(self.tasks), tower_share_ratio, device=device, dtype=dtype)
            for below, width in pairwise(widths)
        )
        self.dropout = nn.Dropout(dropout)
        self.transfer = InformationTransfer(len(self.tasks), widths[-1], device=device, dtype=dtype) if relation == "transfer" else None
        self.head = self.tower_layer(widths[-1], 1, len(self.tasks), device=device, dtype=dtype)
        check_choice("backend", backend, BACKEND_NAMES)
        self._route(backend)

    def _reset_table(self) -> None:
        sizes = torch.tensor(self.num_embeddings, dtype=torch.int64, device="cpu")
        self.sizes.copy_(sizes)
        self.offsets.copy_(sizes.cumsum(0) - sizes)
        nn.init.normal_(self.embedding.weight, std=self.embedding.embedding_dim**-0.5)

    def reset_parameters(self) -> None:
        """Draw every parameter anew and fill the index tensors: what a model built on the meta device needs after ``to_empty``."""
        self._reset_table()
        for module in self.modules():
            if isinstance(module, (CrossRNN, PartiallySharedLinear, nn.Linear)):
                module.reset_parameters()

    def _route(self, backend: str) -> None:
        """Nothing here; the fast model hands ``backend`` to its layers."""

    @property
    def num_parameters(self) -> int:
        """Trainable values in all."""
        return sum(p.numel() for p in self.parameters())

    def features(self, ids: Tensor, dense: Tensor | None = None) -> Tensor:
        """The recurrence's input x0 [B, D]: the fields' embeddings side by side, the projected dense features last."""
        check_ids(ids, self.num_embeddings, self.field_names)
        check_dense(dense, ids.shape[0], self.num_dense)
        rows = merge_ids(ids, self.sizes, self.offsets, self.embedding.num_embeddings)
        parts = [self.embedding(rows).flatten(1)] if self.num_embeddings else []
        if self.dense_projection is not None and dense is not None:
            parts.append(self.dense_projection(dense.to(self.dense_projection.weight.dtype)))
        return torch.cat(parts, dim=1)

    def conditional_logits(self, ids: Tensor, dense: Tensor | None = None) -> Tensor:
        """The towers' outputs z [B, T]; under "chain" each is the logit of an event given the one before it."""
        states = self.cross(self.features(ids, dense))  # [T, B, D]
        for layer in self.towers:
            states = self.dropout(torch.relu(layer(states)))
        if self.transfer is not None:
            states = self.transfer(states)
        return self.head(states).squeeze(-1).T

    def forward(self, ids: Tensor, dense: Tensor | None = None) -> Tensor:
        """Logits [B, T] of each task's event over all impressions, in the order of ``tasks``.

        Args:
            ids: int64 [B, F], column f in [0, num_embeddings[f]).
            dense: floating [B, N], finite; None where num_dense is 0.

        Raises:
            IndexError: an id out of its field's range (named).
            TypeError, ValueError: a wrong dtype, shape, or a dense value that is not finite.
        """
        z = self.conditional_logits(ids, dense)
        return chain_logits(z) if self.relation == "chain" else z

    @torch.no_grad()
    def predict(self, ids: Tensor, dense: Tensor | None = None) -> dict[str, Tensor]:
        """Probabilities [B] by task name, in float32, without gradients.

        Under "chain" also ``"{task}_given_{task before}"`` for every task but the first: {"click", "consume", "consume_given_click"}.
        Dropout is active in training mode as in ``forward``; call ``eval()`` first. Arguments and errors as in :meth:`forward`.
        """
        z = at_least_float32(self.conditional_logits(ids, dense))
        logits = chain_logits(z) if self.relation == "chain" else z
        probabilities = dict(zip(self.tasks, torch.sigmoid(logits).float().unbind(1), strict=True))
        if self.relation == "chain":
            for t in range(1, len(self.tasks)):
                probabilities[conditional_name(*self.tasks[t - 1 : t + 1])] = torch.sigmoid(z[:, t]).float()
        return probabilities

    def loss(
        self,
        logits: Tensor,
        labels: Tensor,
        *,
        sample_weight: Tensor | None = None,
        task_weight: Sequence[float] | Tensor | nn.Module | None = None,
        strict_funnel: bool = True,
    ) -> Tensor:
        """The training loss: cross entropy over all impressions, each task over its known labels; AITM's calibrator under "transfer".

        Args:
            logits: [B, T] from :meth:`forward`.
            labels: floating [B, T] in [0, 1]; NaN marks an unknown label.
            sample_weight: [B], at least 0.
            task_weight: T fixed weights, or a module from losses [T] to a scalar such as ``UncertaintyWeighting``; None adds the losses.
            strict_funnel: under "chain", refuse a row that has a later event without the earlier one.

        Returns:
            scalar, in float32 or better.

        Raises:
            TypeError, ValueError: wrong dtype, shape, range, an empty batch, or a broken funnel.
        """
        check_labels(logits, labels, self.tasks, funnel=strict_funnel and self.relation == "chain")
        loss = combine(task_losses(logits, labels, sample_weight), task_weight)
        if self.relation == "transfer":
            loss = loss + CALIBRATOR_WEIGHT * expectation_calibrator(logits, sample_weight)
        return loss
