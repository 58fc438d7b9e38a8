"""What `dcrnn-fast export` prints: the file or folder, and how far it is from the model."""

from __future__ import annotations

from pathlib import Path

from .tables import output_console, print_lines


def run_export(run: Path, output: Path, *, format: str, backend: str, cpu: str, quiet: bool) -> None:
    """Write the file. Raises the errors of :func:`dcrnn_fast.serving.export`."""
    from ..serving.export.export import ROWS, export

    difference = export(run, output, format=format, backend=backend, cpu=cpu)
    if not quiet:
        size = sum(file.stat().st_size for file in ([output] if output.is_file() else output.rglob("*")) if file.is_file())
        of = f"{ROWS:,} drawn rows: no probability differs from the model's by more than about {difference:.1g}"
        print_lines(output_console(), [of, f"Exported, format {format}: {output} ({size:,} bytes)"])
