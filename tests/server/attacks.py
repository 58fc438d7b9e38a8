"""The attacks of `make attack`: what hostile clients and a careless operator do to a server, and what it must do then.

Each takes a :class:`Target`, a :class:`Form` and an empty folder, and returns in words what it measured, or raises :class:`Found`. What
depends on the machine's speed has loose bounds, in the short form above all, which runs where others work too.
"""

import itertools
import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from http.client import HTTPConnection
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import numpy as np

from dcrnn_fast.serving.http.openapi import describe_api

from .calls import JSON, connected, get, metrics
from .contract import ROWS, raw
from .process import Process

IDLE, ASKING = 1200, 4
"""Connections of the attacks; the last: those that ask while files are replaced, and for the memory."""
MOST_FILES = 1024
PERIOD = 0.003
"""Seconds from one replacement of the served file to the next."""
MOST_LINES = 100
"""On stderr, of one server under one attack."""
SLACK = 8 << 20
"""Bytes by which the memory may grow, however many requests and reloads there are."""
SCORED = json.dumps({"columns": ROWS})
SCHEMATHESIS = """[checks]
not_a_server_error.expected-statuses = ["2xx", "3xx", "4xx", "503"]
negative_data_rejection.expected-statuses = ["400", "404", "405", "413", "415", "503"]
"""
LARGE = json.dumps({"columns": {"size": [1] * 10_000}, "shared": {"colour": "c1", "shape": "s0"}})


class Form(NamedTuple):
    """How much is asked; ``median`` and ``longest`` bound the seconds in which /health/live answers."""

    lives: int
    slow: int
    reloads: int
    requests: int
    examples: int
    median: float
    longest: float


FULL = Form(lives=300, slow=60, reloads=30, requests=50_000, examples=300, median=0.2, longest=0.5)
SHORT = Form(lives=50, slow=15, reloads=5, requests=3000, examples=40, median=2.0, longest=10.0)


class Found(Exception):  # noqa: N818 (it is no error of this program)
    """A broken promise."""


def require(condition: bool, words: str) -> None:
    if not condition:
        raise Found(words)


class Target(NamedTuple):
    """A server to attack: its command, which the path of what it serves follows, and two models that it may serve.

    ``expected`` holds by a model's id its scores of ``ROWS``. A client must take its answer within ``taking`` seconds.
    """

    name: str
    words: list[Any]
    models: tuple[Path, Path]
    expected: dict[str, dict[str, Any]]
    taking: float = 30.0

    @contextmanager
    def served(self, folder, *more, **options):
        """A process that serves the first model by the name ``folder / "served"``, and has written few lines when the block ends."""
        place(self.models[0], folder / "served")
        with Process([*self.words, folder / "served", *more], folder / "errors", **options) as server:
            yield server
            lines = server.lines
            require(len(lines) < MOST_LINES, f"it wrote {len(lines)} lines to stderr, expected fewer than {MOST_LINES}: {lines[-1:]}")

    def check(self, status: int, body: bytes) -> str:
        """The id of the model in an answer to ``SCORED``, whose scores must be that model's."""
        require(status == 200, f"a request was answered with {status}: {body[:200]!r}")
        content = json.loads(body)
        require(content["model"] in self.expected, f"an answer has the id {content['model']}, expected one of {list(self.expected)}")
        for name, values in self.expected[content["model"]].items():
            found = np.array(content["scores"][name], float)
            right = found.shape == values.shape and np.allclose(found, values, rtol=1e-5, atol=1e-7)
            require(right, f"beside the id {content['model']} the scores {name} are {found}, expected {values}")
        return content["model"]


def place(model, at):
    """Give a file, or a link to a folder, another name by a rename."""
    beside = at.with_name("beside")
    beside.unlink(missing_ok=True)
    beside.symlink_to(model) if model.is_dir() else os.link(model, beside)
    os.replace(beside, at)
    beside.unlink(missing_ok=True)  # a rename leaves it where both are one file


class Client:
    """One connection that asks for scores again and again."""

    def __init__(self, url):
        self._connection = HTTPConnection(urlsplit(url).netloc, timeout=60)

    def ask(self, body):
        self._connection.request("POST", "/v1/score", body, JSON)
        answer = self._connection.getresponse()
        return answer.status, answer.read()

    def close(self):
        self._connection.close()


