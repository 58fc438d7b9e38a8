"""DCRNN, the whole model: one merged embedding table, the cross recurrence, a tower per task, and the relation between tasks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from ..nn.losses import CALIBRATOR_WEIGHT, at_least_float32, combine, expectation_calibrator, task_losses
from ..nn.relations import InformationTransfer, chain_logits, unsampled_logits
from ..ops.backends import NAMES as BACKEND_NAMES
from ..sharing import Cell, Sharing, SharingPlan
from ..support.checks import MAX_SIZE, check_choice, check_count, check_deviation, check_flag, check_placement, check_ratio, check_sequence
from ..support.model_inputs import (
    check_dense,
    check_ids,
    check_labels,
    check_negative_rate,
    check_pooled,
    check_shared_embeddings,
    merge_ids,
    table_rows,
)
from .layers import CrossRNN, PartiallySharedLinear
from .numeric import PiecewiseLinearEmbedding
from .pooling import pool, spans
from .scenarios import ScenarioCrossRNN
from .standard_layers import Dropout, Embedding

Relation = Literal["chain", "independent", "transfer"]


class DCRNN(nn.Module):
    """One model that predicts click and consume, or any funnel of tasks (Zhou and Yu, 2023, arXiv 2310.11777).

    We know only the paper's abstract. What it leaves open is our reading.

    Args:
        num_embeddings: the number of ids of each of the F categorical fields, as a sequence or a mapping from field names; ids start at 0.
            With ``pooled``, of each of the C columns of ids.
        embedding_dim: E. The cross recurrence has D = F * E units, plus E for the projected dense features (but see ``dense_bins``).
        embedding_init_std: the embeddings start normal with this standard deviation and mean 0. A small one makes an id count only once
            training has moved it, so that rare and unseen ids add little noise; 0 starts all ids equal. It changes no other random number.
        num_dense: N, the number of dense features; 0 for none.
        dense_bins: Q > 0 gives each dense feature an embedding of its own that is linear between the edges of Q bins (see
            :class:`dcrnn_fast.reference.PiecewiseLinearEmbedding`), so that D = (F + N) * E; 0 projects all dense features to one.
        tasks: task names in funnel order.
        steps: L, how often the cross cell is applied.
        cell: "gated", or "cross" (no gate).
        tied: True for one set of weights at all steps (an RNN), False for one set per step (a deep cross network).
        sharing: "rows" (tasks share parameters) or "trunk" (tasks share computation too).
        share_ratio: fraction of units that tasks share, in [0, 1]; 1 is hard sharing, 0 is none.
        rank: r of the low-rank cell, in which a unit reads r projections of the state instead of the state; None for the full cell.
        projection_share_ratio: fraction of the r projections that tasks share, in [0, 1].
        scenario: the name of the categorical field whose ids are the scenarios (of a sequence, the field's position as text: "0"); None for
            none. With ``sharing="trunk"``, each scenario then has a trunk of its own below the trunk of all, see
            :class:`dcrnn_fast.reference.ScenarioCrossRNN`. Rows with id 0 (out of vocabulary) read the trunk of all alone.
        scenario_ratio: fraction of units in a scenario's trunk, at most 1 - ``share_ratio``; without ``scenario`` it has no effect.
        tower_dims: widths of each task's hidden tower layers.
        dropout: probability in [0, 1) after every hidden tower layer.
        relation: "chain", "independent" or "transfer" between consecutive tasks.
        backend: accepted so that the import can be swapped; the reference ignores it.
        tower_share_ratio: fraction of each hidden tower layer's rows that tasks share, in [0, 1].
        sparse: the embedding table's gradient is a sparse tensor of the rows read, as with ``torch.nn.Embedding(sparse=True)``, so that a
            training step need not pass over the table. It needs an optimiser for such gradients: :class:`dcrnn_fast.RowWiseAdagrad`,
            ``torch.optim.SparseAdam``. The weights, and what the model computes, are the same.
        shared_embeddings: fields without rows of their own in the embedding table, by name (of a sequence, the position as text). Each
            reads those of the field that it maps to, which has as many ids: {"last_item": "item"} gives an item one embedding for both.
        pooled: fields with several values. Each maps to its ``columns``, names in ``num_embeddings`` that follow each other and share one
            embedding, and to its ``pooling``, "mean" or "sum" of the embeddings of its values. Id 0 is no value; a row without values has
            zeros. ids are then [B, C], and F counts each such field once: {"tags": {"columns": ["tags[0]", "tags[1]"], "pooling": "mean"}}.
        device, dtype: of the parameters.

    Raises TypeError, ValueError: an argument of a wrong type or outside its range; the message names it.

    Example:
        >>> import torch
        >>> from dcrnn_fast.reference import DCRNN
        >>> model = DCRNN([100, 50], num_dense=2, tasks=("see", "click", "consume"))
        >>> model(torch.tensor([[7, 3], [99, 0]]), torch.randn(2, 2)).shape
        torch.Size([2, 3])
    """

    cross_layer = CrossRNN
    scenario_layer = ScenarioCrossRNN
    tower_layer = PartiallySharedLinear
    sizes: Tensor
    offsets: Tensor
    _negative_rate = 1.0

    def __init__(
        self,
        num_embeddings: Sequence[int] | Mapping[str, int],
        *,
        embedding_dim: int = 16,
        embedding_init_std: float = 0.05,
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
        rank: int | None = None,
        projection_share_ratio: float = 1.0,
        dense_bins: int = 0,
        scenario: str | None = None,
        scenario_ratio: float = 0.25,
        sparse: bool = False,
        shared_embeddings: Mapping[str, str] | None = None,
        pooled: Mapping[str, Mapping[str, Any]] | None = None,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        check_sequence("num_embeddings", num_embeddings, "sizes, or a mapping from field names to sizes")
        sizes: Mapping[Any, int] = num_embeddings if isinstance(num_embeddings, Mapping) else dict(enumerate(num_embeddings))
        for name, size in sizes.items():
            check_count(f"num_embeddings[{name!r}]", size, maximum=2**40)
        self.field_names, self.num_embeddings = tuple(map(str, sizes)), tuple(map(int, sizes.values()))
        check_count("embedding_dim", embedding_dim, maximum=MAX_SIZE)
        check_deviation("embedding_init_std", embedding_init_std)
        check_count("num_dense", num_dense, minimum=0, maximum=MAX_SIZE)
        check_count("dense_bins", dense_bins, minimum=0, maximum=MAX_SIZE)
        if not self.num_embeddings and not num_dense:
            raise ValueError("num_embeddings is empty and num_dense is 0: expected at least one feature")
        check_sequence("tasks", tasks, "task names")
        self.tasks = tuple(tasks)
        if not all(isinstance(task, str) and task for task in self.tasks):
            raise TypeError(f"tasks={tasks!r}: expected names, each a string that is not empty")
        self.conditionals = tuple(f"{task}_given_{before}" for before, task in pairwise(self.tasks))
        predicted = [*self.tasks, *self.conditionals]
        if not self.tasks or len(set(predicted)) != len(predicted):
            raise ValueError(f"tasks={tasks!r}: expected at least one task, and distinct names in {predicted}, conditionals included")
        check_sequence("tower_dims", tower_dims, "widths")
        for position, width in enumerate(tower_dims):
            check_count(f"tower_dims[{position}]", width, maximum=MAX_SIZE)
        check_ratio("dropout", dropout)
        if dropout == 1:
            raise ValueError("dropout=1: expected a probability in [0, 1)")
        check_choice("relation", relation, get_args(Relation))
        check_ratio("tower_share_ratio", tower_share_ratio)
        check_ratio("scenario_ratio", scenario_ratio)
        check_flag("sparse", sparse)
        self.shared_embeddings = check_shared_embeddings(shared_embeddings, self.field_names, self.num_embeddings)
        self.pooled = check_pooled(pooled, self.field_names, self.shared_embeddings)
        self._spans = spans(self.field_names, self.pooled)
        single = [name for span in self._spans if span.pooling is None for name in self.field_names[span.start : span.stop]]
        if scenario is not None:
            check_choice("scenario", scenario, single)
            if sharing != "trunk":
                raise ValueError(f'scenario={scenario!r} with sharing={sharing!r}: expected sharing="trunk", whose units scenarios read')
        check_placement(device, dtype)
        self.num_dense, self.relation, self.backend = num_dense, relation, backend
        self.embedding_init_std = float(embedding_init_std)
        self.scenario = scenario
        self.scenario_column = None if scenario is None else self.field_names.index(scenario)
        scenarios = 0 if self.scenario_column is None else self.num_embeddings[self.scenario_column] - 1
        self.dense_bins = dense_bins if num_dense else 0
        dim = (len(single) + len(self.pooled) + (num_dense if dense_bins else bool(num_dense))) * embedding_dim
        self.plan = SharingPlan.from_ratio(
            sharing, len(self.tasks), dim, share_ratio, steps=steps, cell=cell, tied=tied, rank=rank,
            projection_share_ratio=projection_share_ratio, num_scenarios=scenarios,
            scenario_ratio=0.0 if scenario is None else scenario_ratio,
        )  # fmt: skip

        self._make_table(embedding_dim, sparse=sparse, device=device, dtype=dtype)
        projected, binned = num_dense > 0 and not dense_bins, num_dense > 0 and dense_bins > 0
        self.dense_projection = nn.Linear(num_dense, embedding_dim, device=device, dtype=dtype) if projected else None
        self.dense_embedding = (
            PiecewiseLinearEmbedding(num_dense, embedding_dim, dense_bins, device=device, dtype=dtype) if binned else None
        )

        cross_layer = self.cross_layer if scenario is None else self.scenario_layer
        self.cross = cross_layer(self.plan, device=device, dtype=dtype)
        widths = [dim, *tower_dims]
        self.towers = nn.ModuleList(
            self.tower_layer(below, width, len(self.tasks), tower_share_ratio, device=device, dtype=dtype)
            for below, width in pairwise(widths)
        )
        self.dropout = Dropout(dropout)
        self.transfer = InformationTransfer(len(self.tasks), widths[-1], device=device, dtype=dtype) if relation == "transfer" else None
        self.head = self.tower_layer(widths[-1], 1, len(self.tasks), device=device, dtype=dtype)
        self._route(backend)

    def _make_table(self, embedding_dim: int, *, sparse: bool, device: torch.device | str | None, dtype: torch.dtype | None) -> None:
        """One table for all fields: field f's rows start at offsets[f], which fields that share rows have in common."""
        for name in ("sizes", "offsets"):
            self.register_buffer(name, torch.empty(len(self.num_embeddings), dtype=torch.int64, device=device), persistent=False)
        rows, _ = table_rows(self.field_names, self.num_embeddings, self.shared_embeddings)
        self.embedding = Embedding(rows, embedding_dim, sparse=sparse, device=device, dtype=dtype)
        self.embedding.weight.requires_grad_(bool(self.num_embeddings))  # as in layers.parameter
        self._reset_table()

    def _reset_table(self) -> None:
        _, offsets = table_rows(self.field_names, self.num_embeddings, self.shared_embeddings)
        self.sizes.copy_(torch.tensor(self.num_embeddings, dtype=torch.int64, device="cpu"))
        self.offsets.copy_(torch.tensor(offsets, dtype=torch.int64, device="cpu"))
        nn.init.normal_(self.embedding.weight, std=self.embedding_init_std)

    def reset_parameters(self) -> None:
        """Draw new parameters and fill the index tensors. A model built on the meta device needs this after ``to_empty``."""
        self._reset_table()
        for module in self.modules():
            if isinstance(module, (CrossRNN, PartiallySharedLinear, PiecewiseLinearEmbedding, nn.Linear)):
                module.reset_parameters()

    def _route(self, backend: str) -> None:
        """Check ``backend``. The fast model also gives it to its layers."""
        check_choice("backend", backend, BACKEND_NAMES)

    @property
    def num_parameters(self) -> int:
        """The number of values in all parameters."""
        return sum(p.numel() for p in self.parameters())

    @property
    def negative_rate(self) -> float:
        """r in (0, 1]: the part of the rows without the first event that was kept in the log the model was trained on; 1 at first.

        Set it, and :meth:`predict` gives the probabilities of the log before. Logits and loss stay those of the sampled rows. Raises
        TypeError, ValueError: another number, or r < 1 in a model of several tasks without ``relation="chain"``.
        """
        return self._negative_rate

    @negative_rate.setter
    def negative_rate(self, rate: float) -> None:
        check_negative_rate(rate, len(self.tasks), self.relation)
        self._negative_rate = float(rate)

    def features(self, ids: Tensor, dense: Tensor | None = None) -> Tensor:
        """The recurrence's input x0 [B, D]: the embeddings of all fields side by side, then the dense features, projected or embedded."""
        checked = check_ids(ids, self.num_embeddings, self.field_names)
        check_dense(dense, ids.shape[0], self.num_dense)
        rows = merge_ids(ids, self.sizes, self.offsets, self.embedding.num_embeddings, checked=checked)
        parts = []
        if self.num_embeddings:
            embedded = self.embedding(rows)
            parts.append(pool(embedded, ids, self._spans) if self.pooled else embedded.flatten(1))
        return torch.cat([*parts, *self.dense_features(dense)], dim=1)

    def dense_features(self, dense: Tensor | None) -> list[Tensor]:
        """The part of :meth:`features` that the dense columns give, [B, N'], or nothing where there are none."""
        if dense is None:
            return []
        if self.dense_projection is not None:
            return [self.dense_projection(dense.to(self.dense_projection.weight.dtype))]
        return [] if self.dense_embedding is None else [self.dense_embedding(dense)]

    def conditional_logits(self, ids: Tensor, dense: Tensor | None = None) -> Tensor:
        """The towers' outputs z [B, T]. Under "chain" each is the logit of an event given the one before it."""
        return self.logits_of(self.features(ids, dense), *self.scenarios_of(ids))

    def scenarios_of(self, ids: Tensor) -> tuple[Tensor, ...]:
        """The scenario [B] of each row, or nothing in a model without scenarios."""
        return () if self.scenario_column is None else (ids[:, self.scenario_column],)

    def logits_of(self, x0: Tensor, *scenarios: Tensor) -> Tensor:
        """The part of :meth:`conditional_logits` behind :meth:`features` and :meth:`scenarios_of`, which it takes."""
        return self.logits_of_states(self.cross(x0, *scenarios))

    def logits_of_states(self, states: Tensor) -> Tensor:
        """The part of :meth:`conditional_logits` behind the recurrence, whose states [T, B, D] it takes."""
        for layer in self.towers:
            states = self.dropout(torch.relu(layer(states)))
        if self.transfer is not None:
            states = self.transfer(states)
        return self.head(states).squeeze(-1).T

    def forward(self, ids: Tensor, dense: Tensor | None = None) -> Tensor:
        """Logits [B, T] of each task's event over all impressions, in the order of ``tasks``.

        Args:
            ids: int64 [B, F], column f in [0, num_embeddings[f]); with ``pooled`` [B, C].
            dense: floating [B, N], finite; None where num_dense is 0.

        Raises:
            IndexError: an id outside its field's range; the message names the field.
            TypeError, ValueError: a wrong dtype or shape, or a dense value that is not finite.
        """
        return self.event_logits(self.conditional_logits(ids, dense))

    def behind_features(self, x0: Tensor, *scenarios: Tensor) -> Tensor:
        """The part of :meth:`forward` behind :meth:`features` and :meth:`scenarios_of`, which it takes."""
        return self.event_logits(self.logits_of(x0, *scenarios))

    def event_logits(self, z: Tensor) -> Tensor:
        """Logits [B, T] of each event over all impressions, from :meth:`conditional_logits` z."""
        return chain_logits(z) if self.relation == "chain" else z

    @torch.no_grad()
    def predict(self, ids: Tensor, dense: Tensor | None = None) -> dict[str, Tensor]:
        """Probabilities [B] by task name, in float32, without gradients.

        Under "chain" also ``"{task}_given_{task before}"`` for every task but the first: "consume_given_click".
        Call ``eval()`` first: in training mode dropout is active. They are corrected by :attr:`negative_rate`. Arguments and errors as in
        :meth:`forward`.
        """
        return self.probabilities_of(self.conditional_logits(ids, dense))

    def probabilities_of(self, z: Tensor) -> dict[str, Tensor]:
        """What :meth:`predict` returns, from :meth:`conditional_logits` z [B, T]."""
        z = at_least_float32(z)
        if self._negative_rate != 1:
            z = unsampled_logits(z, self._negative_rate)
        probabilities = dict(zip(self.tasks, torch.sigmoid(self.event_logits(z)).float().unbind(1), strict=True))
        if self.relation == "chain":
            probabilities.update(zip(self.conditionals, torch.sigmoid(z[:, 1:]).float().unbind(1), strict=True))
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
        """The training loss: the cross entropy of each task over its known labels, plus AITM's calibrator under "transfer".

        Args:
            logits: [B, T] from :meth:`forward`.
            labels: floating [B, T] in [0, 1]; NaN marks an unknown label.
            sample_weight: [B], finite and at least 0.
            task_weight: T fixed weights, or a module from losses [T] to a scalar such as ``UncertaintyWeighting``; None adds the losses up.
            strict_funnel: under "chain", refuse a row with a later event but not the earlier one.

        Returns:
            A scalar in float32 (float64 for float64 logits).

        Raises:
            TypeError, ValueError: a wrong dtype, shape or range, an empty batch, or a broken funnel.
        """
        check_labels(logits, labels, self.tasks, funnel=strict_funnel and self.relation == "chain")
        loss = combine(task_losses(logits, labels, sample_weight), task_weight)
        if self.relation == "transfer":
            loss = loss + CALIBRATOR_WEIGHT * expectation_calibrator(logits, sample_weight)
        return loss
