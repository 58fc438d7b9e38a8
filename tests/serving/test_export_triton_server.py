"""The folder for NVIDIA's Triton Inference Server: its configuration names what the ONNX file has. The server itself is not run."""

import json
import re

import numpy as np
import pytest

from dcrnn_fast import Ranker
from dcrnn_fast.errors import DataError
from dcrnn_fast.serving import export
from dcrnn_fast.serving.export import onnx as export_onnx
from dcrnn_fast.serving.export import triton_server as export_triton_server

from .test_export_onnx import needs_onnx

TENSOR = re.compile(r'{ name: "(\w+)", data_type: TYPE_(\w+), dims: \[ (\d+) \](, reshape { shape: \[ \] })? }')


def tensors(config, part):
    """By name, the type and the shape, without the rows, of the inputs or outputs that a configuration lists."""
    listed = re.search(rf"^{part} \[\n(.*?)\n\]$", config, flags=re.DOTALL | re.MULTILINE)[1].split(",\n")
    found = [TENSOR.fullmatch(line.strip()) for line in listed]
    assert all(found), listed
    return {name: (kind, [] if scalar else [int(size)]) for name, kind, size, scalar in (one.groups() for one in found)}


@pytest.fixture(scope="module")
def folder(shop, tmp_path_factory):
    models = tmp_path_factory.mktemp("models")
    export(shop / "run", models / "shop-2.1", format="triton-server")
    assert [path.name for path in models.iterdir()] == ["shop-2.1"]
    return models / "shop-2.1"


@needs_onnx
def test_the_configuration_names_what_the_onnx_file_has(folder):
    import onnx

    config = (folder / "config.pbtxt").read_text()
    assert re.search(r'^name: "shop-2.1"$', config, flags=re.MULTILINE)
    assert re.search(r'^backend: "onnxruntime"$', config, flags=re.MULTILINE)
    assert "max_batch_size: 10000\ndynamic_batching { }\n" in config
    graph = onnx.load(folder / "1" / "model.onnx").graph
    kinds = {onnx.TensorProto.INT64: "INT64", onnx.TensorProto.FLOAT: "FP32"}
    for part, values in (("input", graph.input), ("output", graph.output)):
        shapes = {value.name: value.type.tensor_type for value in values}
        assert all(one.shape.dim[0].dim_param == export_onnx.ROWS for one in shapes.values())
        assert tensors(config, part) == {
            name: (kinds[one.elem_type], [dim.dim_value for dim in one.shape.dim[1:]]) for name, one in shapes.items()
        }


@needs_onnx
def test_the_file_scores_as_the_run_and_the_encoder_is_beside_it(folder, shop):
    ranker = Ranker.load(shop / "run")
    ids, dense = ranker.encoder.encode({"colour": ["c1", None], "shape": ["s0", "s4"], "size": [0.5, None]})
    found = export_onnx.onnx_program(folder / "1" / "model.onnx", ranker.names)(ids, dense)
    for name, values in ranker.predict_encoded(ids, dense).items():
        np.testing.assert_allclose(found[name], values, rtol=1e-4, err_msg=name)
    assert json.loads((folder / "encoder.json").read_text()) == json.loads((shop / "run" / "encoder.json").read_text())
    assert json.loads((folder / "dcrnn_fast.json").read_text())["model"] == ranker.id


def test_a_model_without_dense_columns_has_no_such_input():
    assert tensors(export_triton_server.config("m", 3, 0, ["click"]), "input") == {"ids": ("INT64", [3])}
    assert tensors(export_triton_server.config("m", 3, 2, ["click"]), "input") == {"ids": ("INT64", [3]), "dense": ("FP32", [2])}


def test_a_folder_that_is_there_stays_as_it_is(shop, tmp_path):
    (tmp_path / "shop").mkdir()
    with pytest.raises(DataError, match="is there already, and is not replaced; name another model, or delete it"):
        export(shop / "run", tmp_path / "shop", format="triton-server")
    assert not list((tmp_path / "shop").iterdir())


def test_if_the_disk_is_full_nothing_is_left(tmp_path, monkeypatch):
    (tmp_path / "model.onnx").write_bytes(b"onnx")

    def full(source, target):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(export_triton_server.shutil, "copyfile", full)
    with pytest.raises(DataError, match="shop cannot be written: No space left on device"):
        export_triton_server.write_model_folder(tmp_path / "shop", tmp_path / "model.onnx", "", {})
    assert [path.name for path in tmp_path.iterdir()] == ["model.onnx"]
