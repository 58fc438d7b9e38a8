import shutil

import pytest

from dcrnn_fast.training import run, train
from dcrnn_fast.training.data import prepare_data
from dcrnn_fast.training.evaluate import plots
from tests.training.runs import runs_in
from tests.training.tiny import tiny_config, write_numbers, write_table


@pytest.fixture(scope="session", autouse=True)
def _no_curves():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run, "write_curves", write_numbers)
        yield


@pytest.fixture
def with_curves(monkeypatch):
    """Runs draw their curves."""
    monkeypatch.setattr(run, "write_curves", plots.write_curves)


@pytest.fixture(scope="session")
def schema(tmp_path_factory):
    return write_table(tmp_path_factory.mktemp("table"))


@pytest.fixture(scope="session")
def dataset(schema):
    return prepare_data(tiny_config(schema))


@pytest.fixture(scope="session")
def finished(schema, tmp_path_factory):
    """The folder of an uninterrupted run of the default tiny configuration. Do not write into it."""
    folder = tmp_path_factory.mktemp("runs") / "finished"
    train(tiny_config(schema), folder)
    return folder


@pytest.fixture(scope="session")
def run_of(tmp_path_factory):
    """Gives the :class:`tests.training.runs.Run` of a feature."""
    return runs_in(tmp_path_factory.mktemp("features"))


@pytest.fixture
def copied(finished, tmp_path):
    """A copy of the finished run to write into."""
    return shutil.copytree(finished, tmp_path / "run")


@pytest.fixture(autouse=True)
def _a_pipe_of_the_packages_own_width(monkeypatch):
    """pytest-xdist sets COLUMNS, by which names in tables would break into lines."""
    monkeypatch.delenv("COLUMNS", raising=False)
