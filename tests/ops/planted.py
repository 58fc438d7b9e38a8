"""Candidates for ``auto`` that are right, wrong, slow or failing, on the CPU."""

from unittest import mock

import torch

from dcrnn_fast import reference
from dcrnn_fast.ops import auto
from dcrnn_fast.ops.cross_rnn import INPUTS
from tests.operators.problems import cross_arguments


def call_of(needs=(True,) * 5):
    """A call that ``auto`` can measure, without a context."""
    arguments = cross_arguments(batch=40, dim=8, dtype=torch.float32)
    return auto.Call([arguments[name] for name in INPUTS[:5]], [0, None, None, None, None], needs, "float32")


def right(run, tensors):
    return run(*tensors)


class Planted:
    """The reference and a candidate, which record which of them ran, and a timer that gives each its time."""

    def __init__(self, seconds, change=right):
        self.times, self.timed, self.ran = {"reference": 1.0, "candidate": seconds}, [], None
        self.runs = {"reference": self._of("reference", right), "candidate": self._of("candidate", change)}
        self.clock = mock.patch.object(auto, "timer_of", lambda call, device: lambda: self._timer(call))

    def _of(self, name, change):
        def run(*tensors):
            self.ran = name
            return change(lambda *given: reference.cross_rnn(*given, steps=3), tensors)

        return run

    def _timer(self, call):
        call()
        self.timed.append(self.ran)
        return self.times[self.ran]


def wrong_output(run, tensors):
    return run(*tensors) * 1.001


def wrong_gradients_alone(run, tensors):
    out = run(*tensors)
    return out + (tensors[0] - tensors[0].detach()).sum() * 1e-2


def not_a_number(run, tensors):
    return run(*tensors) * float("nan")


def crashing(run, tensors):
    raise RuntimeError("planted\nand a second line")


def out_of_memory(run, tensors):
    raise torch.OutOfMemoryError("planted")


def another_shape(run, tensors):
    return run(*tensors)[:1]
