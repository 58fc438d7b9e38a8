"""Kernels as PyTorch's compiler writes them again into its own files, compared with the kernels themselves.

Inductor collects a kernel's source and what it calls by a walk of its own. A name that the walk misses would fail at the first compiled
call of a user, on a GPU.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

from .triton_compile import KERNELS, Job


def emit(names: Iterable[str], folder: Path) -> None:
    """Write the sources of kernels into files of ``folder``, named as the modules that they come from."""
    from torch._inductor.codegen.wrapper import user_defined_triton_kernel_transitive_closure_source_code as closure

    for name in names:
        module, function = KERNELS[name]
        file = folder / f"{module}.py"
        before = file.read_text(encoding="utf-8") if file.exists() else "import triton\nimport triton.language as tl\n"
        source = closure(getattr(import_module(f"kernels.{module}"), function))
        file.write_text(f"{before}\n\n@triton.jit\n{source}", encoding="utf-8")


def reemission_of(job: Job, direct: Mapping[str, Any], emitted: Mapping[str, Any]) -> dict[str, Any]:
    """The row of a kernel: what differs once PyTorch's compiler has written it again."""
    if "error" in emitted:
        wrong = [f"does not compile as PyTorch's compiler writes it: {emitted['error']}"]
    else:
        wrong = [
            f"{name}: {emitted.get(name)} as PyTorch's compiler writes it, {direct[name]} directly"
            for name in direct
            if emitted.get(name) != direct[name]
        ]
    names = ("registers", "stack", "spill_stores", "spill_loads", "shared", "products")
    return {"kernel": job.kernel, "kind": job.kind, **{name: emitted.get(name) for name in names}, "failures": wrong}
