"""One user and many items: the scores of rows that repeat the user, whoever has which column."""

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import torch

from dcrnn_fast import DCRNN, Ranker
from dcrnn_fast.data import Encoder
from dcrnn_fast.serving import ranker as module

CITIES, ITEMS, TAGS = ["<oov>", "Oslo", "Rome"], ["<oov>", "i1", "i2", "<missing>"], ["<oov>", "new", "red"]
HOUR = {"column": "time", "as": "hour"}
POOLED = {"tags": {"columns": ["tags[0]", "tags[1]"], "pooling": "mean"}}
VALUES = {f"tags[{i}]": {"column": "tags", "value": i} for i in range(2)}
USER = {"city": "Rome", "time": "2024-05-31T23:59:00", "age": 31}
TABLE = {"item": ["i2", "unseen", None, "i1"], "price": [9.5, 12.0, None, 30.0], "tags": [["red"], ["new", "red"], [], ["other", "new"]]}


def made(*, pooled=False, crossed=False, dense_bins=4):
    """A ranker with random weights. Fields of the user and of the items alternate; with ``crossed``, one reads columns of both."""
    fields = {"item": (4, ITEMS), "city": (3, CITIES), "price": (4, [5.0, 20.0]), "hour": (26, ["<oov>", *map(str, range(25))])}
    derived = {"hour": HOUR}
    if crossed:
        fields["pair"] = 3, ["<oov>", "Rome|i2", "Rome|unseen"]
        derived["pair"] = {"cross": ["city", "item"]}
    if pooled:
        fields |= {"tags[0]": (3, TAGS), "tags[1]": (3, TAGS)}
        derived |= VALUES
    encoder = Encoder(
        tasks=["click", "buy"],
        num_embeddings={name: size for name, (size, _) in fields.items()},
        dense=["price", "age"],
        vocabulary={name: entries for name, (_, entries) in fields.items() if name != "tags[1]"},
        scaling={name: {"treatment": "standardise", "mean": 10.0, "std": 5.0} for name in ("price", "age")},
        shared={"tags[1]": "tags[0]"} if pooled else {},
        derived=derived,
        pooled=POOLED if pooled else None,
    )
    torch.manual_seed(0)
    model = DCRNN(
        encoder.num_embeddings, num_dense=2, tasks=encoder.tasks, shared_embeddings=encoder.shared, pooled=encoder.pooled, embedding_dim=8,
        dense_bins=dense_bins,
    )  # fmt: skip
    torch.nn.init.normal_(model.features.embedding.weight)
    return Ranker(model, encoder)


def assert_scores_are_those_of_repeated_rows(ranker, user, items, table=None):
    repeats = {**items, **{name: [cell] * len(next(iter(items.values()))) for name, cell in user.items()}}
    found, expected = ranker.score(user, items if table is None else table), ranker.predict(repeats)
    assert list(found) == list(expected)
    for name, values in expected.items():
        np.testing.assert_array_equal(found[name], values, err_msg=name)


@pytest.mark.parametrize("form", [dict, pd.DataFrame, pa.table], ids=["lists", "pandas", "arrow"])
@pytest.mark.parametrize("options", [{}, {"pooled": True}, {"crossed": True}, {"dense_bins": 0}], ids=str)
def test_scores_have_the_bits_of_rows_that_repeat_the_user(options, form):
    assert_scores_are_those_of_repeated_rows(made(**options), USER, TABLE, form(TABLE))


@pytest.mark.parametrize("of_user", [["item"], ["price", "tags"], ["time"], ["city", "time", "age", "price"], []], ids=str)
def test_any_columns_may_be_the_users(of_user):
    whole = TABLE | {name: [cell] * 4 for name, cell in USER.items()}
    items = {name: cells for name, cells in whole.items() if name not in of_user}
    assert_scores_are_those_of_repeated_rows(made(pooled=True), {name: whole[name][0] for name in of_user}, items)


def test_items_of_any_number_are_scored(monkeypatch):
    ranker = made()
    monkeypatch.setattr(module, "BATCH", 3)
    assert_scores_are_those_of_repeated_rows(ranker, USER, {name: cells * 2 for name, cells in TABLE.items()})
    assert ranker.score(USER, {name: [] for name in TABLE})["click"].shape == (0,)


def test_the_users_cell_counts_where_the_items_have_the_column_too():
    ranker = made()
    found = ranker.score({**USER, "unknown": object()}, {**TABLE, "city": ["Oslo"] * 4})
    np.testing.assert_array_equal(found["buy"], ranker.score(USER, TABLE)["buy"])


def test_a_calibration_is_applied():
    ranker = made()
    ranker.calibration = type("Halved", (), {"apply": lambda self, scores, *_: {name: values / 2 for name, values in scores.items()}})()
    assert_scores_are_those_of_repeated_rows(ranker, USER, TABLE)
