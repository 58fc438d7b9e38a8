"""Calls with wrong arguments, in processes of their own. A call must be refused in words, or be right.

A crash, a call that does not end, memory that grows, a raw text from inside PyTorch and a wrong result are findings. ``python -m
tests.fuzz.hostile CASE`` makes one call again, in this process.
"""

import json
import os
import random
import resource
import signal
import sys
import tempfile
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import dcrnn_fast
from bench.machine import memory_growth
from dcrnn_fast import BackendUnavailable
from dcrnn_fast.support.accuracy import CEILING, relative_error

from ..processes import forks
from ..strategies import FIELDS, SMALL, draw
from . import calls, mutations
from .campaign import Campaign, Case
from .mutations import REFUSE

SANITIZED = "libasan" in os.environ.get("LD_PRELOAD", "")
SECONDS_A_CALL = 180 if SANITIZED else 60
MEMORY = 512 << 20
"""Bytes by which one call may raise the process's peak memory."""

PLAIN = {name: values[:1] for name, values in FIELDS.items() if name.endswith("_layout") or name.startswith("special")}
RECIPES = {**FIELDS, **SMALL, **PLAIN, "scale": (1.0,)}

RAW = (
    "torch_call_dispatcher", "std::", "bad_alloc", "basic_string", "vector::", "map::at",
    "aoti_torch", "StableIValue", "unknown exception", "Unknown error",
)  # fmt: skip
"""Words that no reader of a message can use."""

INTERNAL = ("Internal error", "INTERNAL ASSERT")
"""The same, where this package calls PyTorch. Before a call reaches it, PyTorch may say so of a strange tensor."""

PYTORCH = (
    "Please convert all Tensors to FakeTensors", "Mixing fake modes", "DefaultCPUAllocator: can't allocate memory",
    "Storage size calculation overflowed", "Inference tensors cannot be saved for backward",
    "Expected the output of forward differentiable view operations",  # of ``.mT`` in jvp after a sum with a functional tensor
)  # fmt: skip
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
    changes = {name: mutations.spoil(arguments[name], mutation) for name, mutation in spoiled.items()}
    meanings = {name: value.clone() if isinstance(value, Tensor) else value for name, value in arguments.items()}
    meanings |= {name: change.meaning for name, change in changes.items()}
    call = calls.function(target)
    given = {**arguments, **{name: change.value for name, change in changes.items()}}
    for name, change in changes.items():
        if change.call is not None:
            call = _inside(change.call, call, name)
    grown = memory_growth()
    torch.use_deterministic_algorithms(True)  # fills memory that PyTorch allocates with NaN
    try:
        results = call(**given)
    except Exception as error:
        must_be_computed = all(m in mutations.ORDINARY for m in spoiled.values())
        words = f"refused: {error}" if must_be_computed and _fits(target, meanings) else unclear(target, error, list(arguments))
    else:
        tensors = [value for value in given.values() if isinstance(value, Tensor)]
        shapes_alone = all(tensor.is_meta for tensor in tensors)  # no values are asked for
        words = None if shapes_alone else wrong(target, meanings, results)
    finally:
        torch.use_deterministic_algorithms(False)
    return words or (f"took {grown() >> 20} MiB" if grown() > MEMORY else None)


def _inside(transform: Callable[..., Any], call: Callable[..., Any], name: str) -> Callable[..., Any]:
    return lambda **given: transform(lambda value: call(**{**given, name: value}), given[name])


def unclear(target: str, error: Exception, arguments: list[str]) -> str | None:
    """What is wrong with a refusal. PyTorch's own words are right where the call did not reach this package."""
    text = f"{type(error).__name__}: {str(error)[:300]}"
    if isinstance(error, BackendUnavailable) or any(words in str(error) for words in (*PYTORCH, f"Could not run '{target}'")):
        return None
    if not isinstance(error, REFUSALS):
        return f"raised {text}"
    frames = traceback.extract_tb(error.__traceback__)
    ours = "dcrnn_fast:" in str(error) or frames[-1].filename.startswith(PACKAGE)
    if any(words in str(error) for words in (*RAW, *(INTERNAL if ours else ()))):
        return f"raw words {text}"
    if ours and not any(name in str(error) for name in arguments):
        return f"names no argument {text}"
    return None


def _fits(target: str, meanings: dict[str, Any]) -> str:
    """Empty if the arguments do not fit the contract, else "fits"."""
    try:
        calls.check_contract(target, meanings)
    except Exception:
        return ""
    return "fits"


def wrong(target: str, meanings: dict[str, Any], results: Any) -> str | None:
    """What is wrong with the results of a call that was not refused."""
    results = [results] if isinstance(results, Tensor) else list(results)
    without = [name for name, value in meanings.items() if value is REFUSE]
    if without and any(result.numel() for result in results):
        return f"accepted: {without}"
    try:
        shapes = calls.check_contract(target, meanings)
    except IndexError as broken:  # a GPU's kernels, which cannot raise, answer with NaN
        return None if calls.is_slow(target) and "::" in target else f"accepted: {broken}"
    except Exception as broken:
        return f"accepted: {broken}"
    clones = {name: value.clone() if isinstance(value, Tensor) else value for name, value in meanings.items()}
    torch.use_deterministic_algorithms(False)
    again = calls.function(target)(**clones)
    expected = dict(enumerate([again] if isinstance(again, Tensor) else again))
    for exact in (expected, calls.exact(target, meanings)):
        for place, value in exact.items():
            if words := _differs(results[place], value):
                return f"result {place}: {words}"
    if shapes and (got := [list(result.shape) for result in results]) != shapes:
        return f"result shapes {got} in place of {shapes}"
    return None


