"""Embeddings that start from vectors in a file, and the file that another run writes of its own."""

import dataclasses

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from dcrnn_fast.data import PackedMeta
from dcrnn_fast.data.codes.texts import Hashes
from dcrnn_fast.errors import ConfigError, DataError
from dcrnn_fast.training import load_model, train, write_embeddings
from dcrnn_fast.training.embeddings import start_from_vectors
from tests.refusals import refused, row, rows
from tests.training.runs import Notes, StoppedError, stop_at
from tests.training.tiny import tiny_config

SIZES = {"city": 4, "item": 1001, "price": 3}
VOCABULARY = {"city": ["<oov>", "7", "<missing>", "8"], "item": [], "price": [1.0]}
META = PackedMeta("shop", ("click",), False, "independent", SIZES, (), None, False, {"train": 1}, VOCABULARY, {}, {}, 1)


def write(path, keys, vectors, name="city", kind=None):
    pq.write_table(pa.table({name: keys, "vector": pa.array(vectors, kind)}), path)
    return str(path)


def started(**files):
    table = torch.full((sum(SIZES.values()), 2), -1.0)
    lines = start_from_vectors(table, files, META)
    return dict(zip(SIZES, table.split(list(SIZES.values())), strict=True)), lines


@pytest.mark.parametrize("kind", [pa.list_(pa.float32()), pa.large_list(pa.float64()), pa.list_(pa.float16(), 2), pa.list_(pa.int8())])
def test_known_ids_start_from_the_file_and_the_others_as_usual(tmp_path, kind):
    vectors = [[1, 2], [3, 4], [5, 6], [7, 8]]
    if kind.value_type == pa.float16():
        vectors = [np.float16(vector) for vector in vectors]
    file = write(tmp_path / "v.parquet", [8, 9, None, 8], vectors, kind=kind)
    tables, lines = started(city=file)
    assert tables["city"].tolist() == [[-1, -1], [-1, -1], [5, 6], [7, 8]]
    assert (tables["item"] == -1).all()
    assert (tables["price"] == -1).all()
    assert lines == [f"city: 2 of 4 ids start from {file}"]


def test_texts_of_a_hashed_field_start_the_ids_of_their_hashes(tmp_path):
    tables, _ = started(item=write(tmp_path / "v.parquet", ["a", None], [[1.0, 2.0], [3.0, 4.0]], "item"))
    (id_,) = Hashes(1000).ids(["a"])
    assert tables["item"][id_].tolist() == [1, 2]
    assert (tables["item"] != -1).any(dim=1).sum() == 1


def of_a_file(keys, vectors, tmp_path):
    started(city=write(tmp_path / "v.parquet", keys, vectors))


def of_text(tmp_path):
    (tmp_path / "v.parquet").write_text("no Parquet")
    started(city=str(tmp_path / "v.parquet"))


BAD_NUMBER = "row 2: column 'vector' holds a number that is missing, infinite or too large"
TABLE = [
    *rows("a file that cannot be used", of_a_file, DataError, within=r"v\.parquet(,|:) {}", cases=[
        ([7, 8], [[1.0, 2.0], [1.0]], r"row 2: column 'vector' holds 1 numbers, expected 2 \(model.embedding_dim\)"),
        ([7, 8], [[1.0, 2.0], None], "row 2: column 'vector' holds no list, expected 2"),
        ([7, 8], [[1.0, 2.0], [1.0, None]], BAD_NUMBER),
        ([7, 8], [[1.0, 2.0], [1e39, 0.0]], BAD_NUMBER),
        ([7], [1.0], "column 'vector' is of type 'double', expected lists of 2 floats"),
        ([7], [["a", "b"]], "column 'vector' is of type 'list<.*string>', expected lists of 2 floats"),
        ([[7]], [[1.0, 2.0]], "column 'city' is used as text and is of type 'list<"),
        ([7.5], [[1.0, 2.0]], "the field knows none of its 1 keys; write column 'city' as the table's"),
        ([], [], "column 'vector' is of type 'null'|knows none of its 0 keys"),
    ]),
    row("no column of the field's name", lambda tmp_path: started(city=write(tmp_path / "v.parquet", ["7"], [[1.0, 2.0]], "town")),
        DataError, r"v\.parquet lacks the column 'city'; .* needs the columns 'city' and 'vector', and it has town"),
    row("no Parquet", of_text, DataError, r"v\.parquet cannot be read"),
    row("no file", lambda: started(city="absent.parquet"), DataError, r"absent\.parquet cannot be read"),
    row("no field", lambda: started(town="v.parquet"),
        ConfigError, r"pretrained\.town: shop has no field 'town'; its fields are city, item, price"),
    row("buckets of numbers", lambda: started(price="v.parquet"),
        ConfigError, r"pretrained\.price: the field's ids are buckets of numbers"),
]  # fmt: skip

test_it_is_refused = pytest.mark.filterwarnings("error")(refused(TABLE))


def test_fields_that_share_embeddings_start_by_the_one_that_has_them(tmp_path):
    meta = dataclasses.replace(
        META, fields={"city": 4, "last": 4, "home": 2}, vocabulary=VOCABULARY | {"last": VOCABULARY["city"], "home": ["<oov>", "7"]},
        shared={"last": "city"},
    )  # fmt: skip
    table = torch.zeros(6, 2)
    start_from_vectors(table, {"home": write(tmp_path / "v.parquet", [7], [[1.0, 2.0]], name="home")}, meta)
    assert table.tolist() == [[0, 0]] * 5 + [[1, 2]]
    with pytest.raises(ConfigError, match=r"pretrained.last: the field has the embeddings of 'city'; name that one"):
        start_from_vectors(table, {"last": "v.parquet"}, meta)


def test_a_run_trains_on_from_the_vectors_and_resumes_without_the_file(schema, tmp_path):
    file = tmp_path / "v.parquet"
    write(file, ["c1", "c3"], [[3.0] * 4, [-3.0] * 4], "colour")
    small = {"optimiser__lr": 1e-6, "optimiser__embedding_lr": 1e-6, "optimiser__weight_decay": 0}
    config = tiny_config(schema, pretrained__colour=str(file), **small, optimiser__epochs=1)
    notes = Notes()
    with pytest.raises(StoppedError):
        train(config, tmp_path / "run", report=stop_at(4, notes))
    assert f"colour: 2 of 10 ids start from {file}" in notes.lines
    file.unlink()
    train(config, tmp_path / "run", resume=True)
    model, about = load_model(tmp_path / "run" / "model.safetensors")
    assert [name for name, _ in about["fields"]][:2] == ["shape", "colour"]
    table = model.features.embedding.weight.split([size for _, size in about["fields"]])[1]
    assert sorted(table.mean(dim=1).round().tolist()) == [-3] + [0] * 8 + [3]


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
