"""Runs tests/cpu on an extension built with AddressSanitizer and UndefinedBehaviorSanitizer: ``python scripts/sanitize.py``.

A copy of the sources under build/sanitize/ is built and tested; the installed extension is not touched. Then two defects are planted in the
copy, a read past a row's end and a signed overflow, and the sanitizers must find both: a checker that cannot fail checks nothing.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
COPY = ROOT / "build" / "sanitize"
FLAGS = "-fsanitize=address,undefined -fno-sanitize-recover=undefined -fno-omit-frame-pointer -g1"
COPIED = ("csrc", "dcrnn_fast", "kernels", "tests", "setup.py", "pyproject.toml", "README.md", "LICENSE")

PLANTED = {
    "csrc/cpu/elementwise.inl": ("for (int64_t d = 0; d < step.dim; ++d)", "for (int64_t d = 0; d <= step.dim; ++d)"),
    "csrc/cpu/param_gather.cpp": ("int64_t count = 1;", "int64_t count = INT64_MAX;"),
}
CALLS = {
    "AddressSanitizer: heap-buffer-overflow": "CrossRNN(plan)(torch.randn(40, 16))",
    "runtime error: signed integer overflow": "functional.param_gather(torch.randn(8, 2, 16), torch.randn(2, 8, 2, 16), plan.index())",
}
PRELUDE = "import torch; from dcrnn_fast import CrossRNN, SharingPlan, functional; plan = SharingPlan.from_ratio('rows', 2, 16, 0.5); "
IS_SANITIZED = f"""
from pathlib import Path
from dcrnn_fast import _C
path = Path(_C.__file__)
assert path.is_relative_to({str(COPY)!r}), path
assert b"__asan_init" in path.read_bytes() and b"__ubsan_handle" in path.read_bytes(), "built without the sanitizers"
"""


def library(name: str) -> str:
    """The compiler's own copy of a runtime library."""
    command = [os.environ.get("CC", "gcc"), f"-print-file-name={name}"]
    path = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    if not Path(path).is_absolute():
        raise SystemExit(f"sanitize: no {name} beside the compiler; GCC with its sanitizer libraries is needed, clang is not supported")
    return path


def python(*arguments: str, capture: bool = False) -> subprocess.CompletedProcess[str]:
    """Python in the copy, with the sanitizers' runtime loaded first. It loads libstdc++ as well: AddressSanitizer wraps its exceptions."""
    environment = {
        **os.environ,
        "PYTHONPATH": str(COPY),
        "LD_PRELOAD": f"{library('libasan.so')} {library('libstdc++.so')}",
        "ASAN_OPTIONS": "detect_leaks=0",  # an interpreter leaves memory to the system by design
        "UBSAN_OPTIONS": "print_stacktrace=1",
        "OMP_NUM_THREADS": "2",
        "DCRNN_FAST_BACKEND": "cpp",
    }
    return subprocess.run([sys.executable, *arguments], cwd=COPY, env=environment, text=True, check=False, capture_output=capture)


def build() -> None:
    """Compile what changed. DCRNN_FAST_CPP=1 makes a failure an error."""
    environment = {**os.environ, "CFLAGS": FLAGS, "CXXFLAGS": FLAGS, "LDFLAGS": FLAGS, "DCRNN_FAST_CPP": "1"}
    command = [sys.executable, "setup.py", "-q", "build_ext", "--inplace"]
    done = subprocess.run(command, cwd=COPY, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"sanitize: the build failed\n{done.stdout}{done.stderr}")


def copy_sources() -> None:
    """The sources as they are; object files of an earlier run stay, and ninja rebuilds what is newer."""
    skip = shutil.ignore_patterns("*.so", "__pycache__", "_build_failure.txt")
    for name in COPIED:
        if (ROOT / name).is_dir():
            shutil.rmtree(COPY / name, ignore_errors=True)
            shutil.copytree(ROOT / name, COPY / name, ignore=skip)
        else:
            COPY.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, COPY / name)
    for name in PLANTED:
        (COPY / name).touch()  # an earlier run's object file holds the defect, and is newer than the source


def plant_defects() -> None:
    """Replace a line in each of two files of the copy."""
    for name, (right, wrong) in PLANTED.items():
        path = COPY / name
        text = path.read_text(encoding="utf-8")
        if right not in text:
            raise SystemExit(f"sanitize: {name} has no longer the line that the defect is planted in: {right}")
        path.write_text(text.replace(right, wrong), encoding="utf-8")


def main() -> None:
    """Exit code 0 if the tests pass and both planted defects are found."""
    copy_sources()
    print("sanitize: building", flush=True)
    build()
    if python("-c", IS_SANITIZED).returncode:
        raise SystemExit("sanitize: the extension under test is not the sanitized one")
    print("sanitize: testing", flush=True)
    if python("-m", "pytest", "tests/cpu", "-n", "auto", "--dist", "worksteal", "-p", "no:cacheprovider").returncode:
        raise SystemExit("sanitize: failed")
    print("sanitize: planting defects", flush=True)
    plant_defects()
    build()
    for report, call in CALLS.items():
        done = python("-c", PRELUDE + call, capture=True)
        if done.returncode == 0 or report not in done.stderr:
            raise SystemExit(f"sanitize: the planted defect was not found, expected a report of {report!r}\n{done.stderr[-2000:]}")
        print(f"sanitize: found as it should be: {report}", flush=True)


if __name__ == "__main__":
    main()
