"""Every call that can be made: the operators that the dispatcher has, and the public functions on each backend; a valid call of each, and
what a call must give."""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dcrnn_fast import functional
from dcrnn_fast.ops import backends, dispatch, low_rank_cross_rnn
from dcrnn_fast.ops.registry import Needs

from ..strategies import FIELDS, TENSORS, problem
from . import inference_calls, oracle
from .contract import Arguments, hold, index_in, is_shaped, same_floats

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
    arguments, _ = problem(recipe)
    kind = "weight" if recipe["seed"] % 2 else "bias"
    return {"shared": arguments[f"shared_{kind}"], "private": arguments[f"private_{kind}"], "index": arguments["index"]}


def _gather_backward(target: str, recipe: dict[str, Any]) -> Arguments:
    banks = _gather(target, recipe)
    shared, private, index = banks.values()
    grad = torch.randn(*index.shape, *shared.shape[1:], generator=torch.Generator().manual_seed(0)).to(shared.dtype)
    return {"grad": grad, "index": index, "num_shared": len(shared), "num_private": private.shape[1]}


def _cross(target: str, recipe: dict[str, Any]) -> Arguments:
    options = {"return_states": recipe["return_states"]}
    if target.startswith("functional."):
        return {**problem(recipe)[0], **options, "recompute": recipe["recompute"]}
    return {**_of_cell(target, recipe)[0], **options, "allow_tf32": False, "keep": 0 if recipe["recompute"] else 1}


def _low_rank(target: str, recipe: dict[str, Any]) -> Arguments:
    return {**_cross(target, recipe), "keep": not recipe["recompute"]}


def _of_cell(target: str, recipe: dict[str, Any]) -> tuple[Arguments, Tensor]:
    """The tensors and options of the operator's cell, and a gradient for its output."""
    if name_of(target).startswith("low_rank"):
        return problem({**recipe, "rank": recipe["rank"] or 1})
    arguments, cotangent = problem({**recipe, "rank": None})
    return {name: value for name, value in arguments.items() if name not in low_rank_cross_rnn.PROJECTION}, cotangent


def _cross_backward(target: str, recipe: dict[str, Any]) -> Arguments:
    call, low_rank = valid(target.removesuffix("_backward"), recipe), name_of(target).startswith("low_rank")
    if call["keep"] and "triton" in target and not low_rank:
        call["keep"] = 3
    out, *kept = function(target.removesuffix("_backward"))(**call)
    if call["return_states"] and call["keep"] == 3:
        kept[0] = out[:, 1 : recipe["steps"]].clone()
    names = ("activations",) if low_rank else ("states", "activations")
    needs = recipe["needs"] & ~(Needs.CONTEXT if call["context"] is None else 0) & ~(0 if low_rank else Needs.PROJECTIONS)
    del call["keep"]
    return {"grad": _of_cell(target, recipe)[1], **dict(zip(names, kept, strict=True)), "needs": int(needs), **call}


VALID: dict[str, Callable[[str, dict[str, Any]], Arguments]] = {
    "param_gather": _gather,
    "param_gather_backward": _gather_backward,
    "cross_rnn": _cross,
    "cross_rnn_backward": _cross_backward,
    "low_rank_cross_rnn": _low_rank,
    "low_rank_cross_rnn_backward": _cross_backward,
    **inference_calls.VALID,
}
"""A valid call of each operator. An operator that is registered and not listed here fails the fuzzer."""


