"""Runs the C++ kernels' tests on a build with AddressSanitizer and UndefinedBehaviorSanitizer. ``make sanitize``.

The script copies the sources to build/sanitize/ and builds and tests them there; the installed extension stays as it is. Then it plants
defects in the copy, two reads past the end of a row and a signed overflow, and fails unless the sanitizers find each.

With the argument ``fuzz`` it runs the fuzzers there instead, and plants nothing. ``make fuzz SANITIZE=1``.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

from ..sources import ROOT, copy

COPY = ROOT / "build" / "sanitize"
FILES = ("refusals", "cross_rnn", "cross_rnn_cpp", "cross_rnn_saved", "param_gather")
TESTS = ("tests/cpu", *(f"tests/operators/test_{name}.py" for name in FILES), "tests/ops/test_request.py")
TESTS += ("-k", "cpp or test_isa or test_request")
GCC = "g++"
"""Its sanitizers are shared libraries, which can be loaded before Python; clang's are not."""
FLAGS = "-fsanitize=address,undefined -fno-sanitize-recover=undefined -fno-omit-frame-pointer -g1"

# A plugin that pytest loads in every process. Without it, a broken build would be skipped, or an installed one would be tested instead.
GUARD = f"""
from pathlib import Path
from dcrnn_fast.ops import backends
from dcrnn_fast import _C  # after PyTorch, whose libraries it needs
path = Path(_C.__file__)
assert path.is_relative_to({str(COPY)!r}), f"{{path}} is under test, not the sanitized build"
assert all(name in path.read_bytes() for name in (b"__asan_init", b"__ubsan_handle")), f"{{path}} was built without the sanitizers"
assert backends.REASONS["cpp"] is None, backends.REASONS["cpp"]
"""


class Defect(NamedTuple):
    """A piece of a source file to replace, a call that then goes wrong, and the words that the report must have."""

    file: str
    right: str
    wrong: str
    call: str
    report: tuple[str, ...]
    isas: tuple[str, ...] = ("avx512", "avx2", "baseline")


DEFECTS = (
    Defect(
        "csrc/cpu/elementwise.inl",
        "A(product[G * d])",
        "A(product[G * (d + 1)])",
        "functional.cross_rnn(torch.randn(40, 16), *weights, steps=3, backend='cpp')",
        ("AddressSanitizer: heap-buffer-overflow", "READ of size", "elementwise.inl"),
    ),
    Defect(
        "csrc/cpu/product.inl",
        "p.b[k * p.b_width + column + n]",
        "p.b[(k + 1) * p.b_width + column + n]",
        "functional.cross_rnn(torch.randn(40, 3), *narrow, steps=3, backend='cpp')",
        ("AddressSanitizer: heap-buffer-overflow", "READ of size", "product.inl"),
    ),
    Defect(
        "csrc/cpu/low_rank_kernels.inl",
        "*const gate_bias = bias + s.plane",
        "*const gate_bias = bias + 2 * s.plane",
        "functional.cross_rnn(torch.randn(40, 16), *thin, steps=3, backend='cpp', **projection)",
        ("AddressSanitizer: heap-buffer-overflow", "READ of size", "low_rank_kernels.inl"),
    ),
    Defect(
        "csrc/cpu/product_amx.inl",
        "p.b + k * p.b_width,",
        "p.b + (k + 2) * p.b_width,",
        "functional.cross_rnn(*low(torch.randn(40, 16), *thin), steps=3, backend='cpp', **low_projection)",
        ("AddressSanitizer: heap-buffer-overflow", "READ of size", "product.h"),
        isas=("amx",),
    ),
    Defect(
        "csrc/cell_arguments.cpp",
        "steps <= most_steps",
        "steps >= 1",
        "torch.ops.dcrnn_fast.cross_rnn(torch.randn(40, 16), *weights, 2**63 - 1)",
        ("runtime error: signed integer overflow", "cell_arguments.cpp"),
        isas=("baseline",),
    ),
)
PRELUDE = """
import torch
from dcrnn_fast import functional

def drawn(units, columns, tasks=2):
    own = units // 2 * (tasks - 1)
    banks = torch.randn(1, units - own, 2, columns), torch.randn(tasks, 1, own, 2, columns)
    return banks[0], banks[0][..., 0].contiguous(), banks[1], banks[1][..., 0].contiguous()

weights, narrow, thin = drawn(16, 16), drawn(3, 3, tasks=1), drawn(16, 4)
projection = {"shared_projection": torch.randn(1, 4, 2, 16), "private_projection": torch.randn(2, 1, 0, 2, 16)}

def low(*tensors):
    return [tensor.bfloat16() for tensor in tensors]

low_projection = dict(zip(projection, low(*projection.values())))
"""


