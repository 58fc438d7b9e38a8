"""wrk, which asks a server over many connections at once."""

from __future__ import annotations

import json
import math
import subprocess
from pathlib import Path
from typing import Any

SCRIPT = Path(__file__).with_name("score.lua")
TIMEOUT = 10
"""Seconds after which a request has failed."""


def wrk(url: str, bodies: Path, *, connections: int, seconds: float, pause: float = 0.0) -> dict[str, Any]:
    """Post the bodies in turn over each connection for some seconds.

    A connection posts the next one when the last is answered and ``pause`` milliseconds are over. Returns requests, those that
    failed or were answered with another status than 200, and percentiles of the time to the answer.
    """
    options = ["-t1", f"-c{connections}", f"-d{math.ceil(seconds)}s", f"--timeout={TIMEOUT}s", "-s", str(SCRIPT)]
    command = ["wrk", *options, f"{url}/v1/score", "--", str(bodies), f"{pause:.3f}"]
    printed = subprocess.run(command, check=True, capture_output=True, text=True, timeout=seconds + 60).stdout
    return json.loads(printed.splitlines()[-1])
