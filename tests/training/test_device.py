"""How many threads a run takes where a container's limit grants fewer CPUs than the machine has."""

import joblib
import pytest
import torch

from dcrnn_fast.training.device import default_threads


@pytest.mark.parametrize(("granted", "threads"), [(3, 3), (64, 5)])
def test_a_run_takes_at_most_as_many_threads_as_a_limit_grants_cpus(granted, threads, monkeypatch):
    monkeypatch.setattr(joblib, "cpu_count", lambda: granted)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 5)
    assert default_threads() == threads
