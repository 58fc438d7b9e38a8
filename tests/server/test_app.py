"""What the server in Python does beside the contract: its pages, its guards, lists in cells, and what happens when it fails or stops."""

import http.client
import json
import socket
import threading
from importlib.util import find_spec
from urllib.parse import urlsplit

import numpy as np
import pandas as pd
import pytest
import torch
import yaml

from dcrnn_fast import DCRNN, Ranker
from dcrnn_fast.data import Encoder
from dcrnn_fast.errors import MissingExtra, check_installed
from dcrnn_fast.serving.http import PACKAGES
from dcrnn_fast.serving.http import request as score_request
from dcrnn_fast.serving.http.served import Served
from dcrnn_fast.training import train
from tests.training.tiny import tiny_config

from .calls import JSON, call, get, metrics, score
from .contract import ONE, assert_scores, error_of

needs_packages = pytest.mark.skipif(
    any(find_spec(name) is None for name in PACKAGES), reason="needs the extra serve: pip install 'dcrnn_fast[serve]'"
)


class Held:
    """A ranker that scores when it may: it stands for a slow one."""

    unseen = None

    def __init__(self, ranker):
        self.ranker, self.encoder, self.columns, self.names = ranker, ranker.encoder, ranker.columns, ranker.names
        self.called, self.may_go_on = threading.Semaphore(0), threading.Semaphore(0)

    def predict_encoded(self, ids, dense):
        self.called.release()
        assert self.may_go_on.acquire(timeout=30)
        return self.ranker.predict_encoded(ids, dense)


class Gives(Held):
    """A ranker that gives the same scores for every request."""

    def __init__(self, ranker, scores):
        super().__init__(ranker)
        self.scores = scores

    def predict_encoded(self, ids, dense):
        return {"click": self.scores}


def ask(url, request):
    """Ask on another thread; returns a function that waits for the answer."""
    found = []
    thread = threading.Thread(target=lambda: found.append(score(url, request)))
    thread.start()

    def answer():
        thread.join(30)
        return found[0]

    return answer


@needs_packages
def test_a_full_queue_is_a_503_and_what_waits_is_scored(serve, ranker):
    held = Held(ranker)
    server = serve(held, inline_rows=0, max_rows=2, max_queue_rows=2)
    first = ask(server.url, ONE)
    assert held.called.acquire(timeout=30)
    second = ask(server.url, {"columns": {name: cells * 2 for name, cells in ONE["columns"].items()}})
    while metrics(server.url)["dcrnn_fast_queue_rows"] < 2:
        pass
    refused = score(server.url, ONE)
    assert "2 rows are waiting" in error_of(refused, 503)
    assert refused.headers["retry-after"] == "1"
    assert metrics(server.url)['dcrnn_fast_rejected_total{reason="overload"}'] == 1
    held.may_go_on.release(2)
    assert (first().status, second().status) == (200, 200)


@needs_packages
@pytest.mark.parametrize("grace", [30.0, 0.1])
def test_stopping_it_is_not_ready_and_answers_what_it_accepted_within_its_grace(serve, ranker, grace):
    held = Held(ranker)
    server = serve(held, inline_rows=0, grace=grace)
    place = urlsplit(server.url)
    running = ask(server.url, ONE)
    assert held.called.acquire(timeout=30)
    waiting = ask(server.url, ONE)
    while metrics(server.url)["dcrnn_fast_queue_rows"] < 1:
        pass
    half = socket.create_connection((place.hostname, place.port))
    half.sendall(b"POST /v1/score HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: 9\r\n\r\n{")
    open_ = http.client.HTTPConnection(place.hostname, place.port, timeout=30)
    open_.request("GET", "/health/ready")
    assert json.loads(open_.getresponse().read()) == {"status": "ready"}
    server.application.is_stopping = True
    for method, path, body in (("GET", "/health/ready", None), ("POST", "/v1/score", json.dumps(ONE))):
        open_.request(method, path, body, JSON)
        answer = open_.getresponse()
        assert (answer.status, answer.getheader("Retry-After"), "stopping" in answer.read().decode()) == (503, "1", True)
    server.ask_to_stop()
    if grace > 1:
        half.sendall(b"       }")
        held.may_go_on.release(2)
        assert waiting().status == 200
        assert half.recv(1000).startswith(b"HTTP/1.1 400")
    else:
        assert "time for what waits is over" in error_of(waiting(), 503)
        held.may_go_on.release()
        assert half.recv(1000) == b""
    assert running().status == 200
    assert server.stop() == 0


