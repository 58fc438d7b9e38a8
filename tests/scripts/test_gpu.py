"""scripts.gpu: the order of its steps, what it packs and takes up again, and its dry run without a GPU."""

import gzip
import io
import os
import re
import shutil
import subprocess
import sys
import tarfile
import time
import zipfile

import pytest

from .conftest import ROOT


@pytest.fixture
def gpu(script, tmp_path, monkeypatch):
    """The script, with the test's own build folder."""
    module = script("gpu.__main__")
    monkeypatch.setattr(module, "FOLDER", tmp_path / "gpu")
    monkeypatch.setenv("OUT", str(tmp_path / "out"))
    return module


def say(gpu, text, code=0, **options):
    said = f"print({text!r}, *filter(None, [os.environ.get('DCRNN_FAST_LEFT_OUT')]))"
    return gpu.Command((sys.executable, "-c", f"import os, sys; {said}; sys.exit({code})"), **options)


@pytest.fixture
def results(gpu):
    """What the calls of a test keep."""
    gpu.FOLDER.mkdir()
    return gpu.Results(gpu.FOLDER, gpu.FOLDER / "tree")


@pytest.fixture
def device(gpu, results, monkeypatch):
    """A run with fake commands on a card of the test's making; returns the exit code, the outcomes and the runner."""
    where, logs = results.where, results.logs
    (where / "scripts" / "gpu").mkdir(parents=True)
    for folder in (where / "scripts", where / "scripts" / "gpu"):
        (folder / "__init__.py").touch()
    logs.mkdir()
    results.sources.write_text("abc")

    def run(*arguments, codes=None, sources="abc", ends=None, build=0, card="Test Card", lacks="nothing"):
        (where / "scripts" / "gpu" / "device.py").write_text(
            f"print('capability: 9.0'); print('card: {card}'); print('trainer lacks: {lacks}')\n"
        )
        (where / "setup.py").write_text(f"import os; print(os.environ['TORCH_CUDA_ARCH_LIST']); raise SystemExit({build})")

        def steps(python, only, **options):
            code = codes or {}
            return [
                gpu.Step(
                    step.name,
                    tuple(
                        say(gpu, command.name or step.name, code.get(command.name or step.name, 0), name=command.name, least=command.least)
                        for command in step.commands
                    ),
                    step.needs,
                )
                for step in gpu.steps_of(python, only, **options)
            ]

        runner = gpu.Runner(logs, where, ends=ends)
        result = gpu.run(runner, results, gpu.parse(list(arguments)), steps=steps, sources=sources)
        return result, {name: outcome.state for name, outcome in runner.outcomes.items()}, runner

    return run


ALL_PASSED = dict.fromkeys(["environment", "build", "smoke", "headline", "trainer", "tests", "bench", "sanitizer"], "passed")


def test_the_steps_run_in_order_each_with_its_log(device):
    code, outcomes, runner = device()
    assert (code, outcomes) == (0, ALL_PASSED)
    assert list(outcomes) == list(ALL_PASSED)
    assert runner.log("smoke").read_text().splitlines()[1] == "triton"
    assert runner.summary().splitlines()[-1].split()[:2] == ["sanitizer", "passed"]


def test_it_builds_for_the_architecture_of_the_card_alone(device, monkeypatch):
    monkeypatch.delenv("TORCH_CUDA_ARCH_LIST", raising=False)
    assert device()[2].log("build").read_text().splitlines()[-1] == "9.0"


def test_after_a_red_smoke_test_nothing_is_timed_and_what_finds_the_fault_runs(device):
    code, outcomes, _ = device(codes={"triton": 1})
    assert code == 1
    assert outcomes == {**ALL_PASSED, "smoke": "failed", **dict.fromkeys(["headline", "trainer", "bench"], "blocked")}


@pytest.mark.parametrize("red", ["triton", "cuda"])
def test_a_backend_whose_smoke_test_is_red_is_not_timed_and_the_other_one_is(device, results, red):
    (results.where / "dcrnn_fast").mkdir()
    (results.where / "dcrnn_fast" / "_C_cuda.so").write_text("")
    code, outcomes, runner = device(codes={red: 1})
    assert (code, outcomes) == (1, {**ALL_PASSED, "smoke": "failed"})
    said = {step: runner.log(step).read_text().splitlines()[1] for step in ("headline", "bench", "tests")}
    assert said == {"headline": f"headline {red}", "bench": f"bench {red}", "tests": "tests"}
    code, outcomes, runner = device()
    assert (code, outcomes["smoke"], runner.log("headline").read_text().splitlines()[-1]) == (0, "passed", "headline"), "not measured again"


