"""Random calls under the transforms of torch.func and in forward mode: the oracle's value, or a refusal where a kernel has none."""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.func import grad, jacfwd, jacrev, jvp, vjp, vmap

from dcrnn_fast import BackendUnavailable, functional, reference

from ..strategies import TENSORS, problem
from . import oracle
from .campaign import Case
from .judge import Results, bound, errors, wrong_result

FORWARD = ("jvp", "dual", "jacfwd", "jvp of grad")
"""The transforms that need forward-mode derivatives, which kernels do not have."""

FIELDS = {
    "transform": ("grad", "vjp", "vmap", "vmap of grad", "jacrev", *FORWARD),
    "of": TENSORS,
    "operator": ("cross_rnn",),
    "kernels": ("auto", "auto", "cpp"),
    "dtype": ("float64", "float32"),
    "special": ("nothing",),
    "mode": ("backward",),
    "scale": (1.0,),
}
"""What differs from a call without a transform. The transform is that of the call as a function of the argument ``of``."""

STEP = 1e-30


class Exact:
    """The call as a function of one argument, by the oracle."""

    def __init__(self, case: Case, arguments: dict[str, Any], cotangent: Tensor):
        numbers = {name: value.numpy() if isinstance(value, Tensor) else value for name, value in arguments.items()}
        self.arguments = {name: v.astype(float) if name in TENSORS and v is not None else v for name, v in numbers.items()}
        self.name, self.last, self.cotangent = case["of"], not case["return_states"], cotangent.numpy().astype(float)
        self.value = self.arguments[self.name]

    def out(self, value: np.ndarray) -> np.ndarray:
        states = oracle.cross_rnn(**{**self.arguments, self.name: value})
        return states[:, -1] if self.last else states

    def gradient(self, value: np.ndarray) -> np.ndarray:
        arguments = {**self.arguments, self.name: value}
        states = oracle.cross_rnn(**arguments)
        cotangent = np.zeros(states.shape)
        cotangent[:, -1 if self.last else slice(None)] = self.cotangent
        return oracle.cross_rnn_backward(cotangent, states, arguments)[self.name]

    def along(self, function: Callable[[np.ndarray], np.ndarray], direction: np.ndarray) -> np.ndarray:
        return function(self.value + 1j * STEP * direction).imag / STEP

    def jacobian(self) -> np.ndarray:
        shape = (*self.cotangent.shape, *self.value.shape)
        if not self.value.size:
            return np.zeros(shape)
        return np.stack([self.along(self.out, unit) for unit in np.eye(self.value.size).reshape(-1, *self.value.shape)], axis=-1).reshape(
            shape
        )

    def transformed(self, transform: str, direction: np.ndarray) -> np.ndarray:
        one, both = self.gradient if "grad" in transform else self.out, (self.value, self.value + direction)
        if transform.startswith("vmap"):
            return np.stack([one(value) for value in both])
        if transform in ("jvp", "dual"):
            return self.along(self.out, direction)
        if transform == "jvp of grad":
            return self.along(self.gradient, direction)
        return self.gradient(self.value) if transform in ("grad", "vjp") else self.jacobian()


def by_torch(run: Callable[..., Tensor], case: Case, arguments: dict[str, Any], cotangent: Tensor, direction: Tensor) -> Tensor:
    name, transform = case["of"], case["transform"]
    value = arguments[name]

    def out(value: Tensor) -> Tensor:
        return run(**{**arguments, name: value})

    gradient = grad(lambda value: (out(value) * cotangent).sum())
    if transform == "dual":
        with forward_ad.dual_level():
            tangent = forward_ad.unpack_dual(out(forward_ad.make_dual(value, direction))).tangent
            return torch.zeros_like(cotangent) if tangent is None else tangent
    simple = {
        "grad": lambda: gradient(value),
        "vjp": lambda: vjp(out, value)[1](cotangent)[0],
        "vmap": lambda: vmap(out)(torch.stack([value, value + direction])),
        "vmap of grad": lambda: vmap(gradient)(torch.stack([value, value + direction])),
        "jacrev": lambda: jacrev(out)(value),
        "jacfwd": lambda: jacfwd(out)(value),
        "jvp": lambda: jvp(out, (value,), (direction,))[1],
        "jvp of grad": lambda: jvp(gradient, (value,), (direction,))[1],
    }
    return simple[transform]()


def check(case: Case) -> str | None:
    """What is wrong with the result of a transform, in words, or None."""
    arguments, cotangent = problem({**case, f"{case['of']}_layout": "contiguous"})  # forward mode refuses to write to an expanded point
    if arguments[case["of"]] is None:
        return None
    direction = torch.randn(arguments[case["of"]].shape, generator=torch.Generator().manual_seed(case["seed"])).to(cotangent.dtype)
    options = {"return_states": case["return_states"]}
    fast = partial(functional.cross_rnn, backend=case["kernels"], recompute=case["recompute"], **options)
    given = arguments, cotangent, direction
    if case["kernels"] != "auto" and case["transform"] in FORWARD:
        try:
            by_torch(fast, case, *given)
        except BackendUnavailable:
            return None
        return f"{case['transform']}: a kernel without forward mode did not refuse"
    exact = Exact(case, arguments, cotangent).transformed(case["transform"], direction.numpy().astype(float))
    plain = by_torch(partial(reference.cross_rnn, **options), case, *given)
    results: list[Results] = [{"out": v} for v in (by_torch(fast, case, *given), plain, torch.from_numpy(np.array(exact)))]
    if words := wrong_result(*results):
        return f"{case['transform']} of {case['of']}: {words}"
    error, peer = errors(*(result["out"] for result in results))
    if error > (limit := 8 * bound(peer, cotangent.dtype)):  # one draw of few values
        return f"{case['transform']} of {case['of']}: relative error {error:.2e}, plain PyTorch {peer:.2e}, at most {limit:.2e}"
    return None
