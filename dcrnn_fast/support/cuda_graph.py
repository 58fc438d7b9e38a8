"""CUDA graphs: work that a GPU does again from one launch, with the same memory."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Lock

import torch

_one_at_a_time = Lock()
"""PyTorch records one CUDA graph of a process at a time."""
LAUNCHES = 10
"""How many are timed together."""


class CudaGraphs:
    """Records work on a stream of its own. Work before runs there too, so that autograd's nodes belong to it.

    What it records shares memory for intermediate results, so one launch must end before the next one starts.
    """

    def __init__(self, device: torch.device) -> None:
        self._device, self._stream, self._pool = device, torch.cuda.Stream(device), torch.cuda.graph_pool_handle()

    @contextmanager
    def in_order(self) -> Iterator[None]:
        """Work in the block is launched behind all that was launched before it. The CPU waits for nothing."""
        others = torch.cuda.current_stream(self._device)
        self._stream.wait_stream(others)
        try:
            with torch.cuda.stream(self._stream):
                yield
        finally:
            others.wait_stream(self._stream)

    def record(self, work: Callable[[], object]) -> Callable[[], None]:
        """What launches ``work`` again, with the same memory. ``work`` has no effect now.

        Raises RuntimeError, which says why: it waits for the device, or does what a CUDA graph cannot do again. PyTorch may then take the
        device for one that still records, and refuse random numbers until the process ends.
        """
        graph, others = torch.cuda.CUDAGraph(), torch.cuda.current_stream(self._device)
        with _one_at_a_time, torch.cuda.device(self._device):
            gc.collect()  # a graph that is freed while another one is recorded spoils that
            try:
                with torch.cuda.graph(graph, pool=self._pool, stream=self._stream, capture_error_mode="thread_local"):
                    work()
            except RuntimeError as error:
                torch.cuda.set_stream(others)  # PyTorch leaves the other one where the end of the record fails too
                raise RuntimeError(str(error.__context__ or error)) from error
        return graph.replay


def timer_of(call: Callable[[], object], device: torch.device) -> Callable[[], float]:
    """What returns the seconds of a call that one CUDA graph launches, as in a training step or a request: without the host's time."""
    graphs = CudaGraphs(device)
    with graphs.in_order():
        call()  # compiles kernels, and lets Triton time its tiles, which a capture cannot
    launch = graphs.record(call)

    def seconds() -> float:
        with torch.cuda.device(device):
            begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            launch()  # the GPU is busy while the host launches the others
            begin.record()
            for _ in range(LAUNCHES):
                launch()
            end.record()
            end.synchronize()
        return float(begin.elapsed_time(end)) / 1e3 / LAUNCHES

    return seconds