def test_a_red_test_stops_no_other_step(device):
    code, outcomes, runner = device(codes={"tests": 1})
    assert (code, outcomes) == (1, {**ALL_PASSED, "tests": "failed"})
    assert "exit code 1" in runner.outcomes["tests"].why


def test_a_part_that_cannot_end_in_time_does_not_start(gpu, device):
    code, outcomes, runner = device("--only", "smoke,trainer,tests", ends=time.monotonic() + gpu.TRAINER_SECONDS)
    assert (code, outcomes["trainer"], outcomes["tests"]) == (0, "unfinished", "passed")
    assert re.match(r"1\d\d s were left before: ", runner.outcomes["trainer"].why)


def test_after_a_red_build_the_kernels_without_one_run_and_what_was_built_before_is_gone(device, results):
    (results.where / "dcrnn_fast").mkdir()
    (built := results.where / "dcrnn_fast" / "_C.old.so").write_text("")
    code, outcomes, _ = device(build=1)
    assert (code, outcomes) == (1, {**ALL_PASSED, "build": "failed"})
    assert not built.exists()


def test_a_part_that_passed_does_not_run_again_on_the_same_sources_and_card(gpu, device):
    code, outcomes, runner = device("--only", "smoke,sanitizer", codes={"racecheck": 1})
    assert (code, outcomes["sanitizer"]) == (1, "failed")
    assert "synccheck" in runner.log("sanitizer").read_text(), "a step's further parts run all the same"
    code, outcomes, runner = device("--only", "smoke,sanitizer")
    assert (code, outcomes["sanitizer"]) == (0, "passed")
    runs = [line for line in runner.log("sanitizer").read_text().splitlines() if line in gpu.TOOLS]
    assert runs == [*gpu.TOOLS, "racecheck"]


@pytest.mark.parametrize("changed", [{"sources": "other"}, {"card": "Other Card"}])
def test_what_passed_counts_on_the_same_sources_and_card_alone(device, changed):
    assert device("--only", "smoke")[0] == 0
    assert device("--only", "bench")[1]["bench"] == "passed"
    assert device("--only", "bench", **changed)[1]["bench"] == "blocked"


def test_without_a_build_what_was_built_before_is_tested(device):
    code, outcomes, _ = device("--no-build", build=1)
    assert (code, outcomes) == (0, {name: state for name, state in ALL_PASSED.items() if name != "build"})


def test_headline_is_the_smoke_test_and_the_headline_benchmark(device):
    assert list(device("--headline")[1]) == ["environment", "build", "smoke", "headline"]


def test_when_the_minutes_are_used_up_nothing_new_starts_and_nothing_failed(device):
    code, outcomes, _ = device("--no-build", ends=time.monotonic() - 1)
    assert code == 3, "the environment was not looked at either"
    assert set(outcomes.values()) == {"not run"}


HEADLINE_LOG = """collected 3 items
=== our time or memory over a peer's: below 1, ours is better ===
benchmark  case  ours  / eager
cross_rnn  forward  triton  0.30
results: bench/results
3 passed
"""


def test_the_summary_begins_with_the_headline_figures(results, device):
    _, _, runner = device("--headline")
    runner.log("headline").write_text(HEADLINE_LOG.replace("0.30", "0.90") + HEADLINE_LOG)  # that of an earlier call, and the last
    assert results.summary(runner).splitlines()[:3] == [
        "our time or memory over a peer's: below 1, ours is better",
        "benchmark  case  ours  / eager",
        "cross_rnn  forward  triton  0.30",
    ]


def test_another_machine_goes_on_from_the_packed_results(gpu, results, device, tmp_path):
    device("--only", "smoke,tests")
    measured = results.where / "bench" / "results" / "cross_rnn_card.json"
    measured.parent.mkdir(parents=True)
    measured.write_text("measured")
    packed = results.pack(gpu.Runner(results.logs, results.where))
    assert packed == tmp_path / "out" / "results.tar.gz"
    for name in ("logs", "passed.json", "tree/bench"):
        path = gpu.FOLDER / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    results.unpack(packed)
    assert measured.read_text() == "measured"
    code, outcomes, runner = device("--only", "tests,bench")
    assert (code, outcomes["tests"], outcomes["bench"]) == (0, "passed", "passed")
    assert runner.outcomes["tests"].why == "before"


def test_a_step_that_fails_now_does_not_count_as_passed_before(gpu, tmp_path):
    runner = gpu.Runner(tmp_path, tmp_path)
    runner.passed_before = {"first"}
    assert not runner.run(gpu.Step("first", (say(gpu, "red", 1),)))
    assert not runner.run(gpu.Step("second", (say(gpu, "green"),), needs=("first",)))
    assert runner.outcomes["second"].state == "blocked"


