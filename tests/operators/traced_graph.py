"""Prints, as JSON, the launches of traced training steps and what each writes, as PyTorch's compiler sees them. Needs no GPU: nothing is
run. By case: the sizes of the graph's inputs, None where it leaves one open, and the names of its launches with the buffers they write."""

import json
import os
import sys
from functools import partial

os.environ.pop("TRITON_INTERPRET", None)
os.environ.setdefault("TRITON_DEFAULT_FP_FUSION", "1")

import torch
from torch._dynamo.backends.common import aot_autograd
from torch._higher_order_ops.triton_kernel_wrap import kernel_side_table

from dcrnn_fast.ops.triton import IMPLEMENTATION
from tests.operators.fake_gpu import FakeGpu

SIZES = {
    "batch": 256,
    "dim": 64,
    "tasks": 5,
    "share_ratio": 0.625,
    "context_dim": 16,
}
CASES = {
    "static": {},
    "open batch": {"open_sizes": "batch"},
    "open": {"open_sizes": "every"},
    "open, states": {"open_sizes": "every", "return_states": True},
    "open, untied, recompute": {"open_sizes": "every", "tied": False, "recompute": True},
    "open, no context": {"open_sizes": "every", "context_dim": 0},
    "open, low rank": {"open_sizes": "every", "rank": 24},
    "open, with steps": {"open_sizes": "every", "open_steps": True},
}


class TracedError(Exception):
    """The graph of forward and backward is there; running it would need a GPU."""


def fixed(size):
    """The size, or None where the graph leaves it open; a symbol that only one number may replace is fixed too."""
    if isinstance(size, int):
        return size
    return int(size.node.expr) if size.node.expr.is_number else None


def keep(graph, *arguments, found, **options):
    inputs = [node.meta["val"] for node in graph.graph.nodes if node.op == "placeholder" and "tangent" not in node.name]
    found["sizes"] = [[fixed(size) for size in one.shape] for one in inputs if isinstance(one, torch.Tensor)]
    found["launches"] = []
    for node in graph.graph.nodes:
        if node.target is torch.ops.higher_order.triton_kernel_wrapper_functional:
            kernel = kernel_side_table.get_kernel(node.kwargs["kernel_idx"])
            while not hasattr(kernel, "__name__"):
                kernel = kernel.fn
            found["launches"].append((kernel.__name__, list(node.kwargs["tensors_to_clone"])))
    raise TracedError


def trace(open_sizes="", open_steps=False, return_states=False, recompute=False, **shape):
    """What a case has: see the module."""
    from tests.operators.problems import cross_arguments, differentiable

    torch._dynamo.reset()
    given = cross_arguments(**{**SIZES, **shape}, projection_share_ratio=0.375, dtype=torch.bfloat16)
    differentiable(given)
    steps, cell, context, *projections = (given.pop(name) for name in list(given) if name not in list(given)[:5])
    operator, found = "low_rank_cross_rnn" if projections else "cross_rnn", {}
    if open_sizes == "batch":
        torch._dynamo.mark_dynamic(given["x0"], 0)
        torch._dynamo.mark_dynamic(context, 1)

    def step(weights, context, projections):
        return IMPLEMENTATION.compute[operator](*weights, context, *projections, steps, cell, return_states, recompute)

    backend = aot_autograd(fw_compiler=lambda graph, _: graph, partition_fn=partial(keep, found=found))
    compiled = torch.compile(step, fullgraph=True, backend=backend, dynamic=True if open_sizes == "every" else None)
    with torch._dynamo.config.patch(specialize_int=not open_steps):
        try:
            compiled(list(given.values()), context, projections)
        except torch._dynamo.exc.BackendCompilerFailed as error:
            if not isinstance(error.inner_exception, TracedError):
                raise
    return found


if __name__ == "__main__":
    if not torch.cuda.is_available():
        FakeGpu().install()
    json.dump({name: trace(**case) for name, case in CASES.items()}, sys.stdout)
