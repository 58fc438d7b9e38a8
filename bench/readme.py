"""Writes the tables of README.md and of the pages in docs/ from bench/results/: ``python -m bench.readme``. A test compares both."""

from __future__ import annotations

import re
from pathlib import Path

from dcrnn_fast import files
from dcrnn_fast.training.config import StoppingConfig

from . import machine
from .ablation import DATA as ABLATION_DATA
from .ablation import table as ablation_table
from .cases import HEADLINE, PASSES
from .embedding_start import best_epoch, summarise
from .embedding_step import CANDIDATES
from .quality.report import as_markdown, budget, headline, of_tuned_size
from .rank import table as rank_table
from .results import PEERS, case_of, markdown, ratio, read, words
from .scenarios import RARE
from .scenarios import header as scenarios_header
from .scenarios import table as scenarios_table
from .selection_bias import header as selection_header
from .selection_bias import table as selection_table
from .sizing import Inputs
from .sizing import table as sizing_table
from .synthetic_report import tables as synthetic_tables
from .test_low_rank import HEADLINE as LOW_RANK_HEADLINE
from .weightings import DATA as WEIGHTINGS_DATA
from .weightings import table as weightings_table

ROOT = Path(__file__).parents[1]
SPEED_FILES = ("cross_rnn_cpu", "low_rank_cpu", "dcn_cpu", "low_rank_dcn_cpu", "param_gather_cpu", "sharing_cpu")
PEER_COLUMNS = [f"{name}: {peer}" for name in PASSES for peer in ("eager", "torch.compile", "product floor")]


def quality() -> str:
    """Mean test AUC of the tasks and costs of all models, by one protocol."""
    result = read("quality.json")
    about = (
        f"Mean test AUC of the tasks ± standard deviation over {result['protocol']['seeds']} seeds; bold: the best of a column. Costs are "
        f"those on {result['rows'][0]['data']}: rows/s in training steps of {result['protocol']['batch_size']} rows, and the latency of a "
        f"request of one row in float32. {quality_source(result)}"
    )
    return f"{headline(result)}\n\n{about}\n\n{quality_figures('')}"


def quality_protocol() -> str:
    """Everything that the quality command reports, of the size that was tuned."""
    result = read("quality.json")
    about = f"± is the standard deviation over {result['protocol']['seeds']} seeds. {quality_source(result)}"
    return f"{as_markdown(of_tuned_size(result))}\n\n{about}\n\n{quality_figures('../')}"


def quality_figures(to_root: str) -> str:
    """Links to both figures, for a page from which ``to_root`` leads to the repository's root."""
    words = {"quality_training.svg": "AUC against training rows a second", "quality_request.svg": "AUC against the latency of a request"}
    return "\n".join(f"![{text}]({to_root}bench/results/{name})" for name, text in words.items())


def quality_source(result: dict) -> str:
    """How the results came to be."""
    trials = result["protocol"]["trials"]
    return f"{trials} tuning trials a model and data set. {machine.line(result['machine'])}; `make quality`, `bench/results/quality.json`."


def quality_budget() -> str:
    """What each variant of DCRNN costs, and its AUC."""
    result = read("quality.json")
    data = result["rows"][0]["data"]
    about = f"Conditions as in [the comparison](quality.md#results). {machine.line(result['machine'])}; `bench/results/quality.json`."
    return f"{budget(result, data)}\n\n{about}"


def speed() -> str:
    """CrossRNN's times over its peers' times at the headline sizes: medians and quartiles over the rounds."""
    result = read("cross_rnn_cpu.json")
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
        "is a forward and a backward. "
        f"{machine.line(result['machine'])}; `bench/results/cross_rnn_cpu.json`."
    )


def losses() -> str:
    """Every measured case in which ours takes longer than a peer, folded."""
    lines, measured = [], 0
    for file in SPEED_FILES:
        for row in read(f"{file}.json")["rows"]:
            peers = [column.removeprefix("cpp/") for column in row if column.startswith("cpp/") and f"{column}, low" in row]
            peers = [peer for peer in peers if peer != "floor"]
            measured += len(peers)
            lines += [[f"{file}: {words(case_of(row))}", peer, f"{row[f'cpp/{peer}']:.2f}"] for peer in peers if row[f"cpp/{peer}"] > 1]
    summary = f"<summary>{len(lines)} of {measured} comparisons in which ours takes longer</summary>"
    return f"<details>{summary}\n\n{markdown(['case', 'peer', 'our time / its time'], lines)}\n\n</details>"