def test_results_of_other_sources_are_refused(results, device):
    packed = results.pack(device("--only", "smoke")[2])
    results.sources.write_text("other")
    with pytest.raises(SystemExit, match="was made of other sources"):
        results.unpack(packed)


DAMAGED = {
    "empty": b"",
    "no archive": b"no archive",
    "cut off": b"\x1f\x8b cut off",
    "another content": gzip.compress(b"no archive"),
    "overwritten": gzip.compress(bytes(5000))[:-20] + b"y" * 20,
}


@pytest.mark.parametrize("content", DAMAGED.values(), ids=DAMAGED)
def test_a_damaged_archive_is_refused(results, device, tmp_path, content):
    path = tmp_path / "results.tar.gz"
    path.write_bytes(content)
    with pytest.raises(SystemExit, match="cannot be read"):
        results.unpack(path)


OTHER_NAMES = ("../outside.txt", "/tmp/outside.txt", "results/../../outside.txt", "tree/setup.py", "logs/.hidden/x", "logs/..")


@pytest.mark.parametrize("name", OTHER_NAMES)
def test_a_file_of_another_name_is_never_unpacked(results, device, tmp_path, name):
    path, content = tmp_path / "made_up.tar.gz", b"abc"
    with tarfile.open(path, "w:gz") as archive:
        for member in ("sources.txt", name):
            info = tarfile.TarInfo(member)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    before = {file: file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()}
    results.unpack(path)
    assert {file: file.read_bytes() for file in tmp_path.rglob("*") if file.is_file()} == before


def test_a_build_that_is_older_than_its_sources_is_not_used(device, results, capsys):
    (results.where / "csrc").mkdir()
    (results.where / "dcrnn_fast").mkdir()
    (results.where / "dcrnn_fast" / "_C.so").write_text("")
    source = results.where / "csrc" / "ops.cpp"
    source.write_text("")
    os.utime(source, (4e9, 4e9))
    with pytest.raises(SystemExit, match=r"_C\.so is older than csrc/ops\.cpp; leave out --no-build"):
        device("--no-build")


def test_without_its_packages_the_trainer_is_left_out_in_words(device, capsys):
    assert "trainer" not in device(lacks="duckdb, pydantic")[1]
    assert "the trainer is left out: no duckdb, pydantic; see --packages" in capsys.readouterr().out


def test_packages_travel_along_for_one_python(gpu, tmp_path, monkeypatch):
    monkeypatch.setattr(gpu, "WHEELS", tmp_path / "wheels")
    monkeypatch.setattr(gpu, "PACKAGES", tmp_path / "packages")
    assert gpu.unpack_wheels() is None
    for version, text in (("2.7", "old"), (f"{sys.version_info.major}.{sys.version_info.minor}", "right")):
        (tmp_path / "wheels" / version).mkdir(parents=True)
        with zipfile.ZipFile(tmp_path / "wheels" / version / "carried-1-py3-none-any.whl", "w") as wheel:
            wheel.writestr("carried.py", f"print({text!r})")
    runner = gpu.Runner(tmp_path, tmp_path, packages=gpu.unpack_wheels())
    assert runner.run(gpu.Step("import", (gpu.Command((sys.executable, "-c", "import carried")),)))
    assert runner.log("import").read_text().splitlines()[-1] == "right"


def test_a_command_that_outlives_its_time_is_ended_and_one_that_stops_itself_is_told_it(gpu, tmp_path):
    sleep = gpu.Command((sys.executable, "-c", "import time; time.sleep(60)"))
    runner = gpu.Runner(tmp_path, tmp_path, ends=time.monotonic() + 1)
    assert not runner.run(gpu.Step("slow", (sleep,)))
    assert (runner.outcomes["slow"].state, runner.failed()) == ("unfinished", False)
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


def test_the_end_of_a_failed_commands_output_is_printed(gpu, tmp_path, capsys):
    gpu.Runner(tmp_path, tmp_path).run(gpu.Step("red", (say(gpu, "first\n" + "line\n" * 20 + "the reason", 1),)))
    said = capsys.readouterr().out
    assert "exit code 1; the end of its output:\n    line" in said
    assert "    the reason\n" in said
    assert "    first\n" not in said


