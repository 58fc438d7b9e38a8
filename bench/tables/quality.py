"""Tables of the comparison of models."""

from __future__ import annotations

from .. import machine
from ..quality.report import budget, headline, of_set
from ..results import read


def comparison(name: str = "quality") -> str:
    """Mean test AUC of the tasks and costs of all models, by one protocol."""
    result = read(f"{name}.json")
    protocol, tuned = result["protocol"], "Each model has its defaults."
    costs = ""
    if protocol["trials"] > 1:
        tuned = f"{protocol['trials']} tuning trials a model and data set."
        costs = (
            f" Costs are those on {result['rows'][0]['data']}: rows/s in training steps of {protocol['batch_size']} rows, and the latency "
            "of a request of one row in float32."
        )
    about = f"Mean test AUC of the tasks ± standard deviation over {protocol['seeds']} seeds; bold: the best of a column.{costs} {tuned}"
    return f"{headline(result)}\n\n{about} {machine.line(result['machine'])}; `bench/results/{name}.json`."


def untuned() -> str:
    """The same without tuning: ``make quality OPTIONS='--trials 1 --report quality_untuned --no-speeds'``."""
    return comparison("quality_untuned")


def costs() -> str:
    """What each variant of DCRNN costs, and its AUC."""
    result = read("quality.json")
    about = f"Conditions as in the table of all models. {machine.line(result['machine'])}; `bench/results/quality.json`."
    return f"{budget(result, result['rows'][0]['data'])}\n\n{about}"


def every_task(data: str) -> str:
    """Every size and task of a data set."""
    return of_set(read("quality.json"), data)
