"""How many requests does a server answer, and how soon? The program wrk asks the servers in turn, over loopback.

The model has the default configuration for census-income and random weights. A request holds raw cells: one row, or the 200 candidates of
one user. The C++ server runs the AOTInductor package; the same process runs the reference by ONNX Runtime; and ``dcrnn-fast serve`` answers
from Python.
"""

from __future__ import annotations

import json
import math
import shutil
import statistics
import subprocess
import tempfile
from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import Any

from dcrnn_fast import Ranker
from dcrnn_fast.errors import ConfigError

from ..interleave import told
from ..load.servers import CANDIDATES, Command, Server, commands, write_bodies, write_exports, write_run

SECONDS = 3.0
CONNECTIONS, ROWS = (1, 8, 64), (1, CANDIDATES)
ROUNDS = 3
SCRIPT, TIMEOUT = Path(__file__).parents[1] / "load" / "score.lua", 10
"""What wrk runs, and the seconds after which a request has failed."""
FIGURES = ("p50, ms", "p99, ms", "p99.9, ms")


def wrk(url: str, bodies: Path, *, connections: int, seconds: float) -> dict[str, Any]:
    """Post the bodies in turn over each connection for some seconds.

    A connection posts the next one when the last is answered. Returns requests, those that failed or were answered with another status
    than 200, and percentiles of the time to the answer.
    """
    options = ["-t1", f"-c{connections}", f"-d{math.ceil(seconds)}s", f"--timeout={TIMEOUT}s", "-s", str(SCRIPT)]
    command = ["wrk", *options, f"{url}/v1/score", "--", str(bodies)]
    printed = subprocess.run(command, check=True, capture_output=True, text=True, timeout=seconds + 60).stdout
    return json.loads(printed.splitlines()[-1])


def compare(servers: dict[str, Command], bodies: dict[int, Path], seconds: float) -> list[dict[str, Any]]:
    """A row for each number of rows, of connections, and each server: medians over the rounds."""
    found = []
    for rows in ROWS:
        for connections in CONNECTIONS:
            rounds: dict[str, list[dict[str, float]]] = {name: [] for name in servers}
            for turn in range(ROUNDS):
                for name in list(servers)[turn % len(servers) :] + list(servers)[: turn % len(servers)]:
                    with Server(servers[name]) as server:
                        wrk(server.url, bodies[rows], connections=connections, seconds=1)
                        rounds[name].append(wrk(server.url, bodies[rows], connections=connections, seconds=seconds))
            for name, ones in rounds.items():
                rate = [one["requests"] / one["seconds"] for one in ones]
                found.append(
                    {
                        "rows": rows,
                        "connections": connections,
                        "server": name,
                        "requests/s": round(statistics.median(rate), 1),
                        "requests/s, low": round(min(rate), 1),
                        "requests/s, high": round(max(rate), 1),
                        **{figure: round(statistics.median(one[figure] for one in ones), 3) for figure in FIGURES},
                        "failed": sum(int(one["failed"]) for one in ones),
                    }
                )
                told(found[-1])
    return found


def run(options: Namespace) -> dict[str, Any]:
    """Compare the servers."""
    if shutil.which("wrk") is None:
        raise ConfigError("the load test needs the program wrk: install your system's package wrk")
    with tempfile.TemporaryDirectory(prefix="dcrnn_fast-") as scratch:
        folder = Path(scratch)
        write_run(folder / "run")
        bodies = write_bodies(Ranker.load(folder / "run").columns, folder)
        packages = write_exports(folder / "run", folder, ["aoti", "onnx"])
        servers = commands(options.server, packages["aoti"], packages["onnx"])
        return {"rows": compare(servers, bodies, options.seconds)}


def add_options(parser: ArgumentParser) -> None:
    parser.add_argument("--server", type=Path, default=Path("build/load/dcrnn_fast_server"), help="the C++ server's program")
