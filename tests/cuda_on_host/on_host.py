"""The CUDA kernels as functions of CPU tensors: compiled by the C++ compiler against shim.h, one thread of the CPU for each of a block's.

What the binding does around the launches on a GPU, memory and library products, is done here with PyTorch on the CPU.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sysconfig
from contextlib import contextmanager
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dcrnn_fast.sharing import GATES

HERE = Path(__file__).resolve().parent
KERNELS = HERE.parents[1] / "csrc" / "cuda"
NAME = "dcrnn_fast_cuda_on_host"
FLAGS = ("-std=c++20", "-O1", "-g1", "-fPIC", "-pthread", "-fvisibility=hidden", "-Wall", "-Wextra", "-Wno-unknown-pragmas")


def build(folder: Path, kernels: Path = KERNELS) -> Any:
    """The module, compiled in ``folder``; ``kernels`` is csrc/cuda, or a copy of it with cell.h one folder above."""
    import pybind11

    target = folder / f"{NAME}{sysconfig.get_config_var('EXT_SUFFIX')}"
    if not target.is_file():
        compiler = shlex.split(os.environ.get("CXX", "c++"))
        includes = [f"-I{path}" for path in (HERE, kernels, pybind11.get_include(), sysconfig.get_paths()["include"])]
        jobs = []
        for source in (*sorted(kernels.glob("*.cu")), HERE / "module.cpp"):
            command = [*compiler, *FLAGS, "-DDCRNN_CUDA_ON_HOST", *includes, "-x", "c++", "-c", str(source), "-o", f"{folder / source.stem}.o"]
            jobs.append(subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True))
        failed = [output for job in jobs for output in job.communicate()[:1] if job.returncode]
        assert not failed, failed[0][-4000:]
        objects = [str(path) for path in folder.glob("*.o")]
        beside = folder / "module.tmp"
        subprocess.run([*compiler, "-shared", "-pthread", *objects, "-o", str(beside)], check=True)
        beside.rename(target)
    spec = spec_from_file_location(NAME, target)
    assert spec is not None
    assert spec.loader is not None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class OnHost:
    """The operators of one compiled module. ``choices`` are the kernels that calls are forced to, ``tf32`` how float32 is multiplied."""

    def __init__(self, module: Any) -> None:
        self.module = module
        self.choices: dict[str, Any] = {"schedule": "automatic", "tiles": "automatic", "tf32": False, "multiprocessors": 132}

    @contextmanager
    def forced(self, **choices: Any) -> Any:
        """Within it calls compute with these."""
        before = dict(self.choices)
        self.choices.update(choices)
        yield
        self.choices = before

    def cross_rnn(self, x0, shared_weight, shared_bias, private_weight, private_bias, index, *, recompute=False, **options: Any) -> Tensor:
        """As :func:`dcrnn_fast.functional.cross_rnn`."""
        context = options.pop("context")
        return _CrossRNN.apply(
            self, x0, shared_weight, shared_bias, private_weight, private_bias, index, context, options | {"recompute": recompute}
        )

    def param_gather(self, shared: Tensor, private: Tensor, index: Tensor) -> Tensor:
        """As :func:`dcrnn_fast.functional.param_gather`."""
        return _ParamGather.apply(self, shared, private, index)

    def arguments(self, tensors: list[Tensor | None], steps: int, cell: str, return_states: bool) -> dict[str, Any]:
        """The sizes and addresses that every call of the module takes; the tensors live as long as the caller holds them."""
        x0, shared_weight, shared_bias, private_weight, private_bias, index, context = tensors
        names = ("x0", "shared_weight", "shared_bias", "private_weight", "private_bias", "index", "context")
        return {
            **{name: address(tensor) for name, tensor in zip(names, tensors, strict=True)},
            **self.choices,
            "dtype": str(x0.dtype).removeprefix("torch."),
            "batch": x0.shape[0],
            "dim": x0.shape[1],
            "columns": 0 if context is None else context.shape[2],
            "tasks": index.shape[0],
            "rows": index.shape[1],
            "vectors": GATES[cell],
            "steps": steps,
            "num_shared": shared_weight.shape[0],
            "num_private": private_weight.shape[1],
            "every_state": return_states,
        }


def address(tensor: Tensor | None) -> int:
    return 0 if tensor is None else tensor.data_ptr()


def poisoned(*shape: int, dtype: torch.dtype) -> Tensor:
    """New memory full of NaN: a value that no kernel wrote is seen."""
    return torch.full(shape, float("nan"), dtype=dtype)


def _contiguous(tensors: Any) -> list[Tensor | None]:
    return [None if tensor is None else tensor.detach().contiguous() for tensor in tensors]


def _forward(host: OnHost, tensors: list[Tensor | None], steps: int, cell: str, return_states: bool, save: bool) -> tuple[Tensor, Tensor | None]:
    arguments = host.arguments(tensors, steps, cell, return_states)
    x0, tasks = tensors[0], arguments["tasks"]
    batch, dim = x0.shape
    out = poisoned(*((tasks, steps + 1, batch, dim) if return_states else (tasks, batch, dim)), dtype=x0.dtype)
    gates = poisoned(tasks, steps, batch, GATES[cell], dim, dtype=x0.dtype) if save else None
    scratch = poisoned(host.module.forward_scratch(arguments), dtype=x0.dtype)
    host.module.forward({**arguments, "out": address(out), "gates": address(gates), "scratch": address(scratch)})
    return out, gates


class _CrossRNN(torch.autograd.Function):
    @staticmethod
    def forward(ctx, host, *inputs):
        *tensors, options = inputs
        steps, cell, return_states = options["steps"], options["cell"], options["return_states"]
        tensors = _contiguous(tensors)
        save = not options["recompute"] and any(ctx.needs_input_grad)
        out, gates = _forward(host, tensors, steps, cell, return_states, save)
        ctx.save_for_backward(*tensors, gates)
        ctx.constants = host, dict(host.choices), steps, cell, return_states
        return out

    @staticmethod
    def backward(ctx, grad):
        *tensors, gates = ctx.saved_tensors
        host, choices, steps, cell, return_states = ctx.constants
        with host.forced(**choices):
            if gates is None:
                gates = _forward(host, tensors, steps, cell, False, True)[1]
            gradients = _backward(host, tensors, grad.contiguous(), gates, steps, cell, return_states)
        wanted = [gradient if need else None for gradient, need in zip(gradients, (*ctx.needs_input_grad[1:6], ctx.needs_input_grad[7]), strict=True)]
        return None, *wanted[:5], None, wanted[5], None


def _backward(host, tensors, grad, gates, steps, cell, return_states) -> list[Tensor | None]:
    arguments = host.arguments(tensors, steps, cell, return_states)
    x0, *banks, index, context = tensors
    (tasks, rows), (batch, dim) = index.shape, x0.shape
    wide = torch.float64 if x0.dtype == torch.float64 else torch.float32
    vectors = GATES[cell]
    if batch == 0 or tasks == 0:
        return [torch.zeros_like(x0), *(torch.zeros_like(bank) for bank in banks), None if context is None else torch.zeros_like(context)]
    states = poisoned(tasks, steps - 1, batch, dim, dtype=x0.dtype)
    gradients = poisoned(tasks, steps, batch, vectors, dim, dtype=x0.dtype)
    d, dx0_sums = (poisoned(tasks, batch, dim, dtype=wide) for _ in range(2))
    sums = poisoned(tasks, steps, host.module.backward_row_tiles(arguments), vectors, dim, dtype=wide)
    dx0 = poisoned(batch, dim, dtype=x0.dtype)
    dcontext = None if context is None else poisoned(*context.shape, dtype=x0.dtype)
    memory = {"grad": grad, "gates": gates, "states": states, "gradients": gradients, "d": d, "dx0_sums": dx0_sums, "sums": sums}
    arguments |= {name: address(tensor) for name, tensor in memory.items()} | {"dx0": address(dx0), "dcontext": address(dcontext)}
    host.module.backward(arguments)

    groups = host.module.step_groups(arguments)
    products = []
    for group in range(groups):
        first, last = (0, 1) if group == 0 else (1, steps) if rows == dim else (group, group + 1)
        left = gradients[:, first:last].flatten(3).flatten(1, 2).mT
        right = x0.expand(tasks, -1, -1) if group == 0 else states[:, first - 1 : last - 1].flatten(1, 2)
        if context is not None:
            right = torch.cat([context[first:last].flatten(0, 1).expand(tasks, -1, -1), right], dim=2)
        products.append(left @ right)
    products = torch.stack(products)
    out = [poisoned(*bank.shape, dtype=x0.dtype) for bank in banks]
    names = ("dshared_weight", "dshared_bias", "dprivate_weight", "dprivate_bias")
    host.module.sum_banks({**arguments, "products": address(products), **{n: address(t) for n, t in zip(names, out, strict=True)}})
    return [dx0, *out, dcontext]


class _ParamGather(torch.autograd.Function):
    @staticmethod
    def forward(ctx, host, shared, private, index):
        shared, private, index = _contiguous((shared, private, index))
        out = poisoned(*index.shape, *shared.shape[1:], dtype=shared.dtype)
        size = shared[0:1].numel() if shared.shape[0] else private[:1, :1].numel()
        banks = {
            "index": address(index), "tasks": index.shape[0], "rows": index.shape[1],
            "num_shared": shared.shape[0], "num_private": private.shape[1],
        }  # fmt: skip
        bytes_each = shared.element_size()
        host.module.gather(
            {**banks, "shared": address(shared), "private": address(private), "out": address(out), "row_bytes": size * bytes_each,
             "value_bytes": bytes_each}
        )  # fmt: skip
        ctx.save_for_backward(index)
        ctx.constants = host, banks, size, shared.shape, private.shape
        return out

    @staticmethod
    def backward(ctx, grad):
        (index,) = ctx.saved_tensors
        host, banks, size, *shapes = ctx.constants
        grad = grad.contiguous()
        shared, private = (poisoned(*shape, dtype=grad.dtype) for shape in shapes)
        host.module.sum_rows(
            {**banks, "index": address(index), "dtype": str(grad.dtype).removeprefix("torch."), "gradient": address(grad),
             "dshared": address(shared), "dprivate": address(private), "size": size}
        )  # fmt: skip
        return None, shared, private, None
