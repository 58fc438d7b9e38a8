"""scripts.gpu: what it runs on a GPU and in which order, what it keeps so that a later call goes on, and its dry run without a GPU."""

import json
import os
import shutil
import subprocess
import sys
from types import SimpleNamespace

import pytest

from .conftest import ROOT

FACTS = {"torch": "2.11.0", "card": "Test Card", "capability": "9.0"}


@pytest.fixture
def gpu(script, tmp_path, monkeypatch):
    """The script, with the test's own folder."""
    module = script("gpu.__main__")
    monkeypatch.setattr(module, "FOLDER", tmp_path / "gpu")
    monkeypatch.delenv("OUT", raising=False)
    return module


@pytest.fixture
def call(gpu, monkeypatch, capsys):
    """Calls the script on a card of the test's making, with fake commands that log their names; returns its exit code and what it says."""
    where = gpu.FOLDER / "tree"
    original = gpu.stages_on_gpu

    def run(*arguments, codes=None, sources="abc", facts=FACTS, cuda=True, build=0):
        def copy(target):
            for name in ("scripts/gpu", "dcrnn_fast"):
                (target / name).mkdir(parents=True, exist_ok=True)
            for name in ("scripts/__init__.py", "scripts/gpu/__init__.py"):
                (target / name).touch()
            (target / "scripts/gpu/device.py").write_text(f"print({json.dumps(facts)!r})")
            (target / "setup.py").write_text(
                "import os, pathlib\n"
                "print(os.environ.get('TORCH_CUDA_ARCH_LIST'), file=open('builds.txt', 'a'))\n"
                f"if {build}: raise SystemExit({build})\n"
                f"for name in ('_C', {'_C_cuda' if cuda else '_C'!r}): pathlib.Path(f'dcrnn_fast/{{name}}.so').touch()\n"
            )
            return sources

        def faked(runs):
            program = "import sys; print(*sys.argv[1:], file=open('calls.txt', 'a')); print('said'); sys.exit(int(sys.argv[2]))"
            for stage in original(runs):
                code = (codes or {}).get(stage.name, 0)
                yield stage._replace(arguments=(sys.executable, "-c", program, stage.name, str(code)))

        monkeypatch.setattr(gpu.tree, "copy", copy)
        monkeypatch.setattr(gpu, "stages_on_gpu", faked)
        (where / "calls.txt").unlink(missing_ok=True)
        code = gpu.main(list(arguments))
        called = (where / "calls.txt").read_text().splitlines() if (where / "calls.txt").is_file() else []
        return SimpleNamespace(code=code, called=[line.split()[0] for line in called], lines=called, said=capsys.readouterr().out)

    run.where = where
    return run


STAGES = ["smoke-triton", "smoke-cuda", "headline", "trainer-512", "trainer-4096", "tests"]
STAGES += ["sanitizer-memcheck", "sanitizer-racecheck", "sanitizer-synccheck"]


def kept_of(gpu):
    (found,) = gpu.FOLDER.glob("Test-Card-*")
    return found


def test_what_matters_most_runs_first_and_logs_and_facts_are_kept(gpu, call):
    done = call()
    assert (done.code, done.called) == (0, STAGES)
    assert "\nsaid\n" in (kept_of(gpu) / "headline.log").read_text()
    assert json.loads((kept_of(gpu) / "facts.json").read_text()) == FACTS


def test_only_some_stages_run(call):
    assert call("--only", "smoke,headline", cuda=False).called == ["smoke-triton", "headline"]


def test_a_stage_that_fails_hides_no_other_and_a_later_call_runs_it_alone(gpu, call):
    done = call(codes={"trainer-512": 1, "tests": 1})
    assert (done.code, done.called) == (1, STAGES)
    record = json.loads((kept_of(gpu) / "record.json").read_text())
    assert [name for name, stage in record.items() if stage["state"] == "failed"] == ["trainer-512", "tests"]
    done = call()
    assert (done.code, done.called) == (0, ["trainer-512", "tests"])
    assert call().called == []


