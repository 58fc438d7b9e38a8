"""Where a run runs: its threads where a container grants fewer CPUs than the machine has, and the place of a rank among several."""

import joblib
import pytest
import torch

from dcrnn_fast.support import torchrun
from dcrnn_fast.training.device import default_threads


@pytest.mark.parametrize(("granted", "threads"), [(3, 3), (64, 5)])
def test_a_run_takes_at_most_as_many_threads_as_a_limit_grants_cpus(granted, threads, monkeypatch):
    monkeypatch.setattr(joblib, "cpu_count", lambda: granted)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 5)
    assert default_threads() == threads


@pytest.mark.parametrize(
    ("values", "place"),
    [
        ({"RANK": "5", "WORLD_SIZE": "16", "LOCAL_RANK": "1"}, torchrun.Place(rank=5, count=16, local=1)),
        ({}, None),
        ({"RANK": "1", "WORLD_SIZE": "2"}, None),  # a part of them
        ({"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0"}, None),  # alone
    ],
)
def test_a_rank_of_several_knows_its_place(values, place, monkeypatch):
    for name in torchrun.VARIABLES:
        monkeypatch.delenv(name, raising=False)
    for name, value in values.items():
        monkeypatch.setenv(name, value)
    assert torchrun.place() == place
    assert torchrun.is_first() == (place is None)
