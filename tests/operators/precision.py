"""How exact a kernel must be: against the reference in float64, per output and gradient, beside plain PyTorch in the same dtype."""

import statistics
from contextlib import contextmanager

import torch
from torch import Tensor

from dcrnn_fast import functional, reference
from dcrnn_fast.support import accuracy
from dcrnn_fast.support.accuracy import relative_error

from .problems import differentiable


@contextmanager
def float32_precision(setting: str):
    """PyTorch's setting for float32 products, "tf32" or "ieee"."""
    before = torch.backends.cuda.matmul.fp32_precision
    torch.backends.cuda.matmul.fp32_precision = setting
    try:
        yield
    finally:
        torch.backends.cuda.matmul.fp32_precision = before


def cast(arguments: dict, dtype: torch.dtype) -> dict:
    """The arguments with every tensor as a new leaf of ``dtype``."""
    return {name: value.detach().to(dtype, copy=True) if isinstance(value, Tensor) else value for name, value in arguments.items()}


def results(run, arguments: dict, seed: Tensor, **options) -> dict[str, Tensor]:
    """The output and every gradient, by name."""
    inputs = differentiable(arguments)
    out = run(**arguments, **options)
    gradients = torch.autograd.grad(out, list(inputs.values()), seed.to(out.dtype), allow_unused=True)
    return {"out": out.detach(), **{f"gradient of {name}": g for name, g in zip(inputs, gradients, strict=True) if g is not None}}


def assert_as_exact_as_plain_pytorch(
    arguments: dict, dtype: torch.dtype, *, backend: str = "cpp", draws: int | None = None, ceiling: float | None = None, **options
) -> None:
    """Each result's error is at most :func:`dcrnn_fast.support.accuracy.largest_error`, as medians over draws of x0 and the seed.

    A gradient may have few values, whose error is luck: one that seems too inexact is judged by more draws, unless it is so in every draw,
    and those are at least three, or the error is four times the bound.
    With ``ceiling``, where plain PyTorch computes in another precision, that alone is asked for.
    """
    errors: dict[str, list[tuple[float, float]]] = {}

    def bound(peer: float) -> float:
        return ceiling or accuracy.largest_error(peer, str(dtype).removeprefix("torch."))

    fewest = 1 if dtype is torch.float64 else draws or accuracy.draws(arguments["x0"].numel())  # in float64 the ceiling alone is asked for
    for count in sorted({fewest, max(fewest, 3), max(fewest, 9), accuracy.MOST_DRAWS}):
        wrong, clear = [], False
        for name, pairs in _errors(arguments, dtype, count, errors, backend, options).items():
            error, peer = (statistics.median(column) for column in zip(*pairs, strict=True))
            if not error <= bound(peer):  # NaN is wrong
                wrong.append(f"{name} in {dtype}: relative error {error:.2e}, plain PyTorch {peer:.2e}, at most {bound(peer):.2e}")
                sure = count >= 3 or not error <= 4 * bound(peer)
                clear = clear or (sure and not any(one <= bound(of_plain) for one, of_plain in pairs))
        if not wrong or clear:
            break
    assert not wrong, "; ".join(wrong)


def _errors(
    arguments: dict, dtype: torch.dtype, draws: int, errors: dict[str, list[tuple[float, float]]], backend: str, options: dict
) -> dict[str, list[tuple[float, float]]]:
    """Adds the errors of more draws, ours and plain PyTorch's, until each result has so many; the output and every gradient by name."""
    states = options.get("return_states", False)
    of_states = [arguments["steps"] + 1] if states else []
    while len(errors.get("out", ())) < draws:
        given = cast({**arguments, "x0": torch.randn_like(arguments["x0"])}, dtype)
        seed = torch.randn(len(given["private_bias"]), *of_states, *given["x0"].shape, dtype=torch.float64).to(given["x0"])
        exact = results(reference.cross_rnn, cast(given, torch.float64), seed, return_states=states)
        plain = results(reference.cross_rnn, cast(given, dtype), seed, return_states=states)
        fast = results(functional.cross_rnn, cast(given, dtype), seed, backend=backend, **options)
        assert fast.keys() == exact.keys()
        for name, value in exact.items():
            errors.setdefault(name, []).append((relative_error(fast[name], value), relative_error(plain[name], value)))
    return errors
