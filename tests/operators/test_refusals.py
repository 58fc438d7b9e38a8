"""Arguments that do not fit. The public functions answer on every backend with one exception, which names the argument; the operators
themselves, which programs call straight through the dispatcher, with the same words."""

import re

import pytest
import torch

from dcrnn_fast.ops.cross_rnn import GradMask

from .backend import on, on_every_backend, on_kernels
from .problems import REFUSED, cross_arguments, freed


def cut(tensor):
    """The tensor in a storage that is one byte too short."""
    tensor = tensor.clone()
    tensor.untyped_storage().resize_(tensor.nbytes - 1)
    return tensor


def every(change):
    """A change of all tensors."""
    return lambda a: {name: change(value) for name, value in a.items() if isinstance(value, torch.Tensor)}


def of(change, *names):
    """A change of the tensors of these names."""
    return lambda a: {name: change(a[name]) for name in names}


def for_two_steps(*names):
    return lambda a: {name: torch.cat([a[name]] * 2, dim=int(name.startswith("private"))) for name in names}


def to(*values):
    return lambda tensor: tensor.to(*values)


def narrow(tensor):
    return tensor[..., :4]


WEIGHTS = "shared_weight", "shared_bias", "private_weight", "private_bias"
PROJECTIONS = "shared_projection", "private_projection"

FULL = {
    "no steps": (lambda a: {"steps": 0}, ValueError, "steps=0: expected at least 1"),
    "too many steps": (lambda a: {"steps": 65536}, ValueError, "steps=65536: expected at most 65535"),
    "steps beyond 32 bits": (lambda a: {"steps": 2**62}, ValueError, "steps=4611686018427387904: expected at most 65535"),
    "the largest steps": (lambda a: {"steps": 2**63 - 1}, ValueError, "steps=9223372036854775807: expected at most 65535"),
    "an unknown cell": (lambda a: {"cell": "gru"}, ValueError, "cell='gru': expected one of 'gated', 'cross'"),
    "flat x0": (of(lambda v: v[0], "x0"), ValueError, "x0: got shape [5], expected [B, D]"),
    "x0 without units": (of(lambda v: v[:, :0], "x0"), ValueError, "x0: got shape [4, 0], expected [B, D] with D >= 1"),
    "x0 without memory": (of(freed, "x0"), ValueError, "x0: got shape [4, 5] in a storage of 0 bytes"),
    "integers": (every(to(torch.int32)), TypeError, "x0: got dtype torch.int32, expected a floating dtype of at least 16 bits"),
    "integers of no rows": (lambda a: {"x0": a["x0"][:0].int()}, TypeError, "x0: got dtype torch.int32"),
    "8 bits": (every(to(torch.float8_e4m3fn)), TypeError, "x0: got dtype "),
    "context of other steps": (
        lambda a: {"context": a["x0"].new_zeros(2, 4, 1)}, ValueError, "context: got shape [2, 4, 1], expected [L, B, C] with L = 3, B = 4",
    ),
    "context of another dtype": (
        lambda a: {"context": a["x0"].new_zeros(3, 4, 1).half()}, TypeError, "context: got dtype torch.float16, expected torch.float64",
    ),
    "context that no unit reads": (
        lambda a: {"context": a["x0"].new_zeros(3, 4, 1)},
        ValueError, "shared_weight: got shape [1, 2, 2, 5], expected [W, S, G, K] with G = 2, K = 6",
    ),
    "x0 of another width": (
        of(narrow, "x0"), ValueError, "shared_weight: got shape [1, 2, 2, 5], expected [W, S, G, K] with G = 2, K = 4",
    ),
    "x0 of another dtype": (
        of(to(torch.float32), "x0"), TypeError, "shared_weight: got dtype torch.float64, expected torch.float32 as x0 has",
    ),
    "gates of another cell": (
        lambda a: {"cell": "cross"}, ValueError, "shared_weight: got shape [1, 2, 2, 5], expected [W, S, G, K] with G = 1, K = 5",
    ),
    "a weight on another device": (of(to("meta"), "shared_weight"), ValueError, "shared_weight: got device meta, expected"),
    "private weights on another device": (of(to("meta"), "private_weight"), ValueError, "private_weight: got device meta, expected"),
    "private weights of another width": (
        of(narrow, "private_weight"),
        ValueError, "private_weight: got shape [2, 1, 3, 2, 4], expected [T, W, P, G, K] with W = 1, G = 2, K = 5",
    ),
    "private weights without memory": (
        of(freed, "private_weight"), ValueError, "private_weight: got shape [2, 1, 3, 2, 5] in a storage of 0 bytes",
    ),
    "a bias of other units": (
        of(lambda v: v[:, :1], "shared_bias"),
        ValueError, "shared_bias: got shape [1, 1, 2], expected [W, S, G] with W = 1, S = 2, G = 2",
    ),
    "a bias with too little memory": (of(cut, "shared_bias"), ValueError, "shared_bias: got shape [1, 2, 2] in a storage of 31 bytes"),
    "a bias of other tasks": (
        of(lambda v: v[:1], "private_bias"),
        ValueError, "private_bias: got shape [1, 1, 3, 2], expected [T, W, P, G] with T = 2, W = 1, P = 3, G = 2",
    ),
    "weights of other steps": (
        for_two_steps(*WEIGHTS), ValueError, "shared_weight: got the weights of W = 2 steps, expected 1 (tied) or steps = 3 (untied)",
    ),
    "units that are not all": (
        of(lambda v: v[:, :, 1:], "private_weight", "private_bias"),
        ValueError, "shared_weight, private_weight: got S + P = 2 + 2 units, expected D = 5",
    ),
}  # fmt: skip

