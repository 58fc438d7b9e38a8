"""Whether repeated launches are those that Triton prepares; run as a module, in a process without the interpreter."""

import pytest
import torch

from bench.measures.fake_gpu import FakeGpu
from dcrnn_fast.kernels import low_rank_tiles, replay, tile_choice, tile_table
from dcrnn_fast.ops import triton  # noqa: F401  registers the operators
from dcrnn_fast.ops.cross_rnn import Arguments, Keep, Needs, out_shape
from dcrnn_fast.ops.low_rank_cross_rnn import Arguments as LowRankArguments
from tests.operators.problems import cross_arguments

GPU = FakeGpu().install()
replay.DEVICE = "cpu"
CASES = {
    "step": {},
    "all_steps": {"schedule": "all_steps"},
    "with a context": {"context_dim": 16},
    "untied": {"tied": False},
    "every state": {"return_states": True},
    "every state, all_steps": {"return_states": True, "schedule": "all_steps"},
    "states alone are kept": {"keep": Keep.STATES},
    "one step": {"steps": 1},
    "low rank": {"rank": 16},
    "low rank, untied with a context": {"rank": 16, "tied": False, "context_dim": 16},
}
SMALL = dict.fromkeys((*tile_table.KERNELS, *low_rank_tiles.KERNELS), tile_table.Config(16, 16, 16, 4, 1))
"""Tiles that are compiled soonest."""


def operator(name, *arguments):
    """Call an operator as the eager path of dcrnn_fast/ops/autograd.py does."""
    repeated = replay.repeat(name, arguments)
    return getattr(torch.ops.dcrnn_fast_triton, name)(*arguments) if repeated is None else repeated()


def call(arguments, return_states=False, keep=Keep.BOTH):
    """Call a forward and its backward, and return the launches, with names for the addresses of the tensors that outlive both.

    The others may lie where one lay that is no longer read.
    """
    rank = "projection_index" in arguments
    a = (LowRankArguments if rank else Arguments)(**arguments, return_states=return_states, keep=bool(keep) if rank else int(keep))
    needs = int(Needs.X0 | Needs.BANKS | (Needs.PROJECTIONS if rank else 0) | (0 if a.context is None else Needs.CONTEXT))
    grad = a.x0.new_zeros(out_shape(a))
    GPU.launches.clear()
    GPU.noting = True
    out, *kept = operator(a.operator(), *a)
    if return_states and not rank:
        kept[0] = out[:, 1 : a.steps]
    gradients = operator(f"{a.operator()}_backward", grad, *kept, needs, *a[:-1])
    GPU.noting = False
    named = {**arguments, "out": out, "grad": grad}
    named |= {f"kept {place}": tensor for place, tensor in enumerate(kept)}
    names = {value.data_ptr(): name for name, value in named.items() if isinstance(value, torch.Tensor) and value.numel()}

    def word(value):
        value = value.data_ptr() if isinstance(value, torch.Tensor) else value
        return names.get(value, "made on the way") if isinstance(value, int) and value > 2**32 else value

    shapes = [tuple(tensor.shape) for tensor in (out, *kept, *gradients)]
    return [(one.kernel, one.grid, tuple(map(word, one.arguments))) for one in GPU.launches], shapes


def copied(arguments):
    """The same values at other addresses."""
    return {name: value.clone() if isinstance(value, torch.Tensor) else value for name, value in arguments.items()}


def check(name, schedule="step", return_states=False, keep=Keep.BOTH, **sizes):
    """Compare a call that is prepared with one that is repeated, with other tensors."""
    replay._kinds.clear()
    given = cross_arguments(batch=32, dim=64, dtype=torch.bfloat16, **sizes)
    with tile_choice.kernel_override(schedule=schedule, **SMALL), torch.no_grad():
        prepared, noted = (call(given, return_states, keep) for _ in range(2))
        assert all(recordings()), f"{name}: was not recorded"
        repeated = call(copied(given), return_states, keep)
    assert len(recordings()) == 2, f"{name}: forward and backward were not repeated"
    assert noted == prepared, f"{name}: {noted} instead of {prepared}"
    assert repeated == prepared, f"{name}: {repeated} instead of {prepared}"
    print(f"{name}: {len(prepared[0])} launches repeated")  # noqa: T201


def recordings():
    """Of each kind of call its recording, if it has one."""
    return [kind.recording for kinds in replay._kinds.values() for kind in kinds]


def count(arguments, **options):
    """How many recordings there are after two forwards."""
    for _ in range(2):
        operator("cross_rnn", *Arguments(**arguments, **options))
    return sum(isinstance(recording, replay.Recording) for recording in recordings())


def check_what_is_prepared_again():
    """Each change makes a recording of its own, or none."""
    replay._kinds.clear()
    first = cross_arguments(batch=32, dim=64, dtype=torch.bfloat16)
    with tile_choice.kernel_override(schedule="step", **SMALL), torch.no_grad():
        counts = [count(first), count(copied(first))]
        counts.append(count({**first, "x0": first["x0"][:16]}))  # another batch
        counts.append(count(first, return_states=True))
        between = torch.empty(32 * 64 + 1, dtype=torch.bfloat16)[1:].view(32, 64)  # not aligned to 16 bytes
        counts.append(count({**first, "x0": between}))
        across = torch.empty(64, 32, dtype=torch.bfloat16).mT
        counts.append(count({**first, "x0": across}))  # is copied
    with tile_choice.kernel_override(schedule="all_steps", **SMALL), torch.no_grad():
        counts.append(count(first))
        assert counts == [1, 1, 2, 3, 4, 5, 6], counts
        freed = first["x0"].clone()
        freed.untyped_storage().resize_(0)
        with pytest.raises(ValueError, match=r"was its storage freed\?"):
            count({**first, "x0": freed})
        sparse = {**first, "shared_weight": first["shared_weight"].flatten(1).to_sparse_csr()}
        with pytest.raises(ValueError, match="shared_weight: got a tensor of layout"):
            count(sparse)
        square = cross_arguments(batch=2, dim=2, share_ratio=1, dtype=torch.bfloat16)  # x0 has the shape of the shared biases
        square["x0"] = square["shared_bias"]
        assert count(square) == counts[-1], "one tensor in two places was recorded"
    print("every change is prepared again")  # noqa: T201


if __name__ == "__main__":
    for name, case in CASES.items():
        check(name, **case)
    check_what_is_prepared_again()
