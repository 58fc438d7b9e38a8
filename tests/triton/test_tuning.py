"""Measured tile sizes: where a call looks them up, which files are refused, and that measuring writes what it measured."""

import json
import multiprocessing
import os
from dataclasses import replace

import pytest
import torch

pytest.importorskip("triton")

from dcrnn_fast import functional
from dcrnn_fast.errors import ConfigError
from dcrnn_fast.kernels import cost_model, tile_choice, tile_file, tile_table
from dcrnn_fast.kernels.tile_choice import config, schedule
from dcrnn_fast.kernels.tile_file import Entry
from dcrnn_fast.kernels.tile_table import Card, Config, Sizes, candidates
from dcrnn_fast.ops import measure_tiles as tile_measuring
from tests.operators.problems import cross_arguments

CARD = Card("NVIDIA H100 80GB HBM3", 132, 232_448, 9)
SIZES = Sizes("bfloat16", 4096, 624, 624, 2, 3, 2, CARD)
PREDICTED = cost_model.predicted("step", SIZES)
SLOWEST = candidates("step", "bfloat16", 2)[-1]


def save(*values, path=None):
    """Save tiles of "step" and schedules for SIZES; later calls read the files again."""
    entries = [Entry(SIZES.key("schedule" if isinstance(value, str) else "step"), value, 12.5) for value in values]
    written = tile_measuring.save(CARD.name, entries, path)
    tile_choice.clear()
    return written


def test_the_users_file_comes_before_the_shipped_one_and_that_before_the_prediction(folder):
    assert PREDICTED != SLOWEST
    assert (config("step", SIZES), schedule(SIZES)) == (PREDICTED, cost_model.predicted_schedule(SIZES))
    other = next(tile for tile in candidates("step", "bfloat16", 2) if tile not in (SLOWEST, PREDICTED))
    save(SLOWEST, "all_steps", path=tile_file.shipped_file(CARD.name))
    assert (config("step", SIZES), schedule(SIZES)) == (SLOWEST, "all_steps")
    users = save(other)
    assert (config("step", SIZES), schedule(SIZES)) == (other, "all_steps")
    assert config("step", replace(SIZES, card=replace(CARD, name="another card"))) == PREDICTED
    assert users == folder / "cache" / "dcrnn_fast" / "tuning-NVIDIA-H100-80GB-HBM3.json"
    assert set(users.parent.iterdir()) == {users, users.with_name(f".{users.name}.lock")}, "nothing is left beside it but its empty lock"


def test_the_environment_names_the_users_file(folder, monkeypatch):
    save(SLOWEST)
    monkeypatch.setenv(tile_file.ENVIRONMENT, str(folder / "mine.json"))
    assert config("step", SIZES) == PREDICTED
    assert save(SLOWEST) == folder / "mine.json"
    assert config("step", SIZES) == SLOWEST


def test_a_tensor_on_a_cpu_has_no_measured_choices(folder, monkeypatch):
    monkeypatch.setenv(tile_file.ENVIRONMENT, str(folder / "mine.json"))
    save(SLOWEST)
    sizes = Sizes.of(torch.empty(2048, 624, dtype=torch.bfloat16), 2, 2, 624, 3, False)
    assert sizes == replace(SIZES, card=tile_table.NO_CARD)
    assert config("step", sizes) == PREDICTED


@pytest.mark.parametrize(("batch", "same"), [(2048, True), (513, True), (512, False), (2049, False)])
def test_an_entry_serves_every_batch_of_its_bucket_and_no_other(batch, same, monkeypatch):
    save(SLOWEST)
    monkeypatch.setattr(tile_table, "card_of", lambda device: CARD)
    sizes = Sizes.of(torch.empty(1, 624, dtype=torch.bfloat16).expand(batch, -1), 2, 2, 624, 3, False)
    assert (sizes == SIZES) == same
    assert config("step", sizes) == (SLOWEST if same else cost_model.predicted("step", sizes))


