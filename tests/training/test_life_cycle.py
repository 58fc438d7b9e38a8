"""A run of each feature is trained, stopped, resumed, loaded, evaluated, scored from raw rows, and exported."""

import json

import numpy as np
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
import pytest

from dcrnn_fast import Ranker
from dcrnn_fast.serving import export
from dcrnn_fast.serving.export.export import TOLERANCE
from dcrnn_fast.training import evaluate, load_model, train
from dcrnn_fast.training.data import prepare_data
from dcrnn_fast.training.folder.weights import describe
from tests.training.runs import FEATURES, FUNNEL, HISTORIES, INDEPENDENT, SCENARIOS, SEVERAL, TRANSFER, interrupted, outcome

EXPORTED = [SCENARIOS, TRANSFER, INDEPENDENT, SEVERAL]
"""The features whose graphs differ: each export takes seconds."""


@pytest.fixture(scope="module", params=FEATURES)
def run(request, run_of):
    return run_of(request.param)


def raw_rows(run):
    """The rows of the run's table."""
    if run.feature in FUNNEL:
        return pa_csv.read_csv(run.schema.with_suffix(".csv"))
    rows = pq.read_table(run.schema.with_suffix(".parquet"))
    return rows.append_column("last_clicked", rows["seen"]) if run.feature == HISTORIES else rows


def test_a_stopped_run_resumes_to_the_same_bits(run, tmp_path):
    interrupted(run.config, tmp_path / "run", 11 if run.feature in FUNNEL else 5)
    train(run.config, tmp_path / "run", resume=True)
    assert outcome(tmp_path / "run") == outcome(run.folder)


def test_its_weight_file_says_what_was_built_and_evaluates_as_the_run(run):
    model, about = load_model(run.folder / "model.safetensors")
    described = describe(run.config, prepare_data(run.config))
    assert {key: about[key] for key in described} == described
    metrics = json.loads((run.folder / "metrics.json").read_text())
    assert model.num_parameters == metrics["model"]["parameters"]
    assert evaluate(run.folder)["metrics"] == metrics["test"]


def test_raw_rows_have_the_scores_of_the_loaded_model(run):
    ranker = Ranker.load(run.folder)
    model, _ = load_model(run.folder / "model.safetensors")
    expected = model.predict(*ranker.encoder.encode(raw_rows(run)))
    found = ranker.predict(raw_rows(run))
    assert found.keys() == expected.keys()
    for name, values in expected.items():
        np.testing.assert_allclose(found[name], values.detach().numpy(), rtol=1e-5, err_msg=name)


@pytest.mark.parametrize("feature", EXPORTED)
def test_it_is_exported_and_the_file_gives_the_runs_probabilities(run_of, feature, tmp_path):
    assert export(run_of(feature).folder, tmp_path / "run.pt2", backend="reference", rows=100) <= TOLERANCE
