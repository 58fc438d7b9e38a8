"""Which backend ``auto`` takes on a GPU: checked against float64 and measured at the first call of a size, then remembered.

On a CPU the order of :data:`dcrnn_fast.backends.AUTO` holds: every recorded benchmark supports it. How fast kernels are on a GPU depends on
the card. So there every backend that can run is a *candidate*. It must give the reference's results, by the error rule of
docs/reliability.md, and take at least a tenth less time than the reference; else the reference computes. A candidate that raises or runs
out of memory is refused for this process. docs/triton.md explains the rules for people.
"""

from __future__ import annotations

import json
import logging
import math
import os
import statistics
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from . import files, locks, strict_json
from .accuracy import CEILING, relative_error
from .backends import REASONS
from .errors import ConfigError
from .kernels import tile_file, tile_table

logger = logging.getLogger("dcrnn_fast")

ENVIRONMENT = "DCRNN_FAST_AUTO"
MODES = ("measure", "cached", "static")
"""``measure``: measure a size at its first call. ``cached``: take what was measured, else the static rule. ``static``: the static rule."""
FORMAT = "dcrnn_fast auto 1"
STATIC = "reference"
"""What is taken where nothing was measured: the one implementation that needs no check."""
DEVICES = ("cuda",)
"""The types of devices on which ``auto`` measures."""
CHECKED_ROWS = 2048
"""So many rows at the start of a batch are compared with float64."""
GAIN = 0.9
"""A candidate is taken if its time is at most this part of the reference's."""
ROUNDS = 10

Run = Callable[..., Tensor]
"""An implementation of an operator: from the differentiable tensors to the output."""
Timer = Callable[[Callable[[], object]], float]
"""Returns the seconds of a call."""


@dataclass(frozen=True, order=True)
class Key:
    """What a choice depends on. ``kind`` is the dtype as the products see it, ``rows`` the batch size by :func:`bucket`."""

    operator: str
    training: bool
    kind: str
    dim: int
    context: int
    gates: int
    tasks: int
    steps: int
    rows: int
    tied: bool
    return_states: bool
    recompute: bool


@dataclass(frozen=True)
class Choice:
    """The backend to take, its time over the reference's, and why others were refused. ``lasting``: it may be kept in a file."""

    backend: str
    ratio: float = 1.0
    refused: Mapping[str, str] = field(default_factory=dict)
    lasting: bool = True

    def __str__(self) -> str:
        refused = "; ".join(f"{name} refused: {why}" for name, why in self.refused.items())
        return f"{self.backend}, {self.ratio:.2f} of the reference's time{'; ' * bool(refused)}{refused}"


@dataclass(frozen=True)
class Problem:
    """One call: its tensors, which of them have rows (and along which dimension), and whether gradients are asked for."""

    tensors: tuple[Tensor, ...]
    row_dimension: Mapping[int, int]
    training: bool
    kind: str

    def first_rows(self, count: int) -> Problem:
        """The same call with the first rows of the batch alone."""
        short = [
            tensor.narrow(self.row_dimension[i], 0, min(count, tensor.shape[self.row_dimension[i]])) if i in self.row_dimension else tensor
            for i, tensor in enumerate(self.tensors)
        ]
        return Problem(tuple(short), self.row_dimension, self.training, self.kind)

    def prepared(self, run: Run, dtype: torch.dtype | None = None) -> Callable[[], list[Tensor]]:
        """A function that returns the output, and in training the gradients of all tensors, of a loss with fixed weights."""
        with torch.inference_mode(False):
            leaves = [tensor.detach().to(dtype or tensor.dtype, copy=True).requires_grad_(self.training) for tensor in self.tensors]
        weights: list[Tensor] = []

        def call() -> list[Tensor]:
            device = self.tensors[0].device.type
            with torch.inference_mode(False), torch.autocast(device, enabled=False), torch.set_grad_enabled(self.training):
                out = run(*leaves)
                if not self.training:
                    return [out.detach()]
                if not weights:  # numbers of order 1, without the user's random generator; the same for every dtype of the call
                    numbers = torch.arange(out.numel(), device=out.device, dtype=torch.float64).mul_(0.754877).sin_()
                    weights.append(numbers.to(self.tensors[0].dtype).to(out.dtype).view_as(out))
                return [out.detach(), *torch.autograd.grad(out, leaves, weights[0])]

        return call

    def results(self, run: Run, dtype: torch.dtype | None = None) -> list[Tensor]:
        """What :meth:`prepared` returns, once."""
        return self.prepared(run, dtype)()


