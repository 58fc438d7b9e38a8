"""The prediction orders what can be ordered by hand. Its seconds are no measurements, so no test compares them with one."""

import sys
from dataclasses import replace

import pytest

from dcrnn_fast.errors import BackendUnavailable
from dcrnn_fast.kernels import cost_model
from dcrnn_fast.kernels.cost_model import predicted, predicted_schedule, predicted_seconds
from dcrnn_fast.kernels.tile_table import NO_CARD, Card, Config, Sizes, bucket
from scripts.resources.triton_costs import library_seconds


def sizes(batch, dim, tasks=2, steps=3, kind="bfloat16"):
    return Sizes(kind, bucket(batch * tasks), dim, dim, 2, steps, tasks)


@pytest.mark.parametrize(
    ("case", "schedule"),
    [
        # 10 blocks a product: one launch does 3 steps of 5 unit tiles of 10 blocks one after another, 150; three launches 10 each
        (sizes(256, 624), "step"),
        (sizes(2048, 624, tasks=1), "step"),
        (sizes(1024, 624), "step"),
        # many row tiles: every launch fills the card, and one launch has fewer programs with smaller tiles
        (sizes(8192, 624), "step"),
        # one unit tile and one block: each launch would take less time than starting it
        (sizes(64, 64, steps=6), "all_steps"),
        (sizes(256, 128, steps=6), "all_steps"),
        (sizes(32, 32), "all_steps"),
    ],
    ids=lambda value: f"rows {value.rows}, dim {value.dim}" if isinstance(value, Sizes) else value,
)
def test_the_schedule_with_less_work_one_after_another_is_taken(case, schedule):
    assert predicted_schedule(case) == schedule


LARGE, SMALL = sizes(8192, 624), sizes(64, 256)
WIDE, SQUARE, LOW = Config(128, 128, 64, 8, 3), Config(64, 64, 64, 4, 4), Config(32, 64, 64, 4, 4)


@pytest.mark.parametrize(
    ("kernel", "case", "faster", "slower"),
    [
        # a forward tile of 128 x 256 columns reads 384 rows of operands for 32768 results, two of 64 x 128 read 384 for 16384
        ("step", LARGE, WIDE, SQUARE),
        ("step", LARGE, SQUARE, LOW),
        ("backward", LARGE, Config(128, 256, 64, 8, 3), Config(64, 128, 64, 4, 3)),
        ("inputs", LARGE, Config(128, 128, 64, 8, 4), Config(32, 64, 32, 4, 4)),
        # 128 rows in all: 2 tiles of the wide kind keep 2 multiprocessors busy, 16 of the low kind 16
        ("step", SMALL, LOW, WIDE),
        ("backward", SMALL, LOW, Config(128, 128, 64, 8, 4)),
        # a multiprocessor waits for each load of a short pipeline, and the long one starts them earlier
        ("step", sizes(64, 624), LOW, Config(32, 64, 64, 4, 3)),
    ],
)
def test_the_tile_that_reads_less_or_keeps_more_multiprocessors_busy_is_faster(kernel, case, faster, slower):
    assert predicted_seconds(kernel, faster, case) < predicted_seconds(kernel, slower, case)


def test_a_program_of_the_inputs_gradients_takes_all_tasks_one_after_another():
    """B = 256, D = 256, T = 4: 4 programs of 128 x 128 sum 4 tasks each, and 16 of 64 x 64 do so at the same time."""
    case = sizes(256, 256, tasks=4)
    assert predicted_seconds("inputs", SQUARE, case) < predicted_seconds("inputs", Config(128, 128, 64, 8, 4), case)
    assert predicted_seconds("inputs", SQUARE, case) > 2 * predicted_seconds("inputs", SQUARE, sizes(1024, 256, tasks=1))


def test_a_card_without_room_for_any_tile_is_refused_in_words():
    with pytest.raises(BackendUnavailable, match=r"no tiles for bfloat16 that fit Small with 32000 bytes"):
        predicted("step", replace(LARGE, card=Card("Small", 40, 32_000, 7)))


def test_of_one_tile_the_larger_problem_and_the_longer_product_take_longer():
    times = [predicted_seconds("step", WIDE, sizes(batch, dim)) for batch, dim in ((512, 256), (8192, 256), (8192, 624), (32768, 624))]
    assert times == sorted(times)
    assert len(set(times)) == 4


def test_exact_float32_is_slower_than_tf32_and_that_than_bfloat16():
    tile = Config(64, 64, 16, 8, 3)
    exact, tf32, half = (predicted_seconds("step", tile, replace(LARGE, kind=kind)) for kind in ("float32", "tf32", "bfloat16"))
    assert exact > tf32 > half


def test_a_card_with_half_the_multiprocessors_takes_longer():
    half = replace(LARGE, card=replace(NO_CARD, multiprocessors=66))
    tile = predicted("step", half)
    assert predicted_seconds("step", tile, half) > predicted_seconds("step", tile, LARGE)


def test_the_steps_as_a_batch_of_one_product_fill_more_multiprocessors_than_a_product_a_step(monkeypatch):
    """dW of two steps and two tasks: 4 x 30 tiles in one wave, or twice 60."""
    monkeypatch.setitem(sys.modules, "kernels.cost_model", cost_model)
    assert library_seconds(4, 1248, 624, 8192) < 1.1 * library_seconds(2, 1248, 624, 8192)
