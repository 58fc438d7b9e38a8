"""A DCRNN whose embeddings are tables of torchrec, which divides them among many processes: the model, and :func:`shard`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from itertools import accumulate
from typing import Any, NamedTuple

import torch
from torch import Tensor, distributed, nn
from torch.distributed._shard.sharded_tensor import ShardedTensor
from torch.distributed.optim import _apply_optimizer_in_backward
from torchrec import EmbeddingBagCollection, EmbeddingBagConfig, KeyedJaggedTensor, PoolingType
from torchrec.distributed import DistributedModelParallel
from torchrec.distributed.comm import get_local_size
from torchrec.distributed.embedding_types import EmbeddingComputeKernel
from torchrec.distributed.embeddingbag import EmbeddingBagCollectionSharder
from torchrec.distributed.planner import EmbeddingShardingPlanner, ParameterConstraints, Topology
from torchrec.distributed.types import ShardingType
from torchrec.optim import RowWiseAdagrad

from ..nn import model
from ..nn.features import EMBEDDING, FIRST_ORDER, Features, FirstOrder, Inputs
from ..support.checks import check_deviation
from ..support.model_inputs import check_dense
from ..support.tensors import check_placement, check_tensor
from .keyed_jagged import check_keyed_jagged_tensor, fields_of

COLLECTIONS = {"embedding": EMBEDDING, "first_order_tables": FIRST_ORDER}
"""The collections of torchrec's tables, and the merged table of a plain DCRNN in whose place each one is."""
OWN = tuple(f"features.{name}." for name in COLLECTIONS)
"""How the names of torchrec's tables start in a state_dict."""
WHOLE_ROWS = [ShardingType.TABLE_WISE.value, ShardingType.ROW_WISE.value]


class Part(NamedTuple):
    """A shard of a table that this process holds: its collection, its name, the values, and the row and the column at which they start."""

    collection: str
    table: str
    values: Tensor
    row: int
    column: int


class KeyedFeatures(Features):
    """:class:`dcrnn_fast.nn.features.Features` that read collections of torchrec's tables."""

    def _make_tables(self, *, first_order: bool, **options: Any) -> None:
        if any(self.first_order_only):
            raise ValueError("first_order_only: got fields, expected none: torchrec's tables have an embedding of every field")
        device, dtype = options["device"], options["dtype"]
        if options["sparse"]:
            raise ValueError("sparse=True: expected False, because torchrec has optimisers of its own for its tables; see shard")
        if dtype not in (None, torch.float32):
            raise ValueError(f"dtype={dtype}: expected torch.float32 with tables of torchrec")
        bins = max(1, self.dense_bins)
        self.first_order = FirstOrder(None, self.num_tasks, self.num_dense, bins, device=device, dtype=dtype) if first_order else None
        self.fields = fields_of(self)
        readers: dict[str, list[str]] = {}  # by column with rows of its own: the fields that read them
        for field in self.fields:
            column = self.field_names[field.start]
            readers.setdefault(self.shared_embeddings.get(column, column), []).append(field.name)
        self.tables: dict[str, tuple[int, list[str]]] = {}
        """The tables of `embedding`: by name the number of rows, and the fields that read them."""
        for position, (column, size) in enumerate(zip(self.field_names, self.num_embeddings, strict=True)):
            if column in readers:
                # A module's name may have no dot, and be no attribute of the module that holds it.
                self.tables[f"t{position}_{column.replace('.', '_')}"] = size, readers[column]
        start = partial(nn.init.normal_, std=self.embedding_init_std)
        self.embedding = self._collection(self.embedding_dim, start, device)
        self.first_order_tables: EmbeddingBagCollection | None = None
        if first_order:
            width = self.num_tasks + -self.num_tasks % 4
            self.first_order_tables = self._collection(width, nn.init.zeros_, device, after="_first_order")

    def _collection(
        self, width: int, start: Callable[[Tensor], Tensor], device: torch.device | str | None, after: str = ""
    ) -> EmbeddingBagCollection:
        # A table pools in one way only, and fields that share it may not: all are sums, and the model divides.
        configs = [
            EmbeddingBagConfig(
                name=name + after,
                embedding_dim=width,
                num_embeddings=size,
                feature_names=names,
                pooling=PoolingType.SUM,
                init_fn=start,
            )
            for name, (size, names) in self.tables.items()
        ]
        return EmbeddingBagCollection(tables=configs, device=torch.get_default_device() if device is None else torch.device(device))

    def reset_parameters(self) -> None:
        """Draw new embeddings of the ids."""
        for part in self.parts():
            if part.collection == "embedding":
                nn.init.normal_(part.values, std=self.embedding_init_std)
            else:
                nn.init.zeros_(part.values)

    @property
    def id_tables(self) -> list[Tensor]:
        """The tables of both collections."""
        return [table for name in self.collections() for table in getattr(self, name).parameters()]

    def collections(self) -> list[str]:
        """The names of the collections that there are."""
        return [name for name in COLLECTIONS if getattr(self, name) is not None]

    def parts(self) -> Iterator[Part]:
        """The shards of the tables that this process holds."""
        for collection in self.collections():
            for name, weight in getattr(self, collection).state_dict().items():
                table = name.removeprefix("embedding_bags.").removesuffix(".weight").removesuffix("_first_order")
                if isinstance(weight, ShardedTensor):
                    for shard in weight.local_shards():
                        yield Part(collection, table, shard.tensor, *shard.metadata.shard_offsets)
                else:
                    yield Part(collection, table, weight, 0, 0)

    def forward(self, ids: KeyedJaggedTensor, dense: Tensor | None = None) -> Inputs:
        """What the model reads of a batch. Raises TypeError, ValueError as :func:`from_keyed_jagged_tensor` does."""
        check_keyed_jagged_tensor(ids, self.fields)
        if not ids.stride():
            raise ValueError("ids: got no rows, expected at least one, as torchrec's tables do")
        check_dense(dense, ids.stride(), self.num_dense)
        x0 = self._read(self.embedding, ids).flatten(1)
        term = None if self.first_order_tables is None else self._read(self.first_order_tables, ids).sum(1)[:, : self.num_tasks]
        scenario = None if self.scenario_column is None else ids[self.field_names[self.scenario_column]].values()
        return Inputs(*self._with_numbers([x0], term, dense), scenario)

    def _read(self, collection: nn.Module, ids: KeyedJaggedTensor) -> Tensor:
        """What a collection holds for each field, [B, F, width]: of a field with several values, the sum or mean of theirs."""
        embedded, parts = collection(ids), []
        for field in self.fields:
            sums = embedded[field.name]
            parts.append(sums / ids[field.name].lengths().clamp(min=1)[:, None] if field.pooling == "mean" else sums)
        return torch.stack(parts, dim=1)


