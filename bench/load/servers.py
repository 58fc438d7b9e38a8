"""The servers of the load test: their commands, and one of them as a running process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

from dcrnn_fast.errors import ConfigError

OURS = "C++, AOTInductor"


class Command(NamedTuple):
    """A server's command line, and what it reads of the environment."""

    words: list[str]
    environment: dict[str, str]


def commands(program: Path, aoti: Path, onnx: Path) -> dict[str, Command]:
    """The servers' commands by name, ours first; those that are not built are left out, with a word."""
    if not program.is_file():
        raise ConfigError(f"{program} does not exist; build the C++ servers first: make measure NAME=load does")
    threads = ["--port", "0", "--threads", str(max(1, (os.cpu_count() or 1) // 2))]
    found = {OURS: Command([str(program), "--model", str(aoti), *threads], {})}
    peer = program.with_name(f"{program.name}_onnxruntime")
    if peer.is_file():
        found["C++, ONNX Runtime"] = Command([str(peer), "--model", str(aoti), *threads], {"DCRNN_FAST_ENGINE_FILE": str(onnx)})
    else:
        print(f"C++, ONNX Runtime is left out: {peer} is not built", flush=True)
    found["Python"] = Command([sys.executable, "-m", "dcrnn_fast", "serve", "--package", str(aoti), *threads], {})
    return found


class Server:
    """A server on loopback, from entering to leaving."""

    def __init__(self, command: Command) -> None:
        self.command, self.url = command, ""

    def __enter__(self) -> Server:
        environment = {**os.environ, "OMP_NUM_THREADS": "1", **self.command.environment}
        self.process = subprocess.Popen(self.command.words, stdout=subprocess.PIPE, text=True, env=environment)
        assert self.process.stdout is not None
        said = self.process.stdout.readline()
        if not said.startswith("listening on "):
            self.process.kill()
            raise RuntimeError(f"{' '.join(self.command.words)} said {said!r}, expected 'listening on URL'")
        self.url = said.removeprefix("listening on ").strip()
        return self

    def __exit__(self, *error: Any) -> None:
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(timeout=30)
        finally:
            self.process.kill()
