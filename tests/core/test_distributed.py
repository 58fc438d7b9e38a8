"""DistributedDataParallel: two ranks with half a batch each take the step that one process takes with the whole batch."""

import os

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch.nn.parallel import DistributedDataParallel

from dcrnn_fast import DCRNN

from .models import SIZES, batch

CASES = [
    (SIZES, "rows", 0.5, "chain"),
    (SIZES, "rows", 0.0, "chain"),
    (SIZES, "trunk", 0.5, "transfer"),
    (SIZES, "trunk", 1.0, "independent"),
    (SIZES, "trunk", 0.0, "chain"),
    ({}, "rows", 0.5, "chain"),
]


def model_and_batch(sizes, sharing, share_ratio, relation):
    torch.manual_seed(0)
    model = DCRNN(sizes, embedding_dim=4, num_dense=2, sharing=sharing, share_ratio=share_ratio, relation=relation, dtype=torch.float64)
    ids, dense, labels = batch(8, num_dense=2, dtype=torch.float64)
    return model, (ids[:, : len(sizes)], dense, labels)


def rank_main(rank, store, results):
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
    torch.set_num_threads(1)
    for number, case in enumerate(CASES):
        model, (ids, dense, labels) = model_and_batch(*case)
        own = slice(rank * 4, rank * 4 + 4)
        parallel = DistributedDataParallel(model)
        for _ in range(2):  # a parameter without a gradient is noticed in the second step
            model.zero_grad()
            model.loss(parallel(ids[own], dense[own]), labels[own]).backward()
        if rank == 0:
            torch.save({name: p.grad for name, p in model.named_parameters() if p.grad is not None}, f"{results}/{number}.pt")
    dist.destroy_process_group()
    os._exit(0)  # gloo's threads may still hold Python objects, and an interpreter that ends under them aborts


@pytest.fixture(scope="module")
def gradients(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ddp")
    mp.spawn(rank_main, args=(str(folder / "store"), str(folder)), nprocs=2)
    return [torch.load(folder / f"{number}.pt", weights_only=True) for number in range(len(CASES))]


@pytest.mark.parametrize("number", range(len(CASES)), ids=["-".join(map(str, (len(case[0]), *case[1:]))) for case in CASES])
def test_two_ranks_give_the_gradients_of_one(gradients, number):
    model, (ids, dense, labels) = model_and_batch(*CASES[number])
    model.loss(model(ids, dense), labels).backward()
    expected = {name: p.grad for name, p in model.named_parameters() if p.requires_grad}
    assert gradients[number].keys() == expected.keys()
    for name, gradient in expected.items():
        torch.testing.assert_close(gradients[number][name], gradient, msg=lambda text, name=name: f"{name}: {text}")
