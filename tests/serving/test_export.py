"""An exported file scores as its run does, and says what it needs."""

import json
import pickletools
import shutil
import subprocess
import zipfile

import numpy as np
import pandas as pd
import pytest
import torch
from typer.testing import CliRunner

from dcrnn_fast import Ranker
from dcrnn_fast.cli.commands import app
from dcrnn_fast.errors import DataError, ExportError
from dcrnn_fast.serving import export, load_exported, score_files
from dcrnn_fast.serving.export import export as exporting
from dcrnn_fast.serving.export import load as exported
from dcrnn_fast.serving.export import package
from dcrnn_fast.serving.http.served import load_served
from tests.damage import fill_disk
from tests.shop import CHOOSES_CPUS

from .archives import rewritten, with_json

ROWS = {"colour": ["c1", "c8", "unseen"], "shape": ["s0", None, "s4"], "size": [0.5, -1.25, None]}
needs_v3 = pytest.mark.skipif(
    not CHOOSES_CPUS or package.missing_here(package.portable_kind()) is not None, reason="needs Linux on x86-64-v3 and PyTorch 2.13"
)


@pytest.fixture(scope="module", params=["cpp", "reference"])
def backend(request):
    return request.param


@pytest.fixture(scope="module")
def file(request, shop, backend, tmp_path_factory):
    if backend == "cpp":
        return request.getfixturevalue("exported")
    path = tmp_path_factory.mktemp(f"exported-{backend}") / "shop.pt2"
    assert export(shop / "run", path, backend=backend) <= exporting.TOLERANCE
    return path


def assert_same(found, expected, rtol=1e-5):
    assert list(found) == list(expected)
    for name, values in expected.items():
        assert found[name].dtype == np.float32, name
        np.testing.assert_allclose(found[name], values, rtol=rtol, err_msg=name)


def test_it_scores_raw_rows_as_the_run_does_without_the_run_folder(shop, file, backend, tmp_path):
    ranker = load_exported(shutil.copy(file, tmp_path / "moved.pt2"))
    run = Ranker.load(shop / "run", backend=backend)
    assert (ranker.names, ranker.columns) == (run.names, run.columns)
    assert_same(ranker.predict(ROWS), run.predict(ROWS))
    one = {name: cells[0] for name, cells in ROWS.items()}
    assert_same(ranker.predict(one), run.predict(one))


def test_a_server_takes_it_and_says_what_it_is(file, backend):
    served = load_served(file, load_exported)
    assert served.names == ("click", "buy", "buy_given_click")
    about = served.about
    assert (about["format"], about["kind"], about["backend"], about["torch"]) == (1, "pt2", backend, torch.__version__)
    assert set(about["operators"]) == ({"dcrnn_fast::low_rank_cross_rnn"} if backend == "cpp" else set())
    assert about["tasks"] == ["click", "buy"]


@pytest.mark.parametrize("rows", [0, 1, 2, 3, 1500])
def test_tables_and_files_of_any_size_are_scored(shop, file, rows, tmp_path, monkeypatch):
    monkeypatch.setattr(exported, "BATCH", 700)
    table = pd.read_csv(shop / "tiny.csv")[:rows]
    found = load_exported(file).predict(table)
    assert found["click"].shape == (rows,)
    assert_same(found, Ranker.load(shop / "run").predict(table))
    if rows:
        table.to_csv(tmp_path / "rows.csv")
        assert score_files(load_exported(file), [tmp_path / "rows.csv"], tmp_path / "scores.parquet") == (rows, 0)


def is_pickle(content):
    """Whether the bytes are one to its end; the values of a weight may begin like it."""
    try:
        return content.startswith(b"\x80") and bool([*pickletools.genops(content)])
    except Exception:
        return False


