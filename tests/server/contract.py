"""The HTTP interface of docs/guide/server.md, as tests that every server passes: scores, errors and limits.

A module of tests takes them by ``from .contract import *``, those of a server in use by ``from .contract_in_use import *``, and gives four
fixtures:

``ranker``: the :class:`dcrnn_fast.Ranker` of what is served, a run on the table of ``tests/training/tiny.py``;
``start``: ``start(**options)`` starts a server of its own for the test, with ``max_rows=100`` for ``--max-rows 100``, and stops it
afterwards;
``server``: one with ``--max-body-bytes 65536 --max-rows 500``, for all tests of the module;
``logged``: ``logged(server)`` is what a server of ``start`` has written to stderr.

A server has ``url``; ``reload()``, which asks it to load again what it serves, and does not wait; ``stop()``, which asks it to stop,
waits, and returns its exit code; and ``served``, the path of what it serves, of which the server that ``start`` gives has a copy of its
own.
"""

import gzip
import json
import re

import numpy as np
import pytest

from .calls import JSON, call, exchange, get, metrics, score

ROWS = {"colour": ["c1", "c8", "unseen", "c1"], "shape": ["s0", None, "s4", "s1"], "size": [0.5, -1.25, None, 3]}
ONE = {"columns": {"colour": ["c1"], "shape": ["s0"], "size": [0.5]}}
BIG_BODY, BIG_ROWS = 65_536, 500
"""The limits of the fixture ``server``."""


def assert_scores(answer, expected):
    """The answer holds the scores of :meth:`Ranker.predict`, but for the rounding of another batch."""
    assert answer.status == 200, answer.text
    content = answer.json
    assert list(content["scores"]) == list(expected)
    for name, values in expected.items():
        found = np.array(content["scores"][name], np.float64)
        assert found.shape == values.shape == (content["rows"],), name
        np.testing.assert_allclose(found, values, rtol=1e-5, atol=1e-7, err_msg=name)


def error_of(answer, status):
    """The message of an error, which is JSON of one line."""
    assert answer.status == status, answer.text
    assert answer.headers["content-type"].partition(";")[0] == "application/json"
    assert list(answer.json) == ["error"]
    assert answer.json["error"]
    assert "\n" not in answer.json["error"]
    return answer.json["error"]


def table(rows, seed=0):
    """Columns of random rows, some cells missing and some categories unseen."""
    rng = np.random.default_rng(seed)
    colour = [None if one == 11 else f"c{one}" for one in rng.integers(0, 12, rows)]
    size = [None if one > 1.5 else round(float(one), 4) for one in rng.normal(size=rows)]
    return {"colour": colour, "shape": [f"s{one}" for one in rng.integers(0, 6, rows)], "size": size}


# Scores


def test_scores_are_those_of_the_ranker(server, ranker):
    answer = score(server.url, {"columns": ROWS})
    assert_scores(answer, ranker.predict(ROWS))
    assert list(answer.json) == ["model", "rows", "scores"]
    assert answer.json["rows"] == 4
    assert re.fullmatch("[0-9a-f]{12}", answer.json["model"])
    assert answer.headers["content-type"].partition(";")[0] == "application/json"


@pytest.mark.parametrize("rows", [1, 2, 64, BIG_ROWS])
def test_any_number_of_rows_up_to_the_limit_is_scored(server, ranker, rows):
    columns = table(rows, seed=rows)
    answer = score(server.url, {"columns": columns})
    assert_scores(answer, ranker.predict(columns))
    for values in answer.json["scores"].values():
        assert [float(str(np.float32(value))) for value in values] == values, "the shortest decimals of float32"


CELLS = [
    {"colour": [1, 2]}, {"colour": [True, False]}, {"colour": [10**400, -(10**20)]}, {"colour": ["c\u00e9\U0001f600", '\\x>"\n\0']},
    {"colour": ["", " c1"]}, {"colour": ["<oov>", "<missing>"]}, {"colour": [-0.0, 1.5e15]}, {"colour": ["1500000000000000.0", "7.0"]},
    {"size": [" 1", "1_000.5"]}, {"size": ["", "-1.5"]}, {"colour": [None, None]}, {"size": [True, False]},
    {"size": [-0.0, 12345678901]}, {"size": [1e-320, 9007199254740991]}, {"size": [None, None]}, {"size": [1, 2.5]},
]  # fmt: skip
UNREAD = {"user": ["u1"] * 4, "clicked": [0, 1, None, True], "seen": [["a"], [], None, ["b", "c"]]}
READ = {
    "shared cells, those of every row": (
        {"columns": {"colour": ["c1", "c2", None]}, "shared": {"shape": "s3", "size": None}},
        {"colour": ["c1", "c2", None], "shape": ["s3"] * 3, "size": [None] * 3},
    ),
    **{
        f"shared cells alone, one row, with {more}": ({"shared": {"colour": "c1", "shape": "s0", "size": 0.5}} | more, ONE["columns"])
        for more in ({}, {"columns": {}}, {"columns": {"other": [1]}})
    },
    "columns that the model does not read": ({"columns": ROWS | UNREAD, "shared": {"weather": "rain"}}, ROWS),
    **{
        repr(cells): ({"columns": columns}, columns)
        for cells in CELLS
        for columns in [{"colour": ["c1", "c2"], "shape": ["s0", "s0"], "size": [1.0, 2.0]} | cells]
    },
}


