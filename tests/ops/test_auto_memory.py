"""What ``auto`` remembers: in a process, in the user's file, between processes; its modes, its log, and what ``info`` says of it."""

import importlib.util
import json
import logging
import multiprocessing
import threading
from dataclasses import replace

import pytest
import torch

from dcrnn_fast import info
from dcrnn_fast.errors import ConfigError
from dcrnn_fast.kernels import tile_file, tile_table
from dcrnn_fast.ops import auto
from dcrnn_fast.ops.auto import decision, memory
from tests.ops.planted import Planted, crashing, out_of_memory, problem, wrong_output

CPU = torch.device("cpu")
KEY = auto.Key("cross_rnn", "float32", ("x0",), (8, 0, 2, 2, 3, 1, 0, 0), 64)

pytestmark = pytest.mark.usefixtures("unmeasured")


def ask(choice=None, key=KEY):
    """What ``auto`` takes, and how often it measured."""
    calls, given = [], problem()

    def candidates():
        calls.append(1)
        planted = Planted(given[1])
        return {"reference": planted.of("reference"), "candidate": planted.of("candidate", choice or (lambda run, tensors: run(*tensors)))}

    return decision.backend_for(key, CPU, candidates, lambda: given[0]), len(calls)


@pytest.fixture
def fast(monkeypatch):
    """A timer by which every candidate but the reference takes a tenth of its time."""
    times = iter([1.0, 0.1] * 1000)
    monkeypatch.setattr(decision, "timer_of", lambda device: lambda call: (call(), next(times))[1])


def test_a_size_is_measured_once(fast):
    assert ask() == ("candidate", 1)
    assert ask() == ("candidate", 0)
    assert ask(key=KEY._replace(batch=256))[1] == 1


def test_another_process_takes_what_was_kept_in_the_file(fast):
    ask()
    memory.clear()
    assert ask() == ("candidate", 0)


@pytest.mark.parametrize("change", [crashing, out_of_memory])
def test_what_raised_is_not_kept_in_the_file(fast, change):
    assert ask(change) == ("reference", 1)
    assert ask(change) == ("reference", 0)
    memory.clear()
    assert ask(change) == ("reference", 1)


def test_choices_of_other_versions_are_measured_again(fast, monkeypatch):
    ask()
    memory.clear()
    monkeypatch.setattr(memory, "versions", lambda card: {"torch": "0.1"})
    assert ask() == ("candidate", 1)


def test_choices_of_other_kernels_are_measured_again(fast, monkeypatch):
    ask()
    memory.clear()
    monkeypatch.setattr(memory, "kernels_digest", lambda: "edited in place")
    assert ask() == ("candidate", 1)


def test_choices_with_other_tile_sizes_are_measured_again(fast):
    ask()
    path = tile_file.user_file("cpu")
    path.write_text("measured by another process")
    assert ask() == ("candidate", 0), "this process keeps its tile sizes"
    memory.clear()
    assert ask() == ("candidate", 1)
    memory.clear()
    assert ask() == ("candidate", 0)


def test_measuring_tile_sizes_makes_auto_measure_again(fast, monkeypatch):
    pytest.importorskip("triton", reason="measures the tile sizes of Triton kernels")
    from dcrnn_fast.ops import measure_tiles as tile_measuring

    class Problem:
        sizes = tile_table.Sizes("float32", 64, 8, 8, 2, 3, 2)

        def __init__(self, *sizes):
            pass

        def check(self, kernel, tile):
            pass

    monkeypatch.setattr(tile_table, "card_of", lambda device: replace(tile_table.NO_CARD, name="cpu"))
    monkeypatch.setattr(tile_measuring, "_Problem", Problem)
    ask()
    tile_measuring.tune(8, 2, 32, device="cpu", measure=lambda run: 1.0)
    assert ask() == ("candidate", 1)
    assert ask() == ("candidate", 0)


def test_a_thread_that_comes_while_another_reads_the_file_gets_the_choice_too(fast, monkeypatch):
    ask()
    memory.clear()
    load, found = memory.load, []

    def another_thread():
        monkeypatch.setattr(memory, "load", load)
        found.append(memory.recall("cpu", KEY))

    def slowly(path, card):
        thread = threading.Thread(target=another_thread)
        thread.start()
        thread.join()
        return load(path, card)

    monkeypatch.setattr(memory, "load", slowly)
    assert memory.recall("cpu", KEY).backend == "candidate"
    assert found[0] is not None, "the second thread missed the choices"


def test_the_digest_is_of_names_and_contents(tmp_path):
    one, other = tmp_path / "one.py", tmp_path / "other.py"
    one.write_text("a")
    other.write_text("b")
    before = memory.digest([one, other])
    assert memory.digest([other, one]) == before
    other.write_text("c")
    assert memory.digest([one, other]) != before
    assert memory.digest([one]) != memory.digest([one.rename(tmp_path / "renamed.py")])


