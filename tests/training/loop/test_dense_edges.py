import numpy as np
import torch

from dcrnn_fast.training import load_model
from dcrnn_fast.training.data import prepare_data
from dcrnn_fast.training.loop.start import dense_edges
from tests.training.runs import SCENARIOS


def test_edges_rise_from_the_smallest_to_the_largest_value():
    rng = np.random.default_rng(0)
    mostly_zero = np.where(rng.random(5000) < 0.95, 0, 1 + rng.exponential(size=5000))
    dense = np.stack([rng.normal(size=5000), mostly_zero, rng.integers(0, 3, 5000)], axis=1).astype(np.float32)
    found = dense_edges(dense, bins=16)
    for column, edges in enumerate(found):
        assert 2 <= len(edges) <= 17
        assert (edges[1:] > edges[:-1]).all(), column
        assert (edges[0], edges[-1]) == (dense[:, column].min(), dense[:, column].max())
    assert len(found[1]) > 10, "plain quantiles of this column would be 0, except the last one"
    (edges,) = dense_edges(np.full((10, 1), 3.0, dtype=np.float32), bins=8)
    assert torch.equal(edges, torch.tensor([3.0, 4.0])), "a column of one value has one bin"


def test_a_weight_file_keeps_the_edges_of_the_train_rows(run_of):
    run = run_of(SCENARIOS)
    model, _ = load_model(run.folder / "model.safetensors")
    dataset = prepare_data(run.config)
    (edges,) = dense_edges(np.asarray(dataset.split("train").dense), bins=4)
    bins = len(edges) - 1
    assert torch.equal(model.features.dense_embedding.lower[0, :bins], edges[:-1])
    assert torch.equal(model.features.dense_embedding.scale[0, :bins], 1 / (edges[1:] - edges[:-1]))
