"""Prints the launches of traced training steps and what each writes, as PyTorch's compiler sees them. Needs no GPU: nothing is run.

It traces four times. The first line of each, such as "# batch", says which sizes the graph leaves open: "static" none, "batch" the batch,
"every" all of them, "steps" the steps too. With "every", the operators are traced with their options, and a line says which sizes the
graph fixed nevertheless.
"""

import os
import sys
from functools import partial

os.environ.pop("TRITON_INTERPRET", None)
os.environ.setdefault("TRITON_DEFAULT_FP_FUSION", "1")

import torch
from torch._dynamo.backends.common import aot_autograd
from torch._higher_order_ops.triton_kernel_wrap import kernel_side_table

from dcrnn_fast.ops import cross_rnn, low_rank_cross_rnn, param_gather
from dcrnn_fast.ops.triton import IMPLEMENTATION
from tests.operators.fake_gpu import FakeGpu

CASES = "states", "untied, recompute", "no context", "low rank", "gather"
OPEN_STEPS = "open steps"


class TracedError(Exception):
    """The graph of forward and backward is there; running it would need a GPU."""


def print_fixed_sizes(graph):
    """The sizes of the inputs that are numbers and no symbols."""
    inputs = [node.meta["val"] for node in graph.graph.nodes if node.op == "placeholder" and "tangent" not in node.name]
    sizes = [str([size if isinstance(size, int) else "?" for size in value.shape]) for value in inputs if isinstance(value, torch.Tensor)]
    sys.stdout.write(f"sizes: {' '.join(sizes).replace(chr(39), '')}\n")


def print_launches(graph, *arguments, open_sizes, **options):
    if open_sizes == "every":
        print_fixed_sizes(graph)
    for node in graph.graph.nodes:
        if node.target is torch.ops.higher_order.triton_kernel_wrapper_functional:
            kernel = kernel_side_table.get_kernel(node.kwargs["kernel_idx"])
            while not hasattr(kernel, "__name__"):
                kernel = kernel.fn
            sys.stdout.write(f"{kernel.__name__}: {', '.join(node.kwargs['tensors_to_clone'])}\n")
    raise TracedError


def trace(case, open_sizes):
    torch._dynamo.reset()
    tasks, shared, private, gates, dim, rows, columns, steps = (
        5,
        40,
        24,
        2,
        64,
        256,
        16,
        3,
    )  # none like another: a graph takes like sizes for one
    total = dim * (steps if "untied" in case else 1)
    if "no context" in case:
        columns = 0
    shapes = [(rows, dim), (shared, gates, columns + dim), (shared, gates), (tasks, private, gates, columns + dim), (tasks, private, gates)]
    if "low rank" in case:
        rank = 24
        shapes[1], shapes[3] = (shared, gates, rank), (tasks, private, gates, rank)
        projections = [(12, gates, columns + dim), (tasks, 30, gates, columns + dim)]
    floats = [torch.empty(*shape, dtype=torch.bfloat16).requires_grad_() for shape in shapes]
    inputs = [*floats, torch.zeros(tasks, total, dtype=torch.int32)]
    if columns:
        inputs.append(torch.empty(steps, rows, columns, dtype=torch.bfloat16).requires_grad_())
    if "low rank" in case:
        inputs += [torch.empty(*shape, dtype=torch.bfloat16).requires_grad_() for shape in projections]
        inputs.append(torch.zeros(tasks, rank, dtype=torch.int32))
    if open_sizes == "batch":
        torch._dynamo.mark_dynamic(inputs[0], 0)
        torch._dynamo.mark_dynamic(inputs[6], 1)

    compute = IMPLEMENTATION.compute

    def step(*tensors):
        context = tensors[6] if columns else None
        if case == "gather":
            return compute["param_gather"](param_gather.Arguments(tensors[1], tensors[3], tensors[5]), False)
        options = {"steps": steps, "context": context, "return_states": "states" in case}
        if "low rank" in case:
            return compute["low_rank_cross_rnn"](low_rank_cross_rnn.Arguments(*tensors[:6], *tensors[7:], **options), False)
        return compute["cross_rnn"](cross_rnn.Arguments(*tensors[:6], **options), "recompute" in case)

    backend = aot_autograd(fw_compiler=lambda graph, _: graph, partition_fn=partial(print_launches, open_sizes=open_sizes))
    compiled = torch.compile(step, fullgraph=True, backend=backend, dynamic=True if open_sizes in ("every", "steps") else None)
    with torch._dynamo.config.patch(specialize_int=case != OPEN_STEPS):
        try:
            compiled(*inputs)
        except torch._dynamo.exc.BackendCompilerFailed as error:
            if not isinstance(error.inner_exception, TracedError):
                raise


def main():
    if not torch.cuda.is_available():
        FakeGpu().install()
    for open_sizes, case in {"static": "as it is", "batch": "as it is", "steps": OPEN_STEPS}.items():
        sys.stdout.write(f"# {open_sizes}\n")
        trace(case, open_sizes)
    sys.stdout.write("# every\n")
    for case in CASES:
        sys.stdout.write(f"{case}\n")
        trace(case, "every")


if __name__ == "__main__":
    main()
