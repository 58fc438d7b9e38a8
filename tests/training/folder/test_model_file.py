import json

import numpy as np
import pytest
import torch

from bench.machine import memory_growth
from dcrnn_fast.errors import CheckpointError
from dcrnn_fast.training import Report, load_config, load_model
from dcrnn_fast.training.evaluate.predict import finite_predictions
from dcrnn_fast.training.folder.layout import RunFolder
from dcrnn_fast.training.folder.tensors import read_safetensors
from dcrnn_fast.training.folder.weights import export_weights
from dcrnn_fast.training.loop.job import Job
from dcrnn_fast.training.loop.trainer import Trainer


def test_a_model_is_loaded_from_its_file_or_from_the_run_folder(finished):
    by_file, by_folder = load_model(finished / "model.safetensors"), load_model(str(finished))
    assert by_file[1] == by_folder[1]
    assert all(torch.equal(one, other) for one, other in zip(by_file[0].parameters(), by_folder[0].parameters(), strict=True))


def test_a_loaded_model_predicts_what_the_run_measured(finished, dataset):
    model, about = load_model(finished / "model.safetensors", backend="reference")
    assert not model.training
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


def sealed(change):
    """The damage of someone who writes a whole weight file: ``change`` edits tensors and description, and the digest is theirs."""

    def damage(path):
        tensors, metadata = read_safetensors(path)
        about = json.loads(metadata["dcrnn_fast"])["about"]
        change(tensors, about)
        export_weights(path, tensors, about)

    return damage


def cast(dtype):
    def change(tensors, about):
        tensors["towers.head.private_bias"] = tensors["towers.head.private_bias"].to(dtype)

    return change


@pytest.mark.parametrize(
    ("change", "said"),
    [
        *(
            (cast(dtype), rf"head\.private_bias has dtype {dtype} in the file and torch\.float32 in the model")
            for dtype in (torch.int8, torch.bool, torch.complex64, torch.float64)
        ),
        (lambda tensors, about: about.clear(), "describes no model: model is missing"),
        (lambda tensors, about: about["model"].pop("rank"), "describes no model: .*model lacks rank"),
        (lambda tensors, about: about.update(tasks="click"), "describes no model: tasks is 'click': Input should be a valid list"),
        (lambda tensors, about: about["fields"].append(["shape", 3]), "a field is named twice"),
        (lambda tensors, about: about["model"].update(steps=10**15), "describes no model: model.steps is 1000000000000000: "),
        (lambda tensors, about: about["model"].update(tower_dims=[1] * 65), "model.tower_dims .* at most 64"),
        (lambda tensors, about: about.update(tasks=["a", "a"]), "describes no model: .*distinct names"),
        (
            lambda tensors, about: about.update(tasks=[*"abcdefghi"], model=about["model"] | {"tower_dims": [65536] * 64}),
            "expected at most 262,144 and 16,777,216",
        ),
    ],
)
def test_a_sealed_weight_file_that_is_no_model_is_refused_by_name(copied, change, said):
    sealed(change)(copied / "model.safetensors")
    with pytest.raises(CheckpointError, match=said) as caught:
        load_model(copied / "model.safetensors")
    assert len(str(caught.value).splitlines()) == 1


def test_a_small_weight_file_that_describes_a_large_model_takes_no_memory(copied):
    path = copied / "model.safetensors"
    sealed(lambda tensors, about: about["model"].update(tower_dims=[30_000, 30_000]))(path)
    grown = memory_growth()
    with pytest.raises(CheckpointError, match=r"belongs to another model: towers\.layers\.1\.shared_weight is missing in the file"):
        load_model(path)
    assert grown() < 200 << 20, "the weights that it describes take 7 GB"
