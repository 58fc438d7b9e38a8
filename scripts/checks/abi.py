"""Checks that one build serves every PyTorch: builds a wheel against each of several versions and tests it in the others.
``make release-check ABI="2.10.0 2.13.0"`` runs it.

By default it takes the oldest supported version and the newest that pip offers. Each version gets a virtual environment in build/abi/,
gigabytes that stay until you delete it. pip's own configuration says where packages come from.
"""

from __future__ import annotations

import argparse
import itertools
import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "build" / "abi"
OLDEST, NEWEST = "2.10", "newest"
WHEEL = ("-m", "pip", "wheel", "--no-build-isolation", "--no-deps")
NEEDS = ("numpy<2.4", "pybind11>=2.13", "setuptools>=77", "ninja")  # Triton 3.6, which PyTorch 2.10 brings, interprets no later numpy
TESTS = ("tests/nn", "tests/ops", "tests/operators", "--backend", "cpp", "-n", "auto")
LOADED = """
import sys
import torch
from dcrnn_fast import _C
from dcrnn_fast.ops import backends
build = _C.build_info()
assert build["built_against_torch"] == sys.argv[1].partition("+")[0], build
assert torch.__version__ == sys.argv[2], torch.__version__
assert _C.__file__.startswith(sys.prefix), _C.__file__
assert backends.REASONS["cpp"] is None, backends.REASONS["cpp"]
assert backends.resolve("auto") == "cpp"
"""


def run(*command: str | Path, where: Path = FOLDER, **environment: str) -> str:
    """Run a command and return what it prints. Exits with the end of its output."""
    done = subprocess.run(command, cwd=where, env={**os.environ, **environment}, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"failed: {' '.join(map(str, command))}\n{done.stdout[-6000:]}{done.stderr[-6000:]}")
    return done.stdout


def requirement(version: str) -> str:
    """That PyTorch, as pip names it."""
    return "torch" if version == NEWEST else f"torch=={version}.*" if version.count(".") == 1 else f"torch=={version}"


def environment_of(version: str) -> Path:
    """Install that PyTorch in a virtual environment, and return its Python."""
    folder = FOLDER / f"torch-{version}"
    python = folder / "bin" / "python"
    if not python.exists():
        run(sys.executable, "-m", "venv", folder)
    run(python, "-m", "pip", "install", "--upgrade", requirement(version), *NEEDS)
    return python


def wheel(python: Path, version: str) -> Path:
    """Build the package in that environment, from a source distribution: no earlier build's files get in."""
    out = FOLDER / f"wheel-{version}"
    shutil.rmtree(out, ignore_errors=True)
    run(python, "setup.py", "-q", "sdist", "--dist-dir", out, where=ROOT)
    (source,) = out.iterdir()
    run(python, *WHEEL, "--wheel-dir", out, source, DCRNN_FAST_CPP="1", DCRNN_FAST_CUDA="0")
    return next(out.glob("*.whl"))


def test(python: Path, package: Path, built: str, used: str) -> str:
    """Run the tests and return the last line of their output. They get a folder of their own, so they import the installed wheel."""
    tests = FOLDER / "tests-alone"
    shutil.rmtree(tests, ignore_errors=True)
    shutil.copytree(ROOT / "tests", tests / "tests", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy2(ROOT / "pyproject.toml", tests)
    run(python, "-m", "pip", "install", "--no-deps", "--force-reinstall", package)
    run(python, "-m", "pip", "install", f"{package}[test]")
    print(run(python, "-m", "dcrnn_fast", "info", where=tests), flush=True)
    run(python, "-c", LOADED, built, used, where=tests)
    return run(python, "-m", "pytest", *TESTS, "-p", "no:cacheprovider", where=tests, OMP_NUM_THREADS="1").splitlines()[-1]


def main() -> None:
    """Exit with 0 if every build passes the tests in every other version."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("versions", nargs="*", metavar="VERSION", help=f"two or more versions of PyTorch (default: {OLDEST} {NEWEST})")
    arguments = parser.parse_args()
    FOLDER.mkdir(parents=True, exist_ok=True)
    pythons = {}
    for name in arguments.versions or (OLDEST, NEWEST):
        print(f"abi: installing PyTorch {name}", flush=True)
        python = environment_of(name)
        pythons[run(python, "-c", "import torch; print(torch.__version__)").strip()] = python
    if len(pythons) < 2:
        parser.error(f"two different versions are needed: one to build against, another to run in; got {', '.join(pythons)}")
    wheels = {}
    for version, python in pythons.items():
        print(f"abi: building against {version}", flush=True)
        wheels[version] = wheel(python, version)
    failed = False
    for built, used in itertools.permutations(pythons, 2):
        try:
            result = test(pythons[used], wheels[built], built, used)
        except SystemExit as error:
            result, failed = f"FAILED\n{error}", True
        print(f"abi: built against {built}, tested in {used}: {result}", flush=True)
    raise SystemExit(failed)


if __name__ == "__main__":
    main()
