"""A field's embeddings as a file, from which another run may start."""

import pyarrow.parquet as pq
import pytest
import torch

from dcrnn_fast.errors import ConfigError, DataError
from dcrnn_fast.training import load_model, train, write_embeddings
from tests.training.runs import Notes
from tests.training.tiny import tiny_config


def test_the_file_has_each_ids_vector_and_another_run_starts_from_it(finished, schema, tmp_path, command):
    model, about = load_model(finished / "model.safetensors")
    field, size = about["fields"][0]
    table, file = model.features.embedding.weight.detach()[:size], tmp_path / "v.parquet"
    assert write_embeddings(finished, field, file) == size - 1  # without that of unseen ids
    found = pq.read_table(file)
    assert found.column_names == [field, "vector"]
    assert torch.equal(torch.tensor(found["vector"].to_pylist()), table[1:])
    code, out, _ = command("embeddings", "--run", finished, "--field", field, "--output", file)
    assert (code, f"{size - 1} ids of {field}" in out) == (0, True)
    notes = Notes()
    train(tiny_config(schema, pretrained={field: str(file)}, optimiser__epochs=1), tmp_path / "run", report=notes)
    assert any(line.startswith(f"{field}: {size - 1} of {size} ids start from") for line in notes.lines), notes.lines


@pytest.mark.parametrize(
    ("field", "file", "error", "said"),
    [
        ("shapes", "v.parquet", ConfigError, "the run has no such field; it has .*did you mean 'shape'"),
        ("size", "v.parquet", ConfigError, "its ids are buckets, which have no texts"),
        ("colour", "v.csv", DataError, r"expected the path of a \.parquet file"),
    ],
)
def test_what_has_no_vectors_is_refused(finished, tmp_path, field, file, error, said):
    with pytest.raises(error, match=said):
        write_embeddings(finished, field, tmp_path / file)
