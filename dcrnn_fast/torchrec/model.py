"""A DCRNN whose embeddings are tables of torchrec, which shards them over many processes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.distributed._shard.sharded_tensor import ShardedTensor
from torchrec import EmbeddingBagCollection, EmbeddingBagConfig, KeyedJaggedTensor, PoolingType

from ..nn import model
from ..support.checks import check_tensor
from ..support.model_inputs import check_dense
from .keyed_jagged import check_keyed_jagged_tensor, fields_of

TABLE = "embedding.weight"
"""The merged table of a plain DCRNN."""
OWN = "embedding."
"""How the names of torchrec's tables start in a state_dict."""


class Part(NamedTuple):
    """A shard of a table that this process holds: the table's name, the values, and the row and the column at which they start."""

    table: str
    values: Tensor
    row: int
    column: int


class DCRNN(model.DCRNN):
    """:class:`dcrnn_fast.DCRNN` whose embeddings are a torchrec ``EmbeddingBagCollection``, and which reads a ``KeyedJaggedTensor``.

    It takes the arguments of :class:`dcrnn_fast.DCRNN` and gives its logits; its keys are the fields, in any order. ``embedding`` is the
    collection. It has a table for each field with rows of its own; a field in ``shared_embeddings`` reads another's. :func:`shard` divides
    the tables among the processes of a job.

    Raises TypeError, ValueError: as :class:`dcrnn_fast.DCRNN`, and for no field, ``sparse=True`` and another ``dtype`` than float32; in
    the forward as :func:`from_keyed_jagged_tensor`.

    Example:
        >>> import torch
        >>> import dcrnn_fast
        >>> from dcrnn_fast.torchrec import DCRNN, to_keyed_jagged_tensor
        >>> model = DCRNN({"user": 100, "item": 50}, tasks=("click", "consume"))
        >>> ids = torch.tensor([[7, 3], [99, 0]])
        >>> logits = model(to_keyed_jagged_tensor(ids, model))
        >>> served = dcrnn_fast.DCRNN({"user": 100, "item": 50}, tasks=("click", "consume"))
        >>> served.load_state_dict(model.plain_state_dict())
        <All keys matched successfully>
        >>> torch.allclose(served(ids), logits)
        True
    """

    def _make_table(self, embedding_dim: int, *, sparse: bool, device: torch.device | str | None, dtype: torch.dtype | None) -> None:
        if sparse:
            raise ValueError("sparse=True: expected False, because torchrec has optimisers of its own for its tables; see shard")
        if dtype not in (None, torch.float32):
            raise ValueError(f"dtype={dtype}: expected torch.float32 with tables of torchrec")
        self.fields, self.embedding_dim = fields_of(self), embedding_dim
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
        # A table pools in one way only, and fields that share it may not: all are sums, and the model divides.
        configs = [
            EmbeddingBagConfig(
                name=name,
                embedding_dim=embedding_dim,
                num_embeddings=size,
                feature_names=names,
                pooling=PoolingType.SUM,
                init_fn=partial(nn.init.normal_, std=self.embedding_init_std),
            )
            for name, (size, names) in self.tables.items()
        ]
        place = torch.get_default_device() if device is None else torch.device(device)
        self.embedding = EmbeddingBagCollection(tables=configs, device=place)

    def _reset_table(self) -> None:
        for part in self._parts():
            nn.init.normal_(part.values, std=self.embedding_init_std)

    def features(self, ids: KeyedJaggedTensor, dense: Tensor | None = None) -> Tensor:
        """The recurrence's input x0 [B, D]: the embeddings of all fields side by side, then the dense features, projected or embedded."""
        check_keyed_jagged_tensor(ids, self.fields)
        if not ids.stride():
            raise ValueError("ids: got no rows, expected at least one, as torchrec's tables do")
        check_dense(dense, ids.stride(), self.num_dense)
        embedded, parts = self.embedding(ids), []
        for field in self.fields:
            sums = embedded[field.name]
            parts.append(sums / ids[field.name].lengths().clamp(min=1)[:, None] if field.pooling == "mean" else sums)
        return torch.cat([*parts, *self.dense_features(dense)], dim=1)

    def scenarios_of(self, ids: KeyedJaggedTensor) -> tuple[Tensor, ...]:
        """The scenario [B] of each row, or nothing in a model without scenarios."""
        return () if self.scenario is None else (ids[self.scenario].values(),)

    def plain_state_dict(self) -> dict[str, Tensor] | None:
        """These weights as the state_dict of a :class:`dcrnn_fast.DCRNN` with the same arguments, which has one table for all fields.

        After :func:`shard` every process must call it: ``parallel.module.plain_state_dict()``. Rank 0 gets the weights, with all tables
        in its memory, and the others None.
        """
        state = self.state_dict()
        tables = [_gathered(state[f"{OWN}embedding_bags.{name}.weight"]) for name in self.tables]  # every rank sends its parts
        if not isinstance(self.embedding, EmbeddingBagCollection) and torch.distributed.get_rank():
            return None
        return {TABLE: torch.cat(tables)} | {name: value.detach() for name, value in state.items() if not name.startswith(OWN)}

    @torch.no_grad()
    def load_plain_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Take the weights of a :class:`dcrnn_fast.DCRNN` with the same arguments. Each process takes its part of the tables.

        Raises TypeError, ValueError: it is no state_dict, or its names or shapes do not fit this model; then no weight has changed.
        """
        if not isinstance(state, Mapping):
            raise TypeError(f"state: got {type(state).__name__}, expected the state_dict of a DCRNN")
        own = {name: value for name, value in self.state_dict().items() if not name.startswith(OWN)}
        rows = sum(size for size, _ in self.tables.values())
        shapes = {TABLE: [rows, self.embedding_dim]} | {name: list(value.shape) for name, value in own.items()}
        if state.keys() != shapes.keys():
            lacking, unknown = sorted(shapes.keys() - state.keys()), sorted(state.keys() - shapes.keys())
            raise ValueError(f"state: lacks {lacking}, has unknown {unknown}; expected the state_dict of a DCRNN with the same arguments")
        for name, shape in shapes.items():
            check_tensor(f"state[{name!r}]", state[name], f"floats {shape}")
            if list(state[name].shape) != shape:
                raise ValueError(f"state[{name!r}]: got shape {list(state[name].shape)}, expected {shape}")
        start, starts = 0, {}
        for table, (size, _) in self.tables.items():
            starts[table] = start
            start += size
        for part in self._parts():
            first, (height, width) = starts[part.table] + part.row, part.values.shape
            part.values.copy_(state[TABLE][first : first + height, part.column : part.column + width])
        for name, value in own.items():
            value.copy_(state[name])

    def _parts(self) -> Iterator[Part]:
        """The shards of the tables that this process holds."""
        for name, weight in self.embedding.state_dict().items():
            table = name.removeprefix("embedding_bags.").removesuffix(".weight")
            if isinstance(weight, ShardedTensor):
                for shard in weight.local_shards():
                    yield Part(table, shard.tensor, *shard.metadata.shard_offsets)
            else:
                yield Part(table, weight, 0, 0)


def _gathered(weight: Tensor | ShardedTensor) -> Tensor:
    """A whole table; of a sharded one rank 0 gets the values, and other ranks nothing."""
    if not isinstance(weight, ShardedTensor):
        return weight.detach()
    if torch.distributed.get_rank():
        weight.gather(dst=0)
        return torch.empty(0)
    whole = torch.empty(weight.size(), dtype=weight.dtype)
    weight.gather(dst=0, out=whole)
    return whole
