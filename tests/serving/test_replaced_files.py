"""A file that is replaced while it is loaded: the scores are those of the model whose id they carry, or the load is an error."""

import os
import shutil
from contextlib import contextmanager
from functools import partial
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


def replace(target, source, is_run=False):
    """Replace a file by a copy of another one, or a link to a run by one to another run."""
    new = target.with_name(f"{target.name}.new")
    new.symlink_to(source) if is_run else shutil.copyfile(source, new)
    os.replace(new, target)


def assert_consistent(ranker, scores):
    np.testing.assert_allclose(ranker.predict(ROWS)["click"], scores[ranker.id], rtol=1e-5, err_msg="scores of another model than the id's")


@pytest.mark.parametrize("is_run", [False, True], ids=["an exported file", "a link to a run"])
def test_what_is_replaced_gives_the_scores_of_the_model_of_its_id(runs, files, scores, tmp_path, is_run):
    served, load = tmp_path / ("current" if is_run else "served.pt2"), Ranker.load if is_run else load_exported
    sources = runs if is_run else files
    replace(served, sources[0], is_run)
    with again_and_again(*(partial(replace, served, source, is_run) for source in sources)):
        for _ in range(LOADS):
            assert_consistent(load(served), scores)


def test_an_exported_file_of_machine_code(compiled, files, calibrated_shop, tmp_path, monkeypatch):
    served, read_extra = tmp_path / "served.pt2", loading.read_extra
    shutil.copyfile(compiled, served)

    def read_and_replace(*arguments):
        texts = read_extra(*arguments)
        replace(served, files[0])
        return texts

    monkeypatch.setattr(loading, "read_extra", read_and_replace)
    ranker = Ranker.load(calibrated_shop / "run")
    assert_consistent(load_exported(served), {ranker.id: ranker.predict(ROWS)["click"]})


def test_the_files_of_a_run_one_by_one(runs, scores, tmp_path):
    served = shutil.copytree(runs[0], tmp_path / "run")
    steps = [partial(replace, served / name, run / name) for run in runs for name in ("encoder.json", "model.safetensors")]
    with again_and_again(*steps):
        for _ in range(LOADS):
            try:
                ranker = Ranker.load(served)
            except CheckpointError as error:
                assert "digest does not match" in str(error)  # noqa: PT017 (a load may succeed, too)
            else:
                assert_consistent(ranker, scores)
    steps[2]()
    steps[1]()
    with pytest.raises(CheckpointError, match=r"encoder\.json was changed after it was written"):
        Ranker.load(served)
