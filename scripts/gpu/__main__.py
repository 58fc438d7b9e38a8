"""Runs everything that needs a GPU, in one command: ``python3 -m scripts.gpu``, or ``make gpu``. No virtual environment, no network.

The script copies the sources to build/gpu/tree, builds them there for this card alone, and then makes these steps, what matters most first:

    smoke      one forward and backward of every kernel beside float64, in under a minute
    headline   the headline benchmark
    trainer    training rows/s and requests on a generated table, if its packages are there: --packages fetches them beforehand
    tests      the operators' tests on Triton and CUDA; a later call leaves out those that passed
    bench      every benchmark
    sanitizer  compute-sanitizer, tool by tool

It goes on after a failed step, but a backend whose smoke test failed is not timed. After a failed build Triton's kernels alone run, which
need none. Each part that passed is recorded: no later call makes it again with the same sources, kind of card, versions and builds.

Everything goes to one file, results.tar.gz, in the folder $OUT or build/gpu. ``--resume results.tar.gz`` goes on from it, also on another
machine. Without a GPU (and nvidia-smi) the script builds, and makes a dry run of every step. The exit code is 0 if nothing failed, 1 if a
step failed, 3 without a CUDA device.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable, Iterable, Mapping
from importlib.util import find_spec
from pathlib import Path

from .. import tree
from .left_out import LEFT_OUT
from .results import Results
from .runner import Command, Runner, Step

TESTS = ("tests/operators", "tests/triton")
HEADLINE_FILES = ("bench/test_cross_rnn.py", "bench/test_low_rank.py")
MEASURED = ("--device", "cuda", "--missing", "--record", "-p", "scripts.gpu.left_out")
HEADLINE = (*HEADLINE_FILES, "--benchmark", "--grid", "headline", *MEASURED)
BENCHMARKS = ("bench", "--benchmark", "--grid", "full", *MEASURED)
WORKERS = 14
BATCH_SIZES, TRAINER_SECONDS = (512, 4096), 150.0
"""Of the trainer's runs, and what one takes at least."""
WITHOUT_EXTENSION = ("-k", "not the_extension")
"""Leaves out the tests of the extension, on a machine that could not build it."""

FOLDER = tree.ROOT / "build" / "gpu"
WHEELS, PACKAGES = FOLDER / "wheels", FOLDER / "packages"
"""What the trainer needs and a machine with a GPU may lack: as it travels along with the sources, by Python's version, and unpacked."""
FETCHED = (("pydantic", "platformdirs", "duckdb"), ("--no-deps", "tensorboard", "protobuf", "absl-py"))
"""What pip downloads, call by call; tensorboard without the packages that only its viewer needs."""
CHOICES = ("smoke", "headline", "trainer", "tests", "bench", "sanitizer")
TOOLS = ("memcheck", "racecheck", "synccheck", "initcheck")


