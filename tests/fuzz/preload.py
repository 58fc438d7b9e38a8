"""What the processes of the hostile fuzzer have imported when they start. The server that tests fork processes from imports this module."""

import os

import torch
import torch._dynamo

from dcrnn_fast.ops import backends

from . import calls

if os.environ.get("TRITON_INTERPRET") == "1" and backends.REASONS["triton"] is None:
    from ..interpreter import hasten

    hasten()
torch.set_num_threads(1)
calls.operators()
torch.func.jvp(torch.sin, (torch.ones(1),), (torch.ones(1),))  # its first call takes a second
