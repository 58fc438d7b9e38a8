"""What the kernels offer to the operators: functions from PyTorch tensors to PyTorch tensors that launch them."""

from .cross_rnn_backward_launch import backward
from .cross_rnn_forward_launch import forward
from .cross_rnn_problem import Problem
from .low_rank_launch import LowRankProblem, low_rank_cross_rnn, low_rank_cross_rnn_backward
from .param_gather_launch import gather, readers_of, sum_rows

__all__ = [
    "LowRankProblem",
    "Problem",
    "backward",
    "forward",
    "gather",
    "low_rank_cross_rnn",
    "low_rank_cross_rnn_backward",
    "readers_of",
    "sum_rows",
]