def steps_of(python: str, only: Iterable[str], *, built: Mapping[str, bool], tests_passed: Path) -> list[Step]:
    """The steps on a GPU, in their order, with the extensions that were built."""
    pytest, device = (python, "-m", "pytest", "-p", "no:cacheprovider"), (python, "-m", "scripts.gpu.device")
    spread = ("-n", str(WORKERS), "--dist", "worksteal") if find_spec("xdist") else ()
    threads = {"OMP_NUM_THREADS": str(max(1, (os.cpu_count() or 1) // (WORKERS if spread else 1)))}
    uncached = {"PYTORCH_NO_CUDA_MEMORY_CACHING": "1"}
    collect = (*pytest, "-p", "scripts.gpu.bare", "--collect-only", "-q")
    resumed = ("-p", "scripts.gpu.resumed_tests", "--passed", str(tests_passed), "--backend", "triton,cuda")
    of_build = () if built["_C"] else WITHOUT_EXTENSION
    sanitized = []
    for tool in TOOLS:
        options = ("--as-allocated",) if tool == "initcheck" else ()
        others = ("--report-api-errors", "no") if tool == "memcheck" else ()  # libraries ask, and handle, what returns an error
        sanitizer = ("compute-sanitizer", "--tool", tool, "--error-exitcode", "9", *others)
        sanitized.append(Command((*sanitizer, *device, "small", *options), uncached, name=tool))
    every = [
        Step(
            "smoke",
            tuple(Command((*device, "smoke", "--backend", name), name=name) for name in backends_of(built)),
            dry=(Command((*device, "smoke"), {"TRITON_INTERPRET": "1"}),),
        ),
        Step(
            "headline",
            (Command((*pytest, *HEADLINE), stops_itself=True, name="headline"),),
            needs=("smoke",),
            dry=(Command((*collect, *HEADLINE)), Command((*pytest, "-q", *HEADLINE_FILES))),
        ),
        Step(
            "trainer",
            tuple(
                Command((*device, "train", "--batch-size", str(size)), name=f"batches of {size}", least=TRAINER_SECONDS)
                for size in BATCH_SIZES
            ),
            needs=("smoke",),
            dry=(Command((*device, "train", "--rows", "2000", "--batch-size", "256")),),
        ),
        Step(
            "tests",
            (Command((*pytest, *spread, *resumed, *of_build, *TESTS), threads, name="tests"),),
            dry=(Command((*collect, *resumed, *TESTS)),),
        ),
        Step(
            "bench",
            (Command((*pytest, *BENCHMARKS), stops_itself=True),),
            needs=("smoke",),
            dry=(Command((*collect, *BENCHMARKS)),),
        ),
        Step("sanitizer", tuple(sanitized), dry=(Command((*device, "small", "--dry-run")),)),
    ]
    return [step for step in every if step.name in only]


def backends_of(built: Mapping[str, bool]) -> list[str]:
    """The backends that have a smoke test each."""
    return ["triton", *(["cuda"] if built["_C_cuda"] else [])]


def report_of(log: Path) -> dict[str, str]:
    """What the environment's report says, by the words before each colon."""
    text = log.read_text(encoding="utf-8", errors="replace") if log.is_file() else ""
    return dict(line.split(": ", 1) for line in text.splitlines() if ": " in line)


def refuse_old_builds(where: Path) -> None:
    """Raise SystemExit if an extension is older than a source: unchanged sources keep their times."""
    sources = [where / "setup.py", *(path for path in (where / "csrc").rglob("*") if path.is_file())]
    changed = max(sources, key=lambda path: path.stat().st_mtime)
    for built in (where / "dcrnn_fast").glob("_C*.so"):
        if built.stat().st_mtime < changed.stat().st_mtime:
            raise SystemExit(f"gpu: --no-build: {built.name} is older than {changed.relative_to(where)}; leave out --no-build")


def run(runner: Runner, results: Results, options: argparse.Namespace, *, sources: str, steps: Callable[..., list[Step]] = steps_of) -> int:
    """Run all steps, and return the exit code."""
    python = sys.executable
    runner.log("environment").unlink(missing_ok=True)
    runner.run(Step("environment", (Command((python, "-m", "scripts.gpu.device", "report")),)))
    found = report_of(runner.log("environment"))
    card = found.get("card")
    if "no CUDA device" in found:
        if shutil.which("nvidia-smi"):  # this machine is for a run, whose time a dry run would use up
            print(f"gpu: nvidia-smi is here, but no CUDA device: {found['no CUDA device']}", flush=True)
            return 3
        runner.ends = None  # a dry run is made in full
    if options.no_build:
        refuse_old_builds(runner.where)
        runner.passed_before.add("build")
    else:
        wanted = {name: os.environ.get(name, "auto") for name in ("DCRNN_FAST_CPP", "DCRNN_FAST_CUDA")}
        if "capability" in found:
            wanted["TORCH_CUDA_ARCH_LIST"] = os.environ.get("TORCH_CUDA_ARCH_LIST", found["capability"])
        else:  # nothing is timed; with --force, a later build by other options compiles again
            wanted["DCRNN_FAST_O"] = "0"
        if not runner.run(Step("build", (Command((python, "setup.py", "build_ext", "--inplace", "--force"), wanted),))):
            for left_over in (runner.where / "dcrnn_fast").glob("_C*.so"):
                left_over.unlink()  # of other sources, or half of these
    if "trainer" in options.only and found.get("trainer lacks", "nothing") != "nothing":
        print(f"gpu: the trainer is left out: no {found['trainer lacks']}; see --packages", flush=True)
        options.only = [name for name in options.only if name != "trainer"]
    built = {name: any((runner.where / "dcrnn_fast").glob(f"{name}.*")) for name in ("_C", "_C_cuda")}
    chosen = steps(python, options.only, built=built, tests_passed=results.tests)
    if card is None:
        for step in chosen:
            runner.run(Step(step.name, step.dry, needs=("build",)))
        print(f"gpu: no CUDA device: {found.get('no CUDA device', 'the report on the environment did not finish')}", flush=True)
        return 1 if runner.failed() else 3
    kinds = ("capability", "torch", "triton", "CUDA")
    stamp = {"sources": sources, "card": card, "built": built, **{name: found.get(name, "absent") for name in kinds}}
    results.keep(runner, stamp)
    for name in (name for name, there in built.items() if not there):
        print(f"gpu: built without {name}, whose tests are left out; the build's log says why", flush=True)
    for step in chosen:
        if not runner.run(step) and step.name == "smoke":
            red = [name for name in backends_of(built) if f"smoke: {name}" not in runner.passed_before]
            if len(red) < len(backends_of(built)):
                print(f"gpu: {', '.join(red)} is not timed", flush=True)
                runner.partly["smoke"] = {LEFT_OUT: ",".join(red)}
    return int(runner.failed())


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser("python -m scripts.gpu", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default=",".join(CHOICES), help=f"steps after the build, of {','.join(CHOICES)} (default: all)")
    parser.add_argument("--headline", action="store_true", help="the same as --only smoke,headline")
    parser.add_argument("--minutes", type=float, default=8, help="start nothing new after so many minutes (default: 8; 0: no limit)")
    parser.add_argument("--resume", type=Path, metavar="FILE", help="go on from the results.tar.gz of an earlier call")
    parser.add_argument("--packages", metavar="PYTHON", help="fetch pydantic, duckdb... for that Python, such as 3.12, and stop")
    parser.add_argument("--no-build", action="store_true", help="use what an earlier call built")
    options = parser.parse_args(arguments)
    options.only = ["smoke", "headline"] if options.headline else options.only.split(",")
    if unknown := [name for name in options.only if name not in CHOICES]:
        parser.error(f"--only {unknown[0]}: expected {','.join(CHOICES)}")
    return options


def fetch(version: str) -> int:
    """Put the packages that the trainer needs, for a Python on Linux, into :data:`WHEELS`. Returns the exit code."""
    shutil.rmtree(WHEELS / version, ignore_errors=True)
    pip = (sys.executable, "-m", "pip", "download", "--quiet", "--only-binary=:all:")
    platforms = ("manylinux2014_x86_64", "manylinux_2_27_x86_64", "manylinux_2_28_x86_64")
    options = (*(f"--platform={name}" for name in platforms), f"--python-version={version}", f"--dest={WHEELS / version}")
    for packages in FETCHED:
        if code := subprocess.run([*pip, *options, *packages], check=False).returncode:
            return code
    size = sum(path.stat().st_size for path in (WHEELS / version).iterdir())
    print(f"gpu: {size >> 20} MiB in {WHEELS.relative_to(tree.ROOT)}; carry this folder along with the sources")
    return 0


def unpack_wheels() -> Path | None:
    """The folder of the packages that travelled along for this Python, if there are any."""
    wheels = list((WHEELS / f"{sys.version_info.major}.{sys.version_info.minor}").glob("*.whl"))
    shutil.rmtree(PACKAGES, ignore_errors=True)
    for wheel in wheels:
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(PACKAGES)
    return PACKAGES if wheels else None


def main() -> int:
    """Run what the command line asks for, and print the summary last."""
    options = parse()
    if options.packages:
        return fetch(options.packages)
    ends = None if options.minutes == 0 else time.monotonic() + 60 * options.minutes
    FOLDER.mkdir(parents=True, exist_ok=True)
    results = Results(FOLDER, FOLDER / "tree")
    sources = results.copy_sources()
    if options.resume:
        results.unpack(options.resume)
    runner = Runner(results.logs, results.where, ends=ends, packages=unpack_wheels())
    code = run(runner, results, options, sources=sources)
    packed = results.pack(runner)
    print(f"{results.summary(runner)}\ngpu: everything is in {packed}", flush=True)
    if any(outcome.state in ("unfinished", "not run") for outcome in runner.outcomes.values()):
        print(f"gpu: the minutes are used up; go on with --resume {packed}", flush=True)
    return code


if __name__ == "__main__":
    sys.exit(main())
