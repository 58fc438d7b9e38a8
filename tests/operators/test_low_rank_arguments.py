"""A projection that does not fit: refused by name by the public function, and by the operators themselves."""

import pytest
import torch

from dcrnn_fast import functional
from dcrnn_fast.ops.registry import Needs

from .backend import on, on_every_backend, on_kernels
from .problems import REFUSED, cross_arguments, freed

CASES = {
    "no shared rows": (lambda a: {"shared_projection": None}, ValueError, "shared_projection: got None, expected a tensor: a projection"),
    "no index of rows": (lambda a: {"projection_index": None}, ValueError, "projection_index: got None"),
    "rows as a list": (lambda a: {"private_projection": []}, TypeError, "private_projection: got list"),
    "rows of another width": (
        lambda a: {"shared_projection": a["shared_projection"][..., :4], "private_projection": a["private_projection"][..., :4]},
        ValueError, r"shared_projection: got shape \[2, 2, 4\], expected \[M, 2, 5\]",
    ),
    "private rows of another width": (
        lambda a: {"private_projection": a["private_projection"][..., :4]}, ValueError, "private_projection: got shape",
    ),
    "rows of another dtype": (
        lambda a: {"shared_projection": a["shared_projection"].float()}, TypeError, "shared_projection: got dtype torch.float32, expected",
    ),
    "an int64 index": (
        lambda a: {"projection_index": a["projection_index"].long()}, TypeError, "projection_index: got dtype torch.int64",
    ),
    "an index beyond the rows": (
        lambda a: {"projection_index": a["projection_index"] + 4}, IndexError, r"projection_index: got \d+, expected values in",
    ),
    "a negative index": (lambda a: {"projection_index": a["projection_index"] - 4}, IndexError, r"projection_index: got -\d+"),
    "an index of no rows": (lambda a: {"projection_index": a["projection_index"][:, :0]}, ValueError, "projection_index: got 0 rows"),
    "an index of another number of tasks": (
        lambda a: {"projection_index": a["projection_index"][:1], "private_projection": a["private_projection"][:1]},
        ValueError, "projection_index: got 1 tasks, expected 2",
    ),
    "an index on another device": (
        lambda a: {"projection_index": a["projection_index"].to("meta")}, ValueError, "projection_index: got device meta",
    ),
    "rows without memory": (
        lambda a: {"shared_projection": freed(a["shared_projection"])}, ValueError, "shared_projection: .* in a storage of 0 bytes",
    ),
    "weights of the full cell": (
        lambda a: {"shared_weight": a["shared_weight"].repeat(1, 1, 2)}, ValueError, "_weight: got shape",
    ),
    "a projection of another rank": (
        lambda a: {"projection_index": a["projection_index"][:, :3]}, ValueError, r"shared_weight: got shape .* expected \[S, 2, 3\]",
    ),
}  # fmt: skip


@on_every_backend
@pytest.mark.parametrize(("change", "error", "message"), CASES.values(), ids=CASES)
def test_a_projection_that_does_not_fit_is_refused_by_name(backend, change, error, message):
    arguments = backend.of(cross_arguments(rank=4, projection_share_ratio=0.5))
    with pytest.raises(error, match=message) as caught:
        backend.cross_rnn(**{**arguments, **change(arguments)})
    assert type(caught.value) is error


def test_rows_of_an_untied_projection_are_a_rank_for_each_step():
    arguments = cross_arguments(rank=4, tied=False)
    with pytest.raises(ValueError, match=r"projection_index: got 10 rows a task, expected 3 \* r"):
        functional.cross_rnn(**{**arguments, "projection_index": arguments["projection_index"][:, :10]})


WRONG = {
    name: change
    for name, (change, error, _) in CASES.items()
    if error is not IndexError and name != "rows as a list"  # a list is no argument of an operator
}


@on_kernels
@pytest.mark.parametrize("change", WRONG.values(), ids=WRONG)
def test_an_operator_checks_its_projection_itself(backend, change):
    arguments = backend.of(cross_arguments(rank=4, projection_share_ratio=0.5))
    with pytest.raises(REFUSED, match=r"projection|weight"):
        backend.forward(backend.operands({**arguments, **change(arguments)}))


@on_kernels
def test_the_backward_of_a_low_rank_refuses_needs_that_it_cannot_meet(backend):
    call = backend.operands(backend.of(cross_arguments(rank=3)))
    kept = backend.forward(call)
    for needs, message in ((Needs.CONTEXT, "context"), (256, "needs: got 256"), (-1, "needs: got -1")):
        with pytest.raises(REFUSED, match=message):
            backend.backward(call, *kept, needs=needs)


@on_kernels
def test_the_backward_of_a_low_rank_checks_what_the_forward_gave_it(backend):
    arguments = backend.of(cross_arguments(rank=3))
    call = backend.operands(arguments)
    out, activations = backend.forward(call)
    for change, message in (
        ((out, activations[..., :2]), "activations: got shape"),
        ((out, activations.mT), "activations: got shape"),
        ((out[..., :2], activations), "grad: got shape"),
    ):
        with pytest.raises(REFUSED, match=message):
            backend.backward(call, *change, needs=Needs.X0)


@on("cpp")
def test_the_compiled_operator_reads_the_index_of_a_projection_on_a_cpu(backend):
    arguments = cross_arguments(rank=4)
    for stray in (4, 2**31 - 1, -1):
        index = arguments["projection_index"].index_fill(1, torch.tensor([2]), stray)
        with pytest.raises(REFUSED, match=f"projection_index: got {stray}"):
            backend.forward(backend.operands({**arguments, "projection_index": index}))