LOW_RANK = {
    "projections of another width": (
        of(narrow, *PROJECTIONS), ValueError, "shared_projection: got shape [1, 2, 2, 4], expected [W, M, G, K] with G = 2, K = 5",
    ),
    "private rows of another width": (
        of(narrow, "private_projection"),
        ValueError, "private_projection: got shape [2, 1, 2, 2, 4], expected [T, W, N, G, K] with W = 1, G = 2, K = 5",
    ),
    "a projection of another dtype": (
        of(to(torch.float32), "shared_projection"), TypeError, "shared_projection: got dtype torch.float32, expected torch.float64",
    ),
    "a projection on another device": (of(to("meta"), "private_projection"), ValueError, "private_projection: got device meta, expected"),
    "a projection without memory": (
        of(freed, "shared_projection"), ValueError, "shared_projection: got shape [1, 2, 2, 5] in a storage of 0 bytes",
    ),
    "no rows of a projection": (
        of(lambda v: v[..., :0, :, :], *PROJECTIONS),
        ValueError, "shared_projection, private_projection: got M + N = 0 rows, expected the rank r >= 1",
    ),
    "a projection of other tasks": (
        of(lambda v: v[:1], "private_projection"),
        ValueError, "private_weight: got shape [2, 1, 3, 2, 4], expected [T, W, P, G, r] with T = 1, W = 1, G = 2, r = 4",
    ),
    "a projection of other steps": (
        for_two_steps(*PROJECTIONS),
        ValueError, "shared_weight: got shape [1, 2, 2, 4], expected [W, S, G, r] with W = 2, G = 2, r = 4",
    ),
    "weights of the full cell": (
        of(lambda v: v.repeat(1, 1, 1, 2), "shared_weight"),
        ValueError, "shared_weight: got shape [1, 2, 2, 8], expected [W, S, G, r] with W = 1, G = 2, r = 4",
    ),
    **{name: FULL[name] for name in ("no steps", "an unknown cell", "x0 without units", "units that are not all")},
}  # fmt: skip
TABLE = {
    **{f"full, {name}": (None, *case) for name, case in FULL.items()},
    **{f"low rank, {name}": (4, *case) for name, case in LOW_RANK.items()},
}
AT_THE_CALL = {
    "x0 as a list": (None, lambda a: {"x0": a["x0"].tolist()}, TypeError, "x0: got list, expected a tensor"),
    "a sparse x0": (None, lambda a: {"x0": a["x0"].to_sparse()}, ValueError, "x0: got a tensor of layout torch.sparse_coo"),
    "a sparse bias": (None, of(torch.Tensor.to_sparse, "private_bias"), ValueError, "private_bias: got a tensor of layout"),
    "no weight": (None, lambda a: {"shared_weight": None}, TypeError, "shared_weight: got NoneType, expected a tensor"),
    "a bias as a list": (None, lambda a: {"private_bias": [0.0]}, TypeError, "private_bias: got list, expected a tensor"),
    "a flag in words": (None, lambda a: {"return_states": "no"}, TypeError, "return_states='no': expected True or False"),
    "one projection": (4, lambda a: {"shared_projection": None}, ValueError, "shared_projection: got None, expected a tensor"),
    "rows as a list": (4, lambda a: {"private_projection": []}, TypeError, "private_projection: got list, expected a tensor"),
}
"""What no program can hand to an operator. Of tensors without a dense layout, PyTorch's dispatcher finds no kernel."""


