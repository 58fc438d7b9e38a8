"""Fields with several values: a model adds up, or averages, the embeddings of the values that a row has."""

import copy

import numpy as np
import pytest
import torch
from torch.autograd import gradcheck
from torch.func import functional_call

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
    torch.testing.assert_close(model.features(IDS).x0.detach(), plain_loop(model, IDS))


def test_a_row_without_values_has_zeros():
    features = DCRNN(SIZES, **OPTIONS).features(IDS).x0
    assert features[2, 3:6].tolist() == features[2, 9:].tolist() == [0.0] * 3


def test_the_features_count_a_field_of_several_values_once():
    model = DCRNN(SIZES, **OPTIONS)
    assert model.plan.dim == model.features(IDS).x0.shape[1] == 4 * 3
    assert model.features.embedding.num_embeddings == 4 + 6 + 5


def test_a_single_value_column_is_pooled_too():
    model = DCRNN({"tags[0]": 4}, embedding_dim=2, pooled={"tags": {"columns": ["tags[0]"], "pooling": "mean"}})
    features = model.features(torch.tensor([[0], [3]])).x0
    assert features[0].tolist() == [0.0, 0.0]
    assert torch.equal(features[1], model.features.embedding.weight[3])


def test_more_columns_without_values_change_no_row():
    wide = ["tags[0]", "tags[1]", "tags[2]", "tags[3]", "tags[4]"]
    shared = dict.fromkeys(wide[1:], "tags[0]")
    narrow = DCRNN({"tags[0]": 6, "tags[1]": 6}, embedding_dim=4, shared_embeddings={"tags[1]": "tags[0]"}, pooled=pool_of(wide[:2])).eval()
    padded = DCRNN(dict.fromkeys(wide, 6), embedding_dim=4, shared_embeddings=shared, pooled=pool_of(wide)).eval()
    padded.load_state_dict(narrow.state_dict())
    ids = torch.tensor([[1, 5], [3, 0], [0, 0]])
    torch.testing.assert_close(padded(torch.cat([ids, torch.zeros(3, 3, dtype=torch.int64)], dim=1)), narrow(ids))


def pool_of(columns, pooling="mean"):
    return {"tags": {"columns": columns, "pooling": pooling}}


def test_the_order_of_the_values_is_no_matter():
    model = DCRNN(SIZES, **OPTIONS)
    torch.testing.assert_close(model(IDS[:, [0, 3, 1, 2, 4, 6, 5]]), model(IDS))


def test_id_0_gets_no_gradient_from_a_field_of_several_values():
    model = DCRNN(SIZES, **OPTIONS)
    model(IDS).sum().backward()
    moved = model.features.embedding.weight.grad[4:10].abs().sum(dim=1) > 0
    assert moved.tolist() == [False, True, True, False, True, True]


class Features(torch.nn.Module):
    """The part of the model that reads ids, which costs the compiler less than the whole."""

    def __init__(self, **options):
        super().__init__()
        self.model = reference.DCRNN(SIZES, **OPTIONS, tower_dims=(), steps=1, **options)

    def forward(self, ids):
        return self.model.features(ids).x0


def test_gradients_match_finite_differences():
    features = Features(dtype=torch.float64)
    table = features.model.features.embedding.weight
    assert gradcheck(lambda weight: functional_call(features, {"model.features.embedding.weight": weight}, (IDS,)), (table,))


def test_without_such_fields_nothing_changes():
    models = [DCRNN(SIZES, embedding_dim=3, shared_embeddings=SHARED, **given) for given in ({}, {"pooled": None}, {"pooled": {}})]
    states = [model.state_dict() for model in models]
    assert states[0].keys() == states[1].keys() == states[2].keys() == DCRNN(SIZES, **OPTIONS).state_dict().keys()
    assert all(model.plan.dim == len(SIZES) * 3 for model in models)


def test_a_sparse_gradient_is_that_of_a_dense_table():
    dense, sparse = (DCRNN(SIZES, **OPTIONS, sparse=flag) for flag in (False, True))
    sparse.load_state_dict(dense.state_dict())
    for model in (dense, sparse):
        model(IDS).square().sum().backward()
    torch.testing.assert_close(sparse.features.embedding.weight.grad.to_dense(), dense.features.embedding.weight.grad)


def test_bfloat16_is_near_float32():
    model = reference.DCRNN(SIZES, **OPTIONS)
    half = copy.deepcopy(model).to(torch.bfloat16)
    assert half.features(IDS).x0.dtype == torch.bfloat16
    torch.testing.assert_close(half.features(IDS).x0.float(), model.features(IDS).x0, rtol=0.02, atol=0.01)


def test_reading_the_ids_exports_for_any_batch_size():
    features = Features().eval()
    program = torch.export.export(features, (IDS,), dynamic_shapes=({0: torch.export.Dim("rows")},))
    torch.testing.assert_close(program.module()(IDS[:3]), features(IDS[:3]))


def test_reading_the_ids_compiles_into_one_graph():
    features = Features()
    torch.testing.assert_close(torch.compile(features, fullgraph=True, backend="eager")(IDS), features(IDS))


def test_ids_may_be_32_bits_and_stray_ones_are_refused_by_column():
    model = DCRNN(SIZES, **OPTIONS)
    assert torch.equal(model(IDS.int()), model(IDS))
    stray = IDS.clone()
    stray[1, 2] = 6
    with pytest.raises(IndexError, match=r"field 'tags\[1\]' \(column 2\) has id 6, expected \[0, 6\)"):
        model(stray)


def test_random_fields_are_the_plain_loops():
    rng = np.random.default_rng(0)
    model = DCRNN(SIZES, **OPTIONS)
    ids = torch.from_numpy(np.stack([rng.integers(0, size, 200) for size in SIZES.values()], axis=1))
    torch.testing.assert_close(model.features(ids).x0.detach(), plain_loop(model, ids))
