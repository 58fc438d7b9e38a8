"""The rest of :mod:`.contract`: what a server says of itself, many requests at once, loading again, and stopping."""

import json
import re
import shutil
import threading
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection
from urllib.parse import urlsplit

import numpy as np
import pytest

from .calls import JSON, exchange, get, metrics, score
from .contract import BIG_BODY, BIG_ROWS, ONE, ROWS, assert_scores, error_of, raw, statuses, table

# What a server says of itself


def test_the_model_and_its_health_are_described(server, ranker):
    about = get(server.url, "/v1/model").json
    assert list(about) == ["model", "names", "tasks", "columns", "kind", "dcrnn_fast", "torch", "limits"]
    assert about["model"] == score(server.url, ONE).json["model"]
    assert (about["names"], about["tasks"]) == (["click", "buy", "buy_given_click"], ["click", "buy"])
    assert sorted(about["columns"]) == sorted(ranker.columns)
    assert about["limits"] == {"body_bytes": BIG_BODY, "rows": BIG_ROWS, "queue_rows": 100_000}
    for path, status in (("/health/live", "live"), ("/health/ready", "ready")):
        answer = get(server.url, path)
        assert (answer.status, answer.json) == (200, {"status": status})


def test_metrics_count_requests_rows_and_batches(start):
    server = start(max_rows=10)
    model = score(server.url, {"columns": ROWS}).json["model"]
    score(server.url, ONE)
    score(server.url, "no json")
    score(server.url, {"columns": table(11)})
    get(server.url, "/nowhere")
    answer, found = get(server.url, "/metrics"), metrics(server.url)
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    assert [found[f'dcrnn_fast_requests_total{{status="{status}"}}'] for status in (400, 404, 413)] == [1, 1, 1]
    assert found["dcrnn_fast_rows_total"] == found["dcrnn_fast_batch_rows_sum"] == 5
    assert found["dcrnn_fast_batch_rows_count"] == 2
    assert found["dcrnn_fast_request_seconds_count"] == 4
    assert found["dcrnn_fast_queue_rows"] == 0
    assert found[f'dcrnn_fast_model_info{{model="{model}"}}'] == 1
    for never in ('rejected_total{reason="overload"}', 'rejected_total{reason="failed"}', 'reloads_total{result="ok"}'):
        assert found[f"dcrnn_fast_{never}"] == 0


def test_metrics_show_how_many_cells_of_a_field_are_unknown(start):
    server = start()
    rates = {name: f'dcrnn_fast_{name}_rate{{field="colour"}}' for name in ("oov", "train_oov")}
    assert rates["oov"] not in metrics(server.url)
    for _ in range(3):
        score(server.url, {"columns": ROWS})
    found = metrics(server.url)
    assert (found[rates["oov"]], found[rates["train_oov"]]) == (pytest.approx(0.25), 0)
    rates = [found[f'dcrnn_fast_{name}_rate{{field="size"}}'] for name in ("missing", "train_missing")]
    assert rates == [pytest.approx(0.25), 0]
    score(server.url, {"columns": {"shape": ["s1"] * 9, "size": [1.5] * 9}, "shared": {"colour": "new"}})
    assert metrics(server.url)['dcrnn_fast_oov_rate{field="colour"}'] == pytest.approx(4 / 13), "a shared cell counts once"


UNLIKE_THE_TRAIN_ROWS = {
    "a field that lost its ids": (
        lambda row: {"colour": [f"C{row}", f"D{row}"], "size": [row % 3, 1.5]},
        r"field 'colour': 100\.0% of the scored cells are out of vocabulary or missing, but 0\.0% of the train cells: ",
    ),
    "a field with far more unknown ids": (
        lambda row: {"colour": [f"new{row}", f"c{1 + row % 3}"], "size": [row % 3, 1.5]},
        r"field 'colour': \d\d\.\d% of the scored cells are out of vocabulary or missing, but 0\.0% of the train and ",
    ),
    "a number in another unit": (
        lambda row: {"colour": [f"c{1 + row % 3}", "c2"], "size": [1000.0 + 2 * row, 1001.0 + 2 * row]},
        r"number 'size': 100\.0% of the scored values are above 99% of the train values: ",
    ),
}


