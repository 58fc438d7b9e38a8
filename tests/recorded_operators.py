"""A stand-in for a CUDA graph on a CPU: it records the operators of some work, and repeats them with the same tensors and numbers."""

from contextlib import nullcontext

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from tests.reads import OPERATORS

COPIES = {"lift_fresh", "lift_fresh_copy"}
"""What makes a tensor of Python's numbers, which a GPU would wait for."""


class Recording(TorchDispatchMode):
    """Lists each operator with its arguments and results. One that reads a value raises, as it does while a CUDA graph is recorded."""

    def __init__(self, refused=OPERATORS):
        super().__init__()
        self.calls, self.before, self.refused = [], [], refused

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if func._schema.name.partition("::")[2] in self.refused:
            raise RuntimeError(f"operation not permitted when stream is capturing: {func}")
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
        with Recording(OPERATORS | COPIES) as recording:
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
