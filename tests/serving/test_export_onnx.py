"""A run's model as ONNX: ONNX Runtime scores as the run does. They need the extra onnx: `make extra NAME=onnx`."""

import json
from importlib.util import find_spec

import numpy as np
import pandas as pd
import pytest

from dcrnn_fast import DCRNN
from dcrnn_fast.errors import ConfigError, ExportError, MissingExtra
from dcrnn_fast.serving import export
from dcrnn_fast.serving.export import export as exporting
from dcrnn_fast.serving.export import formats

needs_onnx = pytest.mark.skipif(
    any(find_spec(name) is None for name in formats.PACKAGES), reason="needs the packages of the extra onnx: pip install 'dcrnn_fast[onnx]'"
)


@pytest.fixture(scope="module")
def file(shop, tmp_path_factory):
    path = tmp_path_factory.mktemp("onnx") / "shop.onnx"
    assert export(shop / "run", path, format="onnx") <= exporting.TOLERANCE
    return path


@needs_onnx
@pytest.mark.parametrize("rows", [0, 1, 3, 1500])
def test_onnx_runtime_scores_as_the_run_does(shop, ranker, file, rows):
    table = pd.read_csv(shop / "tiny.csv")[:rows]
    found = formats.onnx_program(file, ranker.names)(*ranker.encoder.encode(table))
    for name, values in ranker.predict(table).items():
        assert found[name].shape == (rows,)
        np.testing.assert_allclose(found[name], values, rtol=1e-4, err_msg=name)
    ids, dense = ranker.encoder.encode(pd.read_csv(shop / "tiny.csv")[:3])
    ids[1, 0] = 6
    with pytest.raises(Exception, match="out of data bounds"):
        formats.onnx_program(file, ranker.names)(ids, dense)


@needs_onnx
def test_inputs_outputs_and_the_rows_have_names_and_the_encoder_is_there(shop, file):
    import onnx

    model = onnx.load(file)
    shapes = {
        value.name: [dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim]
        for value in (*model.graph.input, *model.graph.output)
    }
    assert shapes == {"ids": ["rows", 3], "dense": ["rows", 1], "click": ["rows"], "buy": ["rows"], "buy_given_click": ["rows"]}
    assert [(one.domain, one.version) for one in model.opset_import] == [("", formats.OPSET)]
    texts = {one.key: json.loads(one.value) for one in model.metadata_props}
    assert texts["encoder.json"] == json.loads((shop / "run" / "encoder.json").read_text())
    about = texts["dcrnn_fast.json"]
    assert (about["kind"], about["backend"], about["names"]) == ("onnx", "reference", ["click", "buy", "buy_given_click"])
    assert b".py" not in file.read_bytes()


@needs_onnx
@pytest.mark.parametrize(
    "options",
    [
        {"relation": "transfer", "num_dense": 0, "tasks": ("relu", "add")},
        {"sharing": "trunk", "scenario": "a"},
        {"dense_bins": 4, "rank": 3, "pooled": {"g": {"columns": ["g0", "g1"], "pooling": "mean"}}, "shared_embeddings": {"g1": "g0"}},
    ],
    ids=str,
)
def test_every_kind_of_model_is_exported(options, tmp_path):
    sizes = {"a": 5, "b": 7, "g0": 9, "g1": 9}
    model = DCRNN(sizes, backend="reference", **({"num_dense": 2, "embedding_dim": 4, "tower_dims": [8]} | options)).eval()
    names = list(model.predict(*exporting.draw(sizes, model.num_dense, 1, 0)))
    formats.write_onnx(exporting.traced(model), {}, names, tmp_path / "model.onnx")
    ids, dense = exporting.draw(sizes, model.num_dense, 33, 0)
    found = formats.onnx_program(tmp_path / "model.onnx", names)(ids, dense)
    for name, values in model.predict(ids, dense).items():
        np.testing.assert_allclose(found[name], values.numpy(), rtol=1e-4, err_msg=name)


@needs_onnx
def test_weights_that_no_onnx_file_can_hold_are_refused(shop, tmp_path, monkeypatch):
    monkeypatch.setattr(formats, "MAX_BYTES", 100)
    with pytest.raises(ExportError, match="an ONNX file at most 2 GB; export with --format pt2"):
        export(shop / "run", tmp_path / "shop.onnx", format="onnx")
    assert not list(tmp_path.iterdir())


@needs_onnx
def test_a_score_with_the_name_of_an_input_is_refused(tmp_path):
    model = DCRNN({"a": 5}, backend="reference", embedding_dim=4, tower_dims=[8], tasks=("click", "ids")).eval()
    with pytest.raises(ConfigError, match="the score 'ids' has the name of an input"):
        formats.write_onnx(exporting.traced(model), {}, ["click", "ids", "ids_given_click"], tmp_path / "model.onnx")


@needs_onnx
def test_the_operators_in_cpp_are_refused(shop, tmp_path):
    with pytest.raises(ConfigError, match="ONNX has none of this package's operators"):
        export(shop / "run", tmp_path / "shop.onnx", format="onnx", backend="cpp")


def test_a_missing_package_is_named(shop, tmp_path, monkeypatch):
    monkeypatch.setattr("dcrnn_fast.errors.find_spec", lambda name: None if name == "onnxscript" else find_spec("json"))
    with pytest.raises(MissingExtra, match=r"format onnx needs onnxscript; run: pip install 'dcrnn_fast\[onnx\]'"):
        export(shop / "run", tmp_path / "shop.onnx", format="onnx")
    assert not list(tmp_path.iterdir())