def test_packages_on_pythonpath_are_seen_after_the_sources(gpu, tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", "/carried")
    runner = gpu.Runner(tmp_path, tmp_path)
    runner.run(gpu.Step("paths", (gpu.Command((sys.executable, "-c", "import os; print(os.environ['PYTHONPATH'])")),)))
    assert runner.log("paths").read_text().splitlines()[-1] == f"{tmp_path}{os.pathsep}/carried"


def test_what_a_command_measures_is_packed_while_it_runs(gpu, results, device, tmp_path, monkeypatch):
    runner = device("--only", "smoke")[2]
    monkeypatch.setattr(sys.modules[gpu.Runner.__module__], "PAUSE", 0.1)
    rows, packed = results.where / "bench" / "results" / "rows.json", tmp_path / "out" / "results.tar.gz"
    rows.parent.mkdir(parents=True)
    program = (
        f"import pathlib, tarfile, time; pathlib.Path({str(rows)!r}).write_text('[]'); time.sleep(2); "
        f"raise SystemExit('results/rows.json' not in tarfile.open({str(packed)!r}).getnames())"
    )
    assert runner.run(gpu.Step("bench", (gpu.Command((sys.executable, "-c", program)),)))


def test_a_call_ends_within_ten_minutes_unless_it_is_told_otherwise(gpu):
    runner = sys.modules[gpu.Runner.__module__]
    assert 60 * gpu.parse([]).minutes + runner.GRACE < 600
    assert gpu.parse(["--minutes", "0"]).minutes == 0


def test_the_interpreter_is_off_in_every_command(gpu, tmp_path, monkeypatch):
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    runner = gpu.Runner(tmp_path, tmp_path)
    runner.run(gpu.Step("variable", (gpu.Command((sys.executable, "-c", "import os; print(os.environ.get('TRITON_INTERPRET'))")),)))
    assert runner.log("variable").read_text().splitlines()[-1] == "None"


def test_a_copy_forgets_what_other_sources_measured(results, sources):
    first = results.copy_sources()
    measured = [results.where / "bench" / "results" / "cross_rnn_card.json", results.passed, results.logs / "tests.log"]
    for path in measured:
        path.parent.mkdir(exist_ok=True)
        path.write_text("measured")
    assert results.copy_sources() == first
    assert all(path.is_file() for path in measured)
    (sources / "kernels" / "one.py").write_text("changed")
    assert results.copy_sources() != first
    assert not any(path.is_file() for path in measured)


def test_a_damaged_record_of_what_passed_counts_as_none(results, device):
    device("--only", "smoke,tests")
    results.passed.write_text("{")
    assert device("--only", "bench")[1]["bench"] == "blocked"


@pytest.mark.parametrize("wrong", [["--only", "everything"], ["--minutes", "soon"]])
def test_a_wrong_option_exits_with_2(gpu, wrong, capsys):
    with pytest.raises(SystemExit) as caught:
        gpu.parse(wrong)
    assert caught.value.code == 2


def test_without_a_gpu_it_says_so_and_exits_with_3(gpu, monkeypatch, capsys):
    import torch

    if torch.cuda.is_available():
        pytest.skip("of machines without a GPU")
    # the dry run of every step takes half a minute: CI makes it by scripts.gpu itself
    monkeypatch.setattr(sys, "argv", ["gpu.py", "--no-build", "--only", "sanitizer"])
    monkeypatch.setattr(gpu.shutil, "which", lambda name: f"/usr/bin/{name}")
    assert gpu.main() == 3
    assert "gpu: nvidia-smi is here, but no CUDA device: PyTorch" in capsys.readouterr().out
    monkeypatch.setattr(gpu.shutil, "which", lambda name: None)
    code, said = gpu.main(), capsys.readouterr().out
    logs = gpu.FOLDER / "logs"
    assert code == 3, said + "".join(path.read_text() for path in logs.glob("*.log"))[-3000:]
    assert "\ngpu: no CUDA device: PyTorch" in said
    for step in ("environment", "sanitizer"):
        assert re.search(rf"^{step} +passed", said, re.MULTILINE), said
    assert (gpu.FOLDER.parent / "out" / "results.tar.gz").is_file()


@pytest.mark.skipif(shutil.which("make") is None, reason="no make on this machine")
def test_make_gpu_needs_no_virtual_environment():
    if not (ROOT / "Makefile").is_file():
        pytest.skip("the tests lie without the Makefile")
    command = ["make", "--no-print-directory", "-n", "gpu", "PYTHON=python3.12", "OPTIONS=--only tests"]
    own = {name: value for name, value in os.environ.items() if name not in ("MAKEFLAGS", "MAKELEVEL")}  # these tests may run under make
    done = subprocess.run(command, cwd=ROOT, env=own, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip().endswith("python3.12 -m scripts.gpu --only tests")
    assert "venv" not in done.stdout
