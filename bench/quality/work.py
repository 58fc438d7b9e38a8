"""The work folder: one file for each trial and each final run, so that a killed command goes on where it was."""

from __future__ import annotations

import json
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from dcrnn_fast.errors import ConfigError
from dcrnn_fast.support import files

from .models import MODELS
from .protocol import Protocol

ONE_SIZE = "one"
"""The size of models that have no widths."""


class Subject(NamedTuple):
    """What is tuned and measured: a model of a size on a data set."""

    data: str
    model: str
    size: str

    def __str__(self) -> str:
        return f"{self.data}, {self.model}, {self.size}"


class Work:
    """A work folder. Raises ConfigError if it was begun by another protocol: its rows could not be compared with the new ones."""

    def __init__(self, root: Path, protocol: Protocol) -> None:
        self.root, self.protocol = root, protocol
        root.mkdir(parents=True, exist_ok=True)
        path, now = root / "protocol.json", json.loads(json.dumps(asdict(protocol)))
        if not path.is_file():
            files.write_text(path, json.dumps(now, indent=1) + "\n")
        before = json.loads(path.read_text(encoding="utf-8"))
        changed = [f"{key} was {before.get(key)!r} and is {now.get(key)!r}" for key in before | now if before.get(key) != now.get(key)]
        if changed:
            raise ConfigError(f"--work {root} was begun by another protocol: {'; '.join(changed)}; choose another folder")

    def folder(self, subject: Subject) -> Path:
        """Where a subject's files are."""
        return self.root / subject.data / f"{subject.model}-{subject.size}"

    def read(self, subject: Subject, name: str, digest: str) -> dict[str, Any] | None:
        """The row ``name``, or None if it is not there yet. Raises ConfigError if it belongs to other rows or another search space."""
        path = self.folder(subject) / f"{name}.json"
        if not path.is_file():
            return None
        row = json.loads(path.read_text(encoding="utf-8"))
        if row["digest"] != digest or row["space"] != self.space_text(subject):
            what = "other rows of the data" if row["digest"] != digest else "another search space"
            raise ConfigError(f"{path} belongs to {what}; delete {path.parent}, or choose another --work")
        return row

    def write(self, subject: Subject, name: str, digest: str, row: dict[str, Any], logits: np.ndarray | None = None) -> dict[str, Any]:
        """Keep a row, and before it the logits of the test rows."""
        folder = self.folder(subject)
        folder.mkdir(parents=True, exist_ok=True)
        if logits is not None:
            with files.replacing(folder / f"{name}.npy") as beside, beside.open("wb") as file:
                np.save(file, logits.astype(np.float32))
        row = {**subject._asdict(), "digest": digest, "space": self.space_text(subject), **row}
        files.write_text(folder / f"{name}.json", json.dumps(row, indent=1, allow_nan=False) + "\n")
        return row

    def space_text(self, subject: Subject) -> str:
        """The search space of a subject as text."""
        return repr(sorted(MODELS[subject.model].space.items()))

    def logits(self, subject: Subject, name: str) -> np.ndarray:
        """What :meth:`write` kept."""
        return np.load(self.folder(subject) / f"{name}.npy")


class Clock:
    """How long is left: the rows that are there are counted, whoever wrote them."""

    def __init__(self, work: Work, rows: dict[Subject, int]) -> None:
        self.work, self.rows = work, rows
        self.begin, self.before = time.time(), self.done()

    def done(self) -> int:
        """The rows of these subjects."""
        return sum(min(most, sum(1 for _ in self.work.folder(subject).glob("*.json"))) for subject, most in self.rows.items())

    def left(self) -> str:
        """In words."""
        done, total = self.done(), sum(self.rows.values())
        if done <= self.before:
            return f"{done} of {total} runs"
        seconds = (time.time() - self.begin) / (done - self.before) * (total - done)
        return f"{done} of {total} runs, about {seconds / 60:.0f} min left"
