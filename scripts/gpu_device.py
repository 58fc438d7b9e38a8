"""What scripts/gpu.py runs on the device in processes of their own: ``report``, ``small`` and ``tune``."""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

SIZES = [(dim, batch, tasks) for tasks in (2, 1, 4) for dim in (624, 256, 128, 1024) for batch in (8192, 256, 2048, 65536)]
"""D, B and T of the benchmarks, the most telling first."""


def report() -> int:
    """What this machine is; the line "card: NAME" or "no CUDA device: REASON" is read by scripts/gpu.py."""
    print(f"python: {platform.python_version()}, {sys.executable}\nplatform: {platform.platform()}")
    for command in (["nvidia-smi"], ["nvcc", "--version"], ["compute-sanitizer", "--version"]):
        if shutil.which(command[0]) is None:
            print(f"{command[0]}: not found")
            continue
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        print(f"{' '.join(command)}\n{done.stdout}{done.stderr}")
    try:
        import torch
    except ImportError as error:
        print(f"no CUDA device: PyTorch cannot be imported ({error})")
        return 0
    print(f"torch: {torch.__version__}")
    for name in ("triton", "numpy", "pytest", "hypothesis", "pytest_benchmark", "pybind11"):
        try:
            print(f"{name}: {getattr(__import__(name), '__version__', 'present')}")
        except ImportError as error:
            print(f"{name}: absent ({error})")
    if torch.version.cuda is None:
        print(f"no CUDA device: PyTorch {torch.__version__} was built without CUDA")
    elif not torch.cuda.is_available():
        print("no CUDA device: PyTorch finds none; what nvidia-smi says stands above")
    else:
        found = torch.cuda.get_device_properties(0)
        print(f"capability: {found.major}.{found.minor}\nmultiprocessors: {found.multi_processor_count}\nmemory: {found.total_memory}")
        print(f"CUDA: {torch.version.cuda}\ncard: {found.name}")
    return 0


def small(as_allocated: bool, device: str) -> int:
    """Both operators forward and backward over small shapes, by every backend and schedule; results are compared with the reference."""
    import torch

    from dcrnn_fast import backends, functional
    from tests.operators.problems import cross_arguments, differentiable

    shapes: list[dict] = [
        {"batch": 3, "dim": 17},
        {"batch": 70, "dim": 40, "tasks": 3, "tied": False, "cell": "cross"},
        {"batch": 33, "dim": 24, "context_dim": 9},
    ]
    if not as_allocated:
        torch.use_deterministic_algorithms(True)  # fills new memory with NaN; under initcheck it stays as it is
    worst = 0.0
    for shape in shapes:
        for dtype, ceiling in ((torch.float32, 1e-4), (torch.bfloat16, 5e-2)):
            for options in ({}, {"return_states": True}, {"recompute": True})[: 1 if dtype == torch.bfloat16 else 3]:
                for backend, forced in _ways(device):
                    with forced:
                        worst = max(worst, _cross_rnn(backend, shape, dtype, options, device) / ceiling)
    arguments = cross_arguments(batch=4, dim=40, tasks=3, dtype=torch.float32)
    given = {name: arguments[name].to(device) for name in ("shared_weight", "private_weight", "index")}
    leaves = list(differentiable(given).values())
    found = {}
    for backend in ("reference", *_backends(device)):
        out = functional.param_gather(*given.values(), backend=backend)
        found[backend] = [out.detach(), *torch.autograd.grad(out.square().sum(), leaves)]
        for got, right in zip(found[backend], found["reference"], strict=True):
            torch.testing.assert_close(got, right)
    print(f"backends: {', '.join(_backends(device))}; without: {backends.REASONS}")
    print(f"largest error, as a part of its ceiling: {worst:.2f}")
    return 0 if worst < 1 else 1


def _backends(device: str) -> list[str]:
    from dcrnn_fast import backends

    return [name for name in ("triton", "cuda") if backends.REASONS[name] is None and (device == "cuda" or name == "triton")]


