"""A forward of the same weights and sizes repeats the launches of the one before, with its own tensors."""

import os
import subprocess
import sys

import pytest
import torch

from dcrnn_fast.ops import backends

pytest.importorskip("triton")
pytestmark = pytest.mark.skipif(torch.cuda.is_available() and backends.REASONS["triton"] is not None, reason="no Triton kernels here")


def test_a_repeated_forward_launches_what_a_prepared_one_does():
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    command = [sys.executable, "-m", "tests.triton.replayed"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.splitlines()[-1] == "every change is prepared again"
