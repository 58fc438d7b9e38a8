"""A server as a process of its own: what it holds, what it writes to stderr, and how it ends."""

import os
import re
import resource
import signal
import subprocess
from pathlib import Path


class Process:
    """A process of a command whose first line ends with the URL where it listens; ``most_files`` is its ``ulimit -n``."""

    def __init__(self, words, errors, *, most_files=None):
        self._errors = errors

        def limit():
            if most_files is not None:
                resource.setrlimit(resource.RLIMIT_NOFILE, (most_files, most_files))

        with errors.open("w") as stderr:
            self._process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=stderr, text=True, preexec_fn=limit)
        line = self._process.stdout.readline()
        if "listening on http://127.0.0.1:" not in line:
            raise OSError(f"{' '.join(map(str, words))} ended with {self._process.wait(60)}: {line}{errors.read_text()}")
        self.url = line.rpartition(" ")[2].strip()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._process.kill()
        self._process.wait()
        self._process.stdout.close()

    @property
    def memory(self):
        """The resident bytes."""
        status = Path(f"/proc/{self._process.pid}/status").read_text()
        return int(re.search(r"VmRSS:\s+(\d+) kB", status)[1]) * 1024

    @property
    def open_files(self):
        return len(os.listdir(f"/proc/{self._process.pid}/fd"))

    @property
    def lines(self):
        """What it has written to stderr."""
        return self._errors.read_text(errors="replace").splitlines()

    def reload(self):
        self._process.send_signal(signal.SIGHUP)

    def stop(self):
        """The exit code, when it has stopped."""
        self._process.send_signal(signal.SIGTERM)
        return self._process.wait(60)
