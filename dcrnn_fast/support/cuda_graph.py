"""CUDA graphs: work that a GPU does again from one launch, with the same memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch


class CudaGraphs:
    """Records work on a stream of its own. Work before runs there too, so that autograd's nodes belong to it.

    All that one of these records shares memory for what is not kept, and must not be launched at the same time.
    """

    def __init__(self, device: torch.device) -> None:
        self._device, self._stream, self._pool = device, torch.cuda.Stream(device), torch.cuda.graph_pool_handle()

    @contextmanager
    def in_order(self) -> Iterator[None]:
        """Work in the block is launched behind all that was launched before it. The CPU waits for nothing."""
        others = torch.cuda.current_stream(self._device)
        self._stream.wait_stream(others)
        with torch.cuda.stream(self._stream):
            yield
        others.wait_stream(self._stream)

    def record(self, work: Callable[[], object]) -> Callable[[], None]:
        """What launches ``work`` again, with the same memory. ``work`` has no effect now. RuntimeError: it waits for the device."""
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self._pool, stream=self._stream, capture_error_mode="thread_local"):
            work()
        return graph.replay
