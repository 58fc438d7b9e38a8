"""Measured tile sizes: where they are looked up, what is refused, and that measuring writes what it measured."""

import dataclasses
import json

import pytest
import torch

pytest.importorskip("triton")

from dcrnn_fast import functional, tile_measuring
from dcrnn_fast.errors import ConfigError
from dcrnn_fast.kernels import tile_choice, tile_file, tile_table
from dcrnn_fast.kernels.tile_file import Entry, Key
from dcrnn_fast.kernels.tile_table import Config
from tests.operators.problems import cross_arguments

CARD = "NVIDIA H100 80GB HBM3"
SIZES = tile_choice.Sizes(-1, "bfloat16", 4096, 624, 2, 624, 3)
SLOWEST = tile_table.candidates("step", "bfloat16", 2, tile_file.NO_LIMIT)[-1]


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """A user's cache and a folder of shipped files of the test's own."""
    monkeypatch.delenv(tile_file.ENVIRONMENT, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(tile_file, "SHIPPED", tmp_path / "tuned")
    tile_choice.clear()
    yield tmp_path
    tile_choice.clear()


def entry(value, choice="step", **sizes):
    return Entry(Key.of(choice, dataclasses.replace(SIZES, **sizes)), value, 12.5)


def predicted(**sizes):
    wanted = dataclasses.replace(SIZES, **sizes)
    return tile_table.predicted("step", wanted.kind, **wanted.arguments())


def test_without_an_entry_the_prediction_is_taken():
    with tile_choice.as_card(CARD):
        assert tile_choice.config("step", SIZES) == predicted()
        assert tile_choice.schedule(SIZES) == tile_table.predicted_schedule("bfloat16", **SIZES.arguments())


def test_the_users_file_comes_before_the_shipped_one_and_that_before_the_prediction(folder):
    assert predicted() != SLOWEST
    other = next(tile for tile in tile_table.candidates("step", "bfloat16", 2, tile_file.NO_LIMIT) if tile not in (SLOWEST, predicted()))
    tile_file.save(CARD, [entry(SLOWEST), entry("all_steps", "schedule")], tile_file.shipped_file(CARD))
    with tile_choice.as_card(CARD):
        assert (tile_choice.config("step", SIZES), tile_choice.schedule(SIZES)) == (SLOWEST, "all_steps")
    tile_file.save(CARD, [entry(other)])
    with tile_choice.as_card(CARD):
        assert (tile_choice.config("step", SIZES), tile_choice.schedule(SIZES)) == (other, "all_steps")
    with tile_choice.as_card("another card"):
        assert tile_choice.config("step", SIZES) == predicted()
    assert tile_file.user_file(CARD) == folder / "cache" / "dcrnn_fast" / "tuning-NVIDIA-H100-80GB-HBM3.json"
    assert list(tile_file.user_file(CARD).parent.iterdir()) == [tile_file.user_file(CARD)], "nothing is left beside it"


def test_the_environment_names_the_users_file(folder, monkeypatch):
    tile_file.save(CARD, [entry(SLOWEST)])
    monkeypatch.setenv(tile_file.ENVIRONMENT, str(folder / "mine.json"))
    with tile_choice.as_card(CARD):
        assert tile_choice.config("step", SIZES) == predicted()
    assert tile_file.save(CARD, [entry(SLOWEST)]) == folder / "mine.json"
    with tile_choice.as_card(CARD):
        assert tile_choice.config("step", SIZES) == SLOWEST


def test_an_entry_serves_every_batch_of_its_bucket_and_no_other():
    tile_file.save(CARD, [entry(SLOWEST)])
    x0 = torch.empty(2048, 624, dtype=torch.bfloat16)
    with tile_choice.as_card(CARD):
        for batch, hit in ((2048, True), (513, True), (512, False), (2049, False)):
            sizes = tile_choice.Sizes.of(x0[:1].expand(batch, -1), 2, 2, 624, 3)
            assert (tile_choice.config("step", sizes) == SLOWEST) == hit or predicted(rows=sizes.rows) == SLOWEST
            assert (Key.of("step", sizes) == Key.of("step", SIZES)) == hit


@pytest.mark.parametrize("change", [{"dim": 256}, {"columns": 936}, {"gates": 1}, {"kind": "float16"}, {"rows": 64}])
def test_an_entry_is_of_one_size_and_dtype(change):
    assert Key.of("step", dataclasses.replace(SIZES, **change)) != Key.of("step", SIZES)


def test_steps_tell_schedules_apart_and_not_tiles():
    longer = dataclasses.replace(SIZES, steps=6)
    assert Key.of("step", longer) == Key.of("step", SIZES)
    assert Key.of("schedule", longer) != Key.of("schedule", SIZES)


def test_saving_again_replaces_entries_of_the_same_key_alone():
    tile_file.save(CARD, [entry(SLOWEST), entry("step", "schedule")])
    tile_file.save(CARD, [entry("all_steps", "schedule")])
    values = [found.value for found in tile_file.load(tile_file.user_file(CARD), CARD)]
    assert sorted(values, key=str) == sorted([SLOWEST, "all_steps"], key=str)


@pytest.mark.parametrize(
    "content",
    ["", "[]", "{}", '{"format": "other", "card": "x", "entries": []}', '{"format": "dcrnn_fast tuning 1", "card": "x", "entries": [{}]}'],
)
def test_a_damaged_file_is_an_error_that_names_it_and_what_to_do(content):
    path = tile_file.user_file(CARD)
    path.parent.mkdir(parents=True)
    path.write_text(content)
    for use in (lambda: tile_choice.config("step", SIZES), lambda: tile_file.save(CARD, [entry(SLOWEST)])):
        with tile_choice.as_card(CARD), pytest.raises(ConfigError) as caught:
            use()
        for said in (str(path), "delete it", "dcrnn-fast info --warm", tile_file.ENVIRONMENT):
            assert said in str(caught.value)
    assert path.read_text() == content


def test_a_file_of_another_card_is_refused(monkeypatch, folder):
    monkeypatch.setenv(tile_file.ENVIRONMENT, str(folder / "mine.json"))
    tile_file.save(CARD, [entry(SLOWEST)])
    with tile_choice.as_card("NVIDIA A100"), pytest.raises(ConfigError, match=r"mine\.json: was measured on NVIDIA H100 80GB HBM3"):
        tile_choice.config("step", SIZES)


def test_a_tile_that_is_no_candidate_any_more_is_ignored():
    tile_file.save(CARD, [entry(dataclasses.replace(SLOWEST, num_warps=2)), entry("sideways", "schedule")])
    with tile_choice.as_card(CARD):
        assert tile_choice.config("step", SIZES) == predicted()
        assert tile_choice.schedule(SIZES) in tile_file.SCHEDULES


def test_a_lookup_reads_the_files_once(monkeypatch):
    tile_file.save(CARD, [entry(SLOWEST)])
    reads = []
    read = tile_file.read
    monkeypatch.setattr(tile_file, "read", lambda path: reads.append(path) or read(path))
    with tile_choice.as_card(CARD):
        for batch in (64, 256, 4096, 64):
            tile_choice.config("step", dataclasses.replace(SIZES, rows=batch))
    assert len(reads) == 2


def test_forced_wins_over_files_and_ends():
    tile_file.save(CARD, [entry(SLOWEST)])
    tile = Config(16, 16, 16, 4, 2)
    with tile_choice.as_card(CARD):
        with tile_choice.kernel_override(step=tile, schedule="all_steps"):
            assert (tile_choice.config("step", SIZES), tile_choice.schedule(SIZES)) == (tile, "all_steps")
            with tile_choice.kernel_override(schedule="step"):
                assert (tile_choice.config("step", SIZES), tile_choice.schedule(SIZES)) == (tile, "step")
            assert tile_choice.schedule(SIZES) == "all_steps"
        assert tile_choice.config("step", SIZES) == SLOWEST
    with pytest.raises(ValueError, match="'sideways': expected one of step"):
        tile_choice.kernel_override(sideways=tile).__enter__()


needs_interpreter = pytest.mark.skipif(torch.cuda.is_available(), reason="times nothing; the measured run is of a GPU")


@needs_interpreter
@pytest.mark.parametrize("schedule", tile_file.SCHEDULES)
def test_the_operator_uses_the_forced_tile(schedule, monkeypatch):
    from dcrnn_fast.kernels import cross_rnn_op

    launched = []
    wrap = cross_rnn_op.wrap_triton

    class Spy:
        def __init__(self, kernel):
            self.kernel = kernel

        def __getitem__(self, grid):
            def launch(*arguments, **options):
                launched.append((self.kernel.fn.__name__, options["BLOCK_B"], options["BLOCK_D"], options["BLOCK_K"]))
                return wrap(self.kernel)[grid](*arguments, **options)

            return launch

    monkeypatch.setattr(cross_rnn_op, "wrap_triton", Spy)
    arguments = cross_arguments(dtype=torch.float32)
    with tile_choice.kernel_override(**{schedule: Config(16, 32, 16, 4, 1)}, schedule=schedule):
        functional.cross_rnn(**arguments, backend="triton")
    assert set(launched) == {(f"cross_rnn_{schedule}", 16, 32, 16)}
    assert len(launched) == (3 if schedule == "step" else 1)


def fake_timer(order):
    """A timer that runs what it is given, and says ``order(n)`` milliseconds at its n-th call."""
    calls = []

    def measure(run):
        run()
        calls.append(None)
        return order(len(calls))

    return measure


@needs_interpreter
@pytest.mark.parametrize("context_dim", [0, 3])
def test_tuning_times_every_candidate_and_keeps_the_fastest(context_dim):
    lines = []
    with tile_choice.as_card(CARD):
        kind, limit = "bfloat16", tile_table.H100.shared_memory
        entries = tile_measuring.tune(
            8, 2, 5, steps=2, context_dim=context_dim, device="cpu", measure=fake_timer(lambda call: 1.0 / call), report=lines.append
        )
        kernels = ["step", "all_steps", "backward", *(["context"] if context_dim else [])]
        candidates = {kernel: tile_table.candidates(kernel, kind, 2, limit) for kernel in kernels}
        assert len(lines) == sum(map(len, candidates.values())) + 1
        sizes = tile_choice.Sizes(-1, kind, tile_table.bucket(10), 8, 2, 8 + context_dim, 2)
        assert {found.key.choice: found.value for found in entries} == {
            **{kernel: tiles[-1] for kernel, tiles in candidates.items()},
            "schedule": "all_steps",
        }
        assert {kernel: tile_choice.config(kernel, sizes) for kernel in kernels} == {
            kernel: tiles[-1] for kernel, tiles in candidates.items()
        }
        assert tile_choice.schedule(sizes) == "all_steps"
        assert tile_choice._overrides == {}
    written = json.loads(tile_file.user_file(CARD).read_text())
    assert written["card"] == CARD
    assert all(row["microseconds"] > 0 for row in written["entries"])


@needs_interpreter
def test_a_wrong_candidate_is_not_timed(monkeypatch):
    def wrong(self):
        out, states, kept = forward(self)
        return out + 1, states, kept

    forward = tile_measuring._Problem._forward
    monkeypatch.setattr(tile_measuring._Problem, "_forward", wrong)
    timed = []
    with tile_choice.as_card(CARD), pytest.raises(ArithmeticError, match=r"step with .* is wrong: relative error"):
        tile_measuring.tune(8, 2, 5, steps=2, device="cpu", measure=timed.append)
    assert timed == []
    assert not tile_file.user_file(CARD).exists()


@needs_interpreter
def test_a_candidate_that_does_not_fit_is_reported_and_left_out(monkeypatch):
    from triton.runtime.errors import OutOfResources

    def timer(run):
        tile = tile_choice._overrides.get("step")
        if tile == tile_table.candidates("step", "float32", 2, tile_file.NO_LIMIT)[0]:
            raise OutOfResources(300_000, 232_448, "shared memory")
        return 1.0

    lines = []
    with tile_choice.as_card(CARD):
        entries = tile_measuring.tune(8, 1, 3, steps=1, dtype=torch.float32, device="cpu", measure=timer, report=lines.append)
    assert "left out" in lines[0]
    assert entries[0].value == tile_table.candidates("step", "float32", 2, tile_file.NO_LIMIT)[1]


def test_measuring_without_a_card_is_refused():
    with pytest.raises(ValueError, match="expected a CUDA device"):
        tile_measuring.tune(8, 2, 5, device="cpu")