def embedding_start() -> str:
    """Validation AUC and relative log loss of each standard deviation, a column a data set, and how often a run ends above the constant."""
    result = read("embedding_start.json")
    rows, monitor = result["rows"], StoppingConfig().monitor  # the rows hold every epoch, so they answer for either monitor
    auc, log_loss = (summarise(rows, monitor, name) for name in ("auc", "relative_log_loss"))
    data = [name for name in log_loss if name != "mean"]
    lines = []
    for std, mean in log_loss["mean"].items():
        of_std = [row for row in rows if row["std"] == std]
        above = [sum(best_epoch(row, kept)["worst_task"] >= 1 for row in of_std) for kept in ("log_loss", "auc")]
        cells = (f"{log_loss[name][std]:.4f} ({auc[name][std]:.4f})" for name in data)
        lines.append([f"{std:.3g}", *cells, f"{mean:.4f}", *(f"{count} of {len(of_std)}" for count in above)])
    header = ["`embedding_init_std`", *data, "mean of the sets", "above the constant, `log_loss`", "above the constant, `auc`"]
    return (
        f"{markdown(header, lines)}\n\n"
        "Log loss over the constant's, mean of the tasks (in brackets: mean AUC) on validation rows, mean of "
        f"{len({row['seed'] for row in rows})} seeds (census-income: half as many); weights kept by `early_stopping.monitor: {monitor}`. "
        "The last two columns count the runs in which a task's log loss is not below the constant's, with either monitor. "
        f"{machine.line(result['machine'])}; `bench/results/embedding_start.json`."
    )


def low_rank() -> str:
    """The low-rank cell's times over its peers' times at the headline sizes."""
    result = read("low_rank_cpu.json")
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
    note = "Conditions as in the table above, with one projection for both tasks. `bench/results/low_rank_cpu.json`."
    return f"{markdown(header, lines)}\n\n{note}"


def rank() -> str:
    """AUC and training speed by the rank of the cell."""
    result = read("rank.json")
    seeds, batch = len({row["seed"] for row in result["rows"]}), result["configuration"]["optimiser"]["batch_size"]
    return (
        "\n".join(rank_table(result)) + "\n\nAUC: mean of the tasks, mean ± standard deviation over "
        f"{seeds} seeds. Speed: a whole training step at B = {batch}; in the last column medians "
        f"of the per-round ratios (quartiles). {machine.line(result['machine'])}; `bench/results/rank.json`."
    )


def training_step() -> str:
    """Training rows a second of whole models."""
    result = read("training_step_cpu.json")
    names = list(result["rows"][0]["rows_per_second"])
    lines = []
    for row in result["rows"]:
        speeds, ratios = row["rows_per_second"], row["ratios"]
        cells = [f"{speeds[name]:,}" + (f" ({ratios[name]:.2f})" if name in ratios else "") for name in names]
        lines.append([f"B = {row['B']}, {row['dtype']}", *cells])
    return (
        f"{markdown(['training rows/s', *names], lines)}\n\nIn brackets: the time of a step of rank 32 over that model's, median of the "
        f"per-round ratios; below 1, ours is faster. {machine.line(result['machine'])}; `bench/results/training_step_cpu.json`."
    )


