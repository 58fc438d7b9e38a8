"""Fields with several values, whose embeddings a model adds up or averages; and fields that share the rows of one table."""

import copy

import pytest
import torch

from dcrnn_fast import DCRNN, reference

SIZES = {"user": 4, "tags[0]": 6, "tags[1]": 6, "tags[2]": 6, "item": 5, "last[0]": 5, "last[1]": 5}
SHARED = {"tags[1]": "tags[0]", "tags[2]": "tags[0]", "last[0]": "item", "last[1]": "item"}
POOLED = {
    "tags": {"columns": ["tags[0]", "tags[1]", "tags[2]"], "pooling": "mean"},
    "last": {"columns": ["last[0]", "last[1]"], "pooling": "sum"},
}
OPTIONS = {"embedding_dim": 3, "shared_embeddings": SHARED, "pooled": POOLED, "dropout": 0.0}
IDS = torch.tensor([[3, 1, 2, 5, 4, 1, 2], [0, 2, 2, 0, 0, 3, 0], [1, 0, 0, 0, 2, 0, 0], [2, 0, 4, 0, 1, 0, 4]])


def plain_loop(model, ids):
    """The features of the model, row by row and value by value."""
    table = model.features.embedding.weight.detach()
    tags, items = table[4:10], table[10:15]
    rows = []
    for user, *tag_ids, item, first, second in ids.tolist():
        held = [tags[tag] for tag in tag_ids if tag]
        mean = sum(held) / len(held) if held else torch.zeros(3)
        last = sum((items[value] for value in (first, second) if value), torch.zeros(3))
        rows.append(torch.cat([table[user], mean, items[item], last]))
    return torch.stack(rows)


@pytest.mark.parametrize("model_class", [DCRNN, reference.DCRNN], ids=["fast", "reference"])
def test_a_field_of_several_values_is_their_mean_or_sum_without_id_0(model_class):
    model = model_class(SIZES, **OPTIONS)
    drawn = torch.stack([torch.randint(0, size, (200,)) for size in SIZES.values()], dim=1)
    for ids in (IDS, drawn):
        torch.testing.assert_close(model.features(ids).x0.detach(), plain_loop(model, ids))
    half = copy.deepcopy(model).to(torch.bfloat16).features(IDS).x0
    assert half.dtype == torch.bfloat16
    torch.testing.assert_close(half.float(), model.features(IDS).x0, rtol=0.02, atol=0.01)


def pool_of(columns, pooling="mean"):
    return {"tags": {"columns": columns, "pooling": pooling}}


class Features(torch.nn.Module):
    """The part of the model that reads ids, which costs the compiler less than the whole."""

    def __init__(self, **options):
        super().__init__()
        self.model = reference.DCRNN(SIZES, **OPTIONS, tower_dims=(), steps=1, **options)

    def forward(self, ids):
        return self.model.features(ids).x0


def test_reading_the_ids_compiles_into_one_graph_and_exports_for_any_batch():
    features = Features().eval()
    torch.testing.assert_close(torch.compile(features, fullgraph=True, backend="eager")(IDS), features(IDS))
    program = torch.export.export(features, (IDS,), dynamic_shapes=({0: torch.export.Dim("rows")},))
    torch.testing.assert_close(program.module()(IDS[:3]), features(IDS[:3]))


SHARING_SIZES = {"last_item": 5, "user": 3, "item": 5}
LAST_ITEM = {"last_item": "item"}
SHARING_IDS = torch.tensor([[4, 1, 2], [2, 0, 2], [0, 2, 4]])


def test_a_shared_table_has_the_rows_once_and_both_fields_read_them():
    model = DCRNN(SHARING_SIZES, embedding_dim=2, shared_embeddings=LAST_ITEM)
    with torch.no_grad():
        model.features.embedding.weight.copy_(torch.arange(8.0)[:, None].expand(-1, 2))
    assert model.features(SHARING_IDS).x0[:, ::2].tolist() == [[7.0, 1.0, 5.0], [5.0, 0.0, 5.0], [3.0, 2.0, 7.0]]
    assert DCRNN([5, 3, 5], shared_embeddings={"0": "2"}).features.embedding.num_embeddings == 8


def test_a_shared_row_gets_the_gradients_of_both_fields():
    """The model with sharing is the one without whose rows of last_item are kept equal to those of item."""
    shared, apart = (reference.DCRNN(SHARING_SIZES, embedding_dim=2, shared_embeddings=given).eval() for given in (LAST_ITEM, None))
    weights = shared.state_dict()
    tables = {name: weights[name] for name in ("features.embedding.weight", "features.first_order.table.weight")}
    apart.load_state_dict({**weights, **{name: torch.cat([table[3:], table]) for name, table in tables.items()}})
    assert torch.equal(shared(SHARING_IDS), apart(SHARING_IDS))
    for model in (shared, apart):
        model(SHARING_IDS).square().sum().backward()
    gradient = apart.features.embedding.weight.grad
    torch.testing.assert_close(shared.features.embedding.weight.grad, torch.cat([gradient[5:8], gradient[:5] + gradient[8:]]))


def test_sparse_gradients_name_a_shared_row_once():
    model = DCRNN(SHARING_SIZES, embedding_dim=4, shared_embeddings=LAST_ITEM, sparse=True)
    model(SHARING_IDS).sum().backward()
    assert model.features.embedding.weight.grad.coalesce().indices().flatten().tolist() == [0, 1, 2, 3, 5, 7]