def library(name: str) -> str:
    """The compiler's own copy of a runtime library."""
    return subprocess.run([GCC, f"-print-file-name={name}"], capture_output=True, text=True, check=True).stdout.strip()


def build() -> None:
    """Compile what changed in the copy. With -O1, which takes half the time of -O3 and removes fewer of the accesses to watch."""
    environment = {**os.environ, "CXX": GCC, "CFLAGS": FLAGS, "LDFLAGS": FLAGS, "DCRNN_FAST_O": "1"}
    environment["DCRNN_FAST_CPP"] = "1"  # a failed build is an error
    command = [sys.executable, "setup.py", "-q", "build_ext", "--inplace"]
    done = subprocess.run(command, cwd=COPY, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"sanitize: the build failed\n{done.stdout}{done.stderr}")


def python(*arguments: str, capture: bool = False, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run Python in the copy, with the sanitizers' library loaded first, and libstdc++, whose exceptions AddressSanitizer wraps."""
    environment = {
        **os.environ,
        "PYTHONPATH": str(COPY),
        "LD_PRELOAD": f"{library('libasan.so')} {library('libstdc++.so')}",
        # Python does not free all its memory when it ends; a request for terabytes is refused as without the sanitizer
        "ASAN_OPTIONS": "halt_on_error=1:detect_leaks=0:allocator_may_return_null=1:max_allocation_size_mb=2048",
        "UBSAN_OPTIONS": "halt_on_error=1:print_stacktrace=1",
        "OMP_WAIT_POLICY": "passive",
        **variables,
    }
    return subprocess.run([sys.executable, *arguments], cwd=COPY, env=environment, text=True, check=False, capture_output=capture)


def run_tests(*tests: str, distribute: str = "worksteal") -> None:
    """Run the tests with two threads, so that tiles are computed at the same time. ``--capture=sys`` leaves the reports on stderr alone."""
    options = ("-n", "auto", "--dist", distribute, "-p", "guard", "-p", "no:cacheprovider", "--capture=sys")
    if python("-m", "pytest", *tests, *options, OMP_NUM_THREADS="2").returncode:
        raise SystemExit("sanitize: failed")


def plant(defect: Defect) -> None:
    """Write a defect into the copy."""
    path = COPY / defect.file
    text = path.read_text(encoding="utf-8")
    if text.count(defect.right) != 1:
        raise SystemExit(f"sanitize: {defect.file} must contain this once, to plant a defect there: {defect.right}")
    path.write_text(text.replace(defect.right, defect.wrong), encoding="utf-8")


def find(defect: Defect, isa: str) -> None:
    """Fail unless the defect ends its process with its report, where this CPU has the instruction set."""
    done = python("-c", PRELUDE + defect.call, capture=True, DCRNN_FAST_ISA=isa)
    if "this CPU lacks" in done.stderr:
        return
    if done.returncode == 0 or not all(words in done.stderr for words in defect.report):
        raise SystemExit(f"sanitize: the defect planted in {defect.file} was not found with {isa}\n{done.stderr[-4000:]}")
    print(f"sanitize: found the planted defect with {isa}: {defect.report[0]}", flush=True)


def main(fuzz: bool) -> None:
    """Exit with 0 if the tests pass and the sanitizers find every planted defect; with ``fuzz``, if the fuzzers find nothing."""
    print("sanitize: building", flush=True)
    shutil.rmtree(COPY, ignore_errors=True)  # the object files of an earlier run contain the planted defects
    copy(COPY)
    (COPY / "guard.py").write_text(GUARD, encoding="utf-8")
    build()
    if fuzz:
        print("sanitize: fuzzing", flush=True)
        return run_tests("tests/fuzz", distribute="loadfile")
    print("sanitize: testing", flush=True)
    run_tests(*TESTS)
    print("sanitize: planting defects", flush=True)
    for defect in DEFECTS:
        plant(defect)
    build()
    calls = [(defect, isa) for defect in DEFECTS for isa in defect.isas]
    with ThreadPoolExecutor(os.cpu_count()) as processes:  # each thread waits for a process
        list(processes.map(find, *zip(*calls, strict=True)))


if __name__ == "__main__":
    main(fuzz=sys.argv[1:] == ["fuzz"])
