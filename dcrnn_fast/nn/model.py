"""DCRNN, the whole model: embeddings, the cross recurrence, a tower per task, the first-order term, and the relation between tasks."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from ..ops.backends import require
from ..sharing import Cell, Sharing, SharingPlan
from ..support.checks import check_flag, check_placement
from ..support.defaults import DENSE_BINS, DROPOUT, EMBEDDING_DIM, EMBEDDING_INIT_STD, RANK, SHARE_RATIO, STEPS, TOWER_DIMS
from ..support.model_inputs import (
    SCENARIO_RATIO,
    Relation,
    check_dense,
    check_features,
    check_ids,
    check_labels,
    check_negative_rate,
    check_pooled,
    check_scenario_field,
    check_shared_embeddings,
    check_tasks,
    check_towers,
    merge_ids,
    table_rows,
)
from .cpu_layers import Dropout, Embedding
from .embeddings import FirstOrder, PiecewiseLinearEmbedding, pool, spans, with_first_order
from .inference import PreparedDCRNN
from .layers import CrossRNN, PartiallySharedLinear, WithConstants
from .losses import CALIBRATOR_WEIGHT, at_least_float32, combine, expectation_calibrator, task_losses
from .relations import InformationTransfer, chain_logits, unsampled_logits
from .scenarios import ScenarioCrossRNN


class DCRNN(WithConstants):
    """One model that predicts click and consume, or any funnel of tasks (Zhou and Yu, 2023, arXiv 2310.11777).

    We know only the paper's abstract. What it leaves open is our reading. :class:`dcrnn_fast.reference.DCRNN` is the same model, written
    to be read: it has the same arguments, parameters and results.

    A forward has four stages: :meth:`inputs` (embeddings and the first-order term), ``cross`` (the recurrence), :meth:`tower_logits`
    (towers and transfer), and :meth:`event_logits` (the chain of the funnel).

    Args for what it reads:
        num_embeddings: the number of ids of each of the F categorical fields, as a sequence or a mapping from field names; ids start at 0.
            With ``pooled``, of each of the C columns of ids.
        num_dense: N, the number of dense features; 0 for none.
        embedding_dim: E, the width of an embedding. The cross recurrence has D = (F + N) * E units (but see ``dense_bins``).
        embedding_init_std: the embeddings start normal with this standard deviation and mean 0. A small one makes an id count only once
            training has moved it, so that rare and unseen ids add little noise; 0 starts all ids equal. It changes no other random number.
        dense_bins: Q, the bins of each dense feature, between whose edges its embedding is linear. The edges suit standardised features:
            ``dense_embedding.set_edges`` sets others (:class:`dcrnn_fast.reference.PiecewiseLinearEmbedding`). 0 projects all dense
            features to one embedding, so that D = (F + 1) * E.
        shared_embeddings: fields without rows of their own in the embedding table, by name (of a sequence, the position as text). Each
            reads those of the field that it maps to, which has as many ids: {"last_item": "item"} gives an item one embedding for both.
        pooled: fields with several values. Each maps to its ``columns``, names in ``num_embeddings`` that follow each other and share one
            embedding, and to its ``pooling``, "mean" or "sum" of the embeddings of its values. Id 0 is no value; a row without values has
            zeros. ids are then [B, C], and F counts each such field once: {"tags": {"columns": ["tags[0]", "tags[1]"], "pooling": "mean"}}.
        sparse: the gradients of the tables of ids are sparse tensors of the rows read, as with ``torch.nn.Embedding(sparse=True)``, so
            that a training step need not pass over the table. It needs an optimiser for such gradients: :class:`dcrnn_fast.RowWiseAdagrad`,
            ``torch.optim.SparseAdam``. The weights, and what the model computes, are the same.
        first_order: each id and each number adds to the towers' outputs what it says about each task by itself, see
            :class:`.embeddings.FirstOrder`; False leaves this to the recurrence.

    Args for the recurrence and what tasks share of it:
        tasks: task names in funnel order.
        steps: L, how often the cross cell is applied.
        cell: "gated", or "cross" (no gate).
        tied: True for one set of weights at all steps (an RNN), False for one set per step (a deep cross network).
        rank: r of the low-rank cell, in which a unit reads r projections of the state, the same for all tasks; None for the full cell.
        sharing: "rows" (tasks share parameters) or "trunk" (tasks share computation too).
        share_ratio: fraction of units that tasks share, in [0, 1]; 1 is hard sharing, 0 is none.

    Args for towers and the relation between tasks:
        tower_dims: widths of each task's hidden tower layers.
        dropout: probability in [0, 1) after every hidden tower layer.
        relation: "chain", "independent" or "transfer" between consecutive tasks.

    Args for scenarios:
        scenario: the name of the categorical field whose ids are the scenarios (of a sequence, the field's position as text: "0"); None for
            none. With ``sharing="trunk"``, each scenario then has a trunk of its own, a quarter of the units, below the trunk of all, see
            :class:`dcrnn_fast.ScenarioCrossRNN`. Rows with id 0 (out of vocabulary) read the trunk of all alone. ``share_ratio`` is then at
            most 0.75.

    Args for where it runs:
        backend: "auto", or the name of the backend that computes the operators.
        device, dtype: of the parameters.

    Raises:
        TypeError, ValueError: an argument of a wrong type or outside its range; the message names it.
        BackendUnavailable: the named ``backend`` cannot run here.

    Example:
        >>> import torch
        >>> from dcrnn_fast import DCRNN
        >>> model = DCRNN({"user": 100, "item": 50}, tasks=("click", "consume"))
        >>> ids = torch.tensor([[7, 3], [99, 0], [7, 49]])  # [B, fields]
        >>> labels = torch.tensor([[0.0, 0.0], [1.0, 0.0], [1.0, 1.0]])  # [B, tasks]
        >>> model.loss(model(ids), labels).backward()
        >>> list(model.eval().predict(ids))
        ['click', 'consume', 'consume_given_click']
    """

    sizes: Tensor
    offsets: Tensor
    _negative_rate = 1.0
    id_dropout: Callable[[Tensor], Tensor] | None = None
    """In training mode, changes the ids [B, C] whose embeddings are read. The first-order term reads them as they are."""

    def __init__(
        self,
        num_embeddings: Sequence[int] | Mapping[str, int],
        *,
        num_dense: int = 0,
        embedding_dim: int = EMBEDDING_DIM,
        embedding_init_std: float = EMBEDDING_INIT_STD,
        dense_bins: int = DENSE_BINS,
        shared_embeddings: Mapping[str, str] | None = None,
        pooled: Mapping[str, Mapping[str, Any]] | None = None,
        sparse: bool = False,
        first_order: bool = True,
        tasks: Sequence[str] = ("click", "consume"),
        steps: int = STEPS,
        cell: Cell = "gated",
        tied: bool = True,
        rank: int | None = RANK,
        sharing: Sharing = "rows",
        share_ratio: float = SHARE_RATIO,
        tower_dims: Sequence[int] = TOWER_DIMS,
        dropout: float = DROPOUT,
        relation: Relation = "chain",
        scenario: str | None = None,
        backend: str = "auto",
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        require(backend)
        check_placement(device, dtype)
        self.field_names, self.num_embeddings = check_features(num_embeddings, num_dense, embedding_dim, embedding_init_std, dense_bins)
        num_dense, embedding_dim, dense_bins = int(num_dense), int(embedding_dim), int(dense_bins)
        self.shared_embeddings = check_shared_embeddings(shared_embeddings, self.field_names, self.num_embeddings)
        self.pooled = check_pooled(pooled, self.field_names, self.shared_embeddings)
        check_flag("sparse", sparse)
        check_flag("first_order", first_order)
        self.tasks, self.conditionals = check_tasks(tasks)
        tower_dims = check_towers(tower_dims, dropout, relation)
        self.scenario_column = check_scenario_field(scenario, share_ratio, sharing, self.field_names, self.pooled)

        self.num_dense, self.relation, self.backend, self.scenario = num_dense, relation, backend, scenario
        self.embedding_init_std, self.dense_bins = float(embedding_init_std), dense_bins if num_dense else 0
        self.spans = spans(self.field_names, self.pooled)
        fields = len(self.field_names) - sum(len(pool["columns"]) - 1 for pool in self.pooled.values())
        dim = (fields + (num_dense if dense_bins else bool(num_dense))) * embedding_dim
        scenarios = 0 if self.scenario_column is None else self.num_embeddings[self.scenario_column] - 1
        self.plan = SharingPlan.from_ratio(
            sharing, len(self.tasks), dim, share_ratio, steps=steps, cell=cell, tied=tied, rank=rank,
            num_scenarios=scenarios, scenario_ratio=0.0 if scenario is None else SCENARIO_RATIO,
        )  # fmt: skip

        place: dict[str, Any] = {"device": device, "dtype": dtype}
        self.first_order = self._first_order(sparse=sparse, **place) if first_order else None
        self._make_table(embedding_dim, sparse=sparse, **place)
        self.dense_projection = nn.Linear(num_dense, embedding_dim, **place) if num_dense and not dense_bins else None
        self.dense_embedding = PiecewiseLinearEmbedding(num_dense, embedding_dim, dense_bins, **place) if self.dense_bins else None
        self.cross = (CrossRNN if scenario is None else ScenarioCrossRNN)(self.plan, backend=backend, **place)
        widths = [dim, *tower_dims]
        self.towers = nn.ModuleList(PartiallySharedLinear(below, width, len(self.tasks), **place) for below, width in pairwise(widths))
        self.dropout = Dropout(float(dropout))
        self.transfer = InformationTransfer(len(self.tasks), widths[-1], **place) if relation == "transfer" else None
        self.head = PartiallySharedLinear(widths[-1], 1, len(self.tasks), **place)
        for layer in (*self.towers, self.head):
            layer.backend = backend

    def _make_table(self, embedding_dim: int, *, sparse: bool, device: torch.device | str | None, dtype: torch.dtype | None) -> None:
        """One table for all fields: field f's rows start at offsets[f], which fields that share rows have in common."""
        rows, _ = table_rows(self.field_names, self.num_embeddings, self.shared_embeddings)
        self.embedding = Embedding(rows, embedding_dim, sparse=sparse, device=device, dtype=dtype)
        self.embedding.weight.requires_grad_(bool(self.num_embeddings))  # as in layers.parameter
        self._reset_table()

    def _first_order(self, *, sparse: bool, device: torch.device | str | None, dtype: torch.dtype | None) -> FirstOrder:
        (rows, _), bins = table_rows(self.field_names, self.num_embeddings, self.shared_embeddings), max(1, self.dense_bins)
        return FirstOrder(rows, len(self.tasks), self.num_dense, bins, sparse=sparse, device=device, dtype=dtype)

    def _constants(self) -> dict[str, Tensor]:
        _, offsets = table_rows(self.field_names, self.num_embeddings, self.shared_embeddings)
        numbers = {"sizes": self.num_embeddings, "offsets": offsets}
        return {name: torch.tensor(values, dtype=torch.int64, device="cpu") for name, values in numbers.items()}

    def _reset_table(self) -> None:
        self._fill_constants(self.embedding.weight.device)
        nn.init.normal_(self.embedding.weight, std=self.embedding_init_std)

    def reset_parameters(self) -> None:
        """Draw new parameters. A model built on the meta device needs this after ``to_empty``, or the weights of a state_dict."""
        self._reset_table()
        for module in self.modules():
            if isinstance(module, (CrossRNN, FirstOrder, PartiallySharedLinear, PiecewiseLinearEmbedding, nn.Linear)):
                module.reset_parameters()

    @property
    def num_parameters(self) -> int:
        """The number of values in all parameters."""
        return sum(p.numel() for p in self.parameters())

    @property
    def id_tables(self) -> list[Tensor]:
        """The tables that ids index: the embeddings, and the first-order term's. With ``sparse=True`` their gradients are sparse."""
        first = [] if self.first_order is None or self.first_order.table is None else [self.first_order.table.weight]
        return [self.embedding.weight, *first]

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

    def inputs(self, ids: Tensor, dense: Tensor | None = None) -> tuple[Any, ...]:
        """What :meth:`behind_inputs` takes: x0 [B, D], the first-order term [B, T] or None, and, of a model with scenarios, them [B]."""
        return self._inputs(ids, dense, self.id_dropout if self.training else None)

    def _inputs(self, ids: Tensor, dense: Tensor | None, id_dropout: Callable[[Tensor], Tensor] | None) -> tuple[Any, ...]:
        checked = self._check(ids, dense)
        read = ids if id_dropout is None else id_dropout(ids)
        return self._embedded(read, dense, checked), self.first_order_term(ids, dense, checked=checked), *self.scenarios_of(read)

    def features(self, ids: Tensor, dense: Tensor | None = None) -> Tensor:
        """The recurrence's input x0 [B, D]: the embeddings of all fields side by side, then the dense features, projected or embedded."""
        return self._embedded(ids, dense, self._check(ids, dense))

    def _check(self, ids: Tensor, dense: Tensor | None) -> bool:
        """Raise for ids and dense features that the model cannot read. False where it could not see the ids' values."""
        checked = check_ids(ids, self.num_embeddings, self.field_names)
        check_dense(dense, ids.shape[0], self.num_dense)
        return checked

    def _rows(self, ids: Tensor, checked: bool) -> Tensor:
        return merge_ids(ids, self.sizes, self.offsets, self.embedding.num_embeddings, checked=checked)

    def _embedded(self, ids: Tensor, dense: Tensor | None, checked: bool) -> Tensor:
        parts, rows = [], self._rows(ids, checked)
        if self.num_embeddings:
            embedded = self.embedding(rows)
            parts.append(pool(embedded, ids, self.spans) if self.pooled else embedded.flatten(1))
        return torch.cat([*parts, *self.dense_features(dense)], dim=1)

    def first_order_term(self, ids: Tensor, dense: Tensor | None = None, *, checked: bool = False) -> Tensor | None:
        """What ids and dense features add to the towers' outputs, [B, T]; None without the term. ``checked`` says that ids are in range."""
        if self.first_order is None:
            return None
        rows = self._rows(ids, checked)
        return self.first_order.of_ids(rows, ids, self.spans) + self.first_order_of_numbers(dense)

    def first_order_of_numbers(self, dense: Tensor | None) -> Tensor | float:
        """The part of the first-order term [B, T] that the dense columns give; 0 where there are none."""
        if self.first_order is None or dense is None:
            return 0.0
        return self.first_order.of_numbers(dense.unsqueeze(2) if self.dense_embedding is None else self.dense_embedding.bins(dense))

    def dense_features(self, dense: Tensor | None) -> list[Tensor]:
        """The part of :meth:`features` that the dense columns give, [B, N'], or nothing where there are none."""
        if dense is None:
            return []
        if self.dense_projection is not None:
            return [self.dense_projection(dense.to(self.dense_projection.weight.dtype))]
        return [] if self.dense_embedding is None else [self.dense_embedding(dense)]

    def scenarios_of(self, ids: Tensor) -> tuple[Tensor, ...]:
        """The scenario [B] of each row, or nothing in a model without scenarios."""
        return () if self.scenario_column is None else (ids[:, self.scenario_column],)

    def tower_logits(self, states: Tensor) -> Tensor:
        """The towers' outputs [B, T], from the recurrence's states [T, B, D]."""
        for layer in self.towers:
            states = self.dropout(torch.relu(layer(states)))
        if self.transfer is not None:
            states = self.transfer(states)
        return self.head(states).squeeze(-1).T

    def event_logits(self, z: Tensor) -> Tensor:
        """Logits [B, T] of each event over all impressions, from :meth:`conditional_logits` z."""
        return chain_logits(z) if self.relation == "chain" else z

    def conditional_logits(self, ids: Tensor, dense: Tensor | None = None) -> Tensor:
        """z [B, T], the towers' outputs and the first-order term. Under "chain" each is the logit of an event given the one before it."""
        return self._z(*self.inputs(ids, dense))

    def _z(self, x0: Tensor, first_order: Tensor | None, *scenarios: Tensor) -> Tensor:
        return with_first_order(self.tower_logits(self.cross(x0, *scenarios)), first_order)

    def forward(self, ids: Tensor, dense: Tensor | None = None) -> Tensor:
        """Logits [B, T] of each task's event over all impressions, in the order of ``tasks``.

        Args:
            ids: int64 [B, F], column f in [0, num_embeddings[f]); with ``pooled`` [B, C].
            dense: floating [B, N], finite; None where num_dense is 0.

        Raises:
            IndexError: an id outside its field's range; the message names the field.
            TypeError, ValueError: a wrong dtype or shape, or a dense value that is not finite.
        """
        return self.behind_inputs(*self.inputs(ids, dense))

    def behind_inputs(self, x0: Tensor, first_order: Tensor | None, *scenarios: Tensor) -> Tensor:
        """The part of :meth:`forward` behind :meth:`inputs`, which it takes."""
        return self.event_logits(self._z(x0, first_order, *scenarios))

    @torch.no_grad()
    def predict(self, ids: Tensor, dense: Tensor | None = None) -> dict[str, Tensor]:
        """Probabilities [B] by task name, in float32, without gradients.

        Under "chain" also ``"{task}_given_{task before}"`` for every task but the first: "consume_given_click".
        Call ``eval()`` first: in training mode dropout is active. They are corrected by :attr:`negative_rate`. Arguments and errors as in
        :meth:`forward`.
        """
        return self.probabilities(self.conditional_logits(ids, dense))

    def probabilities(self, z: Tensor) -> dict[str, Tensor]:
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

    def prepare_inference(self) -> PreparedDCRNN:
        """What computes this model's logits and probabilities soonest: in evaluation mode, without gradients, until the weights change.

        On a GPU it records CUDA graphs for requests of up to 512 rows; ``DCRNN_FAST_CUDA_GRAPHS=0`` in the environment does without them.
        Raises RuntimeError if they cannot be recorded.
        """
        return PreparedDCRNN(self, self.backend)