def step_parts() -> str:
    """Milliseconds of each part of a training step and of a request, a column a model and dtype."""
    result = read("step_parts_cpu.json")
    tables = []
    for kind in ("steps", "requests"):
        rows = result[kind]
        cases = list(dict.fromkeys((row["dtype"], row["rank"]) for row in rows))
        header = [f"{kind}, ms", *(f"{dtype}, {'full cell' if rank is None else f'rank {rank}'}" for dtype, rank in cases)]
        lines = []
        for batch in dict.fromkeys(row["B"] for row in rows):
            clocks = {(row["dtype"], row["rank"]): row["ms"] for row in rows if row["B"] == batch}
            for name in clocks[cases[0]]:
                lines.append([f"B = {batch}: {name}", *(f"{clocks[case][name]:.2f}" for case in cases)])
        tables.append(markdown(header, lines))
    return (
        "\n\n".join(tables) + "\n\nMedians. The parts are of other steps than the whole and cut from each other, so they do not quite add "
        f"up to it. {machine.line(result['machine'])}; `bench/results/step_parts_cpu.json`."
    )


def embedding_step() -> str:
    """Time and peak memory of a training step as the table grows, a line a table size."""
    result = read("embedding_step_cpu.json")
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
        f"CPU time, and {largest['checkpoint, MB']:,} MB more at the peak. {machine.line(result['machine'])}; "
        "`bench/results/embedding_step_cpu.json`."
    )


def ablation() -> str:
    """The default configuration and each of its parts changed, on validation rows."""
    result = read("ablation.json")
    header = ["setting", *ABLATION_DATA, "mean of the sets", "above the defaults", "runs above the constant"]
    return (
        f"{markdown(header, ablation_table(result['rows']))}\n\n"
        "Log loss over the constant's, mean of the tasks (in brackets: mean AUC) on validation rows, mean of "
        f"{len({row['seed'] for row in result['rows']})} seeds. ± is the standard error over the seeds. A run is above the constant "
        "if the log loss of any task is. "
        f"{machine.line(result['machine'])}, one thread a run; `bench/results/ablation.json`."
    )


def compiled_step() -> str:
    """The time of a compiled training step over that of an eager one."""
    result = read("compiled_step_cpu.json")
    lines = [[f"{row['B']:,} rows, {row['dtype']}", f"{row['eager, ms']:.2f} ms", ratio(row, "compiled/eager")] for row in result["rows"]]
    return (
        f"{markdown(['training step', 'eager', 'compiled / eager'], lines)}\n\n"
        "Medians; the ratios are per round (quartiles), and above 1 the compiled step is slower. "
        f"{machine.line(result['machine'])}; `bench/results/compiled_step_cpu.json`."
    )


def requests() -> str:
    """The milliseconds of a request, and those of the prepared model over those of the others; and of one user's candidates."""
    result = read("requests_cpu.json")
    ours, *others = [name.removesuffix(", ms") for name in result["rows"][0] if name.endswith(", ms")]
    lines = []
    for row in result["rows"]:
        cells = [f"{_us(row, name)}; {ratio(row, f'{ours}/{name}')}" for name in others]
        lines.append([f"{row['B']} row{'s' if row['B'] > 1 else ''}", _us(row, ours), *cells])
    candidates = result["candidates"]
    ways = []
    for what, start in (("raw", "raw cells"), ("encoded", "encoded rows")):
        row = candidates[what]
        ways.append([f"from {start}", _us(row, "score"), _us(row, "predict"), ratio(row, "score/predict")])
    header = [f"{candidates['N']} items of one user", "`score`", "`predict` of rows that repeat the user", "score / predict"]
    return (
        f"{markdown(['request', ours, *others], lines)}\n\n"
        "Medians; after the semicolon, the median over the rounds of the prepared model's time over this one's (quartiles): below 1, the "
        f"prepared model is sooner.\n\n{markdown(header, ways)}\n\nThe user has every second column. "
        f"{machine.line(result['machine'])}; `bench/results/requests_cpu.json`."
    )