def bucket(rows: int) -> int:
    """``rows`` rounded up to a power of four, at least 16."""
    size = 16
    while size < rows:
        size *= 4
    return size


def mode() -> str:
    """The value of DCRNN_FAST_AUTO. Raises ConfigError for an unknown one."""
    value = os.environ.get(ENVIRONMENT, MODES[0])
    if value not in MODES:
        raise ConfigError(f"{ENVIRONMENT}={value!r}: expected one of {', '.join(map(repr, MODES))}")
    return value


_choices: dict[tuple[str, Key], Choice] = {}
_read: set[str] = set()
_measuring = threading.Lock()
_tuned: ContextVar[dict[Key, Choice] | None] = ContextVar("_tuned", default=None)
"""The choices of the :func:`tune` that runs now, or None."""


def clear() -> None:
    """Forget what this process knows, so that the next call reads the file again."""
    _choices.clear()
    _read.clear()


def known(card: str) -> dict[Key, Choice]:
    """What is known of a card, by this process or in the user's file."""
    if card not in _read:
        _read.add(card)
        for key, choice in load(user_file(card), card).items():
            _choices.setdefault((card, key), choice)
    return {key: choice for (name, key), choice in list(_choices.items()) if name == card}


def backend_for(key: Key, device: torch.device, candidates: Callable[[], Mapping[str, Run]], problem: Callable[[], Problem]) -> str:
    """The backend that ``auto`` takes for a call whose values may be read: what is known, or what a measurement shows.

    ``candidates`` must hold "reference". Both callables are called only if something is measured.

    Raises ConfigError: an unknown DCRNN_FAST_AUTO.
    """
    wanted, tuning = mode(), _tuned.get()
    if wanted == "static" and tuning is None:
        return STATIC
    card = card_name(device)
    found = _choices.get((card, key)) or known(card).get(key)
    if found is None:
        if (tuning is None and (wanted == "cached" or _many_ranks())) or not _measuring.acquire(blocking=tuning is not None):
            return STATIC
        try:
            found = _measured(key, card, candidates, problem, timer_of(device))
        finally:
            _measuring.release()
    if tuning is not None:
        tuning[key] = found
    return found.backend


def _measured(key: Key, card: str, candidates: Callable[[], Mapping[str, Run]], problem: Callable[[], Problem], timer: Timer) -> Choice:
    try:
        choice = measure(candidates(), problem(), timer)
    except Exception as error:  # a measurement that fails must never be the user's problem
        choice = Choice(STATIC, lasting=False)
        logger.warning("auto takes %r for %s on %s: the measurement failed (%s: %s)", STATIC, key, card, type(error).__name__, error)
    else:
        logger.info("auto takes %s for %s on %s", choice, key, card)
    try:
        remember(card, {key: choice})
    except Exception as error:
        logger.warning("auto's choice cannot be kept in a file (%s: %s)", type(error).__name__, error)
    return choice


