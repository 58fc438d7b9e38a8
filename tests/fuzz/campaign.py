"""How long a fuzzer runs, from which seed, and what it says at the end.

FUZZ_MINUTES=M runs M minutes with a new seed. FUZZ_SEED=S runs the cases of that seed. Without them a fuzzer runs for seconds, always from
the same seed, so that the tests of a commit are the same on every run.
"""

import json
import os
import random
import secrets
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

Case = dict[str, Any]


@dataclass
class Campaign:
    """The cases of one run of a fuzzer, and its findings."""

    name: str
    seconds: float
    seed: int = 0
    most_calls: int = 10**12
    most_findings: int = 20
    calls: int = 0
    findings: dict[str, str] = field(default_factory=dict)
    """The first finding of each kind, and how to see it again."""

    @classmethod
    def from_environment(cls, name: str, seconds: float, part: float = 1.0) -> "Campaign":
        """A campaign of ``seconds``, or of a part of FUZZ_MINUTES."""
        minutes, seed = os.environ.get("FUZZ_MINUTES"), os.environ.get("FUZZ_SEED")
        chosen = int(seed) if seed else secrets.randbelow(2**32) if minutes else 0
        return cls(name, float(minutes) * 60 * part if minutes else seconds, chosen)

    def cases(self, make: Callable[[random.Random], Case]) -> Iterator[Case]:
        """Cases until the time is over; each has random numbers of its own."""
        end = time.monotonic() + self.seconds
        while time.monotonic() < end and self.calls < self.most_calls and len(self.findings) < self.most_findings:
            yield make(random.Random(f"{self.seed}:{self.calls}"))
            self.calls += 1

    def found(self, kind: str, what: str, case: Case) -> None:
        """Keep a finding, unless one of its kind was found before. ``case`` has what its module needs to make the call again."""
        text = f"{what}\n    FUZZ_SEED={self.seed}, case {self.calls}; again: python -m tests.fuzz.{self.name} '{json.dumps(case)}'"
        if self.findings.setdefault(kind, text) is text:
            print(f"finding: {text}", flush=True)

    def summary(self) -> str:
        return f"FUZZ {self.name}: {self.calls} calls, {len(self.findings)} findings"

    def report(self) -> str:
        return "\n".join([*self.findings.values(), self.summary()])


def simplest(case: Case, fields: dict[str, tuple[Any, ...]], fails: Callable[[Case], bool], seconds: float = 20.0) -> Case:
    """The case with each value replaced by the simplest one with which it still fails, as far as the time allows."""
    end, changed = time.monotonic() + seconds, True
    while changed:
        changed = False
        for name, values in fields.items():
            for value in dict.fromkeys(values):
                if value == case[name] or time.monotonic() > end:
                    break
                if fails({**case, name: value}):
                    case, changed = {**case, name: value}, True
                    break
    return case
