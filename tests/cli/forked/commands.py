"""Commands of dcrnn-fast as forks of one process that has imported everything. Each can be told when to be killed or to stand still."""

import ctypes
import os
import resource
import signal
import sys
import tempfile
import threading
from dataclasses import dataclass, field
from pathlib import Path

from tests.processes import forks

SECONDS = 100
"""A command that runs longer hangs, and is killed by SIGALRM."""
MEMORY = 1 << 30
"""Bytes that a command may take beyond those of the process that it is forked from."""
M_ARENA_MAX = -8
"""The option of malloc by which glibc is told how many arenas there may be."""
CAPABILITIES = 0x20080522
"""The version of the structures by which Linux is told them."""


@dataclass
class Job:
    """A command, and how it ends: by itself, or at its event number ``stop`` by a kill.

    Events are the calls of its first thread; or, where these are too many, the audit events of Python. With ``user`` it has no more rights
    than a normal user, who may not write where the mode of a folder of theirs forbids it. ``environment`` is added to that of the tests.
    """

    words: list
    stop: int = 0
    audited: bool = False
    user: bool = False
    environment: dict = field(default_factory=dict)


@dataclass
class Ended:
    """How a command has ended: its exit code, or minus the signal that killed it; what it said; and its number of events."""

    code: int
    out: str
    err: str
    events: int


class Commands:
    """Calls with jobs start them all at once and give how they have ended. A context, which ends the process that forks them."""

    def __enter__(self):
        self._pipe, theirs = forks().Pipe()
        self._process = forks().Process(target=_serve, args=(theirs,))
        self._process.start()
        theirs.close()
        return self

    def __exit__(self, *_):
        self._pipe.close()
        self._process.join()

    def __call__(self, *jobs):
        self._pipe.send(jobs)
        return self._pipe.recv()


def _serve(pipe):
    _import_all()
    while True:
        try:
            jobs = pipe.recv()
        except EOFError:
            return
        with tempfile.TemporaryDirectory() as folder:
            pipe.send(_run_all(jobs, [Path(folder, str(number)) for number in range(len(jobs))]))


def _run_all(jobs, folders):
    started = []
    for job, folder in zip(jobs, folders, strict=True):
        folder.mkdir()
        started.append(_start(job, folder))
    codes = {process: os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) for process in started}
    ended = []
    for process, folder in zip(started, folders, strict=True):
        out, err, events = (path.read_text() if (path := folder / name).exists() else "" for name in ("out", "err", "events"))
        ended.append(Ended(codes[process], out, err, int(events or 0)))
    return ended


def _import_all():
    import duckdb  # noqa: F401
    import matplotlib.figure  # noqa: F401
    import pyarrow.pandas_compat  # noqa: F401
    import sklearn.isotonic
    import sklearn.linear_model
    import sklearn.metrics  # noqa: F401
    import torch.export
    import torch.utils.tensorboard
    import typer.main

    from dcrnn_fast.cli import commands, progress, tables  # noqa: F401

    torch.set_num_threads(1)
    commands.app = typer.main.get_command(commands.app)  # which each call would make anew


_graphs: dict[bytes, object] = {}


def _traced(run):
    """The graph of a run's model. Tracing takes most of the time of an export, and writes nothing; copies of one run have one graph."""
    from dcrnn_fast.serving.export import export
    from dcrnn_fast.serving.ranker import Ranker

    weights = Path(run, "model.safetensors").read_bytes()
    if weights not in _graphs:
        _graphs[weights] = export.traced(Ranker.load(run, device="cpu", backend="reference").model)
    return _graphs[weights]


def _start(job, folder):
    program = _traced(job.words[job.words.index("--run") + 1]) if job.words[0] == "export" else None
    if process := os.fork():
        return process
    code = 70
    try:
        code = _run(job, folder, program)
    finally:
        os._exit(code)


def _run(job, folder, program):
    from dcrnn_fast import cli
    from dcrnn_fast.serving.export import export

    signal.alarm(SECONDS)
    ctypes.CDLL(None).mallopt(M_ARENA_MAX, 1)  # each thread's own arena would reserve 128 MB, and a few of them all of MEMORY
    size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (size + MEMORY, size + MEMORY))
    if program is not None:
        export.traced = lambda *_: program
    os.environ |= job.environment
    tempfile.tempdir = os.environ.get("TMPDIR")
    out, err, events_file = (os.open(folder / name, os.O_CREAT | os.O_WRONLY) for name in ("out", "err", "events"))
    os.dup2(out, 1)
    os.dup2(err, 2)
    if job.user and ctypes.CDLL(None).capset((ctypes.c_uint32 * 2)(CAPABILITIES, 0), (ctypes.c_uint32 * 6)()):
        raise OSError("this process cannot give up the rights of root")
    events, first = 0, threading.get_ident()

    def event(*_):
        nonlocal events
        if threading.get_ident() == first:
            events += 1
            if events == job.stop:
                os.kill(os.getpid(), signal.SIGKILL)

    (sys.addaudithook if job.audited else sys.setprofile)(event)
    try:
        cli.main([str(word) for word in job.words])
    except SystemExit as end:
        sys.setprofile(None)
        os.write(events_file, str(events).encode())
        if events < job.stop:  # it had fewer events than the run that counted them
            os.kill(os.getpid(), signal.SIGKILL)
        return end.code or 0
    except BaseException:
        sys.excepthook(*sys.exc_info())
        return 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
    return 0
