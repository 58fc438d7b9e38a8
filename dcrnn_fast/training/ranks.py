"""The *ranks* of a run: the processes that train one model together, as ``torchrun`` starts them.

All ranks hold the same weights. Each computes its part of the rows of every batch and of every evaluation. Rank 0 alone writes the run
folder. They exchange what they must by gloo between CPUs and by NCCL between GPUs.
"""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn
from torch import distributed as dist

from ..errors import ConfigError, DcrnnFastError, RanksError
from ..support.torchrun import Place, place

T = TypeVar("T")
TIMEOUT = timedelta(minutes=30)
"""How long a rank waits for the others. A process that ends is noticed at once: this is for one that hangs."""
LARGE = 2**18
"""A gradient of more values is summed where it is. Smaller ones are copied into one tensor: a message costs as much as many values."""


class Ranks:
    """The ranks of a run, which must all call its methods, in the same order; in a run of one process nothing is exchanged.

    ``rank`` is this process's number in [0, ``count``), and ``local`` its number on its machine.
    """

    def __init__(self, here: Place, group: dist.ProcessGroup | None = None) -> None:
        self.rank, self.count, self.local = here.rank, here.count, here.local
        self._group = group

    @property
    def is_first(self) -> bool:
        """Whether this is rank 0, which writes the run folder and speaks to the user."""
        return self.rank == 0

    def from_first(self, call: Callable[[], T]) -> T:
        """Let rank 0 make the call, and give its result, which is plain JSON types, to all ranks.

        If the call fails on rank 0, the other ranks raise that they no longer reach it.
        """
        if self.count == 1:
            return call()
        value = call() if self.is_first else None
        shared = self._texts(json.dumps(value, allow_nan=False))[0]
        return value if self.is_first else json.loads(shared)  # type: ignore[return-value]

    def one_after_another(self, call: Callable[[], T]) -> T:
        """Make the call on one rank of each machine, that of local number 0, and then on the others, which find what it has written."""
        value = call() if self.local == 0 else None
        self.check_same(dict)
        return call() if value is None else value

    def check_same(self, what: Callable[[], Mapping[str, Any]]) -> None:
        """Wait until all ranks are here. Raises :class:`dcrnn_fast.errors.RanksError` if a JSON value is not the same on all of them."""
        if self.count == 1:
            return
        everyone = [json.loads(text) for text in self._texts(json.dumps(what()))]
        for rank, values in enumerate(everyone):
            for name, value in values.items():
                if value != everyone[0][name]:
                    raise RanksError(
                        f"rank {rank} and rank 0 differ in {name}: {value} and {everyone[0][name]}. All ranks must read the same data and "
                        "the same run folder, with one version of PyTorch on one kind of device; then go on with --resume"
                    )

    def rows(self, *own: Tensor) -> tuple[Tensor, ...]:
        """The rows [B, ...] of all ranks, in the ranks' order, for each of some tensors [b, ...] of one dtype that hold this rank's rows.

        The ranks may have different numbers of rows. A gradient reaches this rank's rows alone.
        """
        if self.count == 1:
            return own
        flat = [tensor.detach().reshape(tensor.shape[0], math.prod(tensor.shape[1:])) for tensor in own]
        columns = [part.shape[1] for part in flat]
        parts = [part.split(columns, dim=1) for part in self._parts(torch.cat(flat, dim=1))]  # one message for all tensors
        parts[self.rank] = own
        return tuple(
            torch.cat([part[number].reshape(len(part[number]), *tensor.shape[1:]) for part in parts]) for number, tensor in enumerate(own)
        )

    def add_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Replace the gradient of each parameter by the sum of all ranks' gradients.

        A sparse gradient becomes the list of all ranks' rows, in the order in which one process would list them.
        """
        if self.count == 1:
            return
        small, large = [], []
        for parameter in parameters:
            gradient = parameter.grad
            if gradient is None:
                continue
            if gradient.is_sparse:
                (indices,), (values,) = self.rows(gradient._indices()[0]), self.rows(gradient._values())
                parameter.grad = torch.sparse_coo_tensor(indices[None], values, gradient.shape, check_invariants=False)
            elif gradient.numel() > LARGE:
                parameter.grad = gradient.contiguous()
                large.append(parameter.grad)
            else:
                small.append(gradient)
        flat = torch.cat([gradient.reshape(-1) for gradient in small])
        with _reaching_others(self.rank):
            for values in (*large, flat):
                dist.all_reduce(values, group=self._group)
        for gradient, values in zip(small, flat.split([gradient.numel() for gradient in small]), strict=True):
            gradient.copy_(values.view_as(gradient))

    def _parts(self, own: Tensor) -> list[Tensor]:
        """The tensor [b, C] of every rank, by rank. All are filled up to one length for the exchange."""
        with _reaching_others(self.rank):
            sizes = [torch.zeros(1, dtype=torch.int64) for _ in range(self.count)]
            dist.all_gather(sizes, torch.tensor([own.shape[0]]), group=self._group)
            longest = max(1, *map(int, sizes))
            padded = own.new_zeros(longest, *own.shape[1:])
            padded[: own.shape[0]] = own
            everyone = [torch.empty_like(padded) for _ in range(self.count)]
            dist.all_gather(everyone, padded, group=self._group)
        return [part[: int(size)] for part, size in zip(everyone, sizes, strict=True)]

    def _texts(self, own: str) -> list[str]:
        message = torch.from_numpy(np.frombuffer(own.encode(), dtype=np.uint8).copy())
        return [part.numpy().tobytes().decode() for part in self._parts(message)]


ONE = Ranks(Place(0, 1, 0))


@contextmanager
def joined() -> Iterator[Ranks]:
    """The ranks of this run, which torchrun has started, or one process. All ranks leave the block together, or with an error.

    Where an error leaves the block on several ranks, ``shown_by_another_rank`` is False on one of them, whose message the user should see.
    """
    here = place()
    if here is None:
        yield ONE
        return
    if not dist.is_available():
        raise ConfigError("torchrun has started several processes, but this PyTorch was built without torch.distributed; start one process")
    from torch.distributed.rendezvous import rendezvous  # a PyTorch without torch.distributed lacks it

    own = not dist.is_initialized()
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    store, group = None, None
    with ExitStack() as stack:
        try:
            with _reaching_others(here.rank):
                if own:
                    shared, *_ = next(rendezvous("env://", here.rank, here.count, timeout=TIMEOUT))
                    store = dist.PrefixStore(f"dcrnn_fast/{_attempt()}", shared)
                    dist.init_process_group(backend, store=store, rank=here.rank, world_size=here.count, timeout=TIMEOUT)
                else:
                    group = dist.new_group(backend=backend, timeout=TIMEOUT)
            stack.callback(dist.destroy_process_group, group)  # whoever still waits for this rank then fails at once
            yield Ranks(here, group)
        except DcrnnFastError as error:  # another rank may have failed, and even ended, before this one
            error.shown_by_another_rank = not _is_first_to_fail(store)
            raise


def _attempt() -> str:
    """The number of restarts by torchrun, which on one machine keeps one store for all: what ended ranks left there must not be read.

    On several machines the number may not be the same everywhere. The rendezvous c10d makes a new store for each attempt.
    """
    return os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") if os.environ.get("GROUP_WORLD_SIZE") == "1" else "0"


def _is_first_to_fail(store: dist.Store | None) -> bool:
    """Whether no other rank has asked this before."""
    try:
        return store is None or store.add("dcrnn_fast/failed", 1) == 1
    except RuntimeError:  # the store is gone with the process that held it
        return True


@contextmanager
def _reaching_others(rank: int) -> Iterator[None]:
    try:
        yield
    except RuntimeError as error:
        reason = re.sub(r"^\[[^]]*\] *|\. .*", "", str(error).partition("\n")[0])  # without gloo's source line and its general advice
        raise RanksError(
            f"rank {rank} does not reach the other ranks any more: one of them has ended or hangs ({reason}). "
            "Go on from the last checkpoint with --resume; in a command with --resume, torchrun --max-restarts does so by itself"
        ) from error