def test_the_digest_holds_the_kernels_and_the_extensions(monkeypatch):
    seen = []
    monkeypatch.setattr(memory, "digest", lambda paths: seen.extend(path.name for path in paths) or "")
    memory.kernels_digest.__wrapped__()
    assert {"cross_rnn_forward.py", "tile_table.py", "triton.py", "cross_rnn.py"} <= set(seen)
    for name in ("_C", "_C_cuda"):
        assert any(file.startswith(f"{name}.") for file in seen) == (importlib.util.find_spec(f"dcrnn_fast.{name}") is not None)


@pytest.mark.parametrize("content", ["", "[]", '{"format": "dcrnn_fast auto 3"}', "\x00"])
def test_a_damaged_file_is_a_warning_and_is_replaced(fast, content, caplog):
    path = memory.user_file("cpu")
    path.parent.mkdir(parents=True)
    path.write_text(content)
    assert ask() == ("candidate", 1)
    assert f"{path} is no file of auto's choices" in caplog.text
    assert json.loads(path.read_text())["choices"][0]["backend"] == "candidate"


@pytest.mark.parametrize(
    "change",
    [
        {"operator": "other"},
        {"kind": "int8"},
        {"needs": ["context", "x0"]},
        {"needs": ["x1"]},
        {"sizes": {"dim": 8}},
        {"sizes": list(auto.SIZES["cross_rnn"])},
        {"sizes": {**dict(zip(auto.SIZES["cross_rnn"], KEY.sizes, strict=True)), "dim": 8.0}},
        {"batch": True},
        {"backend": 3},
        {"ratio": "fast"},
    ],
    ids=str,
)
def test_a_row_with_another_operator_name_or_type_is_refused(fast, change, caplog):
    ask()
    path = memory.user_file("cpu")
    content = json.loads(path.read_text())
    content["choices"][0] |= change
    path.write_text(json.dumps(content))
    memory.clear()
    assert ask() == ("candidate", 1)
    assert f"{path} is no file of auto's choices" in caplog.text


def test_a_user_without_a_home_folder_gets_a_warning_and_a_choice_for_this_process(fast, monkeypatch, caplog):
    def no_home():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(memory.tile_file, "cache_folder", no_home)
    assert ask() == ("candidate", 1)
    assert ask() == ("candidate", 0)
    assert "set XDG_CACHE_HOME" in caplog.text


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

    assert decision.backend_for(KEY, CPU, broken, lambda: None) == "reference"
    assert decision.backend_for(KEY, CPU, broken, lambda: None) == "reference"
    assert caplog.text.count("the measurement failed (RuntimeError: planted)") == 1


def test_a_call_that_shows_nothing_is_tried_again_but_not_for_ever(fast):
    zeros = problem()[0]
    zeros.tensors[0].zero_()

    def measured(given):
        calls = []
        candidates = {"reference": Planted(problem()[1]).of("reference"), "candidate": Planted(problem()[1]).of("candidate")}
        taken = decision.backend_for(KEY, CPU, lambda: calls.append(1) or candidates, lambda: given)
        return taken, len(calls)

    assert measured(zeros) == ("reference", 1)
    assert measured(problem()[0]) == ("candidate", 1)
    memory.clear()
    memory.user_file("cpu").unlink()
    assert [measured(zeros) for _ in range(decision.TRIES)] == [("reference", 1)] * decision.TRIES
    assert measured(problem()[0]) == ("reference", 0)
    memory.clear()
    assert measured(problem()[0]) == ("candidate", 1), "another process measures again"


def test_a_second_thread_does_not_wait_for_a_measurement(fast):
    inside, go, found = threading.Event(), threading.Event(), []

    def slowly(run, tensors):
        inside.set()
        assert go.wait(60)
        return run(*tensors)

    first = threading.Thread(target=lambda: found.append(ask(slowly)))
    first.start()
    assert inside.wait(60)
    assert ask(key=KEY._replace(batch=256)) == ("reference", 0)
    go.set()
    first.join()
    assert found == [("candidate", 1)]


def _write(cache, first):
    import os

    os.environ["XDG_CACHE_HOME"] = cache
    for number in range(20):
        memory.remember("cpu", {KEY._replace(batch=first + number): auto.Choice("reference")})


def test_two_processes_that_write_at_once_lose_nothing(unmeasured):
    context = multiprocessing.get_context("spawn")
    writers = [context.Process(target=_write, args=(str(unmeasured), first)) for first in (0, 1000)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert {key.batch for key in memory.load(memory.user_file("cpu"), "cpu")} == {*range(20), *range(1000, 1020)}


def test_a_remembered_backend_that_cannot_run_here_is_not_taken(fast, monkeypatch):
    assert ask() == ("candidate", 1)
    memory.clear()
    monkeypatch.setitem(memory.REASONS, "candidate", "was not built")
    assert ask()[1] == 1


def test_info_says_what_was_measured(fast):
    assert "auto on GPU  measure; nothing measured yet" in info.render()
    ask()
    assert "auto on GPU  measure; cpu, 1 size measured with these versions, takes candidate" in info.render()


def test_info_survives_an_unknown_mode(monkeypatch):
    monkeypatch.setenv(auto.ENVIRONMENT, "always")
    assert "auto on GPU  none: DCRNN_FAST_AUTO='always'" in info.render()