@pytest.mark.parametrize(("request_", "columns"), READ.values(), ids=READ)
def test_cells_are_read_as_the_ranker_reads_them(server, ranker, request_, columns):
    assert_scores(score(server.url, request_), ranker.predict(columns))


def test_spaces_a_charset_and_a_deadline_that_holds_are_read(server, ranker):
    body, named = " \r\n\t" + json.dumps(ONE, indent=3) + "\n", {"Content_Type": "Application/JSON; charset=UTF-8"}
    assert_scores(score(server.url, body, **named, X_Deadline_Ms="600000"), ranker.predict(ONE["columns"]))


def test_a_body_in_chunks_is_read(server, ranker):
    body = json.dumps({"columns": ROWS}).encode()
    answer = call(server.url, "POST", "/v1/score", iter([body[:1], body[1:70], body[70:]]), JSON)
    assert_scores(answer, ranker.predict(ROWS))


# Errors


@pytest.mark.parametrize(
    ("request_", "words"),
    [
        ({"columns": {"colour": ["c1"], "shape": ["s1"]}}, "size"),
        ({"columns": {"colour": ["c1"], "shape": ["s1", "s2"], "size": [1]}}, "shape"),
        ({"columns": ROWS | {"size": [1.0, 2.0, "big", None]}}, "row 3.*size.*big"),
        ({"columns": ROWS | {"size": [1.0, 2.0, {}, None]}}, "row 3.*size"),
        ({"columns": ROWS | {"size": [1.0, [2.0], 3.0, None]}}, "size"),
        ({"columns": ROWS | {"colour": ["c1", 2, "c3", "c4"]}}, "row 2.*colour"),
        ({"columns": ROWS | {"colour": ["c1", ["c2"], "c3", "c4"]}}, "row 2.*colour"),
        ({"columns": ROWS | {"colour": ["c1", {"a": 1}, "c3", "c4"]}}, "row 2.*colour"),
        ({"columns": ROWS | {"colour": [1.0, 2.5, 1e16, None]}}, "row 3.*colour.*digits"),
        ({"columns": ROWS, "shared": {"size": 1}}, "size"),
        ({"columns": ROWS | {"colour": "c1"}}, "colour"),
        ({"columns": ROWS | {"colour": {"c1": 1}}}, "colour"),
        ({"columns": {"colour": [], "shape": [], "size": []}}, "row"),
        ({"columns": [["c1"]]}, "columns"),
        ({"columns": ROWS, "shared": ["c1"]}, "shared"),
        ({"columns": None}, "columns"),
        ({"columns": ROWS, "rows": 4}, "rows"),
        ({}, "colour|shape|size"),
        ([], "object"),
        ("text", ""),
        (None, ""),
        (7, ""),
    ],
    ids=lambda value: json.dumps(value)[:60] if not isinstance(value, str) or not value else value[:20],
)
def test_a_wrong_shape_column_or_cell_is_named(server, request_, words):
    message = error_of(score(server.url, json.dumps(request_)), 400)
    assert all(re.search(word, message) for word in words.split(".*")), message


