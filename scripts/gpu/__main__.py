"""Runs what needs a GPU, in one command: ``python3 -m scripts.gpu``, or ``make gpu``. No virtual environment, no network.

The script copies the sources to build/gpu/tree, builds them there for this card alone, and goes through these stages, what matters most
first; a stage that fails stops no other one:

    smoke      every kernel beside float64, three calls each, forward and backward
    headline   the headline benchmark, in CUDA graphs
    trainer    training rows/s kernel by kernel, as CUDA graphs, and compiled inside them; then requests
    tests      the operators' tests on Triton and CUDA; a later call runs those that failed
    sanitizer  compute-sanitizer, tool by tool

Logs, figures, the record of what passed and a report are in build/gpu/CARD-SOURCES, and after each stage in $OUT. A later call with the
same sources, kind of card and versions goes on from there, on another machine too if the folder is carried along. Without a GPU (and
nvidia-smi) the script builds, and makes a dry run. The exit code is 0 if nothing failed, 1 if something failed, 3 without a CUDA device.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

from .. import tree

FOLDER = tree.ROOT / "build" / "gpu"
STAGES = ("smoke", "headline", "trainer", "tests", "sanitizer")
GRACE, TAIL, WIDTH = 20, 30, 250
"""Seconds in which pytest, once interrupted, writes which tests failed; how many lines of a log are reported, and how much of each."""
LATE = "the minutes are used up"
PYTEST, DEVICE = (sys.executable, "-m", "pytest"), (sys.executable, "-m", "scripts.gpu.device")
SMOKE = "tests/operators/test_smoke.py"
HEADLINE = ("bench/test_cross_rnn.py", "bench/test_low_rank.py")
MEASURED = ("--benchmark", "--grid", "headline", "--device", "cuda", "--missing")
UNCACHED = ("-p", "no:cacheprovider")


class Stage(NamedTuple):
    """A command line with variables of its environment. The record knows it by its name, ``--only`` by the part before the hyphen."""

    name: str
    arguments: tuple[str, ...]
    environment: Mapping[str, str] = {}


class Run:
    """Stages run one after another in ``where`` until ``ends``; ``folder`` has what is kept of them, and of ``facts`` about the machine."""

    def __init__(self, where: Path, folder: Path, facts: Mapping[str, str], ends: float) -> None:
        self.where, self.folder, self.facts, self.ends = where, folder, facts, ends
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / "record.json"
        self.record: dict[str, dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))["stages"] if path.is_file() else {}

    def state(self, name: str) -> str:
        """A stage's state: "passed", "failed", "unfinished", or "not run"."""
        return str(self.record.get(name, {}).get("state", "not run"))

    def end_of_log(self, name: str) -> str:
        """The last lines of a stage's log."""
        lines = (self.folder / f"{name}.log").read_text(encoding="utf-8", errors="replace").splitlines()
        return "\n".join(line[:WIDTH] for line in lines[-TAIL:])

    def summary(self) -> str:
        """A line for each stage."""
        return "\n".join(f"{name:<21}{one['state']:<11}{one['seconds']:>5} s  {one['why']}".rstrip() for name, one in self.record.items())

    def run(self, stage: Stage) -> bool:
        """Run a stage unless it passed before or the minutes are used up, keep the result, and return whether it passed."""
        begin, passed = time.monotonic(), self.state(stage.name) == "passed"
        if passed or begin >= self.ends:
            print(f"gpu: {stage.name}: {'passed before' if passed else f'not run, {LATE}'}", flush=True)
            return passed
        print(f"gpu: {stage.name}, log {self.folder / stage.name}.log", flush=True)
        why = self.call(stage)
        state = {"": "passed", LATE: "unfinished"}.get(why, "failed")
        self.record[stage.name] = {"state": state, "why": why, "seconds": round(time.monotonic() - begin)}
        replace(self.folder / "record.json", json.dumps({"facts": self.facts, "stages": self.record}, indent=1))
        logs = [f"\n== {name}: {one['state']}\n{self.end_of_log(name)}" for name, one in self.record.items()]
        replace(self.folder / "report.txt", "\n".join([*(f"{k}: {v}" for k, v in self.facts.items()), "", self.summary(), *logs, ""]))
        print(f"{self.end_of_log(stage.name)}\ngpu: {stage.name}: {state} {why}".rstrip(), flush=True)
        return state == "passed"

    def call(self, stage: Stage) -> str:
        """Run a stage's command, and return why it failed, or nothing. When the minutes are used up, it is interrupted."""
        inherited = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
        paths = [str(self.where), str(FOLDER / "packages"), *filter(None, [inherited.get("PYTHONPATH")])]
        environment = {**inherited, "PYTHONPATH": os.pathsep.join(paths), **stage.environment}
        with (self.folder / f"{stage.name}.log").open("a", encoding="utf-8") as log:
            print(f"$ {' '.join(stage.arguments)}", file=log, flush=True)
            try:
                process = subprocess.Popen(stage.arguments, cwd=self.where, env=environment, stdout=log, stderr=log, start_new_session=True)
            except OSError as error:
                return f"{stage.arguments[0]} cannot be started ({error.strerror})"
            try:
                code = process.wait(self.ends - time.monotonic())
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGINT)
                with suppress(subprocess.TimeoutExpired):
                    process.wait(GRACE)
                return LATE
            finally:
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)  # and what it has started
                process.wait()
        return f"exit code {code}" if code else ""


