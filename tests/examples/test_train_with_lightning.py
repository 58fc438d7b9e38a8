"""examples/train_with_lightning.py trains what a plain loop and the estimator train. Runs where Lightning is."""

import runpy
from pathlib import Path

import pandas as pd
import pytest
import torch

from dcrnn_fast import DCRNN, FunnelClassifier
from dcrnn_fast.data import BlockLoader, prepare
from dcrnn_fast.data.catalog import EMBEDDED

pytest.importorskip("pytorch_lightning", reason="pytorch-lightning is not installed: make extra NAME=lightning")

EXAMPLE = Path(__file__).parents[2] / "examples" / "train_with_lightning.py"
ROWS = {"train": slice(0, 20_000), "valid": slice(20_000, 24_000), "test": slice(24_000, 40_000)}


@pytest.fixture(scope="module")
def tables():
    frame = pd.read_parquet(EMBEDDED / "hillstrom.parquet").drop(columns="spend").sample(frac=1, random_state=0)
    return {split: frame[rows] for split, rows in ROWS.items()}


@pytest.fixture(scope="module")
def data(tables, tmp_path_factory):
    return prepare("hillstrom", tables, cache_dir=tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="module")
def example():
    return runpy.run_path(str(EXAMPLE))


@pytest.fixture(scope="module")
def by_lightning(example, data, tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("lightning"))
        return example["fit"](data)


def by_a_plain_loop(data):
    """The same model, batches and optimiser."""
    meta = data.meta
    torch.manual_seed(0)
    model = DCRNN(meta.fields, num_dense=len(meta.dense), tasks=meta.tasks, relation=meta.relation)
    optimiser = torch.optim.AdamW(model.parameters(), lr=0.005)
    loader = BlockLoader(data.split("train"), 512, shuffle=True, seed=0)
    for epoch in range(2):
        for batch in loader.batches(epoch):
            optimiser.zero_grad()
            model.loss(model(batch.ids, batch.dense), batch.labels).backward()
            optimiser.step()
    return model.eval()


def test_a_plain_loop_of_the_same_steps_gives_the_same_weights(by_lightning, data):
    for name, value in by_a_plain_loop(data).state_dict().items():
        torch.testing.assert_close(by_lightning.state_dict()[name], value, rtol=1e-5, atol=1e-6, msg=name)


def test_the_estimator_has_the_same_auc_within_noise(by_lightning, example, data, tables):
    """With its own schedule and schema: of 16,000 rows, the standard error of the AUC of visits is 0.006."""
    found = example["test_auc"](by_lightning, data)
    model = FunnelClassifier(tasks=["visit", "conversion"], config={"device": "cpu"}, verbose=False)
    model.fit(tables["train"], eval_set=tables["valid"])
    mean = sum(found.values()) / 2
    assert found["visit"] > 0.57
    assert model.score(tables["test"]) == pytest.approx(mean, abs=0.03)
