"""The server in C++: built once, without optimisation and in few translation units, into build/tests-server, where a later run finds it.

`make ctest` checks that each file compiles by itself.
"""

import os
import shutil
import signal
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from dcrnn_fast.support.locks import locked

REPOSITORY = Path(__file__).resolve().parents[2]
BUILD = REPOSITORY / "build" / "tests-server"


def missing():
    """What the server needs and this machine lacks, with the remedy, or None."""
    if sys.platform != "linux":
        return "the server was built on Linux alone"
    if shutil.which("cmake") is None:
        return "needs CMake: pip install cmake"
    if shutil.which(os.environ.get("CXX", "c++")) is None:
        return "needs a C++ compiler: install g++, or name one in CXX"
    if find_spec("libboost_headers") is None:
        return "needs Boost's headers: pip install 'libboost-headers>=1.88'"
    return None


def built():
    """The program. Skips the test where it cannot be built."""
    if problem := missing():
        pytest.skip(problem)
    BUILD.mkdir(parents=True, exist_ok=True)
    with locked(BUILD / ".lock", wait=True):
        configure = ["cmake", "-S", REPOSITORY, "-B", BUILD, f"-DPython3_EXECUTABLE={sys.executable}"]
        options = {"SERVER": "ON", "TESTS": "OFF", "CUDA": "OFF"}
        plain = ["-DCMAKE_BUILD_TYPE=Debug", "-DCMAKE_CXX_FLAGS_DEBUG=-O0", "-DCMAKE_UNITY_BUILD=ON", "-DCMAKE_UNITY_BUILD_BATCH_SIZE=0"]
        for command in (
            [*configure, *plain, *(f"-DDCRNN_FAST_{name}={value}" for name, value in options.items())],
            ["cmake", "--build", BUILD, "--target", "dcrnn_fast_server"],
        ):
            done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
            assert done.returncode == 0, f"{' '.join(map(str, command))}\n{done.stdout[-5000:]}"
    return BUILD / "dcrnn_fast_server"


class CppServer:
    """A process of the program, with the methods that the contract asks for. ``max_rows=100`` is ``--max-rows 100``."""

    def __init__(self, program, served, errors, **options):
        given = [text for name, value in options.items() for text in (f"--{name.replace('_', '-')}", str(value))]
        self.served, self.errors = served, errors
        with errors.open("w") as stderr:
            self.process = subprocess.Popen(
                [program, "--model", served, "--port", "0", *given], stdout=subprocess.PIPE, stderr=stderr, text=True
            )
        line = self.process.stdout.readline()
        assert line.startswith("listening on http://127.0.0.1:"), (line, self.process.wait(), errors.read_text())
        self.url = line.removeprefix("listening on ").strip()

    def reload(self):
        self.process.send_signal(signal.SIGHUP)

    def ask_to_stop(self):
        self.process.send_signal(signal.SIGTERM)

    def stop(self):
        """The exit code, when it has stopped."""
        self.ask_to_stop()
        code = self.process.wait(60)
        self.process.stdout.close()
        return code
