"""scripts/gpu.py: the order of its steps, and what it says without a GPU."""

import os
import shutil
import subprocess
import sys
import time

import pytest

from .conftest import ROOT


@pytest.fixture
def gpu(script, tmp_path, monkeypatch):
    """The script, with the test's own build folder."""
    module = script("gpu")
    monkeypatch.setattr(module, "FOLDER", tmp_path / "gpu")
    monkeypatch.setenv("OUT", str(tmp_path / "out"))
    return module


def say(gpu, text, code=0, **options):
    return gpu.Command((sys.executable, "-c", f"import sys; print({text!r}); sys.exit({code})"), **options)


@pytest.fixture
def device(gpu, monkeypatch):
    """A run with fake commands on a card of the test's making; returns the exit code, the outcomes and the runner."""
    for folder in ("gpu", "out", "tree"):
        (gpu.FOLDER.parent / folder).mkdir()
    where = gpu.FOLDER.parent / "tree"
    (where / "scripts").mkdir()
    (where / "scripts" / "gpu_device.py").write_text("print('card: Test Card')\n")
    (where / "setup.py").write_text("")

    def run(*arguments, codes=None, sources="abc", ends=None, build=0):
        (where / "setup.py").write_text(f"raise SystemExit({build})")

        def steps(python, only, *, extension, tuned):
            real = gpu.steps_of(python, only, extension=extension, tuned=tuned)
            code = codes or {}
            return [gpu.Step(s.name, (say(gpu, s.name, code.get(s.name, 0)), say(gpu, "second")), s.needs) for s in real]

        runner = gpu.Runner(gpu.FOLDER.parent / "out", where, ends=ends)
        result = gpu.run(runner, gpu.parse(list(arguments)), steps=steps, sources=sources)
        return result, {name: outcome.state for name, outcome in runner.outcomes.items()}, runner

    return run


ALL_PASSED = dict.fromkeys(["environment", "build", "tests", "sanitizer", "tune", "bench"], "passed")


def test_the_steps_run_in_order_each_with_its_log(device):
    code, outcomes, runner = device()
    assert (code, outcomes) == (0, ALL_PASSED)
    assert list(outcomes) == list(ALL_PASSED)
    assert runner.log("tests").read_text().splitlines()[1] == "tests"
    assert runner.summary().splitlines()[-1].split()[:2] == ["bench", "passed"]


def test_nothing_is_timed_after_red_tests(device):
    code, outcomes, runner = device(codes={"tests": 1})
    assert code == 1
    assert outcomes == {**ALL_PASSED, "tests": "failed", "tune": "not run", "bench": "not run"}
    assert "second" in runner.log("tests").read_text(), "a step's further commands run all the same"
    assert "exit code 1" in runner.outcomes["tests"].why


def test_nothing_is_tested_after_a_red_build(device):
    code, outcomes, _ = device(build=1)
    assert code == 1
    assert outcomes == {**dict.fromkeys(ALL_PASSED, "not run"), "environment": "passed", "build": "failed"}


def test_a_failed_sanitizer_does_not_keep_the_benchmarks_from_running(device):
    code, outcomes, _ = device(codes={"sanitizer": 9})
    assert (code, outcomes) == (1, {**ALL_PASSED, "sanitizer": "failed"})


def test_benchmarks_alone_need_tests_that_passed_on_the_same_sources(device):
    assert device("--only", "bench")[:2] == (1, {"environment": "passed", "build": "passed", "bench": "not run"})
    assert device("--only", "tests")[0] == 0
    assert device("--only", "bench")[1]["bench"] == "passed"
    assert device("--only", "bench", sources="changed")[1]["bench"] == "not run"
    assert device("--only", "tests", codes={"tests": 1})[0] == 1
    assert device("--only", "bench")[1]["bench"] == "not run"


def test_without_a_build_what_was_built_before_is_tested(device):
    code, outcomes, _ = device("--no-build", build=1)
    assert (code, outcomes) == (0, {name: state for name, state in ALL_PASSED.items() if name != "build"})


def test_when_the_minutes_are_used_up_nothing_new_starts_and_nothing_failed(device):
    code, outcomes, _ = device("--no-build", ends=time.monotonic() - 1)
    assert code == 3, "the environment was not looked at either"
    assert set(outcomes.values()) == {"not run"}