def replace(path: Path, text: str) -> None:
    """Write a file beside its place and rename it."""
    path.with_name(f".{path.name}").write_text(text, encoding="utf-8")
    path.with_name(f".{path.name}").rename(path)


def build(runs: Run) -> bool:
    """Build the extensions, if no earlier call built the same; after a failure none is left, and Triton's kernels run all the same."""
    environment = {name: os.environ.get(name, "auto") for name in ("DCRNN_FAST_CPP", "DCRNN_FAST_CUDA")}
    if "capability" in runs.facts:
        environment["TORCH_CUDA_ARCH_LIST"] = os.environ.get("TORCH_CUDA_ARCH_LIST", runs.facts["capability"])
    else:
        environment["DCRNN_FAST_O"] = "0"  # nothing is timed
    digest = hashlib.sha256(json.dumps([sys.version, runs.facts.get("torch"), sorted(environment.items())]).encode())
    for path in sorted([runs.where / "setup.py", *(runs.where / "scripts").glob("*.py"), *(runs.where / "csrc").rglob("*")]):
        digest.update(path.read_bytes() if path.is_file() else b"")
    stamp = runs.where / "build" / "built.txt"  # not among what is kept: it stands for the files that lie here
    runs.record.pop("build", None)
    if stamp.is_file() and stamp.read_text(encoding="utf-8") == digest.hexdigest():
        print("gpu: build: as an earlier call built it", flush=True)
        return True
    stamp.unlink(missing_ok=True)
    if not runs.run(Stage("build", (sys.executable, "setup.py", "build_ext", "--inplace", "--force"), environment)):
        for left_over in (runs.where / "dcrnn_fast").glob("_C*.so"):
            left_over.unlink()
        return False
    stamp.parent.mkdir(exist_ok=True)
    replace(stamp, digest.hexdigest())
    return True


def stages_on_gpu(runs: Run) -> list[Stage]:
    """The stages on a GPU, in their order, with the extensions that were built."""
    extension, cuda = (any((runs.where / "dcrnn_fast").glob(f"{name}.*")) for name in ("_C", "_C_cuda"))
    backends = ["triton", "cuda"][: 1 + cuda]
    found = [Stage(f"smoke-{name}", (*PYTEST, SMOKE, "--backend", name, *UNCACHED)) for name in backends]
    found.append(Stage("headline", (*PYTEST, *HEADLINE, *MEASURED, "--results", str(runs.folder / "bench"), *UNCACHED)))
    if lacks := runs.facts.get("trainer lacks"):
        print(f"gpu: the trainer is left out: no {lacks}; docs/guide/gpu.md says how to carry them along", flush=True)
    else:
        found += [Stage(f"trainer-{size}", (*DEVICE, "train", str(size))) for size in (512, 4096)]
    spread = ("-n", "14", "--dist", "worksteal") if find_spec("xdist") else ()
    again = "--last-failed" if runs.state("tests") == "failed" else "--failed-first"  # an interrupted call did not come to all tests
    chosen = ("--backend", "triton,cuda", *(() if extension else ("-k", "not the_extension")), *spread)
    threads = {"OMP_NUM_THREADS": "1"} if spread else {}
    found.append(
        Stage("tests", (*PYTEST, "tests/operators", "tests/triton", *chosen, again, "-o", f"cache_dir={runs.folder / 'pytest'}"), threads)
    )
    for tool, *others in (("memcheck", "--report-api-errors", "no"), ("racecheck",), ("synccheck",)):  # a library's asking is no error
        watched = ("--error-exitcode", "9", *others, *PYTEST, SMOKE, "--backend", "triton,cuda", *UNCACHED)
        uncached = {"PYTORCH_NO_CUDA_MEMORY_CACHING": "1"}
        found.append(Stage(f"sanitizer-{tool}", ("compute-sanitizer", "--tool", tool, *watched), uncached))
    return found


