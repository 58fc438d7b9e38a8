"""Fields that share the rows of the embedding table: an item has one embedding, whichever field names it."""

import torch

from dcrnn_fast import DCRNN, reference

SIZES = {"last_item": 5, "user": 3, "item": 5}
SHARED = {"last_item": "item"}
IDS = torch.tensor([[4, 1, 2], [2, 0, 2], [0, 2, 4]])


def test_the_table_has_the_rows_once_and_both_fields_read_them():
    model = DCRNN(SIZES, embedding_dim=2, shared_embeddings=SHARED)
    with torch.no_grad():
        model.features.embedding.weight.copy_(torch.arange(8.0)[:, None].expand(-1, 2))
    assert model.features(IDS).x0[:, ::2].tolist() == [[7.0, 1.0, 5.0], [5.0, 0.0, 5.0], [3.0, 2.0, 7.0]]


def test_without_sharing_each_field_has_rows_of_its_own():
    plain, none = (DCRNN(SIZES, embedding_dim=2, shared_embeddings=shared) for shared in (None, {}))
    assert plain.features.embedding.weight.shape == none.features.embedding.weight.shape == (13, 2)
    assert plain.features.offsets.tolist() == [0, 5, 8]
    assert plain.state_dict().keys() == DCRNN(SIZES, embedding_dim=2, shared_embeddings=SHARED).state_dict().keys()


def test_a_shared_row_gets_the_gradients_of_both_fields():
    """The model with sharing is the one without whose rows of last_item are kept equal to those of item."""
    shared, apart = (reference.DCRNN(SIZES, embedding_dim=2, shared_embeddings=given).eval() for given in (SHARED, None))
    weights = shared.state_dict()
    tables = {name: weights[name] for name in ("features.embedding.weight", "features.first_order.table.weight")}
    apart.load_state_dict({**weights, **{name: torch.cat([table[3:], table]) for name, table in tables.items()}})
    assert torch.equal(shared(IDS), apart(IDS))
    for model in (shared, apart):
        model(IDS).square().sum().backward()
    gradient = apart.features.embedding.weight.grad
    torch.testing.assert_close(shared.features.embedding.weight.grad, torch.cat([gradient[5:8], gradient[:5] + gradient[8:]]))


def test_a_model_from_the_meta_device_finds_the_shared_rows():
    model = DCRNN(SIZES, embedding_dim=4, shared_embeddings=SHARED, device="meta")
    assert model.features.embedding.weight.shape == (8, 4)
    model = model.to_empty(device="cpu")
    model.reset_parameters()
    assert (model.features.offsets.tolist(), model.features.sizes.tolist()) == ([3, 0, 3], [5, 3, 5])
    assert torch.isfinite(model(IDS)).all()


def test_sparse_gradients_name_a_shared_row_once():
    model = DCRNN(SIZES, embedding_dim=4, shared_embeddings=SHARED, sparse=True)
    model(IDS).sum().backward()
    assert model.features.embedding.weight.grad.coalesce().indices().flatten().tolist() == [0, 1, 2, 3, 5, 7]


def test_of_a_sequence_positions_name_the_fields():
    assert DCRNN([5, 3, 5], shared_embeddings={"0": "2"}).features.embedding.num_embeddings == 8
