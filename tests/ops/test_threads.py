"""The C++ kernels called from several threads at once, and in a forked child, as data loaders and servers do."""

from concurrent.futures import ThreadPoolExecutor

import torch

from dcrnn_fast import functional

from ..operators.backend import on
from ..operators.problems import cross_arguments, differentiable
from ..processes import run_python

pytestmark = on("cpp")


def outputs_and_gradients(seed):
    arguments = cross_arguments(batch=70, dim=33, context_dim=2, dtype=torch.float32, seed=seed)
    inputs = differentiable(arguments)
    out = functional.cross_rnn(**arguments, backend="cpp")
    return [out.detach(), *torch.autograd.grad(out.sum(), list(inputs.values()))]


def test_threads_that_call_at_once_get_the_bits_of_one_thread(backend):
    alone = [outputs_and_gradients(seed) for seed in range(4)]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(outputs_and_gradients, [0, 1, 2, 3] * 5))
    for i, found in enumerate(together):
        assert all(map(torch.equal, found, alone[i % 4])), f"call {i}, of the problem with seed {i % 4}"


FORK = """
import os
import torch
from dcrnn_fast import functional
from tests.operators.problems import cross_arguments

torch.set_num_threads(2)
arguments = cross_arguments(batch=2000, dim=64, dtype=torch.float32)
before = functional.cross_rnn(**arguments, backend="cpp")
child = os.fork()
if child == 0:
    torch.set_num_threads(1)  # as a DataLoader's worker does
    os._exit(0 if torch.equal(functional.cross_rnn(**arguments, backend="cpp"), before) else 3)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


def test_a_forked_child_computes_the_same_bits(backend):
    process = run_python("-c", FORK)
    assert process.stdout == "0\n", process.stderr


LITTLE_MEMORY = """
import resource
from dcrnn_fast import functional
from tests.operators.problems import cross_arguments
arguments = cross_arguments(batch=12, dim=400_000, rank=1, tasks=1, steps=2)
used = 4096 * int(open("/proc/self/statm").read().split()[0])
for megabytes in range(0, 1000, 20):
    resource.setrlimit(resource.RLIMIT_AS, (used + (megabytes << 20), -1))
    try:
        functional.cross_rnn(**arguments, backend="cpp")
    except RuntimeError as error:
        print(error)
    else:
        break
"""


def test_too_little_memory_is_told_wherever_it_ends(backend):
    """Before the threads divide the work, in one of them, and for the result."""
    done = run_python("-c", LITTLE_MEMORY, OMP_NUM_THREADS="2")
    told = done.stdout.splitlines()
    assert done.returncode == 0, done.stderr
    assert all("could not be allocated" in line for line in told), told
    assert len({line for line in told if "scratch memory" in line}) > 2, told
