"""Ids as a KeyedJaggedTensor, and back."""

import pytest
import torch

pytest.importorskip("torchrec")

from torchrec import KeyedJaggedTensor

from dcrnn_fast import DCRNN, reference
from dcrnn_fast.data import Encoder
from dcrnn_fast.torchrec import from_keyed_jagged_tensor, to_keyed_jagged_tensor

from .models import FIELDS, IDS, SIZES, batch

MODEL = DCRNN(SIZES, embedding_dim=4, **FIELDS)
PLAIN = DCRNN({"user": 4, "item": 5}, embedding_dim=4)
TAGS = DCRNN(
    {"tags[0]": 6, "tags[1]": 6},
    shared_embeddings={"tags[1]": "tags[0]"},
    pooled={"tags": {"columns": ["tags[0]", "tags[1]"], "pooling": "sum"}},
    dropout=0.0,
)


def jagged(values, lengths, keys=("user", "item"), **options):
    return KeyedJaggedTensor(keys=list(keys), values=torch.tensor(values), lengths=torch.tensor(lengths), **options)


@pytest.mark.parametrize("dtype", [torch.int64, torch.int32])
def test_a_round_trip_gives_the_same_ids(dtype):
    ids = IDS.to(dtype)
    back = from_keyed_jagged_tensor(to_keyed_jagged_tensor(ids, MODEL), MODEL)
    assert back.dtype == dtype
    assert torch.equal(back, ids)
    features = to_keyed_jagged_tensor(ids, MODEL)
    assert features.keys() == ["user", "tags", "shop.type", "last"]
    assert [row.tolist() for row in features["tags"].to_dense()] == [[1, 2, 5], [2, 2], [], [4]], "zeros are no values"
    assert from_keyed_jagged_tensor(to_keyed_jagged_tensor(ids[:0], MODEL), MODEL).shape == (0, 7)


def test_a_zero_before_a_value_moves_behind_it_and_no_prediction_changes():
    ids = torch.tensor([[0, 4], [3, 0]])
    back = from_keyed_jagged_tensor(to_keyed_jagged_tensor(ids, TAGS), TAGS)
    assert back.tolist() == [[4, 0], [3, 0]]
    assert torch.equal(TAGS(back), TAGS(ids))


def test_keys_may_come_in_any_order_among_others():
    features = jagged([9, 9, 4, 2, 3, 0], [2, 0, 1, 1, 1, 1], ["more", "item", "user"])
    assert from_keyed_jagged_tensor(features, PLAIN).tolist() == [[3, 4], [0, 2]]


def test_an_encoder_and_a_reference_model_know_the_fields_too():
    vocabulary = {"user": ["<oov>", "a", "b", "c"], "item": ["<oov>", "a", "b", "c", "d"]}
    encoder = Encoder(tasks=["click"], num_embeddings={"user": 4, "item": 5}, dense=[], vocabulary=vocabulary, scaling={})
    ids = encoder.encode({"user": ["c", "?"], "item": ["d", "a"]}).ids
    for reader in (encoder, PLAIN, reference.DCRNN({"user": 4, "item": 5})):
        features = to_keyed_jagged_tensor(ids, reader)
        assert (features.keys(), features.values().tolist(), features.lengths().tolist()) == (["user", "item"], [3, 0, 4, 1], [1] * 4)


def test_random_rows_keep_their_values():
    ids = batch(300)[0]
    back = from_keyed_jagged_tensor(to_keyed_jagged_tensor(ids, MODEL), MODEL)
    for columns in (slice(1, 4), slice(5, 7)):
        kept = [[value for value in row if value] for row in ids[:, columns].tolist()]
        assert [[value for value in row if value] for row in back[:, columns].tolist()] == kept
        assert all(0 not in row[: len(values)] for row, values in zip(back[:, columns].tolist(), kept, strict=True))
    assert torch.equal(back[:, [0, 4]], ids[:, [0, 4]])


@pytest.mark.parametrize(
    ("reader", "features", "error", "said"),
    [
        (PLAIN, torch.tensor([[1, 2]]), TypeError, "ids: got Tensor, expected a KeyedJaggedTensor; to_keyed_jagged_tensor makes one"),
        (PLAIN, jagged([1], [1], ["user"]), ValueError, r"ids: got the keys \['user'\], expected 'item' once"),
        (PLAIN, jagged([], [], []), ValueError, r"ids: got the keys \[\], expected 'user' once"),
        (PLAIN, jagged([1.0, 2.0], [1, 1]), TypeError, r"ids: got values of dtype torch.float32, expected torch.int64"),
        (PLAIN, jagged([1, 2], [1, 1], weights=torch.ones(2)), ValueError, "ids: got weights, expected none"),
        (PLAIN, jagged([1, 2, 3], [1, 1, 0, 1]), ValueError, "field 'item' has 0 values in row 0, expected 1; id 0 stands for an unknown"),
        (PLAIN, jagged([1, 2, 3, 1, 1], [1, 2, 1, 1]), ValueError, "field 'user' has 2 values in row 1, expected 1"),
        (PLAIN, jagged([4, 2], [1, 1]), IndexError, r"field 'user' has id 4, expected \[0, 4\)"),
        (PLAIN, jagged([3, -1], [1, 1]), IndexError, r"field 'item' has id -1, expected \[0, 5\)"),
        (PLAIN, jagged([1, 2, 3], [1, 1]), ValueError, "ids: got 3 values and lengths that add up to 2"),
        (PLAIN, jagged([1, 2], [-1, 3]), ValueError, "ids: got 2 values and lengths that add up to 2"),
        (PLAIN, jagged([1, 2, 3], [1, 1, 1]), ValueError, "ids: got 3 lengths of 2 keys, expected as many for each key"),
        (TAGS, jagged([1, 2, 3], [3], ["tags"]), ValueError, "field 'tags' has 3 values in row 0, expected at most 2"),
        (TAGS, jagged([1, 0], [2], ["tags"]), IndexError, r"field 'tags' has id 0, expected \[1, 6\); 0 is not a value, leave it out"),
        (TAGS, jagged([1, 6], [2], ["tags"]), IndexError, r"field 'tags' has id 6, expected \[1, 6\)$"),
        ({"user": 4}, jagged([1], [1], ["user"]), TypeError, "reader: got dict, expected a DCRNN or an Encoder"),
        (DCRNN([], num_dense=1), jagged([], [], []), ValueError, "reader: got one without fields"),
        (
            PLAIN,
            jagged([1, 2, 3], [1, 1, 1], stride_per_key_per_rank=[[1], [2]]),
            ValueError,
            "ids: got keys with numbers of rows of their own",
        ),
    ],
)
def test_what_does_not_fit_the_fields_is_refused(reader, features, error, said):
    with pytest.raises(error, match=said):
        from_keyed_jagged_tensor(features, reader)


@pytest.mark.parametrize(
    ("ids", "error", "said"),
    [
        (torch.tensor([[4, 0]]), IndexError, r"ids: field 'user' \(column 0\) has id 4, expected \[0, 4\)"),
        (torch.tensor([[1, 2, 3]]), ValueError, r"ids: got shape \[1, 3\], expected \[B, 2\]"),
        (torch.tensor([[1.0, 2.0]]), TypeError, "ids: got dtype torch.float32"),
        ([[1, 2]], TypeError, "ids: got list, expected a tensor"),
    ],
)
def test_ids_that_do_not_fit_the_fields_are_refused(ids, error, said):
    with pytest.raises(error, match=said):
        to_keyed_jagged_tensor(ids, PLAIN)
