"""Two processes of a job, forked from one that has imported torchrec."""

import multiprocessing
import os
from concurrent.futures import ProcessPoolExecutor

import torch
from torch import distributed
from torch.distributed import TCPStore

import dcrnn_fast.torchrec  # noqa: F401 (imported before the ranks are forked, which takes seconds)

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
