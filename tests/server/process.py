"""Servers under test: a process of its own, with what it holds and writes to stderr, and a thread of this one."""

import os
import re
import resource
import signal
import subprocess
import threading
from functools import partial
from pathlib import Path
from queue import SimpleQueue


class Process:
    """A process of a command whose first line ends with the URL where it listens; ``most_files`` is its ``ulimit -n``."""

    def __init__(self, words, errors, *, most_files=None):
        self.errors = errors

        def limit():
            if most_files is not None:
                resource.setrlimit(resource.RLIMIT_NOFILE, (most_files, most_files))

        with errors.open("w") as stderr:
            self.process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=stderr, text=True, preexec_fn=limit)
        line = self.process.stdout.readline()
        if "listening on http://127.0.0.1:" not in line:
            raise OSError(f"{' '.join(map(str, words))} ended with {self.process.wait(60)}: {line}{errors.read_text()}")
        self.url = line.rpartition(" ")[2].strip()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()
        self.process.stdout.close()

    @property
    def memory(self):
        """The resident bytes."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.search(r"VmRSS:\s+(\d+) kB", status)[1]) * 1024

    @property
    def open_files(self):
        return len(os.listdir(f"/proc/{self.process.pid}/fd"))

    @property
    def lines(self):
        """What it has written to stderr."""
        return self.errors.read_text(errors="replace").splitlines()

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


class CppServer(Process):
    """The server in C++, which `make ctest` builds, with the methods that the contract asks for. ``max_rows=100`` is ``--max-rows 100``."""

    def __init__(self, program, served, errors, **options):
        given = [text for name, value in options.items() for text in (f"--{name.replace('_', '-')}", str(value))]
        super().__init__([program, "--model", served, "--port", "0", *given], errors)
        self.served = served


class OnAThread:
    """The server in Python on a thread of this process: it starts in no time. Options are those of the command, as ``max_rows=100``."""

    def __init__(self, served, *, load=None, grace=10.0, threads=1, **limits):
        from dcrnn_fast import Ranker
        from dcrnn_fast.serving.http.app import Application, Limits
        from dcrnn_fast.serving.http.served import load_served
        from dcrnn_fast.serving.http.server import Server, bind

        named = {name.removeprefix("max_"): value for name, value in limits.items()}
        self.served, self._asked = served, SimpleQueue()
        self.application = Application(partial(load or partial(load_served, load=Ranker.load), served), Limits(**named), threads=threads)
        self._server = Server(self.application, bind("127.0.0.1", 0), self._asked, grace=grace)
        self.url, self.reload, self.ask_to_stop = self._server.url, partial(self._asked.put, None), self._server.stop
        self._thread = threading.Thread(target=self._server.serve_until_stopped, daemon=True)
        self._thread.start()
        while self._thread.is_alive() and not self._server.started:
            self._thread.join(0.002)

    def stop(self):
        """0, as the command's exit code, when it has stopped."""
        self._server.stop()
        self._thread.join(30)
        return int(self._thread.is_alive())