def _differs(got: Tensor, exact: Tensor) -> str | None:
    if got.shape != exact.shape or got.layout != torch.strided or got.device.type != "cpu":
        return f"{got.layout} {list(got.shape)} on {got.device} in place of {list(exact.shape)}"
    got, exact = got.detach().clone().as_subclass(Tensor).double(), exact.detach().double()
    if not (finite := exact.isfinite()).equal(got.isfinite()):
        return f"{int((got.isfinite() != finite).sum())} values are not finite, or should not be"
    got, exact, most = got.where(finite, 0), exact.where(finite, 0), max(CEILING.values()) * 4
    if not got.numel() or (got - exact).abs().max() <= most:  # numbers of order 1 may cancel to almost nothing
        return None
    error = relative_error(got, exact)
    return None if error <= most else f"relative error {error:.2e}"


def serve(connection: Any, report: Path, prepare: tuple[Any, ...]) -> None:
    """In a process of its own: judge the cases that come, one by one. ``prepare`` is a function to call before, and its arguments."""
    with open(report, "w") as stderr:
        os.dup2(stderr.fileno(), 2)
    torch.set_num_threads(1)
    calls.operators()  # loads those of Triton, where another test's server was there before and has not imported them
    if not SANITIZED:  # AddressSanitizer reserves terabytes
        most = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize() + (4 << 30)
        resource.setrlimit(resource.RLIMIT_AS, (most, most))
    for function in prepare[:1]:
        function(*prepare[1:])
    connection.send("ready")
    clean = _dispatch_state()
    while True:
        try:
            case = connection.recv()
        except EOFError:
            return
        try:
            words = judged(case)
        except Exception:
            words = f"the fuzzer failed: {traceback.format_exc(limit=-3)}"
        connection.send((words, _dispatch_state() == clean))


def _dispatch_state() -> str:
    """The dispatcher's keys of this thread. PyTorch leaves them changed after some exceptions inside its transforms."""
    return f"{torch._C._dispatch_tls_local_include_set()} {torch._C._dispatch_tls_local_exclude_set()}"


class Worker:
    """A process that judges cases; a new one after a crash. It is forked from a server that has everything imported."""

    def __init__(self, seconds: float = SECONDS_A_CALL, prepare: tuple[Any, ...] = ()):
        self.context = forks()
        self.seconds, self.prepare, self.process = seconds, prepare, None
        self.folder = tempfile.TemporaryDirectory()
        self.report = Path(self.folder.name, "stderr.txt")

    def start(self) -> None:
        self.connection, theirs = self.context.Pipe()
        arguments = theirs, self.report, self.prepare
        self.process = self.context.Process(target=serve, args=arguments, daemon=True)
        self.process.start()
        theirs.close()
        self.connection.recv()  # the server imports everything first: the time of a call begins after that

    def stop(self) -> None:
        if self.process:
            self.process.kill()
            self.process.join()
            self.connection.close()
        self.process = None

    def judge(self, case: Case) -> str | None:
        """What is wrong with a case, in words."""
        if self.process is None:
            self.start()
        try:
            self.connection.send(case)
            if not self.connection.poll(self.seconds):
                self.stop()
                return f"no end after {self.seconds:g} s"
            words, clean = self.connection.recv()
        except (EOFError, OSError):
            self.process.join()
            code, text = self.process.exitcode, self.report.read_text(errors="replace").strip()
            self.stop()
            name = signal.Signals(-code).name if code < 0 else f"exit code {code}"
            return f"crash, {name} {text[-3000:]}".strip()
        if words or not clean:
            self.stop()  # what a call leaves behind must not show in the next one
        return words


def kind_of(case: Case, words: str) -> str:
    """What findings of one kind have in common: the operator, and the first words without numbers."""
    start = words.split()[:2] if words.startswith("crash") else ["".join(" " if letter.isdigit() else letter for letter in words)[:60]]
    return " ".join([calls.name_of(case["target"]), *(["triton"] if "triton" in case["target"] else []), *start])


def least(worker: Worker, case: Case, words: str) -> Case:
    """The case with as few spoiled arguments, and as simple a recipe, as still give a finding of its kind."""
    kind = kind_of(case, words)
    if words.startswith("no end"):
        return case
    parts = [("spoiled", part) for part in case["spoiled"]] + [("recipe", name) for name in case["recipe"]]
    for where, part in parts:
        less = [p for p in case["spoiled"] if p != part] if where == "spoiled" else {n: v for n, v in case["recipe"].items() if n != part}
        simpler = {**case, where: less}
        if (again := worker.judge(simpler)) and kind_of(simpler, again) == kind:
            case = simpler
    return case


def fuzz(campaign: Campaign, targets: list[str] | None = None, worker: Worker | None = None) -> Campaign:
    worker, targets = worker or Worker(), targets or [*calls.operators(), *calls.functions()]
    worker.start()
    try:
        for case in campaign.cases(lambda rng: make(rng, targets)):
            words = worker.judge(case)
            if words and kind_of(case, words) not in campaign.findings:
                campaign.found(kind_of(case, words), f"{case['target']}: {words}", least(worker, case, words))
    finally:
        worker.stop()
    return campaign


if __name__ == "__main__":
    calls.operators()  # loads those of Triton
    if sys.argv[1:]:
        print(judged(json.loads(sys.argv[1])) or "right, or refused in words")
    else:
        print(fuzz(Campaign.from_environment("hostile", 60)).summary())
