"""One build for every PyTorch: builds a wheel against one version and tests it in another: ``python scripts/abi.py 2.10.0 2.13.0``.

Makes one virtual environment a version under build/abi/, of gigabytes, so it is no part of the tests.
"""

from __future__ import annotations

import argparse
import itertools
import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FOLDER = ROOT / "build" / "abi"
NEEDS = ("numpy", "pybind11>=2.13", "setuptools>=77", "ninja", "pytest>=8", "hypothesis>=6.100")
TESTS = "as_exact or bits or opcheck or autocast"
LOADED = """
import sys
import torch, dcrnn_fast
from dcrnn_fast import _C, backends
build = _C.build_info()
assert build["built_against_torch"].startswith(sys.argv[1]), build
assert torch.__version__.startswith(sys.argv[2]), torch.__version__
assert backends.REASONS["cpp"] is None, backends.REASONS["cpp"]
assert backends.resolve("auto") == "cpp"
print(f"built against {build['built_against_torch']}, loaded in {torch.__version__}")
"""


def run(*command: str | Path, where: Path = ROOT, **environment: str) -> None:
    """Run a command, or stop with what failed."""
    if subprocess.run([str(part) for part in command], cwd=where, env={**os.environ, **environment}, check=False).returncode:
        raise SystemExit(f"abi: failed: {' '.join(map(str, command))}")


def environment_of(version: str) -> Path:
    """The Python of a virtual environment with that PyTorch."""
    folder = FOLDER / f"torch-{version}"
    python = folder / "bin" / "python"
    if not python.exists():
        run(sys.executable, "-m", "venv", folder)
    run(python, "-m", "pip", "install", "--quiet", f"torch=={version}.*" if version.count(".") == 1 else f"torch=={version}", *NEEDS)
    return python


def wheel(version: str, python: Path) -> Path:
    """The package built in that environment."""
    out = FOLDER / f"wheel-{version}"
    shutil.rmtree(out, ignore_errors=True)
    run(python, "-m", "pip", "wheel", "--quiet", "--no-build-isolation", "--no-deps", "--wheel-dir", out, ROOT, DCRNN_FAST_CPP="1")
    return next(out.glob("*.whl"))


def main() -> None:
    """Exit code 0 if every build runs in every other version."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("versions", nargs="+", metavar="VERSION", help="two or more versions of PyTorch, such as 2.10.0 2.13.0")
    versions = parser.parse_args().versions
    if len(set(versions)) < 2:
        parser.error("two versions or more are needed: one to build against, another to run in")
    pythons = {version: environment_of(version) for version in versions}
    wheels = {version: wheel(version, python) for version, python in pythons.items()}
    # the tests without the sources beside them: what they import is the installed wheel
    tests = FOLDER / "tests-alone"
    shutil.rmtree(tests, ignore_errors=True)
    shutil.copytree(ROOT / "tests", tests / "tests", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy2(ROOT / "pyproject.toml", tests)
    for built, used in itertools.permutations(versions, 2):
        print(f"abi: built against {built}, run in {used}", flush=True)
        run(pythons[used], "-m", "pip", "install", "--quiet", "--no-deps", "--force-reinstall", wheels[built])
        run(pythons[used], "-c", LOADED, built, used, where=tests)
        run(pythons[used], "-m", "pytest", "tests/cpu", "-p", "no:cacheprovider", "-k", TESTS, where=tests)
    print(f"abi: {' and '.join(versions)} run each other's builds")


if __name__ == "__main__":
    main()