@pytest.mark.parametrize("change", [{"dim": 256}, {"columns": 936}, {"gates": 1}, {"kind": "float16"}, {"rows": 64}, {"steps": 6}], ids=str)
def test_an_entry_is_of_one_size_and_dtype_and_that_of_a_schedule_of_one_number_of_steps_too(change):
    other = replace(SIZES, **change)
    assert (other.key("step") == SIZES.key("step")) == ("steps" in change)
    assert other.key("schedule") != SIZES.key("schedule")
    assert other.key("inputs") != SIZES.key("inputs")


def _save_schedules(cache, first):
    os.environ["XDG_CACHE_HOME"] = cache
    for steps in range(first, first + 20):
        tile_measuring.save(CARD.name, [Entry(replace(SIZES, steps=steps).key("schedule"), "step", 1.0)])


def test_two_processes_that_save_at_once_lose_nothing(folder):
    context = multiprocessing.get_context("fork")
    writers = [context.Process(target=_save_schedules, args=(str(folder / "cache"), first)) for first in (1, 101)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert len(tile_file.load(tile_file.user_file(CARD.name), CARD.name)) == 40


def test_saving_again_replaces_entries_of_the_same_key_alone():
    save(SLOWEST, "step")
    path = save("all_steps")
    assert {entry.value for entry in tile_file.load(path, CARD.name)} == {SLOWEST, "all_steps"}


@pytest.mark.parametrize(
    "content",
    ["", "[]", "{}", '{"format": "other", "card": "x", "entries": []}', '{"format": "dcrnn_fast tuning 2", "card": "x", "entries": [{}]}'],
)
@pytest.mark.parametrize("use", [lambda: config("step", SIZES), lambda: save(SLOWEST)], ids=["read", "write"])
def test_a_damaged_file_is_an_error_that_names_it_and_what_to_do(content, use):
    path = tile_file.user_file(CARD.name)
    path.parent.mkdir(parents=True)
    path.write_text(content)
    with pytest.raises(ConfigError) as caught:
        use()
    for said in (str(path), "delete it", "dcrnn-fast info --warm", tile_file.ENVIRONMENT):
        assert said in str(caught.value)
    assert path.read_text() == content


def test_a_file_of_another_card_is_refused(monkeypatch, folder):
    monkeypatch.setenv(tile_file.ENVIRONMENT, str(folder / "mine.json"))
    save(SLOWEST)
    with pytest.raises(ConfigError, match=r"mine\.json: was measured on NVIDIA H100 80GB HBM3"):
        config("step", replace(SIZES, card=replace(CARD, name="NVIDIA A100")))


def test_a_tile_that_is_no_candidate_any_more_is_ignored():
    save(replace(SLOWEST, num_warps=2), "sideways")
    assert config("step", SIZES) == PREDICTED
    assert schedule(SIZES) in tile_table.SCHEDULES


def test_a_lookup_reads_the_files_once(monkeypatch):
    save(SLOWEST)
    reads = []
    read = tile_file.read
    monkeypatch.setattr(tile_file, "read", lambda path: reads.append(path) or read(path))
    for rows in (64, 256, 4096, 64):
        config("step", replace(SIZES, rows=rows))
    assert len(reads) == 2


def test_an_override_wins_over_files_and_ends():
    save(SLOWEST)
    tile = Config(16, 16, 16, 4, 2)
    with tile_choice.kernel_override(step=tile, schedule="all_steps"):
        assert (config("step", SIZES), schedule(SIZES)) == (tile, "all_steps")
        with tile_choice.kernel_override(schedule="step"):
            assert (config("step", SIZES), schedule(SIZES)) == (tile, "step")
        assert schedule(SIZES) == "all_steps"
    assert config("step", SIZES) == SLOWEST
    with pytest.raises(ValueError, match="'sideways', expected one of schedule, step"):
        tile_choice.kernel_override(sideways=tile).__enter__()


needs_interpreter = pytest.mark.skipif(torch.cuda.is_available(), reason="times nothing; the measured run is of a GPU")


@needs_interpreter
@pytest.mark.parametrize("schedule", tile_table.SCHEDULES)
def test_the_operator_launches_the_tile_of_an_override(schedule, monkeypatch):
    from dcrnn_fast.kernels import launch_options

    launched, launch = [], launch_options.launch

    def spied(kernel, grid, **options):
        launched.append((kernel.fn.__name__, *(options[f"BLOCK_{side}"] for side in "BDK")))
        launch(kernel, grid, **options)

    monkeypatch.setattr(launch_options, "launch", spied)
    with tile_choice.kernel_override(**{schedule: Config(16, 32, 16, 4, 1)}, schedule=schedule):
        functional.cross_rnn(**cross_arguments(dtype=torch.float32), backend="triton")
    assert launched == [(f"cross_rnn_{schedule}", 16, 32, 16)] * (3 if schedule == "step" else 1)


@pytest.fixture
def on_cpu(monkeypatch):
    """:func:`tile_measuring.tune` on the interpreter, which stands for CARD."""
    monkeypatch.setattr(tile_table, "card_of", lambda device: CARD)

    def tune(*sizes, steps=2, **options):
        return tile_measuring.tune(*sizes, steps=steps, device="cpu", **options)

    return tune


@needs_interpreter
@pytest.mark.parametrize("kind", ["bfloat16", "tf32", "float64"])
def test_tuning_times_every_candidate_and_keeps_the_fastest(kind, on_cpu, monkeypatch):
    calls, lines, kinds = [], [], set()
    monkeypatch.setattr(tile_choice, "config", lambda kernel, sizes: kinds.add(sizes.kind) or config(kernel, sizes))

    def timer(run):
        """Every call takes less time than the one before."""
        calls.append(run())
        return 1.0 / len(calls)

    entries = on_cpu(8, 2, 5, kind=kind, measure=timer, report=lines.append)
    kernels = tile_table.KERNELS
    tiles = {kernel: candidates(kernel, kind, 2, CARD) for kernel in kernels}
    assert kinds == {kind}
    assert len(lines) - 1 == len(calls) == sum(map(len, tiles.values()))
    fastest = {kernel: tiles[kernel][-1] for kernel in kernels}
    assert {entry.key[0]: entry.value for entry in entries} == {**fastest, "schedule": "all_steps"}
    sizes = Sizes(kind, tile_table.bucket(10), 8, 8, 2, 2, 2, CARD)
    assert {kernel: config(kernel, sizes) for kernel in kernels} == fastest
    assert schedule(sizes) == "all_steps"
    assert tile_choice._overrides == {}
    written = json.loads(tile_file.user_file(CARD.name).read_text())
    assert written["card"] == CARD.name
    assert all(row["microseconds"] > 0 for row in written["entries"])


@needs_interpreter
def test_a_wrong_candidate_is_not_timed(monkeypatch, on_cpu):
    forward, timed = tile_measuring._Problem._forward, []
    monkeypatch.setattr(tile_measuring._Problem, "_forward", lambda self: (forward(self)[0] + 1, *forward(self)[1:]))
    with pytest.raises(ArithmeticError, match=r"step with .* is wrong: relative error"):
        on_cpu(8, 2, 5, measure=timed.append)
    assert timed == []
    assert not tile_file.user_file(CARD.name).exists()


@needs_interpreter
def test_a_candidate_that_does_not_fit_is_reported_and_left_out(on_cpu):
    from triton.runtime.errors import OutOfResources

    first, second, *_ = candidates("step", "float32", 2)

    def timer(run):
        if tile_choice._overrides.get("step") == first:
            raise OutOfResources(300_000, 232_448, "shared memory")
        return 1.0

    lines = []
    entries = on_cpu(8, 1, 3, steps=1, kind="float32", measure=timer, report=lines.append)
    assert "left out" in lines[0]
    assert entries[0].value == second


def test_measuring_without_a_card_is_refused():
    with pytest.raises(ValueError, match="expected a CUDA device"):
        tile_measuring.tune(8, 2, 5, device="cpu")
