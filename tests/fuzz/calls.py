"""Every call that can be made: the operators that the dispatcher has, and the public functions on each backend; a valid call of each, and
what a call must give."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from dcrnn_fast import functional
from dcrnn_fast.ops import backends, dispatch, param_gather
from dcrnn_fast.ops.cross_rnn import GradMask
from dcrnn_fast.ops.registry import OPERATORS, SCHEMAS

from ..ops.inference_problems import pack_arguments, packed, request_arguments
from .recipes import DTYPES, PROJECTIONS, gather_problem, problem

Arguments = dict[str, Any]
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
    options = {"return_states": recipe["return_states"]}
    if target.startswith("functional."):
        return {**problem(recipe)[0], **options, "recompute": recipe["recompute"]}
    return {**_of_cell(target, recipe)[0], **options, "allow_tf32": False, "saved": not recipe["recompute"]}


def _of_cell(target: str, recipe: dict[str, Any]) -> tuple[Arguments, Tensor]:
    """The tensors and options of the operator's cell, and a gradient for its output."""
    if name_of(target).startswith("low_rank"):
        return problem({**recipe, "rank": recipe["rank"] or 1})
    arguments, cotangent = problem({**recipe, "rank": None})
    return {name: value for name, value in arguments.items() if name not in PROJECTIONS}, cotangent


def _cross_backward(target: str, recipe: dict[str, Any]) -> Arguments:
    call, low_rank = valid(target.removesuffix("_backward"), recipe), name_of(target).startswith("low_rank")
    _, activations = function(target.removesuffix("_backward"))(**call)
    mask = recipe["wanted"] & ~(GradMask.CONTEXT if call["context"] is None else 0) & ~(0 if low_rank else GradMask.PROJECTIONS)
    del call["saved"]
    return {"grad": _of_cell(target, recipe)[1], "activations": activations, "grad_mask": int(mask), **call}


def _pack(target: str, recipe: dict[str, Any]) -> Arguments:
    pooling = tuple((recipe["seed"] >> field) % 3 for field in range(recipe["tasks"]))
    sizes = {"numbers": recipe["context_dim"] or 0, "bins": recipe["steps"], "width": recipe["dim"], "tasks": recipe["tasks"]}
    options = {
        "rank": recipe["rank"] or 1,
        "steps": recipe["steps"],
        "first_order": recipe["seed"] % 5 > 0,
        "chain": recipe["seed"] % 2 > 0,
    }
    return pack_arguments(pooling=pooling or (0,), **sizes, **options, dtype=DTYPES[recipe["dtype"]], seed=recipe["seed"])


def _request(target: str, recipe: dict[str, Any]) -> Arguments:
    pack = _pack(target, recipe)
    given = request_arguments(pack, batch=recipe["batch"], probabilities=recipe["return_states"], seed=recipe["seed"])
    *tensors, log_rate, probabilities = given
    return {**{name: given[name] for name in tensors}, "packed": packed(pack), **{name: given[name] for name in (log_rate, probabilities)}}


VALID: dict[str, Callable[[str, dict[str, Any]], Arguments]] = {
    "param_gather": _gather,
    "param_gather_backward": _gather_backward,
    "cross_rnn": _cross,
    "cross_rnn_backward": _cross_backward,
    "low_rank_cross_rnn": _cross,
    "low_rank_cross_rnn_backward": _cross_backward,
    "request_pack": _pack,
    "request": _request,
}
"""A valid call of each operator. An operator that is registered and not listed here fails the fuzzer."""


def breach(target: str, arguments: Arguments) -> str | None:
    """How the arguments break the contract of the recurrence or the gather, in words. The contract is in Python; C++ has its own words."""
    name = name_of(target)
    given = {n: v for n, v in arguments.items() if n != "recompute"}
    if target.startswith("functional.cross_rnn"):
        low_rank = given["shared_projection"] is not None or given["private_projection"] is not None
        name = f"low_rank_{name}" if low_rank else name
        given = {n: v for n, v in given.items() if low_rank or n not in PROJECTIONS}
    try:
        if name in OPERATORS:
            with torch.no_grad():
                order = [argument.name for argument in torch._C.parse_schema(name + SCHEMAS[name]).arguments]
                OPERATORS[name](*[int(given[n]) if type(given[n]) is bool and n == "steps" else given[n] for n in order if n in given])
        if name.startswith("param_gather") and not is_slow(target):  # a kernel on a GPU cannot raise
            rows = len(given["shared"]) + given["private"].shape[1] if "shared" in given else given["num_shared"] + given["num_private"]
            param_gather.check_index(given["index"], rows)
    except (TypeError, ValueError, IndexError) as broken:
        return str(broken)
    return None