@needs_packages
def test_a_failure_is_a_503_that_says_so_and_the_next_request_is_scored(serve, ranker, monkeypatch, caplog):
    server = serve(ranker)
    with monkeypatch.context() as patch:
        patch.setattr(Ranker, "predict_encoded", lambda *_: 1 / 0)
        assert "its log says how" in error_of(score(server.url, ONE), 503)
    assert_scores(score(server.url, ONE), ranker.predict(ONE["columns"]))
    server.stop()
    assert "ZeroDivisionError" in caplog.text


@needs_packages
def test_the_page_for_trying_it_out_needs_no_other_server(serve, ranker):
    server = serve(ranker)
    page = get(server.url, "/docs")
    assert page.status == 200
    assert "swagger-ui-bundle.js" in page.text
    assert "//" not in page.text.replace("<!DOCTYPE", "").split("<script>")[0]
    for part in page.text.split('"'):
        if part.startswith("/static"):
            assert get(server.url, part).status == 200, part


@needs_packages
def test_the_description_names_the_columns_of_the_model_and_its_example_is_scored(serve, ranker):
    server = serve(ranker, max_rows=7)
    description = get(server.url, "/openapi.json").json
    of_score = description["paths"]["/v1/score"]["post"]
    assert sorted(of_score["responses"]) == ["200", "400", "413", "415", "503"]
    request = description["components"]["schemas"]["ScoreRequest"]
    assert list(request["properties"]["columns"]["properties"]) == list(ranker.columns)
    assert description["components"]["schemas"]["Cells"]["maxItems"] == 7
    assert score(server.url, request["examples"][0]).status == 200


@needs_packages
def test_after_a_reload_requests_that_run_end_with_the_old_model_and_the_description_is_of_the_new_one(serve, ranker):
    held, encoder = Held(ranker), Encoder(tasks=["click"], num_embeddings={"a": 2}, dense=[], vocabulary={"a": ["<oov>", "x"]}, scaling={})
    other = Ranker(DCRNN(encoder.num_embeddings, tasks=encoder.tasks), encoder)
    server = serve(held, inline_rows=0)
    running = ask(server.url, ONE)
    assert held.called.acquire(timeout=30)
    server.application._load = lambda: Served(other, "0123456789ab", "pt2", "0", "0")
    server.reload()
    while metrics(server.url)['dcrnn_fast_reloads_total{result="ok"}'] < 1:
        pass
    assert get(server.url, "/v1/model").json["model"] == "0123456789ab"
    assert list(get(server.url, "/openapi.json").json["components"]["schemas"]["Scores"]["properties"]["scores"]["properties"]) == ["click"]
    assert [name for name in metrics(server.url) if "model_info" in name] == ['dcrnn_fast_model_info{model="0123456789ab"}']
    held.may_go_on.release()
    assert_scores(running(), ranker.predict(ONE["columns"]))
    assert_scores(score(server.url, {"shared": {"a": "x"}}), other.predict({"a": ["x"]}))


@needs_packages
def test_whatever_stops_a_reload_the_next_one_is_tried(serve, ranker, capsys):
    server = serve(ranker)
    good, server.application._load = server.application._load, lambda: {}["no\nmodel"]
    server.reload()
    while metrics(server.url)['dcrnn_fast_reloads_total{result="failed"}'] < 1:
        pass
    server.application._load = good
    server.reload()
    while metrics(server.url)['dcrnn_fast_reloads_total{result="ok"}'] < 1:
        pass
    lines = capsys.readouterr().err.splitlines()
    assert lines == ["error: not loaded again: 'no\\nmodel'; the earlier model scores on"]


