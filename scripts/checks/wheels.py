"""Builds the wheel of a release for this Python, and tries it as a team would on a machine without a compiler. ``make release-check``.

The wheel holds the C++ kernels for the CPU, and none of PyTorch's libraries. auditwheel names the oldest glibc that it runs with. Then new
virtual environments, whose programs are the only ones on the path, install it beside the oldest and beside the newest PyTorch, train on a
DataFrame, and get an answer over HTTP. pip's own configuration says where packages come from.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import zipfile
from pathlib import Path

from tests.event_frames import events

from . import abi

FOLDER = abi.ROOT / "build" / "wheels"
EXAMPLE = abi.ROOT / "examples" / "dataframe_to_server.py"
FOREIGN = ("libtorch", "libc10", "libcuda", "libcudart", "libgomp", "_C_cuda")
LOADED = "from dcrnn_fast.ops import backends; import dcrnn_fast; assert backends.resolve('auto') == 'cpp'; print(dcrnn_fast.__file__)"


def repaired(package: Path, into: Path) -> Path:
    """The wheel with the tag of the systems that it runs on. Other systems than Linux have one already."""
    into.mkdir(parents=True, exist_ok=True)
    if sys.platform != "linux":
        return Path(shutil.copy2(package, into))
    tools = abi.ROOT / "build" / "auditwheel"
    environment = {"PYTHONPATH": str(tools), "PATH": f"{tools / 'bin'}{os.pathsep}{os.environ['PATH']}"}
    excluded = [word for name in ("libtorch*.so*", "libc10*.so*") for word in ("--exclude", name)]
    own = f"{package.name.rpartition('-')[0]}-*.whl"
    for old in into.glob(own):
        old.unlink()
    abi.run(sys.executable, "-m", "auditwheel", "repair", *excluded, "--wheel-dir", into, package, where=FOLDER, **environment)
    return next(into.glob(own))


def check_contents(package: Path) -> None:
    """Exit unless the wheel holds the C++ kernels and no library or kernel that is not its own."""
    names = zipfile.ZipFile(package).namelist()
    foreign = [name for name in names if any(word in name for word in FOREIGN)]
    if foreign or not any(name.startswith("dcrnn_fast/_C.") for name in names):
        raise SystemExit(f"wheels: {package.name}: expected dcrnn_fast/_C and no library, got {foreign or 'no dcrnn_fast/_C'}")


def tried(package: Path, version: str) -> str:
    """Install the wheel beside that PyTorch, train and ask a server. Returns what was seen."""
    folder = FOLDER / f"torch-{version}"
    shutil.rmtree(folder, ignore_errors=True)
    abi.run(sys.executable, "-m", "venv", folder, where=FOLDER)
    alone = {"PATH": str(folder / "bin"), "PYTHONPATH": ""}
    python = folder / "bin" / "python"
    packages = abi.requirement(version), "pandas", f"dcrnn_fast[serve] @ {package.as_uri()}"
    abi.run(python, "-m", "pip", "install", "--no-compile", *packages, where=folder, **alone)
    place = abi.run(python, "-c", LOADED, where=folder, **alone)
    if str(folder) not in place:
        raise SystemExit(f"wheels: imported {place.strip()}, expected the wheel in {folder}")
    events(4000).drop(columns="city").to_parquet(folder / "log.parquet")
    said = abi.run(python, EXAMPLE, folder / "log.parquet", folder / "run", where=folder, **alone)
    scores = json.loads(said.splitlines()[-1])["scores"]
    used = abi.run(python, "-c", "import torch; print(torch.__version__)", where=folder, **alone).strip()
    shutil.rmtree(folder)  # gigabytes
    return f"{package.name} beside PyTorch {used}: {scores}"


def main() -> None:
    """Exit with 0 if the wheel holds what it should, and every PyTorch trains and answers with it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "versions", nargs="*", metavar="VERSION", default=[abi.OLDEST, abi.NEWEST], help="of PyTorch (default: %(default)s)"
    )
    given = parser.parse_args()
    for folder in (FOLDER, abi.FOLDER):
        folder.mkdir(parents=True, exist_ok=True)
    package = repaired(abi.wheel(Path(sys.executable), "own"), abi.ROOT / "dist")
    check_contents(package)
    for version in given.versions:
        print(tried(package, version), flush=True)


if __name__ == "__main__":
    main()
