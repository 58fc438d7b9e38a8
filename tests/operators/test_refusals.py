"""One table of arguments that do not fit: every backend answers each with the same exception, which names the argument."""

import pytest
import torch

from dcrnn_fast import functional, reference
from dcrnn_fast.ops.registry import Keep, Needs, override_by

from .backend import on, on_every_backend, on_kernels
from .problems import REFUSED, cross_arguments, freed


def every_float(arguments, change):
    return {name: change(v) for name, v in arguments.items() if isinstance(v, torch.Tensor) and name != "index"}


def cut(tensor):
    """The tensor in a storage that is one byte too short."""
    tensor = tensor.clone()
    tensor.untyped_storage().resize_(tensor.nbytes - 1)
    return tensor


CASES = {
    "steps below one": (lambda a: {"steps": 0}, ValueError, "steps=0"),
    "more steps than any use": (lambda a: {"steps": 65536}, ValueError, "steps=65536: expected at most 65535"),
    "steps whose product with D is 0 in 64 bits": (
        lambda a: {"steps": 2**62, "index": a["index"][:, :0]}, ValueError, "steps=4611686018427387904: expected at most",
    ),
    "a sparse x0": (lambda a: {"x0": a["x0"].to_sparse()}, ValueError, r"x0: got a tensor of layout torch\.sparse_coo, expected"),
    "x0 without memory": (lambda a: {"x0": freed(a["x0"])}, ValueError, r"x0: got shape \[4, 5\] in a storage of 0 bytes"),
    "a bias with too little memory": (
        lambda a: {"shared_bias": cut(a["shared_bias"])}, ValueError, r"shared_bias: got shape \[2, 2\] in a storage of 31 bytes",
    ),
    "a sparse index": (lambda a: {"index": a["index"].to_sparse()}, ValueError, r"index: got a tensor of layout torch\.sparse_coo"),
    "an unknown cell": (lambda a: {"cell": "gru"}, ValueError, "cell='gru'"),
    "one-dimensional x0": (lambda a: {"x0": a["x0"][0]}, ValueError, r"x0: got shape \[5\]"),
    "x0 without units": (lambda a: {"x0": a["x0"][:, :0]}, ValueError, r"x0: got shape \[4, 0\]"),
    "x0 of another width": (
        lambda a: {"x0": a["x0"][:, :4]}, ValueError, r"shared_weight: got shape \[2, 2, 5\], expected \[S, 2, 4\]",
    ),
    "x0 of another dtype": (
        lambda a: {"x0": a["x0"].float()}, TypeError, "shared_weight: got dtype torch.float64, expected torch.float32",
    ),
    "integers": (lambda a: every_float(a, torch.Tensor.int), TypeError, "shared_weight: got dtype torch.int32, expected a floating dtype"),
    "integers in a batch of no rows": (
        lambda a: {**every_float(a, torch.Tensor.int), "x0": a["x0"][:0].int()}, TypeError, r"shared_weight: got dtype torch\.int32",
    ),
    "gates of another cell": (lambda a: {"cell": "cross"}, ValueError, r"shared_weight: got shape \[2, 2, 5\], expected \[S, 1, 5\]"),
    "int64 index": (lambda a: {"index": a["index"].long()}, TypeError, "index: got dtype torch.int64, expected torch.int32"),
    "flat index": (lambda a: {"index": a["index"][0]}, ValueError, r"index: got shape \[5\]"),
    "rows for no number of steps": (lambda a: {"index": a["index"][:, :3]}, ValueError, "index: got 3 rows a task"),
    "index of another number of tasks": (lambda a: {"index": a["index"][:1]}, ValueError, "private_weight: got 2 tasks, expected 1"),
    "an index beyond the banks": (lambda a: {"index": a["index"] + 5}, IndexError, r"index: got \d+, expected values in .* \[0, 5\)"),
    "an index one beyond the banks": (
        lambda a: {"index": a["index"].index_fill(1, torch.tensor([2], device=a["index"].device), 5)}, IndexError, "index: got 5, expected",
    ),
    "a negative index": (lambda a: {"index": a["index"] - 5}, IndexError, r"index: got -\d+, expected"),
    "a bias of another length": (lambda a: {"shared_bias": a["shared_bias"][:1]}, ValueError, r"shared_bias: got shape \[1, 2\]"),
    "a private bias of another length": (
        lambda a: {"private_bias": a["private_bias"][:, :1]}, ValueError, r"private_bias: got shape",
    ),
    "private rows of another width": (
        lambda a: {"private_weight": a["private_weight"][..., :4]}, ValueError, "private_weight: got shape",
    ),
    "context for other steps": (lambda a: {"context": a["x0"].new_zeros(2, 4, 1)}, ValueError, r"context: got shape \[2, 4, 1\]"),
    "context that no row reads": (lambda a: {"context": a["x0"].new_zeros(3, 4, 1)}, ValueError, r"expected \[S, 2, 6\]"),
    "context of another dtype": (lambda a: {"context": a["x0"].half()[None]}, TypeError, "context: got dtype torch.float16"),
    "x0 as a list": (lambda a: {"x0": a["x0"].tolist()}, TypeError, "x0: got list, expected a tensor"),
    "no index": (lambda a: {"index": None}, TypeError, "index: got NoneType, expected a tensor"),
    "a bias as a list": (lambda a: {"private_bias": a["private_bias"].tolist()}, TypeError, "private_bias: got list, expected a tensor"),
    "a dtype of 8 bits": (
        lambda a: every_float(a, lambda v: v.to(torch.float8_e4m3fn)), TypeError, "shared_weight: got dtype torch.float8_e4m3fn",
    ),
    "a flag in words": (lambda a: {"return_states": "no"}, TypeError, "return_states='no': expected True or False"),
    "a weight on another device": (
        lambda a: {"shared_weight": a["shared_weight"].to("meta")}, ValueError, "shared_weight: got device meta",
    ),
    "a private weight on another device": (
        lambda a: {"private_weight": a["private_weight"].to("meta")}, ValueError, "private_weight: got device meta",
    ),
    "an index on another device": (lambda a: {"index": a["index"].to("meta")}, ValueError, "index: got device meta"),
}  # fmt: skip


