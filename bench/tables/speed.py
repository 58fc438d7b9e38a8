"""Tables of the speed of kernels, of training steps and of `prepare`."""

from __future__ import annotations

from collections.abc import Sequence

from ..cases import HEADLINE, PASSES
from ..measures.embedding_step import CANDIDATES
from ..results import BENCHMARKS, COMMITTED, MEASURES, PEERS, case_of, markdown, ratio, read, source, words
from ..test_low_rank import DEFAULT as DEFAULT_CELL
from ..test_low_rank import HEADLINE as LOW_RANK_HEADLINE

TIMED = ("cross_rnn", "low_rank", "dcn", "param_gather", "sharing")
PEER_COLUMNS = [f"{name}: {peer}" for name in PASSES for peer in ("eager", "torch.compile", "product floor")]


def full_cell() -> str:
    """CrossRNN's times over its peers' times at the headline sizes: medians and quartiles over the rounds."""
    result = read(BENCHMARKS)["cross_rnn"]
    rows = {tuple(case_of(row).values()): row for row in result["rows"]}
    lines = []
    for label, size in zip(("small request", "medium", "large"), HEADLINE, strict=True):
        cells = []
        for name in PASSES:
            row = rows.get((name, "float32", *size.values()), {})
            for peer in PEERS:
                cells.append(ratio(row, f"cpp/{peer}") if row else "not measured")
        lines.append([f"{label}: D = {size['D']}, B = {size['B']}", *cells])
    return (
        f"{markdown(['our time / time of', *PEER_COLUMNS], lines)}\n\n"
        "Below 1, we are faster. Median of the per-round ratios (quartiles); float32, T = 2, L = 3, share_ratio 0.5, gated cell. Training "
        f"is a forward and a backward. {source(result, BENCHMARKS)}"
    )


def losses() -> str:
    """Every measured case in which ours takes longer than a peer."""
    return f"{losses_summary()}\n\n{markdown(['case', 'peer', 'our time / its time'], _losses()[0])}"


def losses_summary() -> str:
    """How many of the measured comparisons are losses."""
    lines, comparisons = _losses()
    return f"Ours takes longer in {len(lines)} of {comparisons} comparisons."


def _losses() -> tuple[list[list[str]], int]:
    """The losses as lines of a table, and the number of all comparisons."""
    lines, comparisons = [], 0
    for name in TIMED:
        for row in read(BENCHMARKS)[name]["rows"]:
            peers = [column.removeprefix("cpp/") for column in row if column.startswith("cpp/") and f"{column}, low" in row]
            peers = [peer for peer in peers if peer != "floor"]
            comparisons += len(peers)
            lines += [[f"{name}: {words(case_of(row))}", peer, f"{row[f'cpp/{peer}']:.2f}"] for peer in peers if row[f"cpp/{peer}"] > 1]
    return lines, comparisons


def low_rank() -> str:
    """The low-rank cell's times over its peers' times at the headline sizes."""
    result = read(BENCHMARKS)["low_rank"]
    rows = {tuple(case_of(row).values()): row for row in result["rows"]}
    lines = []
    for size in LOW_RANK_HEADLINE:
        for dtype in ("float32", "bfloat16"):
            cells = []
            for name in PASSES:
                row = rows.get((name, dtype, *size.values()), {})
                for peer in ("full cell", "compile", "floor"):
                    cells.append(ratio(row, f"cpp/{peer}") if row else "not measured")
            lines.append([f"D = {size['D']}, rank {size['rank']}, B = {size['B']}, {dtype}", *cells])
    peers = ("our full cell", "torch.compile", "product floor")
    header = ["low rank: our time / time of", *(f"{name}: {peer}" for name in PASSES for peer in peers)]
    note = "Conditions as in the table above, with one projection for both tasks."
    return f"{markdown(header, lines)}\n\n{note} {source(result, BENCHMARKS)}"


def headline() -> str:
    """Our time over that of torch.compile, of every machine that was measured, and over that of other models."""
    lines, machines, files = [], list[str](), [read(file.name) for file in sorted(COMMITTED.glob("benchmarks_cpu*.json"))]
    of_default = f"D = {DEFAULT_CELL['D']}, rank {DEFAULT_CELL['rank']}, B = {DEFAULT_CELL['B']}"
    cells = [(f"D = {size['D']}, B = {size['B']}", "cross_rnn", size) for size in HEADLINE]
    for label, name, size in [*cells, (f"the default cell: {of_default}", "low_rank", DEFAULT_CELL)]:
        results = [file[name] for file in files if name in file]
        machines += [result["machine"]["cpu"] for result in results]
        rows = [row for result in results for row in result["rows"]]
        found = [[row["cpp/compile"] for row in rows if case_of(row) == {"pass": one, "dtype": "float32", **size}] for one in PASSES]
        lines.append([f"torch.compile, {label}", *map(_span, found)])
    wholes = [read(file.name)["training_step"] for file in sorted(COMMITTED.glob("measures*.json"))]
    machines += [whole["machine"]["cpu"] for whole in wholes]
    for peer in list(wholes[0]["flops_per_row"])[1:]:
        ratios = [whole["requests"][0]["ratios"] for whole in wholes]
        requests = [max(row[name] for name in (peer, f"{peer}, compiled")) for row in ratios]  # over the sooner of the two
        steps = [row["ratios"][peer] for whole in wholes for row in whole["rows"]]
        lines.append([f"{peer}, whole model", _span(requests), _span(steps)])
    return (
        f"{markdown(['our time / time of', 'forward', 'training'], lines)}\n\n"
        f"Medians of {' and '.join(dict.fromkeys(machines))}, two threads, float32, in training of whole models "
        "bfloat16 too; `bench/results/benchmarks_cpu*.json`, `measures*.json`."
    )


