"""request, which only inference calls: as exact as plain PyTorch, safe against any arguments, without derivative."""

import contextlib
import statistics

import pytest
import torch

from dcrnn_fast import BackendUnavailable
from dcrnn_fast.ops import backends
from dcrnn_fast.support import accuracy

from ..operators.backend import DTYPES
from ..operators.problems import REFUSED, freed
from .inference_problems import pack_arguments, packed, plain_request, request_arguments

pytestmark = [
    pytest.mark.skipif(backends.REASONS["cpp"] is not None, reason="the backend cpp cannot run here"),
    pytest.mark.usefixtures("poisoned_memory"),
]


def computed(pack, given):
    return torch.ops.dcrnn_fast.request(packed=packed(pack), **given)


def widened(arguments):
    floating = {n: v.double() for n, v in arguments.items() if isinstance(v, torch.Tensor) and v.is_floating_point()}
    return {**arguments, **floating}


def assert_as_exact_as_plain_pytorch(dtype, *, batch, probabilities=False, **shape):
    errors = []
    for seed in range(60 if 0 < batch < 10 else min(9, accuracy.draws(batch))):  # one row has three numbers, each near one rounding
        pack = pack_arguments(**shape, dtype=dtype, seed=seed)
        given = request_arguments(pack, batch=batch, log_rate=-0.7, probabilities=probabilities, seed=seed)
        exact, got = plain_request(widened(pack), widened(given)), computed(pack, given)
        assert (got.shape, got.dtype) == (exact.shape, torch.float64 if dtype == torch.float64 else torch.float32)
        errors.append([accuracy.relative_error(values, exact) for values in (got, plain_request(pack, given))])
    error, peer = (statistics.median(draw[whose] for draw in errors) for whose in (0, 1))
    bound = accuracy.largest_error(peer, str(dtype).removeprefix("torch."))
    assert error <= bound, f"relative error {error:.2e}, plain PyTorch {peer:.2e}, at most {bound:.2e}"


