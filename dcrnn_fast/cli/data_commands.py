"""The commands that read tables: ``prepare`` and ``inspect``."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from ..errors import ConfigError, check_installed
from .options import AsJson, Data, Quiet

if TYPE_CHECKING:
    from ..data.packed.meta import PackedMeta


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
    from .progress import row_progress
    from .tables import output_console, print_lines

    if engine == "spark":
        if (seed, valid_fraction, workers) != (0, 0.1, None):
            raise ConfigError("--engine spark draws no rows and has workers of its own: leave out --seed, --valid-fraction and --workers")
        meta = _on_spark(schema, output, inputs or ())
        if not quiet:
            print_lines(output_console(), [_rows(meta), f"Packed folder: {output}, in {len(meta.shards):,} parts"])
        return
    with row_progress(quiet=quiet) as progress:
        data = prepare_folder(
            schema, output, inputs=inputs or (), seed=seed, valid_fraction=valid_fraction, workers=workers, progress=progress
        )
    if quiet:
        return
    lines = [_rows(data.meta)]
    rejects = data.path / "rejects.parquet"
    if rejects.is_file():
        lines.append(f"Rejected CSV rows: {pq.read_metadata(rejects).num_rows:,}, in {rejects}")
    warnings = [f"warning: {line}" for line in data_report(data)["warnings"]]
    print_lines(output_console(), [*lines, *warnings, f"Packed folder: {output}"])


def _rows(meta: PackedMeta) -> str:
    return f"{meta.name}: {', '.join(f'{count:,} {split}' for split, count in meta.rows.items())} rows"


def _on_spark(schema: Path, output: str, inputs: Sequence[str]) -> PackedMeta:
    """Pack the Parquet files of a schema, or `inputs`; those of this machine in the order of their names, as `prepare` has them."""
    check_installed("--engine spark", "spark", ("pyspark",))
    from functools import reduce

    from pyspark.sql import SparkSession

    from ..data.catalog import table_schema
    from ..data.packed.remote import is_remote
    from ..data.read.row_files import expand
    from ..data.spark import prepare

    table, folder = table_schema(schema)
    if not (given := inputs or table.files.all or ()):
        raise ConfigError("--engine spark splits one table: give the schema `files: {all: ...}`, or --input")
    here, files = Path() if inputs else folder, list[str]()
    for one in given:
        files += [one] if is_remote(one) else map(str, expand("--engine spark: the", here / one))
    if other := next((file for file in files if not is_remote(file) and not file.endswith(".parquet")), None):
        raise ConfigError(f"--engine spark reads Parquet files alone, got {other}")
    session = SparkSession.builder.appName(f"dcrnn-fast prepare {table.name}").getOrCreate()
    frames = [session.read.parquet(file) for file in files]
    return prepare(reduce(lambda frame, more: frame.unionByName(more), frames), schema, output)


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
    from .progress import choose_report
    from .tables import output_console, print_report

    report = data_report(prepared(data, progress=choose_report().preparing))
    if as_json:
        typer.echo(json.dumps(report, indent=2, allow_nan=False))
    else:
        print_report(output_console(), report)
