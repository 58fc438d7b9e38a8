"""A field's embeddings as a file, from which another run may start."""

import json

import pyarrow.parquet as pq
import pytest
import torch
from typer.testing import CliRunner

from dcrnn_fast.cli.commands import app
from dcrnn_fast.errors import ConfigError, DataError
from dcrnn_fast.training import load_model, train, write_embeddings
from tests.training.runs import Notes
from tests.training.tiny import tiny_config


def field_of(run):
    """The run's categorical field, its vocabulary and its part of the table."""
    model, about = load_model(run / "model.safetensors")
    sizes = dict(about["fields"])
    field = next(iter(sizes))
    return field, model.features.embedding.weight.detach()[: sizes[field]]


def test_the_file_has_each_id_with_its_vector(finished, tmp_path):
    field, table = field_of(finished)
    assert write_embeddings(finished, field, tmp_path / "v.parquet") == len(table) - 1  # without that of unseen ids
    found = pq.read_table(tmp_path / "v.parquet")
    assert found.column_names == [field, "vector"]
    assert torch.equal(torch.tensor(found["vector"].to_pylist()), table[1:])


def test_another_run_starts_from_it(finished, schema, tmp_path):
    field, table = field_of(finished)
    write_embeddings(finished, field, tmp_path / "v.parquet")
    notes = Notes()
    train(tiny_config(schema, pretrained={field: str(tmp_path / "v.parquet")}, optimiser__epochs=1), tmp_path / "run", report=notes)
    assert any(line.startswith(f"{field}: {len(table) - 1} of {len(table)} ids start from") for line in notes.lines), notes.lines


def test_an_unknown_field_is_named_with_the_nearest_one(finished, tmp_path):
    field, _ = field_of(finished)
    with pytest.raises(ConfigError, match=f"the run has no such field; it has .*did you mean '{field}'"):
        write_embeddings(finished, f"{field}s", tmp_path / "v.parquet")


def test_buckets_have_no_texts(finished, tmp_path):
    vocabulary = json.loads((finished / "encoder.json").read_text())["vocabulary"]
    buckets = next(field for field, entries in vocabulary.items() if entries[:1] != ["<oov>"])
    with pytest.raises(ConfigError, match="its ids are buckets, which have no texts"):
        write_embeddings(finished, buckets, tmp_path / "v.parquet")


def test_the_output_is_a_parquet_file(finished, tmp_path):
    with pytest.raises(DataError, match=r"expected the path of a \.parquet file"):
        write_embeddings(finished, "colour", tmp_path / "v.csv")


def test_the_command_says_how_many_ids_it_wrote(finished, tmp_path):
    field, table = field_of(finished)
    done = CliRunner().invoke(app, ["embeddings", "--run", str(finished), "--field", field, "--output", str(tmp_path / "v.parquet")])
    assert done.stdout == f"{len(table) - 1} ids of {field} and their vectors: {tmp_path / 'v.parquet'}\n"
