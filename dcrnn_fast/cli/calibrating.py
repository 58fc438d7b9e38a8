"""What `dcrnn-fast calibrate` prints: how each task was calibrated, and log loss and calibration on the test rows before and after."""

from __future__ import annotations

import json
from pathlib import Path

from .tables import Sheet, number, output_console, print_lines, print_sheet


def run_calibrate(run: Path, *, method: str, split: str, backend: str | None, device: str | None, as_json: bool) -> None:
    """Fit and write the calibration. Raises the errors of :func:`dcrnn_fast.training.calibrate`."""
    import typer

    from ..training import calibrate

    result = calibrate(run, method=method, split=split, backend=backend, device=device)
    if as_json:
        typer.echo(json.dumps(result, indent=2, allow_nan=False))
        return
    columns = ("log loss", "log loss after", "calibration", "calibration after")
    sheet = Sheet(f"{result['data']}, test rows, calibrated on {split} rows", {"task": False, **dict.fromkeys(columns, True)})
    for task, before in result["before"].items():
        after = result["after"][task]
        sheet.add(task, *(number(entry[name]) for name in ("log_loss", "calibration") for entry in (before, after)))
    console = output_console()
    print_sheet(console, sheet)
    lines = [f"{name}: {of['method']}, {of['rows']:,} rows, {of['positives']:,} positive" for name, of in result["maps"].items()]
    if split != "valid":
        lines.append(f"warning: calibrated on {split} rows: what they were used for says little about new rows")
    print_lines(console, [*lines, f"Calibration: {result['file']}"])