HOSTILE = {
    "nothing": "",
    "half": '{"columns": {"colour": ["c1"',
    "more after it": json.dumps(ONE) + "x",
    "two": json.dumps(ONE) * 2,
    "NaN": '{"columns": {"colour": ["c1"], "shape": ["s0"], "size": [NaN]}}',
    "Infinity": '{"columns": {"colour": ["c1"], "shape": ["s0"], "size": [-Infinity]}}',
    "beyond float64": '{"columns": {"colour": ["c1"], "shape": ["s0"], "size": [1e999]}}',
    "beyond 64 bits": '{"columns": {"colour": ["c1"], "shape": ["s0"], "size": [1' + "0" * 400 + "]}}",
    "a key twice": '{"columns": {}, "columns": {"colour": ["c1"], "shape": ["s0"], "size": [1]}}',
    "half a surrogate pair": '{"columns": {"colour": ["\\ud800"], "shape": ["s0"], "size": [1]}}',
    "deep": '{"columns": {"colour": ' + "[" * 20_000 + "]" * 20_000 + "}}",
    "deep, open": "[" * 60_000,
    "deep objects": '{"a":' * 9_000,
    "a comment": '{"columns": {} /* none */}',
    "single quotes": "{'columns': {}}",
    "a comma too many": '{"columns": {"colour": ["c1",], "shape": ["s0"], "size": [1]}}',
    "an octal": '{"columns": {"colour": ["c1"], "shape": ["s0"], "size": [01]}}',
    "a raw newline": '{"columns": {"colour": ["c\n1"], "shape": ["s0"], "size": [1]}}',
    "a null character": '{"columns": {}}\0',
    "no UTF-8": b'{"columns": {"colour": ["\xff"], "shape": ["s0"], "size": [1]}}',
    "overlong UTF-8": b'{"columns": {"colour": ["\xc0\xaf"], "shape": ["s0"], "size": [1]}}',
    "a surrogate in UTF-8": b'{"columns": {"colour": ["\xed\xa0\x80"], "shape": ["s0"], "size": [1]}}',
    "UTF-16": json.dumps(ONE).encode("utf-16"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_what_is_no_plain_json_is_a_400(server, name):
    error_of(score(server.url, HOSTILE[name]), 400)
    assert score(server.url, ONE).status == 200


@pytest.mark.parametrize("kind", ["columns", "shared"])
@pytest.mark.parametrize("number", ["-1e999", "1.50E+400", "-" + "7" * 4301], ids=["negative", "with an exponent", "an integer"])
def test_a_number_that_no_cell_holds_is_a_400(server, kind, number):
    size = {"columns": '"size": [1, ' + number + "]}, ", "shared": '"b": [1, 2]}, '}[kind]
    shared = {"columns": "{}", "shared": '{"size": ' + number + "}"}[kind]
    body = '{"columns": {"colour": ["c1", "c2"], "shape": ["s0", "s0"], ' + size + '"shared": ' + shared + "}"
    error_of(score(server.url, body), 400)


@pytest.mark.parametrize(
    "headers",
    [{}, *({"Content-Type": kind} for kind in ("text/plain", "application/jsonp", "")), JSON | {"Content-Encoding": "gzip"}],
    ids=str,
)
def test_another_content_type_or_encoding_is_a_415(server, headers):
    body = json.dumps(ONE).encode()
    encoded = "Content-Encoding" in headers
    answer = call(server.url, "POST", "/v1/score", gzip.compress(body) if encoded else body, headers)
    assert ("Content-Encoding" if encoded else "application/json") in error_of(answer, 415)


@pytest.mark.parametrize("path", ["/", "/v1", "/v1/score/", "/v1/Score", "/v2/score", "/favicon.ico", "/%2e%2e/etc/passwd", "/v1/score%00"])
def test_an_unknown_path_is_a_404(server, path):
    error_of(get(server.url, path), 404)


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("GET", "/v1/score", "POST"),
        ("PUT", "/v1/score", "POST"),
        ("OPTIONS", "/v1/score", "POST"),
        ("POST", "/v1/model", "GET"),
        ("DELETE", "/health/live", "GET"),
        ("PATCH", "/health/ready", "GET"),
        ("POST", "/metrics", "GET"),
    ],
)
def test_another_method_is_a_405_that_names_the_right_one(server, method, path, allowed):
    answer = call(server.url, method, path)
    error_of(answer, 405)
    assert allowed in [one.strip() for one in answer.headers["allow"].split(",")]


@pytest.mark.parametrize("path", ["/health/live", "/v1/model", "/metrics"])
def test_head_gives_the_head_of_get(server, path):
    found, whole = call(server.url, "HEAD", path), get(server.url, path)
    assert (found.status, found.text, found.headers["content-type"]) == (200, "", whole.headers["content-type"])


# What a proxy before the server may read otherwise


BODY = json.dumps(ONE)


def raw(path="/v1/score", host="Host: a", body=BODY, **headers):
    """The bytes of a request for scores; a header that is a list is there more than once, one that is None not at all."""
    named = {"Content-Type": "application/json", "Content-Length": str(len(body))}
    named |= {name.replace("_", "-"): value for name, value in headers.items()}
    lines = [f"POST {path} HTTP/1.1", *([host] if host else [])]
    for name, values in named.items():
        lines += [f"{name}: {value}" for value in (values if isinstance(values, list) else [values]) if value is not None]
    return "\r\n".join([*lines, "", body]).encode("latin-1")


CHUNKED = f"{len(BODY):x}\r\n{BODY}\r\n0\r\n\r\n"


def with_trailer(line):
    """Chunks with a header behind them."""
    return CHUNKED[:-2] + f"{line}\r\n\r\n"


def in_chunks(chunks, **headers):
    return raw(body=chunks, Content_Length=None, Transfer_Encoding="chunked", **headers)


