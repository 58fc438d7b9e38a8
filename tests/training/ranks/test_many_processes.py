"""Several ranks train one model with the result of one process, also after a kill and on another number of ranks."""

import json
import re
import shlex
import signal
from pathlib import Path

import pytest
import torch

from dcrnn_fast.support.locks import locked
from dcrnn_fast.training import load_config, load_model, train
from dcrnn_fast.training.evaluate import predict as evaluation
from dcrnn_fast.training.evaluate.predict import evaluate_split
from dcrnn_fast.training.folder.layout import RunFolder
from tests.training.ranks.rank_process import EVALUATED, start_ranks, start_torchrun
from tests.training.runs import outcome
from tests.training.tiny import newest_checkpoint, tiny_values

PAGE = (Path(__file__).parents[3] / "docs" / "guide" / "scale.md").read_text(encoding="utf-8")
ROWS = 118
"""Rows of a batch. The last batch of an epoch has one row, so that the first of two ranks has none."""
SAME = {"model.dropout": 0.0, "oov_dropout": 0.0, "precision": "float32", "optimiser.batch_size": ROWS, "log_every": 1}
CASES = {
    "sparse": (2, {"model.embedding": "sparse", "optimiser.clip_norm": 0.5, "optimiser.embedding_weight_decay": 0.1}),
    "uncertainty, propensities": (2, {"loss.weighting": "uncertainty", "optimiser.clip_norm": 0.5, "loss.cvr": "ipw"}),
    "transfer, trunk, row weights": (3, {"model.relation": "transfer", "model.sharing": "trunk", "loss.sample_weight": True}),
}


def end_of(folder):
    """The training curve, and the tensors of the last checkpoint but the generator's state."""
    tensors, state = newest_checkpoint(folder)
    return state["position"]["curve"], {name: value for name, value in tensors.items() if not name.startswith("rng.")}


