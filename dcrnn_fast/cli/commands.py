"""The commands of ``dcrnn-fast``, in the order of its help. Each imports what it needs when it runs, which keeps ``--help`` fast."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from .. import __version__
from ..errors import BackendUnavailable, ConfigError
from .data_commands import inspect, prepare
from .run_commands import WithKeys, calibrate, compare, demo, evaluate, report, train, tune
from .scoring_commands import embeddings, export, predict, serve

# Plain help and errors: rich's boxes are noise in a log file.
app = typer.Typer(
    name="dcrnn-fast",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


def _print_version(asked: bool) -> None:
    if asked:
        typer.echo(f"dcrnn-fast {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")] = False,
) -> None:
    """Train and evaluate DCRNN: click and consume from one model with partially shared parameters."""


def info(
    warm: Annotated[bool, typer.Option("--warm", help="Measure the Triton kernels' tile sizes on this GPU and keep them.")] = False,
    dim: Annotated[int, typer.Option(min=1, help="With --warm: D, the units.")] = 624,
    batch: Annotated[list[str] | None, typer.Option(help="With --warm: rows, repeatable or as 256,8192 (the default).")] = None,
    tasks: Annotated[int, typer.Option(min=1, help="With --warm: tasks.")] = 2,
    steps: Annotated[int, typer.Option(min=1, help="With --warm: steps.")] = 3,
    dtype: Annotated[
        Literal["bfloat16", "float16", "tf32", "float32"], typer.Option(help="With --warm: dtype of the products.")
    ] = "bfloat16",
) -> None:
    """Versions, and which backends can run here; with --warm, measure the GPU kernels first."""
    from ..info import render

    if warm:
        _warm(dim, _parse_counts("--batch", batch or ["256,8192"]), tasks, steps, dtype)
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


for _command in (train, tune, prepare, inspect, evaluate, compare, report, calibrate, predict, embeddings, export, serve, info, demo):
    app.command(cls=WithKeys if _command is train else None)(_command)
