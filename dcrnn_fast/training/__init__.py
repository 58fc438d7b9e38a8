"""Train a DCRNN on a table, evaluate a run, and load its model. Needs the ``train`` extra.

    from dcrnn_fast.training import evaluate, load_config, load_model, train

    config = load_config(None, {"data": "census-income", "optimiser.epochs": 1})
    metrics = train(config, "runs/census")
    metrics = evaluate("runs/census", split="valid")
    model, about = load_model("runs/census/model.safetensors")

The commands of ``dcrnn-fast`` are a thin layer over these functions; docs/guide/training.md describes the run folder.
"""

from .config import RunConfig, load_config
from .embeddings import write_embeddings
from .evaluate.calibrate import calibrate
from .evaluate.evaluate import evaluate
from .evaluate.report import compare, write_report
from .folder.weights import load_model
from .loop.progress import Report
from .run import train
from .tuning import tune

__all__ = ["Report", "RunConfig", "calibrate", "compare", "evaluate", "load_config", "load_model", "train", "tune", "write_embeddings",
           "write_report"]  # fmt: skip