TWICE = raw(body="", Content_Type=["a", "b"], Content_Encoding=["a", "b"], X_Deadline_Ms=["1", "2"])
AMBIGUOUS = {
    "no coding": (raw(Content_Length=None, Transfer_Encoding="identity"), 400),
    "chunked and a length": (raw(body=CHUNKED, Transfer_Encoding="chunked"), 400),
    "two lengths": (raw(Content_Length=["3", "5"]), 400),
    "two content types": (raw(Content_Type=["application/json", "text/plain"]), 415),
    "a content type behind another": (raw(Content_Type=["application/json; a=b", "text/plain"]), 415),
    "two encodings": (raw(Content_Encoding=["identity", "gzip"]), 415),
    "another charset": (raw(Content_Type="application/json; charset=utf-16"), 415),
    "another charset behind": (raw(Content_Type="application/json; a=b; Charset=UTF-16"), 415),
    "two deadlines": (raw(X_Deadline_Ms=["600000", "600000"]), 400),
    "a deadline with a zero before": (raw(X_Deadline_Ms="0600"), 400),
    "another spelling of the path": (raw("/v1/%73core"), 404),
    "a line feed alone": (raw().replace(b"Host: a\r\n", b"Host: a\nX-A: b\r\n"), 400),
    "a request behind line feeds": (raw().replace(b"Host: a\r\n", b"Host: a\nX-A: b\n\nGET /metrics HTTP/1.1\r\nHost: a\r\n"), 400),
    "a control character": (raw(X_A="a\x01b"), 400),
    "a content type with another space": (raw(Content_Type="application/json\xa0"), 415),
    "an encoding with another space": (raw(Content_Encoding="identity\xa0"), 415),
    "a content type in a trailer": (in_chunks(with_trailer("Content-Type: application/json"), Content_Type=None), 415),
    "none of this": (raw(), 200),
    "none of this, in chunks": (in_chunks(CHUNKED), 200),
    **{line: (in_chunks(with_trailer(line)), 200) for line in ("Content-Type: a/b", "Content-Encoding: gzip", "X-Deadline-Ms: x")},
    **{
        f"headers twice, but of {line.decode()}": (TWICE.replace(b"POST /v1/score", line), status)
        for line, status in ((b"GET /health/live", 200), (b"PUT /v1/score", 405), (b"GET /none", 404))
    },
}
"""What a request holds, and the status of its answer."""


def statuses(url, sent, **options):
    """The statuses of the answers to raw bytes."""
    return [int(one) for one in re.findall(rb"HTTP/1\.[01] (\d+)", exchange(url, sent, **options))]


@pytest.mark.parametrize(("sent", "status"), AMBIGUOUS.values(), ids=AMBIGUOUS)
def test_what_two_readers_may_read_otherwise_is_refused(server, sent, status):
    assert statuses(server.url, sent, until=1) == [status]


# Limits


def padded(size):
    """A request of so many bytes."""
    body = json.dumps(ONE | {"shared": {"note": ""}})
    return body.replace('"note": ""', '"note": "' + "x" * (size - len(body)) + '"')


def test_too_large_a_body_is_a_413_whether_its_length_is_told_or_not(server):
    assert len(padded(BIG_BODY)) == BIG_BODY
    assert score(server.url, padded(BIG_BODY)).status == 200
    for size in (BIG_BODY + 1, 10 * BIG_BODY):
        assert "65536" in error_of(score(server.url, padded(size)), 413).replace(",", "")
        body = padded(size).encode()
        chunks = iter([body[start : start + 30_000] for start in range(0, size, 30_000)])
        error_of(call(server.url, "POST", "/v1/score", chunks, JSON), 413)


def test_a_client_that_asks_first_is_not_made_to_send_too_large_a_body(server):
    assert statuses(server.url, raw(body="", Content_Length="900000000", Expect="100-continue"), until=1) == [413]


def test_a_row_too_many_is_a_413(server):
    assert "500" in error_of(score(server.url, {"columns": table(BIG_ROWS + 1)}), 413)


@pytest.mark.parametrize("value", ["0", "-1", "1.5", "600001", "1e3", "soon", "+5", "0x10", "99999999999999999999", "\u00b2"])
def test_a_deadline_that_is_none_is_a_400(server, value):
    assert "X-Deadline-Ms" in error_of(score(server.url, ONE, X_Deadline_Ms=value.encode("latin-1")), 400)


def test_a_deadline_that_passed_before_scoring_began_is_a_503(start):
    server = start(max_rows=20_000, max_body_bytes=8_000_000, max_queue_rows=100_000)
    answer = score(server.url, {"columns": table(20_000) | {"other": ["x" * 200] * 20_000}}, X_Deadline_Ms="1")
    error_of(answer, 503)
    assert answer.headers["retry-after"] == "1"
    assert metrics(server.url)['dcrnn_fast_rejected_total{reason="deadline"}'] == 1