@on_every_backend
@pytest.mark.parametrize(("rank", "change", "error", "said"), (TABLE | AT_THE_CALL).values(), ids=TABLE | AT_THE_CALL)
def test_an_argument_that_does_not_fit_is_refused_by_name(backend, rank, change, error, said):
    arguments = backend.of(cross_arguments(rank=rank, projection_share_ratio=0.5))
    with pytest.raises(error, match=re.escape(said)) as caught:
        backend.cross_rnn(**{**arguments, **change(arguments)})
    assert type(caught.value) is error


@on_kernels
@pytest.mark.parametrize(("rank", "change", "error", "said"), TABLE.values(), ids=TABLE)
def test_an_operator_refuses_it_with_the_same_words(backend, rank, change, error, said):
    arguments = backend.of(cross_arguments(rank=rank, projection_share_ratio=0.5))
    with pytest.raises(REFUSED, match=re.escape(said)):
        backend.forward({**arguments, **change(arguments)})


BACKWARD = {
    "activations of fewer tasks": (lambda grad, kept: (grad, kept[1:]), "activations: got shape"),
    "activations with sizes swapped": (lambda grad, kept: (grad, kept.mT), "activations: got shape"),
    "activations that are flat": (lambda grad, kept: (grad, kept.flatten()), "activations: got shape"),
    "one activation": (lambda grad, kept: (grad, kept.new_empty(())), "activations: got shape []"),
    "activations without memory": (lambda grad, kept: (grad, freed(kept)), "in a storage of 0 bytes"),
    "activations of another dtype": (lambda grad, kept: (grad, kept.float()), "activations: got dtype torch.float32, expected"),
    "activations on another device": (lambda grad, kept: (grad, kept.to("meta")), "device"),
    "a gradient of fewer rows": (lambda grad, kept: (grad[:, 1:], kept), "grad: got shape [2, 3, 5], expected [2, 4, 5]"),
    "a gradient with sizes swapped": (lambda grad, kept: (grad.mT, kept), "grad: got shape [2, 5, 4], expected [2, 4, 5]"),
    "a gradient that is flat": (lambda grad, kept: (grad.flatten(), kept), "grad: got shape [40], expected [2, 4, 5]"),
    "a gradient without memory": (lambda grad, kept: (freed(grad), kept), "grad: got shape [2, 4, 5] in a storage of 0 bytes"),
    "a gradient of another dtype": (lambda grad, kept: (grad.float(), kept), "grad: got dtype torch.float32, expected"),
}  # fmt: skip


@on_kernels
@pytest.mark.parametrize("rank", [None, 3], ids=["full", "low rank"])
@pytest.mark.parametrize(("change", "said"), BACKWARD.values(), ids=BACKWARD)
def test_the_backward_checks_what_the_forward_gave_it(backend, change, said, rank):
    """Every size, not their product: a flat tensor of the right length is another layout of memory."""
    arguments = backend.of(cross_arguments(rank=rank))
    out, activations = backend.forward(arguments)
    grad, activations = change(out, activations)
    with pytest.raises(REFUSED, match=re.escape(said)):
        backend.backward(arguments, grad, activations, mask=GradMask.X0 | GradMask.WEIGHTS)


@on_kernels
@pytest.mark.parametrize(("rank", "most"), [(None, 63), (3, 255)], ids=["full", "low rank"])
def test_the_backward_refuses_a_mask_that_it_cannot_serve(backend, rank, most):
    arguments = backend.of(cross_arguments(rank=rank))
    out, *saved = backend.forward(arguments)
    for mask, said in ((GradMask.CONTEXT, "asks for the gradient of context"), (most + 1, f"got {most + 1}, expected"), (-1, "got -1")):
        with pytest.raises(REFUSED, match=f"grad_mask: {said}"):
            backend.backward(arguments, out, *saved, mask=mask)


