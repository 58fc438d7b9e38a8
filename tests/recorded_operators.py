"""A stand-in for a CUDA graph on a CPU: it records the operators of some work, and repeats them with the same tensors and numbers.

It refuses what reads a value of a tensor: on a GPU each read waits until all kernels before it have run.
"""

from contextlib import nullcontext

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from dcrnn_fast.nn import cpu_layers, row_wise_adagrad
from dcrnn_fast.training.loop import optim as training_optim

READS = ("tolist", "item", "numpy", "cpu", "__bool__", "__int__", "__float__", "__index__")
CHECKING = {"index_add", "index_add_", "index_copy", "index_copy_", "index_put_", "scatter_add", "scatter_add_"}
"""With deterministic algorithms, these check rows of a GPU on the CPU."""
WAITING = {"_local_scalar_dense", "nonzero", "masked_select", "equal", "_coalesce", "_unique2", "unique_dim", "unique_consecutive"}
"""The CPU has to know the result, or its size. So it is with an index that is a mask."""
COPIES = {"lift_fresh", "lift_fresh_copy"}
"""What makes a tensor of Python's numbers, which a GPU would wait for."""


def as_on_a_gpu(monkeypatch):
    """Let a training step on a CPU take the operators that it takes on a GPU."""
    for module in (row_wise_adagrad, training_optim):
        monkeypatch.setattr(module, "on_gpu", lambda tensor: True)

    def embedded(self, rows):
        return torch.nn.functional.embedding(rows, self.weight, sparse=self.sparse)

    monkeypatch.setattr(cpu_layers.Embedding, "forward", embedded)


def refuse(what):
    raise RuntimeError(f"operation not permitted when stream is capturing: {what}")


class Recording(TorchDispatchMode):
    """Lists each operator with its arguments and results. One that reads a value raises, as it does while a CUDA graph is recorded."""

    def __init__(self):
        super().__init__()
        self.calls, self.before = [], []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs, name = kwargs or {}, func._schema.name.partition("::")[2]
        indices = args[1] if name in ("index", "index_put", "index_put_", "_index_put_impl_") else ()
        if name in CHECKING | WAITING | COPIES or any(index is not None and index.dtype == torch.bool for index in indices):
            refuse(func)
        for position, argument in enumerate(func._schema.arguments):
            if argument.alias_info is not None and argument.alias_info.is_write:
                given = args[position] if position < len(args) else kwargs.get(argument.name)
                self.before += [(tensor, tensor.clone()) for tensor in tree_leaves(given) if tensor is not None]
        result = func(*args, **kwargs)
        self.calls.append((func, args, kwargs, result))
        return result


class RecordedOperators:
    """Has the methods of :class:`dcrnn_fast.support.cuda_graph.CudaGraphs`.

    ``records`` counts what was recorded, ``launches`` how often that was done again; ``calls`` are the operators
    of the last record.
    """

    def __init__(self):
        self.records, self.launches, self.calls = 0, 0, []

    def in_order(self):
        return nullcontext()

    def record(self, work):
        """Unlike a GPU, this does the work, and then takes back what it wrote."""
        generator = torch.get_rng_state()
        with pytest.MonkeyPatch.context() as patch, Recording() as recording:
            for name in READS:
                patch.setattr(torch.Tensor, name, lambda *_, name=name: refuse(name))
            work()
        torch.set_rng_state(generator)
        with torch.no_grad():
            for tensor, before in reversed(recording.before):
                tensor.copy_(before)
        self.records, self.calls = self.records + 1, recording.calls
        return lambda: self._again(recording.calls)

    def _again(self, calls):
        self.launches += 1
        with torch.no_grad():
            for func, args, kwargs, result in calls:
                for old, new in zip(parts(result), parts(func(*args, **kwargs)), strict=True):
                    if old.data_ptr() != new.data_ptr():  # neither a view nor written in place
                        old.copy_(new)


def computing(calls):
    """The names of the recorded operators that compute; the others make views or memory. On a GPU each is one kernel or a few."""
    names = []
    for func, *_ in calls:
        name, returns = func._schema.name, func._schema.returns
        views = returns and all(returned.alias_info is not None and not returned.alias_info.is_write for returned in returns)
        if not (views or "empty" in name or name.startswith("profiler::")):
            names.append(name)
    return names


def parts(result):
    """The tensors of an operator's result; of a sparse one, its indices and values."""
    tensors = [leaf for leaf in tree_leaves(result) if isinstance(leaf, torch.Tensor)]
    return [part for tensor in tensors for part in ((tensor._indices(), tensor._values()) if tensor.is_sparse else (tensor,))]
