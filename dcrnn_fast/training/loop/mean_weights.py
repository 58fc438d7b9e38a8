"""The mean of a run's weights over its evaluations: what they score, and what the run keeps."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from torch import Tensor, nn

from ..folder.tensors import blocks, check_tensors


class MeanWeights:
    """A running mean of a module's parameters.

    ``values``, by the parameters' names and on the CPU, is empty before the first update, which takes the newest ones. A parameter and its
    mean change places block by block, so that a table needs no more memory on its device.

    >>> import torch
    >>> layer, mean = nn.Linear(1, 1, bias=False), MeanWeights()
    >>> for newest in (1.0, 3.0):
    ...     _ = layer.weight.data.fill_(newest)
    ...     with mean.in_place_of(layer, decay=0.5):
    ...         print(layer.weight.item(), end=" ")
    ...     print(layer.weight.item())
    1.0 1.0
    2.0 3.0
    """

    def __init__(self) -> None:
        self.values: dict[str, Tensor] = {}

    @contextmanager
    def in_place_of(self, module: nn.Module, decay: float) -> Iterator[None]:
        """Update the mean, and let the module have it for the block. Afterwards the module has its own parameters again, bit by bit.

        ``decay`` in [0, 1] is the part that the mean before keeps in the new one. With 0 the module has its newest parameters, and there
        is no mean.
        """
        if not decay:
            self.values = {}
            yield
            return
        own = {name: parameter.detach() for name, parameter in module.named_parameters()}
        if not self.values:
            self.values = {name: value.to("cpu", copy=True) for name, value in own.items()}
        for name, value in own.items():
            _exchange(value, self.values[name], update=1 - decay)
        try:
            yield
        finally:
            for name, value in own.items():
                _exchange(value, self.values[name])

    def restore(self, values: Mapping[str, Tensor], module: nn.Module, source: Path) -> None:
        """Take the values of a checkpoint. Raises :class:`dcrnn_fast.errors.CheckpointError` if they belong to another model."""
        if values:
            own = dict(module.named_parameters())
            buffers = {name: value for name, value in module.state_dict().items() if name not in own}
            check_tensors(module, buffers | dict(values), source)
        self.values = dict(values)


def _exchange(ours: Tensor, theirs: Tensor, update: float = 0.0) -> None:
    """Let ``theirs``, on the CPU, come nearer to ``ours`` by this part of the way; then let both change values."""
    for here, there in zip(blocks(ours), blocks(theirs), strict=True):
        newest = here.to("cpu", copy=True)
        here.copy_(there.lerp_(newest, update) if update else there)
        there.copy_(newest)