@pytest.fixture(scope="module")
def log_ranker(tmp_path_factory):
    """Of a run with a field of several values, derived columns and a hash."""
    folder = tmp_path_factory.mktemp("log")
    pd.DataFrame(
        {
            "tags": ["a|b", "b", "", "c|a"] * 30,
            "city": ["x", "y", "x", None] * 30,
            "user": ["u1", "u2", None, "u3"] * 30,
            "time": [1_700_000_000 + 3600 * row for row in range(120)],
            "position": [1, 2, 3, 4] * 30,
            "click": [0, 1, 1, 0] * 30,
        }
    ).to_csv(folder / "log.csv", index=False)
    schema = {
        "name": "log",
        "files": {"all": "log.csv", "test_fraction": 0.2},
        "tasks": [{"name": "click", "column": "click"}],
        "derived": [{"name": "hour", "column": "time", "as": "hour"}, {"name": "both", "cross": ["city", "hour"]}],
        "min_count": 1,
        "categorical": [
            "city",
            "both",
            "position",
            {"column": "user", "hash_buckets": 10},
            {"column": "tags", "max_values": 2, "separator": "|"},
        ],
        "train_only": [{"column": "position", "score_as": 1}],
        "numeric": [{"column": "hour", "buckets": 4}],
    }
    (folder / "log.yaml").write_text(yaml.safe_dump(schema))
    train(tiny_config(folder / "log.yaml", optimiser__epochs=1, model__first_order=True), folder / "run")
    return Ranker.load(folder / "run")


@needs_packages
@pytest.mark.parametrize("tags", [["a|b", "", None], [["a", "b"], [], None], [["b", None], ["z"], ["a", "b", "c"]]], ids=str)
def test_lists_derived_columns_and_hashes_are_read_as_the_ranker_reads_them(serve, log_ranker, tags):
    columns = {"tags": tags, "city": ["x", "y", None], "user": [None, 7, 12], "time": [1_700_003_600, None, 0]}
    answer = score(serve(log_ranker).url, {"columns": columns})
    assert_scores(answer, log_ranker.predict(columns))


@needs_packages
def test_a_shared_list_is_that_of_every_row(serve, log_ranker):
    columns = {"city": ["x", "y", None], "user": ["u1", "u1", "u2"]}
    answer = score(serve(log_ranker).url, {"columns": columns, "shared": {"tags": ["a", "b"], "time": 1_700_000_000}})
    assert_scores(answer, log_ranker.predict(columns | {"tags": [["a", "b"]] * 3, "time": [1_700_000_000] * 3}))


@needs_packages
@pytest.mark.parametrize("cell", ["x" * 2000, ["x"] * 2000, ["x" * 2000]], ids=["text", "values", "a long value"])
def test_a_shared_cell_too_large_for_so_many_rows_is_a_413(serve, log_ranker, monkeypatch, cell):
    monkeypatch.setattr(score_request, "MAX_SPREAD", 5000)
    server = serve(log_ranker)
    columns = {"city": ["x"] * 3, "user": ["u1"] * 3}
    assert "expected at most 5,000" in error_of(score(server.url, {"columns": columns, "shared": {"tags": cell, "time": 0}}), 413)
    assert score(server.url, {"columns": {name: ["x"] for name in columns}, "shared": {"tags": cell, "time": 0}}).status == 200


@needs_packages
def test_half_a_surrogate_pair_in_a_list_is_a_400(serve, log_ranker):
    body = '{"shared": {"tags": ["a", "\\udfff"], "city": "x", "user": "u1", "time": 0}}'
    assert "'tags'" in error_of(score(serve(log_ranker).url, body), 400)


@needs_packages
def test_a_body_too_large_by_its_length_is_refused_at_once_and_the_client_may_ask_on(serve, ranker):
    place = urlsplit(serve(ranker, max_body_bytes=1000).url)
    with socket.create_connection((place.hostname, place.port), timeout=30) as connection:
        connection.sendall(b"POST /v1/score HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: 1001\r\n\r\n")
        assert connection.recv(1000).startswith(b"HTTP/1.1 413")
        connection.sendall(b" " * 1001 + b"GET /health/live HTTP/1.1\r\nHost: a\r\n\r\n")
        assert connection.recv(1000).startswith(b"HTTP/1.1 200")


