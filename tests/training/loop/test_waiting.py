"""A training step reads no value of a tensor on the device: on a GPU each such read waits until all kernels before it have run."""

from contextlib import nullcontext
from functools import wraps

import pytest

from dcrnn_fast.nn import row_wise_adagrad
from dcrnn_fast.nn.row_wise_adagrad import each_row_once
from dcrnn_fast.training import train
from dcrnn_fast.training.loop import trainer
from dcrnn_fast.training.loop.step import TrainingStep
from tests.reads import as_on_a_gpu, recorded
from tests.training.tiny import tiny_config


@pytest.fixture
def reads(schema, tmp_path, monkeypatch):
    """Trains an epoch with these options as on a GPU, where an index is read once; returns what the steps after the first one read, from
    the copy of the batch to the device on.
    """

    def run(waiting=False, **options):
        found = []

        def recording(method):
            @wraps(method)
            def call(*arguments):
                with recorded(found):
                    return method(*arguments)

            return call

        as_on_a_gpu(monkeypatch)
        if waiting:
            monkeypatch.setattr(row_wise_adagrad, "each_row_once", lambda gradient, wait: each_row_once(gradient, wait=True))
        monkeypatch.setattr(TrainingStep, "work", recording(TrainingStep.work))
        config = tiny_config(schema, **{"optimiser__epochs": 1, **options})
        train(config, tmp_path / "run", on_step=lambda step: found.clear() if step == 1 else None)
        return found

    return run


FEW_ROWS = {"model__embedding": "sparse", "optimiser__batch_size": 8}
"""A batch that reads fewer rows than the tables have: their gradients stay sparse."""
RUNS = {
    "the defaults": {},
    "sparse gradients": FEW_ROWS,
    "clipped sparse gradients": {**FEW_ROWS, "optimiser__clip_norm": 1.0},
    "embeddings by AdamW": {"model__embedding": "dense"},
    "clipped gradients and micro-batches": {"optimiser__clip_norm": 1.0, "optimiser__micro_batches": 2},
    "weights of tasks": {"loss__task_weight": [1.0, 2.0]},
    "a learned weighting": {"loss__weighting": "uncertainty"},
    "doubly robust": {"loss__cvr": "dr"},
    "transfer": {"model__relation": "transfer"},
}


@pytest.mark.parametrize("options", RUNS.values(), ids=RUNS)
def test_a_training_step_reads_no_value_on_the_device(reads, options):
    assert reads(**options) == []


def test_a_step_whose_batch_was_not_checked_before_is_found(reads, monkeypatch):
    monkeypatch.setattr(trainer, "checked", lambda *_, **__: nullcontext())
    assert set(reads()) >= {"tolist", "__bool__"}


def test_a_step_that_waits_for_the_number_of_rows_read_is_found(reads):
    assert "_coalesce" in reads(waiting=True, **FEW_ROWS)


def test_a_step_that_checks_the_rows_of_tables_on_the_cpu_is_found(reads, monkeypatch):
    monkeypatch.setattr(row_wise_adagrad, "added", lambda target, rows, values: target.index_add_(0, rows, values))
    assert set(reads()) == {"index_add_"}
