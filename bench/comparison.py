"""The candidates of one case: checked against float64, timed side by side, saved as a row of results."""

from __future__ import annotations

import gc
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from dcrnn_fast import CrossRNN, DCNv2, SharingPlan, reference
from dcrnn_fast.ops import backends
from dcrnn_fast.support.accuracy import CEILING, relative_error

from .candidates import Call, Eager, OneProduct, captured, exactly, step
from .cases import DTYPES
from .interleave import figures, rounds, wait


class Comparison:
    """The candidates of one case: calls whose results were right, and for each of the others why it failed."""

    def __init__(self, case: dict, device: str, *, grid: str, seconds: float, save: Callable[[dict], None]) -> None:
        self.case, self.device, self.grid, self.seconds, self.save = case, device, grid, seconds, save
        self.training = case.get("pass") == "training"
        self.kind = {"dtype": DTYPES[case["dtype"]], "device": device}
        self.ours = ours(device, grid)
        self.benchmark: Any = None
        """The fixture of pytest-benchmark, where it is installed and the case has a time."""
        self.calls: dict = {}
        self.failed: dict[str, str] = {}

    def draw(self, *shape: int) -> Tensor:
        """Random values in the case's dtype on its device."""
        return torch.randn(*shape, **self.kind)

    def add(self, name: str, make: Callable[[], object]) -> None:
        """Add what ``make`` returns. If it raises, the candidate has failed."""
        try:
            self.calls[name] = make()
        except Exception as error:
            self.failed[name] = _first_line(error)
            free()

    def add_call(self, name: str, make: Callable[[], Call], check: Callable[[Any], None] = lambda results: None) -> None:
        """Add the call that ``make`` returns, on a GPU as a CUDA graph: no time of the host counts. ``check`` raises if it is wrong."""

        def checked() -> Call:
            run = captured(make()) if self.device == "cuda" else make()
            check(run())
            return run

        self.add(name, checked)

    def add_modules(self, makers: Mapping[str, Callable[[], nn.Module]], exact: nn.Module, x0: Tensor, seed: Tensor | None) -> None:
        """Add a forward or training step of each module, checked on all rows against ``exact``, the same module in float64."""
        expected = cache(lambda: exactly(exact, x0, seed))

        def check(results: list[Tensor]) -> None:
            for got, right in zip(results, expected(), strict=True):
                error = relative_error(got.reshape_as(right), right)
                assert error < CEILING[self.case["dtype"]], f"relative error {error:.1e} against float64"

        def call(make: Callable[[], nn.Module]) -> Call:
            module = make()
            return lambda: step(module, x0, seed)

        for name, make in makers.items():
            self.add_call(name, lambda make=make: call(make), check)

    def add_recurrences(self, plan: SharingPlan, batch: int) -> tuple[Tensor, Tensor | None]:
        """Add CrossRNN by our kernels, by eager PyTorch and in its compiled forms. Returns x0 and the gradient of the output."""
        peer = Eager if (self.device, self.grid == "smoke") == ("cpu", False) else OneProduct
        eager, exact = peer(plan, **self.kind), reference.CrossRNN(plan, dtype=torch.float64, device=self.device)
        ours = {name: CrossRNN(plan, backend=name, **self.kind) for name in self.ours}
        for module in (*ours.values(), exact):
            module.load_state_dict(eager.state_dict())
        x0 = self.draw(batch, plan.dim)
        seed = self.draw(plan.num_tasks, batch, plan.dim) if self.training else None
        self.add_modules(self.forms(ours, eager, x0), exact, x0, seed)
        return x0, seed

    def add_dcn(
        self,
        make: Callable[..., DCNv2],
        peer: Callable[[DCNv2, torch.dtype], nn.Module],
        dim: int,
        batch: int,
        **others: Callable[[DCNv2, torch.dtype], nn.Module],
    ) -> None:
        """Add DCNv2 by our kernels, and by a peer with its weights, eager and in its compiled forms. Others are added as they are."""
        ours = {name: make(backend=name, **self.kind) for name in self.ours}
        first = ours[self.ours[0]]
        for module in ours.values():
            module.load_state_dict(first.state_dict())
        x0 = self.draw(batch, dim)
        seed = self.draw(batch, dim) if self.training else None
        dtype = self.kind["dtype"]
        forms = self.forms(ours, peer(first, dtype), x0) | {name: lambda other=other: other(first, dtype) for name, other in others.items()}
        self.add_modules(forms, peer(first, torch.float64), x0, seed)

    def forms(self, ours: Mapping[str, nn.Module], eager: nn.Module, x0: Tensor) -> dict[str, Callable[[], nn.Module]]:
        """Our modules, the eager peer and its compiled forms."""
        plain = {**ours, "eager": eager}
        found: dict[str, Callable[[], nn.Module]] = {name: lambda module=module: module for name, module in plain.items()}
        if self.grid != "smoke":
            found["compile"] = lambda: torch.compile(eager, fullgraph=True, dynamic=False)
        return found

    def time(self, **known: float) -> None:
        """Time the candidates that passed their checks, and save the row, ``known`` figures first."""
        row: dict = dict(known)
        if working := [name for name in self.ours if name in self.calls]:
            effort = {"minimum": 2 if self.grid == "smoke" else 7, "stretch": 2e-3 if self.device == "cuda" else 0.0}
            try:
                row |= figures(rounds(self.calls, seconds=self.seconds, **effort), working)
                self.time_by_benchmark(working[0], row)
            except Exception as error:
                self.failed["timing"] = _first_line(error)
        self.finish(row)

    def time_by_benchmark(self, candidate: str, row: dict) -> None:
        """Time a candidate by pytest-benchmark, in as many rounds as it had turns; its ratios to the peers are the extra information."""
        if self.benchmark is None:
            return
        run = self.calls[candidate]
        self.benchmark.extra_info.update({"candidate": candidate, **self.case, **row})
        self.benchmark.pedantic(lambda: (run(), wait()), rounds=row["rounds"])

    def finish(self, row: dict) -> None:
        """Save the row with what failed. Then the test fails if one of ours did, or in a smoke test if anything did."""
        if self.failed:
            row["failed"] = "; ".join(f"{name}: {why}" for name, why in self.failed.items())
        self.save(row)
        fatal = {name: why for name, why in self.failed.items() if self.grid == "smoke" or name.startswith((*self.ours, "timing"))}
        assert not fatal, fatal


def ours(device: str, grid: str) -> list[str]:
    """The backends to compare on a device. Triton's interpreter takes part in smoke tests alone."""
    usable = [name for name, backend in backends.BACKENDS.items() if device in backend.devices and backends.REASONS[name] is None]
    return [name for name in usable if grid == "smoke" or (device, name) != ("cpu", "triton")]


def free() -> None:
    """Give back memory that nothing uses any more."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {(str(error).strip().splitlines() or [''])[0][:200]}"
