"""Tests start from the same seed, hypothesis from the same examples in CI; without a GPU, Triton's interpreter runs its kernels."""

import os
from importlib.util import find_spec

import pytest
import torch
from hypothesis import settings

if not torch.cuda.is_available():
    os.environ["TRITON_INTERPRET"] = "1"
    if find_spec("triton"):
        from .interpreter import hasten

        hasten()

os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # deterministic algorithms on a GPU ask for it

settings.register_profile("local", deadline=None, print_blob=True)
settings.register_profile("ci", deadline=None, derandomize=True)
settings.load_profile("ci" if os.environ.get("CI") else "local")


def pytest_addoption(parser):
    parser.addoption("--backend", help="of the tests that run on several backends, run those of these alone, for example triton,cuda")


def pytest_collection_modifyitems(config, items):
    """Leave out the tests of other backends than ``--backend`` names."""
    if not config.getoption("--backend"):
        return
    wanted = config.getoption("--backend").split(",")
    if unknown := set(wanted) - {"reference", "cpp", "triton", "cuda"}:
        raise pytest.UsageError(f"--backend {unknown.pop()}: expected names of reference, cpp, triton, cuda, with commas between")
    backends = {item: getattr(item, "callspec", None) and str(item.callspec.params.get("backend", "")).partition(",")[0] for item in items}
    config.hook.pytest_deselected(items=[item for item in items if backends[item] and backends[item] not in wanted])
    items[:] = [item for item in items if not backends[item] or backends[item] in wanted]


def pytest_terminal_summary(terminalreporter):
    """What each fuzzer says at its end, as it recorded it with ``record_property("fuzz", ...)``."""
    reports = [*terminalreporter.getreports("passed"), *terminalreporter.getreports("failed")]
    for line in [value for report in reports for name, value in report.user_properties if name == "fuzz"]:
        terminalreporter.write_line(line)


@pytest.fixture(autouse=True)
def _seed():
    if torch.cuda.is_available():
        torch.manual_seed(0)
    else:  # where there is no GPU, that one keeps the place of each call in the program, which takes longer than many a test
        torch.default_generator.manual_seed(0)


@pytest.fixture
def poisoned_memory():
    """Memory that PyTorch allocates is full of NaN, so that a value which is never written shows."""
    torch.use_deterministic_algorithms(True)
    yield
    torch.use_deterministic_algorithms(False)


@pytest.fixture
def backend(request, monkeypatch, poisoned_memory):
    """A backend by name, or a choice of its kernels by words; see :func:`tests.operators.backend.on`."""
    from .operators.backend import CHOICES, opened, unusable

    name = request.param.partition(",")[0]
    if reason := unusable(name):
        pytest.skip(f"no {name} kernels here: {reason}")
    found = opened(name, monkeypatch)
    with found.kernel_override(**CHOICES[name].get(request.param, {})):
        yield found


@pytest.fixture(scope="session", autouse=True)
def _cache(tmp_path_factory):
    """Prepared data goes to a cache of this session."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DCRNN_FAST_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture
def command(capsys):
    """Runs a command of dcrnn-fast in this process; returns its exit code, standard output and standard error."""
    from dcrnn_fast import cli

    if missing := [name for name in cli.NEEDED if find_spec(name) is None]:
        pytest.skip(f"the command line needs {', '.join(missing)}")

    def run(*arguments):
        with pytest.raises(SystemExit) as caught:
            cli.main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return caught.value.code or 0, captured.out, captured.err

    return run
