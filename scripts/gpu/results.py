"""What scripts.gpu keeps from call to call: logs, figures, and which parts passed; as one file that another machine can go on from."""

from __future__ import annotations

import json
import os
import re
import shutil
import tarfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .. import tree
from .runner import Runner

KEPT = re.compile(r"(logs|results)/\w[\w.-]*|passed\.json|(sources|tests)\.txt")
"""The names in results.tar.gz. A file of another name is never unpacked."""
LARGEST = 64 << 20
"""Bytes of the largest file that is unpacked."""


class Results:
    """The files in ``folder``. ``where`` is the copy of the sources, in which benchmarks write their results."""

    def __init__(self, folder: Path, where: Path) -> None:
        self.folder, self.where = folder, where
        self.logs, self.passed = folder / "logs", folder / "passed.json"
        self.sources, self.tests = folder / "sources.txt", folder / "tests.txt"

    def copy_sources(self) -> str:
        """Copy the sources, and return their hash. What was measured on others is deleted: no later call can take it for its own."""
        sources = tree.copy(self.where)
        if not self.sources.is_file() or self.sources.read_text(encoding="utf-8") != sources:
            shutil.rmtree(self.where / tree.RESULTS, ignore_errors=True)
            shutil.rmtree(self.logs, ignore_errors=True)
            self.passed.unlink(missing_ok=True)
            self.tests.unlink(missing_ok=True)
            self.sources.write_text(sources, encoding="utf-8")
        self.logs.mkdir(exist_ok=True)
        return sources

    def keep(self, runner: Runner, stamp: Mapping[str, object]) -> None:
        """Let the runner know what passed with the same ``stamp`` (sources, card, versions, builds), and pack what passes from now on."""
        known = _read(self.passed)
        if {name: known.get(name) for name in stamp} == stamp:
            runner.passed_before |= set(known.get("passed", ()))
        else:
            self.tests.unlink(missing_ok=True)

        def write() -> None:
            passed = sorted(runner.passed_before - {"build", "environment"})
            _replace(self.passed, json.dumps({**stamp, "passed": passed}, indent=1))
            self.pack(runner)  # a machine that is taken away in the middle of a step loses nothing that passed

        packed = 0.0

        def pack_what_was_measured() -> None:
            nonlocal packed
            measured = [*(self.where / tree.RESULTS).glob("*"), *([self.tests] if self.tests.is_file() else [])]
            newest = max((path.stat().st_mtime for path in measured), default=0.0)
            if newest > packed:
                packed = newest
                self.pack(runner)

        runner.changed = write
        runner.going_on = pack_what_was_measured

    def summary(self, runner: Runner) -> str:
        """The headline figures, where they were measured, and a line for each step."""
        return "\n".join([*headline_of(runner.log("headline")), runner.summary()])

    def pack(self, runner: Runner) -> Path:
        """Write results.tar.gz to $OUT, or beside the files: the summary, the logs, what was measured and what passed."""
        out = Path(os.environ.get("OUT") or self.folder).resolve()
        out.mkdir(parents=True, exist_ok=True)
        _replace(self.logs / "summary.txt", self.summary(runner) + "\n")
        every = {f"results/{path.name}": path for path in (self.where / tree.RESULTS).glob("*")}
        every |= {f"logs/{path.name}": path for path in self.logs.glob("*")}
        every |= {path.name: path for path in self.folder.glob("*")}
        beside = out / ".results.tar.gz"
        with tarfile.open(beside, "w:gz") as archive:
            for name, path in sorted(every.items()):
                if path.is_file() and KEPT.fullmatch(name):
                    archive.add(path, name)
        return beside.rename(out / "results.tar.gz")

    def unpack(self, path: Path) -> None:
        """Take over what an earlier call packed. Raises SystemExit if the file is damaged, or of other sources."""
        try:
            with tarfile.open(path, "r:gz") as archive:
                found = {
                    member.name: archive.extractfile(member).read()  # type: ignore[union-attr]
                    for member in archive
                    if member.isfile() and KEPT.fullmatch(member.name) and member.size <= LARGEST
                }
        except (OSError, tarfile.TarError, EOFError, zlib.error) as error:
            raise SystemExit(f"gpu: --resume {path}: cannot be read ({error}); start without --resume") from None
        if found.get("sources.txt") != self.sources.read_bytes():
            raise SystemExit(f"gpu: --resume {path}: was made of other sources, so nothing in it counts; start without --resume")
        for name, content in found.items():
            place = self.where / tree.RESULTS / Path(name).name if name.startswith("results/") else self.folder / name
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(content)
        print(f"gpu: goes on from {path}, {len(found)} files", flush=True)


def headline_of(log: Path) -> list[str]:
    """The last table in the log of the headline benchmark, which ends with the machine and the results' folder."""
    found: list[str] = []
    last: list[str] = []
    for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if log.is_file() else []:
        if "our time or memory over a peer's" in line:
            found = [line.strip("= ")]
        elif line.startswith("results: ") and found:
            last, found = [*found, ""], []
        elif found:
            found.append(line)
    return last


def _read(path: Path) -> dict[str, Any]:
    """The content of a JSON file, or nothing if it is absent or damaged."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _replace(path: Path, text: str) -> None:
    """Write a file beside its place and rename it."""
    beside = path.with_name(f".{path.name}")
    beside.write_text(text, encoding="utf-8")
    beside.rename(path)
