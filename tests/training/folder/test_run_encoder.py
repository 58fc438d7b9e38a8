"""What a run folder keeps: its model predicts what the run measured, and its encoder encodes as the run's data was encoded."""

import shutil

import numpy as np
import torch

from dcrnn_fast.data import Encoder
from dcrnn_fast.training import Report, load_config, load_model
from dcrnn_fast.training.evaluate.predict import finite_predictions
from dcrnn_fast.training.folder.layout import RunFolder
from dcrnn_fast.training.folder.tensors import pack_tensors, read_safetensors
from dcrnn_fast.training.loop.job import Job
from dcrnn_fast.training.loop.trainer import Trainer
from tests.processes import run_python

ROWS = {"shape": ["s1", "s4", None], "colour": ["c0", "c9", "c3"], "size": [0.25, None, -3.0]}


def test_a_run_and_its_packed_data_have_one_encoding(finished, dataset):
    run, packed = Encoder.load(finished), Encoder.load(dataset.path)
    assert vars(run).keys() == vars(packed).keys()
    assert (run.tasks, run.num_embeddings, run.dense) == (packed.tasks, packed.num_embeddings, packed.dense)
    assert list(run.num_embeddings) == ["shape", "colour", "size"]
    for found, expected in zip(run.encode(ROWS), packed.encode(ROWS), strict=True):
        assert torch.equal(found, expected)


SAME = """
import sys
from pathlib import Path
from tests.training.tiny import write_table
from dcrnn_fast.training import load_config, train
folder = Path(sys.argv[1])
same = [{"column": "colour", "max_values": 2, "separator": "c"}, {"column": "shape", "same_ids_as": "user"}, "user"]
cross = {"name": "both", "cross": ["shape", "user"]}
data = write_table(folder, rows=300, categorical=[*same, "both"], derived=[cross], funnel=False)
train(load_config(None, {"data": str(data), "optimiser.epochs": 1, "device": "cpu"}), folder / "run")
"""


def test_equal_runs_have_the_same_bytes_whatever_the_order_of_sets(tmp_path):
    """Encoders with all their parts: derived columns, shared ids and several values a cell."""
    found = []
    for seed in ("1", "2"):
        folder = tmp_path / "data"
        ended = run_python("-c", SAME, folder, PYTHONHASHSEED=seed, DCRNN_FAST_CACHE=str(tmp_path / seed))
        assert ended.returncode == 0, ended.stderr
        files = [*(folder / "run").iterdir(), *(tmp_path / seed).glob("tiny-*/*")]
        found.append({path.name: path.read_bytes() for path in files if path.suffix in (".json", ".yaml", ".npy", ".safetensors")})
        shutil.rmtree(folder)
    assert {"encoder.json", "meta.json", "schema.yaml", "config.yaml", "train.ids.npy"} < found[0].keys()
    differ = [name for name in found[0] if len({one[name] for one in found}) > 1]
    assert differ in ([], ["metrics.json"])  # which says how long it took


def test_a_loaded_model_predicts_what_the_run_measured(finished, dataset):
    model, about = load_model(finished / "model.safetensors", backend="reference")
    assert not model.training
    assert load_model(str(finished))[1] == about
    fields = [["shape", 6], ["colour", 10], ["size", 9]]
    assert (about["tasks"], about["fields"], about["relation"]) == (["click", "buy"], fields, "chain")
    predictions = finite_predictions(model, dataset.split("test"), dataset.meta, torch.device("cpu"))
    assert set(predictions) == {"click", "buy", "buy_given_click"}
    folder, cpu = RunFolder(finished), torch.device("cpu")
    again = Trainer.resumed(Job(load_config(folder.config), dataset, folder, Report(), cpu), folder.newest_checkpoint())
    again.model.load_state_dict(again.best)
    for name, expected in finite_predictions(again.model, dataset.split("test"), dataset.meta, cpu).items():
        np.testing.assert_array_equal(predictions[name], expected, err_msg=name)
    assert predictions["click"].shape == (len(dataset.split("test")),)


def test_views_of_the_same_memory_are_packed_as_tensors_of_their_own(tmp_path):
    base = torch.arange(12.0).reshape(3, 4)
    views = {"whole": base, "again": base, "rows": base[1:], "columns": base[:, 1:3], "empty": base[:0]}
    (tmp_path / "views").write_bytes(pack_tensors(views))
    found, _ = read_safetensors(tmp_path / "views")
    assert {name: value.tolist() for name, value in found.items()} == {name: value.tolist() for name, value in views.items()}
