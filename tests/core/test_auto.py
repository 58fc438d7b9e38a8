"""``auto`` where it measures: candidates are checked before they are timed, and the choice is remembered. Planted candidates on the CPU."""

import json
import logging
import multiprocessing
import threading
from dataclasses import replace

import pytest
import torch
from torch.utils.checkpoint import checkpoint
from torch.utils.flop_counter import FlopCounterMode

from dcrnn_fast import DCRNN, auto, functional, info, reference, tune
from dcrnn_fast.errors import ConfigError

from ..operators.problems import cross_arguments

CPU = torch.device("cpu")
MORE = ("tied", "return_states", "recompute")
KEY = auto.Key("cross_rnn", True, "float32", 8, 0, 2, 2, 3, 64, True, False, False)


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """An empty folder for the user's file, and a process that knows nothing."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv(auto.ENVIRONMENT, raising=False)
    monkeypatch.setitem(auto.REASONS, "candidate", None)
    auto.clear()
    yield tmp_path
    auto.clear()


def problem(training=True, **sizes):
    arguments = cross_arguments(batch=40, dim=8, dtype=torch.float32, **sizes)
    names = ("x0", "shared_weight", "shared_bias", "private_weight", "private_bias")
    return auto.Problem(tuple(arguments[name] for name in names), {0: 0}, training, "float32"), arguments["index"]


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


def measured(change=None, seconds=0.5, training=True):
    given, index = problem(training)
    planted = Planted(index, candidate=seconds)
    candidate = planted.of("candidate", *([change] if change else []))
    return auto.measure({"reference": planted.of("reference"), "candidate": candidate}, given, planted.timer), planted


def test_a_right_and_faster_candidate_is_taken():
    choice, _ = measured()
    assert choice == auto.Choice("candidate", 0.5, {}, lasting=True)


@pytest.mark.parametrize("seconds", [0.95, 1.0, 3.0])
def test_a_candidate_that_is_not_a_tenth_faster_is_not_taken(seconds):
    assert measured(seconds=seconds)[0].backend == "reference"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (wrong_output, "wrong: the relative error of the output"),
        (wrong_gradients_alone, "wrong: the relative error of gradient 0"),
        (not_a_number, "wrong: the relative error of the output is nan"),
        (another_shape, "wrong: the relative error of the output is inf"),
    ],
)
def test_a_wrong_candidate_is_refused_and_never_timed(change, said):
    choice, planted = measured(change)
    assert choice.backend == "reference"
    assert said in choice.refused["candidate"]
    assert choice.lasting
    assert planted.timed == []


def test_gradients_are_not_checked_where_none_are_asked_for():
    assert measured(wrong_gradients_alone, training=False)[0].backend == "candidate"


@pytest.mark.parametrize(("change", "said"), [(crashing, "RuntimeError: planted"), (out_of_memory, "OutOfMemoryError: planted")])
def test_a_candidate_that_raises_is_refused_for_this_process_alone(change, said):
    choice, _ = measured(change)
    assert (choice.backend, choice.refused, choice.lasting) == ("reference", {"candidate": said}, False)


def test_a_candidate_that_runs_out_of_memory_on_all_rows_is_refused_for_this_process_alone(monkeypatch):
    monkeypatch.setattr(auto, "CHECKED_ROWS", 8)

    def large(run, tensors):
        return out_of_memory(run, tensors) if len(tensors[0]) > 8 else run(*tensors)

    choice, _ = measured(large)
    assert (choice.backend, choice.refused, choice.lasting) == ("reference", {"candidate": "OutOfMemoryError on all rows"}, False)


@pytest.mark.parametrize("value", [torch.inf, torch.nan, 3e38, 0.0])
def test_nothing_is_chosen_by_results_that_are_not_finite_or_zero(value):
    given, index = problem()
    given.tensors[0].fill_(value)
    planted = Planted(index, candidate=0.1)
    choice = auto.measure({"reference": planted.of("reference"), "candidate": planted.of("candidate")}, given, planted.timer)
    assert (choice.backend, choice.lasting) == ("reference", False)


def test_a_measurement_touches_neither_the_callers_tensors_nor_the_random_state():
    given, index = problem()
    for tensor in given.tensors:
        tensor.requires_grad_()
    planted, before = Planted(index, candidate=0.5), torch.get_rng_state()
    auto.measure({"reference": planted.of("reference"), "candidate": planted.of("candidate")}, given, planted.timer)
    assert all(tensor.grad is None for tensor in given.tensors)
    assert torch.equal(before, torch.get_rng_state())


def ask(choice=None, key=KEY):
    """What ``auto`` takes, and how often it measured."""
    calls, given = [], problem()

    def candidates():
        calls.append(1)
        planted = Planted(given[1])
        return {"reference": planted.of("reference"), "candidate": planted.of("candidate", choice or (lambda run, tensors: run(*tensors)))}

    return auto.backend_for(key, CPU, candidates, lambda: given[0]), len(calls)


@pytest.fixture
def fast(monkeypatch):
    """A timer by which every candidate but the reference takes a tenth of its time."""
    times = iter([1.0, 0.1] * 1000)
    monkeypatch.setattr(auto, "timer_of", lambda device: lambda call: (call(), next(times))[1])


def test_a_size_is_measured_once(fast):
    assert ask() == ("candidate", 1)
    assert ask() == ("candidate", 0)
    assert ask(key=replace(KEY, rows=256))[1] == 1


def test_another_process_takes_what_was_kept_in_the_file(fast):
    ask()
    auto.clear()
    assert ask() == ("candidate", 0)


@pytest.mark.parametrize("change", [crashing, out_of_memory])
def test_what_raised_is_not_kept_in_the_file(fast, change):
    assert ask(change) == ("reference", 1)
    assert ask(change) == ("reference", 0)
    auto.clear()
    assert ask(change) == ("reference", 1)


def test_choices_of_other_versions_are_measured_again(fast, monkeypatch):
    ask()
    auto.clear()
    monkeypatch.setattr(auto, "versions", lambda: {"torch": "0.1"})
    assert ask() == ("candidate", 1)


@pytest.mark.parametrize("content", ["", "[]", '{"format": "dcrnn_fast auto 1"}', "\x00"])
def test_a_damaged_file_is_a_warning_and_is_replaced(fast, content, caplog):
    path = auto.user_file("cpu")
    path.parent.mkdir(parents=True)
    path.write_text(content)
    assert ask() == ("candidate", 1)
    assert f"{path} is no file of auto's choices" in caplog.text
    assert json.loads(path.read_text())["choices"][0]["backend"] == "candidate"


def test_cached_measures_nothing_and_static_reads_nothing(fast, monkeypatch):
    monkeypatch.setenv(auto.ENVIRONMENT, "cached")
    assert ask() == ("reference", 0)
    monkeypatch.setenv(auto.ENVIRONMENT, "measure")
    ask()
    monkeypatch.setenv(auto.ENVIRONMENT, "cached")
    assert ask() == ("candidate", 0)
    monkeypatch.setenv(auto.ENVIRONMENT, "static")
    assert ask() == ("reference", 0)


def test_an_unknown_mode_is_an_error_that_names_the_variable(monkeypatch):
    monkeypatch.setenv(auto.ENVIRONMENT, "always")
    with pytest.raises(ConfigError, match="DCRNN_FAST_AUTO='always': expected one of 'measure', 'cached', 'static'"):
        ask()


def test_one_line_says_what_was_chosen_and_what_was_refused(fast, caplog):
    caplog.set_level(logging.INFO, "dcrnn_fast")
    ask(wrong_output)
    assert len(caplog.records) == 1
    assert "auto takes reference, 1.00 of the reference's time; candidate refused: wrong" in caplog.text


def test_a_measurement_that_fails_is_a_warning_and_not_made_again(caplog):
    def broken():
        raise RuntimeError("planted")

    assert auto.backend_for(KEY, CPU, broken, lambda: None) == "reference"
    assert auto.backend_for(KEY, CPU, broken, lambda: None) == "reference"
    assert caplog.text.count("the measurement failed (RuntimeError: planted)") == 1


def test_a_second_thread_does_not_wait_for_a_measurement(fast):
    inside, go, found = threading.Event(), threading.Event(), []

    def slowly(run, tensors):
        inside.set()
        assert go.wait(60)
        return run(*tensors)

    first = threading.Thread(target=lambda: found.append(ask(slowly)))
    first.start()
    assert inside.wait(60)
    assert ask(key=replace(KEY, rows=256)) == ("reference", 0)
    go.set()
    first.join()
    assert found == [("candidate", 1)]


def _write(cache, first):
    import os

    os.environ["XDG_CACHE_HOME"] = cache
    for number in range(20):
        auto.remember("cpu", {replace(KEY, rows=first + number): auto.Choice("reference")})


def test_two_processes_that_write_at_once_lose_nothing(folder):
    context = multiprocessing.get_context("spawn")
    writers = [context.Process(target=_write, args=(str(folder), first)) for first in (0, 1000)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert {key.rows for key in auto.load(auto.user_file("cpu"), "cpu")} == {*range(20), *range(1000, 1020)}


def test_the_public_operator_takes_the_candidate_that_was_chosen(monkeypatch):
    """As on a GPU: the backends that can run on the device are the candidates."""
    monkeypatch.setattr(auto, "DEVICES", ("cpu",))
    taken = []
    monkeypatch.setattr(
        auto, "backend_for", lambda key, device, candidates, given: taken.append((key, sorted(candidates()))) or "reference"
    )
    arguments = cross_arguments(batch=40, dim=8, dtype=torch.float32, context_dim=3)
    functional.cross_rnn(**{**arguments, "x0": arguments["x0"].requires_grad_()})
    (key, names), *others = taken
    assert key == auto.Key("cross_rnn", True, "float32", 8, 3, 2, 2, 3, 64, True, False, False)
    assert "reference" in names
    assert not others
    functional.cross_rnn(**arguments, backend="reference")
    torch.func.vmap(lambda x0: functional.cross_rnn(**{**arguments, "x0": x0}))(arguments["x0"].detach().expand(2, -1, -1))
    assert len(taken) == 1, "a backend by name and a transform measure nothing"


def test_a_measured_call_gives_the_results_of_the_reference(monkeypatch):
    monkeypatch.setattr(auto, "DEVICES", ("cpu",))
    arguments = cross_arguments(batch=40, dim=8, dtype=torch.float32, context_dim=3)
    out = functional.cross_rnn(**arguments)
    torch.testing.assert_close(out, reference.cross_rnn(**arguments))
    assert auto.known("cpu")


def test_a_compiled_graph_measures_nothing_and_has_no_break(monkeypatch):
    monkeypatch.setattr(auto, "DEVICES", ("cpu",))
    arguments = cross_arguments(batch=40, dim=8, dtype=torch.float32)
    compiled = torch.compile(lambda x0: functional.cross_rnn(**{**arguments, "x0": x0}), backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(arguments["x0"]), reference.cross_rnn(**arguments))
    assert not auto.known("cpu")


@pytest.fixture
def model(monkeypatch):
    """A model on a device where ``auto`` measures."""
    monkeypatch.setattr(auto, "DEVICES", ("cpu",))
    return DCRNN({"item": 10}, tasks=("click", "consume"), dropout=0.5)


def test_tune_measures_training_and_inference_and_changes_nothing(model, monkeypatch):
    monkeypatch.setenv(auto.ENVIRONMENT, "static")
    ids, before, state = torch.zeros(70, 1, dtype=torch.int64), torch.get_rng_state(), model.state_dict()
    found = tune(model, ids)
    assert [(key.training, key.tasks, key.rows) for key in sorted(found)] == [(False, 2, 256), (True, 2, 256)]
    assert all(module.training for module in model.modules())
    assert all(parameter.grad is None for parameter in model.parameters())
    assert torch.equal(before, torch.get_rng_state())
    torch.testing.assert_close(model.state_dict(), state)
    header, *rows = str(found).splitlines()
    assert header.split() == ["operator", "training", "kind", "dim", "context", "gates", "tasks", "steps", "rows", *MORE, "choice"]
    assert len(rows) == 2


def test_tune_measures_in_a_group_of_several_ranks_and_a_call_does_not(model, monkeypatch):
    monkeypatch.setattr(auto, "_many_ranks", lambda: True)
    ids = torch.zeros(70, 1, dtype=torch.int64)
    model(ids)
    assert not auto.known("cpu")
    tune(model, ids)
    assert len(auto.known("cpu")) == 2


def test_info_says_what_was_measured(fast):
    assert "auto on GPU  measure; nothing measured yet" in info.render()
    ask()
    assert "auto on GPU  measure; cpu, 1 size measured with these versions, takes candidate" in info.render()


def test_info_survives_an_unknown_mode(monkeypatch):
    monkeypatch.setenv(auto.ENVIRONMENT, "always")
    assert "auto on GPU  none: DCRNN_FAST_AUTO='always'" in info.render()


def checkpointed(arguments):
    x0 = arguments["x0"].requires_grad_()
    checkpoint(lambda x0: functional.cross_rnn(**{**arguments, "x0": x0}), x0, use_reentrant=False).sum().backward()


def with_hooks(arguments):
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: tensor, lambda tensor: tensor):
        functional.cross_rnn(**arguments)


def counted(arguments):
    with FlopCounterMode(display=False):
        functional.cross_rnn(**arguments)


def traced(arguments):
    torch.jit.trace(lambda x0: functional.cross_rnn(**{**arguments, "x0": x0}), arguments["x0"], check_trace=False)


def without_rows(arguments):
    functional.cross_rnn(**{**arguments, "x0": arguments["x0"][:0].requires_grad_()})


def without_tasks(arguments):
    few = {name: arguments[name][:0] for name in ("private_weight", "private_bias", "index")}
    functional.cross_rnn(**{**arguments, **few, "x0": arguments["x0"].requires_grad_()})


@pytest.mark.parametrize("call", [checkpointed, with_hooks, counted, traced, without_rows, without_tasks], ids=lambda call: call.__name__)
def test_nothing_is_measured_where_somebody_would_see_it_or_there_is_nothing_to_see(call, monkeypatch, caplog):
    monkeypatch.setattr(auto, "DEVICES", ("cpu",))
    call(cross_arguments(batch=40, dim=8, dtype=torch.float32))
    assert not auto.known("cpu")
    assert not caplog.records


def test_a_candidate_that_is_wrong_beyond_the_checked_rows_is_refused(monkeypatch):
    monkeypatch.setattr(auto, "CHECKED_ROWS", 8)

    def wrong_later(run, tensors):
        out = run(*tensors)
        return out * 2 if len(tensors[0]) > 8 else out

    choice, _ = measured(wrong_later)
    assert choice.backend == "reference"
    assert "on all rows wrong" in choice.refused["candidate"]


def test_a_remembered_backend_that_cannot_run_here_is_not_taken(fast, monkeypatch):
    assert ask() == ("candidate", 1)
    auto.clear()
    monkeypatch.setitem(auto.REASONS, "candidate", "was not built")
    assert ask()[1] == 1
