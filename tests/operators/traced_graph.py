"""Prints the launches of a traced training step and what each writes, as PyTorch's compiler sees them. Needs no GPU: nothing is run."""

import os
import sys

os.environ.pop("TRITON_INTERPRET", None)
os.environ.setdefault("TRITON_DEFAULT_FP_FUSION", "1")

import torch
import triton
from torch._dynamo.backends.common import aot_autograd
from torch._higher_order_ops.triton_kernel_wrap import kernel_side_table
from triton.backends.compiler import GPUTarget

from dcrnn_fast.kernels import tile_choice
from dcrnn_fast.operators import triton as operators


class Driver:
    """A GPU that is asked for its kind and nothing else."""

    def get_current_target(self):
        return GPUTarget("cuda", 90, 32)

    def get_current_device(self):
        return 0

    def get_current_stream(self, device):
        return 0


class TracedError(Exception):
    """The graph of forward and backward is there; running it would need a GPU."""


def print_launches(graph, *arguments, **options):
    for node in graph.graph.nodes:
        if node.target is torch.ops.higher_order.triton_kernel_wrapper_functional:
            kernel = kernel_side_table.get_kernel(node.kwargs["kernel_idx"])
            while not hasattr(kernel, "__name__"):
                kernel = kernel.fn
            sys.stdout.write(f"{kernel.__name__}: {', '.join(node.kwargs['tensors_to_clone'])}\n")
    raise TracedError


def main():
    if not torch.cuda.is_available():
        triton.runtime.driver.set_active(Driver())
    tasks, shared, private, gates, dim, rows, columns, steps = 2, 32, 32, 2, 64, 256, 16, 3
    shapes = [(rows, dim), (shared, gates, columns + dim), (shared, gates), (tasks, private, gates, columns + dim), (tasks, private, gates)]
    floats = [torch.empty(*shape, dtype=torch.bfloat16).requires_grad_() for shape in (*shapes, (steps, rows, columns))]
    index = torch.empty(tasks, dim, dtype=torch.int32)
    if sys.argv[1] == "dynamic":
        torch._dynamo.mark_dynamic(floats[0], 0)
        torch._dynamo.mark_dynamic(floats[5], 1)

    def step(*tensors):
        return operators.IMPLEMENTATION.cross_rnn(*tensors[:6], steps=steps, context=tensors[6])

    compiled = torch.compile(step, fullgraph=True, backend=aot_autograd(fw_compiler=lambda graph, _: graph, partition_fn=print_launches))
    with tile_choice.kernel_override(schedule="step"):
        try:
            compiled(*floats[:5], index, floats[5])
        except torch._dynamo.exc.BackendCompilerFailed as error:
            if not isinstance(error.inner_exception, TracedError):
                raise


if __name__ == "__main__":
    main()
