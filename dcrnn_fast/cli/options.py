"""Options that several commands have. One whose help differs is declared with its command."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

BACKEND = typer.Option(help="Backend of the operators, see `dcrnn-fast info`.")
DEVICE = typer.Option(help="auto, cpu, cuda or cuda:N.")

Data = Annotated[str | None, typer.Option(help="Embedded data set, path of a schema YAML, or packed folder, also s3://...")]
OtherData = Annotated[
    str | None, typer.Option(help="Other data of the same columns, or a table of rows (.parquet, .csv); default: that of the run.")
]
Run = Annotated[Path, typer.Option(help="Run folder of `dcrnn-fast train`.")]
Ranks = Annotated[int, typer.Option("--k", min=1, help="Ranks that NDCG and the hit rate look at, where the data has a group.")]
Runs = Annotated[list[Path], typer.Argument(metavar="RUN...", help="Run folders; those after the first are compared with it.")]
BackendOfRun = Annotated[str | None, typer.Option(help="Backend of the operators; default: the run's.")]
DeviceOfRun = Annotated[str | None, typer.Option(help="Device; default: the run's.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Quiet = Annotated[bool, typer.Option("--quiet", help="Print nothing but errors.")]
Split = Literal["train", "valid", "test"]
"""Rows of a data set."""
SplitToEvaluate = Annotated[Split, typer.Option(help="Rows to evaluate on.")]
