"""Encodes one user and many items: the user's cells once, and not once an item."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any

import torch

from ...errors import DataError
from .encoder import Encoded, Encoder
from .memory import pieces_of


class UserItems:
    """An encoder's columns, divided into the user's and the items'.

    ``item_fields`` are the items' fields in the order of their ids, ``item_numbers`` the positions of their dense columns among the
    encoder's. ``is_mixed`` says that a derived column reads columns of both, so that it has neither's ids: then take :meth:`repeated`.

    >>> encoder = Encoder(
    ...     tasks=["click"], num_embeddings={"city": 2, "item": 3}, dense=[],
    ...     vocabulary={"city": ["<oov>", "Oslo"], "item": ["<oov>", "a", "b"]}, scaling={},
    ... )
    >>> user, items = UserItems(encoder, ["city"]).encode({"city": "Oslo"}, {"item": ["b", "c"]})
    >>> user.ids.tolist(), items.ids.tolist()
    ([[1]], [[2], [0]])
    """

    def __init__(self, encoder: Encoder, user_columns: Collection[str]) -> None:
        """Raises DataError where no column is left for the items."""
        self._encoder, self._user = encoder, encoder.part(user_columns)
        self._items = encoder.part([name for name in encoder.columns if name not in user_columns])
        if not self._items.columns:
            raise DataError("user has every column that is read; give it the user's alone, and the others in items")
        self.item_fields = tuple(self._items.num_embeddings)
        self.item_numbers = tuple(encoder.dense.index(name) for name in self._items.dense)
        parts = self._user, self._items
        self.is_mixed = any(
            sum(map(len, counts)) < len(whole)
            for counts, whole in (
                ([part.num_embeddings for part in parts], encoder.num_embeddings),
                ([part.dense for part in parts], encoder.dense),
            )
        )

    def encode(self, user: Mapping[str, Any], items: Any) -> tuple[Encoded, Encoded]:
        """The user's row and the items' rows. Raises DataError as :meth:`Encoder.encode` does; it says whose cell or column is wrong."""
        if self._user.columns:
            of_user = _named("user", lambda: self._user.encode({name: [user[name]] for name in self._user.columns}))
        else:
            of_user = Encoded(torch.empty(1, 0, dtype=torch.int64), None)
        return of_user, _named("items", lambda: self._items.encode(items))

    def rows(self, user: Encoded, items: Encoded) -> Encoded:
        """The items' rows with the user's ids and numbers in each, of what :meth:`encode` gives."""
        fields, numbers = list(self._encoder.num_embeddings), list(self._encoder.dense)
        ids = torch.empty(len(items.ids), len(fields), dtype=torch.int64)
        dense = torch.empty(len(items.ids), len(numbers), dtype=torch.float32) if numbers else None
        for part, encoded in ((self._user, user), (self._items, items)):
            ids[:, [fields.index(name) for name in part.num_embeddings]] = encoded.ids
            if dense is not None and encoded.dense is not None:
                dense[:, [numbers.index(name) for name in part.dense]] = encoded.dense
        return Encoded(ids, dense)

    def repeated(self, user: Mapping[str, Any], items: Any) -> Encoded:
        """Rows of all columns, which repeat the user's cells. Raises DataError as :meth:`encode` does."""

        def whole() -> Encoded:
            return self._encoder.encode_pieces(
                piece._replace(columns={**piece.columns, **{name: [user[name]] * piece.rows for name in self._user.columns}})
                for piece in pieces_of(items, self._items.columns)
            )

        return _named("user and items", whole)


def _named(what: str, encode: Callable[[], Encoded]) -> Encoded:
    try:
        return encode()
    except DataError as error:
        raise DataError(f"{what}: {error}") from error
