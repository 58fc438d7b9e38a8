"""Ways to spoil an argument of a call. Each returns the argument to give, and what it means: the plain tensor or value that a right
result must be computed from. :data:`REFUSE` means that no result is right."""

import random
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from .recipes import LAYOUTS, laid_out

REFUSE = object()
Spoiled = tuple[Any, Any]
"""The value, and its meaning."""


def same(make: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Spoiled]:
    """A plain tensor, perhaps of other values, shape or dtype: the contract says whether it is right."""

    def spoil(x: Tensor) -> Spoiled:
        value = make(x)
        return value, value.detach().clone()

    return spoil


def refused(make: Callable[[Tensor], Any]) -> Callable[[Tensor], Spoiled]:
    return lambda x: (make(x), REFUSE)


def strange(make: Callable[[Tensor], Any]) -> Callable[[Tensor], Spoiled]:
    """A tensor of a kind that the operators do not have to take: refused, or right."""
    return lambda x: (make(x), x.clone())


def _resized(change: Callable[[int], int]) -> Callable[[Tensor], Spoiled]:
    """A tensor whose memory has another size."""

    def spoil(x: Tensor) -> Spoiled:
        x = x.clone()
        meaning = REFUSE if x.numel() else x.clone()
        if x.numel():
            x.untyped_storage().resize_(change(x.untyped_storage().nbytes()))
        return x, meaning

    return spoil


def _huge(x: Tensor) -> Spoiled:
    """One value at billions of places: a copy of it does not fit into memory."""
    if not x.numel() or not x.dim():
        return x, x.clone()
    return x.reshape(-1)[:1].view([1] * x.dim()).expand(2**60 // x[0].numel(), *x.shape[1:]), REFUSE


def _with(value: int) -> Callable[[Tensor], Spoiled]:
    def last(x: Tensor) -> Tensor:
        x = x.clone()
        x.view(-1)[-1:] = value
        return x

    return same(last)


ORDINARY: dict[str, Callable[[Tensor], Spoiled]] = {
    layout: same(lambda x, layout=layout: laid_out(x, layout, torch.Generator().manual_seed(0)) if x.dim() else x)
    for layout in LAYOUTS
    if layout != "transposed"
} | {
    "parameter": same(lambda x: torch.nn.Parameter(x.clone(), requires_grad=False)),
    "requires grad": same(lambda x: x.clone().requires_grad_(x.is_floating_point())),
}
"""What changes nothing but how a tensor is held: such a call must be computed."""

SHAPES: dict[str, Callable[[Tensor], Spoiled]] = {
    "flat": same(lambda x: x.reshape(-1)),
    "scalar": same(lambda x: x.reshape(-1)[:1].sum().to(x.dtype)),
    "no values": same(lambda x: x.new_empty(0)),
    "transposed": same(lambda x: x.mT if x.dim() > 1 else x),
    "one dimension more": same(lambda x: x[None]),
    "one dimension less": same(lambda x: x[0] if x.dim() and len(x) else x),
    "two dimensions as one": same(lambda x: x.flatten(0, 1) if x.dim() > 1 else x),
    "one less": same(lambda x: x[1:] if x.dim() else x),
    "one less at the end": same(lambda x: x[..., 1:] if x.dim() else x),
    "one more": same(lambda x: torch.cat([x, x[:1]]) if x.dim() else x),
    "one more at the end": same(lambda x: torch.cat([x, x[..., :1]], -1) if x.dim() else x),
    "zero-size of huge size": same(lambda x: x.new_empty([2**62] * (x.dim() > 1) + [0] * (x.dim() > 0) + list(x.shape[2:]))),
    "2**60 rows": _huge,
}
DTYPES = {
    str(dtype): same(lambda x, dtype=dtype: x.to(dtype))
    for dtype in (torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int32, torch.int64, torch.bool, torch.complex64)
}
HOLDERS: dict[str, Callable[[Tensor], Spoiled]] = {
    "meta": refused(lambda x: x.to("meta")),
    "freed": _resized(lambda size: 0),
    "too short": _resized(lambda size: size - 1),
    "sparse": strange(lambda x: x.to_sparse() if x.dim() else x),
    "nested": strange(lambda x: torch.nested.nested_tensor(list(x)) if x.dim() > 1 and len(x) else x),
    "fake": refused(lambda x: FakeTensorMode().from_tensor(x)),
    "conjugate": refused(lambda x: x.to(torch.complex64).conj()),
    "list": refused(lambda x: [1.0, 2.0]),
    "none": lambda x: (None, None),
}
VALUES = {"minus one": _with(-1), "very large": _with(2**31 - 1), "very small": _with(-(2**31))}
"""Values of an index."""
INDICES = ("index", "ids", "sizes", "offsets", "widths", "starts", "pooling")
TENSOR = {**ORDINARY, **SHAPES, **DTYPES, **HOLDERS}

OTHERS: dict[type, tuple[Any, ...]] = {
    int: (0, 1, 2, 3, 5, 64, 255, -1, 2**31 - 1, 2**31, 2**32 + 1, 2**62, 2**63 - 1, -(2**63), 2**64, 2.0, "3", None),
    bool: (True, False, 2, None, "no"),
    float: (0.0, -1.5, 1e300, float("inf"), float("nan"), 3, None, "no"),
    str: ("gated", "cross", "", "gru", "gated\0", "x" * 10_000, None, 3),
}
"""Values for an argument that is no tensor."""


def spoil(value: Any, mutation: str) -> Spoiled:
    """The argument under a mutation."""
    if not isinstance(value, Tensor) and value is not None:
        other = OTHERS[type(value)][int(mutation)]
        return other, other
    return (TENSOR | VALUES)[mutation](torch.ones(2, 3, 2) if value is None else value)


def choose(rng: random.Random, arguments: dict[str, Any]) -> list[tuple[str, str]]:
    """One to three arguments and a mutation for each."""
    chosen = []
    for name in rng.sample(list(arguments), min(len(arguments), rng.choice((1, 1, 1, 2, 2, 3)))):
        value = arguments[name]
        of_tensor = [*TENSOR, *(VALUES if name in INDICES else ())]
        ways = of_tensor if isinstance(value, Tensor) or value is None else list(map(str, range(len(OTHERS[type(value)]))))
        chosen.append((name, rng.choice(ways)))
    return chosen