def _ways(device: str) -> Iterator[tuple[str, AbstractContextManager[None]]]:
    """Every backend with every choice of kernels that it has."""
    from dcrnn_fast import backends
    from dcrnn_fast.kernels import tile_choice

    for schedule in ("step", "all_steps"):
        yield "triton", tile_choice.kernel_override(schedule=schedule)
    extension = backends.cuda_extension()
    if "cuda" in _backends(device) and extension is not None:
        for choice in ({"schedule": "step", "tiles": "small"}, {"schedule": "step", "tiles": "large"}, {"schedule": "all_steps"}):
            yield "cuda", _forced(extension, choice)


@contextmanager
def _forced(extension: ModuleType, choice: dict[str, str]) -> Iterator[None]:
    extension.force(**choice)
    yield
    extension.force()


def _cross_rnn(backend: str, shape: dict, dtype: torch.dtype, options: dict, device: str) -> float:
    """The largest relative error of the output and of every gradient."""
    import torch

    from dcrnn_fast import functional
    from tests.operators.problems import cross_arguments, differentiable

    def of(value: Any, kind: torch.dtype) -> Any:
        if not isinstance(value, torch.Tensor):
            return value
        return value.to(device, kind) if value.is_floating_point() else value.to(device)

    results = []
    for name, kind in ((backend, dtype), ("reference", torch.float64)):
        arguments = {name: of(value, kind) for name, value in cross_arguments(**{**shape, "dtype": dtype}).items()}
        leaves = differentiable(arguments)
        out = functional.cross_rnn(**arguments, **options, backend=name)
        seed = torch.linspace(-1, 1, out.numel(), device=device, dtype=torch.float64).to(dtype).to(out.dtype).view_as(out)
        results.append([out.detach(), *torch.autograd.grad(out, list(leaves.values()), seed)])
    pairs = zip(*results, strict=True)
    return max(float((got.double() - right).norm() / right.norm().clamp_min(1e-300)) for got, right in pairs)


def tune(minutes: float | None) -> int:
    """Measure tile sizes for the benchmarks' sizes that the user's file lacks. A size that fails is told, and the others go on."""
    import torch

    from dcrnn_fast import tile_measuring
    from dcrnn_fast.kernels import tile_file
    from dcrnn_fast.kernels.tile_table import Sizes

    ends = None if minutes is None else time.monotonic() + 60 * minutes
    failed = False
    for dim, batch, tasks in SIZES:
        for kind in ("bfloat16", "tf32"):
            if ends is not None and time.monotonic() > ends:
                print("the minutes are used up; what was measured is kept")
                return int(failed)
            dtype = torch.float32 if kind == "tf32" else torch.bfloat16
            sizes = Sizes.of(torch.empty(batch, dim, dtype=dtype, device="cuda"), tasks, 2, dim, 3, kind == "tf32")
            if sizes.key("schedule") in tile_file.choices(sizes.card.name):
                continue
            print(f"{kind}, D={dim}, B={batch}, T={tasks}", flush=True)
            try:
                tile_measuring.tune(dim, tasks, batch, kind=kind, report=lambda line: print(f"  {line}", flush=True))
            except Exception as error:
                failed = True
                print(f"  FAILED: {type(error).__name__}: {error}", flush=True)
                torch.cuda.empty_cache()
    return int(failed)


def main() -> int:
    """One of the three."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=("report", "small", "tune"))
    parser.add_argument("--minutes", type=float, help="with tune: start nothing new after so many minutes")
    parser.add_argument("--as-allocated", action="store_true", help="with small: leave new memory as it is")
    options = parser.parse_args()
    if options.what == "report":
        return report()
    if options.what == "small":
        return small(options.as_allocated, "cpu" if os.environ.get("TRITON_INTERPRET") == "1" else "cuda")
    return tune(options.minutes)


if __name__ == "__main__":
    sys.exit(main())
