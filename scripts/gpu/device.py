"""What scripts.gpu runs on the GPU, each in its own process: ``report``, ``smoke``, ``small`` and ``train``."""

from __future__ import annotations

import argparse
import math
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from importlib.util import find_spec
from multiprocessing import get_context
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from . import left_out

if TYPE_CHECKING:
    import torch

SMALL: tuple[dict[str, Any], ...] = (
    {"batch": 3, "dim": 17},
    {"batch": 70, "dim": 40, "tasks": 3, "tied": False, "cell": "cross"},
    {"batch": 33, "dim": 24, "context_dim": 9},
    {"batch": 21, "dim": 24, "context_dim": 9, "rank": 5},
)
SMOKE = SMALL[-2:]
"""The full cell and the low-rank one."""

TRAINER = ("duckdb", "matplotlib", "platformdirs", "pyarrow", "pydantic", "rich", "safetensors", "sklearn", "tensorboard", "yaml")
"""Modules that training needs beside PyTorch and NumPy."""
CEILINGS = {"float32": 1e-4, "bfloat16": 5e-2}
"""The largest relative errors, by dtype."""
CALLS = 3
"""Of each comparison on a GPU: the first compiles and times tiles."""
FIRST_STEPS = 50
"""Training steps that are not timed, at most."""


def calls(shapes: Sequence[dict[str, Any]], every_option: bool) -> list[tuple[dict[str, Any], str, dict[str, Any]]]:
    """The shape, dtype and options of each comparison."""
    options: list[dict[str, Any]] = [{}, {"return_states": True}, {"recompute": True}] if every_option else [{}]
    return [(shape, dtype, option) for shape in shapes for dtype in CEILINGS for option in (options if dtype == "float32" else options[:1])]


def report() -> int:
    """Describe this machine. scripts.gpu reads the line "card: NAME" or "no CUDA device: REASON"."""
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
    for name in ("torch", "triton", "numpy", "pytest", "hypothesis", "pybind11"):
        try:
            print(f"{name}: {getattr(__import__(name), '__version__', 'present')}")
        except ImportError as error:
            print(f"{name}: absent ({error})")
    print(f"trainer lacks: {', '.join(name for name in TRAINER if find_spec(name) is None) or 'nothing'}")
    if torch.version.cuda is None:
        print(f"no CUDA device: PyTorch {torch.__version__} was built without CUDA")
    elif not torch.cuda.is_available():
        print("no CUDA device: PyTorch finds none; see the output of nvidia-smi above")
    else:
        found = torch.cuda.get_device_properties(0)
        print(f"capability: {found.major}.{found.minor}\nmultiprocessors: {found.multi_processor_count}\nmemory: {found.total_memory}")
        print(f"CUDA: {torch.version.cuda}\ncard: {found.name}")
    return 0


def compare(shapes: Sequence[dict[str, Any]], every_option: bool, as_allocated: bool, device: str, backend: str | None = None) -> int:
    """Compare both operators, forward and backward, with the reference in float64: for a backend or all, and every choice of kernels.

    Prints a line for each comparison, and goes on after one that fails.
    """
    import torch

    from dcrnn_fast.ops import backends
    from tests.operators.backend import CHOICES

    names = ["triton", *(["cuda"] if device == "cuda" and backends.REASONS["cuda"] is None else [])] if backend is None else [backend]
    print(f"backends: {', '.join(names)}; without: {backends.REASONS}")
    if not as_allocated:
        torch.use_deterministic_algorithms(True)  # fills new memory with NaN; initcheck needs it as it is
    passed = []
    for shape, dtype, options in calls(shapes, every_option):
        for name in names:
            for words, choice in CHOICES[name].items():
                cell = partial(_compare_cell, name, choice, shape, dtype, options, device)
                passed.append(attempt(f"{words}, {dtype}, {shape | options}", cell))
    passed += [attempt(f"{name}, param_gather", partial(_compare_gather, name, device)) for name in names]
    print(f"{sum(passed)} of {len(passed)} comparisons passed")
    return int(not all(passed))


def attempt(what: str, work: Callable[[], str]) -> bool:
    """Whether ``work`` ends without an error. Prints what it returns, or the error."""
    try:
        said = work()
    except Exception:
        print(f"FAILED: {what}\n{traceback.format_exc()}", flush=True)
        return False
    print(f"{what}: {said}", flush=True)
    return True


