"""The table of what large data sets need."""

from __future__ import annotations

from .. import machine
from ..results import markdown, read


def scale() -> str:
    """What `prepare` takes for generated tables."""
    result = read("scale_prepare.json")
    header = ["rows x columns", "part files", "cores", "seconds", "CPU seconds", "rows/s", "rows a CPU second", "most memory"]
    rows = [
        [
            f"{run['rows']:,} x {run['columns']}",
            f"{run['kind']}, {run['files_mb']:,.0f} MB",
            str(run["cores"]),
            f"{run['seconds']:,.0f}",
            f"{run['cpu_seconds']:,.0f}",
            f"{run['rows_per_second']:,.0f}",
            f"{run['rows'] / run['cpu_seconds']:,.0f}",
            f"{run['peak_memory_mb'] / 1e3:.2f} GB",
        ]
        for run in result["runs"]
    ]
    loads = ", ".join(f"{run['load_average']:.1f}" for run in result["runs"])
    note = f"The machine's load average was {loads}: above its {result['machine']['cores']} cores, seconds include waiting for others."
    return f"{markdown(header, rows)}\n\n{note} {machine.line(result['machine'])}; `bench/results/scale_prepare.json`."