def live(url):
    """The seconds in which /health/live answered, on a connection of its own."""
    start = time.perf_counter()
    status = get(url, "/health/live").status
    require(status == 200, f"/health/live was answered with {status}")
    return time.perf_counter() - start


def told(seconds, form):
    """The latencies in words, when they are within the form's bounds."""
    middle, longest = median(seconds), max(seconds)
    words = f"/health/live within {1000 * middle:.1f} ms (median) and {1000 * longest:.0f} ms (longest) of {len(seconds)}"
    require(middle <= form.median and longest <= form.longest, f"{words}, expected {form.median} s and {form.longest} s")
    return words


def takes_little(url):
    """A connection that waits for nothing, and of whose answers the system holds few bytes."""
    place = urlsplit(url)
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    connection.connect((place.hostname, place.port))
    connection.setblocking(False)
    return connection


def score_once(target, url):
    client = Client(url)
    try:
        return target.check(*client.ask(SCORED))
    finally:
        client.close()


def idle_clients(target, form, folder):
    """1,200 connections that ask for nothing, at a server that may open 1,024 files: others are answered at once."""
    with target.served(folder, most_files=MOST_FILES) as server:
        idle = [connected(server.url) for _ in range(IDLE)]
        seconds = [live(server.url) for _ in range(form.lives)]
        score_once(target, server.url)
        for one in idle:
            one.close()
        return f"{len(idle):,} connections, {told(seconds, form)}, {len(server.lines)} lines on stderr"


def slow_clients(target, form, folder):
    """Clients that ask for large answers and take nothing: others are answered, and the server ends these in time."""
    with target.served(folder, "--max-queue-rows", "1000000") as server:  # a short refusal would need nobody to take it
        score_once(target, server.url)
        before, start, seconds = server.open_files, time.monotonic(), []
        slow, held, rows, last = [takes_little(server.url) for _ in range(form.slow)], 0, 0.0, start
        while (now := time.monotonic()) - start < 2 or server.open_files > before + 2:
            if now - start < 1:
                for one in slow:
                    with suppress(BlockingIOError):  # the server reads no more before it has answered
                        one.send(raw(body=LARGE) * 20)
            held = max(held, server.open_files - before)
            seconds.append(live(server.url))
            rows, scored = metrics(server.url)["dcrnn_fast_rows_total"], rows
            last = now if rows > scored else last
            require(now - last < 2 * target.taking + 10, f"clients that take nothing stay for {now - last:.0f} s: {target.taking} at most")
            time.sleep(0.02)
        require(held >= form.slow - 1, f"it held {held} slow clients at once, expected {form.slow}")
        score_once(target, server.url)
        for one in slow:
            one.close()
        return (
            f"{form.slow} clients that take nothing ended {now - last:.0f} s after the last scores, {told(seconds, form)}, "
            f"{len(server.lines)} lines on stderr"
        )


def files_replaced(target, form, folder):
    """The served file is another model every 3 ms, while it is loaded again and again: scores belong to the id beside them."""
    over = threading.Event()

    def replace():
        for model in itertools.cycle(reversed(target.models)):
            place(model, folder / "served")
            if over.wait(PERIOD):
                return

    def ask(url):
        client = Client(url)
        try:
            while not over.is_set():
                ids.append(target.check(*client.ask(SCORED)))
        finally:
            client.close()

    with target.served(folder) as server, ThreadPoolExecutor(ASKING + 1) as pool:
        ids, seconds = [], []
        asked = [pool.submit(ask, server.url) for _ in range(ASKING)]
        replacing = pool.submit(replace)
        try:
            for number in range(10 * form.reloads):
                if number >= form.reloads and len(set(ids)) == 2:
                    break
                load_again(server, seconds)
        finally:
            over.set()
        for one in [replacing, *asked]:
            one.result()
        good, bad = reloads(server)
        times = [ids.count(one) for one in target.expected]
        require(
            good > bad and min(times) > 0, f"{good} reloads worked, {bad} did not, and models scored {times} times; expected most, both"
        )
        return f"{good} reloads, {bad} refused, models scored {times} times and rightly, {told(seconds, form)}"


def reloads(server):
    found = metrics(server.url)
    return [int(found[f'dcrnn_fast_reloads_total{{result="{result}"}}']) for result in ("ok", "failed")]


