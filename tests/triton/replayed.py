"""Whether repeated launches are those that Triton prepares; run as a module, in a process without the interpreter."""

import pytest
import torch

from bench.measures.fake_gpu import FakeGpu
from dcrnn_fast.kernels import launches, low_rank_tiles, tile_choice, tile_table
from dcrnn_fast.ops import triton  # noqa: F401  registers the operators
from dcrnn_fast.ops.cross_rnn import Arguments, Keep, Needs
from dcrnn_fast.ops.low_rank_cross_rnn import Arguments as LowRankArguments
from tests.operators.problems import cross_arguments

GPU = FakeGpu().install()
launches.replay.DEVICE = "cpu"
CASES = {
    "step": {},
    "all_steps": {"schedule": "all_steps"},
    "with a context": {"context_dim": 16},
    "untied": {"tied": False},
    "every state": {"return_states": True},
    "every state, all_steps, kept": {"return_states": True, "schedule": "all_steps", "keep": Keep.BOTH},
    "kept for the backward": {"keep": Keep.BOTH},
    "states alone": {"keep": Keep.STATES},
    "one step": {"steps": 1},
}


def forward(arguments, **options):
    """The launches of a call, with the tensors' addresses in the words of their names."""
    names = ("x0", "shared_weight", "shared_bias", "private_weight", "private_bias", "index")
    GPU.launches.clear()
    GPU.noting = True
    made = set()
    new_empty = torch.Tensor.new_empty

    def noted(*given, **options):
        tensor = new_empty(*given, **options)
        made.add(tensor.data_ptr())
        return tensor

    torch.Tensor.new_empty = noted
    out = torch.ops.dcrnn_fast_triton.cross_rnn(*Arguments(**arguments, **options))
    GPU.noting = False
    torch.Tensor.new_empty = new_empty
    known = {name: arguments[name] for name in (*names, "context")}
    known |= dict(zip(("out", "states", "activations"), out, strict=True))
    words = {tensor.data_ptr(): name for name, tensor in known.items() if tensor is not None and tensor.numel()}

    scratch = {address: "scratch" for address in made}

    def word(value):
        value = value.data_ptr() if isinstance(value, torch.Tensor) else value
        return {**scratch, **words}.get(value, value)

    return [(one.kernel, one.grid, tuple(map(word, one.arguments))) for one in GPU.launches], [list(one.shape) for one in out]


def check(name, schedule="step", batch=32, return_states=False, keep=0, **sizes):
    """Compare a call that is prepared with one that is repeated, with another x0 at another address."""
    options = {"return_states": return_states, "keep": int(keep)}
    first = cross_arguments(batch=batch, dim=64, dtype=torch.bfloat16, **sizes)
    with tile_choice.kernel_override(schedule=schedule), torch.no_grad():
        prepared = forward(first, **options)
        made = len(launches.replay._recordings)
        again = {**first, "x0": first["x0"].clone(), "context": None if first["context"] is None else first["context"].clone()}
        repeated = forward(again, **options)
        assert made, f"{name}: nothing was recorded"
        assert len(launches.replay._recordings) == made, f"{name}: was prepared again"
        assert repeated == prepared, f"{name}: {repeated} instead of {prepared}"
        launches.replay._recordings.clear()
    print(f"{name}: {len(prepared[0])} launches repeated")  # noqa: T201


def count(arguments, **options):
    """How many recordings there are after a call."""
    forward(arguments, **options)
    return len(launches.replay._recordings)


def addressed(value):
    return value.data_ptr() if isinstance(value, torch.Tensor) else value


