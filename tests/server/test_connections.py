"""Connections of the server in Python: clients that send or take too slowly, and what a stop does with them."""

import os
import socket
import sys
import time
from importlib.util import find_spec
from urllib.parse import urlsplit

import pytest

from dcrnn_fast.serving.http import PACKAGES

from .calls import connected, get

needs_packages = pytest.mark.skipif(
    any(find_spec(name) is None for name in PACKAGES), reason="needs the extra serve: pip install 'dcrnn_fast[serve]'"
)


@needs_packages
def test_a_request_that_does_not_arrive_in_time_is_closed(serve, ranker, monkeypatch):
    from dcrnn_fast.serving.http import connections

    monkeypatch.setattr(connections, "ARRIVAL", 0.05)
    place = urlsplit(serve(ranker).url)
    begun = b"POST /v1/score HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: 9\r\n\r\n{"
    whole = b"GET /health/live HTTP/1.1\r\nHost: a\r\n\r\n"
    for sent in (b"", b"POST /v1", begun, whole + b"GET /he"):
        with socket.create_connection((place.hostname, place.port), timeout=30) as connection:
            connection.sendall(sent)
            if sent.startswith(whole):
                assert connection.recv(12) == b"HTTP/1.1 200"
                connection.sendall(b"alth")
            assert connection.makefile("rb").read().count(b"live") == sent.count(whole)


@needs_packages
def test_a_request_that_came_in_part_with_the_one_before_is_closed_in_time(serve, ranker, monkeypatch):
    from dcrnn_fast.serving.http import connections

    monkeypatch.setattr(connections, "ARRIVAL", 0.05)
    place = urlsplit(serve(ranker).url)
    begun = b"POST /v1/score HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: 9\r\n\r\n{"
    with socket.create_connection((place.hostname, place.port), timeout=30) as connection:
        connection.sendall(b"GET /health/live HTTP/1.1\r\nHost: a\r\n\r\n" + begun)
        assert connection.makefile("rb").read().count(b"live") == 1


def until(condition):
    """Wait for it, for half a minute at most."""
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end, "it did not become true"


@pytest.fixture
def page(serve, ranker, monkeypatch):
    """A server whose answers must be taken within a moment, a request for its largest file, and the size of the answer."""
    from dcrnn_fast.serving.http import connections

    monkeypatch.setattr(connections, "TAKING", 0.3)
    server = serve(ranker)
    path = next(part for part in get(server.url, "/docs").text.split('"') if part.endswith("bundle.js"))
    asked = f"GET {path} HTTP/1.1\r\nHost: a\r\n\r\n".encode()
    until(lambda: not server.open_connections)
    return server, asked, len(get(server.url, path).text.encode())


@needs_packages
@pytest.mark.parametrize("all_but", [None, 40_000, 10_000])
def test_a_client_that_takes_no_answer_or_not_the_rest_is_ended(page, all_but):
    server, asked, size = page
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.connect((urlsplit(server.url).hostname, urlsplit(server.url).port))
        connection.sendall(asked * 5)
        until(lambda: server.unsent_bytes)
        if all_but is not None:
            left = 5 * size - all_but
            while left > 0:
                left -= len(connection.recv(min(left, 1 << 14)))
        until(lambda: not server.open_connections)


@needs_packages
def test_a_client_that_takes_its_answers_slowly_gets_them_all(page):
    server, asked, size = page
    received = 0
    with connected(server.url) as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 16)
        connection.sendall(asked * 5)
        while received < 5 * size:
            received += len(part := connection.recv(1 << 15))
            assert part, "the connection ended before all answers had come"


@needs_packages
def test_clients_that_take_nothing_do_not_make_room_that_is_not_there(serve, ranker):
    server = serve(ranker, max_connections=3)
    path = next(part for part in get(server.url, "/docs").text.split('"') if part.endswith("bundle.js"))
    asked = f"GET {path} HTTP/1.1\r\nHost: a\r\n\r\n".encode()
    until(lambda: not server.open_connections)
    stuck = [connected(server.url) for _ in range(3)]
    for one in stuck:
        one.sendall(asked * 10)
    until(lambda: len(server.unsent_bytes) == 3)
    assert get(server.url, "/health/live").status == 503
    assert server.open_connections == 3
    for one in stuck:
        one.close()


@needs_packages
def test_a_stop_ends_clients_that_take_no_answer_without_a_trace(serve, ranker, caplog):
    server = serve(ranker, grace=0.2)
    path = next(part for part in get(server.url, "/docs").text.split('"') if part.endswith("bundle.js"))
    with connected(server.url) as connection:
        connection.sendall(f"GET {path} HTTP/1.1\r\nHost: a\r\n\r\n".encode() * 10)
        until(lambda: server.unsent_bytes)
        assert server.stop() == 0
    assert caplog.text == ""


@needs_packages
@pytest.mark.parametrize("stderr", [None, "closed"])
def test_it_accepts_on_where_nobody_hears_its_warnings(serve, ranker, monkeypatch, stderr):
    server = serve(ranker, max_connections=1)
    closed = open(os.devnull, "w")  # noqa: SIM115
    closed.close()
    monkeypatch.setattr(sys, "stderr", None if stderr is None else closed)
    with connected(server.url) as busy:
        busy.sendall(b"GET /health")
        until(lambda: get(server.url, "/health/live").status == 503)
    until(lambda: get(server.url, "/health/live").status == 200)


@needs_packages
def test_a_client_that_is_answered_before_its_body_came_may_ask_on(serve, ranker, monkeypatch):
    from dcrnn_fast.serving.http import connections

    monkeypatch.setattr(connections, "ARRIVAL", 0.3)
    server, end = serve(ranker), time.monotonic() + 1
    with connected(server.url) as connection:
        while time.monotonic() < end:
            connection.sendall(b"POST /nowhere HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\n")
            answer = b""
            while not answer.endswith(b"}"):
                answer += connection.recv(1000)
            assert answer.startswith(b"HTTP/1.1 404")
            connection.sendall(b"{}")
