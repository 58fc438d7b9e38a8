"""Tables of requests to models and to servers."""

from __future__ import annotations

from ..results import MEASURES, markdown, ratio, read, source


def requests() -> str:
    """The milliseconds of a request, and those of the prepared model over those of the others; and of one user's candidates."""
    result = read(MEASURES)["requests"]
    ours, *others = [name.removesuffix(", ms") for name in result["rows"][0] if name.endswith(", ms")]
    lines = []
    for row in result["rows"]:
        cells = [f"{_us(row, name)}; {ratio(row, f'{ours}/{name}')}" for name in others]
        lines.append([f"{row['B']} row{'s' if row['B'] > 1 else ''}", _us(row, ours), *cells])
    candidates = result["candidates"]
    row = candidates["raw"]
    ways = [["from raw cells", _us(row, "score"), _us(row, "predict"), ratio(row, "score/predict")]]
    files, of_files = result["files"], []
    for kind in ("parquet", "csv"):
        row, speeds = files[kind], [f"{files['N'] / files[kind][f'{name}, ms'] * 1e3:,.0f} rows/s" for name in ("predict", "model")]
        of_files.append([kind, *speeds, ratio(row, "predict/model"), ratio(files[f"{kind}, CPU time"], "predict/model")])
    of_a_file = [
        f"a file of {files['N']:,} rows",
        "`dcrnn-fast predict`",
        "the model alone",
        "time, predict / model",
        "CPU time, predict / model",
    ]
    header = [f"{candidates['N']} items of one user", "`score`", "`predict` of rows that repeat the user", "score / predict"]
    return (
        f"{markdown(['request', ours, *others], lines)}\n\n"
        "Medians; after the semicolon, the median over the rounds of the prepared model's time over this one's (quartiles): below 1, the "
        f"prepared model is sooner.\n\n{markdown(header, ways)}\n\nThe user has every second column.\n\n{markdown(of_a_file, of_files)}\n\n"
        "The model alone scores rows that are encoded and in memory; `predict` reads and encodes ahead in a second thread. "
        f"{source(result)}"
    )


def load() -> str:
    """Requests a second and the times to the answer, of each server."""
    result = read(MEASURES)["load"]
    lines = []
    for row in result["rows"]:
        times = " / ".join(f"{row[name]:,.1f}" for name in ("p50, ms", "p99, ms", "p99.9, ms"))
        rate = f"{row['requests/s']:,.0f} ({row['requests/s, low']:,.0f}-{row['requests/s, high']:,.0f})"
        lines.append([str(row["rows"]), str(row["connections"]), row["server"], rate, times, str(row["failed"])])
    header = ["rows", "connections", "server", "requests/s", "p50 / p99 / p99.9, ms", "failed"]
    return f"{markdown(header, lines)}\n\nMedians of three rounds (least-most); wrk on the same cores. {source(result)}"


def _us(row: dict, name: str) -> str:
    return f"{row[f'{name}, ms'] * 1e3:,.0f} µs"
