"""What the server in C++ promises of hostile clients, and the one in Python leaves to the proxy before it.

A module of tests takes these as it takes those of :mod:`..contract`, with the same fixtures.
"""

import pytest

from ..calls import connected, exchange, get, metrics
from ..contract import CHUNKED, in_chunks, raw, statuses, with_trailer
from ..contract_in_use import wait_for

REFUSED = 'dcrnn_fast_requests_total{status="400"}'
AMBIGUOUS = {
    "another coding before chunked": raw(body=CHUNKED, Content_Length=None, Transfer_Encoding="gzip, chunked"),
    "another coding in a line before": raw(body=CHUNKED, Content_Length=None, Transfer_Encoding=["gzip", "chunked"]),
    "no host": raw(host=None),
    "two hosts": raw(host="Host: a\r\nHost: b"),
    "chunks in HTTP/1.0": in_chunks(CHUNKED).replace(b"HTTP/1.1", b"HTTP/1.0"),
    "two hosts in HTTP/1.0": raw(host="Host: a\r\nHost: b").replace(b"HTTP/1.1", b"HTTP/1.0"),
    "a head that is too large": raw(X_A="a" * 20_000),
    "many headers": raw(X=["x"] * 20_000),
    "a negative length": raw(Content_Length="-1"),
    "the preface of HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "a later HTTP": raw().replace(b"HTTP/1.1", b"HTTP/2.0"),
    "chunks in an earlier HTTP": in_chunks(CHUNKED).replace(b"/1.1", b"/0.9"),
}


def test_a_client_of_http_1_0_is_told_of_no_continuation(server):
    """That version has no answer before the answer."""
    assert statuses(server.url, raw(Expect="100-continue").replace(b"HTTP/1.1", b"HTTP/1.0")) == [200]


@pytest.mark.parametrize("name", AMBIGUOUS)
def test_what_a_proxy_may_read_otherwise_is_refused_and_counted(server, name):
    before = metrics(server.url).get(REFUSED, 0)
    assert statuses(server.url, AMBIGUOUS[name], until=1) == [400]
    wait_for(server, REFUSED, before + 1)


LONG = "x" * 8_000_000
ANSWERED_EARLY = {
    "no HTTP": raw(host=None, body=LONG),
    "a broken chunk": in_chunks("zz\r\n" + LONG),
    "a length beside chunks": raw(body=f"{len(LONG):x}\r\n{LONG}\r\n0\r\n\r\n", Transfer_Encoding="chunked"),
    "an unknown path and no other request": raw("/nowhere", body=LONG, Connection="close"),
}


@pytest.mark.parametrize("name", ANSWERED_EARLY)
def test_a_client_that_still_sends_megabytes_gets_its_refusal(server, name):
    assert exchange(server.url, ANSWERED_EARLY[name], until=1).startswith(b"HTTP/1.1 4")


def test_for_one_connection_more_the_longest_idle_one_ends(start):
    server = start(max_connections=3)
    idle = [connected(server.url) for _ in range(3)]
    for one in idle[1:]:
        one.sendall(raw())
        assert one.recv(1 << 16).startswith(b"HTTP/1.1 200")
    for _ in range(2):
        assert get(server.url, "/health/live").status == 200
    assert idle[0].recv(1) == b""
    for one in idle:
        one.close()


def test_where_none_is_idle_one_connection_more_is_a_503_at_once(start):
    server = start(max_connections=3)
    begun = [connected(server.url) for _ in range(3)]
    for one in begun:
        one.sendall(raw()[:-1])
    for _ in range(3000):
        if get(server.url, "/health/live").status == 503:  # the server has read what was sent
            break
    for sent in (b"", raw(), raw()[:-5]):
        received = exchange(server.url, sent)
        assert received.startswith(b"HTTP/1.1 503")
        assert b"retry-after: 1\r\n" in received.lower()
    for one in begun:
        one.sendall(raw()[-1:])
        assert one.recv(1 << 16).startswith(b"HTTP/1.1 200")
        one.close()
    assert metrics(server.url)['dcrnn_fast_rejected_total{reason="overload"}'] >= 4


def test_more_idle_connections_than_it_takes_deny_nobody_an_answer(start):
    server = start(max_connections=40)
    idle = [connected(server.url) for _ in range(100)]
    assert get(server.url, "/health/live").status == 200
    assert sum(one.recv(1) == b"" for one in idle[:50]) == 50
    for one in idle:
        one.close()


def test_neither_a_trailer_nor_a_client_that_sends_no_more_loses_an_answer(server):
    for sent, options in ((in_chunks(with_trailer("Connection: close")), {"until": 2}), (raw(), {"sends_no_more": True})):
        assert statuses(server.url, sent * 2, **options) == [200, 200]