def stages_dry() -> list[Stage]:
    """What can be tried of them without a GPU; pytest sees no package that a machine with a GPU may lack."""
    bare = (*PYTEST, "-p", "scripts.gpu.bare", *UNCACHED)
    return [
        Stage("smoke", (*bare, SMOKE, "--backend", "triton")),
        Stage("headline", (*bare, *HEADLINE)),
        Stage("headline-collected", (*bare, "--collect-only", *HEADLINE, *MEASURED)),
        Stage("trainer", (*DEVICE, "train", "256", "2000")),
        Stage("tests", (*bare, "--collect-only", "tests/operators", "tests/triton", "--backend", "triton,cuda")),
    ]


def main(arguments: list[str] | None = None) -> int:
    """Run what the command line asks for, and print the summary last."""
    parser = argparse.ArgumentParser("python -m scripts.gpu", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default=",".join(STAGES), help=f"stages after the build, of {','.join(STAGES)} (default: all)")
    parser.add_argument("--minutes", type=float, default=8, help="interrupt what runs after so many minutes (default: 8; 0: no limit)")
    options = parser.parse_args(arguments)
    only = options.only.split(",")
    if unknown := [name for name in only if name not in STAGES]:
        parser.error(f"--only {unknown[0]}: expected {','.join(STAGES)}")
    ends = time.monotonic() + 60 * (options.minutes or 1e6)
    where = FOLDER / "tree"
    sources = tree.copy(where)
    asked = subprocess.run([*DEVICE, "facts"], cwd=where, capture_output=True, text=True, check=False)
    said = (asked.stderr if asked.returncode else asked.stdout).strip().rpartition("\n")[2]
    facts = {"no CUDA device": said} if asked.returncode else json.loads(said)
    card = facts.get("card")
    if not card and shutil.which("nvidia-smi"):  # this machine is for a run, whose time a dry run would use up
        print(f"gpu: nvidia-smi is here, but no CUDA device: {facts['no CUDA device']}", flush=True)
        return 3
    stamp = hashlib.sha256(json.dumps([sources, {**facts, "trainer lacks": ""}], sort_keys=True).encode()).hexdigest()[:10]
    folder = FOLDER / (re.sub(r"[^A-Za-z0-9]+", "-", f"{card} {stamp}") if card else "dry-run")
    if not card:
        shutil.rmtree(folder, ignore_errors=True)  # a dry run is made in full
    runs = Run(where, folder, facts, ends if card else float("inf"))
    done = {"build": build(runs)}
    for stage in [stage for stage in (stages_on_gpu(runs) if card else stages_dry()) if stage.name.partition("-")[0] in only]:
        red = [name for name in ("triton", "cuda") if runs.state(f"smoke-{name}") == "failed"]
        if stage.name == "headline" and red:  # a kernel that crashes would spoil the times of the others
            stage = Stage(f"headline-without-{'-'.join(red)}", (*stage.arguments, "--without", ",".join(red)))
        done[stage.name] = runs.run(stage)
        if out := os.environ.get("OUT"):
            shutil.copytree(folder, Path(out) / folder.name, dirs_exist_ok=True)
    print(f"{runs.summary()}\ngpu: everything is in {folder}", flush=True)
    if not card:
        print(f"gpu: no CUDA device: {facts['no CUDA device']}", flush=True)
    if any(runs.state(name) in ("not run", "unfinished") for name, passed in done.items() if not passed):
        print(f"gpu: {LATE}; the same command goes on", flush=True)
    return 1 if any(runs.state(name) == "failed" for name in done) else 0 if card else 3


if __name__ == "__main__":
    sys.exit(main())
