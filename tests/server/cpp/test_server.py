"""What the server in C++ alone has: packages that do not fit, several models, broken connections, and how it stops."""

import os
import re
import shutil
import subprocess
import time
import zipfile
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from tests.serving.archives import rewritten, with_json
from tests.serving.test_full_temporary_folder import MOUNT, can_mount

from ..calls import connected, get, metrics, score
from ..contract import ONE, ROWS, assert_scores, raw, table
from ..contract_in_use import wait_for
from ..process import CppServer

ABOUT = "extra/dcrnn_fast.json"
POST = raw()


@pytest.fixture
def start(cpp_program, compiled, tmp_path, lasting):
    numbers = count()

    def begin(served=compiled, **options):
        return lasting(CppServer(cpp_program, served, tmp_path / f"errors-{next(numbers)}", **options))

    return begin


def refused(program, *arguments):
    """The exit code and the words of a server that does not start."""
    done = subprocess.run([program, *arguments], capture_output=True, text=True, timeout=60)
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1
    return done.returncode, done.stderr


def test_a_reload_keeps_no_model_of_before_in_memory(start):
    """Of its code, whose file is gone, at most that of two models: the threads that called the last ones may not have ended yet."""
    server = start()
    for number in range(1, 9):
        assert score(server.url, ONE).status == 200
        server.reload()
        wait_for(server, 'dcrnn_fast_reloads_total{result="ok"}', number)
    with open(f"/proc/{server.process.pid}/maps") as maps:
        kept = {line.split()[4] for line in maps if "aotinductor" in line and line.rstrip().endswith("(deleted)")}
    assert len(kept) <= 2, f"the code of {len(kept)} models is in memory after 8 reloads"


def test_a_container_s_limit_is_the_default_number_of_threads(cpp_program):
    group = next(Path("/sys/fs/cgroup") / path for path in ("cpu", "") if (Path("/sys/fs/cgroup") / path).is_dir()) / f"test-{os.getpid()}"
    try:
        group.mkdir()
    except OSError as error:
        pytest.skip(f"needs leave to make a control group: {error}")
    try:
        limit = [("cpu.max", "50000 100000")] if (group / "cpu.max").exists() else [("cpu.cfs_quota_us", "50000")]
        for name, text in limit:
            (group / name).write_text(text)
        join = f"echo $$ > {group}/cgroup.procs && exec {cpp_program} --help"
        done = subprocess.run(["sh", "-c", join], capture_output=True, text=True, timeout=60)
    except OSError as error:
        pytest.skip(f"needs leave to limit the CPUs of a control group: {error}")
    finally:
        group.rmdir()
    assert re.findall(r"--(?:io-)?threads (\d+)", done.stdout) == ["1", "1"], done.stderr


def answer_of(connection):
    """All that comes until the other side ends the connection."""
    return b"".join(iter(lambda: connection.recv(1 << 16), b""))


def changed(**changes):
    return {ABOUT: with_json(lambda about: about.update(changes))}


def without_code(package, path):
    with zipfile.ZipFile(package) as archive:
        names = [name.partition("/")[2] for name in archive.namelist()]
    rewritten(package, path, {name: lambda _: None for name in names if "aotinductor" in name})


def with_an_entry_twice(package, path):
    shutil.copyfile(package, path)
    with zipfile.ZipFile(path, "a") as archive, pytest.warns(UserWarning, match="Duplicate name"):
        archive.writestr(next(name for name in archive.namelist() if name.endswith("extra/encoder.json")), b"{}")


