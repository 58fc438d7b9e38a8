"""Ids [B, C] as torchrec's KeyedJaggedTensor, and back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torchrec import KeyedJaggedTensor

from ..errors import shown
from ..support.fields import first_columns
from ..support.model_inputs import check_ids
from ..support.tracing import may_read_values


class Field(NamedTuple):
    """A field: its name and number of ids, its columns `[start, stop)`, and how several values become one vector; None for one value."""

    name: str
    size: int
    start: int
    stop: int
    pooling: str | None


def fields_of(reader: Any) -> list[Field]:
    """The fields of a DCRNN or an Encoder, in the order of their columns. Raises TypeError for anything else.

    >>> from dcrnn_fast import DCRNN
    >>> from dcrnn_fast.torchrec.keyed_jagged import fields_of
    >>> fields_of(DCRNN({"city": 9, "tags[0]": 5}, pooled={"tags": {"columns": ["tags[0]"], "pooling": "mean"}}))
    [Field(name='city', size=9, start=0, stop=1, pooling=None), Field(name='tags', size=5, start=1, stop=2, pooling='mean')]
    """
    sizes = _column_sizes(reader)
    columns, fields = list(sizes), []
    for name, first in first_columns(reader.pooled, columns).items():
        start, several = columns.index(first), reader.pooled.get(name)
        stop = start + (1 if several is None else len(several["columns"]))
        fields.append(Field(name, sizes[first], start, stop, None if several is None else several["pooling"]))
    return fields


def _column_sizes(reader: Any) -> Mapping[str, int]:
    sizes = getattr(reader, "num_embeddings", None)
    if isinstance(sizes, tuple) and hasattr(reader, "field_names"):  # a DCRNN, which keeps names and sizes apart
        sizes = dict(zip(reader.field_names, sizes, strict=True))
    if not isinstance(sizes, Mapping) or not hasattr(reader, "pooled"):
        raise TypeError(f"reader: got {type(reader).__name__}, expected a DCRNN or an Encoder, which know the fields of ids")
    if not sizes:
        raise ValueError("reader: got one without fields, expected at least one: a KeyedJaggedTensor without keys has no rows")
    return sizes


def to_keyed_jagged_tensor(ids: Tensor, reader: Any) -> KeyedJaggedTensor:
    """Ids as torchrec's modules read them: a key for each field, in the order of the fields.

    A field of one value has length 1 in every row. A field with several values has the ids of its columns that are not 0, in their order.

    Args:
        ids: int64 or int32 [B, C], column c in [0, size of c); those of a batch of :class:`dcrnn_fast.data.BlockLoader`, or of ``Encoder``.
        reader: the DCRNN or the Encoder whose fields the columns are.

    Raises:
        IndexError: an id outside its field's range; the message names the field.
        TypeError, ValueError: a wrong dtype or shape, or a reader without fields.

    Example:
        >>> import torch
        >>> from dcrnn_fast import DCRNN
        >>> from dcrnn_fast.torchrec import to_keyed_jagged_tensor
        >>> tags = {"columns": ["tags[0]", "tags[1]"], "pooling": "mean"}
        >>> model = DCRNN({"city": 9, "tags[0]": 5, "tags[1]": 5}, shared_embeddings={"tags[1]": "tags[0]"}, pooled={"tags": tags})
        >>> features = to_keyed_jagged_tensor(torch.tensor([[8, 2, 4], [0, 3, 0]]), model)
        >>> features["city"].to_dense(), features["tags"].to_dense()
        ([tensor([8]), tensor([0])], [tensor([2, 4]), tensor([3])])
    """
    fields, sizes = fields_of(reader), _column_sizes(reader)
    check_ids(ids, list(sizes.values()), list(sizes))
    values, lengths = [], []
    for field in fields:
        of_field = ids[:, field.start : field.stop]
        held = torch.ones_like(of_field, dtype=torch.bool) if field.pooling is None else of_field != 0
        values.append(of_field[held])
        lengths.append(held.sum(dim=1, dtype=ids.dtype))
    return KeyedJaggedTensor(keys=[field.name for field in fields], values=torch.cat(values), lengths=torch.cat(lengths))


def from_keyed_jagged_tensor(ids: KeyedJaggedTensor, reader: Any) -> Tensor:
    """The ids [B, C] of a KeyedJaggedTensor, in its dtype. A row with fewer values than a field has columns is filled up with 0.

    It undoes :func:`to_keyed_jagged_tensor`; but where a 0 stood before a value, it stands behind it now, which changes no prediction.

    Args:
        ids: with a key for each field, in any order; other keys are ignored.
        reader: the DCRNN or the Encoder whose fields they are.

    Raises:
        IndexError: an id outside its field's range, 0 among several values included; the message names the field.
        TypeError, ValueError: what is not a KeyedJaggedTensor of integers, lacks a field, has weights, or has a row with another number of
            values than its field may have: one, or of a field with several values, at most as many as it has columns.

    Example:
        >>> import torch
        >>> from torchrec import KeyedJaggedTensor
        >>> from dcrnn_fast import DCRNN
        >>> from dcrnn_fast.torchrec import from_keyed_jagged_tensor
        >>> features = KeyedJaggedTensor(keys=["item", "user"], values=torch.tensor([4, 3, 0, 1]), lengths=torch.tensor([1, 1, 1, 1]))
        >>> from_keyed_jagged_tensor(features, DCRNN({"user": 2, "item": 5}))
        tensor([[0, 4],
                [1, 3]])
    """
    fields = fields_of(reader)
    check_keyed_jagged_tensor(ids, fields)
    columns = ids.values().new_zeros(ids.stride(), max(field.stop for field in fields))
    for field in fields:
        of_field = ids[field.name]
        place = torch.arange(field.stop - field.start, device=columns.device)
        columns[:, field.start : field.stop][place < of_field.lengths()[:, None]] = of_field.values()
    return columns


def check_keyed_jagged_tensor(ids: Any, fields: Sequence[Field]) -> None:
    """Raise what :func:`from_keyed_jagged_tensor` raises."""
    if not isinstance(ids, KeyedJaggedTensor):
        raise TypeError(f"ids: got {type(ids).__name__}, expected a KeyedJaggedTensor; to_keyed_jagged_tensor makes one of a tensor of ids")
    keys = ids.keys()
    for field in fields:
        if keys.count(field.name) != 1:
            raise ValueError(f"ids: got the keys {shown(keys)}, expected {field.name!r} once")
    if ids.values().dtype not in (torch.int64, torch.int32):
        raise TypeError(f"ids: got values of dtype {ids.values().dtype}, expected torch.int64 (or torch.int32)")
    if ids.weights_or_none() is not None:
        raise ValueError("ids: got weights, expected none: every value of a field counts alike")
    if ids.variable_stride_per_key():
        raise ValueError("ids: got keys with numbers of rows of their own, expected one number of rows for all")
    if ids.lengths().numel() % len(keys):
        raise ValueError(f"ids: got {ids.lengths().numel()} lengths of {len(keys)} keys, expected as many for each key")
    if not may_read_values(ids.values()) or not ids.stride():
        return
    lengths = ids.lengths().view(len(keys), -1)
    least, most = (bound.tolist() for bound in (lengths.amin(dim=1), lengths.amax(dim=1)))
    if min(least) < 0 or int(lengths.sum()) != ids.values().numel():
        raise ValueError(f"ids: got {ids.values().numel()} values and lengths that add up to {int(lengths.sum())}, expected as many")
    for field in fields:
        key = keys.index(field.name)
        few, many = (1, 1) if field.pooling is None else (0, field.stop - field.start)
        if least[key] < few or most[key] > many:
            row = int(((lengths[key] < few) | (lengths[key] > many)).nonzero()[0])
            expected = "1; id 0 stands for an unknown value" if field.pooling is None else f"at most {many}"
            raise ValueError(f"ids: field {field.name!r} has {int(lengths[key, row])} values in row {row}, expected {expected}")
    held = [field for field in fields if ids[field.name].values().numel()]
    bounds = [torch.stack(ids[field.name].values().aminmax()) for field in held]
    for field, (low, high) in zip(held, torch.stack(bounds).tolist() if bounds else [], strict=True):
        first = 0 if field.pooling is None else 1
        if low < first or high >= field.size:
            stray = low if low < first else high
            hint = "; 0 is not a value, leave it out" if stray == 0 else ""
            raise IndexError(f"ids: field {field.name!r} has id {stray}, expected [{first}, {field.size}){hint}")
