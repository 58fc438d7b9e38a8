"""Tables of what models learn: the comparison, and what was measured to choose the defaults."""

from __future__ import annotations

from dcrnn_fast.training.config import StoppingConfig

from .. import machine
from ..ablation import DATA as ABLATION_DATA
from ..ablation import table as ablation_table
from ..embedding_start import best_epoch, summarise
from ..quality.report import budget, headline
from ..rank import table as rank_table
from ..results import markdown, read
from ..scenarios import RARE
from ..scenarios import header as scenarios_header
from ..scenarios import table as scenarios_table
from ..selection_bias import header as selection_header
from ..selection_bias import table as selection_table
from ..synthetic_report import tables as synthetic_tables
from ..weightings import DATA as WEIGHTINGS_DATA
from ..weightings import table as weightings_table


def comparison() -> str:
    """Mean test AUC of the tasks and costs of all models, by one protocol."""
    result = read("quality.json")
    about = (
        f"Mean test AUC of the tasks ± standard deviation over {result['protocol']['seeds']} seeds; bold: the best of a column. Costs are "
        f"those on {result['rows'][0]['data']}: rows/s in training steps of {result['protocol']['batch_size']} rows, and the latency of a "
        f"request of one row in float32. {_source(result)}"
    )
    return f"{headline(result)}\n\n{about}"


def _source(result: dict) -> str:
    """How the results came to be."""
    trials = result["protocol"]["trials"]
    return f"{trials} tuning trials a model and data set. {machine.line(result['machine'])}; `make quality`, `bench/results/quality.json`."


def costs() -> str:
    """What each variant of DCRNN costs, and its AUC."""
    result = read("quality.json")
    data = result["rows"][0]["data"]
    about = f"Conditions as in the table of all models. {machine.line(result['machine'])}; `bench/results/quality.json`."
    return f"{budget(result, data)}\n\n{about}"


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


def rank() -> str:
    """AUC and training speed by the rank of the cell."""
    result = read("rank.json")
    seeds, batch = len({row["seed"] for row in result["rows"]}), result["configuration"]["optimiser"]["batch_size"]
    return (
        "\n".join(rank_table(result)) + "\n\nAUC: mean of the tasks, mean ± standard deviation over "
        f"{seeds} seeds. Speed: a whole training step at B = {batch}; in the last column medians "
        f"of the per-round ratios (quartiles). {machine.line(result['machine'])}; `bench/results/rank.json`."
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


def weightings() -> str:
    """What other weightings of the tasks' losses change, on validation rows."""
    result = read("weightings.json")
    rows = result["rows"]
    networks = len({row["setting"].partition(", ")[0] for row in rows})
    return (
        f"{markdown(['AUC minus that of fixed weights', *WEIGHTINGS_DATA], weightings_table(rows))}\n\n"
        f"Mean AUC of the tasks on validation rows, mean of {len({row['seed'] for row in rows})} seeds and of {networks} networks (ESMM on "
        "funnels alone) of medium size, with the settings of the comparison; in brackets: the standard error over the seeds. "
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
