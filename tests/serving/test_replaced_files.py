"""A file that is replaced while it is loaded: the scores are those of the model whose id they carry, or the load is an error."""

import os
import shutil
from contextlib import contextmanager
from threading import Event, Thread

import numpy as np
import pytest

from dcrnn_fast import Ranker
from dcrnn_fast.errors import CheckpointError
from dcrnn_fast.serving import export, load_exported
from dcrnn_fast.serving.export import load as loading
from dcrnn_fast.training import train
from tests.training.tiny import tiny_config, write_table

ROWS = {"colour": ["c1", "c8", "c3"], "shape": ["s0", None, "s4"], "size": [0.5, -1.25, None]}
LOADS = 8


@pytest.fixture(scope="module")
def runs(shop, tmp_path_factory):
    """Two runs on other data, so that their weights and their encoders differ."""
    folder = tmp_path_factory.mktemp("other")
    train(tiny_config(write_table(folder, seed=1)), folder / "run")
    return shop / "run", folder / "run"


@pytest.fixture(scope="module")
def files(runs, tmp_path_factory):
    folder = tmp_path_factory.mktemp("files")
    for at, run in enumerate(runs):
        export(run, folder / f"{at}.pt2", backend="reference")
    return folder / "0.pt2", folder / "1.pt2"


@pytest.fixture(scope="module")
def scores(runs):
    """By the id of each run: its scores of ``ROWS``."""
    rankers = [Ranker.load(run) for run in runs]
    return {ranker.id: ranker.predict(ROWS)["click"] for ranker in rankers}


@contextmanager
def again_and_again(*steps):
    """Takes the steps in turn, without pause, while the block runs."""
    stop = Event()

    def work():
        while not stop.is_set():
            for step in steps:
                step()

    thread = Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def replace_by_a_copy(source, target):
    beside = target.with_name(f"{target.name}.beside")
    shutil.copyfile(source, beside)
    os.replace(beside, target)


def assert_consistent(ranker, scores):
    np.testing.assert_allclose(ranker.predict(ROWS)["click"], scores[ranker.id], rtol=1e-5, err_msg="scores of another model than the id's")


def test_an_exported_file(files, scores, tmp_path):
    served = tmp_path / "served.pt2"
    replace_by_a_copy(files[0], served)
    with again_and_again(*(lambda file=file: replace_by_a_copy(file, served) for file in files)):
        for _ in range(LOADS):
            assert_consistent(load_exported(served), scores)


def test_an_exported_file_of_machine_code(compiled, files, calibrated_shop, tmp_path, monkeypatch):
    served, read_extra = tmp_path / "served.pt2", loading.read_extra
    shutil.copyfile(compiled, served)

    def read_and_replace(*arguments):
        texts = read_extra(*arguments)
        replace_by_a_copy(files[0], served)
        return texts

    monkeypatch.setattr(loading, "read_extra", read_and_replace)
    ranker = Ranker.load(calibrated_shop / "run")
    assert_consistent(load_exported(served), {ranker.id: ranker.predict(ROWS)["click"]})


def test_a_link_to_a_run(runs, scores, tmp_path):
    current, beside = tmp_path / "current", tmp_path / "beside"
    current.symlink_to(runs[0])

    def lead_to(run):
        beside.symlink_to(run)
        os.replace(beside, current)

    with again_and_again(*(lambda run=run: lead_to(run) for run in runs)):
        for _ in range(LOADS):
            assert_consistent(Ranker.load(current), scores)


def test_the_files_of_a_run_one_by_one(runs, scores, tmp_path):
    served = shutil.copytree(runs[0], tmp_path / "run")

    def take(run):
        for name in ("encoder.json", "model.safetensors"):
            replace_by_a_copy(run / name, served / name)

    with again_and_again(*(lambda run=run: take(run) for run in runs)):
        for _ in range(LOADS):
            try:
                ranker = Ranker.load(served)
            except CheckpointError as error:
                assert "digest does not match" in str(error)  # noqa: PT017 (a load may succeed, too)
            else:
                assert_consistent(ranker, scores)
    replace_by_a_copy(runs[1] / "encoder.json", served / "encoder.json")
    replace_by_a_copy(runs[0] / "model.safetensors", served / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"encoder\.json was changed after it was written"):
        Ranker.load(served)
