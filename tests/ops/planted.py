"""Candidates for ``auto`` that are right, wrong, slow or failing, on the CPU."""

from unittest import mock

import torch

from dcrnn_fast import reference
from dcrnn_fast.ops import auto
from tests.operators.problems import cross_arguments


def problem(needs=(True,) * 5, **sizes):
    arguments = cross_arguments(batch=40, dim=8, dtype=torch.float32, **sizes)
    names = ("x0", "shared_weight", "shared_bias", "private_weight", "private_bias")
    return auto.Problem([arguments[name] for name in names], [0, None, None, None, None], needs, "float32"), arguments["index"]


class Planted:
    """Candidates that record which of them ran, and a timer that gives each its time."""

    def __init__(self, index, **times):
        self.index, self.times, self.timed = index, {"reference": 1.0, **times}, []
        self.ran = None

    def plain(self, *tensors):
        return reference.cross_rnn(*tensors, self.index, steps=3)

    def of(self, name, change=lambda run, tensors: run(*tensors)):
        def run(*tensors):
            self.ran = name
            return change(self.plain, tensors)

        return run

    def measure(self, candidates, problem):
        """What ``auto`` takes of the reference and these."""
        with mock.patch.object(auto, "timer_of", lambda call, device: lambda: self.timer(call)):
            return auto.measure({"reference": self.of("reference"), **candidates}, problem)

    def timer(self, call):
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