def flipped(package, path):
    content = bytearray(package.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


UNFIT = {
    "format": (changed(format=7), "has format 7, and this server reads format 1; build the server of dcrnn_fast"),
    "kind": (changed(kind="pt2"), 'is of format "pt2"; export the run with --format aoti'),
    "torch": (changed(torch="2.1.0"), "was compiled for PyTorch 2.1.0, and this server was built with .*; build the server"),
    "cpu": (changed(cpu={"system": "Linux", "machine": "sparc", "instructions": []}), 'another kind of CPU: its machine is "sparc"'),
    "operators": (changed(operators={"dcrnn_fast::none": "x"}), "calls the operator dcrnn_fast::none, which this server lacks"),
    "schema": (changed(operators={"dcrnn_fast::cross_rnn": "x"}), "whose operator dcrnn_fast::cross_rnn takes other arguments"),
    "encoder": ({"extra/encoder.json": lambda _: b"{}"}, "was changed after it was written .*; export the run again"),
    "another encoder": ({"extra/encoder.json": lambda text: text.replace(b'"c1"', b'"c9"', 1)}, "its encoder is another model's"),
    "cells": (changed(cells=None), "is not a file of `dcrnn-fast export`, or was changed after it was written .*; export the run again"),
    "no description": ({ABOUT: lambda _: None}, "is not a file of `dcrnn-fast export`"),
    "no json": ({ABOUT: lambda _: b"{"}, "is not a file of `dcrnn-fast export`"),
    "no code": (without_code, "export the run again"),
    "an entry twice": (with_an_entry_twice, "it has an entry twice"),
    "flipped": (flipped, "is damaged.*export the run again"),
    "cut": (lambda package, path: path.write_bytes(package.read_bytes()[:-1000]), "is damaged.*export the run again"),
    "empty": (lambda package, path: path.write_bytes(b""), "is damaged.*export the run again"),
}


@pytest.mark.parametrize(("changes", "words"), UNFIT.values(), ids=UNFIT)
def test_a_package_that_does_not_fit_is_refused_with_the_remedy(cpp_program, compiled, tmp_path, changes, words):
    path = tmp_path / "shop.pt2"
    changes(compiled, path) if callable(changes) else rewritten(compiled, path, changes)
    code, said = refused(cpp_program, "--model", path, "--port", "0")
    assert code == 1
    assert str(path) in said
    assert re.search(words, said), said


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "--model is missing"),
        (["--model", "x", "--port", "65536"], "--port: got '65536', expected a whole number from 0 to 65535"),
        (["--model", "x", "--threads=0"], "--threads: got '0'"),
        (["--model", "x", "--rows", "3"], "unknown option --rows"),
        (["--model"], "--model needs a value"),
        (["--model", "x", "--max-queue-rows", "3"], "--max-queue-rows is 3, expected at least --max-rows"),
    ],
)
def test_an_option_that_cannot_be_used_is_named(cpp_program, arguments, words):
    code, said = refused(cpp_program, *arguments)
    assert (code, words in said) == (2, True), said


def test_a_place_where_it_cannot_listen_is_named(cpp_program, compiled, start):
    port = str(urlsplit(start().url).port)
    code, said = refused(cpp_program, "--model", compiled, "--port", port)
    assert (code, f"cannot listen on --host 127.0.0.1 --port {port}: Address already in use" in said) == (1, True), said


def test_requests_that_wait_are_scored_together(start, ranker):
    server = start(threads=1)
    expected, big = ranker.predict(ONE["columns"]), {"columns": table(10_000)}
    for _ in range(100):  # until small requests came while the large one was scored
        before = metrics(server.url)
        with ThreadPoolExecutor(9) as pool:
            large = pool.submit(score, server.url, big)
            for answer in pool.map(lambda _: score(server.url, ONE), range(8)):
                assert_scores(answer, expected)
            assert large.result().json["rows"] == 10_000
        after = metrics(server.url)
        if after["dcrnn_fast_batch_rows_count"] - before["dcrnn_fast_batch_rows_count"] < 9:
            return
    raise AssertionError("100 times, each of 8 requests was scored alone")


def test_another_package_takes_the_place_of_one_and_a_damaged_one_does_not(start, compiled, tmp_path):
    path = rewritten(compiled, tmp_path / "shop.pt2", changed(model="a" * 64))
    server = start(path)
    assert score(server.url, ONE).json["model"] == "a" * 12
    rewritten(compiled, tmp_path / "next.pt2", changed(model="b" * 64)).replace(path)
    server.reload()
    wait_for(server, 'dcrnn_fast_reloads_total{result="ok"}', 1)
    assert score(server.url, ONE).json["model"] == get(server.url, "/v1/model").json["model"] == "b" * 12
    flipped(path, tmp_path / "damaged.pt2")
    (tmp_path / "damaged.pt2").replace(path)
    server.reload()
    wait_for(server, 'dcrnn_fast_reloads_total{result="failed"}', 1)
    assert score(server.url, ONE).json["model"] == "b" * 12
    assert "the earlier model stays: " in server.errors.read_text()
    assert 'dcrnn_fast_model_info{model="bbbbbbbbbbbb"}' in metrics(server.url)


