"""A log, and an estimator that is fitted on it within a second."""

import pytest

from dcrnn_fast import FunnelClassifier
from tests.event_frames import events

TASKS = ["click", "order"]
QUICK = {"optimiser.epochs": 1, "optimiser.batch_size": 64, "optimiser.warmup_steps": 4, "device": "cpu", "threads": 1}


def quick(**arguments):
    """An estimator of one epoch that shows no progress."""
    return FunnelClassifier(**{"tasks": TASKS, "config": QUICK, "verbose": False} | arguments)


@pytest.fixture(scope="module")
def frame():
    return events(3000)


@pytest.fixture(scope="module")
def fitted(frame):
    return quick(time="ts", group="user_id").fit(frame)