@on_every_backend
@pytest.mark.parametrize(("change", "error", "message"), CASES.values(), ids=CASES)
def test_an_argument_that_does_not_fit_is_refused_by_name(backend, change, error, message):
    arguments = backend.of(cross_arguments())
    with pytest.raises(error, match=message) as caught:
        backend.cross_rnn(**{**arguments, **change(arguments)})
    assert type(caught.value) is error


GATHER_CASES = {
    "integer banks": (lambda s, p, i: (s.int(), p.int(), i), TypeError, r"shared: got dtype torch\.int32"),
    "int64 index": (lambda s, p, i: (s, p, i.long()), TypeError, "index: got dtype torch.int64, expected torch.int32"),
    "an index beyond the banks": (
        lambda s, p, i: (s, p, i + 7),
        IndexError,
        r"index: got \d+, expected values in \[0, S \+ P\) = \[0, 7\)",
    ),
    "an index one beyond the banks": (lambda s, p, i: (s, p, torch.full_like(i, 7)), IndexError, "index: got 7, expected"),
    "a negative index": (lambda s, p, i: (s, p, i - 7), IndexError, r"index: got -\d+"),
    "banks as lists": (lambda s, p, i: (s, p.tolist(), i), TypeError, "private: got list, expected a tensor"),
    "another number of tasks": (lambda s, p, i: (s, p[:1], i), ValueError, "private: got 1 tasks, expected 2"),
    "rows of another width": (lambda s, p, i: (s, p[..., :4], i), ValueError, r"private: got shape \[2, 4, 4\]"),
    "banks of two dtypes": (lambda s, p, i: (s, p.float(), i), TypeError, "private: got dtype torch.float32, expected torch.float64"),
}


@on_every_backend
@pytest.mark.parametrize(("change", "error", "message"), GATHER_CASES.values(), ids=GATHER_CASES)
def test_banks_that_do_not_fit_are_refused_by_name(backend, change, error, message):
    given = torch.randn(3, 5).double(), torch.randn(2, 4, 5).double(), torch.arange(14, dtype=torch.int32).view(2, 7) % 7
    with pytest.raises(error, match=message) as caught:
        backend.param_gather(*change(*(tensor.to(backend.device) for tensor in given)))
    assert type(caught.value) is error


@on_every_backend
def test_the_largest_row_number_is_the_tasks_own_last_row(backend):
    """The next one would be the next task's first, and is refused."""
    shared, private = torch.randn(2, 3, device=backend.device), torch.randn(2, 2, 3, device=backend.device)
    index = torch.full((2, 1), 3, dtype=torch.int32, device=backend.device)
    assert torch.equal(backend.param_gather(shared, private, index)[:, 0], private[:, 1])
    with pytest.raises(IndexError, match="index: got 4, expected"):
        backend.param_gather(shared, private, index + 1)


