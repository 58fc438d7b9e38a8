"""A training step that is recorded once and launched again, as a CUDA graph is, trains the same bits as one that is not."""

from contextlib import nullcontext, suppress

import pytest
import torch

from dcrnn_fast import CrossRNN
from dcrnn_fast.errors import ConfigError
from dcrnn_fast.nn import row_wise_adagrad
from dcrnn_fast.nn.row_wise_adagrad import each_row_once
from dcrnn_fast.training import train
from dcrnn_fast.training.folder.layout import RunFolder
from dcrnn_fast.training.loop import optim, trainer
from dcrnn_fast.training.loop.job import Job
from dcrnn_fast.training.loop.progress import Report
from dcrnn_fast.training.loop.step import FIRST_STEPS, recorder_for
from tests.recorded_operators import RecordedOperators, as_on_a_gpu, computing
from tests.training.runs import StoppedError, stop_at
from tests.training.tiny import newest_checkpoint, tiny_config


@pytest.fixture
def trained(schema, tmp_path, monkeypatch):
    """Trains as on a GPU with these options, and returns the tensors of the last checkpoint."""
    as_on_a_gpu(monkeypatch)

    def run(name, recorder, *, resume=False, report=None, **options):
        monkeypatch.setattr(trainer, "recorder_for", lambda *_: recorder)
        config = tiny_config(schema, **{"optimiser__epochs": 2, "backend": "cpp", **options})
        with suppress(StoppedError):
            train(config, tmp_path / name, resume=resume, report=report)
        return newest_checkpoint(tmp_path / name)[0]

    return run


def differing(one, other):
    """The names of tensors that have not the same bits."""
    assert one.keys() == other.keys()
    return [name for name in one if not torch.equal(one[name], other[name])]


FEW_ROWS = {"optimiser__batch_size": 8}
"""A batch that reads fewer rows than the tables have."""
RUNS = {
    "the defaults": {},
    "by plain PyTorch": {"backend": "reference"},
    "the full cell": {"model__rank": None},
    "gradients that stay sparse": FEW_ROWS | {"optimiser__clip_norm": 0.1},
    "embeddings by AdamW": {"model__embedding": "dense", "optimiser__clip_norm": 0.1},
    "a learned weighting": {"loss__weighting": "uncertainty"},
    "weighted rows": {"loss__sample_weight": True, "loss__task_weight": [1.0, 2.0]},
    "inverse propensities": {"loss__cvr": "ipw"},
    "transfer in bfloat16": {"model__relation": "transfer", "precision": "bfloat16"},
}


@pytest.mark.parametrize("options", RUNS.values(), ids=RUNS)
def test_a_recorded_step_trains_the_same_bits(trained, options):
    recorder = RecordedOperators()
    one_by_one = trained("one by one", None, report=stop_at(16), **options)
    assert differing(one_by_one, trained("recorded", recorder, report=stop_at(16), **options)) == []
    assert recorder.launches


def test_a_resumed_run_that_records_ends_with_the_same_bits(trained):
    whole = trained("whole", RecordedOperators())
    trained("stopped", RecordedOperators(), report=stop_at(10))
    assert differing(whole, trained("stopped", RecordedOperators(), resume=True)) == []


@pytest.mark.parametrize(("precision", "most"), [("float32", 190), ("bfloat16", 225)])
def test_one_launch_stands_for_so_many_operators(trained, precision, most):
    """docs/inside/kernels.md names the numbers. A GPU's step may have some more kernels: of sums, of sorted rows."""
    recorder = RecordedOperators()
    options = {"model__tower_dims": [128, 64], "model__embedding_dim": 16, "precision": precision}
    trained("run", recorder, report=stop_at(FIRST_STEPS + 1), **options)
    assert len(computing(recorder.calls)) <= most


def test_a_rate_that_is_no_tensor_is_found(trained, monkeypatch):
    def fixed(self, rate):
        for group in self.param_groups:
            group["lr"] = rate * group["lr_scale"]

    monkeypatch.setattr(optim.Optimisers, "set_rate", fixed)
    assert differing(trained("one by one", None), trained("recorded", RecordedOperators()))


WAITING = {
    "a sum is read": (CrossRNN, "_in_order", lambda self, x0: x0 + 0 * x0.sum().item()),
    "the batch was not checked before": (trainer, "checked", lambda *_, **__: nullcontext()),
    "the number of rows is read": (row_wise_adagrad, "each_row_once", lambda gradient, wait: each_row_once(gradient, wait=True)),
    "rows are checked on the CPU": (row_wise_adagrad, "added", lambda target, rows, values: target.index_add_(0, rows, values)),
}


@pytest.mark.parametrize("planted", WAITING.values(), ids=WAITING)
def test_a_step_that_waits_for_the_device_is_refused(trained, monkeypatch, planted):
    monkeypatch.setattr(*planted)
    options = FEW_ROWS if "each_row_once" in planted else {}
    with pytest.raises(ConfigError, match=r"cuda_graph is true, but the training step cannot be recorded: .*set cuda_graph: false"):
        trained("run", RecordedOperators(), backend="reference", **options)


@pytest.mark.parametrize(
    ("device", "options"),
    [
        ("cpu", {}),
        ("cuda", {"cuda_graph": False}),
        ("cuda", {"model__scenario": "shape", "model__sharing": "trunk"}),
    ],
)
def test_no_step_is_recorded_where_it_cannot_be(schema, dataset, tmp_path, device, options):
    job = Job(tiny_config(schema, **options), dataset, RunFolder(tmp_path), Report(), torch.device(device))
    assert recorder_for(job) is None
