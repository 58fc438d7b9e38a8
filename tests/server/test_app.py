"""What the server in Python does beside the contract: its pages, its guards, lists in cells, and what happens when it fails or stops."""

import http.client
import json
import socket
import threading
from urllib.parse import urlsplit

import numpy as np
import pandas as pd
import pytest
import torch
import yaml

from dcrnn_fast import DCRNN, Ranker
from dcrnn_fast.data import Encoder
from dcrnn_fast.serving.http import request as score_request
from dcrnn_fast.training import train
from tests.training.tiny import tiny_config

from .calls import JSON, call, get, metrics, needs_packages, score
from .contract import ONE, assert_scores, error_of

pytestmark = needs_packages


class Held:
    """A ranker that scores when it may: it stands for a slow one."""

    unseen, id = None, "0" * 64

    def __init__(self, ranker):
        self.ranker, self.encoder, self.columns, self.names = ranker, ranker.encoder, ranker.columns, ranker.names
        self.called, self.may_go_on = threading.Semaphore(0), threading.Semaphore(0)

    def predict_encoded(self, ids, dense):
        self.called.release()
        assert self.may_go_on.acquire(timeout=30)
        return self.ranker.predict_encoded(ids, dense)


def ask(url, request):
    """Ask on another thread; returns a function that waits for the answer."""
    found = []
    thread = threading.Thread(target=lambda: found.append(score(url, request)))
    thread.start()

    def answer():
        thread.join(30)
        return found[0]

    return answer


@pytest.mark.parametrize("grace", [30.0, 0.1])
def test_a_stop_answers_what_it_accepted_within_its_grace(serve, ranker, grace):
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


def test_a_failure_is_a_503_that_says_so_and_the_next_request_is_scored(serve, ranker, monkeypatch, caplog):
    server = serve(ranker)
    with monkeypatch.context() as patch:
        patch.setattr(Ranker, "predict_encoded", lambda *_: 1 / 0)
        assert "its log says how" in error_of(score(server.url, ONE), 503)
    assert_scores(score(server.url, ONE), ranker.predict(ONE["columns"]))
    server.stop()
    assert "ZeroDivisionError" in caplog.text


def test_the_page_for_trying_it_out_needs_no_other_server(serve, ranker):
    server = serve(ranker, max_rows=7)
    page = get(server.url, "/docs")
    assert (page.status, "swagger-ui-bundle.js" in page.text) == (200, True)
    assert "//" not in page.text.replace("<!DOCTYPE", "").split("<script>")[0]
    for part in page.text.split('"'):
        if part.startswith("/static"):
            assert get(server.url, part).status == 200, part
    schemas = get(server.url, "/openapi.json").json["components"]["schemas"]
    assert list(schemas["ScoreRequest"]["properties"]["columns"]["properties"]) == list(ranker.columns)
    assert schemas["Cells"]["maxItems"] == 7
    assert score(server.url, schemas["ScoreRequest"]["examples"][0]).status == 200


def test_a_reload_changes_the_description_and_not_the_requests_that_run(serve, ranker):
    held, encoder = Held(ranker), Encoder(tasks=["click"], num_embeddings={"a": 2}, dense=[], vocabulary={"a": ["<oov>", "x"]}, scaling={})
    other = Ranker(DCRNN(encoder.num_embeddings, tasks=encoder.tasks), encoder)
    server = serve(held, inline_rows=0)
    running = ask(server.url, ONE)
    assert held.called.acquire(timeout=30)
    other.id = "0123456789ab"
    server.application._load = lambda: other
    server.reload()
    while metrics(server.url)['dcrnn_fast_reloads_total{result="ok"}'] < 1:
        pass
    assert get(server.url, "/v1/model").json["model"] == "0123456789ab"
    assert list(get(server.url, "/openapi.json").json["components"]["schemas"]["Scores"]["properties"]["scores"]["properties"]) == ["click"]
    assert [name for name in metrics(server.url) if "model_info" in name] == ['dcrnn_fast_model_info{model="0123456789ab"}']
    held.may_go_on.release()
    assert_scores(running(), ranker.predict(ONE["columns"]))
    assert_scores(score(server.url, {"shared": {"a": "x"}}), other.predict({"a": ["x"]}))


def test_whatever_stops_a_reload_the_next_one_is_tried(serve, ranker, capsys):
    server = serve(ranker)
    for load, result in ((lambda: {}["no\nmodel"], "failed"), (server.application._load, "ok")):
        server.application._load = load
        server.reload()
        while metrics(server.url)[f'dcrnn_fast_reloads_total{{result="{result}"}}'] < 1:
            pass
    assert capsys.readouterr().err.count("\n") == 1


TAGS = {"column": "tags", "max_values": 2, "separator": "|"}


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
        "categorical": ["city", "both", "position", {"column": "user", "hash_buckets": 10}, TAGS],
        "train_only": [{"column": "position", "score_as": 1}],
        "numeric": [{"column": "hour", "buckets": 4}],
    }
    (folder / "log.yaml").write_text(yaml.safe_dump(schema))
    train(tiny_config(folder / "log.yaml", optimiser__epochs=1, model__first_order=True), folder / "run")
    return Ranker.load(folder / "run")


