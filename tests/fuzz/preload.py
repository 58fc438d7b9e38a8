"""What the processes of the hostile fuzzer have imported when they start. The server that they are forked from imports this module."""

import torch

from . import calls

torch.set_num_threads(1)
calls.operators()
torch.func.jvp(torch.sin, (torch.ones(1),), (torch.ones(1),))  # its first call takes a second
