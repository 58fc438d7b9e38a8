"""features and towers, which only inference calls: as exact as plain PyTorch, safe against any arguments, without derivative."""

import statistics

import pytest
import torch

from dcrnn_fast import BackendUnavailable
from dcrnn_fast.ops import backends
from dcrnn_fast.support import accuracy

from ..operators.backend import DTYPES
from ..operators.problems import REFUSED, freed
from .inference_problems import features_arguments, plain_features, plain_towers, towers_arguments

pytestmark = [
    pytest.mark.skipif(backends.REASONS["cpp"] is not None, reason="the backend cpp cannot run here"),
    pytest.mark.usefixtures("poisoned_memory"),
]

OPERATORS = {
    "features": (features_arguments, plain_features, {"width": 8}),
    "towers": (towers_arguments, plain_towers, {"dim": 24}),
}
on_both = pytest.mark.parametrize("name", OPERATORS)


def outputs(of_call):
    return of_call if isinstance(of_call, tuple) else (of_call,)


def call(name, arguments):
    """The outputs of the operator: of features x0 and the first-order term, of towers one."""
    return outputs(getattr(torch.ops.dcrnn_fast, name)(**arguments))


def same(some, others):
    return all(torch.equal(one, other) for one, other in zip(some, others, strict=True))


def widened(arguments):
    floating = {n: v.double() for n, v in arguments.items() if isinstance(v, torch.Tensor) and v.is_floating_point()}
    return {**arguments, **floating}


def assert_as_exact_as_plain_pytorch(name, dtype, **shape):
    made, plain, common = OPERATORS[name]
    errors = []
    for seed in range(min(9, accuracy.draws(shape["batch"]))):
        arguments = made(**{**common, **shape}, dtype=dtype, seed=seed)
        exact, got, peer = outputs(plain(**widened(arguments))), call(name, arguments), outputs(plain(**arguments))
        assert [value.dtype for value in got] == [dtype, torch.float64][: len(got)]
        assert [value.shape for value in got] == [value.shape for value in exact]
        errors.append([[accuracy.relative_error(*pair) for pair in zip(values, exact, strict=True)] for values in (got, peer)])
    for output in range(len(errors[0][0])):
        error, peer = (statistics.median(draw[whose][output] for draw in errors) for whose in (0, 1))
        bound = accuracy.largest_error(peer, str(dtype).removeprefix("torch."))
        assert error <= bound, f"output {output}: relative error {error:.2e}, plain PyTorch {peer:.2e}, at most {bound:.2e}"


@on_both
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("batch", [0, 1, 3, 127, 4096])
def test_results_are_as_exact_as_plain_pytorch(name, dtype, batch):
    assert_as_exact_as_plain_pytorch(name, dtype, batch=batch)


SHAPES = {
    "features": [
        {"numbers": 0}, {"fields": 0}, {"fields": 1, "numbers": 1, "bins": 1}, {"width": 1}, {"width": 7}, {"width": 33}, {"bins": 40},
        {"more": 0}, {"more": 5}, {"more": 3, "numbers": 0, "width": 33}, {"more": 2, "fields": 0},
        {"tasks": None}, {"tasks": 1}, {"tasks": 9}, {"tasks": 0}, {"tasks": 2, "width": 0},
    ],
    "towers": [
        {"tasks": 1}, {"tasks": 5, "dim": 33}, {"widths": ()}, {"widths": (16,)}, {"widths": (48, 96, 16), "dim": 1},
        {"widths": (), "dim": 130}, {"dim": 0}, {"tasks": 0}, {"with_term": False},
    ],
}  # fmt: skip


