"""An encoder of a run folder encodes as the run's own data was encoded, and refuses files that do not belong together."""

import errno
import json
import shutil
from pathlib import Path

import pytest
import torch

from dcrnn_fast.data import Encoder
from dcrnn_fast.errors import CheckpointError
from dcrnn_fast.training import load_model
from tests.damage import edit_json
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


def test_equal_runs_have_the_same_bytes_whatever_order_their_processes_have_for_sets(tmp_path):
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


def test_a_runs_model_predicts_what_its_encoder_encodes(finished):
    model, about = load_model(finished / "model.safetensors")
    encoder = Encoder.load(finished)
    assert list(encoder.tasks) == about["tasks"]
    assert model.predict(*encoder.encode(ROWS))["click"].shape == (3,)


def cut(path):
    path.write_bytes(path.read_bytes()[:100])


def without_description(path):
    head = json.dumps({"__metadata__": {"other": "1"}}).encode()
    path.write_bytes(len(head).to_bytes(8, "little") + head)


def with_wrong_fields(path):
    about = {"tasks": ["click"], "fields": [["shape", "4"]], "dense": [], "encoding": ""}
    head = json.dumps({"__metadata__": {"dcrnn_fast": json.dumps({"about": about})}}).encode()
    path.write_bytes(len(head).to_bytes(8, "little") + head)


@pytest.mark.parametrize(
    ("file", "damage", "said"),
    [
        ("encoder.json", edit_json(lambda encoder: encoder["scaling"]["size"].update(mean=0.5)), "its digest does not match"),
        ("encoder.json", edit_json(lambda encoder: encoder.update(more=1)), "expected the vocabulary and scaling of another"),
        ("encoder.json", lambda path: path.write_text("{"), r"encoder\.json cannot be read"),
        ("model.safetensors", lambda path: path.unlink(), r"model\.safetensors does not exist; go on with --resume"),
        ("model.safetensors", cut, "its head is longer than the file"),
        ("model.safetensors", lambda path: path.write_bytes(b""), "has no dcrnn_fast description"),
        ("model.safetensors", without_description, "has no dcrnn_fast description"),
        ("model.safetensors", with_wrong_fields, "its description is "),
    ],
)
def test_a_damaged_or_missing_file_is_refused_by_name(copied, file, damage, said):
    damage(copied / file)
    with pytest.raises(CheckpointError, match=said) as caught:
        Encoder.load(copied)
    assert file in str(caught.value)


def test_a_file_that_this_user_may_not_read_is_not_said_to_be_absent(copied, monkeypatch):
    def refuse(path, *_):
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(Path, "open", refuse)  # root reads everything
    with pytest.raises(CheckpointError, match=r"model\.safetensors cannot be read: Permission denied; let this user read it"):
        load_model(copied / "model.safetensors")