def _compare_cell(backend: str, choice: dict[str, Any], shape: dict[str, Any], dtype: str, options: dict[str, Any], device: str) -> str:
    import torch

    from dcrnn_fast import functional

    with functional.kernel_override(backend, **choice):
        every = [_errors(backend, shape, getattr(torch, dtype), options, device) for _ in range(CALLS if device == "cuda" else 1)]
    errors = {name: max(one[name] for one in every) for name in every[0]}
    found = {name: error / CEILINGS[dtype] for name, error in errors.items()}
    if wrong := {name: f"{error:.2f}" for name, error in found.items() if not error < 1}:
        raise AssertionError(f"errors relative to their ceiling: {wrong}")
    return f"largest error {max(found.values()):.2f} of its ceiling"


def _compare_gather(backend: str, device: str) -> str:
    import torch

    from dcrnn_fast import functional
    from tests.operators.problems import cross_arguments, differentiable

    arguments = cross_arguments(batch=4, dim=40, tasks=3, dtype=torch.float32)
    given = {name: arguments[name].to(device) for name in ("shared_weight", "private_weight", "index")}
    leaves = list(differentiable(given).values())
    found = []
    for name in (backend, "reference"):
        out = functional.param_gather(*given.values(), backend=name)
        found.append([out.detach(), *torch.autograd.grad(out.square().sum(), leaves)])
    for got, right in zip(*found, strict=True):
        torch.testing.assert_close(got, right)
    return "as the reference"


def _errors(backend: str, shape: dict[str, Any], dtype: torch.dtype, options: dict[str, Any], device: str) -> dict[str, float]:
    """The relative errors of the output of ``cross_rnn`` and of its gradients, by their names; infinite where a value is not finite."""
    import torch

    from dcrnn_fast import functional
    from dcrnn_fast.support.accuracy import relative_error
    from tests.operators.problems import cross_arguments, differentiable

    results = []
    for name, kind in ((backend, dtype), ("reference", torch.float64)):
        arguments = cross_arguments(**shape, dtype=dtype)
        for key, value in arguments.items():
            if isinstance(value, torch.Tensor):
                arguments[key] = value.to(device, kind if value.is_floating_point() else value.dtype)
        leaves = differentiable(arguments)
        out = functional.cross_rnn(**arguments, **options, backend=name)
        seed = torch.linspace(-1, 1, out.numel(), device=device, dtype=torch.float64).to(dtype).to(out.dtype).view_as(out)
        results.append([out.detach(), *torch.autograd.grad(out, list(leaves.values()), seed)])
    errors = {name: relative_error(got, right) for name, got, right in zip(["out", *leaves], *results, strict=True)}
    return {name: error if math.isfinite(error) else math.inf for name, error in errors.items()}


