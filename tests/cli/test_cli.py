"""The command line: what it prints, where, and with which exit code."""

import json
import re

import pytest
import yaml

import dcrnn_fast
from dcrnn_fast import errors, training
from dcrnn_fast.cli import demo
from dcrnn_fast.training.config import flat, load_config
from tests.processes import run_python
from tests.training.tiny import tiny_config, write_table

ENTRY = "import sys; from dcrnn_fast.cli import main; main(sys.argv[1:])"


@pytest.fixture(scope="module")
def config(schema, tmp_path_factory):
    """run.yaml of a run of a second."""
    path = tmp_path_factory.mktemp("config") / "run.yaml"
    path.write_text(tiny_config(schema).to_yaml())
    return path


@pytest.fixture(scope="module")
def trained(config, tmp_path_factory):
    """A finished run and the process that trained it; do not write into it."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    return folder, run_python("-c", ENTRY, "train", "--config", config, "--output", folder)


def test_train_prints_progress_on_standard_error_and_then_the_test_table(trained, command):
    folder, process = trained
    assert process.returncode == 0, process.stderr
    assert "epoch 3/3" in process.stderr
    for text in ("task", "CTCVR", "buy_given_click", "GAUC", f"Run folder: {folder}"):
        assert text in process.stdout
    for text in (process.stdout, process.stderr):
        assert text.isascii()
        assert not {"\x1b", "\r"} & {*text}, "control codes in a pipe"
    code, out, _ = command("evaluate", "--run", folder, "--split", "valid")
    assert (code, "tiny, valid rows" in out) == (0, True)
    code, out, err = command("train", "--resume", "--output", folder)  # needs no configuration
    assert (code, "finished" in err, "CTCVR" in out) == (0, True, True)


def test_options_override_the_file(config, command, tmp_path):
    options = ["--epochs", 1, "--seed", 5, "--batch-size", 64, "--set", "model.steps=1", "--set", "model.cell=cross"]
    assert command("train", "--config", config, "--output", tmp_path / "run", "--quiet", *options) == (0, "", "")
    written = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())
    assert (written["seed"], written["optimiser"]["epochs"], written["optimiser"]["batch_size"]) == (5, 1, 64)
    assert (written["model"]["steps"], written["model"]["cell"]) == (1, "cross")


def test_info_prints_the_backends_and_version_the_version(command):
    code, out, _ = command("info")
    assert (code, "reference" in out) == (0, True)
    assert command("--version") == (0, f"dcrnn-fast {dcrnn_fast.__version__}\n", "")


@pytest.mark.parametrize("options", [["--help"], ["train", "--help"], ["--version"]])
@pytest.mark.parametrize(
    "start", [["-c", "import sys; sys.argv[0] = 'bin/dcrnn-fast'; from dcrnn_fast.cli import main; main()"], ["-m", "dcrnn_fast"]]
)
def test_help_and_version_import_no_heavy_library(start, options):
    process = run_python("-X", "importtime", *start, *options)
    assert process.returncode == 0, process.stderr
    assert "dcrnn" in process.stdout
    imported = {line.rpartition("|")[2].strip() for line in process.stderr.splitlines()}
    assert "typer" in imported
    assert not imported & {"torch", "numpy", "pyarrow", "sklearn", "matplotlib"}


def test_the_help_of_train_lists_every_key_with_its_default():
    listed = dict(re.findall(r"^  ([\w.]+)=(.*?)(?:  .*)?$", run_python("-m", "dcrnn_fast", "train", "--help").stdout, flags=re.MULTILINE))
    values = dict(flat(load_config(None, {"data": "-"}).to_dict()))
    assert listed == {key: json.dumps(value).strip('"') for key, value in values.items() if key != "data"}


def test_the_package_offers_a_command_the_same_names():
    script = (
        "import sys; sys.argv[0] = 'dcrnn-fast'; import dcrnn_fast; print('torch' in sys.modules); "
        "print([getattr(dcrnn_fast, name).__name__ for name in dcrnn_fast.__all__])"
    )
    assert run_python("-c", script).stdout == f"False\n{[getattr(dcrnn_fast, name).__name__ for name in dcrnn_fast.__all__]}\n"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["train", "--data", "absent"], "unknown data set 'absent'"),
        (["train", "--config", "absent.yaml"], "absent.yaml: cannot be read"),
        (["train"], "--data is missing: give an embedded data set (census-income, hillstrom), the schema of your own table"),
        (["train", "--data", "log.csv"], "log.csv is a table: draft its schema by `dcrnn-fast inspect --input "),
        (["train", "--data", "hillstrom", "--set", "model.share_ratio=1.5"], "model.share_ratio is 1.5: Input should be less than"),
        (["train", "--data", "hillstrom", "--set", "model.steps"], "expected KEY=VALUE"),
        (["train", "--data", "hillstrom", "--backend", "abacus"], "backend='abacus'"),
        (["train", "--data", "hillstrom", "--device", "cuda:99"], "device is 'cuda:99'"),
        (["train", "--data", "hillstrom", "--output", "/sys/dcrnn_fast_run"], "cannot write /sys/dcrnn_fast_run"),
        (["evaluate", "--run", "absent"], "absent holds no run"),
        (["demo", "--output", "."], "is not empty; choose another --output"),
    ],
)
def test_a_mistake_is_one_error_line_and_exit_code_2(command, tmp_path, monkeypatch, arguments, said):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "log.csv").write_text("user,click\n1,0\n")
    code, out, err = command(*arguments)
    assert (code, out) == (2, "")
    assert err.startswith("error: ")
    assert said in err
    assert err.count("\n") == 1
    assert command("train", "--nonsense")[0] == command("evaluate", "--run", ".", "--split", "future")[0] == 2


@pytest.mark.parametrize("begun", [False, True])
def test_an_interrupted_run_says_how_to_go_on(config, command, tmp_path, monkeypatch, begun):
    def interrupt(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(training, "train", interrupt)
    if begun:
        (tmp_path / "config.yaml").touch()
    code, _, err = command("train", "--config", config, "--output", tmp_path)
    said = f"go on with: dcrnn-fast train --resume --output {tmp_path}" if begun else "nothing was written yet"
    assert (code, err) == (130, f"interrupted; {said}\n")


def test_missing_extras_are_named_with_the_command_that_installs_them(command, monkeypatch):
    monkeypatch.setattr(errors, "find_spec", lambda name: None if name in ("typer", "rich") else object())
    code, out, err = command("info")
    assert (code, out) == (2, "")
    assert "needs rich, typer; run: pip install 'dcrnn_fast[train]'" in err


def test_demo_trains_and_prints_one_table_and_the_plots(command, monkeypatch, tmp_path):
    monkeypatch.setattr(demo, "DATA", ("hillstrom",))
    monkeypatch.setattr(demo, "load_config", lambda file, values: training.load_config(file, values | {"optimiser.epochs": 1}))
    monkeypatch.setenv("DCRNN_FAST_BACKEND", "reference")
    monkeypatch.chdir(tmp_path)
    code, out, err = command("demo")
    assert code == 0, err
    for text in ("hillstrom", "visit (CTR)", "conversion (CTCVR)", "conversion_given_visit (CVR)", "rows/s", "fast = reference"):
        assert text in out
    (plot,) = (tmp_path / "runs" / "demo").glob("*/curves.svg")
    assert str(plot.relative_to(tmp_path)) in out


def test_resume_finds_the_run_in_the_default_folder_and_its_settings(command, tmp_path, monkeypatch):
    write_table(tmp_path)
    monkeypatch.chdir(tmp_path)
    assert command("train", "--data", "tiny.yaml", "--epochs", 1, "--threads", 1, "--device", "cpu", "--quiet") == (0, "", "")
    code, _, err = command("train", "--data", "tiny.yaml", "--resume")
    assert code == 0, err
    assert "finished" in err
