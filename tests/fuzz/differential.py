"""Random calls of the public operators beside plain PyTorch, in the same dtype and in float64. The rules are in :mod:`.judge`.

``python -m tests.fuzz.differential CASE`` makes one call again.
"""

import json
import random
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any

import torch
from torch import Tensor

from dcrnn_fast import functional, reference
from dcrnn_fast.ops import backends

from ..operators.backend import CHOICES
from ..strategies import FIELDS, SMALL, TENSORS, draw, gather_problem, problem, work
from .campaign import Campaign, Case, simplest
from .judge import Results, inexact, wrong_result

KERNELS = ("auto", *["cpp"] * 60, "triton", "reference")
CALLS = {
    "operator": ("cross_rnn", "cross_rnn", "cross_rnn", "param_gather"),
    "kernels": KERNELS,
}
SIMPLEST = {name: values[0] for name, values in (FIELDS | CALLS).items()}
MOST_WORK = 4_000_000
"""Multiplications in a forward: larger problems would leave time for few."""


def make(rng: random.Random) -> Case:
    """A random case."""
    while True:
        case = draw(rng, {**FIELDS, **CALLS})
        if case["kernels"].startswith("triton"):
            case |= draw(rng, SMALL)
        if work(case) <= MOST_WORK:
            return case


def usable(kernels: str) -> bool:
    name = kernels.partition(",")[0]
    return name == "auto" or backends.REASONS[name] is None


def chosen(kernels: str) -> AbstractContextManager[None]:
    name = kernels.partition(",")[0]
    return functional.kernel_override(name, **CHOICES[name][kernels]) if "," in kernels else nullcontext()


def inputs(case: Case) -> tuple[dict[str, Any], Tensor]:
    return problem(case) if case["operator"] == "cross_rnn" else gather_problem(case)


def required(case: Case, arguments: dict[str, Any]) -> list[str]:
    """The arguments that require a gradient in this case."""
    names = TENSORS if case["operator"] == "cross_rnn" else ("shared", "private")
    wanted = [name for bit, name in enumerate(names) if case["wanted"] >> bit & 1]
    return [name for name in wanted if arguments[name] is not None and case["mode"] == "backward"]


def by_torch(run: Callable[..., Tensor], case: Case, arguments: dict[str, Any], cotangent: Tensor) -> Results:
    """The output and the gradients that are asked for."""
    given, wanted = dict(arguments), required(case, arguments)
    for name in wanted:
        given[name] = arguments[name].detach().requires_grad_()
    with {"backward": nullcontext, "no_grad": torch.no_grad, "inference": torch.inference_mode}[case["mode"]]():
        out = run(**given)
    if not wanted:
        return {"out": out}
    if not out.requires_grad and not out.numel():  # an output of no tasks may have no graph
        return {"out": out, **{name: torch.zeros_like(given[name]) for name in wanted}}
    gradients = torch.autograd.grad(out, [given[name] for name in wanted], cotangent, allow_unused=True)
    zeros = [torch.zeros_like(given[name]) if g is None else g for name, g in zip(wanted, gradients, strict=True)]
    return {"out": out.detach(), **dict(zip(wanted, zeros, strict=True))}


def in_float64(arguments: dict[str, Any], change: Callable[[Tensor], Tensor] = lambda tensor: tensor) -> dict[str, Any]:
    """The arguments with every tensor of floats changed, and in float64."""
    floats = {name: value for name, value in arguments.items() if isinstance(value, Tensor) and value.is_floating_point()}
    return {**arguments, **{name: change(value.double()) for name, value in floats.items()}}


def exactly(case: Case, arguments: dict[str, Any], cotangent: Tensor) -> Results:
    """The results of plain PyTorch in float64."""
    return by_torch(runs(case)[1], case, in_float64(arguments), cotangent.double())


def rounded(arguments: dict[str, Any], roundings: float, generator: torch.Generator) -> dict[str, Any]:
    """The arguments in float64, each number changed by so many rounding errors of its dtype."""
    eps = next(torch.finfo(value.dtype).eps for value in arguments.values() if isinstance(value, Tensor))

    def change(tensor: Tensor) -> Tensor:
        return tensor * (1 + roundings * eps * torch.randn(tensor.shape, generator=generator, dtype=torch.float64))

    return in_float64(arguments, change)


def shaken(case: Case, arguments: dict[str, Any], cotangent: Tensor) -> list[Results]:
    """The exact results of eight copies of the arguments, each number changed by a few rounding errors."""
    generator = torch.Generator().manual_seed(0)
    return [exactly(case, rounded(arguments, 4, generator), cotangent) for _ in range(8)]


def peer(case: Case, arguments: dict[str, Any], cotangent: Tensor) -> Results:
    """Results whose errors ours are compared with: plain PyTorch's in the same dtype.

    In float64 those are what counts as exact. So there it is the results for arguments that are changed by a rounding error.
    """
    if cotangent.dtype == torch.float64:
        arguments = rounded(arguments, 1, torch.Generator().manual_seed(case["seed"]))
    return by_torch(runs(case)[1], case, arguments, cotangent)