def _span(values: Sequence[float]) -> str:
    """The least and the greatest of some ratios."""
    found = sorted({f"{value:.2f}" for value in values})
    return "-".join(dict.fromkeys((found[0], found[-1]))) if found else "not measured"


def training_step() -> str:
    """Training rows a second and microseconds a request of whole models."""
    result = read(MEASURES)["training_step"]
    names, lines, asked = list(result["rows"][0]["rows_per_second"]), [], []
    for row in result["rows"]:
        speeds, ratios = row["rows_per_second"], row["ratios"]
        cells = [f"{speeds[name]:,}" + (f" ({ratios[name]:.2f})" if name in ratios else "") for name in names]
        lines.append([f"training rows/s, B = {row['B']}, {row['dtype']}", *cells])
    for row in result["requests"]:
        times, ratios = row["microseconds"], row["ratios"]
        cells = [f"{times[names[0]]:,.0f} µs"]
        for name in names[1:]:
            soonest = min((name, f"{name}, compiled"), key=times.__getitem__)
            cells.append(f"{times[soonest]:,.0f} µs ({ratios[soonest]:.2f})")
        asked.append([f"request of {row['B']} row{'s' if row['B'] > 1 else ''}", *cells])
    asked.append(["forward: FLOPs a row", *(f"{result['flops_per_row'][name]:,}" for name in names)])
    return (
        f"{markdown(['whole models', *names], [*lines, *asked])}\n\nIn brackets: our time over that model's, median of the per-round "
        "ratios; below 1, ours is faster. A request of another model is the sooner of eager and `torch.compile`. "
        f"{source(result)}"
    )


def step_parts() -> str:
    """Milliseconds of a training step and of its recurrence, a column a model and dtype."""
    result = read(MEASURES)["step_parts"]
    rows = result["steps"]
    header = ["steps, ms", *(f"{row['dtype']}, {'full cell' if row['rank'] is None else 'rank ' + str(row['rank'])}" for row in rows)]
    lines = [[f"B = {rows[0]['B']}: {name}", *(f"{row['ms'][name]:.2f}" for row in rows)] for name in rows[0]["ms"]]
    return f"{markdown(header, lines)}\n\nMedians, each of other steps. {source(result)}"


def embedding_step() -> str:
    """Time and peak memory of a training step as the table grows, a line a table size."""
    result = read(MEASURES)["embedding_step"]
    case, names, largest = result["case"], {"dense": "dense: AdamW", "sparse": "sparse: row-wise Adagrad"}, result["rows"][-1]
    lines = []
    for row in result["rows"]:
        cells = [f"{row[f'{name}, ms']:.0f} ms" + (f", {row[f'{name}, MB']:,} MB" if f"{name}, MB" in row else "") for name in CANDIDATES]
        lines.append([f"{row['rows']:,}", *cells, ratio(row, "sparse/dense")])
    header = ["rows of the table", *(names.get(name, f"sparse: PyTorch's {name}") for name in CANDIDATES), "sparse / dense"]
    return (
        f"{markdown(header, lines)}\n\n"
        f"{case['fields']} fields of as many ids each, embeddings of width {case['width']}, B = {case['B']}, one thread. Medians of the "
        "CPU time of a step; the memory is what model and steps add to the process at their peak, for large tables; last column: median "
        f"of the per-round ratios (quartiles). A checkpoint of the largest sparse table takes {largest['checkpoint, ms'] / 1e3:.1f} s of "
        f"CPU time, and {largest['checkpoint, MB']:,} MB more at the peak. {source(result)}"
    )


def compiled_step() -> str:
    """The time of a compiled training step over that of an eager one."""
    result = read(MEASURES)["compiled_step"]
    lines = [[f"{row['B']:,} rows, {row['dtype']}", f"{row['eager, ms']:.2f} ms", ratio(row, "compiled/eager")] for row in result["rows"]]
    return (
        f"{markdown(['training step', 'eager', 'compiled / eager'], lines)}\n\n"
        f"Medians; the ratios are per round (quartiles), and above 1 the compiled step is slower. {source(result)}"
    )


def scale() -> str:
    """What `prepare` takes for generated tables."""
    result = read(MEASURES)["scale"]
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
    return f"{markdown(header, rows)}\n\n{note} {source(result)}"