def test_a_command_that_outlives_its_time_is_ended_and_one_that_stops_itself_is_told_it(gpu, tmp_path):
    sleep = gpu.Command((sys.executable, "-c", "import time; time.sleep(60)"))
    runner = gpu.Runner(tmp_path, tmp_path, ends=time.monotonic() + 1)
    assert not runner.run(gpu.Step("slow", (sleep,)))
    assert "ended, the minutes were used up" in runner.outcomes["slow"].why
    assert runner.outcomes["slow"].seconds < 30
    told = gpu.Command((sys.executable, "-c", "import sys; print(sys.argv[1:])"), stops_itself=True)
    runner = gpu.Runner(tmp_path, tmp_path, ends=time.monotonic() + 60)
    assert runner.run(gpu.Step("told", (told,)))
    assert "['--minutes', '1.00']" in runner.log("told").read_text()


def test_a_command_that_is_not_there_fails_its_step(gpu, tmp_path):
    runner = gpu.Runner(tmp_path, tmp_path)
    assert not runner.run(gpu.Step("absent", (gpu.Command(("no-such-command-here",)), say(gpu, "second"))))
    assert "no-such-command-here: cannot be started" in runner.outcomes["absent"].why
    assert "second" in runner.log("absent").read_text()


def test_the_interpreter_is_off_in_every_command(gpu, tmp_path, monkeypatch):
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    runner = gpu.Runner(tmp_path, tmp_path)
    runner.run(gpu.Step("variable", (gpu.Command((sys.executable, "-c", "import os; print(os.environ.get('TRITON_INTERPRET'))")),)))
    assert runner.log("variable").read_text().splitlines()[-1] == "None"


def test_a_copy_forgets_what_other_sources_measured(gpu, sources):
    where = gpu.FOLDER / "tree"
    first = gpu.copy_sources(where)
    measured = [where / "bench" / "results" / "cross_rnn_card.json", gpu.FOLDER / "tuning.json"]
    for path in measured:
        path.parent.mkdir(exist_ok=True)
        path.write_text("measured")
    assert gpu.copy_sources(where) == first
    assert all(path.is_file() for path in measured)
    (sources / "kernels" / "one.py").write_text("changed")
    assert gpu.copy_sources(where) != first
    assert not any(path.is_file() for path in measured)


@pytest.mark.parametrize("wrong", [["--only", "everything"], ["--minutes", "soon"]])
def test_a_wrong_option_exits_with_2(gpu, wrong, capsys):
    with pytest.raises(SystemExit) as caught:
        gpu.parse(wrong)
    assert caught.value.code == 2


def test_without_a_gpu_it_says_so_and_exits_with_3(gpu, monkeypatch, capsys):
    import torch

    if torch.cuda.is_available():
        pytest.skip("of machines without a GPU")
    monkeypatch.setattr(sys, "argv", ["gpu.py", "--no-build"])
    code = gpu.main()
    said = capsys.readouterr().out
    assert code == 3, said + "".join(path.read_text() for path in (gpu.FOLDER.parent / "out").glob("*.log"))[-3000:]
    assert "\ngpu: no CUDA device: PyTorch" in said
    assert said.splitlines()[-1].startswith("offline      passed")
    out = gpu.FOLDER.parent / "out"
    assert sorted(path.name for path in out.iterdir()) == ["environment.log", "offline.log", "summary.txt"]
    assert "triton backend" not in said
    assert "cross_rnn" in (out / "offline.log").read_text()


@pytest.mark.skipif(shutil.which("make") is None, reason="no make on this machine")
def test_make_gpu_needs_no_virtual_environment():
    if not (ROOT / "Makefile").is_file():
        pytest.skip("the tests lie without the Makefile")
    command = ["make", "--no-print-directory", "-n", "gpu", "PYTHON=python3.12", "GPU_OPTIONS=--only tests"]
    own = {name: value for name, value in os.environ.items() if name not in ("MAKEFLAGS", "MAKELEVEL")}  # these tests may run under make
    done = subprocess.run(command, cwd=ROOT, env=own, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip().endswith("python3.12 scripts/gpu.py --only tests")
    assert "venv" not in done.stdout