def check_contract(target: str, arguments: Arguments) -> None:
    """Raise ContractError unless the arguments fit each other, as the operators' documentation says."""
    name = name_of(target)
    if name in inference_calls.CHECKS:
        return inference_calls.CHECKS[name](arguments)
    if name == "param_gather":
        shared, private = arguments["shared"], arguments["private"]
        hold(isinstance(shared, Tensor) and shared.dim() >= 1, "shared")
        index = is_shaped(arguments, "index", None, None)
        is_shaped(arguments, "private", len(index), None, *shared.shape[1:])
        same_floats(arguments, "shared", "private")
        index_in(index, len(shared) + private.shape[1])
        return
    if name == "param_gather_backward":
        index, grad = is_shaped(arguments, "index", None, None), arguments["grad"]
        hold(isinstance(grad, Tensor) and grad.dim() >= 2 and grad.shape[:2] == index.shape, "grad")
        same_floats(arguments, "grad")
        hold(arguments["num_shared"] >= 0 and arguments["num_private"] >= 0, "numbers of rows")
        index_in(index, arguments["num_shared"] + arguments["num_private"])
        return
    steps, cell = arguments["steps"], arguments["cell"]
    hold(cell in ("gated", "cross") and 1 <= steps < 2**31, "cell or steps")
    gates, index = (2 if cell == "gated" else 1), is_shaped(arguments, "index", None, None)
    batch, dim = is_shaped(arguments, "x0", None, None).shape
    tasks, rows = index.shape
    hold(dim >= 1 and rows in (dim, steps * dim), "rows of index")
    context = 0 if arguments["context"] is None else is_shaped(arguments, "context", steps, batch, None).shape[2]
    columns, width = context + dim, dim
    low_rank = any(arguments.get(name) is not None for name in low_rank_cross_rnn.PROJECTION)
    if low_rank:
        common = len(is_shaped(arguments, "shared_projection", None, gates, columns))
        own = is_shaped(arguments, "private_projection", tasks, None, gates, columns).shape[1]
        places = is_shaped(arguments, "projection_index", tasks, None)
        hold(places.shape[1] >= rows // dim and places.shape[1] % (rows // dim) == 0, "rows of projection_index")
        columns = width = places.shape[1] // (rows // dim)
    shared = len(is_shaped(arguments, "shared_weight", None, gates, columns))
    private = is_shaped(arguments, "private_weight", tasks, None, gates, columns).shape[1]
    is_shaped(arguments, "shared_bias", shared, gates)
    is_shaped(arguments, "private_bias", tasks, private, gates)
    same_floats(arguments, *TENSORS, *(("grad", "states", "activations") if name.endswith("backward") else ()))
    index_in(index, shared + private)
    if low_rank:
        index_in(places, common + own)
    triton = "triton" in target and not low_rank
    if "keep" in arguments and not low_rank:
        hold(arguments["keep"] in (range(4) if triton else range(2)), "keep")
    if name.endswith("backward"):
        out = (tasks, steps + 1, batch, dim) if arguments["return_states"] else (tasks, batch, dim)
        is_shaped(arguments, "grad", *out)
        kept = {"activations": (tasks, steps, batch, gates, width), "states": (tasks, steps - 1, batch, dim) if triton else (0,)}
        for what, shape in kept.items():
            if what in arguments and arguments[what].numel():
                is_shaped(arguments, what, *shape)
        hold(not arguments["needs"] & Needs.CONTEXT or arguments["context"] is not None, "needs the gradient of no context")
        hold(not arguments["needs"] & Needs.PROJECTIONS or low_rank, "needs the gradient of no projection")


def exact(target: str, arguments: Arguments) -> dict[int, Tensor]:
    """Results by their place, by the oracle where it has no need of kept tensors."""
    name = name_of(target)
    if name in inference_calls.CHECKS:
        return dict(enumerate(inference_calls.exact(name, arguments)))
    numbers = {n: v.double().numpy() if isinstance(v, Tensor) and v.is_floating_point() else v for n, v in arguments.items()}
    for index in ("index", "projection_index"):
        if isinstance(numbers.get(index), Tensor):
            numbers[index] = numbers[index].numpy()
    if name == "param_gather":
        found: tuple[np.ndarray, ...] = (oracle.gather(numbers["shared"], numbers["private"], numbers["index"]),)
    elif name == "param_gather_backward":
        found = oracle.scatter(numbers["grad"], numbers["index"], int(numbers["num_shared"]), int(numbers["num_private"]))
    elif name.endswith("cross_rnn") and numbers["steps"] <= 2 * max(FIELDS["steps"]):  # beyond, numbers grow out of the dtype
        states = oracle.cross_rnn(**{n: numbers.get(n) for n in (*TENSORS, "index", "projection_index", "steps", "cell")})
        found = (states if numbers["return_states"] else states[:, -1],)
    else:
        found = ()
    return {place: torch.from_numpy(value) for place, value in enumerate(found)}


def shapes(target: str, arguments: Arguments) -> list[list[int]] | None:
    """The shapes of the results where :func:`exact` does not tell them all."""
    if not name_of(target).endswith("cross_rnn_backward"):
        return None
    needs, asked = int(arguments["needs"]), []
    for bit, name in enumerate(TENSORS if "projection_index" in arguments else TENSORS[:6]):
        bits = Needs.BANKS if 0 < bit < 5 else Needs.PROJECTIONS if bit > 5 else 1 << bit
        wanted = needs & bits and arguments[name] is not None
        asked.append(list(arguments[name].shape) if wanted else [0])
    return asked
