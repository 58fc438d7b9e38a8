"""What a run imports only when it needs it: for a process that imports everything before it forks others."""

import matplotlib.figure  # noqa: F401
import sklearn.metrics  # noqa: F401
import torch._dynamo
import torch.utils.tensorboard  # noqa: F401