def test_it_holds_the_runs_encoder_and_neither_pickles_nor_paths(shop, file):
    with zipfile.ZipFile(file) as archive:
        entries = {name.partition("/")[2]: archive.read(name) for name in archive.namelist()}
    assert json.loads(entries["extra/encoder.json"]) == json.loads((shop / "run" / "encoder.json").read_text())
    assert entries["data/sample_inputs/model.pt"] == b""
    assert not [name for name, content in entries.items() if content.startswith(b"PK") or is_pickle(content)]
    assert b".py" not in entries["models/model.json"]


def test_a_file_that_would_differ_from_the_model_is_not_written(shop, tmp_path, monkeypatch):
    real = exporting.traced

    def another(model, calibration):
        wrong = Ranker.load(shop / "run", backend="reference").model
        wrong.features.embedding.weight.data += 0.01
        return real(wrong, calibration)

    monkeypatch.setattr(exporting, "traced", another)
    (tmp_path / "shop.pt2").write_bytes(b"earlier")
    with pytest.raises(ExportError, match=r"click differs by .*nothing was written"):
        export(shop / "run", tmp_path / "shop.pt2")
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"shop.pt2": b"earlier"}


def test_a_full_disk_is_named_and_leaves_the_earlier_file(shop, tmp_path, monkeypatch):
    (tmp_path / "shop.pt2").write_bytes(b"earlier")
    fill_disk(monkeypatch)
    with pytest.raises(DataError, match=r"output .*shop\.pt2 cannot be written: No space left on device; name another path"):
        export(shop / "run", tmp_path / "shop.pt2", backend="reference", rows=1)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"shop.pt2": b"earlier"}


def test_the_command_writes_the_file_and_says_how_far_it_is_from_the_model(shop, tmp_path):
    result = CliRunner().invoke(app, ["export", "--run", str(shop / "run"), "--output", str(tmp_path / "shop.pt2")])
    assert result.exit_code == 0, result.output
    assert "10,000 drawn rows: no probability differs from the model's by more than" in result.output
    assert "format pt2" in result.output
    assert load_exported(tmp_path / "shop.pt2").names == ("click", "buy", "buy_given_click")


def machine_code(path, folder):
    """The instructions of a compiled file, as objdump writes them."""
    with zipfile.ZipFile(path) as archive:
        library = archive.extract(next(name for name in archive.namelist() if name.endswith(".so")), folder)
    return subprocess.run(["objdump", "-d", "--no-show-raw-insn", library], capture_output=True, text=True, check=True).stdout


@needs_v3
def test_a_portable_compiled_file_scores_as_the_calibrated_run(calibrated_shop, compiled, tmp_path, monkeypatch, caplog):
    run, ranker = Ranker.load(calibrated_shop / "run"), load_exported(compiled)
    for table in (ROWS, {column: cells[:1] for column, cells in ROWS.items()}):
        assert_same(ranker.predict(table), run.predict(table), rtol=1e-4)
    assert ranker.about["kind"] == "aoti"
    warned = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert not [said for said in warned if "mismatch" in said], "PyTorch warns of instruction sets that were compared already"
    assert not [name for name in ranker.about["cpu"]["instructions"] if name.startswith(("avx512", "amx", "avx_"))]
    code = machine_code(compiled, tmp_path)
    assert "%ymm" in code
    assert "%zmm" not in code

    def older(about):
        about["torch"] = "2.1.0"

    about = rewritten(compiled, tmp_path / "older.pt2", {"extra/dcrnn_fast.json": with_json(older)})
    with pytest.raises(ExportError, match=r"was compiled for PyTorch '2\.1\.0'"):
        load_exported(about)
    monkeypatch.setattr(package, "_instructions", lambda: ["sse2"])
    with pytest.raises(ExportError, match=r"another kind of CPU: this one lacks .*avx"):
        load_exported(compiled)


def test_without_a_compiler_nothing_is_compiled(shop, tmp_path):
    missing = torch._inductor.config.patch({"cpp.cxx": ("no-such-compiler",)})
    with missing, pytest.raises(ExportError, match=r"format aoti needs a C\+\+ compiler.*--format pt2"):
        export(shop / "run", tmp_path / "shop.pt2", format="aoti")
    assert not list(tmp_path.iterdir())