def check_launches(name, run):
    """Each launch has its own arguments, when Triton prepares it and when it is repeated with what was compiled."""
    wanted, launch = [], launches.replay.launch

    def noted(kernel, grid, **arguments):
        wanted.append((kernel.__name__, (*grid, 1, 1)[:3], tuple(addressed(arguments[name]) for name in kernel.arg_names)))
        launch(kernel, grid, **arguments)

    launches.replay._compiled.clear()
    launches.replay.launch = noted
    for turn in ("prepared", "repeated"):
        before = len(launches.replay._compiled)
        GPU.launches.clear()
        wanted.clear()
        GPU.noting = True
        run()
        GPU.noting = False
        found = [(one.kernel, one.grid, tuple(map(addressed, one.arguments))) for one in GPU.launches]
        assert found == wanted, f"{name}, {turn}: {found} instead of {wanted}"
        assert len(launches.replay._compiled) == before or turn == "prepared", f"{name}: was compiled again"
        assert launches.replay._compiled
    launches.replay.launch = launch
    print(f"{name}: {len(wanted)} launches")  # noqa: T201


def check_gradients():
    """The launches of a forward with its backward, of both cells."""
    operators = torch.ops.dcrnn_fast_triton
    for name, rank in (("full", None), ("low rank", 16)):
        given = cross_arguments(batch=32, dim=64, rank=rank, dtype=torch.bfloat16)
        kind, keep = (Arguments, {"keep": int(Keep.BOTH)}) if rank is None else (LowRankArguments, {"keep": True})
        call = kind(**given, **keep)
        needs = int(Needs.X0 | Needs.BANKS | (Needs.PROJECTIONS if rank else 0))

        def run(call=call, needs=needs):
            operator = call.operator
            out, *kept = getattr(operators, operator)(*call)
            getattr(operators, f"{operator}_backward")(torch.zeros_like(out), *kept, needs, *call[:-1])
            launches.replay._recordings.clear()  # the forward's launches are repeated one by one

        tiles = low_rank_tiles.KERNELS if rank else tile_table.KERNELS
        small = dict.fromkeys(tiles, tile_table.Config(16, 16, 16, 4, 1))  # is compiled soonest
        with torch.no_grad(), tile_choice.kernel_override(**small):
            check_launches(name, run)


def check_what_is_prepared_again():
    """Each change makes a recording of its own, or none."""
    first = cross_arguments(batch=32, dim=64, dtype=torch.bfloat16)
    with tile_choice.kernel_override(schedule="step"), torch.no_grad():
        counts = [count(first), count(first)]
        counts.append(count({**first, "x0": first["x0"][:16]}))  # another batch
        counts.append(count({**first, "shared_weight": first["shared_weight"].clone()}))  # another address
        counts.append(count(first, return_states=True))
        between = torch.empty(32 * 64 + 1, dtype=torch.bfloat16)[1:].view(32, 64)  # not aligned to 16 bytes
        counts.append(count({**first, "x0": between}))
        across = torch.empty(64, 32, dtype=torch.bfloat16).mT
        counts.append(count({**first, "x0": across}))  # copied, so its address is not the argument's
        with tile_choice.kernel_override(schedule="all_steps"):
            counts.append(count(first))
    assert counts == [1, 1, 2, 3, 4, 5, 5, 6], counts
    freed = first["x0"].clone()
    forward({**first, "x0": freed})
    freed.untyped_storage().resize_(0)
    sparse = {**first, "shared_weight": first["shared_weight"].flatten(1).to_sparse_csr()}
    with pytest.raises(ValueError, match="shared_weight: got a tensor of layout"):
        forward(sparse)
    square = cross_arguments(batch=2, dim=2, share_ratio=1, dtype=torch.bfloat16)  # x0 has the shape of the shared biases
    square["x0"] = square["shared_bias"]
    before = len(launches.replay._recordings)
    assert count(square) == before, "one tensor in two places was recorded"
    with pytest.raises(ValueError, match=r"was its storage freed\?"):
        forward({**first, "x0": freed})
    print("every change is prepared again")  # noqa: T201


if __name__ == "__main__":
    for name, case in CASES.items():
        check(name, **case)
    check_gradients()
    check_what_is_prepared_again()
