"""A run whose model has a trunk for each scenario."""

import pytest

from dcrnn_fast.errors import CheckpointError
from dcrnn_fast.training import evaluate, load_model
from dcrnn_fast.training.folder.weights import check_description, read_weights
from tests.training.runs import SCENARIOS


@pytest.fixture(scope="module")
def run(run_of):
    """A run with the five shapes as scenarios."""
    return run_of(SCENARIOS).folder


def test_a_run_trains_a_trunk_for_each_id_of_the_field_and_its_model_loads(run, dataset):
    model, about = load_model(run / "model.safetensors")
    assert model.plan.num_scenarios == dataset.meta.fields["shape"] - 1 == 5
    assert model.cross.scenario_weight.detach()[:, :, 0].flatten(1).norm(dim=1).min() > 0, "training has moved every one"
    assert about["model"]["scenario"] == "shape"
    assert evaluate(run)["metrics"]["click"]["auc"] > 0.7


def test_a_small_weight_file_that_describes_many_scenarios_is_refused(run):
    """Before their index tensors are built."""
    about = read_weights(run / "model.safetensors")[1]
    about["fields"] = [[name, 2**30 if name == "shape" else size] for name, size in about["fields"]]
    with pytest.raises(CheckpointError, match=r"it asks for .* rows, expected at most"):
        check_description(about, run / "model.safetensors")
