"""An estimator that is fitted within a second."""

from dcrnn_fast import FunnelClassifier

TASKS = ["click", "order"]
QUICK = {"optimiser.epochs": 1, "optimiser.batch_size": 64, "optimiser.warmup_steps": 4, "device": "cpu", "threads": 1}


def quick(**arguments):
    """An estimator of one epoch that shows no progress."""
    return FunnelClassifier(**{"tasks": TASKS, "config": QUICK, "verbose": False} | arguments)
