"""The command `dcrnn-fast serve`."""

import signal
import socket
import sys

import pytest

from .calls import get, metrics, needs_packages, score
from .contract import ROWS, assert_scores
from .process import Process

pytestmark = needs_packages


def test_it_says_where_it_listens_loads_again_and_ends_with_0(calibrated_shop, ranker, tmp_path):
    """However often it is asked to."""
    words = [sys.executable, "-m", "dcrnn_fast", "serve", "--run", calibrated_shop / "run", "--port", "0"]
    with Process(words, tmp_path / "errors") as server:
        for _ in range(5):
            server.reload()
        while metrics(server.url)['dcrnn_fast_reloads_total{result="ok"}'] < 1:
            pass
        assert_scores(score(server.url, {"columns": ROWS}), ranker.predict(ROWS))
        assert get(server.url, "/v1/model").json["kind"] == "run"
        server.ask_to_stop()
        server.process.send_signal(signal.SIGINT)
        assert (server.stop(), server.lines) == (0, [])


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "give either --run"),
        (["--run", "a", "--package", "b"], "give either --run"),
        (["--run", "a", "--max-rows", "10", "--max-queue-rows", "9"], "--max-queue-rows 9: expected at least --max-rows, 10"),
        (["--package", "a.pt2", "--device", "cpu"], "--device and --backend are for --run"),
        (["--run", "nowhere", "--port", "0"], "nowhere is not a run folder"),
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


def test_a_port_that_is_taken_is_named(command, monkeypatch, calibrated_shop):
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        code, _, errors = command("serve", "--run", calibrated_shop / "run", "--port", port)
    assert code == 2
    assert f"--port {port}: Address already in use; name" in errors
