"""The README and the pages: examples run and print what the page shows, and the tables are those of bench/results/."""

import inspect
import os
import re
import runpy
import subprocess
import sys

import pytest
import torch

from bench.pages import PAGES, ROOT, SECTIONS, render, whole
from bench.results import COMMITTED
from dcrnn_fast import DCRNN
from dcrnn_fast.training.config import ModelConfig
from dcrnn_fast.training.folder.weights import build_model
from tests.page import Reader, blocks

README = ROOT / "README.md"
EXAMPLES = [ROOT / "docs" / f"{name}.md" for name in ("api", "guide/choosing", "guide/encoding", "guide/training")]


def page_id(path):
    return str(path.relative_to(ROOT))


def examples(path):
    """Python blocks, each with the text block right after it, which is what it prints."""
    text = path.read_text(encoding="utf-8")
    return re.findall(r"```python\n(.*?)```(?:\n\n```text\n(.*?)```)?", text, flags=re.DOTALL)


def run(code, folder):
    environment = os.environ | {"DCRNN_FAST_CACHE": str(folder / "cache")}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=folder, env=environment)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("path", SECTIONS, ids=page_id)
def test_the_tables_are_those_of_the_result_files(path):
    assert render(path) == path.read_text(encoding="utf-8"), "run: python -m bench.pages"


@pytest.mark.parametrize("name", PAGES)
def test_the_pages_of_all_results_are_those_of_the_result_files(name):
    assert whole(name) == (COMMITTED / name).read_text(encoding="utf-8"), "run: python -m bench.pages"


def test_the_readmes_first_example_trains_and_scores_as_printed_in_a_clone(tmp_path):
    pytest.importorskip("pandas")
    (code, _), _ = examples(README)
    (tmp_path / "dcrnn_fast").symlink_to(ROOT / "dcrnn_fast")
    assert "conversion_given_visit" in run(code, tmp_path)
    assert (tmp_path / "runs" / "shop" / "model.safetensors").is_file()


@pytest.mark.parametrize("module", ["dcrnn_fast", "dcrnn_fast.reference"])
def test_the_readmes_second_example_runs_with_either_import(module, tmp_path):
    _, (code, _) = examples(README)
    assert "consume_given_click" in run(code.replace("from dcrnn_fast import DCRNN", f"from {module} import DCRNN"), tmp_path)


def test_the_readmes_second_example_has_the_model_of_the_trainer(tmp_path):
    file = tmp_path / "example.py"
    file.write_text(examples(README)[1][0])
    made = runpy.run_path(str(file))["model"]
    sizes = zip(made.field_names, made.num_embeddings, strict=True)
    about = {"model": {"embedding": "dense"}, "fields": sizes, "dense": ["a", "b"], "tasks": made.tasks, "relation": "chain"}
    trained = build_model(about | {"shared": {}, "pooled": {}}, device=torch.device("cpu"), backend="auto")
    assert made.plan == trained.plan
    assert str(made) == str(trained), "layers, widths, bins and dropout"
    own = {"embedding", "relation"}  # of the trainer: sparse gradients, and the relation that the data set has
    usual = {name: parameter.default for name, parameter in inspect.signature(DCRNN).parameters.items()}
    assert {name: usual[name] for name in ModelConfig.model_fields if name not in own} == ModelConfig().model_dump(exclude=own)


EACH_IN_A_FORK = """
import os, sys
import dcrnn_fast, dcrnn_fast.training

for number, code in enumerate({codes!r}):
    sys.stdout.flush()
    if (child := os.fork()) == 0:
        sys.stdout = open(f"printed-{{number}}", "w")
        exec(compile(code, f"example {{number + 1}}", "exec"), {{"__name__": "__main__"}})
        sys.stdout.flush()
        os._exit(0)
    if os.waitpid(child, 0)[1]:
        sys.exit(f"in this example:\\n{{code}}")
"""
"""Importing PyTorch takes most of the time of an example: a process does it once, and each example runs in a fork of it."""


@pytest.mark.parametrize("path", EXAMPLES, ids=page_id)
def test_a_pages_examples_run_and_print_what_it_shows(path, tmp_path):
    found = examples(path)
    assert found
    run(EACH_IN_A_FORK.format(codes=[code for code, _ in found]), tmp_path)
    for number, (code, shown) in enumerate(found):
        printed = (tmp_path / f"printed-{number}").read_text(encoding="utf-8")
        assert not shown or printed == shown, code


def test_your_own_data_runs_as_printed(tmp_path, monkeypatch, command, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DCRNN_FAST_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("COLUMNS", raising=False)
    reader = Reader(command, capsys)
    for block in blocks("guide/your-own-data.md"):
        reader.follow(block)


def test_from_lightgbm_trains_both_on_one_table(capsys):
    (code,) = [block.text for block in blocks("guide/from-lightgbm.md") if block.kind == "python"]
    exec(compile(code, "from-lightgbm.md", "exec"), {})
    found = re.findall(r"^(click|order) LightGBM (0\.\d+), DCRNN (0\.\d+)$", capsys.readouterr().out, re.MULTILINE)
    assert [task for task, *_ in found] == ["click", "order"]
    assert all(float(auc) > 0.7 for _, *aucs in found for auc in aucs)