def assert_same_but_rounding(one, other):
    torch.testing.assert_close(end_of(one), end_of(other), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("case", [*CASES, "bfloat16"])
def test_many_ranks_have_the_loss_curve_and_the_weights_of_one_process(schema, dataset, tmp_path, case):
    assert len(dataset.split("train")) % ROWS == 1
    ranks, options = CASES.get(case, (2, {"precision": "bfloat16"}))
    values = tiny_values(schema, **SAME | options | {"optimiser.epochs": 1})
    train(load_config(None, values), tmp_path / "one")
    assert {said[0] for said in start_ranks(ranks, values, tmp_path / "many")} == {"done"}
    if case != "bfloat16":
        assert_same_but_rounding(tmp_path / "one", tmp_path / "many")
        return
    (one, _), (many, _) = end_of(tmp_path / "one"), end_of(tmp_path / "many")
    torch.testing.assert_close(many[0], one[0], msg="the first loss depends on no sum over ranks but its own")
    torch.testing.assert_close(many, one, rtol=0.02, atol=0)


@pytest.fixture(scope="module")
def whole(schema, tmp_path_factory):
    """The values and the folder of an undisturbed run of 2 ranks with dropout, and what the ranks said."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    values = tiny_values(schema, **{"optimiser.batch_size": ROWS, "oov_dropout": 20.0, "optimiser.epochs": 2})
    return values, folder, start_ranks(2, values, folder)


def test_every_rank_returns_the_results_and_the_folder_is_as_of_one(whole, finished):
    _, folder, said = whole
    results = [json.loads(result) for _, result in said]
    assert results[0] == results[1] == RunFolder(folder).read_metrics()
    assert {path.name for path in folder.iterdir()} == {path.name for path in finished.iterdir()}
    assert len([*(folder / "tensorboard").iterdir()]) == 1


def test_the_metrics_are_those_that_one_process_computes_from_all_rows(whole, dataset, monkeypatch):
    _, folder, _ = whole
    monkeypatch.setattr(evaluation, "BATCH", EVALUATED)
    model, _ = load_model(folder / "model.safetensors", backend="reference")
    stored = RunFolder(folder).read_metrics()
    for split in ("valid", "test"):
        for task, entry in evaluate_split(model, dataset.split(split), dataset.meta, torch.device("cpu")).items():
            assert stored[split][task] | entry == stored[split][task], (split, task)


def test_after_a_kill_the_same_number_of_ranks_resumes_to_the_same_bits(whole, tmp_path):
    values, folder, _ = whole
    lost, killed = start_ranks(2, values, tmp_path / "run", kill=(1, 11))
    assert killed == ("killed", signal.SIGKILL)
    assert (lost[1], lost[3]) == ("RanksError", False), "the rank that is left must say what happened"
    assert re.match(r"rank 0 does not reach the other ranks any more: one of them has ended or hangs \([^/\n]*\)\. Go on from", lost[2])
    assert not RunFolder(tmp_path / "run").metrics.exists()
    assert {said[0] for said in start_ranks(2, values, tmp_path / "run")} == {"done"}
    assert outcome(tmp_path / "run") == outcome(folder)


def test_a_run_resumes_on_more_ranks_and_in_one_process(schema, tmp_path):
    values = tiny_values(schema, **SAME)
    train(load_config(None, values), tmp_path / "one")
    start_ranks(2, values, tmp_path / "run", kill=(1, 5))
    assert newest_checkpoint(tmp_path / "run").state["environment"]["ranks"] == 2
    start_ranks(3, values, tmp_path / "run", kill=(0, 16))
    assert newest_checkpoint(tmp_path / "run").state["environment"]["ranks"] == 3
    train(load_config(None, values), tmp_path / "run", resume=True)
    assert_same_but_rounding(tmp_path / "one", tmp_path / "run")


def test_a_second_job_in_a_folder_in_use_is_refused_by_one_message(whole, tmp_path):
    values, _, _ = whole
    (tmp_path / "run").mkdir()
    with locked(RunFolder(tmp_path / "run").lock):
        said = start_ranks(2, values, tmp_path / "run")
    refusal = f"another run writes to {tmp_path / 'run'} now; wait until it has ended, stop it, or choose another --output"
    assert said[0] == ("failed", "RunFolderError", refusal, False)
    assert (said[1][1], said[1][3]) == ("RanksError", True), "the other rank must leave the message to rank 0"


def test_a_rank_that_hangs_fails_the_others_after_a_time(whole, tmp_path):
    values, _, _ = whole
    said, _ = start_ranks(2, values, tmp_path / "run", hang=(1, 2), timeout=2)
    assert (said[0], said[1]) == ("failed", "RanksError"), said


def test_the_commands_of_the_page_run_and_a_killed_rank_starts_again(schema, tmp_path, command, monkeypatch):
    """On another table than the page's. Not run: the command for several machines."""
    lines = re.findall(r"^    ((?:torchrun .*-m dcrnn_fast|dcrnn-fast) .*)", PAGE, flags=re.MULTILINE)
    first, with_restarts, on_three_ranks, in_one_process = lines
    options = tiny_values("", **{"optimiser.epochs": 2})
    options.pop("data")
    settings = " ".join(f"--set {key}={json.dumps(value).replace(' ', '')}" for key, value in options.items())
    (tmp_path / "runs").mkdir()

    def run(line, kill=None):
        if "--data" in line:
            line = line.replace("--data census-income", f"--data {schema} {settings}")
        return start_torchrun(line, tmp_path, kill=kill)

    ended_well, printed = run(first, kill=(1, 5))
    assert not ended_well
    assert "rank      : 1" in printed, printed
    assert "SIGKILL" in printed, printed
    assert printed.count("error: ") <= 1, printed
    ended_well, printed = run(with_restarts, kill=(0, 7))
    assert ended_well, printed
    assert [*re.findall(r"resuming runs/census from (.*)", printed)] == ["step-00000003.safetensors", "step-00000006.safetensors"]
    assert printed.count("test rows") == 1
    ended_well, printed = run(on_three_ranks)
    assert ended_well, printed
    assert printed.count("runs/census holds a finished run: nothing is left to train") == 1
    monkeypatch.chdir(tmp_path)
    name, *words = shlex.split(in_one_process)
    assert name == "dcrnn-fast"
    assert command(*words)[0] == 0