@on_every_backend
@pytest.mark.parametrize("return_states", [False, True])
def test_no_tasks_give_an_output_of_no_tasks(backend, return_states):
    arguments = backend.of(cross_arguments())
    for name in ("private_weight", "private_bias", "index"):
        arguments[name] = arguments[name][:0]
    assert backend.cross_rnn(**arguments, return_states=return_states).shape == ((0, 4, 4, 5) if return_states else (0, 4, 5))


WRONG = {
    "steps": (lambda a: {"steps": 0}, "steps"),
    "steps that overflow": (lambda a: {"steps": 2**62, "index": a["index"][:, :0]}, "steps"),
    "the largest steps": (lambda a: {"steps": 2**63 - 1}, "steps"),
    "cell": (lambda a: {"cell": "gru"}, "cell.*'gru'"),
    "index": (lambda a: {"index": a["index"][:, :4]}, "index: got"),
    "private_bias": (lambda a: {"private_bias": a["private_bias"][:, 1:]}, "private_bias: got shape"),
    "shared_weight": (lambda a: {"shared_weight": a["shared_weight"][..., 1:]}, "weight: got shape"),
    "context": (lambda a: {"context": a["context"][1:]}, "context: got shape"),
    "dtype": (lambda a: {"x0": a["x0"].float()}, "dtype"),
    "integers": (lambda a: every_float(a, torch.Tensor.int), "float"),
    "integers in a batch of no rows": (
        lambda a: {**every_float(a, torch.Tensor.int), "x0": a["x0"][:0].int(), "context": a["context"][:, :0].int()},
        "float",
    ),
    "an index on another device": (
        lambda a: {"index": a["index"].to("meta")},
        "index: got .*device",
    ),
    "x0 on another device": (lambda a: {"x0": a["x0"].to("meta")}, "device"),
    "x0 without memory": (lambda a: {"x0": freed(a["x0"])}, "x0: got shape .* in a storage of 0 bytes"),
    "an index without memory": (lambda a: {"index": freed(a["index"])}, "index: got shape .* in a storage of 0 bytes"),
    "a private weight without memory": (lambda a: {"private_weight": freed(a["private_weight"])}, "private_weight: .* storage of 0 bytes"),
}


@on_kernels
@pytest.mark.parametrize(("change", "message"), WRONG.values(), ids=WRONG)
def test_an_operator_checks_its_arguments_itself(backend, change, message):
    arguments = backend.of(cross_arguments(context_dim=2))
    with pytest.raises(REFUSED, match=message):
        backend.forward(backend.operands({**arguments, **change(arguments)}))


@on("cpp")
def test_the_compiled_operator_reads_the_index_on_a_cpu(backend):
    arguments = cross_arguments()
    for stray in (5, 2**31 - 1, -1):  # the banks have rows 0 to 4
        index = arguments["index"].index_fill(1, torch.tensor([2]), stray)
        with pytest.raises(REFUSED, match=f"index: got {stray}"):
            backend.forward(backend.operands({**arguments, "index": index}))
        with pytest.raises(REFUSED, match=f"index: got {stray}"):
            backend.operators.param_gather(arguments["shared_bias"], arguments["private_bias"], index)
    with pytest.raises(REFUSED, match="index: got"):
        backend.operators.param_gather_backward(torch.randn(2, 5, 3), arguments["index"], 1, 1)


@on_kernels
def test_the_backward_checks_what_the_forward_gave_it(backend):
    """Every size, not their product: a flat tensor of the right length is another layout of memory."""
    arguments = backend.of(cross_arguments())
    call = backend.operands(arguments)
    out, states, activations = backend.forward(call)
    for change, message in (
        ((out, states, activations[1:]), "activations: got shape"),
        ((out, states, activations.mT), "activations: got shape"),
        ((out, states, activations.flatten()), "activations: got shape"),
        ((out, states, activations.new_empty(())), "activations: got shape"),
        ((out, states, activations.transpose(2, 3).flatten(3)), "activations: got shape"),
        ((out, states, freed(activations)), "activations: got shape .* in a storage of 0 bytes"),
        ((out, states, activations.to("meta")), "device"),
        ((out, out, activations), "states: got shape"),
        ((out, out.new_empty(3, 0), activations), "states: got shape"),
        ((out[:, 1:], states, activations), "grad: got shape"),
        ((out.mT, states, activations), "grad: got shape"),
        ((out.transpose(0, 1), states, activations), "grad: got shape"),
        ((out.flatten(), states, activations), "grad: got shape"),
        ((freed(out), states, activations), "grad: got shape .* in a storage of 0 bytes"),
    ):
        with pytest.raises(REFUSED, match=message):
            backend.backward(call, *change, needs=Needs.X0 | Needs.BANKS)


