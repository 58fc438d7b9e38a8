"""Random calls of the public operators beside plain PyTorch, in the same dtype and in float64.

``python -m tests.fuzz.differential CASE`` makes one call again; without a case it makes calls of the cases that test_differential.py makes.
"""

import json
import random
import statistics
import sys
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from typing import Any

import torch
from torch import Tensor

from dcrnn_fast import functional, reference
from dcrnn_fast.ops import backends
from dcrnn_fast.support.accuracy import CEILING, relative_error

from . import campaign
from .campaign import Case
from .recipes import FIELDS, SMALL, TENSORS, draw, gather_problem, problem, work

BACKENDS = [*["cpp"] * 60, *["auto"] * 2, "triton"]
CALLS = {
    "operator": ("cross_rnn", "cross_rnn", "cross_rnn", "param_gather"),
    "backend": tuple(name for name in BACKENDS if name == "auto" or backends.REASONS[name] is None),
}
SIMPLEST = {name: values[0] for name, values in (FIELDS | CALLS).items()}
MOST_WORK = 4_000_000
"""Multiplications in a forward: larger problems would leave time for few."""

Results = dict[str, Tensor]
"""The output and gradients by name."""


def make(rng: random.Random) -> Case:
    """A random case."""
    while True:
        case = draw(rng, FIELDS | CALLS)
        if case["backend"] == "triton":
            case |= draw(rng, SMALL)
        if work(case) <= MOST_WORK:
            return case


def results(run: Callable[..., Tensor], case: Case, arguments: dict[str, Any], cotangent: Tensor) -> Results:
    """The output and the gradients that are asked for."""
    given, names = dict(arguments), TENSORS if case["operator"] == "cross_rnn" else ("shared", "private")
    wanted = [name for bit, name in enumerate(names) if case["wanted"] >> bit & 1 and arguments[name] is not None]
    for name in (wanted := wanted if case["mode"] == "backward" else []):
        given[name] = arguments[name].detach().requires_grad_()
    with {"backward": nullcontext, "no_grad": torch.no_grad, "inference": torch.inference_mode}[case["mode"]]():
        out = run(**given)
    if not wanted:
        return {"out": out}
    leaves = [given[name] for name in wanted]
    gradients = torch.autograd.grad(out, leaves, cotangent, allow_unused=True) if out.requires_grad else [None] * len(leaves)
    zeros = [torch.zeros_like(leaf) if g is None else g for leaf, g in zip(leaves, gradients, strict=True)]
    return {"out": out.detach(), **dict(zip(wanted, zeros, strict=True))}


def in_float64(arguments: dict[str, Any]) -> dict[str, Any]:
    return {n: v.double() if isinstance(v, Tensor) and v.is_floating_point() else v for n, v in arguments.items()}


def contiguous(values: dict[str, Any]) -> dict[str, Any]:
    """The same values in memory of their own."""
    return {n: v.detach().clone(memory_format=torch.contiguous_format) if isinstance(v, Tensor) else v for n, v in values.items()}


def same(some: dict[str, Any], others: dict[str, Any]) -> str | None:
    """The first tensor whose bits differ, where every NaN is one."""
    pairs = ((name, value.detach(), others[name].detach()) for name, value in some.items() if isinstance(value, Tensor))
    return next((name for name, one, other in pairs if not one.nan_to_num(nan=7.0).equal(other.nan_to_num(nan=7.0))), None)


def runs(case: Case) -> tuple[Callable[..., Tensor], Callable[..., Tensor]]:
    """The call by the backend of the case, and by plain PyTorch."""
    if case["operator"] == "param_gather":
        return partial(functional.param_gather, backend=case["backend"]), reference.param_gather
    states = {"return_states": case["return_states"]}
    fast = partial(functional.cross_rnn, backend=case["backend"], recompute=case["recompute"], **states)
    return fast, partial(reference.cross_rnn, **states)


def inputs(case: Case) -> tuple[dict[str, Any], Tensor]:
    return problem(case) if case["operator"] == "cross_rnn" else gather_problem(case)


def check(case: Case) -> str | None:
    """What is wrong with the results of a case, in words, or None."""
    arguments, cotangent = inputs(case)
    plain = contiguous(arguments)
    fast = results(runs(case)[0], case, arguments, cotangent)
    if name := same(plain, arguments):
        return f"{name}: an argument was changed"
    torch.use_deterministic_algorithms(True)  # fills memory that PyTorch allocates with NaN
    try:
        again = results(runs(case)[0], case, plain, cotangent.contiguous())
    finally:
        torch.use_deterministic_algorithms(False)
    if name := same(fast, again):
        return f"{name}: another layout and memory full of NaN gave other bits"
    exact = results(runs(case)[1], case, in_float64(plain), cotangent.double())
    for name, value in exact.items():
        if fast[name].shape != value.shape or fast[name].dtype != cotangent.dtype:
            return f"{name}: got {fast[name].dtype} {list(fast[name].shape)}, expected {cotangent.dtype} {list(value.shape)}"
    if not fast["out"].isnan().equal(exact["out"].isnan()):
        return "out: NaN in other places"
    return inexact(case)


def inexact(case: Case) -> str | None:
    """A result with more than twice plain PyTorch's error, in words. One draw may err by luck: the median of more decides."""
    pairs: dict[str, list[tuple[float, float]]] = {}
    for draws in (1, 9, 61):
        while len(pairs.get("out", ())) < draws:
            arguments, cotangent = inputs({**case, "seed": case["seed"] + 1000 * len(pairs.get("out", ()))})
            exact = results(runs(case)[1], case, in_float64(arguments), cotangent.double())
            pair = [results(run, case, arguments, cotangent) for run in runs(case)]
            for name, value in exact.items():
                finite = value.isfinite() & pair[0][name].isfinite() & pair[1][name].isfinite()
                of_both = [relative_error(one[name].where(finite, 0), value.where(finite, 0)) for one in pair]
                pairs.setdefault(name, []).append((of_both[0], of_both[1]))
        wrong = None
        for name, of_draws in pairs.items():
            error, peer = (statistics.median(column) for column in zip(*of_draws, strict=True))
            most = CEILING["float64"] if cotangent.dtype == torch.float64 else 2 * max(peer, torch.finfo(cotangent.dtype).eps)
            if not error <= most:
                wrong = f"{name}: relative error {error:.2e}, plain PyTorch {peer:.2e}, at most {most:.2e}, medians of {draws} draws"
        if wrong is None:
            return None
    return wrong


def judge(case: Case) -> str | None:
    """As :func:`check`; an exception is wrong too: every case is a valid call."""
    try:
        return check(case)
    except Exception as error:
        return f"raised {type(error).__name__}: {str(error)[:300]}"


def fuzz(seconds: float, part: float = 1.0) -> str:
    torch.use_deterministic_algorithms(False)  # the first call loads PyTorch's compiler, which may take as long as the whole campaign
    return campaign.run("differential", make, judge, seconds, part)


if __name__ == "__main__":
    print((judge({**SIMPLEST, **json.loads(sys.argv[1])}) or "right") if sys.argv[1:] else fuzz(3))
