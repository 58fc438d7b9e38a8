"""Records what reads values of tensors. On a GPU each read waits until all kernels before it have run."""

from contextlib import contextmanager

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from dcrnn_fast.nn import cpu_layers, row_wise_adagrad
from dcrnn_fast.training.loop import optim as training_optim

READS = ("tolist", "item", "numpy", "cpu", "__bool__", "__int__", "__float__", "__index__")
OPERATORS = {"_local_scalar_dense", "nonzero", "masked_select", "equal", "_coalesce", "_unique2", "unique_dim", "unique_consecutive"}
CHECKING = {"index_add", "index_add_", "index_copy", "index_copy_", "index_put_", "scatter_add", "scatter_add_"}
OPERATORS |= CHECKING
"""The operators whose result, or its size, the CPU has to know; so it is with indexing by a mask. And those that, with deterministic
algorithms, check rows of a GPU on the CPU.
"""


def as_on_a_gpu(monkeypatch):
    """Let a training step on a CPU take the operators that it takes on a GPU."""
    for module in (row_wise_adagrad, training_optim):
        monkeypatch.setattr(module, "on_gpu", lambda tensor: True)

    def embedded(self, rows):
        return torch.nn.functional.embedding(rows, self.weight, sparse=self.sparse)

    monkeypatch.setattr(cpu_layers.Embedding, "forward", embedded)


class Operators(TorchDispatchMode):
    def __init__(self, found):
        super().__init__()
        self.found = found

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func._schema.name.partition("::")[2]
        indices = args[1] if name in ("index", "index_put", "index_put_", "_index_put_impl_") else ()
        by_mask = any(index is not None and index.dtype == torch.bool for index in indices)
        self.found.extend([name] if name in OPERATORS or by_mask else [])
        return func(*args, **(kwargs or {}))


@contextmanager
def recorded(found):
    """Inside the block, what reads values is listed in ``found``."""
    with pytest.MonkeyPatch.context() as patch, Operators(found):
        for name in READS:
            original = getattr(torch.Tensor, name)

            def reading(*arguments, _name=name, _original=original, **options):
                found.append(_name)
                return _original(*arguments, **options)

            patch.setattr(torch.Tensor, name, reading)
        yield