def test_a_backend_whose_smoke_test_is_red_is_not_timed(call):
    done = call("--only", "smoke,headline", codes={"smoke-cuda": 1})
    assert (done.code, done.lines[-1]) == (1, "headline 0 --without cuda")
    assert call("--only", "headline").called == []
    assert call("--only", "smoke,headline").called == ["smoke-cuda", "headline"], "the figures of the other one are not all"


def test_it_builds_for_the_card_alone(call):
    call("--only", "smoke")
    assert (call.where / "builds.txt").read_text() == "9.0\n"


def test_after_a_red_build_no_earlier_one_is_left_and_triton_runs(call):
    call("--only", "smoke")
    done = call("--only", "smoke", sources="other", build=1)
    assert (done.code, done.called) == (1, ["smoke-triton"])
    assert list((call.where / "dcrnn_fast").iterdir()) == []


@pytest.mark.parametrize("changed", [{"sources": "other"}, {"facts": {**FACTS, "card": "Other Card"}}, {"facts": {**FACTS, "torch": "3"}}])
def test_what_passed_counts_for_the_same_sources_card_and_versions_alone(call, changed):
    call("--only", "smoke")
    assert call("--only", "smoke", **changed).called == STAGES[:2]
    assert call("--only", "smoke").called == []


def test_results_go_to_out_and_a_machine_that_gets_them_goes_on(gpu, call, tmp_path, monkeypatch):
    monkeypatch.setenv("OUT", str(tmp_path / "first"))
    call("--only", "smoke")
    (packed,) = (tmp_path / "first").iterdir()
    assert (packed / "smoke-triton.log").is_file()
    monkeypatch.setenv("OUT", str(tmp_path / "second"))  # empty, as at each call on a lent machine
    assert call("--only", "smoke,tests").called == ["tests"]
    shutil.rmtree(gpu.FOLDER)
    shutil.copytree(packed, gpu.FOLDER / packed.name)
    assert call("--only", "smoke,tests").called == ["tests"]


def test_when_the_minutes_are_used_up_nothing_new_starts_and_nothing_failed(call):
    done = call("--minutes", "1e-9")
    assert (done.code, done.called) == (0, [])
    assert "the minutes are used up; the same command goes on" in done.said


def runs_in(gpu, folder, seconds=0):
    return gpu.Run(folder, folder / "kept", seconds)


def test_a_command_that_is_not_there_fails_its_stage(gpu, tmp_path, capsys):
    runs = runs_in(gpu, tmp_path)
    assert not runs.run(gpu.Stage("absent", ("no-such-command-here",)))
    assert runs.state("absent") == "failed"
    assert "no-such-command-here" in capsys.readouterr().out


def test_tests_that_are_interrupted_leave_what_failed_and_a_later_call_begins_there(gpu, tmp_path, monkeypatch):
    (tmp_path / "test_one.py").write_text(
        "import os, time\n"
        "def test_passes(): pass\n"
        "def test_fails(): assert 'LATER' in os.environ\n"
        "def test_waits(): time.sleep(0 if 'LATER' in os.environ else 60)\n"
    )

    def tests_of(runs):
        (found,) = [stage for stage in gpu.stages_on_gpu(runs) if stage.name == "tests"]
        options = [found.arguments[found.arguments.index(name)] for name in ("--last-failed", "--failed-first") if name in found.arguments]
        cache = found.arguments[-2:]
        return gpu.Stage("tests", (*gpu.PYTEST, "test_one.py", "-v", "-p", "no:xdist", *options, *cache)), options

    runs = runs_in(gpu, tmp_path, seconds=5)
    stage, options = tests_of(runs)
    assert not runs.run(stage)
    assert (runs.state("tests"), options) == ("unfinished", ["--failed-first"])
    monkeypatch.setenv("LATER", "1")
    runs = runs_in(gpu, tmp_path)
    stage, options = tests_of(runs)
    assert (runs.run(stage), options) == (True, ["--failed-first"])
    lines = [line for line in (runs.folder / "tests.log").read_text().splitlines() if "PASSED" in line]
    assert "test_fails" in lines[-3]
    runs.record["tests"]["state"] = "failed"
    assert tests_of(runs)[1] == ["--last-failed"]