@pytest.mark.parametrize(("name", "shape"), [(name, shape) for name, shapes in SHAPES.items() for shape in shapes], ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_every_shape_is_as_exact_as_plain_pytorch(name, shape, dtype):
    assert_as_exact_as_plain_pytorch(name, dtype, batch=13, **shape)


def test_embeddings_are_copied_bit_for_bit_for_both_kinds_of_ids():
    arguments = features_arguments(batch=50, numbers=0, width=8, tasks=None, dtype=torch.bfloat16)
    expected = plain_features(**arguments)
    assert same(call("features", arguments), expected)
    assert same(call("features", {**arguments, "ids": arguments["ids"].int()}), expected)


@on_both
def test_a_row_has_the_same_bits_in_any_batch_and_with_any_threads(name):
    made, _, common = OPERATORS[name]
    arguments = made(**common, batch=400, dtype=torch.float32)
    row = {"features": ("ids", "dense"), "towers": ("states", "term")}[name]
    alone = call(name, {**arguments, **{n: arguments[n][:, 7:8] if n == "states" else arguments[n][7:8] for n in row}})
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        together = call(name, arguments)
    finally:
        torch.set_num_threads(threads)
    assert same(together, call(name, arguments))
    if name == "features":
        assert same([value[7:8] for value in together], alone)


@on_both
def test_strided_arguments_are_read_right(name):
    made, _, common = OPERATORS[name]
    arguments = made(**common, **({"more": 2} if name == "features" else {}), dtype=torch.float32)
    expected = call(name, arguments)
    for argument, value in arguments.items():
        room = torch.stack([value, value + 9], dim=-1)
        for strided in (room[..., 0], value.mT.contiguous().mT if value.dim() > 1 else value):
            assert same(call(name, {**arguments, argument: strided}), expected), argument


def test_towers_of_states_without_units_are_their_heads_biases():
    arguments = towers_arguments(dim=0, widths=(), dtype=torch.float32)
    (got,) = call("towers", arguments)
    torch.testing.assert_close(got, (arguments["packed"].mT + arguments["term"]).float())


@on_both
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_opcheck_passes(name, dtype):
    made, _, common = OPERATORS[name]
    torch.use_deterministic_algorithms(False)
    torch.library.opcheck(getattr(torch.ops.dcrnn_fast, name).default, (), made(**common, dtype=dtype))


@on_both
def test_a_derivative_is_refused_in_words(name):
    made, _, common = OPERATORS[name]
    arguments = made(**common)
    floating = {"features": "table", "towers": "states"}[name]
    arguments[floating].requires_grad_()
    with pytest.raises(BackendUnavailable, match="for inference and have no derivative"):
        call(name, arguments)[0].sum().backward()


NAN = float("nan")


def in_a_row(arguments, **changes):
    return {"row": torch.zeros(7 * 4, dtype=arguments["table"].dtype), "places": torch.arange(5), **changes}


FEATURES = {
    "a negative id": (lambda a: {"ids": a["ids"].index_fill(1, torch.tensor([1]), -1)}, "ids: got -1 in row 0, column 1"),
    "an id one too large": (lambda a: {"ids": torch.where(torch.arange(3) == 2, a["sizes"], a["ids"])}, "ids: got . in row 0, column 2"),
    "an id beyond 32 bits": (lambda a: {"ids": a["ids"] + 2**40}, "ids: got 1099511627"),
    "ids of other fields": (lambda a: {"ids": a["ids"][:, :2]}, r"sizes: got shape \[3\], expected \[2\]"),
    "ids without memory": (lambda a: {"ids": freed(a["ids"])}, "ids: got shape .* storage of 0 bytes"),
    "a table of integers": (lambda a: {"table": a["table"].int()}, "table: got dtype torch.int32, expected a floating dtype"),
    "a table that is too short": (
        lambda a: {"table": a["table"][:-1], "first_order": a["first_order"][:-1]}, "sizes, offsets: got .* ids from row",
    ),
    "a negative offset": (lambda a: {"offsets": a["offsets"] - 1}, "sizes, offsets: got"),
    "an offset that wraps around": (lambda a: {"offsets": a["offsets"] + (2**63 - 9)}, "sizes, offsets: got"),
    "numbers in part": (lambda a: {"lower": None}, "dense, lower, scale, weight, bias: got some of them"),
    "numbers of other rows": (lambda a: {"dense": a["dense"][:3]}, r"dense: got shape \[3, 2\]"),
    "a number that is NaN": (lambda a: {"dense": a["dense"].index_fill(1, torch.tensor([1]), NAN)}, "dense: got NaN or infinity"),
    "a row without places": (lambda a: {"row": a["table"].flatten()}, "row, places: got one of them"),
    "a place behind the row": (lambda a: in_a_row(a, places=torch.arange(5) + 3), r"places: got 7, expected a place in \[0, 7\)"),
    "a row of parts of blocks": (lambda a: in_a_row(a, row=torch.zeros(27).double()), "row: got 27 values, expected a multiple"),
    "a term without the numbers' part": (lambda a: {"first_order_weight": None}, "first_order_weight: expected one with numbers"),
    "a term of more tasks": (lambda a: {"first_order": a["first_order"].repeat(1, 2)}, "first_order_weight: got shape"),
    "a numbers' part without memory": (
        lambda a: {"first_order_weight": freed(a["first_order_weight"])}, "first_order_weight: got shape .* storage of 0 bytes",
    ),
}  # fmt: skip
TOWERS = {
    "integer states": (lambda a: {"states": a["states"].int()}, "states: got dtype torch.int32, expected a floating dtype"),
    "flat states": (lambda a: {"states": a["states"][0]}, r"states: got shape \[4, 5\]"),
    "states of another width": (lambda a: {"states": a["states"][..., 1:]}, r"packed: got shape"),
    "states of other tasks": (lambda a: {"states": a["states"][:1]}, r"packed: got shape \[2, 737\], expected \[1, 737\]"),
    "states without memory": (lambda a: {"states": freed(a["states"])}, "states: got shape .* storage of 0 bytes"),
    "a width that is no multiple of 16": (lambda a: {"widths": a["widths"] + 1}, "widths: got 33, expected multiples of 16"),
    "widths that wrap around": (lambda a: {"widths": a["widths"] * 0 + 2**62}, "widths: got 4611686018427387904, expected"),
    "widths whose product wraps around": (lambda a: {"widths": a["widths"] * 0 + 2**30}, "widths: got layers of more than"),
    "more layers than any use": (lambda a: {"widths": a["widths"][:1].expand(1025)}, "widths: got 1025 layers"),
    "a term of other tasks": (lambda a: {"term": a["term"][:, 1:]}, r"term: got shape \[4, 1\]"),
    "a term in 32 bits": (lambda a: {"term": a["term"].float()}, "term: got dtype .*, expected torch.float64"),
    "a term without memory": (lambda a: {"term": freed(a["term"])}, "term: got shape .* storage of 0 bytes"),
}  # fmt: skip
HOSTILE = [("features", case, *call) for case, call in FEATURES.items()] + [("towers", case, *call) for case, call in TOWERS.items()]


@pytest.mark.parametrize(("name", "change", "message"), [pytest.param(n, c, m, id=f"{n}, {case}") for n, case, c, m in HOSTILE])
def test_an_argument_that_does_not_fit_is_refused_by_name(name, change, message):
    arguments = OPERATORS[name][0]()
    with pytest.raises(REFUSED, match=message):
        call(name, {**arguments, **change(arguments)})
