"""The benchmark of a step by part: its parts are the step."""

from itertools import cycle

import pytest
import torch

from bench.measures.step_parts import Clocks, Steps, measure, medians
from dcrnn_fast.data import BlockLoader
from tests.bench.quality.toy import toy


@pytest.fixture
def dataset():
    return toy()


@pytest.mark.parametrize("rank", [None, 2], ids=["full", "low rank"])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_the_parts_of_a_step_give_its_loss_and_gradients(dataset, rank, precision):
    batch = next(BlockLoader(dataset.split("train"), 64, shuffle=True, seed=0).batches())
    steps = Steps(rank, precision, dataset, cycle([batch]))
    steps.model.train()
    found = []
    for run in (steps.whole, lambda batch: steps.by_part(batch, Clocks())):
        torch.manual_seed(0)
        loss = run(batch)
        found.append((loss.detach(), {name: p.grad for name, p in steps.model.named_parameters() if p.requires_grad}))
        steps.optimiser.zero_grad()
    torch.testing.assert_close(found[0], found[1])


def test_every_part_has_a_clock_and_the_recurrence_is_taken_off_the_whole(dataset):
    found = measure(dataset, 64, seconds=0)
    assert [(row["rank"], row["dtype"], row["B"]) for row in found["steps"]] == [
        (None, "float32", 64), (32, "float32", 64), (None, "bfloat16", 64), (32, "bfloat16", 64),
    ]  # fmt: skip
    names = ("features", "recurrence", "towers", "loss")
    parts = {f"{name}, {way}" for name in names for way in ("forward", "backward")}
    for row in found["steps"]:
        assert set(row["ms"]) == parts | {"whole", "optimiser", "checks, of these", "outside the recurrence"}
    assert medians([{"whole": 5e-3, "recurrence": 3e-3}])["outside the recurrence"] == pytest.approx(2.0)
