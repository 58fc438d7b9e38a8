"""What `dcrnn-fast predict` prints: progress with the remaining time, then the numbers of rows and the files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .preparing import row_progress
from .tables import output_console, print_lines


def run_predict(
    run: Path, inputs: Sequence[str], output: Path, *, keys: Sequence[str], schema: Path | None, backend: str, device: str, quiet: bool
) -> None:
    """Write the scores. Raises the errors of :meth:`dcrnn_fast.Ranker.load` and :func:`dcrnn_fast.serving.score_files`."""
    from ..data.schema.table import load_schema
    from ..serving import Ranker, score_files

    reading: dict[str, Any] = {}
    if schema is not None:
        given = load_schema(schema)
        reading = {"csv": given.csv, "missing_values": given.missing_values, "max_rejects": given.max_rejects}
    ranker = Ranker.load(run, device=device, backend=backend)
    with row_progress(quiet=quiet) as progress:
        rows, rejected = score_files(ranker, inputs, output, keys=keys, progress=progress, **reading)
    if quiet:
        return
    lines = [f"{rows:,} rows scored: {', '.join(ranker.names)}"]
    if rejected:
        lines.append(f"Rejected CSV rows: {rejected:,}, in {output}.rejects.parquet")
    print_lines(output_console(), [*lines, f"Scores: {output}"])
