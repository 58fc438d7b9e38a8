"""Python in a process of its own, and ranks as processes."""

import multiprocessing
import os
import subprocess
import sys
from pathlib import Path

import torch.multiprocessing

import dcrnn_fast


def run_python(*arguments, **environment):
    """Returns the finished process with its output as text. A variable that is None is taken out of its environment."""
    path = os.pathsep.join(filter(None, [str(Path(dcrnn_fast.__file__).parents[1]), os.environ.get("PYTHONPATH")]))
    variables = os.environ | {"PYTHONPATH": path} | environment
    return subprocess.run(
        [sys.executable, *map(str, arguments)],
        env={name: value for name, value in variables.items() if value is not None},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )


def forks():
    """The context of processes that are forked from one that has imported everything: they start in no time.

    The first test to ask starts that one, and it serves all tests of the session. So its modules are the same for all.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.fuzz.preload", "tests.fuzz.test_kills", "tests.training.ranks.rank_process"])
    return context


def run_ranks(rank_main, *arguments, count=2):
    """Runs ``rank_main(rank, *arguments)`` as so many forks."""
    forks()
    torch.multiprocessing.start_processes(rank_main, arguments, nprocs=count, start_method="forkserver")
