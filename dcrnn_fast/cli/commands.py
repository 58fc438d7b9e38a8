"""The commands of ``dcrnn-fast``, in the order of its help. Each imports what it needs when it runs, which keeps ``--help`` fast."""

from __future__ import annotations

from typing import Annotated

import typer

from .. import __version__
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


def info() -> None:
    """Versions, and which backends can run here."""
    from ..info import render

    typer.echo(render())


for _command in (train, tune, prepare, inspect, evaluate, compare, report, calibrate, predict, embeddings, export, serve, info, demo):
    app.command(cls=WithKeys if _command is train else None)(_command)