@pytest.mark.parametrize("tags", [["a|b", "", None], [["a", "b"], [], None], [["b", None], ["z"], ["a", "b", "c"]]], ids=str)
def test_lists_derived_columns_and_hashes_are_read_as_by_the_ranker(serve, log_ranker, tags):
    columns = {"tags": tags, "city": ["x", "y", None], "user": [None, 7, 12], "time": [1_700_003_600, None, 0]}
    server = serve(log_ranker)
    assert_scores(score(server.url, {"columns": columns}), log_ranker.predict(columns))
    shared = {"tags": tags[0], "time": 1_700_000_000}
    answer = score(server.url, {"columns": {name: columns[name] for name in ("city", "user")}, "shared": shared})
    assert_scores(answer, log_ranker.predict(columns | {name: [cell] * 3 for name, cell in shared.items()}))


@pytest.mark.parametrize("cell", ["x" * 2000, ["x"] * 2000, ["x" * 2000]], ids=["text", "values", "a long value"])
def test_a_shared_cell_too_large_for_so_many_rows_is_a_413(serve, log_ranker, monkeypatch, cell):
    monkeypatch.setattr(score_request, "MAX_SPREAD", 5000)
    server = serve(log_ranker)
    columns = {"city": ["x"] * 3, "user": ["u1"] * 3}
    assert "expected at most 5,000" in error_of(score(server.url, {"columns": columns, "shared": {"tags": cell, "time": 0}}), 413)
    assert score(server.url, {"columns": {name: ["x"] for name in columns}, "shared": {"tags": cell, "time": 0}}).status == 200


def test_half_a_surrogate_pair_in_a_list_is_a_400(serve, log_ranker):
    body = '{"shared": {"tags": ["a", "\\udfff"], "city": "x", "user": "u1", "time": 0}}'
    assert "'tags'" in error_of(score(serve(log_ranker).url, body), 400)


def test_a_body_too_large_by_its_length_is_refused_at_once(serve, ranker):
    place = urlsplit(serve(ranker, max_body_bytes=1000).url)
    with socket.create_connection((place.hostname, place.port), timeout=30) as connection:
        connection.sendall(b"POST /v1/score HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: 1001\r\n\r\n")
        assert connection.recv(1000).startswith(b"HTTP/1.1 413")
        connection.sendall(b" " * 1001 + b"GET /health/live HTTP/1.1\r\nHost: a\r\n\r\n")
        assert connection.recv(1000).startswith(b"HTTP/1.1 200")


def test_bodies_beyond_the_bytes_that_are_held_at_once_are_a_503(serve, ranker, monkeypatch):
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


@pytest.mark.parametrize(
    "sent", [b"GET / HTTP/1.1\r\nX: " + b"x" * 9_000_000, b"GET / HTTP/1.1\r\n" + b"X: x\r\n" * 1_000_000], ids=["a header", "headers"]
)
def test_headers_without_an_end_end_the_connection(serve, ranker, sent):
    place = urlsplit(serve(ranker).url)
    with socket.create_connection((place.hostname, place.port), timeout=30) as connection, pytest.raises(ConnectionError):
        connection.sendall(sent)


def test_further_connections_are_refused_and_told_when_to_try_again(serve, ranker):
    server = serve(ranker, max_connections=1)
    place = urlsplit(server.url)
    with socket.create_connection((place.hostname, place.port), timeout=30) as connection:
        connection.sendall(b"GET /health/live HTTP/1.1\r\nHost: a\r\n\r\n")
        assert connection.recv(1000).startswith(b"HTTP/1.1 200")
        answer = score(server.url, ONE)
        assert "too many connections" in error_of(answer, 503)
        assert (answer.headers["retry-after"], answer.headers["connection"]) == ("1", "close")


def test_a_larger_body_is_parsed_on_another_thread_and_scored_alike(serve, ranker, monkeypatch):
    monkeypatch.setattr("dcrnn_fast.serving.http.app.INLINE", 10)
    server = serve(ranker, threads=3)
    answers = [ask(server.url, {"columns": {name: cells * size for name, cells in ONE["columns"].items()}}) for size in range(1, 20)]
    expected = ranker.predict(ONE["columns"])
    for size, answer in enumerate(answers, start=1):
        assert_scores(answer(), {name: np.repeat(values, size) for name, values in expected.items()})
    error_of(call(server.url, "POST", "/v1/score", b'{"columns": {"a": [1, 2, 3]}', JSON), 400)


def test_scores_read_back_bit_for_bit_and_one_that_is_not_finite_is_null(serve, ranker):
    written = np.random.default_rng(0).integers(0, 0x7F800000, 5000, np.int32).view(np.float32)  # of any size, also the smallest
    written[::7] = np.nan
    written[1::7] = np.inf
    (gives := Held(ranker)).predict_encoded = lambda *_: {"click": written}
    answer = score(serve(gives).url, {"columns": {name: cells * len(written) for name, cells in ONE["columns"].items()}})
    numbers = np.array([np.nan if number is None else number for number in answer.json["scores"]["click"]], np.float32)
    np.testing.assert_array_equal(numbers, np.where(np.isfinite(written), written, np.nan))


def test_a_table_that_is_not_scored_finitely_is_not_served(ranker, monkeypatch):
    from dcrnn_fast.serving.http.served import load_served

    monkeypatch.setattr(Ranker, "predict_encoded", lambda *_: {"click": torch.tensor([np.nan]).numpy()})
    with pytest.raises(ValueError, match="no finite score"):
        load_served("run", lambda _: ranker)
