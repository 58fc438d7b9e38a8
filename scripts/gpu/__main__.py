"""Runs what needs a GPU, in one command: ``python3 -m scripts.gpu``, or ``make gpu``. No virtual environment, no network.

The script copies the sources to build/gpu/tree, builds them there for this card alone, and goes through these stages, what matters most
first; a stage that fails stops no other one:

    smoke      every kernel beside float64, three calls each, forward and backward
    headline   the headline benchmark, in CUDA graphs
    trainer    training rows/s kernel by kernel, as CUDA graphs, and compiled inside them; then requests
    tests      the operators' tests on Triton and CUDA; a later call runs those that failed
    sanitizer  compute-sanitizer, tool by tool

Logs, figures and the record of what passed are in build/gpu/CARD-SOURCES, and after each stage in $OUT. A later call with the same sources,
kind of card and versions goes on from there, on another machine too if the folder is carried along. Without a GPU (and nvidia-smi) the
script builds, and makes a dry run. The exit code is 0 if nothing failed, 1 if something failed, 3 without a CUDA device.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

from ..sources import ROOT, copy

FOLDER = ROOT / "build" / "gpu"
STAGES = ("smoke", "headline", "trainer", "tests", "sanitizer")
GRACE, TAIL, WIDTH = 20, 30, 250
"""Seconds in which pytest, once interrupted, writes which tests failed; how many lines of a log are shown, and how much of each."""
OUT_OF_TIME = (124, 137)
"""The exit codes of ``timeout`` for a command that it interrupted, and for one that it killed then."""
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
    """Stages run one after another in ``where`` for ``seconds``, 0 for no limit; ``folder`` has what is kept of them."""

    def __init__(self, where: Path, folder: Path, seconds: float) -> None:
        self.where, self.folder, self.ends = where, folder, time.monotonic() + (seconds or float("inf"))
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / "record.json"
        self.record: dict[str, dict[str, Any]] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}

    def state(self, name: str) -> str:
        """A stage's state: "passed", "failed", "unfinished", or "not run"."""
        return str(self.record.get(name, {}).get("state", "not run"))

    def run(self, stage: Stage) -> bool:
        """Run a stage unless it passed before or the minutes are used up, keep the result, and return whether it passed."""
        begin = time.monotonic()
        if self.state(stage.name) == "passed" or begin >= self.ends:
            return self.state(stage.name) == "passed"
        path, limit = self.folder / f"{stage.name}.log", 0 if self.ends == float("inf") else self.ends - begin
        print(f"gpu: {stage.name}, log {path}", flush=True)
        inherited = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
        paths = [str(self.where), str(FOLDER / "packages"), *filter(None, [inherited.get("PYTHONPATH")])]
        environment = {**inherited, "PYTHONPATH": os.pathsep.join(paths), **stage.environment}
        with path.open("a", encoding="utf-8") as log:
            print(f"$ {' '.join(stage.arguments)}", file=log, flush=True)
            command = ("timeout", "--foreground", "--signal=INT", f"--kill-after={GRACE}", str(limit), *stage.arguments)
            code = subprocess.call(command, cwd=self.where, env=environment, stdout=log, stderr=log)
        state = "unfinished" if code in OUT_OF_TIME else "failed" if code else "passed"
        self.record[stage.name] = {"state": state, "exit code": code, "seconds": round(time.monotonic() - begin)}
        (self.folder / "new.json").write_text(json.dumps(self.record, indent=1), encoding="utf-8")
        (self.folder / "new.json").rename(self.folder / "record.json")
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
        print("\n".join([*(line[:WIDTH] for line in lines[-TAIL:]), f"gpu: {stage.name}: {state}, exit code {code}"]), flush=True)
        return state == "passed"