class Clock:
    """Times the training steps behind the first ones, which compile and record."""

    def __init__(self, rows: int, batch_size: int, device: str) -> None:
        self.batch_size, self.device, self.last = batch_size, device, rows // batch_size
        self.first, self.at = min(FIRST_STEPS, self.last // 2), dict[int, float]()
        if not self.first:
            raise ValueError(f"a rate needs two full steps: got {rows} train rows in batches of {batch_size}")

    def __call__(self, step: int) -> None:
        """Note the time, if this is the first or the last step that counts."""
        if step in (self.first, self.last):
            import torch

            if self.device == "cuda":
                torch.cuda.synchronize()
            self.at[step] = time.monotonic()

    def rate(self) -> float:
        """Rows a second."""
        return (self.last - self.first) * self.batch_size / (self.at[self.last] - self.at[self.first])


def train(rows: int, batch_size: int) -> int:
    """Train one epoch on a generated table with the defaults, kernel by kernel and with steps as CUDA graphs; then time requests.

    Prints what it measures as soon as it is there. Fails where a run does, or where the two do not end with the same weights.
    """
    import json

    import torch

    from bench.measures.scale import PART_ROWS, schema, write_part
    from dcrnn_fast.data import prepare_folder
    from dcrnn_fast.training import load_config
    from dcrnn_fast.training import train as train_run
    from dcrnn_fast.training.folder.layout import RunFolder

    device = "cuda" if torch.cuda.is_available() else "cpu"
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        (folder / "parts").mkdir()
        (folder / "scale.yaml").write_text(json.dumps(schema("parquet")), encoding="utf-8")
        for part, first in enumerate(range(0, rows, PART_ROWS)):
            write_part(folder / "parts" / f"part-{part:03}.parquet", min(PART_ROWS, rows - first), part)
        begin = time.monotonic()
        data = prepare_folder(folder / "scale.yaml", folder / "packed")
        print(f"{rows:,} rows prepared in {time.monotonic() - begin:.0f} s", flush=True)
        weights: list[bytes] = []

        def run(graph: bool) -> str:
            keys = {"data": data.meta.name, "device": device, "optimiser.epochs": 1, "optimiser.batch_size": batch_size}
            keys |= {"cuda_graph": graph, "early_stopping.every_steps": rows}  # one evaluation, at the end
            clock, made = Clock(data.meta.rows["train"], batch_size, device), RunFolder(folder / f"run-{graph}")
            train_run(load_config(None, keys), made.root, dataset=data, on_step=clock)
            weights.append(made.weights.read_bytes())
            return f"{clock.rate():,.0f} training rows/s"

        ways = {f"batches of {batch_size}, kernel by kernel": False, f"batches of {batch_size}, as one launch": True}
        passed = [attempt(words, partial(run, graph)) for words, graph in ways.items()]
        if weights:
            (folder / "weights").write_bytes(weights[0])
            with ProcessPoolExecutor(1, get_context("spawn")) as own:  # a step that could not be recorded spoils what is recorded after it
                passed.append(attempt("requests", lambda: own.submit(requests, folder / "weights", folder / "packed", device).result()))
        if len(weights) == 2:
            print(f"both end with {'the same' if weights[0] == weights[1] else 'other'} weights", flush=True)
        return int(not all(passed) or weights[0] != weights[1])


def requests(weights: Path, packed: Path, device: str) -> str:
    """Compare requests, which a GPU records, with the model's own logits, and time them."""
    import torch

    from dcrnn_fast import DCRNN
    from dcrnn_fast.data import BlockLoader, open_packed
    from dcrnn_fast.training import load_model

    model = cast(DCRNN, load_model(weights, device=device)[0].eval())
    batch = next(BlockLoader(open_packed(packed).split("test"), 513).batches())
    prepared, found, times = model.prepare_inference(), [], 200 if device == "cuda" else 3
    with torch.no_grad():
        for rows in (1, 5, 64, 512, 513):
            ids, dense = batch.ids[:rows], None if batch.dense is None else batch.dense[:rows]
            there = ids.to(device), None if dense is None else dense.to(device)
            torch.testing.assert_close(prepared(*there), model(*there), rtol=1e-3, atol=1e-4)
            seconds = []
            for _ in range(times):
                begin = time.perf_counter()
                prepared(ids.to(device), None if dense is None else dense.to(device)).cpu()  # from the CPU and back
                seconds.append(time.perf_counter() - begin)
            found.append(f"{rows} rows {1e6 * statistics.median(seconds):,.0f} us")
    return f"the model's logits; from the CPU and back, median of {times}: {', '.join(found)}"


def main() -> int:
    """Run one of the four."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=("report", "smoke", "small", "train"))
    parser.add_argument("--rows", type=int, default=1_000_000, help="with train: of the table")
    parser.add_argument("--batch-size", type=int, default=512, help="with train")
    parser.add_argument("--as-allocated", action="store_true", help="with small: do not fill new memory")
    parser.add_argument("--backend", help="with smoke: the only one")
    parser.add_argument("--dry-run", action="store_true", help="with small: say what would run, on a machine without a GPU too")
    options = parser.parse_args()
    if options.what == "report":
        return report()
    left_out.pytest_configure()
    if options.what == "train":
        return train(options.rows, options.batch_size)
    shapes = SMALL if options.what == "small" else SMOKE
    if options.dry_run:
        print(*calls(shapes, True), sep="\n")
        return 0
    device = "cpu" if os.environ.get("TRITON_INTERPRET") == "1" else "cuda"
    return compare(shapes, options.what == "small", options.as_allocated, device, options.backend)


if __name__ == "__main__":
    sys.exit(main())