class DCRNN(model.DCRNN):
    """:class:`dcrnn_fast.DCRNN` whose embeddings are a torchrec ``EmbeddingBagCollection``, and which reads a ``KeyedJaggedTensor``.

    It takes the arguments of :class:`dcrnn_fast.DCRNN` and gives its logits; its keys are the fields, in any order. The collection
    ``features.embedding`` has a table for each field with rows of its own; a field in ``shared_embeddings`` reads another's. The tables of
    the first-order term are in ``features.first_order_tables``; a row has a number for each task and zeros up to a multiple of 4, as
    fbgemm's tables need it. :func:`shard` divides all tables among the processes of a job.

    Raises TypeError, ValueError: as :class:`dcrnn_fast.DCRNN`, and for no field, ``sparse=True`` and another ``dtype`` than float32; in
    the forward as :func:`from_keyed_jagged_tensor`.

    Example:
        >>> import torch
        >>> import dcrnn_fast
        >>> from dcrnn_fast.torchrec import DCRNN, to_keyed_jagged_tensor
        >>> model = DCRNN({"user": 100, "item": 50}).eval()
        >>> ids = torch.tensor([[7, 3], [99, 0]])
        >>> logits = model(to_keyed_jagged_tensor(ids, model))
        >>> served = dcrnn_fast.DCRNN({"user": 100, "item": 50}).eval()
        >>> served.load_state_dict(model.plain_state_dict())
        <All keys matched successfully>
        >>> torch.allclose(served(ids), logits)
        True
    """

    features_type = KeyedFeatures
    features: KeyedFeatures

    def plain_state_dict(self) -> dict[str, Tensor] | None:
        """These weights as the state_dict of a :class:`dcrnn_fast.DCRNN` with the same arguments, which has one table for all fields.

        After :func:`shard` every process must call it: ``parallel.module.plain_state_dict()``. Rank 0 gets the weights, with all tables
        in its memory, and the others None.
        """
        state, found = self.state_dict(), {}
        for name in self.features.collections():
            after = "" if name == "embedding" else "_first_order"
            tables = [f"features.{name}.embedding_bags.{table}{after}.weight" for table in self.features.tables]
            found[COLLECTIONS[name]] = torch.cat([_gathered(state[table]) for table in tables])  # every rank sends its parts, in one order
        if not isinstance(self.features.embedding, EmbeddingBagCollection) and distributed.get_rank():
            return None
        if self.features.first_order_tables is not None:
            first = COLLECTIONS["first_order_tables"]
            found[first] = found[first][:, : len(self.tasks)].contiguous()
        return found | {name: value.detach() for name, value in state.items() if not name.startswith(OWN)}

    @torch.no_grad()
    def load_plain_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Take the weights of a :class:`dcrnn_fast.DCRNN` with the same arguments. Each process takes its part of the tables.

        Raises TypeError, ValueError: it is not a state_dict, or its names or shapes do not fit this model; then no weight has changed.
        """
        if not isinstance(state, Mapping):
            raise TypeError(f"state: got {type(state).__name__}, expected the state_dict of a DCRNN")
        own = {name: value for name, value in self.state_dict().items() if not name.startswith(OWN)}
        sizes = [size for size, _ in self.features.tables.values()]
        widths = {"embedding": self.features.embedding_dim, "first_order_tables": len(self.tasks)}
        shapes = {COLLECTIONS[name]: [sum(sizes), widths[name]] for name in self.features.collections()}
        shapes |= {name: list(value.shape) for name, value in own.items()}
        if state.keys() != shapes.keys():
            lacking, unknown = sorted(shapes.keys() - state.keys()), sorted(state.keys() - shapes.keys())
            raise ValueError(f"state: lacks {lacking}, has unknown {unknown}; expected the state_dict of a DCRNN with the same arguments")
        for name, shape in shapes.items():
            check_tensor(f"state[{name!r}]", state[name], f"floats {shape}")
            if list(state[name].shape) != shape:
                raise ValueError(f"state[{name!r}]: got shape {list(state[name].shape)}, expected {shape}")
        starts = dict(zip(self.features.tables, accumulate(sizes, initial=0), strict=False))
        for part in self.features.parts():
            first, (height, width) = starts[part.table] + part.row, part.values.shape
            given = state[COLLECTIONS[part.collection]][first : first + height, part.column : part.column + width]
            part.values.zero_()
            part.values[:, : given.shape[1]] = given
        for name, value in own.items():
            value.copy_(state[name])


def _gathered(weight: Tensor | ShardedTensor) -> Tensor:
    """A whole table; of a sharded one rank 0 gets the values, and other ranks nothing."""
    if not isinstance(weight, ShardedTensor):
        return weight.detach()
    is_first = distributed.get_rank() == 0
    whole = torch.empty(weight.size() if is_first else 0, dtype=weight.dtype)
    weight.gather(dst=0, out=whole if is_first else None)
    return whole


def shard(
    model: DCRNN, *, lr: float = 0.05, first_order_lr: float = 0.1, eps: float = 1e-8, device: torch.device | str = "cpu"
) -> DistributedModelParallel:
    """The model in torchrec's ``DistributedModelParallel``: each process holds some tables, or some rows of one. Every process calls it.

    torchrec's planner divides the tables. A backward updates them by the rule of :class:`dcrnn_fast.RowWiseAdagrad`; all other parameters
    are the same in every process, and need an optimiser of yours. torchrec's own plan may copy small tables to every process, which fused
    optimisers do not update, or cut rows in pieces, which row-wise Adagrad then updates apart; this one does neither.

    Args:
        model: on the meta device, its parameters are drawn here, and no process ever holds all tables.
        lr, first_order_lr, eps: of row-wise Adagrad, finite and at least 0; the tables of the first-order term have a rate of their own.
        device: where this process computes.

    Raises:
        TypeError, ValueError: an argument of another type or outside its range, or a model whose embedding_dim is not a multiple of 4.
        RuntimeError: there is no process group yet; call ``torch.distributed.init_process_group`` first.

    Example::

        model = DCRNN(encoder.num_embeddings, num_dense=len(encoder.dense), tasks=encoder.tasks, device="meta")
        parallel = shard(model)
        tables = ("features.embedding.", "features.first_order_tables.")
        optimiser = torch.optim.AdamW([p for name, p in parallel.named_parameters() if not name.startswith(tables)])
    """
    if not isinstance(model, DCRNN):
        raise TypeError(f"model: got {type(model).__name__}, expected a dcrnn_fast.torchrec.DCRNN")
    for name, value in (("lr", lr), ("first_order_lr", first_order_lr), ("eps", eps)):
        check_deviation(name, value)
    if model.features.embedding_dim % 4:
        dim = model.features.embedding_dim
        raise ValueError(f"model: got embedding_dim={dim}, expected a multiple of 4, which fbgemm's sharded tables need")
    check_placement(device, None)
    place = torch.device(device)
    if not distributed.is_initialized():
        raise RuntimeError("there is no process group: call torch.distributed.init_process_group first")
    _apply_optimizer_in_backward(RowWiseAdagrad, model.features.embedding.parameters(), {"lr": lr, "eps": eps})
    if model.features.first_order_tables is not None:
        tables = list(model.features.first_order_tables.parameters())
        narrower = (len(model.tasks) / tables[0].shape[1]) ** 0.5  # the mean of a row's squares counts the zeros that fill it up too
        _apply_optimizer_in_backward(RowWiseAdagrad, tables, {"lr": first_order_lr * narrower, "eps": eps * narrower})
    world, sharders = distributed.get_world_size(), [EmbeddingBagCollectionSharder()]
    allowed = ParameterConstraints(sharding_types=WHOLE_ROWS, compute_kernels=[EmbeddingComputeKernel.FUSED.value])
    own = model.features.tables
    planner = EmbeddingShardingPlanner(
        topology=Topology(world_size=world, local_world_size=get_local_size(world), compute_device=place.type),
        constraints=dict.fromkeys([*own, *(f"{name}_first_order" for name in own)], allowed),
    )
    plan = planner.collective_plan(model, sharders, distributed.group.WORLD)
    return DistributedModelParallel(model, device=place, plan=plan, sharders=sharders)