def build(runs: Run, capability: str | None) -> None:
    """Build the extensions; ninja compiles what has changed. After a failure none is there, and Triton's kernels run all the same."""
    environment = {name: os.environ.get(name, "auto") for name in ("DCRNN_FAST_CPP", "DCRNN_FAST_CUDA")}
    environment |= {"TORCH_CUDA_ARCH_LIST": capability} if capability else {"DCRNN_FAST_O": "0"}  # without a GPU, nothing is timed
    for old in (runs.where / "dcrnn_fast").glob("_C*.so"):
        old.unlink()
    runs.record.pop("build", None)  # it stands for what lies here, not for what is kept
    runs.run(Stage("build", (sys.executable, "setup.py", "build_ext", "--inplace"), environment))


def stages_on_gpu(runs: Run) -> list[Stage]:
    """The stages on a GPU, in their order, with the extensions that were built."""
    extension, cuda = (any((runs.where / "dcrnn_fast").glob(f"{name}.*")) for name in ("_C", "_C_cuda"))
    backends = ["triton", "cuda"][: 1 + cuda]
    found = [Stage(f"smoke-{name}", (*PYTEST, SMOKE, "--backend", name, *UNCACHED)) for name in backends]
    found.append(Stage("headline", (*PYTEST, *HEADLINE, *MEASURED, "--results", str(runs.folder / "bench"), *UNCACHED)))
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
    """Run what the command line asks for, and print the states last."""
    parser = argparse.ArgumentParser("python -m scripts.gpu", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default=",".join(STAGES), help=f"stages after the build, of {','.join(STAGES)} (default: all)")
    parser.add_argument("--minutes", type=float, default=8, help="interrupt what runs after so many minutes (default: 8; 0: no limit)")
    options = parser.parse_args(arguments)
    only = options.only.split(",")
    if unknown := [name for name in only if name not in STAGES]:
        parser.error(f"--only {unknown[0]}: expected {','.join(STAGES)}")
    where = FOLDER / "tree"
    sources = copy(where)
    asked = subprocess.run([*DEVICE, "facts"], cwd=where, capture_output=True, text=True, check=False)
    said = (asked.stderr if asked.returncode else asked.stdout).strip().rpartition("\n")[2]
    facts = {"no CUDA device": said} if asked.returncode else json.loads(said)
    card = facts.get("card")
    if not card and shutil.which("nvidia-smi"):  # this machine is for a run, whose time a dry run would use up
        print(f"gpu: nvidia-smi is here, but no CUDA device: {facts['no CUDA device']}", flush=True)
        return 3
    stamp = hashlib.sha256(json.dumps([sources, facts], sort_keys=True).encode()).hexdigest()[:10]
    folder = FOLDER / (re.sub(r"[^A-Za-z0-9]+", "-", f"{card} {stamp}") if card else "dry-run")
    if not card:
        shutil.rmtree(folder, ignore_errors=True)  # a dry run is made in full
    runs = Run(where, folder, 60 * options.minutes if card else 0)
    (folder / "facts.json").write_text(json.dumps(facts), encoding="utf-8")
    build(runs, facts.get("capability"))
    names = ["build"]
    for stage in [stage for stage in (stages_on_gpu(runs) if card else stages_dry()) if stage.name.partition("-")[0] in only]:
        red = [name for name in ("triton", "cuda") if runs.state(f"smoke-{name}") == "failed"]
        if stage.name == "headline" and red:  # a kernel that crashes would spoil the times of the others
            stage = Stage(f"headline-without-{'-'.join(red)}", (*stage.arguments, "--without", ",".join(red)))
        runs.run(stage)
        names.append(stage.name)
        if out := os.environ.get("OUT"):
            shutil.copytree(folder, Path(out) / folder.name, dirs_exist_ok=True)
    states = {name: runs.state(name) for name in names}
    print("\n".join([*(f"{name:<21}{state}" for name, state in states.items()), f"gpu: everything is in {folder}"]), flush=True)
    if not card:
        print(f"gpu: no CUDA device: {facts['no CUDA device']}", flush=True)
    if {"not run", "unfinished"} & {*states.values()}:
        print("gpu: the minutes are used up; the same command goes on", flush=True)
    return 1 if "failed" in states.values() else 0 if card else 3


if __name__ == "__main__":
    sys.exit(main())
