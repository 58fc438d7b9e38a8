"""The command `dcrnn-fast serve`, in a process forked from this one, which has imported everything."""

import os
import signal
import socket
from importlib.util import find_spec

import pytest

from dcrnn_fast import cli
from dcrnn_fast.cli import commands  # noqa: F401 (imported before the process is forked)
from dcrnn_fast.serving.http import PACKAGES

from .calls import get, metrics, score
from .contract import ROWS, assert_scores

needs_packages = pytest.mark.skipif(
    any(find_spec(name) is None for name in PACKAGES), reason="needs the extra serve: pip install 'dcrnn_fast[serve]'"
)


class Forked:
    """A process of the command; ``line`` is the first that it prints."""

    def __init__(self, errors, *arguments):
        ours, theirs = os.pipe()
        self.pid = os.fork()
        if not self.pid:
            code = 1
            try:
                os.dup2(theirs, 1)
                os.dup2(os.open(errors, os.O_WRONLY | os.O_CREAT), 2)
                os.environ["COLUMNS"] = "80"
                import sys

                sys.stdout, sys.stderr = open(1, "w"), open(2, "w")  # noqa: SIM115
                cli.main([str(one) for one in arguments])
                code = 0
            except SystemExit as end:
                code = end.code or 0
            finally:
                sys.stderr.flush()
                os._exit(code)
        os.close(theirs)
        self._output = open(ours)  # noqa: SIM115
        self.line = self._output.readline()

    def signal(self, *numbers):
        for number in numbers:
            os.kill(self.pid, number)

    def ended(self):
        """Its exit code."""
        self._output.close()
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


@needs_packages
def test_it_says_where_it_listens_loads_again_and_ends_with_0_however_often_it_is_asked_to(calibrated_shop, ranker, tmp_path):
    server = Forked(tmp_path / "errors", "serve", "--run", calibrated_shop / "run", "--port", 0)
    try:
        start, _, url = server.line.strip().rpartition(" ")
        assert start == "listening on"
        assert url.startswith("http://127.0.0.1:")
        server.signal(*[signal.SIGHUP] * 5)
        while metrics(url)['dcrnn_fast_reloads_total{result="ok"}'] < 1:
            pass
        assert_scores(score(url, {"columns": ROWS}), ranker.predict(ROWS))
        assert get(url, "/v1/model").json["kind"] == "run"
    finally:
        server.signal(signal.SIGTERM, signal.SIGTERM, signal.SIGINT)
        code = server.ended()
    assert (code, (tmp_path / "errors").read_text()) == (0, "")


@needs_packages
@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "give either --run"),
        (["--run", "a", "--package", "b"], "give either --run"),
        (["--run", "a", "--max-rows", "10", "--max-queue-rows", "9"], "--max-queue-rows 9: expected at least --max-rows, 10"),
        (["--package", "a.pt2", "--device", "cpu"], "--device and --backend are for --run"),
        (["--run", "nowhere", "--port", "0"], "nowhere is no run folder"),
        (["--package", "nowhere.pt2", "--port", "0"], "nowhere.pt2"),
        (["--run", "a", "--host", "no.such.host.invalid"], "--host no.such.host.invalid --port 8000"),
    ],
    ids=str,
)
def test_what_cannot_be_served_is_an_error_of_one_line(command, monkeypatch, arguments, words):
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    code, output, errors = command("serve", *arguments)
    assert (code, output) == (2, "")
    assert words in errors
    assert errors.startswith("error: ")
    assert errors.count("\n") == 1


@needs_packages
def test_a_port_that_is_taken_is_named(command, monkeypatch, calibrated_shop):
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        code, _, errors = command("serve", "--run", calibrated_shop / "run", "--port", port)
    assert code == 2
    assert f"--port {port}: Address already in use; name" in errors