def load() -> str:
    """Requests a second and the times to the answer, of each server; and what the soak saw."""
    result = read("load_cpu.json")
    lines = []
    for row in result["rows"]:
        times = " / ".join(f"{row[name]:,.1f}" for name in ("p50, ms", "p99, ms", "p99.9, ms"))
        rate = f"{row['requests/s']:,.0f} ({row['requests/s, low']:,.0f}-{row['requests/s, high']:,.0f})"
        lines.append([str(row["rows"]), str(row["connections"]), row["server"], rate, times, str(row["failed"])])
    header = ["rows", "connections", "server", "requests/s", "p50 / p99 / p99.9, ms", "failed"]
    soak = result["soak"]
    times = " / ".join(f"{soak[name]:,.1f}" for name in ("p50, ms", "p99, ms", "p99.9, ms"))
    return (
        f"{markdown(header, lines)}\n\n"
        f"Medians of three rounds (least-most). For {soak['seconds'] / 60:.0f} minutes, {soak['connections']} connections asked the first "
        f"server {soak['requests/s']:,.0f} requests of one row a second, of the {soak['asked for, requests/s'] / 0.8:,.0f} that it can "
        f"answer, while it loaded its package anew {soak['reloads']} times: {soak['requests']:,} requests, {soak['failed']} failed; "
        f"p50 / p99 / p99.9 {times} ms. It took {soak['memory after the first reload, MB']:,.0f} MB of memory after the first reload, at "
        f"most {soak['greatest memory in the second half, MB']:,.0f} in the second half, and {soak['memory at the end, MB']:,.0f} at the "
        f"end. {machine.line(result['machine'])}; wrk on the same {result['machine']['cores']} cores; `bench/results/load_cpu.json`."
    )


def int8_products() -> str:
    """The products of a request in float32, bfloat16 and int8, beside a whole request in bfloat16."""
    result = read("int8_products_cpu.json")
    names, lines = ("float32", "bfloat16", "int8", "int8, dynamic"), []
    for row in result["rows"]:
        ratios = [ratio(row, f"{name}/bfloat16") for name in names[2:]]
        cells = [*(_us(row, name) for name in names), *ratios, _us(row, "request")]
        lines.append([f"{row['B']} row{'s' if row['B'] > 1 else ''}", *cells])
    header = ["products of", *names, "int8 / bfloat16", "int8, dynamic / bfloat16", "whole request in bfloat16"]
    return (
        f"{markdown(header, lines)}\n\n"
        "Medians; ratios per round (quartiles). `int8` multiplies integers that are there (`torch._int_mm`), `int8, dynamic` quantises and "
        "gives floats (`torch.ao`'s dynamic linear layer). The whole request is of our prepared model, whose kernels have products of "
        f"their own. {machine.line(result['machine'])}; `bench/results/int8_products_cpu.json`."
    )


def _us(row: dict, name: str) -> str:
    return f"{row[f'{name}, ms'] * 1e3:,.0f} µs"


def weightings() -> str:
    """What other weightings of the tasks' losses change, on validation rows."""
    result = read("weightings.json")
    rows = result["rows"]
    networks = len({row["setting"].partition(", ")[0] for row in rows})
    return (
        f"{markdown(['AUC minus that of fixed weights', *WEIGHTINGS_DATA], weightings_table(rows))}\n\n"
        f"Mean AUC of the tasks on validation rows, mean of {len({row['seed'] for row in rows})} seeds and of {networks} networks (ESMM on "
        "funnels alone) of medium size, with the settings of the table above; in brackets: the standard error over the seeds. "
        f"{machine.line(result['machine'])}, one thread a run; `bench/results/weightings.json`."
    )


def synthetic() -> str:
    """The tasks whose relation is known."""
    result = read("synthetic_tasks.json")
    draws = len({row["seed"] for row in result["rows"] if "auc" in row})
    times = "" if "training_rows_per_second" in result["growth"][0] else " Times: not measured."
    return "\n\n".join(markdown(*table) for table in synthetic_tables(result)) + (
        f"\n\nFirst two tables: the line of rows 0.5 has its mean test AUC over {draws} draws. The others have their AUC minus "
        "it, paired by draw, with the standard error in brackets; bold: more than two standard errors from 0. Third table: means over all "
        "draws in which every label is known; first number: signal columns, second: noise columns. Cost tables: the whole model; FLOPs "
        f"as plain PyTorch computes the forward pass.{times} "
        f"{machine.line(result['machine'])}, one thread a run; `bench/results/synthetic_tasks.json`."
        "\n\n![AUC by the tasks' cosine and by known labels, and the gate](../bench/results/synthetic_tasks.svg)"
    )