@on_kernels
def test_the_backward_refuses_needs_that_it_cannot_meet(backend):
    arguments = backend.of(cross_arguments())
    call = backend.operands(arguments)
    kept = backend.forward(call)
    refused = (Needs.CONTEXT, "context"), (Needs.SHARED_PROJECTION, "needs: got 64"), (256, "needs: got 256"), (-1, "needs: got -1")
    for needs, message in refused:
        with pytest.raises(REFUSED, match=message):
            backend.backward(call, *kept, needs=needs)


@on_kernels
def test_the_gather_checks_its_arguments_itself(backend):
    shared, private, index = (tensor.to(backend.device) for tensor in (torch.randn(3, 5), torch.randn(2, 4, 5), torch.zeros(2, 9).int()))
    for given, message in (
        ((shared, private[:1], index), "private: got"),
        ((shared, private[..., :4], index), "private: got shape"),
        ((shared, private.double(), index), "dtype"),
        ((shared.int(), private.int(), index), "float"),
        ((shared, private, index.long()), "int32"),
        ((shared, private, index.to("meta")), "device"),
        ((shared, freed(private), index), "private: got shape .* in a storage of 0 bytes"),
        ((shared, private, freed(index)), "index: got shape .* in a storage of 0 bytes"),
    ):
        with pytest.raises(REFUSED, match=message):
            backend.operators.param_gather(*given)


@on_kernels
def test_the_gathers_backward_checks_its_arguments_itself(backend):
    grad, index = torch.randn(2, 9, 5, device=backend.device), torch.zeros(2, 9, dtype=torch.int32, device=backend.device)
    for given, message in (
        ((grad.flatten(), index, 3, 4), "grad: got shape"),
        ((grad, index.flatten(), 3, 4), "index|grad"),
        ((grad, index, -1, 4), "num_shared"),
        ((grad, index, 3, 2**31), "num_private"),
        ((grad, index, 2**62, 2**62), "num_shared"),
        ((grad, index.to("meta"), 3, 4), "device"),
        ((grad, freed(index), 3, 4), "index: got shape .* in a storage of 0 bytes"),
        ((freed(grad), index, 3, 4), "grad: got shape .* in a storage of 0 bytes"),
    ):
        with pytest.raises(REFUSED, match=message):
            backend.operators.param_gather_backward(*given)


@on("cpp", "cuda")
def test_a_compiled_operator_that_keeps_no_states_says_so(backend):
    with pytest.raises(REFUSED, match="keep: got 2, expected 0"):
        backend.forward(backend.operands(backend.of(cross_arguments()), keep=int(Keep.STATES)))


@on_every_backend
def test_a_choice_of_kernels_that_a_backend_does_not_have_is_refused(backend):
    with pytest.raises(ValueError, match="sideways"):
        backend.kernel_override(sideways="yes").__enter__()


@on("cuda")
def test_an_unknown_schedule_is_refused(backend):
    with pytest.raises(ValueError, match="schedule: got 'sideways', expected one of"):
        backend.kernel_override(schedule="sideways").__enter__()


def test_an_inner_override_of_cuda_kernels_adds_to_the_outer_one_and_ends_with_it():
    calls = []
    override = override_by(lambda **choices: calls.append(choices))
    with override(schedule="step"), override(tiles="small"):
        pass
    assert calls == [{"schedule": "step"}, {"schedule": "step", "tiles": "small"}, {"schedule": "step"}, {}]


def test_auto_computes_what_the_reference_computes():
    arguments = cross_arguments(context_dim=2, dtype=torch.float32)
    torch.testing.assert_close(functional.cross_rnn(**arguments), reference.cross_rnn(**arguments))
    banks = arguments["shared_weight"], arguments["private_weight"], arguments["index"]
    assert torch.equal(functional.param_gather(*banks), reference.param_gather(*banks))
