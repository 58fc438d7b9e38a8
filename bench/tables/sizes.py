"""Tables of what large data sets and tables need."""

from __future__ import annotations

from .. import machine
from ..measures.sizing import Inputs, needs
from ..measures.sizing import table as sizing_table
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


ROWS, IDS, RANKS, BATCH, WIDTH, PART = 5_000_000_000, 2_000_000_000, 64, 4096, 8, 10_000_000
"""The question: rows of data, ids of all fields together, GPUs, rows of data a GPU and step, values of an embedding, rows of a part."""


def five_billion() -> str:
    """What five billion rows like those of the table above need, by what was measured on 30 million of them."""
    run = max(read("scale_prepare.json")["runs"], key=lambda found: (found["rows"], found["cores"]))
    packed, rate, fields = run["packed_mb"] * 1e6 / run["rows"], run["rows"] / run["cpu_seconds"], run["fields"]
    divided, whole_batch = needs(Inputs(rows=IDS, width=WIDTH, ids=fields, batch=BATCH), RANKS), RANKS * BATCH * fields * (8 + 4 * WIDTH)
    hours = f"{ROWS / rate / 3600:.1f} hours; {ROWS / rate / 60 / RANKS:.0f} min of {RANKS} cores at best"
    lines = [
        ("packed data", f"rows x {packed:.0f} bytes (measured)", f"{ROWS * packed / 1e12:.2f} TB"),
        (f"a part of {PART:,} rows", "the same", f"{PART * packed / 1e9:.1f} GB"),
        ("CPU time of `prepare`", f"rows / {rate:,.0f} rows a second (measured)", hours),
        ("a vocabulary of all ids", "ids x about 16 bytes of text, in each part's meta.json", f"{IDS * 16 / 1e9:.0f} GB: too much"),
        (f"embeddings of {WIDTH} values, on each GPU", "ids x (4 x values + 4)", f"{divided.replicated / 1e9:.0f} GB"),
        ("and the first-order term of two tasks", "ids x (4 x tasks + 4)", f"{IDS * 12 / 1e9:.0f} GB"),
        ("the embeddings, divided by torchrec", f"/ {RANKS} GPUs", f"{divided.adagrad / 1e9:.1f} GB"),
        ("sent to each GPU a step", f"{BATCH:,} rows x GPUs x {fields} ids x (8 + 4 x values)", f"{whole_batch / 1e6:.0f} MB"),
        ("the same, divided by torchrec", "formula above", f"{divided.sent / 1e6:.0f} MB"),
        ("steps of an epoch", f"rows / ({BATCH:,} x GPUs)", f"{ROWS / BATCH / RANKS:,.0f}"),
    ]  # fmt: skip
    note = f"{ROWS:,} rows of {fields} fields, {IDS:,} ids, {RANKS} GPUs. The measured constants: `bench/results/scale_prepare.json`."
    return f"{markdown(['what', 'formula', 'result'], [list(line) for line in lines])}\n\n{note}"


def sizing() -> str:
    """What a table over many GPUs needs: no result file, for it is computed and not measured."""
    return sizing_table(Inputs())