def test_a_temporary_folder_without_room_is_named(cpp_program, compiled, tmp_path):
    (full := tmp_path / "full").mkdir()
    if not can_mount(full):
        pytest.skip("this user cannot mount a file system in a namespace of its own")
    arguments = ["64k", full, cpp_program, compiled]
    code, said = refused("unshare", "-Urm", "sh", "-c", f"{MOUNT} && TMPDIR=$1 exec $2 --port 0 --model $3", *arguments)
    assert (code, f"there is no room for the code of {compiled} in the temporary folder {full}: it takes" in said) == (1, True), said


def test_a_pipe_is_no_package_and_holds_nothing_up(start, cpp_program, compiled, tmp_path):
    path, pipe = tmp_path / "shop.pt2", tmp_path / "pipe"
    os.mkfifo(pipe)
    code, said = refused(cpp_program, "--model", pipe)
    assert (code, "is not a regular file" in said) == (1, True), said
    shutil.copyfile(compiled, path)
    server = start(path)
    pipe.replace(path)
    server.reload()
    wait_for(server, 'dcrnn_fast_reloads_total{result="failed"}', 1)
    path.unlink()
    shutil.copyfile(compiled, path)
    server.reload()
    wait_for(server, 'dcrnn_fast_reloads_total{result="ok"}', 1)
    assert server.stop() == 0


def test_broken_connections_end_alone(start):
    server = start()
    for sent in (POST[:20], POST[:-5], POST.replace(b"Content-Length: ", b"Content-Length: 9"), b"\0" * 100, b""):
        connected(server.url).sendall(sent)  # and closes it
    assert score(server.url, ONE).status == 200


def test_an_unfinished_request_and_an_idle_connection_are_ended(start):
    server = start(transfer_seconds=1, idle_seconds=1)
    for sent in (POST[:-5], POST[:30], b""):
        with connected(server.url) as connection:
            connection.sendall(sent)
            assert answer_of(connection) == b""
    assert score(server.url, ONE).status == 200


def test_when_it_stops_it_answers_what_has_begun_and_is_not_ready(start, ranker):
    server = start()
    with connected(server.url) as begun, connected(server.url) as probe, connected(server.url) as idle:
        begun.sendall(POST[:-10])
        probe.sendall(b"GET /health/rea")
        idle.sendall(POST)
        assert idle.recv(1 << 16).startswith(b"HTTP/1.1 200")
        server.ask_to_stop()
        assert answer_of(idle) == b""
        begun.sendall(POST[-10:])
        probe.sendall(b"dy HTTP/1.1\r\nHost: a\r\n\r\n")
        answer = answer_of(begun)
        assert answer.startswith(b"HTTP/1.1 200")
        assert b"Connection: close\r\n" in answer
        assert answer_of(probe).startswith(b"HTTP/1.1 503")
    assert server.stop() == 0


def test_a_request_that_does_not_arrive_holds_it_no_longer_than_the_grace(start):
    server = start(grace=0)
    with connected(server.url) as begun:
        begun.sendall(POST[:-10])
        get(server.url, "/health/live")
        began = time.monotonic()
        assert server.stop() == 0
        assert time.monotonic() - began < 20


def test_nothing_stays_behind(start, compiled, tmp_path, monkeypatch):
    monkeypatch.setenv("TMPDIR", str(tmp_path / "own"))
    (tmp_path / "own").mkdir()
    server = start(compiled)
    server.reload()
    wait_for(server, 'dcrnn_fast_reloads_total{result="ok"}', 1)
    assert score(server.url, {"columns": ROWS}).status == 200
    assert server.stop() == 0
    assert not list((tmp_path / "own").iterdir())
