"""DistributedDataParallel: two ranks with half a batch each take the step that one process takes with the whole batch."""

import os

import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

from dcrnn_fast import DCRNN
from tests.nn.models import SIZES, batch

from ..processes import run_ranks

CASES = [
    (SIZES, "rows", 0.5, "chain"), (SIZES, "rows", 0.0, "chain"), (SIZES, "trunk", 0.5, "transfer"),
    (SIZES, "trunk", 1.0, "independent"), (SIZES, "trunk", 0.0, "chain"), ({}, "rows", 0.5, "chain"),
]  # fmt: skip


def model_and_batch(sizes, sharing, share_ratio, relation):
    torch.manual_seed(0)
    options = {"sharing": sharing, "share_ratio": share_ratio, "relation": relation, "rank": None, "dropout": 0.0}
    model = DCRNN(sizes, embedding_dim=4, num_dense=2, dtype=torch.float64, **options)
    ids, dense, labels = batch(8, num_dense=2, dtype=torch.float64)
    return model, (ids[:, : len(sizes)], dense, labels)


def rank_main(rank, results):
    dist.init_process_group("gloo", init_method=f"file://{results}/store", rank=rank, world_size=2)
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


def test_two_ranks_give_the_gradients_of_one(tmp_path):
    run_ranks(rank_main, str(tmp_path))
    for number, case in enumerate(CASES):
        model, (ids, dense, labels) = model_and_batch(*case)
        model.loss(model(ids, dense), labels).backward()
        expected = {name: p.grad for name, p in model.named_parameters() if p.requires_grad}
        gradients = torch.load(tmp_path / f"{number}.pt", weights_only=True)
        torch.testing.assert_close(gradients, expected, msg=lambda text, case=case: f"{case}: {text}")