class Choices(dict[Key, Choice]):
    """What :func:`tune` found. As text, a table."""

    def __str__(self) -> str:
        if not self:
            return "nothing to measure: on this device auto's choice is fixed"
        names = [one.name for one in fields(Key)]
        rows = [[*names, "choice"], *([*(str(getattr(key, name)) for name in names), str(choice)] for key, choice in sorted(self.items()))]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        return "\n".join("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)


def tune(model: torch.nn.Module, *inputs: Tensor) -> Choices:
    """Measure beforehand all that ``auto`` needs for a model and a batch: for training and for inference.

    Call it before the first request is served, or before a model is wrapped for several processes: while a process group of more than one
    rank exists, nothing is measured by itself. The choices go to the user's file too. The model's mode, parameters, gradients and random
    states stay as they are.

    Args:
        model: a module of this package with ``backend="auto"``, on its device.
        *inputs: what it is called with, such as ``ids`` and ``dense``, in the size that will be used.

    Returns:
        The choice for each size that came up; empty on a CPU. ``print`` shows them as a table.

    Example:
        >>> import torch
        >>> import dcrnn_fast
        >>> model = dcrnn_fast.DCRNN({"item": 10}, tasks=("click", "consume"))
        >>> print(dcrnn_fast.tune(model, torch.zeros(8, 1, dtype=torch.int64)))
        nothing to measure: on this device auto's choice is fixed
    """
    found, training = Choices(), {module: module.training for module in model.modules()}
    token = _tuned.set(found)
    try:
        model.eval()  # no dropout: the sizes are the same, and no random number is drawn
        for gradients in (True, False):
            with torch.set_grad_enabled(gradients):
                model(*inputs)
    finally:
        _tuned.reset(token)
        for module, before in training.items():
            module.training = before
    return found


def summary() -> str:
    """One line for people: the mode, and for how many sizes of which cards this user has choices. Queries no GPU."""
    cards = []
    for path in sorted(tile_file.cache_folder().glob("auto-*.json")):
        try:
            card = str(strict_json.load(path)["card"])
            choices = load(path, card)
        except (OSError, ValueError, KeyError, TypeError):
            continue
        taken = sorted({choice.backend for choice in choices.values()})
        cards.append(
            f"{card}, {len(choices)} size{'s' * (len(choices) != 1)} measured with these versions, takes {', '.join(taken) or 'nothing'}"
        )
    return f"{mode()}; {'; '.join(cards) or 'nothing measured yet'}"


def _many_ranks() -> bool:
    """Whether other processes of a group may choose otherwise: then the results of the ranks would differ in their last bits."""
    distributed = torch.distributed
    return distributed.is_available() and distributed.is_initialized() and distributed.get_world_size() > 1


def measure(candidates: Mapping[str, Run], problem: Problem, timer: Timer) -> Choice:
    """Check every candidate on the first rows of the problem, and time those that pass on all of it.

    Args:
        candidates: implementations by the name of their backend, among them "reference".
        problem: the call.
        timer: returns the seconds of a call.

    Returns:
        The fastest candidate that is right and takes at most :data:`GAIN` of the reference's time, else the reference.
    """
    reference = candidates["reference"]
    refused, lasting, right = {}, True, ["reference"]
    short = problem.first_rows(CHECKED_ROWS)
    exact = short.results(reference, torch.float64)
    plain = _errors(short.results(reference), exact)
    if not all(map(math.isfinite, plain)) or not exact[0].any():
        why = "the results of this call are not finite, or zero, so nothing can be checked"
        return Choice(STATIC, refused={"every candidate": why}, lasting=False)
    for name, run in candidates.items():
        if name == "reference":
            continue
        try:
            wrong = _wrong(_errors(short.results(run), exact), plain, CEILING[problem.kind])
        except Exception as error:
            wrong, lasting = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"[:200], False
        if wrong:
            refused[name] = wrong
        else:
            right.append(name)
    del exact
    if len(right) == 1:
        return Choice("reference", 1.0, refused, lasting)
    times: dict[str, list[float]] = {name: [] for name in right}
    calls = {name: problem.prepared(candidates[name]) for name in right}
    whole = calls["reference"]()
    for number in range(ROUNDS + 1):
        for name in list(times):
            try:
                if not number and (wrong := _wrong(_errors(calls[name](), whole), [0.0] * len(whole), 20 * CEILING[problem.kind])):
                    # other tiles may serve all rows than served the first ones
                    refused[name] = f"on all rows {wrong}"
                    del times[name]
                    continue
                seconds = timer(calls[name])
            except Exception as error:
                if name == "reference":
                    raise
                refused[name], lasting = f"{type(error).__name__} on all rows", False
                del times[name]
                continue
            if number:  # the first round warms up
                times[name].append(seconds)
        if not number:
            whole.clear()
    medians = {name: statistics.median(of_name) for name, of_name in times.items()}
    best = min(medians, key=medians.__getitem__)
    ratio = medians[best] / medians["reference"]
    if best != "reference" and ratio > GAIN:
        return Choice("reference", 1.0, {**refused, best: f"takes {ratio:.2f} of the reference's time, expected at most {GAIN}"}, lasting)
    return Choice(best, ratio, refused, lasting)


def _errors(results: Sequence[Tensor], exact: Sequence[Tensor]) -> list[float]:
    return [
        relative_error(got, right.double()) if got.shape == right.shape else math.inf for got, right in zip(results, exact, strict=True)
    ]


def _wrong(errors: Sequence[float], plain: Sequence[float], ceiling: float) -> str:
    """What is wrong with a candidate's errors beside plain PyTorch's, in words, or nothing. NaN is wrong."""
    for place, (error, peer) in enumerate(zip(errors, plain, strict=True)):
        most = max(2 * peer, ceiling / 10)
        if not error <= most:
            what = f"gradient {place - 1}" if place else "the output"
            return f"wrong: the relative error of {what} is {error:.1e}, at most {most:.1e}"
    return ""


def timer_of(device: torch.device) -> Timer:
    """A function that returns the seconds of a call, on a GPU by its own clock."""
    if device.type != "cuda":

        def on_cpu(run: Callable[[], object]) -> float:
            begin = time.perf_counter()
            run()
            return time.perf_counter() - begin

        return on_cpu

    def on_gpu(run: Callable[[], object]) -> float:
        with torch.cuda.device(device):
            begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            begin.record()
            run()
            end.record()
            end.synchronize()
        return float(begin.elapsed_time(end)) / 1e3

    return on_gpu


def card_name(device: torch.device) -> str:
    """The GPU's name, or "cpu"."""
    return tile_table.card_of(device).name or "cpu"


def versions() -> dict[str, str]:
    """The versions on which a choice depends."""
    from importlib.metadata import PackageNotFoundError, version

    found = {"torch": str(torch.__version__)}
    for name in ("dcrnn_fast", "triton"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "absent"
    return found


def user_file(card: str) -> Path:
    """Where this user's choices for a card are kept."""
    return tile_file.cache_folder() / f"auto-{tile_file.file_name(card)}.json"


def remember(card: str, choices: Mapping[Key, Choice]) -> None:
    """Keep choices in memory, and those that last in the user's file. What other processes wrote there stays."""
    _choices.update({(card, key): choice for key, choice in choices.items()})
    lasting = {key: choice for key, choice in choices.items() if choice.lasting}
    if not lasting:
        return
    path = user_file(card)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with locks.locked(path.with_name(f".{path.name}.lock"), wait=True):
            merged = {**load(path, card), **lasting}
            rows = [{**asdict(key), "backend": merged[key].backend, "ratio": round(merged[key].ratio, 4)} for key in sorted(merged)]
            content = {"format": FORMAT, "card": card, "versions": versions(), "choices": rows}
            files.write_text(path, json.dumps(content, indent=1) + "\n")
    except OSError as error:
        logger.warning("auto's choices cannot be kept in %s (%s); the next process measures again", path, error)


def load(path: Path, card: str) -> dict[Key, Choice]:
    """The choices in a file; none if there is no file, or it is damaged, of another card or of other versions."""
    try:
        content = strict_json.parse(path.read_text(encoding="utf-8"))
        if content["format"] != FORMAT or content["card"] != card or content["versions"] != versions():
            return {}
        usable = [row for row in content["choices"] if REASONS.get(row["backend"], "unknown") is None]
        return {_key_of(row): Choice(str(row["backend"]), float(row["ratio"])) for row in usable}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, KeyError, TypeError) as error:
        logger.warning("%s is no file of auto's choices (%s: %s); they are measured again", path, type(error).__name__, error)
        return {}


def _key_of(row: dict[str, Any]) -> Key:
    values = {one.name: row[one.name] for one in fields(Key)}
    for name, value in values.items():
        expected = {
            **dict.fromkeys(("operator", "kind"), str),
            **dict.fromkeys(("training", "tied", "return_states", "recompute"), bool),
        }.get(name, int)
        if type(value) is not expected:
            raise TypeError(f"{name}={value!r}: expected {expected.__name__}")
    return Key(**values)
