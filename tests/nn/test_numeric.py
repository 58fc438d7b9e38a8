"""Embeddings of numbers: linear between the edges of bins."""

import copy

import pytest
import torch

from dcrnn_fast import DCRNN, reference
from dcrnn_fast.nn.features import PiecewiseLinearEmbedding
from tests.nn.models import SIZES

DOUBLE = torch.float64
YEARS = torch.arange(2018.0, 2027.0)
LAYERS = pytest.mark.parametrize("layer", [PiecewiseLinearEmbedding, reference.PiecewiseLinearEmbedding], ids=["fast", "reference"])


@LAYERS
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, DOUBLE])
def test_a_cast_leaves_the_edges_as_they_are(layer, dtype):
    made = layer(1, 2, 8)
    made.set_edges([YEARS])
    cast = copy.deepcopy(torch.nn.Sequential(made)).to(dtype)[0]
    assert cast.weight.dtype == dtype
    for name in ("lower", "scale"):
        assert getattr(cast, name).dtype == torch.float32
        assert torch.equal(getattr(cast, name), getattr(made, name))


@LAYERS
def test_edges_move_with_a_cast_to_a_device(layer):
    made = layer(1, 2, 8).to("meta", torch.bfloat16)
    assert made.lower.is_meta
    assert made.scale.is_meta
    assert made.to_empty(device="cpu").lower.dtype == torch.float32


def test_a_cast_model_that_is_prepared_tells_years_apart():
    model = DCRNN(SIZES, embedding_dim=4, num_dense=1, dense_bins=8, relation="independent").eval()
    model.features.dense_embedding.set_edges([YEARS])
    torch.nn.init.ones_(model.features.first_order.dense_weight)  # 1 more a year
    ids, dense = torch.zeros(9, 3, dtype=torch.int64), YEARS[:, None]
    expected = model(ids, dense).detach()
    found = model.bfloat16().prepare_inference()(ids, dense)
    torch.testing.assert_close(found.float(), expected, atol=0.05, rtol=0.05)


@LAYERS
def test_edges_are_in_float32_on_the_layers_device_whatever_the_defaults(layer):
    expected = layer(1, 2, 8)
    torch.set_default_dtype(torch.bfloat16)
    try:
        with torch.device("meta"):
            made = layer(1, 2, 8, device="cpu", dtype=torch.float32)
            assert torch.equal(made.lower, expected.lower)
            made.set_edges([YEARS])
    finally:
        torch.set_default_dtype(torch.float32)
    expected.set_edges([YEARS])
    assert torch.equal(made.lower, expected.lower)
    assert torch.equal(made.scale, expected.scale)