GATHER = {
    "integer banks": (lambda s, p, i: (s.int(), p.int(), i), TypeError, "shared: got dtype torch.int32, expected a floating dtype"),
    "banks of two dtypes": (lambda s, p, i: (s, p.float(), i), TypeError, "private: got dtype torch.float32, expected torch.float64"),
    "an int64 index": (lambda s, p, i: (s, p, i.long()), TypeError, "index: got dtype torch.int64, expected torch.int32"),
    "a flat index": (lambda s, p, i: (s, p, i.flatten()), ValueError, "index: got shape [14], expected [T, R]"),
    "an index on another device": (lambda s, p, i: (s, p, i.to("meta")), ValueError, "index: got device meta, expected"),
    "an index without memory": (lambda s, p, i: (s, p, freed(i)), ValueError, "index: got shape [2, 7] in a storage of 0 bytes"),
    "rows without memory": (lambda s, p, i: (s, freed(p), i), ValueError, "private: got shape [2, 4, 5] in a storage of 0 bytes"),
    "another number of tasks": (lambda s, p, i: (s, p[:1], i), ValueError, "private: got 1 tasks, expected 2 as index [2, 7] has"),
    "rows of another width": (lambda s, p, i: (s, narrow(p), i), ValueError, "private: got shape [2, 4, 4], expected [T, P, ...]"),
    "more rows than a bank may have": (
        lambda s, p, i: (s.new_empty(2**24 + 1, 0), p[..., :0], i),
        ValueError, "shared, private: got 16777217 and 4 rows, expected 0 to 16777216 each",
    ),
    "banks without rows": (
        lambda s, p, i: (s[:0], p[:, :0], i), IndexError, "index: got values, expected none: the banks have no rows",
    ),
}  # fmt: skip
STRAY = {
    "the first row of the next task": (lambda s, p, i: (s, p, i.where(i != 3, 7)), IndexError, "index: got 7, expected values in"),
    "a row far beyond": (lambda s, p, i: (s, p, i + 2**30), IndexError, "expected values in [0, S + P) = [0, 7)"),
    "a row before the first": (lambda s, p, i: (s, p, i - 1), IndexError, "index: got -1, expected values in"),
}
NO_TENSORS = {
    "a bank as a list": (lambda s, p, i: (s, p.tolist(), i), TypeError, "private: got list, expected a tensor"),
    "no index": (lambda s, p, i: (s, p, None), TypeError, "index: got NoneType, expected a tensor"),
    "a sparse bank": (lambda s, p, i: (s, p.to_sparse(), i), ValueError, "private: got a tensor of layout torch.sparse_coo"),
}


def banks(backend):
    given = torch.randn(3, 5).double(), torch.randn(2, 4, 5).double(), torch.arange(14, dtype=torch.int32).view(2, 7) % 7
    return [tensor.to(backend.device) for tensor in given]


@on_every_backend
@pytest.mark.parametrize(("change", "error", "said"), (GATHER | STRAY | NO_TENSORS).values(), ids=GATHER | STRAY | NO_TENSORS)
def test_banks_that_do_not_fit_are_refused_by_name(backend, change, error, said):
    with pytest.raises(error, match=re.escape(said)) as caught:
        backend.param_gather(*change(*banks(backend)))
    assert type(caught.value) is error


@on_kernels
@pytest.mark.parametrize(("change", "error", "said"), (GATHER | STRAY).values(), ids=GATHER | STRAY)
def test_the_gather_refuses_them_with_the_same_words(backend, change, error, said):
    if "expected values in" in said and backend.name != "cpp":
        pytest.skip("a kernel on a GPU cannot raise: see test_param_gather.py")
    with pytest.raises(REFUSED, match=re.escape(said)):
        backend.operators.param_gather(*change(*banks(backend)))


@on_kernels
def test_the_gathers_backward_checks_its_arguments_itself(backend):
    grad, index = torch.randn(2, 9, 5, device=backend.device), torch.zeros(2, 9, dtype=torch.int32, device=backend.device)
    for given, said in (
        ((grad.flatten(), index, 3, 4), "grad: got shape"),
        ((grad, index.flatten(), 3, 4), "index: got shape"),
        ((grad, index.long(), 3, 4), "index: got dtype torch.int64"),
        ((grad.int(), index, 3, 4), "grad: got dtype torch.int32"),
        ((grad, index, -1, 4), "num_shared, num_private: got -1 and 4 rows"),
        ((grad, index, 3, 2**31), "num_shared, num_private: got 3 and 2147483648 rows"),
        ((grad, index, 2**62, 2**62), "num_shared"),
        ((grad, index, 0, 0), "index: got values, expected none"),
        ((grad, index.to("meta"), 3, 4), "device"),
        ((grad, freed(index), 3, 4), "index: got shape .* in a storage of 0 bytes"),
        ((freed(grad), index, 3, 4), "grad: got shape .* in a storage of 0 bytes"),
        *([((grad, index + 7, 3, 4), "index: got 7")] if backend.name == "cpp" else []),
    ):
        with pytest.raises(REFUSED, match=said):
            backend.operators.param_gather_backward(*given)


@on_every_backend
@pytest.mark.parametrize("return_states", [False, True])
def test_no_tasks_give_an_output_of_no_tasks(backend, return_states):
    arguments = backend.of(cross_arguments(tasks=0))
    assert backend.cross_rnn(**arguments, return_states=return_states).shape == ((0, 4, 4, 5) if return_states else (0, 4, 5))


@on("cuda")
def test_an_unknown_schedule_is_refused(backend):
    with pytest.raises(ValueError, match="schedule: got 'sideways', expected one of"):
        backend.kernel_override(schedule="sideways").__enter__()
