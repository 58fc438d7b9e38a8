"""A model with fields of every kind, rows of them, and two processes of a job, forked from one that has imported torchrec."""

import multiprocessing
import os
from concurrent.futures import ProcessPoolExecutor

import torch
from torch import distributed
from torch.distributed import TCPStore

import dcrnn_fast.torchrec  # noqa: F401 (imported before the ranks are forked, which takes seconds)

SIZES = {"user": 40, "tags[0]": 6, "tags[1]": 6, "tags[2]": 6, "shop.type": 5, "last[0]": 5, "last[1]": 5}
SHARED = {"tags[1]": "tags[0]", "tags[2]": "tags[0]", "last[0]": "shop.type", "last[1]": "shop.type"}
POOLED = {
    "tags": {"columns": ["tags[0]", "tags[1]", "tags[2]"], "pooling": "mean"},
    "last": {"columns": ["last[0]", "last[1]"], "pooling": "sum"},
}
FIELDS = {"shared_embeddings": SHARED, "pooled": POOLED}
OPTIONS = {**FIELDS, "embedding_dim": 4, "num_dense": 2, "dense_bins": 0, "rank": 4, "tower_dims": (8,), "dropout": 0.0}
IDS = torch.tensor([[39, 1, 2, 5, 4, 1, 2], [0, 2, 2, 0, 0, 3, 0], [1, 0, 0, 0, 2, 0, 0], [2, 4, 0, 0, 1, 4, 0]])
"""Rows whose values stand before the zeros of their field."""


def batch(rows, seed=0):
    """Random ids [B, C], zeros between values included, dense [B, 2] and funnel labels [B, 2]."""
    chance = torch.Generator().manual_seed(seed)
    ids = torch.stack([torch.randint(0, size, (rows,), generator=chance) for size in SIZES.values()], dim=1)
    labels = (torch.rand(rows, 2, generator=chance) < 0.5).float().cumprod(dim=1)
    return ids, torch.randn(rows, 2, generator=chance), labels


RANKS = 2


def on_two_ranks(target, *arguments):
    """What ``target(rank, *arguments)`` returns on each rank, whose environment is that of torchrun."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    with ProcessPoolExecutor(RANKS, mp_context=context) as pool:
        started = [pool.submit(_rank, rank, store.port, target, arguments) for rank in range(RANKS)]
        return [rank.result(timeout=300) for rank in started]


def _rank(rank, port, target, arguments):
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(RANKS), "LOCAL_RANK": str(rank), "LOCAL_WORLD_SIZE": str(RANKS)}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "TORCHELASTIC_USE_AGENT_STORE": "True"}
    torch.set_num_threads(1)
    try:
        return target(rank, *arguments)
    finally:
        if distributed.is_initialized():
            distributed.destroy_process_group()
