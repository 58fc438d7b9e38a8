"""Ranks of a run, forked from a process that has imported everything: they start in no time."""

import json
import os
import signal
import sys
from datetime import timedelta
from pathlib import Path

import matplotlib.figure  # noqa: F401 (what a run imports only when it needs it)
import sklearn.metrics  # noqa: F401
import torch
import torch._dynamo
import torch.utils.tensorboard
from torch.distributed import TCPStore
from torch.distributed import run as torchrun
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.launcher.api import elastic_launch

from dcrnn_fast import cli
from dcrnn_fast.cli import commands  # noqa: F401
from dcrnn_fast.errors import DcrnnFastError
from dcrnn_fast.training import Report, load_config, ranks, run, train
from dcrnn_fast.training.evaluate import predict as evaluation
from dcrnn_fast.training.loop.trainer import Trainer
from tests.processes import forks
from tests.training.tiny import write_numbers

CACHE = "DCRNN_FAST_CACHE"
EVALUATED = 32
"""Rows of a batch of an evaluation: small, so that every rank has some."""


def forked(target, *arguments):
    """A process that runs ``target``; the last of its arguments is a pipe, whose other end is returned too."""
    context = forks()
    ours, theirs = context.Pipe()
    process = context.Process(target=target, args=(*arguments, theirs))
    process.start()
    theirs.close()
    return process, ours


def rank_main(environment, values, output, options, pipe):
    """Train as one rank. Sends ("done", metrics) or ("failed", class of the error, message, whether another rank says it)."""
    os.environ |= environment
    torch.set_num_threads(1)
    evaluation.BATCH = EVALUATED
    run.write_curves = write_numbers
    ranks.TIMEOUT = timedelta(seconds=options.get("timeout", 600))
    here = int(environment["RANK"])

    def on_step(self, *, step, **_):
        if options.get("kill") == (here, step):
            os.kill(os.getpid(), signal.SIGKILL)
        if options.get("hang") == (here, step):
            signal.pause()

    Report.step = on_step
    try:
        metrics = train(load_config(None, values), output, resume=True)
        pipe.send(("done", json.dumps(metrics)))
    except DcrnnFastError as error:
        pipe.send(("failed", type(error).__name__, str(error), error.shown_by_another_rank))


def start_ranks(count, values, output, **options):
    """Train, or resume, on ``count`` ranks; returns what each sends, or ("killed", signal).

    Options: ``kill`` and ``hang``, a rank and a step; ``timeout`` in seconds.
    """
    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)  # outlives every rank, as torchrun's does
    of_all = {"WORLD_SIZE": str(count), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(store.port)}
    of_all |= {"TORCHELASTIC_USE_AGENT_STORE": "True", CACHE: os.environ[CACHE]}
    started = [
        forked(rank_main, of_all | {"RANK": str(rank), "LOCAL_RANK": str(rank)}, values, str(output), options) for rank in range(count)
    ]
    hanging = options.get("hang", (None,))[0]
    said = [None if rank == hanging else last_words(*started[rank]) for rank in range(count)]
    if hanging is not None:
        started[hanging][0].kill()
        said[hanging] = last_words(*started[hanging])
    return said


def last_words(process, pipe):
    """What a process sends at its end, or ("killed", signal); one that sends nothing in ten minutes is killed."""
    try:
        said = pipe.recv() if pipe.poll(600) else ("hangs",)
    except EOFError:
        process.join()
        return "killed", -process.exitcode
    if said == ("hangs",):
        process.kill()
    process.join()
    return said


def torchrun_main(words, environment, folder, output, kill, pipe):
    """torchrun itself, which starts its processes as forks of this one. Sends whether all ended well."""
    os.environ |= environment
    os.chdir(folder)
    with open(output, "w") as file:
        for stream in (sys.stdout, sys.stderr):
            os.dup2(file.fileno(), stream.fileno())

    def launch(config, entrypoint):
        def start(*command):
            assert command[:3] == ("-u", "-m", "dcrnn_fast"), command
            config.start_method = "fork"
            return elastic_launch(config, command_main)(command[3:], kill)

        return start

    torchrun.elastic_launch = launch
    try:
        torchrun.main(words)
    except ChildFailedError as error:
        sys.stderr.write(f"{error}\n")
        sys.stderr.flush()
        pipe.send(False)
    else:
        pipe.send(True)


def command_main(command, kill):
    """``python -m dcrnn_fast`` as a rank of torchrun, which is killed at its first start if ``kill`` is its number and a step."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # a fork inherits torchrun's handler, a process of its own does not
    torch.set_num_threads(1)
    step = Trainer._train_step

    def killed(self, batch):
        step(self, batch)
        if (self.job.ranks.rank, self.at.step) == kill and os.environ["TORCHELASTIC_RESTART_COUNT"] == "0":
            os.kill(os.getpid(), signal.SIGKILL)

    Trainer._train_step = killed
    try:
        cli.main(command)
    except SystemExit as end:
        if end.code:
            sys.stderr.flush()
            os._exit(end.code)


def start_torchrun(line, folder, *, kill=None):
    """Run a line ``torchrun ... -m dcrnn_fast ...``; returns whether it ended well, and what all its processes printed."""
    name, *words = line.split()
    assert name == "torchrun", line
    output = Path(folder) / "torchrun.txt"
    said = last_words(*forked(torchrun_main, words, {CACHE: os.environ[CACHE]}, str(folder), str(output), kill))
    return said, output.read_text()
