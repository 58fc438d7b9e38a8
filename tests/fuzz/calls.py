"""Every call that can be made: the operators that the dispatcher has, and the public functions on each backend; a valid call of each, and
what a call must give."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from dcrnn_fast import functional, reference
from dcrnn_fast.ops import backends, dispatch, param_gather
from dcrnn_fast.ops.cross_rnn import GradMask
from dcrnn_fast.ops.registry import OPERATORS

from ..strategies import FIELDS, PROJECTIONS, TENSORS, gather_problem, problem
from . import inference_calls
from .inference_calls import Arguments

NAMESPACES = ("dcrnn_fast", "dcrnn_fast_triton")


def operators() -> list[str]:
    """The registered operators, as "namespace::name"."""
    if backends.REASONS["triton"] is None:
        dispatch.implementation("triton")
    found = [name.partition(".")[0] for name in torch._C._dispatch_get_all_op_names()]
    return sorted(name for name in found if name.partition("::")[0] in NAMESPACES)


def functions() -> list[str]:
    """The public functions on the backends that can run here, as "functional.name on backend"."""
    usable = ["auto", *(name for name, reason in backends.REASONS.items() if reason is None and name != "cuda")]
    return [f"functional.{name} on {backend}" for name in VALID if hasattr(functional, name) for backend in usable]


def is_slow(target: str) -> bool:
    """Whether Triton's interpreter computes the call."""
    return "triton" in target and not torch.cuda.is_available()


def name_of(target: str) -> str:
    return target.removeprefix("functional.").partition("::")[2] or target.removeprefix("functional.").partition(" ")[0]


def function(target: str) -> Callable[..., Any]:
    """The function to call, with keyword arguments."""
    if target.startswith("functional."):
        return partial(getattr(functional, name_of(target)), backend=target.rpartition(" ")[2])
    namespace, _, name = target.partition("::")
    return getattr(getattr(torch.ops, namespace), name)


def valid(target: str, recipe: dict[str, Any]) -> Arguments:
    """Arguments of a valid call, by name, in the order of the schema."""
    return VALID[name_of(target)](target, recipe)


def _gather(target: str, recipe: dict[str, Any]) -> Arguments:
    return gather_problem(recipe)[0]


def _gather_backward(target: str, recipe: dict[str, Any]) -> Arguments:
    (shared, private, index), grad = gather_problem(recipe)[0].values(), gather_problem(recipe)[1]
    return {"grad": grad, "index": index, "num_shared": len(shared), "num_private": private.shape[1]}


def _cross(target: str, recipe: dict[str, Any]) -> Arguments:
    options, low_rank = {"return_states": recipe["return_states"]}, name_of(target).startswith("low_rank")
    if target.startswith("functional."):
        return {**problem(recipe)[0], **options, "recompute": recipe["recompute"]}
    saved = not recipe["recompute"] if low_rank else int(not recipe["recompute"])
    return {**_of_cell(target, recipe)[0], **options, "allow_tf32": False, "saved": saved}


def _of_cell(target: str, recipe: dict[str, Any]) -> tuple[Arguments, Tensor]:
    """The tensors and options of the operator's cell, and a gradient for its output."""
    if name_of(target).startswith("low_rank"):
        return problem({**recipe, "rank": recipe["rank"] or 1})
    arguments, cotangent = problem({**recipe, "rank": None})
    return {name: value for name, value in arguments.items() if name not in PROJECTIONS}, cotangent


def _cross_backward(target: str, recipe: dict[str, Any]) -> Arguments:
    call, low_rank = valid(target.removesuffix("_backward"), recipe), name_of(target).startswith("low_rank")
    if call["saved"] and "triton" in target and not low_rank:
        call["saved"] = 3
    out, *kept = function(target.removesuffix("_backward"))(**call)
    if call["return_states"] and call["saved"] == 3:
        kept[0] = out[:, 1 : recipe["steps"]].clone()
    names = ("activations",) if low_rank else ("states", "activations")
    mask = recipe["wanted"] & ~(GradMask.CONTEXT if call["context"] is None else 0) & ~(0 if low_rank else GradMask.PROJECTIONS)
    del call["saved"]
    return {"grad": _of_cell(target, recipe)[1], **dict(zip(names, kept, strict=True)), "grad_mask": int(mask), **call}


VALID: dict[str, Callable[[str, dict[str, Any]], Arguments]] = {
    "param_gather": _gather,
    "param_gather_backward": _gather_backward,
    "cross_rnn": _cross,
    "cross_rnn_backward": _cross_backward,
    "low_rank_cross_rnn": _cross,
    "low_rank_cross_rnn_backward": _cross_backward,
    **inference_calls.VALID,
}
"""A valid call of each operator. An operator that is registered and not listed here fails the fuzzer."""


def _arguments(target: str, arguments: Arguments) -> tuple[str, Arguments]:
    """The operator that a call of a public function, or of it, is, and its arguments."""
    name = name_of(target)
    numbers = ("steps", "grad_mask", "num_shared", "num_private")  # PyTorch takes True for 1
    given = {n: int(v) if isinstance(v, bool) and n in numbers else v for n, v in arguments.items() if n != "recompute"}
    if target.startswith("functional.cross_rnn"):
        if given["shared_projection"] is None and given["private_projection"] is None:
            return name, {n: v for n, v in given.items() if n not in PROJECTIONS}
        return f"low_rank_{name}", given
    return name, given


def check_contract(target: str, arguments: Arguments) -> list[list[int]] | None:
    """The shapes of the results where the contract tells them. Raise TypeError, ValueError or IndexError unless the arguments fit it.

    It is the operators' contract in Python, which C++ has in its own words.
    """
    name, given = _arguments(target, arguments)
    if name in inference_calls.CHECKS:
        return inference_calls.CHECKS[name](given)
    with torch.no_grad():
        results = OPERATORS[name](**given)
    if name == "param_gather":
        param_gather.check_index(given["index"], len(given["shared"]) + given["private"].shape[1])
    elif name == "param_gather_backward":
        param_gather.check_index(given["index"], given["num_shared"] + given["num_private"])
    return [list(result.shape) for result in (results if isinstance(results, tuple) else (results,))] if "::" in target else None


def exact(target: str, arguments: Arguments) -> dict[int, Tensor]:
    """Results by their place in float64, by plain PyTorch where it has no need of saved tensors."""
    name = name_of(target)
    if name in inference_calls.CHECKS:
        return dict(enumerate(inference_calls.exact(name, arguments)))
    floats = {n: v.double() if isinstance(v, Tensor) and v.is_floating_point() else v for n, v in arguments.items()}
    if name == "param_gather":
        return {0: reference.param_gather(**floats)}
    if name == "param_gather_backward":
        grad, index, shared, private = floats.values()
        banks = grad.new_zeros(int(shared), *grad.shape[2:]), grad.new_zeros(len(index), int(private), *grad.shape[2:])
        return dict(enumerate(torch.func.vjp(lambda *given: reference.param_gather(*given, index), *banks)[1](grad)))
    if name.endswith("cross_rnn") and floats["steps"] <= 2 * max(FIELDS["steps"]):  # beyond, numbers grow out of the dtype
        return {0: reference.cross_rnn(**{n: floats.get(n) for n in (*TENSORS, "steps", "cell", "return_states")})}
    return {}
