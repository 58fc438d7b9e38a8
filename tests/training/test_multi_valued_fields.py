"""A run on a table of which two fields have several values, one of them a list that shares the items' embeddings."""

import json

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from dcrnn_fast.data import Encoder
from dcrnn_fast.errors import ConfigError, DataError
from dcrnn_fast.training import evaluate, load_model, train
from dcrnn_fast.training.data import prepare_data
from dcrnn_fast.training.loop.start import OOVDropout
from tests.training.runs import SEEN, SEVERAL, TAGS, Notes, config_of, write_log

COLUMNS = ["tags[0]", "tags[1]", "tags[2]", *(f"seen[{place}]" for place in range(4)), "item"]


@pytest.fixture(scope="module")
def run(run_of):
    return run_of(SEVERAL)


def test_a_weight_file_brings_the_model_that_pools_back(run):
    model, about = load_model(run.folder / "model.safetensors", backend="reference")
    sizes = dict(about["fields"])
    assert list(sizes) == COLUMNS
    assert model.pooled == about["pooled"]
    assert about["pooled"]["tags"] == {"columns": COLUMNS[:3], "pooling": "sum"}
    assert model.features.embedding.num_embeddings == sizes["tags[0]"] + sizes["item"]
    assert sorted(about["id_shares"]) == ["item", "seen", "tags"]
    dropout = OOVDropout(prepare_data(run.config), 1e9, device=torch.device("cpu"))
    assert not dropout(torch.zeros(4, len(COLUMNS), dtype=torch.int64)).any(), "absent values stay"


def test_metrics_by_a_field_with_several_values_are_those_of_its_first_one(run):
    data = prepare_data(run.config)
    entries = evaluate(run.folder, by=["seen"])["by"]["seen"]
    first = np.asarray(data.split("test").ids[:, COLUMNS.index("seen[0]")])
    names, counts = np.unique(np.array(data.meta.vocabulary["item"])[first], return_counts=True)
    assert {entry["value"]: entry["metrics"]["click"]["rows"] for entry in entries} == dict(zip(names, counts, strict=True))


def test_a_run_goes_on_with_new_values_in_all_columns(run, tmp_path):
    tomorrow = write_log(tmp_path / "tomorrow", SEVERAL, seed=1, rename="i3")
    assert evaluate(run.folder, data=str(tomorrow))["warnings"] == []
    metrics = train(config_of(SEVERAL, tomorrow), tmp_path / "run", init=run.folder)
    known, grown = (json.loads((folder / "encoder.json").read_text())["vocabulary"] for folder in (run.folder, tmp_path / "run"))
    assert grown == {field: [*texts, "novel"] for field, texts in known.items()}
    assert sorted(grown) == ["item", "tags[0]"]
    assert {field: share["new_ids"] for field, share in metrics["init"]["oov"].items()} == {"tags": 1, "seen": 1, "item": 1}


@pytest.mark.parametrize("change", [{"pooling": "mean"}, {"max_values": 2}])
def test_rows_of_a_field_that_is_read_otherwise_are_refused(run, tmp_path, change):
    other = write_log(tmp_path / "other", SEVERAL, categorical=[{**TAGS, **change}, SEEN, "item"])
    with pytest.raises(DataError, match="column 'tags' is read as"):
        evaluate(run.folder, data=str(other))
    with pytest.raises(DataError, match=r"was trained with (fields|pooled)"):
        train(config_of(SEVERAL, other), tmp_path / "run", init=run.folder)


def test_vectors_start_a_field_by_its_own_name(run, tmp_path):
    file = tmp_path / "v.parquet"
    pq.write_table(pa.table({"tags": ["i2"], "vector": [[3.0] * 4]}), file)
    notes = Notes()
    small = {"optimiser__lr": 1e-9, "optimiser__embedding_lr": 1e-9, "optimiser__weight_decay": 0}
    train(config_of(SEVERAL, run.schema, pretrained__tags=str(file), **small), tmp_path / "run", report=notes)
    model, _ = load_model(tmp_path / "run" / "model.safetensors")
    id_ = Encoder.load(tmp_path / "run").encode({"tags": ["i2"], "seen": [[]], "item": ["i1"]}).ids
    torch.testing.assert_close(model.features(id_).x0[0, :4], torch.full((4,), 3.0))
    assert f"tags: 1 of {dict(zip(model.field_names, model.num_embeddings, strict=True))['tags[0]']} ids start from {file}" in notes.lines
    for field, said in (("seen", "has the embeddings of 'item'"), ("tags[0]", "its fields are tags, seen, item")):
        with pytest.raises(ConfigError, match=said):
            train(config_of(SEVERAL, run.schema, pretrained={field: str(file)}), tmp_path / field)
