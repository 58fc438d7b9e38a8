"""A column that is known in training alone: the first-order term learns its effect, and whatever scores reads one stated value."""

import json

import numpy as np
import pandas as pd
import pytest
import torch
import yaml

from dcrnn_fast import DCRNN, Ranker
from dcrnn_fast.data import Encoder, prepare
from dcrnn_fast.errors import ConfigError, DataError
from dcrnn_fast.serving import export, load_exported
from dcrnn_fast.serving.export import formats
from dcrnn_fast.training import evaluate, load_model, train
from tests.refusals import refused, row, rows
from tests.serving.test_export_onnx import needs_onnx
from tests.training.tiny import tiny_config

ROWS = 3000


def write_log(folder, **changes):
    """Items at positions, of which a later one is clicked less: its schema."""
    rng = np.random.default_rng(0)
    item, position = rng.integers(0, 20, ROWS), rng.integers(1, 6, ROWS)
    click = rng.random(ROWS) < 1 / (1 + np.exp(position - 2 - (item % 5) / 2))
    table = pd.DataFrame({"item": [f"i{one}" for one in item], "position": position, "click": click.astype(int)})
    table.to_parquet(folder / "log.parquet")
    schema = {
        "name": "shop",
        "files": {"all": "log.parquet", "test_fraction": 0.2},
        "categorical": ["item", "position"],
        "train_only": [{"column": "position", "score_as": 1}],
        "tasks": [{"name": "click", "column": "click"}],
    }
    (folder / "shop.yaml").write_text(yaml.safe_dump(schema | changes))
    return folder / "shop.yaml"


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("position")
    train(tiny_config(write_log(folder), optimiser__epochs=4, model__first_order=True), folder / "run")
    return folder / "run"


def test_a_ranker_needs_no_such_column_and_reads_none(run):
    ranker, rows = Ranker.load(run), {"item": ["i1", "i2", "i4"]}
    assert list(ranker.columns) == ["item"]
    for position in (1, 5, None, "unheard of"):
        assert np.array_equal(ranker.predict(rows | {"position": [position] * 3})["click"], ranker.predict(rows)["click"])
    assert np.array_equal(ranker.score({}, {"item": ["i1", "i2", "i4"]})["click"], ranker.predict(rows)["click"])


def test_what_is_scored_is_the_stated_position_whose_effect_the_run_learnt(run):
    ranker = Ranker.load(run)
    model, about = load_model(run)
    assert about["first_order_only"] == ["position"]
    ids = ranker.encoder.encode({"item": [f"i{one}" for one in range(20)]}).ids
    places = json.loads((run / "encoder.json").read_text())["vocabulary"]["position"]
    at = [torch.full((20, 1), places.index(str(position))) for position in range(1, 6)]
    by_position = [float(model.predict(torch.cat([ids[:, :1], place], dim=1))["click"].mean()) for place in at]
    assert by_position == sorted(by_position, reverse=True), "of an item, a later position is clicked less"
    assert ranker.predict({"item": ["i4"]})["click"][0] == pytest.approx(float(model.predict(ids[4:5])["click"][0]), abs=1e-6)


@pytest.mark.parametrize("format", ["pt2", pytest.param("onnx", marks=needs_onnx)])
def test_an_exported_file_reads_the_stated_position_too(run, format, tmp_path):
    ranker, rows = Ranker.load(run), {"item": ["i1", "i2", "i4"]}
    file = tmp_path / f"shop.{format}"
    export(run, file, format=format)
    if format == "pt2":
        found = load_exported(file).predict(rows | {"position": [5, 5, 5]})
    else:
        found = formats.onnx_program(file, ranker.names)(*ranker.encoder.encode(rows))
    np.testing.assert_allclose(found["click"], ranker.predict(rows)["click"], rtol=1e-4)


def test_evaluation_reads_the_logged_positions_or_the_stated_one(run):
    of_log, served = (evaluate(run, as_served=given)["metrics"]["click"] for given in (False, True))
    assert of_log["auc"] > served["auc"] + 0.05, "the position says much about the log's clicks"
    assert served["calibration"] > 1.5 > of_log["calibration"]


def test_a_prepared_model_reads_no_embeddings_that_the_model_does_not(run):
    model = DCRNN({"item": 9, "position": 4}, tasks=("click",), first_order_only=["position"]).eval()
    torch.nn.init.normal_(model.features.embedding.weight)
    ids = torch.tensor([[3, 1], [3, 2]])
    torch.testing.assert_close(model.prepare_inference()(ids), model(ids))
    assert torch.equal(model.features(ids).x0[0], model.features(ids).x0[1])
    assert not any(rows.any() for rows in load_model(run)[0].features.unread_rows), "an embedding that is not read stays at zero"


def test_an_encoder_of_packed_rows_reads_the_constant_too(tmp_path):
    data = prepare(write_log(tmp_path), cache_dir=tmp_path / "cache")
    encoder = Encoder.load(data.path)
    assert encoder.columns == ("item",)
    position = data.meta.vocabulary["position"].index("1")
    assert encoder.encode({"item": ["i1", "?"]}).ids[:, 1].tolist() == [position, position]


def a_schema(changes, tmp_path):
    prepare(write_log(tmp_path, **changes), cache_dir=tmp_path / "cache")


BOTH = {"derived": [{"name": "both", "cross": ["item", "position"]}], "categorical": ["item", "position", "both"]}
ONE = {"derived": [{"name": "one", "constant": "1"}], "categorical": ["item", "position", "one"]}
TABLE = [
    *rows("a column that scoring could not read", a_schema, DataError, cases=[
        ({"train_only": [{"column": "place", "score_as": 1}]}, "names 'place', expected, once, a categorical column .*: item, position"),
        ({"train_only": [{"column": "position", "score_as": one} for one in (1, 2)]}, "names 'position', expected, once"),
        ({"train_only": [{"column": "position"}]}, "score_as: it is required"),
        ({"train_only": [{"column": "position", "score_as": 77}]}, "reads 'position' as '77', expected one of its values .*: [1-5], [1-5]"),
        ({"numeric": [{"column": "position", "dense": "log1p"}]}, "'position', which is a number too"),
        (BOTH, "'position', from which 'both' is derived"),
        (ONE, "`constant` is for columns"),
    ]),
    row("a model without a first-order term",
        lambda tmp_path: train(tiny_config(write_log(tmp_path), model__first_order=False), tmp_path / "run"),
        ConfigError, "first_order_only=.*expected first_order=True"),
    row("a field of several",
        lambda: DCRNN({"item": 9, "tags": 4, "other": 4}, shared_embeddings={"other": "tags"}, first_order_only=["tags"]),
        ValueError, "first_order_only='tags': expected one of 'item'"),
]  # fmt: skip

test_it_is_refused = refused(TABLE)