@pytest.mark.parametrize("probabilities", [False, True], ids=["logits", "probabilities"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("batch", [0, 1, 3, 127, 1000])
def test_results_are_as_exact_as_plain_pytorch(dtype, batch, probabilities):
    assert_as_exact_as_plain_pytorch(dtype, batch=batch, width=8, rank=20, probabilities=probabilities)


SHAPES = [
    {"numbers": 0}, {"pooling": ()}, {"pooling": (0,), "numbers": 1, "bins": 1}, {"pooling": (2, 2)}, {"width": 1}, {"width": 7},
    {"width": 33}, {"bins": 40}, {"tasks": 1}, {"tasks": 5}, {"cell_tasks": 1, "tasks": 3}, {"shared": 0.0}, {"shared": 1.0},
    {"steps": 1}, {"steps": 4, "tied": False}, {"cell": "cross"}, {"rank": 1}, {"rank": 33}, {"own_rank": 2}, {"own_rank": 3},
    {"widths": ()}, {"widths": (16,)}, {"widths": (48, 96, 16)}, {"first_order": False}, {"chain": False}, {"chain": False, "tasks": 1},
]  # fmt: skip


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_every_shape_is_as_exact_as_plain_pytorch(shape, dtype):
    assert_as_exact_as_plain_pytorch(dtype, batch=13, probabilities=True, **shape)


def test_logits_without_bounds_give_probabilities_of_0_and_1():
    pack = pack_arguments(tasks=3, first_order=False, widths=(), dtype=torch.float32)
    for bias, expected in ((float("inf"), 1.0), (-float("inf"), 0.0)):
        pack["towers"][:, -1] = bias
        found = computed(pack, request_arguments(pack, probabilities=True))
        assert torch.equal(found, torch.full_like(found, expected))


def test_a_row_has_the_same_bits_in_any_batch_with_any_threads_and_any_ids():
    pack = pack_arguments(width=8, dtype=torch.float32)
    given = request_arguments(pack, batch=400)
    alone = computed(pack, {**given, "ids": given["ids"][7:8], "dense": given["dense"][7:8]})
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        together = computed(pack, given)
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(together, computed(pack, {**given, "ids": given["ids"].int()}))
    assert torch.equal(together[:, 7:8], alone)


def test_strided_arguments_are_read_right():
    pack = pack_arguments(dtype=torch.float32)
    given = {**request_arguments(pack), "packed": packed(pack)}
    expected = torch.ops.dcrnn_fast.request(**given)
    for where in (pack, given):
        for name, value in where.items():
            if isinstance(value, torch.Tensor):
                strided = {**where, name: torch.stack([value, value + 1], dim=-1)[..., 0]}
                got = computed(strided, request_arguments(pack)) if where is pack else torch.ops.dcrnn_fast.request(**strided)
                assert torch.equal(got, expected), name


def test_opcheck_passes_but_for_traces_which_are_refused_in_words():
    pack, checks = pack_arguments(dtype=torch.float32), ("test_schema", "test_autograd_registration")
    torch.library.opcheck(torch.ops.dcrnn_fast.request_pack.default, (), pack, test_utils=checks)
    given = {**request_arguments(pack), "packed": packed(pack)}
    torch.library.opcheck(torch.ops.dcrnn_fast.request.default, (), given, test_utils=checks)
    with pytest.raises(ValueError, match="trace the model itself"):
        torch.ops.dcrnn_fast.request(**{**given, "table": given["table"].to("meta")})


def test_a_derivative_is_refused_in_words():
    pack = pack_arguments()
    given = request_arguments(pack)
    given["table"].requires_grad_()
    with pytest.raises(BackendUnavailable, match="for inference and have no derivative"):
        computed(pack, given).sum().backward()


PACK = {
    "a table of integers": (lambda a: {"table": a["table"].int()}, "table: got dtype torch.int32, expected a floating dtype"),
    "a table without memory": (lambda a: {"table": freed(a["table"])}, "table: got shape .* storage of 0 bytes"),
    "a table that is too short": (lambda a: {"table": a["table"][:-1]}, "sizes, offsets: got .* ids from row"),
    "a negative offset": (lambda a: {"offsets": a["offsets"] - 1}, "sizes, offsets: got"),
    "an offset that wraps around": (lambda a: {"offsets": a["offsets"] + (2**63 - 9)}, "sizes, offsets: got"),
    "starts in another order": (lambda a: {"starts": a["starts"].flip(0)}, "starts, pooling: expected"),
    "a pooling that nobody knows": (lambda a: {"pooling": a["pooling"] + 1}, "starts, pooling: expected"),
    "numbers in part": (lambda a: {"scale": None}, "lower, scale, weight, bias: got some of them"),
    "no features": (lambda a: dict.fromkeys(("lower", "scale", "weight", "bias", "first_order_weight")) | {
        "sizes": a["sizes"][:0], "offsets": a["offsets"][:0], "starts": a["starts"][:1], "pooling": a["pooling"][:0]}, "got no features"),
    "a term without the numbers' part": (lambda a: {"first_order_weight": None}, "first_order_weight: expected one with numbers"),
    "weights of other units": (lambda a: {"private_weight": a["private_weight"][:, :, 1:]}, "private_.*: got"),
    "weights of another dtype": (lambda a: {"shared_weight": a["shared_weight"].float()}, "shared_weight: got dtype"),
    "weights of other tasks": (
        lambda a: {"towers": a["towers"].repeat(2, 1), "first_order_weight": a["first_order_weight"].repeat(1, 1, 2)},
        "private_weight: got 2 tasks, expected 1 or 4",
    ),
    "no steps": (lambda a: {"steps": 0}, "steps=0"),
    "a cell that nobody knows": (lambda a: {"cell": "gru"}, "cell='gru'"),
    "a width that is no multiple of 16": (lambda a: {"widths": a["widths"] + 1}, "widths: got 33, expected multiples of 16"),
    "widths that wrap around": (lambda a: {"widths": a["widths"] * 0 + 2**62}, "widths: got 4611686018427387904, expected"),
    "widths whose product wraps around": (lambda a: {"widths": a["widths"] * 0 + 2**30}, "widths: got layers of more than"),
    "more layers than any use": (lambda a: {"widths": a["widths"][:1].expand(1025)}, "widths: got 1025 layers"),
    "towers of another width": (lambda a: {"towers": a["towers"][:, 1:]}, "towers: got shape"),
}  # fmt: skip
REQUEST = {
    "a negative id": (lambda a: {"ids": a["ids"].index_fill(1, torch.tensor([1]), -1)}, "ids: got -1 in row 0, column 1"),
    "an id beyond 32 bits": (lambda a: {"ids": a["ids"] + 2**40}, "ids: got 1099511627"),
    "ids of other columns": (lambda a: {"ids": a["ids"][:, :2]}, r"ids: got shape \[4, 2\], expected \[any, 6\]"),
    "ids without memory": (lambda a: {"ids": freed(a["ids"])}, "ids: got shape .* storage of 0 bytes"),
    "ids of fractions": (lambda a: {"ids": a["ids"].double()}, "ids: got dtype torch.float64"),
    "no numbers": (lambda a: {"dense": None}, "dense: expected the model's numbers"),
    "numbers of other rows": (lambda a: {"dense": a["dense"][:3]}, r"dense: got shape \[3, 2\]"),
    "a number that is NaN": (lambda a: {"dense": a["dense"] * float("nan")}, "dense: got NaN or infinity"),
    "another table that is too short": (lambda a: {"table": a["table"][:-1], "first_order": a["first_order"][:-1]}, "sizes, offsets: got"),
    "a table of another dtype": (lambda a: {"table": a["table"].float()}, "table: got dtype torch.float32, expected torch.float64"),
    "a term of more tasks": (lambda a: {"first_order": a["first_order"].repeat(1, 2)}, "first_order: got shape"),
    "no term": (lambda a: {"first_order": None}, "first_order: expected the term's table"),
    "a packed model that is cut": (lambda a: {"packed": a["packed"][:-64]}, "packed: got .* bytes, expected"),
    "a packed model without a head": (lambda a: {"packed": a["packed"][:8]}, "packed: expected what request_pack returned"),
    "zeros for a packed model": (lambda a: {"packed": torch.zeros_like(a["packed"])}, "packed: expected what request_pack returned"),
    "a packed model in halves of words": (lambda a: {"packed": torch.cat([a["packed"][:1], a["packed"]])[1:]}, "packed: expected"),
    "a packed model without memory": (lambda a: {"packed": freed(a["packed"])}, "packed: got shape .* storage of 0 bytes"),
}  # fmt: skip


@pytest.mark.parametrize(("change", "message"), (PACK | REQUEST).values(), ids=PACK | REQUEST)
def test_arguments_that_do_not_fit_are_refused_by_name(change, message):
    pack, operators = pack_arguments(), torch.ops.dcrnn_fast
    request = {**request_arguments(pack), "packed": packed(pack)}
    operator, given = (operators.request_pack, pack) if (change, message) in PACK.values() else (operators.request, request)
    with pytest.raises(REFUSED, match=message):
        operator(**{**given, **change(given)})


@pytest.mark.parametrize("value", [-1, 0, 1, 3, 2**31, 2**40, 2**62, -(2**63)])
def test_no_number_in_a_packed_model_leads_outside_memory(value):
    """A changed number is refused or harmless: the first 80 words are the sizes, the columns and the fields."""
    pack = pack_arguments()
    given, whole = request_arguments(pack), packed(pack)
    for word in range(80):
        changed = whole.clone()
        changed.view(torch.int64)[word] = value
        with contextlib.suppress(*REFUSED):
            torch.ops.dcrnn_fast.request(packed=changed, **given)