def sums_overflow(case: Case, arguments: dict[str, Any]) -> bool:
    """Whether a sum of the forward may leave the dtype's range on the way to its result, in one order of its terms or another.

    By the states of the magnitudes, without a gate: no partial sum is larger. The gate's own weights count as those of the update do.
    """
    if case["operator"] != "cross_rnn":
        return False
    magnitudes = in_float64(arguments, lambda tensor: tensor.abs().nan_to_num(posinf=0))
    for gate in range(2 if case["cell"] == "gated" else 1):
        one = {n: v.narrow(v.dim() - (1 if "bias" in n else 2), gate, 1) for n, v in magnitudes.items() if v is not None and "_" in n}
        if not reference.cross_rnn(**{**magnitudes, **one, "cell": "cross"}).max() < torch.finfo(arguments["x0"].dtype).max / 2:
            return True
    return False


def runs(case: Case) -> tuple[Callable[..., Tensor], Callable[..., Tensor]]:
    """The call by the backend of the case, and by plain PyTorch."""
    backend = case["kernels"].partition(",")[0]
    if case["operator"] == "param_gather":
        return partial(functional.param_gather, backend=backend), reference.param_gather
    states = {"return_states": case["return_states"]}
    fast = partial(functional.cross_rnn, backend=backend, recompute=case["recompute"], **states)
    return fast, partial(reference.cross_rnn, **states)


def all_results(case: Case) -> tuple[Results, Results, Results]:
    arguments, cotangent = inputs(case)
    fast = by_torch(runs(case)[0], case, arguments, cotangent)
    return fast, peer(case, arguments, cotangent), exactly(case, arguments, cotangent)


def bits(results: Results) -> dict[str, bytes]:
    flat = {name: value.reshape(-1) for name, value in results.items()}
    return {name: value.new_empty(value.shape).copy_(value).view(torch.uint8).numpy().tobytes() for name, value in flat.items()}


def check(case: Case) -> str | None:
    """What is wrong with the results of a case, in words, or None."""
    with chosen(case["kernels"]):
        arguments, cotangent = inputs(case)
        before = bits({name: value for name, value in arguments.items() if isinstance(value, Tensor)})
        run, plain_run = runs(case)
        fast = by_torch(run, case, arguments, cotangent)
        if before != bits({name: value for name, value in arguments.items() if isinstance(value, Tensor)}):
            return "an argument was changed"
        plain, exact = by_torch(plain_run, case, arguments, cotangent), exactly(case, arguments, cotangent)
        words = wrong_result(fast, plain, exact, lambda: shaken(case, arguments, cotangent))
        if words and not sums_overflow(case, arguments):
            return words
        torch.use_deterministic_algorithms(True)  # fills memory that PyTorch allocates with NaN
        try:
            again = by_torch(run, case, arguments, cotangent)
        finally:
            torch.use_deterministic_algorithms(False)
        for name, found in bits(again).items():
            if found != bits(fast)[name] and case["kernels"] != "reference":  # PyTorch's own sums may be atomic outside that mode
                return f"{name}: two equal calls gave different bits"
        return inexact(fast, peer(case, arguments, cotangent), exact, lambda draws: redraws(case, draws))


def redraws(case: Case, draws: int) -> Iterator[tuple[Results, Results, Results]]:
    for i in range(draws):
        yield all_results({**case, "seed": case["seed"] + 1000 * (i + 1)})


def outcome(case: Case) -> str | None:
    """As :func:`check`; an exception is wrong too: every case is a valid call."""
    try:
        return check(case)
    except Exception as error:
        return f"raised {type(error).__name__}: {str(error)[:300]}"


def kind_of(words: str) -> str:
    """What findings of one kind have in common: the words without numbers."""
    return " ".join(word for word in words.split() if not any(letter.isdigit() for letter in word))


def fuzz(campaign: Campaign) -> Campaign:
    torch.use_deterministic_algorithms(False)  # the first call loads PyTorch's compiler, which may take as long as the whole campaign
    for case in campaign.cases(make):
        if usable(case["kernels"]) and (words := outcome(case)):
            kind = kind_of(words)
            if f"{case['operator']} {kind}" in campaign.findings:
                continue
            least = simplest(case, FIELDS, lambda c, k=kind: kind_of(outcome(c) or "") == k)
            told = {name: value for name, value in least.items() if value != SIMPLEST.get(name)}
            campaign.found(f"{case['operator']} {kind}", f"{case['operator']}: {outcome(least)}\n    first seen as: {words}", told)
    return campaign


if __name__ == "__main__":
    if sys.argv[1:]:
        print(outcome({**SIMPLEST, **json.loads(sys.argv[1])}) or "right")
    else:
        print(fuzz(Campaign.from_environment("differential", 60)).summary())