def load_again(server, seconds):
    """Ask for a reload and wait until it is done."""
    before, start = sum(reloads(server)), time.monotonic()
    server.reload()
    seconds.append(live(server.url))
    while sum(reloads(server)) == before:
        seconds.append(live(server.url))
        require(time.monotonic() - start < 60, "a reload takes more than 60 s")


def memory_kept(target, form, folder):
    """Requests, of which one in ten is refused, and reloads leave no memory behind."""

    def ask(url, numbers):
        client = Client(url)
        for number in numbers:
            new = {"colour": [f"c{number % 11}", f"n{number}"], "shape": ["s0", None], "size": [number, 0.5], f"x{number}": [1, 2]}
            status, body = client.ask(json.dumps({"columns": new | ({"size": ["no"]} if number % 10 == 0 else {})}))
            expected = 400 if number % 10 == 0 else 200
            require(status == expected, f"a request was answered with {status}, expected {expected}: {body[:200]!r}")
        client.close()

    def ask_all(server, first, count):
        with ThreadPoolExecutor(ASKING) as pool:
            asked = [pool.submit(ask, server.url, range(first + one, first + count, ASKING)) for one in range(ASKING)]
            for one in asked:
                one.result()
        return server.memory

    with target.served(folder) as server:
        warm = form.requests // 10
        for _ in range(3):
            load_again(server, [])
        start = ask_all(server, 0, warm)
        asked = ask_all(server, warm, form.requests) - start
        for _ in range(form.reloads):
            load_again(server, [])
        loaded = ask_all(server, warm + form.requests, warm) - start - asked
        words = f"{start >> 20} MiB resident, {asked / 2**20:+.1f} after {form.requests:,} requests, {loaded / 2**20:+.1f} after"
        words += f" {form.reloads:,} reloads"
        require(max(asked, loaded) <= SLACK, f"{words}, expected at most {SLACK >> 20} MiB more")
        return words


def fuzz_by_the_description(target, form, folder):
    """Requests that the server's description allows and forbids are scored and refused."""
    with target.served(folder) as server:
        return fuzz_at(server.url, folder, form.examples)


def fuzz_at(url, folder, examples):
    """Schemathesis asks a running server what its description allows and forbids, from a fixed seed: what fails fails again.

    No answer may be a 5xx but 503, none may differ from the description, what the description forbids must be refused, and some requests
    must be scored. Descriptions cannot say that all lists have one length, so what follows them may be refused.
    """
    require(find_spec("schemathesis") is not None, "the fuzz needs schemathesis, which `make attack` installs")
    (folder / "openapi.json").write_text(json.dumps(describe_api(get(url, "/v1/model").json)))
    (folder / "schemathesis.toml").write_text(SCHEMATHESIS)
    before = answers_by_status(url)
    words = [sys.executable, "-c", "from schemathesis.cli import schemathesis; schemathesis()"]
    words += ["--config-file", folder / "schemathesis.toml", "run", folder / "openapi.json", "--url", url, "--seed", "1", "--no-color"]
    words += ["--max-examples", str(examples), "--exclude-checks", "positive_data_acceptance", "--warnings", "off"]
    words += ["--generation-database", "none", "--request-timeout", "30"]
    done = subprocess.run(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    counted = {status: int(count - before.get(status, 0)) for status, count in answers_by_status(url).items()}
    said = "\n".join(line[:500] for line in done.stdout.splitlines())
    require(done.returncode == 0, f"schemathesis ended with {done.returncode}:\n{said}")
    wrong = [status for status, count in counted.items() if status.startswith("5") and status != "503" and count]
    enough = min(counted.get("200", 0), counted.get("400", 0)) >= examples // 10
    require(enough and not wrong, f"answers by status are {counted}, expected no 5xx but 503, and that part is scored and part refused")
    return f"answers by status: {counted}"


def answers_by_status(url):
    found = {name: value for name, value in metrics(url).items() if name.startswith("dcrnn_fast_requests_total")}
    return {name.split('"')[1]: value for name, value in found.items()}


ATTACKS: dict[str, Callable[[Target, Form, Path], str]] = {
    "idle": idle_clients,
    "slow": slow_clients,
    "replace": files_replaced,
    "memory": memory_kept,
    "fuzz": fuzz_by_the_description,
}
HOSTILE = "idle", "slow"
"""The attacks of clients that a proxy keeps from the server in Python."""
