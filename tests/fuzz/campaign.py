"""How long a fuzzer runs, and from which seed.

FUZZ_MINUTES=M runs M minutes with a new seed. FUZZ_SEED=S runs the cases of that seed. Without them a fuzzer runs for seconds, always from
the same seed, so that the tests of a commit are the same on every run.
"""

import json
import os
import random
import secrets
import time
from collections.abc import Callable
from typing import Any

Case = dict[str, Any]


def run(name: str, make: Callable[[random.Random], Case], judge: Callable[[Case], str | None], seconds: float, part: float = 1.0) -> str:
    """Judge cases for ``seconds``, or for a part of FUZZ_MINUTES, and say how many. Each has random numbers of its own.

    Raises:
        AssertionError: a case is wrong. The error says in which words, and how to see it again.
    """
    minutes, given, calls = os.environ.get("FUZZ_MINUTES"), os.environ.get("FUZZ_SEED"), 0
    seed = int(given) if given else secrets.randbelow(2**32) if minutes else 0
    end = time.monotonic() + (float(minutes) * 60 * part if minutes else seconds)
    while time.monotonic() < end:
        case = make(random.Random(f"{seed}:{calls}"))
        words = judge(case)
        assert not words, f"{words}\n    FUZZ_SEED={seed}, case {calls}; again: python -m tests.fuzz.{name} '{json.dumps(case)}'"
        calls += 1
    return f"FUZZ {name}: {calls} calls, 0 findings"
