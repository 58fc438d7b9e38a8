"""Ways to spoil an argument of a call. Each returns the argument to give, and what it means: the plain tensor or value that a right
result must be computed from. :data:`REFUSE` means that no result is right."""

import random
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from ..strategies import LAYOUTS, laid_out

REFUSE = object()


class Spoiled(NamedTuple):
    """``call`` takes the place of the function where the argument needs a transform around it: ``call(function, value)``."""

    value: Any
    meaning: Any
    call: Callable[[Callable[[Any], Any], Any], Any] | None = None


class Subclass(Tensor):
    """A tensor of another Python type, without any behaviour of its own."""


def same(value: Tensor, meaning: Tensor | None = None) -> Spoiled:
    """Another tensor with the same values."""
    return Spoiled(value, value.detach().clone() if meaning is None else meaning)


def _freed(x: Tensor) -> Spoiled:
    x = x.clone()
    meaning = x.clone() if x.numel() == 0 else REFUSE
    x.untyped_storage().resize_(0)
    return Spoiled(x, meaning)


def _short(x: Tensor) -> Spoiled:
    x = x.clone()
    if x.numel() == 0:
        return Spoiled(x, x.clone())
    x.untyped_storage().resize_(x.untyped_storage().nbytes() - 1)
    return Spoiled(x, REFUSE)


def _laid_out(layout: str) -> Callable[[Tensor], Spoiled]:
    return lambda x: same(laid_out(x, layout, torch.Generator().manual_seed(0)) if x.dim() else x)


