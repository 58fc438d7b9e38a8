"""The commands that read tables: ``prepare`` and ``inspect``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Literal

import typer

from ..errors import ConfigError, check_installed
from .options import AsJson, Data, Quiet


def prepare(
    schema: Annotated[Path, typer.Option(help="Schema YAML of the table.")],
    output: Annotated[str, typer.Option(help="Packed folder to write, which `--data` of the other commands takes.")],
    inputs: Annotated[
        list[str] | None,
        typer.Option("--input", help="File, pattern or folder, repeatable, in place of `files: {all: ...}` in the schema."),
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the validation rows, where they are drawn.")] = 0,
    valid_fraction: Annotated[float, typer.Option(help="Part of the train rows to draw as validation rows.")] = 0.1,
    workers: Annotated[
        int | None, typer.Option(min=1, max=1024, help="Threads that learn and encode; default: one a core, at most 8.")
    ] = None,
    engine: Annotated[
        Literal["here", "spark"],
        typer.Option(help="Where: on this machine, or by the Spark that is set up here, for Parquet files and an output that it reaches."),
    ] = "here",
    quiet: Quiet = False,
) -> None:
    """Encode a table of any size, part by part, into a folder of arrays, and warn of what would spoil a run."""
    import pyarrow.parquet as pq

    from ..data import data_report, prepare_folder
    from .row_progress import row_progress
    from .tables import output_console, print_lines, rows_line

    if engine == "spark":
        if (seed, valid_fraction, workers) != (0, 0.1, None):
            raise ConfigError("--engine spark draws no rows and has workers of its own: leave out --seed, --valid-fraction and --workers")
        check_installed("--engine spark", "spark", ("pyspark",))
        from ..data import spark
        from ..data.spark.frames import frame_of_files

        meta = spark.prepare(frame_of_files(schema, inputs or ()), schema, output)
        if not quiet:
            print_lines(output_console(), [rows_line(meta.name, meta.rows), f"Packed folder: {output}, in {len(meta.shards):,} parts"])
        return
    with row_progress(quiet=quiet) as progress:
        data = prepare_folder(
            schema, output, inputs=inputs or (), seed=seed, valid_fraction=valid_fraction, workers=workers, progress=progress
        )
    if quiet:
        return
    lines = [rows_line(data.meta.name, data.meta.rows)]
    rejects = data.path / "rejects.parquet"
    if rejects.is_file():
        lines.append(f"Rejected CSV rows: {pq.read_metadata(rejects).num_rows:,}, in {rejects}")
    warnings = [f"warning: {line}" for line in data_report(data)["warnings"]]
    print_lines(output_console(), [*lines, *warnings, f"Packed folder: {output}"])


def inspect(
    data: Data = None,
    inputs: Annotated[
        list[str] | None, typer.Option("--input", help="Instead: file, pattern or folder to draft a schema of, repeatable.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Report on a table before training: labels, fields, groups by split, and what in them will spoil a run. Or draft its schema."""
    if (data is None) == (not inputs):
        raise ConfigError("give either --data, to report on a table with a schema, or --input, to draft one")
    if data is None:
        from ..data import draft_schema

        typer.echo(draft_schema(inputs or ()), nl=False)
        return
    from ..data import data_report
    from ..data import prepare as prepared
    from .row_progress import SECONDS, row_progress
    from .tables import output_console, print_report

    with row_progress(patience=SECONDS) as progress:
        report = data_report(prepared(data, progress=progress))
    if as_json:
        typer.echo(json.dumps(report, indent=2, allow_nan=False))
    else:
        print_report(output_console(), report)