@pytest.mark.parametrize(("columns", "words"), UNLIKE_THE_TRAIN_ROWS.values(), ids=UNLIKE_THE_TRAIN_ROWS)
def test_what_is_unlike_the_train_rows_is_logged_once(start, logged, columns, words):
    server = start()
    for row in range(100):
        score(server.url, {"columns": columns(row) | {"shape": ["s1", "s2"]}})
    (line,) = logged(server).splitlines()
    assert re.match(f"warning: {words}", line)


# Many at once


def test_requests_at_once_each_get_their_own_scores(server, ranker):
    sizes = np.random.default_rng(0).integers(1, 200, 60)
    tables = [table(int(size), seed) for seed, size in enumerate(sizes)]
    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda columns: score(server.url, {"columns": columns}), tables))
    for columns, answer in zip(tables, answers, strict=True):
        assert_scores(answer, ranker.predict(columns))


def test_requests_in_one_piece_are_answered_in_their_order(server):
    assert statuses(server.url, raw() + raw(body="{}") + raw(), until=3) == [200, 400, 200]


def test_a_request_is_scored_or_refused_when_the_queue_is_short(start, ranker):
    server = start(max_rows=100, max_queue_rows=100, max_batch_rows=100)
    columns = table(100)
    expected, full = ranker.predict(columns), 0
    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda _: score(server.url, {"columns": columns}), range(48)))
    for answer in answers:
        if answer.status == 503:
            full += 1
            error_of(answer, 503)
            assert answer.headers["retry-after"] == "1"
        else:
            assert_scores(answer, expected)
    assert full < 48
    assert metrics(server.url)['dcrnn_fast_rejected_total{reason="overload"}'] == full


def test_http_that_is_none_ends_its_connection_alone(server):
    for sent in (b"\r\nnonsense\r\n\r\n", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n" * 20):
        received = exchange(server.url, sent)
        assert received == b"" or received.startswith(b"HTTP/1.1 4"), received
    assert score(server.url, ONE).status == 200


# Reload and stop


def wait_for(server, metric, least):
    """Ask for metrics until one is at least so great."""
    for _ in range(3000):
        if metrics(server.url).get(metric, 0) >= least:
            return
    raise AssertionError(f"{metric} is still {metrics(server.url)[metric]}, expected {least}")


def test_no_request_is_lost_while_the_model_is_loaded_again(start, ranker):
    server, stop = start(), threading.Event()
    expected = ranker.predict(ROWS)

    def ask():
        answers = []
        while not stop.is_set():
            answers.append(score(server.url, {"columns": ROWS}))
        return answers

    with ThreadPoolExecutor(4) as pool:
        asked = [pool.submit(ask) for _ in range(4)]
        try:
            for number in range(1, 4):
                server.reload()
                wait_for(server, 'dcrnn_fast_reloads_total{result="ok"}', number)
        finally:
            stop.set()
    answers = [answer for one in asked for answer in one.result()]
    assert len(answers) > 4
    for answer in answers:
        assert_scores(answer, expected)


def test_a_model_that_cannot_be_loaded_leaves_the_old_one(start, ranker):
    server = start()
    if server.served.is_dir():
        shutil.rmtree(server.served)
    else:
        server.served.write_bytes(b"no model")
    server.reload()
    wait_for(server, 'dcrnn_fast_reloads_total{result="failed"}', 1)
    assert_scores(score(server.url, {"columns": ROWS}), ranker.predict(ROWS))
    assert get(server.url, "/health/ready").status == 200
    assert metrics(server.url)['dcrnn_fast_reloads_total{result="ok"}'] == 0


def test_stopped_it_loses_no_request_and_ends_with_0(start):
    server, ready = start(), threading.Barrier(25)

    def ask():
        """Asks on one connection until an answer says that it is the last one."""
        place, answers = urlsplit(server.url), 0
        connection = HTTPConnection(place.hostname, place.port, timeout=60)
        while True:
            connection.request("POST", "/v1/score", json.dumps(ONE), JSON)
            answer = connection.getresponse()
            answer.read()
            is_last = answer.getheader("Connection", "").lower() == "close"
            assert answer.status == 200 or (answer.status == 503 and is_last)
            answers += answer.status == 200
            if is_last:
                return answers
            if answers == 3:
                ready.wait(60)

    with ThreadPoolExecutor(24) as pool:
        asked = [pool.submit(ask) for _ in range(24)]
        ready.wait(60)
        assert server.stop() == 0
        assert all(one.result() >= 3 for one in asked)
    with pytest.raises(OSError, match="refused"):
        get(server.url, "/health/live")
