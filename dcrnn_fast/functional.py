"""The operators, checked and sent to a backend. What they compute stands in :mod:`dcrnn_fast.reference.operators`."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor

from .errors import BackendUnavailable
from .ops import auto
from .ops.auto.calls import backend_of
from .ops.backends import BACKENDS, REASONS, cuda_extension, extension, requested, require, resolve
from .ops.checks import Projection, check_banks, check_cross_rnn, check_index, index_is_checked
from .ops.cross_rnn import tf32
from .ops.registry import Implementation, Keep, no_override, override_by, register, register_inference
from .reference import operators as reference
from .sharing import GATES, Cell
from .support.checks import MAX_STEPS, check_choice, check_count, check_flag, check_tensor


def _reference_cross_rnn(*tensors: Tensor, recompute: bool, **options: Any) -> Tensor:
    return reference.cross_rnn(*tensors, **options)


IMPLEMENTATIONS: dict[str, Implementation] = {"reference": Implementation(reference.param_gather, _reference_cross_rnn, no_override)}
"""The backends by name, without "triton", which is imported at its first call."""
if extension() is not None:
    try:
        IMPLEMENTATIONS["cpp"] = register("dcrnn_fast", Keep.ACTIVATIONS)
        register_inference("dcrnn_fast")
    except BackendUnavailable as error:
        REASONS["cpp"] = REASONS["cuda"] = f"the C++ extension cannot be used: {error}"
    else:
        _cuda = cuda_extension()
        # one namespace: PyTorch's dispatcher tells a CPU's tensors from a GPU's
        IMPLEMENTATIONS["cuda"] = IMPLEMENTATIONS["cpp"]._replace(
            kernel_override=override_by(_cuda.override_kernels) if _cuda else no_override
        )


def _implementation(name: str) -> Implementation:
    found = IMPLEMENTATIONS.get(name)
    if found is None:
        from .ops import triton

        found = triton.IMPLEMENTATION
    return found


def kernel_override(backend: str, **choices: Any) -> AbstractContextManager[None]:
    """Within this context, calls of a backend run the kernels that the choices name; for tests and measurements, in one thread.

    Args:
        backend: a backend by name.
        **choices: for "cuda", ``schedule`` ("step", "all_steps") and ``tiles`` ("small", "large"); for "triton", ``schedule``, and the
            :class:`~dcrnn_fast.kernels.tile_table.Config` of a kernel by its name.

    Raises:
        ValueError: an unknown backend or choice, or a choice for a backend that has none.
        BackendUnavailable: the backend cannot run here.
    """
    check_choice("backend", backend, tuple(BACKENDS))
    require(backend)
    return _implementation(backend).kernel_override(**choices)


def param_gather(shared: Tensor, private: Tensor, index: Tensor, *, backend: str = "auto") -> Tensor:
    """Collect each task's parameter rows from the shared bank and from the task's own.

    Args:
        shared: floating [S, ...], S at most 2**24.
        private: [T, P, ...], P at most 2**24, of the same dtype, device and trailing shape.
        index: int32 [T, R], values in [0, S + P), repeats allowed; below S a shared row, S + p the task's private row p.
        backend: "auto", or a backend by name.

    Returns:
        [T, R, ...]. The gradient of a row that several places read is their sum in a fixed order: the same bits on every run.

    Raises:
        TypeError, ValueError: wrong dtype, device or shape.
        IndexError: an index outside [0, S + P).
        BackendUnavailable: a named backend that cannot run here, or forward-mode derivatives of one that is not ``reference``.

    Example:
        >>> import torch
        >>> from dcrnn_fast.functional import param_gather
        >>> shared, private = torch.tensor([1.0, 2.0]), torch.tensor([[3.0], [4.0]])  # S = 2 rows; T = 2 tasks with P = 1 row each
        >>> param_gather(shared, private, torch.tensor([[0, 2], [2, 1]], dtype=torch.int32))
        tensor([[1., 3.],
                [4., 2.]])
    """

    def check() -> None:
        check_banks("shared", shared, "private", private, index)
        check_index(index, shared.shape[0] + private.shape[1])

    check_tensor("shared", shared, "floats [S, ...]")
    chosen = resolve(backend, device=shared.device)

    def run_of(name: str) -> Callable[..., Tensor]:
        of_backend = _implementation(name).param_gather
        return lambda *given: of_backend(*given, index)

    def measured() -> str:
        sizes = *index.shape, shared.shape[0], private.shape[1], math.prod(shared.shape[1:])
        banks = {"shared": shared, "private": private}
        return backend_of("param_gather", _name(shared.dtype), banks, [index], sizes, run_of, check)

    def run(name: str) -> Tensor:
        return _implementation(name).param_gather(shared, private, index)

    choose = measured if _auto_measures(backend, shared) else None
    return _checked(check, chosen, choose, run, (shared, private), {"index": (index, lambda: shared.shape[0] + private.shape[1])})


def cross_rnn(
    x0: Tensor,
    shared_weight: Tensor,
    shared_bias: Tensor,
    private_weight: Tensor,
    private_bias: Tensor,
    index: Tensor,
    *,
    steps: int,
    cell: Cell = "gated",
    context: Tensor | None = None,
    shared_projection: Tensor | None = None,
    private_projection: Tensor | None = None,
    projection_index: Tensor | None = None,
    return_states: bool = False,
    recompute: bool = False,
    backend: str = "auto",
) -> Tensor:
    """A cross layer as the cell of a recurrence, for every task; formula in :func:`dcrnn_fast.reference.cross_rnn`.

    Letters: T tasks, B rows, D units, C context columns, K = C + D, G = 2 ("gated") or 1 ("cross") vectors a unit, r the rank. The three
    arguments of the projection come together: they give the cell a low rank. Without them it is the full cell.

    Args:
        x0: floating [B, D], start state and re-injected input of all tasks.
        shared_weight: [S, G, K], or [S, G, r] with a projection.
        shared_bias: [S, G].
        private_weight: [T, P, G, K], or [T, P, G, r].
        private_bias: [T, P, G].
        index: int32 [T, R], values in [0, S + P). R = D for weights tied over steps, or steps * D.
        steps: L, from 1 to 65535.
        cell: "gated" or "cross".
        context: [steps, B, C], an upstream recurrence's state before each step; None for C = 0.
        shared_projection: [M, G, K].
        private_projection: [T, N, G, K].
        projection_index: int32 [T, r], values in [0, M + N), for weights tied over steps, or [T, steps * r].
        return_states: return all states instead of the last.
        recompute: keep no a and g (with a projection, no z and y) for the backward, which computes them again: less memory, more time. The
            reference ignores it.
        backend: "auto", or a backend by name.

    Returns:
        [T, B, D], or with ``return_states`` [T, steps + 1, B, D], the start state first. Under ``torch.autocast`` the inputs are cast as
        a matrix product's are, and the result is of autocast's dtype.

    Raises:
        TypeError, ValueError: wrong dtype, device, shape or range.
        IndexError: an index outside [0, S + P).
        BackendUnavailable: a named backend that cannot run here, or forward-mode derivatives of one that is not ``reference``.

    Example: one task and one step of the cell without a gate, ``x0 + x0 * (W x0 + b)`` with W the identity and b = 0.
        >>> import torch
        >>> from dcrnn_fast.functional import cross_rnn
        >>> shared = torch.eye(2).unsqueeze(1), torch.zeros(2, 1)  # weight [S=2, G=1, K=2], bias [S, G]
        >>> private = torch.empty(1, 0, 1, 2), torch.empty(1, 0, 1)  # no private rows
        >>> index = torch.tensor([[0, 1]], dtype=torch.int32)
        >>> cross_rnn(torch.tensor([[1.0, 2.0]]), *shared, *private, index, steps=1, cell="cross")
        tensor([[[2., 6.]]])
    """
    check_choice("cell", cell, tuple(GATES))
    check_count("steps", steps, maximum=MAX_STEPS)
    check_flag("return_states", return_states)
    check_flag("recompute", recompute)
    check_tensor("x0", x0, "floats [B, D]")
    tensors = _autocast(x0, shared_weight, shared_bias, private_weight, private_bias, context, shared_projection, private_projection)
    x0, shared_weight, shared_bias, private_weight, private_bias, context, shared_projection, private_projection = tensors
    every = [tensor for tensor in tensors if tensor is not None]
    indices = {"index": (index, lambda: shared_weight.shape[0] + private_weight.shape[1])}
    if projection_index is not None:
        indices["projection_index"] = projection_index, lambda: shared_projection.shape[0] + private_projection.shape[1]
    projection = Projection(shared_projection, private_projection, projection_index)

    def check() -> None:
        banks = shared_weight, shared_bias, private_weight, private_bias
        check_cross_rnn(x0, *banks, index, steps=steps, gates=GATES[cell], context=context, projection=projection)
        for (name, (places, num_rows)), letters in zip(indices.items(), ("S + P", "M + N"), strict=False):
            check_index(places, num_rows(), name, letters)

    chosen = resolve(backend, device=x0.device)

    options = {"steps": steps, "cell": cell, "return_states": return_states, "recompute": recompute}

    def measured() -> str:
        names = [name for name, tensor in zip(auto.INPUTS["cross_rnn"], tensors, strict=True) if tensor is not None]
        columns, tied = 0 if context is None else context.shape[2], 1 if index.shape[1] == x0.shape[1] else 0
        rank = 0 if projection_index is None else projection_index.shape[1] * x0.shape[1] // index.shape[1]
        sizes = x0.shape[1], columns, GATES[cell], index.shape[0], steps, tied, rank, int(return_states), int(recompute)
        kind = "tf32" if x0.is_cuda and x0.dtype == torch.float32 and tf32() else _name(x0.dtype)

        def run_of(name: str) -> Callable[..., Tensor]:
            of_backend, more = _implementation(name).cross_rnn, {"projection_index": projection_index, **options}
            return lambda *values: of_backend(*values[:5], index, **dict(zip(names[5:], values[5:], strict=True)), **more)

        given = dict(zip(names, every, strict=True))
        return backend_of("cross_rnn", kind, given, [places for places, _ in indices.values()], sizes, run_of, check)

    def run(name: str) -> Tensor:
        return _implementation(name).cross_rnn(*tensors[:5], index, context=context, **projection._asdict(), **options)

    choose = measured if _auto_measures(backend, x0) else None
    return _checked(check, chosen, choose, run, every, indices)


def _auto_measures(backend: str, tensor: Tensor) -> bool:
    """Whether ``auto`` chooses by measurements, see :mod:`dcrnn_fast.ops.auto`."""
    return tensor.device.type in auto.DEVICES and requested(backend) == "auto"


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _checked(
    check: Callable[[], None],
    chosen: str,
    choose: Callable[[], str] | None,
    run: Callable[[str], Tensor],
    tensors: Sequence[Tensor],
    indices: Mapping[str, tuple[Tensor, Callable[[], int]]],
) -> Tensor:
    """Run after the check, on the backend ``chosen``, or on the one that ``choose`` returns.

    The kernels' operators check their arguments themselves, but for the range of an index on a GPU. So where that is known, they run at
    once; if that fails, the check runs for a better message. ``tensors`` are all inputs but the indices. Each of these has, beside it, a
    function that returns the number of rows that it may point to.
    """
    name = chosen if choose is None else ""
    if name != "reference" and not torch.compiler.is_compiling():
        try:
            on_cpu = chosen == "cpp" and all([tensor.is_cpu for tensor in (*tensors, *[index for index, _ in indices.values()])])
            if on_cpu or (chosen != "cpp" and all([index_is_checked(index, num_rows()) for index, num_rows in indices.values()])):
                name = name or choose()  # type: ignore[misc]
                if name != "reference":
                    return run(name)
        except (AttributeError, IndexError, RuntimeError, TypeError, ValueError):
            check()
            raise
    check()
    return run(name or choose())  # type: ignore[misc]


def _autocast(x0: Tensor, *others: Tensor | None) -> Sequence[Any]:
    """The tensors in autocast's dtype where autocast is on. Its own rule casts all floating dtypes but float64."""
    device, tensors = x0.device.type, (x0, *others)
    if device == "meta" or not torch.is_autocast_enabled(device):
        return tensors
    dtype = torch.get_autocast_dtype(device)
    return [t.to(dtype) if t is not None and t.is_floating_point() and t.dtype != torch.float64 else t for t in tensors]