def test_the_interpreter_is_off_and_packages_on_pythonpath_come_after_the_sources(gpu, tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", "/carried")
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    program = "import os; print(os.environ['PYTHONPATH'], os.environ.get('TRITON_INTERPRET'))"
    runs = runs_in(gpu, tmp_path)
    assert runs.run(gpu.Stage("paths", (sys.executable, "-c", program)))
    assert (runs.folder / "paths.log").read_text().splitlines()[
        -1
    ] == f"{os.pathsep.join([str(tmp_path), str(gpu.FOLDER / 'packages'), '/carried'])} None"


def test_a_call_ends_within_ten_minutes_unless_it_is_told_otherwise(gpu, capsys):
    with pytest.raises(SystemExit):
        gpu.main(["--help"])
    assert "default: 8;" in capsys.readouterr().out
    assert 8 * 60 + gpu.GRACE < 600


@pytest.mark.parametrize("wrong", [["--only", "everything"], ["--minutes", "soon"]])
def test_a_wrong_option_exits_with_2(gpu, wrong):
    with pytest.raises(SystemExit) as caught:
        gpu.main(wrong)
    assert caught.value.code == 2


WITHOUT = {"torch": "2.11.0", "no CUDA device": "PyTorch finds none"}


@pytest.mark.parametrize(("code", "ends_with"), [(0, 3), (1, 1)])
def test_without_a_gpu_a_dry_run_ends_with_3_and_with_1_if_a_part_fails(gpu, call, monkeypatch, code, ends_with):
    monkeypatch.setattr(gpu.shutil, "which", lambda name: None)
    monkeypatch.setattr(gpu, "stages_dry", lambda: [gpu.Stage("smoke", (sys.executable, "-c", f"raise SystemExit({code})"))])
    done = call(facts=WITHOUT)
    assert done.code == ends_with
    assert done.said.endswith("gpu: no CUDA device: PyTorch finds none\n")


def test_a_machine_with_a_gpu_that_pytorch_does_not_see_makes_no_dry_run(gpu, call, monkeypatch):
    monkeypatch.setattr(gpu.shutil, "which", lambda name: f"/usr/bin/{name}")
    done = call(facts=WITHOUT)
    assert (done.code, done.said) == (3, "gpu: nvidia-smi is here, but no CUDA device: PyTorch finds none\n")


def test_in_a_dry_run_pytest_sees_no_package_that_a_machine_with_a_gpu_may_lack(script, tmp_path):
    (tmp_path / "test_one.py").write_text(
        "import pytest\ndef test_it():\n    with pytest.raises(ModuleNotFoundError):\n        import pydantic\n"
    )
    paths = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    command = [*script("gpu.__main__").PYTEST, "-p", "scripts.gpu.bare", "-p", "no:cacheprovider", "test_one.py"]
    done = subprocess.run(command, cwd=tmp_path, env={**os.environ, "PYTHONPATH": paths}, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


@pytest.mark.skipif(shutil.which("make") is None, reason="no make on this machine")
def test_make_gpu_needs_no_virtual_environment():
    command = ["make", "--no-print-directory", "-n", "gpu", "PYTHON=python3.12", "OPTIONS=--only tests"]
    own = {name: value for name, value in os.environ.items() if name not in ("MAKEFLAGS", "MAKELEVEL")}  # these tests may run under make
    done = subprocess.run(command, cwd=ROOT, env=own, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip().endswith("python3.12 -m scripts.gpu --only tests")
    assert "venv" not in done.stdout