@needs_packages
def test_bodies_beyond_the_bytes_that_are_held_at_once_are_a_503_until_the_others_are_read(serve, ranker, monkeypatch):
    monkeypatch.setattr("dcrnn_fast.serving.http.app.BODIES", 2000)
    server = serve(ranker, max_body_bytes=2000)
    place, body = urlsplit(server.url), json.dumps(ONE | {"shared": {"note": "x" * 1500}}).encode()
    with socket.create_connection((place.hostname, place.port), timeout=30) as slow:
        head = f"POST /v1/score HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        slow.sendall(head.encode() + body[:-1])
        while (answer := score(server.url, body)).status == 200:  # the server has not read the other one yet
            pass
        assert f"holds {len(body) - 1:,} bytes of other requests" in error_of(answer, 503)
        assert answer.headers["retry-after"] == "1"
        assert_scores(score(server.url, ONE), ranker.predict(ONE["columns"]))
        slow.sendall(body[-1:])
        assert slow.recv(1000).startswith(b"HTTP/1.1 200")
    for _ in range(3):
        assert score(server.url, body).status == 200
    assert metrics(server.url)['dcrnn_fast_rejected_total{reason="overload"}'] == 1


@needs_packages
@pytest.mark.parametrize(
    "sent",
    [b"GET / HTTP/1.1\r\nX: " + b"x" * 9_000_000, b"GET / HTTP/1.1\r\n" + b"X: x\r\n" * 1_000_000],
    ids=["a header", "headers"],
)
def test_headers_without_an_end_end_the_connection(serve, ranker, sent):
    place = urlsplit(serve(ranker).url)
    with socket.create_connection((place.hostname, place.port), timeout=30) as connection, pytest.raises(ConnectionError):
        connection.sendall(sent)


@needs_packages
def test_further_connections_are_refused_and_told_when_to_try_again(serve, ranker):
    server = serve(ranker, max_connections=1)
    place = urlsplit(server.url)
    with socket.create_connection((place.hostname, place.port), timeout=30) as connection:
        connection.sendall(b"GET /health/live HTTP/1.1\r\nHost: a\r\n\r\n")
        assert connection.recv(1000).startswith(b"HTTP/1.1 200")
        answer = score(server.url, ONE)
        assert "too many connections" in error_of(answer, 503)
        assert (answer.headers["retry-after"], answer.headers["connection"]) == ("1", "close")


@needs_packages
def test_a_larger_body_is_parsed_on_another_thread_and_scored_alike(serve, ranker, monkeypatch):
    monkeypatch.setattr("dcrnn_fast.serving.http.app.INLINE", 10)
    server = serve(ranker)
    assert_scores(score(server.url, ONE), ranker.predict(ONE["columns"]))
    error_of(call(server.url, "POST", "/v1/score", b'{"columns": {"a": [1, 2, 3]}', JSON), 400)


@needs_packages
def test_scores_read_back_as_the_same_float32_and_one_that_is_not_finite_is_null(serve, ranker):
    written = np.random.default_rng(0).integers(0, 0x7F800000, 5000, np.int32).view(np.float32)  # of any size, also the smallest
    written[::7] = np.nan
    written[1::7] = np.inf
    server = serve(Gives(ranker, written))
    answer = score(server.url, {"columns": {name: cells * len(written) for name, cells in ONE["columns"].items()}})
    numbers = np.array([np.nan if number is None else number for number in answer.json["scores"]["click"]], np.float32)
    np.testing.assert_array_equal(numbers, np.where(np.isfinite(written), written, np.nan))


@needs_packages
def test_threads_score_alike(serve, ranker):
    server = serve(ranker, threads=3)
    answers = [ask(server.url, {"columns": {name: cells * size for name, cells in ONE["columns"].items()}}) for size in range(1, 20)]
    expected = ranker.predict(ONE["columns"])
    for size, answer in enumerate(answers, start=1):
        assert_scores(answer(), {name: np.repeat(values, size) for name, values in expected.items()})


def test_without_the_packages_of_the_extra_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setattr("dcrnn_fast.errors.find_spec", lambda name: None if name == "uvicorn" else object())
    with pytest.raises(MissingExtra, match=r"serve needs uvicorn; run: pip install 'dcrnn_fast\[serve\]'"):
        check_installed("serve", "serve", PACKAGES)


def test_a_table_that_is_not_scored_finitely_is_not_served(ranker, monkeypatch):
    from dcrnn_fast.serving.http.served import load_run

    monkeypatch.setattr(Ranker, "load", lambda *_, **__: ranker)
    monkeypatch.setattr(Ranker, "predict_encoded", lambda *_: {"click": torch.tensor([np.nan]).numpy()})
    with pytest.raises(ValueError, match="no finite score"):
        load_run("run")
