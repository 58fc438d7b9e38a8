"""Calls with wrong arguments, in processes of their own. A call must be refused in words, or be right.

A crash, a call that does not end, a raw text from inside PyTorch and a wrong result are findings. ``python -m tests.fuzz.hostile CASE``
makes one call again, in this process.
"""

import json
import os
import random
import resource
import signal
import sys
import traceback
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import dcrnn_fast
from dcrnn_fast import BackendUnavailable

from ..processes import forks
from . import calls, campaign, mutations
from .campaign import Case
from .recipes import FIELDS, SMALL, draw

SANITIZED = "libasan" in os.environ.get("LD_PRELOAD", "")
SECONDS_A_CALL = 180 if SANITIZED else 60
PLAIN = {name: values[:1] for name, values in FIELDS.items() if name.endswith("_layout") or name == "nan_in"}
RECIPES = {**FIELDS, **SMALL, **PLAIN}

RAW = (
    "torch_call_dispatcher", "std::", "bad_alloc", "basic_string", "vector::", "map::at",
    "aoti_torch", "StableIValue", "unknown exception", "Unknown error",
)  # fmt: skip
"""Words that no reader of a message can use."""
PYTORCH = ("Please convert all Tensors to FakeTensors", "Mixing fake modes", "DefaultCPUAllocator: can't allocate memory")
"""Words of PyTorch's own that it says whatever is called."""
REFUSALS = (TypeError, ValueError, IndexError, RuntimeError)  # NotImplementedError and BackendUnavailable are RuntimeErrors
PACKAGE = str(Path(dcrnn_fast.__file__).parent)


def make(rng: random.Random, targets: list[str]) -> Case:
    """A random case: a valid call with up to three spoiled arguments."""
    target = rng.choice(targets)
    while calls.is_slow(target) and rng.random() < 0.9:
        target = rng.choice(targets)
    recipe = draw(rng, RECIPES)
    case = {"target": target, "recipe": {n: v for n, v in recipe.items() if v != RECIPES[n][0]}}
    return {**case, "spoiled": mutations.choose(rng, calls.valid(target, recipe))}


def judged(case: Case) -> str | None:
    """Make the call; what is wrong, in words, or None."""
    target, spoiled = case["target"], dict(case["spoiled"])
    arguments = calls.valid(target, {**{name: values[0] for name, values in RECIPES.items()}, **case["recipe"]})
    meanings = {name: value.clone() if isinstance(value, Tensor) else value for name, value in arguments.items()}
    given = dict(arguments)
    for name, mutation in spoiled.items():
        given[name], meanings[name] = mutations.spoil(arguments[name], mutation)
    torch.use_deterministic_algorithms(True)  # fills memory that PyTorch allocates with NaN
    try:
        results = calls.function(target)(**given)
    except Exception as error:
        ordinary = all(m in mutations.ORDINARY and arguments[name] is not None for name, m in spoiled.items())
        must_be_computed = ordinary and calls.name_of(target) in calls.OPERATORS
        return f"refused: {error}" if must_be_computed else unclear(target, error, list(arguments))
    else:
        tensors = [value for value in given.values() if isinstance(value, Tensor)]
        return None if all(tensor.is_meta for tensor in tensors) else wrong(target, meanings, results)
    finally:
        torch.use_deterministic_algorithms(False)


def unclear(target: str, error: Exception, arguments: list[str]) -> str | None:
    """What is wrong with a refusal. PyTorch's own words are right where the call did not reach this package."""
    text = f"{type(error).__name__}: {str(error)[:300]}"
    if isinstance(error, BackendUnavailable) or any(words in str(error) for words in (*PYTORCH, f"Could not run '{target}'")):
        return None
    if not isinstance(error, REFUSALS):
        return f"raised {text}"
    ours = "dcrnn_fast:" in str(error) or traceback.extract_tb(error.__traceback__)[-1].filename.startswith(PACKAGE)
    if any(words in str(error) for words in (*RAW, *(("INTERNAL ASSERT",) if ours else ()))):
        return f"raw words {text}"
    if ours and not any(name in str(error) for name in arguments):
        return f"names no argument {text}"
    return None


def wrong(target: str, meanings: dict[str, Any], results: Any) -> str | None:
    """What is wrong with the results of a call that was not refused: they are those of plain contiguous tensors."""
    results = [results] if isinstance(results, Tensor) else list(results)
    without = [name for name, value in meanings.items() if value is mutations.REFUSE]
    if without:
        return f"accepted: {without}" if any(result.numel() for result in results) else None
    if broken := calls.breach(target, meanings):
        return f"accepted: {broken}"
    again = calls.function(target)(**meanings)
    for place, (got, expected) in enumerate(zip(results, [again] if isinstance(again, Tensor) else again, strict=True)):
        if got.shape != expected.shape or not torch.allclose(got.detach().double(), expected.detach().double(), equal_nan=True):
            return f"result {place} is not that of plain tensors"
    return None


def serve(connection: Any, prepare: tuple[Any, ...]) -> None:
    """In a process of its own: judge the cases that come, one by one. ``prepare`` is a function to call before, and its arguments."""
    torch.set_num_threads(1)
    calls.operators()  # loads those of Triton, where another test's server was there before and has not imported them
    if not SANITIZED:  # AddressSanitizer reserves terabytes
        most = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize() + (4 << 30)
        resource.setrlimit(resource.RLIMIT_AS, (most, most))
    for function in prepare[:1]:
        function(*prepare[1:])
    connection.send("ready")
    while True:
        try:
            case = connection.recv()
        except EOFError:
            return
        try:
            words = judged(case)
        except Exception:
            words = f"the fuzzer failed: {traceback.format_exc(limit=-3)}"
        connection.send(words)


class Worker:
    """A process that judges cases. It is forked from a server that has everything imported."""

    def __init__(self, seconds: float = SECONDS_A_CALL, prepare: tuple[Any, ...] = ()):
        self.seconds, context = seconds, forks()
        self.connection, theirs = context.Pipe()
        self.process = context.Process(target=serve, args=(theirs, prepare), daemon=True)
        self.process.start()
        theirs.close()
        self.connection.recv()  # the server imports everything first: the time of a call begins after that

    def judge(self, case: Case) -> str | None:
        """What is wrong with a case, in words."""
        try:
            self.connection.send(case)
            if not self.connection.poll(self.seconds):
                return f"no end after {self.seconds:g} s"
            return self.connection.recv()
        except (EOFError, OSError):
            self.process.join()
            code = self.process.exitcode
            return f"crash, {signal.Signals(-code).name if code < 0 else f'exit code {code}'}"

    def stop(self) -> None:
        self.process.kill()
        self.process.join()
        self.connection.close()


def fuzz(seconds: float) -> str:
    worker, targets = Worker(), [*calls.operators(), *calls.functions()]
    try:
        return campaign.run("hostile", lambda rng: make(rng, targets), worker.judge, seconds)
    finally:
        worker.stop()


if __name__ == "__main__":
    calls.operators()  # loads those of Triton
    print((judged(json.loads(sys.argv[1])) or "right, or refused in words") if sys.argv[1:] else fuzz(60))