def scenarios() -> str:
    """One model for all scenarios, scenario trunks, and one model a scenario, on validation rows."""
    result = read("scenarios.json")
    seeds = len({row["seed"] for row in result["rows"]})
    return (
        f"{markdown(scenarios_header(), scenarios_table(result['rows']))}\n\n"
        f"Means of the tasks on validation rows and of {seeds} seeds, each with rows of its own; in brackets mean and standard deviation "
        f"of the seeds' differences from the one model. Rare: less than {RARE:.0%} of the train rows. {machine.line(result['machine'])}, "
        "one thread a run; `bench/results/scenarios.json`."
    )


def selection_bias() -> str:
    """P(consume | click) of all rows with each ``loss.cvr``, on logs that know it."""
    result = read("selection_bias.json")
    rows = result["rows"]
    return (
        f"{markdown(selection_header(), selection_table(rows))}\n\n"
        f"Test rows, mean of {len({row['seed'] for row in rows})} logs each; in brackets the difference from `entire_space` and its "
        "standard error. All rows: P(consume | click) against whether each would be consumed after a click; clicked rows: the same of "
        "those alone. P(click), P(consume): against the events of the log. "
        f"{machine.line(result['machine'])}, one thread a run; `bench/results/selection_bias.json`."
    )


def scale() -> str:
    """What `prepare` takes for generated tables."""
    result = read("scale_prepare.json")
    header = ["rows x columns", "part files", "seconds", "CPU seconds", "rows/s", "rows a CPU second", "most memory"]
    rows = [
        [
            f"{run['rows']:,} x {run['columns']}",
            f"{run['kind']}, {run['files_mb']:,.0f} MB",
            f"{run['seconds']:,.0f}",
            f"{run['cpu_seconds']:,.0f}",
            f"{run['rows_per_second']:,.0f}",
            f"{run['rows'] / run['cpu_seconds']:,.0f}",
            f"{run['peak_memory_mb'] / 1e3:.2f} GB",
        ]
        for run in result["runs"]
    ]
    loads = ", ".join(f"{run['load_average']:.1f}" for run in result["runs"])
    note = (
        f"The machine's load average was {loads}: above its {result['machine']['cores']} cores, seconds include waiting for other programs."
    )
    return f"{markdown(header, rows)}\n\n{note} {machine.line(result['machine'])}; `bench/results/scale_prepare.json`."


def sizing() -> str:
    """What a table over many GPUs needs: no result file, for it is computed and not measured."""
    return sizing_table(Inputs())


SECTIONS = {
    ROOT / "README.md": {"quality": quality, "speed": speed, "low rank": low_rank},
    ROOT / "docs" / "data-format.md": {"scale": scale},
    ROOT / "docs" / "performance.md": {"losses": losses, "training step": training_step, "step parts": step_parts},
    ROOT / "docs" / "choosing.md": {
        "budget": quality_budget,
        "ablation": ablation,
        "embedding start": embedding_start,
        "rank": rank,
        "scenarios": scenarios,
    },
    ROOT / "docs" / "training.md": {
        "compiled step": compiled_step,
        "selection bias": selection_bias,
        "embedding step": embedding_step,
    },
    ROOT / "docs" / "sizing.md": {"sizing": sizing},
    ROOT / "docs" / "serving.md": {"requests": requests, "int8 products": int8_products},
    ROOT / "docs" / "server.md": {"load": load},
    ROOT / "docs" / "quality.md": {"quality protocol": quality_protocol, "weightings": weightings, "synthetic": synthetic},
}


def render(page: Path) -> str:
    """The page's text with every marked section written anew."""
    text = page.read_text(encoding="utf-8")
    for name, content in SECTIONS[page].items():
        pattern = rf"(<!-- {name}: [^>]*-->\n).*?(<!-- /{name} -->)"
        text, found = re.subn(pattern, lambda marks, content=content: f"{marks[1]}{content()}\n{marks[2]}", text, flags=re.DOTALL)
        if found != 1:
            raise SystemExit(f"{page}: expected one section marked {name!r}, found {found}")
    return text


if __name__ == "__main__":
    for page in SECTIONS:
        files.write_text(page, render(page))
