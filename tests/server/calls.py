"""Calls of a server under test, by the standard library alone: what it answers, and the raw bytes where a client would not send them."""

import json
import re
import socket
from http.client import HTTPConnection
from importlib.util import find_spec
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import pytest

from dcrnn_fast.serving.http import PACKAGES

needs_packages = pytest.mark.skipif(
    any(find_spec(name) is None for name in PACKAGES), reason="needs the extra serve: pip install 'dcrnn_fast[serve]'"
)
JSON = {"Content-Type": "application/json"}


class Answer(NamedTuple):
    status: int
    headers: dict[str, str]
    text: str

    @property
    def json(self) -> Any:
        return json.loads(self.text)


def call(url, method, path, body=None, headers=None) -> Answer:
    """One request on a connection of its own. A body that is an iterator is sent in chunks, without its length."""
    place = urlsplit(url)
    connection = HTTPConnection(place.hostname, place.port, timeout=60)
    try:
        connection.request(method, path, body, headers or {}, encode_chunked=hasattr(body, "__next__"))
        answer = connection.getresponse()
        picture = answer.headers.get_content_maintype() == "image"
        text = answer.read().decode(errors="replace" if picture else "strict")
        return Answer(answer.status, {name.lower(): value for name, value in answer.getheaders()}, text)
    finally:
        connection.close()


def get(url, path) -> Answer:
    return call(url, "GET", path)


def score(url, request, **headers) -> Answer:
    """Ask for scores. A request that is no text is written as JSON; an underscore in a header's name is a hyphen."""
    body = request if isinstance(request, (str, bytes)) else json.dumps(request)
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return call(url, "POST", "/v1/score", body.encode() if isinstance(body, str) else body, JSON | named)


def connected(url) -> socket.socket:
    place = urlsplit(url)
    return socket.create_connection((place.hostname, place.port), timeout=60)


def exchange(url, sent: bytes, *, until: int | None = None, sends_no_more: bool = False) -> bytes:
    """What comes back for raw bytes: all of it, or as much as holds ``until`` status lines."""
    received = b""
    with connected(url) as connection:
        connection.sendall(sent)
        if sends_no_more:
            connection.shutdown(socket.SHUT_WR)
        while until is None or len(re.findall(rb"HTTP/1\.1 \d", received)) < until or not received.endswith(b"}"):
            part = connection.recv(1 << 16)
            if not part:
                break
            received += part
    return received


def metrics(url) -> dict[str, float]:
    """The samples of /metrics: name with labels -> value."""
    lines = [line for line in get(url, "/metrics").text.splitlines() if line and not line.startswith("#")]
    return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines)}
