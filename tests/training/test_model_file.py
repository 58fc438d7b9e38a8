import json

import numpy as np
import pytest
import torch

from dcrnn_fast.errors import CheckpointError
from dcrnn_fast.training import Report, load_config, load_model
from dcrnn_fast.training.evaluation import predict_split
from dcrnn_fast.training.run_folder import RunFolder
from dcrnn_fast.training.tensors import pack_tensors, read_safetensors
from dcrnn_fast.training.trainer import Trainer
from tests.damage import flip_a_bit


def test_a_loaded_model_predicts_what_the_run_measured(finished, dataset):
    model, about = load_model(finished / "model.safetensors", backend="reference")
    assert not model.training
    fields = [["shape", 6], ["colour", 10], ["size", 9]]
    assert (about["tasks"], about["fields"], about["relation"]) == (["click", "buy"], fields, "chain")
    predictions = predict_split(model, dataset.split("test"), torch.device("cpu"))
    assert set(predictions) == {"click", "buy", "buy_given_click"}
    folder, cpu = RunFolder(finished), torch.device("cpu")
    again = Trainer(load_config(folder.config), dataset, folder, Report(), device=cpu)
    again.load(folder.newest_checkpoint())
    again.model.load_state_dict(again.best)
    for name, expected in predict_split(again.model, dataset.split("test"), cpu).items():
        np.testing.assert_array_equal(predictions[name], expected, err_msg=name)
    assert predictions["click"].shape == (len(dataset.split("test")),)


def drop_the_description(path):
    path.write_bytes(pack_tensors(read_safetensors(path)[0]))


def with_description(change):
    def damage(path):
        tensors, metadata = read_safetensors(path)
        sealed = json.loads(metadata["dcrnn_fast"])
        change(sealed["about"])
        path.write_bytes(pack_tensors(tensors, {"dcrnn_fast": json.dumps(sealed)}))

    return damage


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (flip_a_bit, "was changed after it was written"),
        (with_description(lambda about: about["fields"].sort()), "was changed after it was written"),
        (with_description(lambda about: about["model"].update(dropout=float("nan"))), "has no dcrnn_fast description"),
        (drop_the_description, "has no dcrnn_fast description"),
    ],
)
def test_a_weight_file_that_was_changed_or_has_no_description_is_refused(copied, damage, said):
    damage(copied / "model.safetensors")
    with pytest.raises(CheckpointError, match=rf"model\.safetensors {said}"):
        load_model(copied / "model.safetensors")
