"""The examples of docs/guide/scale.md: the code on it, and the training loop that it names, whose weights a plain DCRNN takes."""

import contextlib
import io
import os
import re
import runpy
from pathlib import Path

import pytest

pytest.importorskip("torchrec")

from safetensors.torch import load_file

import dcrnn_fast
from dcrnn_fast.data import prepare
from tests.test_readme import examples
from tests.training.tiny import write_table

from .models import on_two_ranks

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "guide" / "scale.md"
COMMAND = "torchrun --nproc-per-node 2 examples/train_with_torchrec.py"


def test_the_pages_code_runs_and_prints_what_it_shows():
    names = {}
    for code, shown in examples(PAGE):
        with contextlib.redirect_stdout(io.StringIO()) as printed:
            exec(code, names)
        assert printed.getvalue() == shown, code
    assert "served" in names


def example(rank, schema, output, cache):
    """Run the example; returns what it prints."""
    os.environ["DCRNN_FAST_CACHE"] = cache
    main = runpy.run_path(str(ROOT / COMMAND.split()[-1]))["main"]
    main.__globals__["BATCH"] = 64  # the table is small
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        main(schema, output)
    return printed.getvalue()


def test_the_pages_example_learns_and_writes_weights_of_a_plain_model(tmp_path, monkeypatch):
    assert f"    {COMMAND} " in PAGE.read_text(encoding="utf-8")
    monkeypatch.setenv("DCRNN_FAST_CACHE", str(tmp_path / "cache"))
    schema, output = str(write_table(tmp_path / "data")), str(tmp_path / "weights.safetensors")
    said, quiet = on_two_ranks(example, schema, output, str(tmp_path / "cache"))
    losses = [float(loss) for loss in re.findall(r"loss of rank 0 is ([0-9.]+)$", said, flags=re.MULTILINE)]
    assert len(losses) == 3, said
    assert losses[2] < losses[1] < losses[0]
    assert re.search(r"^test loss of the plain DCRNN: [0-9.]+$", said, flags=re.MULTILINE)
    assert quiet == ""
    meta = prepare(schema).meta
    model = dcrnn_fast.DCRNN(meta.fields, num_dense=1, tasks=meta.tasks)
    model.load_state_dict(load_file(output))
