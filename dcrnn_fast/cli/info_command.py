"""The command ``info``: versions and backends, and the measuring of the GPU kernels' tile sizes."""

from __future__ import annotations

from enum import Enum
from typing import Annotated

import typer

from ..errors import BackendUnavailable, ConfigError


class Dtype(str, Enum):
    """The precision in which the Triton kernels are measured; tf32 and float32 are float32 tensors."""

    bfloat16 = "bfloat16"
    float16 = "float16"
    tf32 = "tf32"
    float32 = "float32"


def info(
    warm: Annotated[bool, typer.Option("--warm", help="Measure the Triton kernels' tile sizes on this GPU and keep them.")] = False,
    dim: Annotated[int, typer.Option(min=1, help="With --warm: D, the units.")] = 624,
    batch: Annotated[list[str] | None, typer.Option(help="With --warm: rows, repeatable or as 256,8192 (the default).")] = None,
    tasks: Annotated[int, typer.Option(min=1, help="With --warm: tasks.")] = 2,
    steps: Annotated[int, typer.Option(min=1, help="With --warm: steps.")] = 3,
    dtype: Annotated[Dtype, typer.Option(help="With --warm: dtype of the products.")] = Dtype.bfloat16,
) -> None:
    """Versions, and which backends can run here; with --warm, measure the GPU kernels first."""
    from ..info import render

    if warm:
        _warm(dim, _parse_counts("--batch", batch or ["256,8192"]), tasks, steps, dtype.value)
    typer.echo(render())


def _warm(dim: int, batches: list[int], tasks: int, steps: int, kind: str) -> None:
    import torch

    from ..ops import backends

    reason = backends.REASONS["triton"]
    if reason or not torch.cuda.is_available():
        reason = reason or "PyTorch sees no CUDA device; `nvidia-smi` shows which ones the driver sees"
        raise BackendUnavailable(f"--warm measures on a GPU and cannot: {reason}")
    from ..ops import measure_tiles

    for number, batch in enumerate(batches, start=1):
        typer.echo(f"measuring {number}/{len(batches)}: {kind}, D={dim}, T={tasks}, B={batch}, L={steps}", err=True)
        measure_tiles.tune(dim, tasks, batch, steps=steps, kind=kind, report=lambda line: typer.echo(f"  {line}", err=True))


def _parse_counts(option: str, values: list[str]) -> list[int]:
    words = [word.strip() for value in values for word in value.split(",")]
    wrong = [word for word in words if not (word.isascii() and word.isdigit() and int(word) >= 1)]
    if wrong:
        raise ConfigError(f"{option} {wrong[0]}: expected whole numbers of at least 1, such as 256,8192")
    return [int(word) for word in words]
