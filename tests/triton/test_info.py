"""What `info` says about measured tile sizes, and `info --warm`."""

import json

import pytest
import torch

from dcrnn_fast import info
from dcrnn_fast.kernels import tile_file
from dcrnn_fast.ops import backends

ENTRY = {
    "choice": "schedule",
    "kind": "bfloat16",
    "rows": 4096,
    "dim": 624,
    "columns": 624,
    "gates": 2,
    "steps": 3,
    "tasks": 2,
    "schedule": "step",
}


def test_info_says_that_nothing_was_measured():
    assert "tile sizes   none measured: tile sizes are predicted" in info.render()


def test_info_names_the_cards_of_the_users_and_the_shipped_files():
    path, shipped = tile_file.user_file("NVIDIA H100"), tile_file.shipped_file("NVIDIA H200")
    for file, card in ((path, "NVIDIA H100"), (shipped, "NVIDIA H200")):
        file.parent.mkdir(parents=True)
        file.write_text(json.dumps({"format": tile_file.FORMAT, "card": card, "entries": [{**ENTRY, "microseconds": 5.0}]}))
    expected = f"measured: NVIDIA H100, 1 choice ({path}); NVIDIA H200, 1 choice ({shipped})"
    assert f"tile sizes   {expected}" in info.render()


def test_info_survives_a_damaged_file_and_says_so(monkeypatch, folder):
    (folder / "broken.json").write_text("{")
    monkeypatch.setenv(tile_file.ENVIRONMENT, str(folder / "broken.json"))
    assert f"tile sizes   unreadable: {folder / 'broken.json'}: is no file of measured tile sizes" in info.render()


def test_info_queries_no_gpu(monkeypatch):
    def query(*arguments):
        raise AssertionError("a GPU was asked for")

    monkeypatch.setattr(backends, "_no_device", lambda: None)  # whether there is a GPU, which backends asks the driver once
    for name in ("get_device_name", "get_device_properties", "is_available", "_lazy_init"):
        monkeypatch.setattr(torch.cuda, name, query)
    info.render()


@pytest.mark.skipif(torch.cuda.is_available(), reason="of machines without a GPU")
def test_warm_without_a_gpu_is_one_error_line_and_exit_code_2(command):
    code, out, err = command("info", "--warm")
    assert (code, out) == (2, "")
    assert err.startswith("error: --warm measures on a GPU and cannot: ")
    assert err.count("\n") == 1


@pytest.mark.parametrize("wrong", ["0", "many", "256,", "-1"])
def test_a_wrong_batch_is_one_error_line(command, wrong):
    code, _, err = command("info", "--warm", f"--batch={wrong}")
    assert (code, err.count("\n")) == (2, 1)
    assert "expected whole numbers of at least 1" in err


def test_warm_measures_every_batch(command, monkeypatch):
    tile_measuring = pytest.importorskip("dcrnn_fast.ops.measure_tiles")
    calls = []

    def tune(*sizes, report, **options):
        calls.append((*sizes, options))
        report("step: 1.0 us")

    monkeypatch.setattr(tile_measuring, "tune", tune)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setitem(backends.REASONS, "triton", None)
    code, out, err = command("info", "--warm", "--dim", 64, "--batch", "8,16", "--batch", 32, "--tasks", 3, "--dtype", "tf32")
    assert code == 0, err
    assert calls == [(64, 3, batch, {"steps": 3, "kind": "tf32"}) for batch in (8, 16, 32)]
    assert "measuring 3/3: tf32, D=64, T=3, B=32, L=3\n  step: 1.0 us\n" in err
    assert "reference" in out
    calls.clear()
    assert command("info", "--warm")[0] == 0
    assert [call[:3] for call in calls] == [(624, 2, 256), (624, 2, 8192)]