def _huge(x: Tensor, count: int) -> Spoiled:
    """One value at billions of places: a copy of it does not fit into memory."""
    if not x.numel() or not x.dim():
        return same(x)
    values_in_a_row = x[0].numel()
    return Spoiled(x.reshape(-1)[:1].view([1] * x.dim()).expand(count // values_in_a_row, *x.shape[1:]), REFUSE)


def _empty_of_huge_size(x: Tensor) -> Spoiled:
    return same(x.new_empty([2**62] * (x.dim() > 1) + [0] * (x.dim() > 0) + list(x.shape[2:])))


def _fake(x: Tensor) -> Spoiled:
    with FakeTensorMode() as mode:
        return Spoiled(mode.from_tensor(x), REFUSE)


def _inference(x: Tensor) -> Spoiled:
    with torch.inference_mode():
        return same(x.clone(), x.clone())


def _strange(make: Callable[[Tensor], Any]) -> Callable[[Tensor], Spoiled]:
    """A tensor of a kind that the operators do not have to take: refused, or right."""
    return lambda x: Spoiled(make(x), x.clone())


def _refused(make: Callable[[Tensor], Any]) -> Callable[[Tensor], Spoiled]:
    return lambda x: Spoiled(make(x), REFUSE)


def _reshaped(make: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Spoiled]:
    """A plain tensor of perhaps another shape or dtype: the contract says whether it is right."""
    return lambda x: same(make(x))


def _jvp(function: Callable[[Any], Any], value: Tensor) -> Any:
    return torch.func.jvp(function, (value,), (torch.ones_like(value),))[0]


ORDINARY: dict[str, Callable[[Tensor], Spoiled]] = {
    **{layout: _laid_out(layout) for layout in LAYOUTS if layout != "transposed"},
    "parameter": lambda x: same(torch.nn.Parameter(x.clone(), requires_grad=False)),
    "requires grad": lambda x: same(x.clone().requires_grad_(x.is_floating_point()), x.clone()),
    "negative bit": lambda x: same(torch._neg_view(x.neg()), x.clone()) if x.is_floating_point() else same(x),
    "subclass": lambda x: same(x.clone().as_subclass(Subclass), x.clone()),
}
"""What changes nothing but how a tensor is held: such a call must be computed."""

SHAPES: dict[str, Callable[[Tensor], Spoiled]] = {
    "flat": _reshaped(lambda x: x.reshape(-1)),
    "scalar": _reshaped(lambda x: x.reshape(-1)[:1].sum().to(x.dtype)),
    "one value": _reshaped(lambda x: x.reshape(-1)[:1]),
    "no values": _reshaped(lambda x: x.new_empty(0)),
    "transposed": _reshaped(lambda x: x.mT if x.dim() > 1 else x),
    "swapped": _reshaped(lambda x: x.transpose(0, 1) if x.dim() > 1 else x),
    "one dimension more": _reshaped(lambda x: x[None]),
    "one dimension more at the end": _reshaped(lambda x: x[..., None]),
    "one dimension less": _reshaped(lambda x: x[0] if x.dim() and len(x) else x),
    "two dimensions as one": _reshaped(lambda x: x.flatten(0, 1) if x.dim() > 1 else x),
    "last two dimensions as one": _reshaped(lambda x: x.flatten(-2) if x.dim() > 1 else x),
    "one less": _reshaped(lambda x: x[1:] if x.dim() else x),
    "one less at the end": _reshaped(lambda x: x[..., 1:] if x.dim() else x),
    "one more": _reshaped(lambda x: torch.cat([x, x[:1]]) if x.dim() else x),
    "one more at the end": _reshaped(lambda x: torch.cat([x, x[..., :1]], -1) if x.dim() else x),
    "no rows": _reshaped(lambda x: x[:0] if x.dim() else x),
    "no columns": _reshaped(lambda x: x[..., :0] if x.dim() else x),
    "zero-size of huge size": _empty_of_huge_size,
    "2**40 rows": lambda x: _huge(x, 2**40),
    "2**60 rows": lambda x: _huge(x, 2**60),
}

DTYPES: dict[str, Callable[[Tensor], Spoiled]] = {
    str(dtype): _reshaped(lambda x, dtype=dtype: x.to(dtype))
    for dtype in (
        torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.int32, torch.int64, torch.int8, torch.uint8, torch.bool,
        torch.complex64, torch.float8_e4m3fn,
    )
}  # fmt: skip

HOLDERS: dict[str, Callable[[Tensor], Spoiled]] = {
    "meta": _refused(lambda x: x.to("meta")),
    "freed": _freed,
    "too short": _short,
    "sparse": _strange(lambda x: x.to_sparse() if x.dim() else x),
    "sparse rows": _strange(lambda x: x.to_sparse_csr() if x.dim() == 2 else x),
    "mkldnn": _strange(lambda x: x.to_mkldnn() if x.dtype == torch.float32 and x.numel() else x),
    "nested": _strange(lambda x: torch.nested.nested_tensor(list(x)) if x.dim() > 1 and len(x) else x),
    "fake": _fake,
    "inference": _inference,
    "zero tensor": lambda x: Spoiled(torch._efficientzerotensor(x.shape, dtype=x.dtype), torch.zeros_like(x)),
    "conjugate": lambda x: Spoiled(x.to(torch.complex64).conj(), REFUSE),
    "functional": _strange(torch._to_functional_tensor),
    "under vmap": lambda x: Spoiled(x, x.clone(), lambda f, v: _first(torch.vmap(f)(torch.stack([v, v])))),
    "under vjp": lambda x: Spoiled(x, x.clone(), lambda f, v: torch.func.vjp(f, v)[0]),
    "under jvp": lambda x: Spoiled(x, x.clone(), _jvp),
}


def _first(results: Any) -> Any:
    return results[0] if isinstance(results, Tensor) else tuple(result[0] for result in results)


VALUES: dict[str, Callable[[Tensor], Spoiled]] = {
    "minus one": _reshaped(lambda x: _with(x, -1)),
    "very large": _reshaped(lambda x: _with(x, 2**31 - 1)),
    "very small": _reshaped(lambda x: _with(x, -(2**31))),
    "one": _reshaped(lambda x: _with(x, 1)),
    "no index": _reshaped(torch.zeros_like),
}
"""Values of an index."""

INDICES = ("index", "ids", "sizes", "offsets", "widths")


def _with(x: Tensor, value: int) -> Tensor:
    x = x.clone()
    if x.numel():
        x.view(-1)[-1] = value
    return x


TENSOR = {**ORDINARY, **SHAPES, **DTYPES, **HOLDERS}

NO_TENSOR = {"none": None, "number": 1.0, "list": [1.0, 2.0], "words": "x0", "array": np.zeros((2, 2), np.float32)}

INTEGERS = (0, 1, 2, 3, 4, 5, 8, 63, 64, 255, -1, -2, 2**31 - 1, 2**31, 2**32 + 1, 2**40, 2**62, 2**62 + 2, 2**63 - 1, -(2**31), -(2**63))

OTHERS: dict[type, tuple[Any, ...]] = {
    int: (*INTEGERS, 2**64, True, 2.0, "3", None, np.int64(2)),
    bool: (True, False, 0, 1, 2, None, "no"),
    str: ("gated", "cross", "", "gru", "gated\0", "x" * 10_000, None, 3),
}
"""Values for an argument that is no tensor."""


def names(value: Any, argument: str) -> list[str]:
    """The mutations of an argument by name."""
    if isinstance(value, Tensor) or value is None:
        return [*TENSOR, *NO_TENSOR, *(VALUES if argument in INDICES else ())]
    return [str(i) for i in range(len(OTHERS[type(value)]))]


def spoil(value: Any, mutation: str) -> Spoiled:
    """The argument under a mutation."""
    if not isinstance(value, Tensor) and value is not None:
        other = OTHERS[type(value)][int(mutation)]
        return Spoiled(other, other)
    if mutation in NO_TENSOR:
        other = NO_TENSOR[mutation]
        return Spoiled(other, other if other is None else REFUSE)
    if value is None:
        value = torch.ones(2, 3, 2)
    return {**TENSOR, **VALUES}[mutation](value)


def choose(rng: random.Random, arguments: dict[str, Any]) -> list[tuple[str, str]]:
    """One to three arguments and a mutation for each."""
    chosen = rng.sample(list(arguments), min(len(arguments), rng.choice((1, 1, 1, 2, 2, 3))))
    return [(name, rng.choice(names(arguments[name], name))) for name in chosen]
