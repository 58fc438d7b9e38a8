"""Tables of the comparison of models."""

from __future__ import annotations

from .. import machine
from ..quality.report import budget, headline
from ..results import read


def comparison() -> str:
    """Mean test AUC of the tasks and costs of all models, by one protocol."""
    result = read("quality.json")
    about = (
        f"Mean test AUC of the tasks ± standard deviation over {result['protocol']['seeds']} seeds; bold: the best of a column. Costs are "
        f"those on {result['rows'][0]['data']}: rows/s in training steps of {result['protocol']['batch_size']} rows, and the latency of a "
        f"request of one row in float32. {_source(result)}"
    )
    return f"{headline(result)}\n\n{about}"


def untuned() -> str:
    """The same without tuning: each model by its defaults."""
    result = read("quality_untuned.json")
    command = "make quality OPTIONS='--trials 1 --report quality_untuned --no-speeds'"
    about = (
        f"Mean test AUC of the tasks ± standard deviation over {result['protocol']['seeds']} seeds; bold: the best of a column. "
        f"{machine.line(result['machine'])}; `{command}`, `bench/results/quality_untuned.json`."
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
