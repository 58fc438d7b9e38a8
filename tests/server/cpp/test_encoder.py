"""The encoder in C++, server/encoder/, gives the bits of `dcrnn_fast.data.Encoder`, and refuses what that refuses, in words."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from ..encoder_requests import Case, expected
from . import encoder

VECTORS = Path(__file__).parents[2] / "serving" / "encoder_vectors.json"
SHOP = {
    "vocabulary": {"city": ["<oov>", "<missing>", "Oslo", "7", "true"], "price": [2.0, 5.0], "tags[0]": ["<oov>", "a"]},
    "scaling": {"price": {"treatment": "standardise", "mean": 4.5, "std": 2.0}},
    "derived": {"tags[0]": {"column": "tags", "value": 0}},
}
ABOUT = {"fields": [["city", 5], ["price", 4], ["tags[0]", 2]], "dense": ["price"]}


@pytest.fixture(scope="module")
def binary():
    encoder.skip_unless_buildable()
    return encoder.program()


@pytest.fixture(scope="module")
def cases():
    """Encoders with requests, and what Python makes of these."""
    drawn = []
    for seed in range(45):
        case = Case(random.Random(seed), truths=seed >= 40)
        requests = [case.request() for _ in range(20)]
        drawn.append((case, requests, [expected(case.encoder, request) for request in requests]))
    return drawn


@pytest.fixture
def answers(binary, tmp_path):
    """The program's answers of the encoder SHOP, or of another one."""

    def run(*requests, encoding=SHOP, about=ABOUT):
        return encoder.run(binary, encoding, about, list(requests), tmp_path)

    return run


def difference(binary, cases, folder, **environment):
    """The first request of which the program makes something else than Python, in words; None where there is none."""
    for case, requests, wanted in cases:
        found = encoder.run(binary, case.encoding, case.about, requests, folder, **environment)
        for request, want, got in zip(requests, wanted, found, strict=True):
            if (None if "error" in got else (got["ids"], got["dense"])) != want:
                return f"request {request}\nof {json.dumps(case.encoding)} {case.about}\nPython: {want}\nC++: {got}"
    return None


def test_random_requests_get_the_bits_of_python_or_are_refused_by_both(binary, cases, tmp_path):
    refused = [want is None for _, _, wanted in cases for want in wanted]
    assert 0.1 < sum(refused) / len(refused) < 0.4, "too few of the requests are refused, or too many, to say much"
    assert (found := difference(binary, cases, tmp_path)) is None, found


@pytest.mark.parametrize("number", range(len(encoder.DEFECTS)), ids=list(encoder.DEFECTS))
def test_the_comparison_finds_planted_defects(number, binary, cases, tmp_path):
    planted = encoder.program(planted=True)
    assert difference(planted, cases, tmp_path, PLANTED=str(number)) is not None


def test_without_a_planted_defect_the_same_program_is_right(binary, cases, tmp_path):
    assert difference(encoder.program(planted=True), cases[:10], tmp_path, PLANTED="-1") is None


def test_the_documented_vectors_hold(answers):
    cases = json.loads(VECTORS.read_text())["cases"]
    wrong = []
    for case in cases:
        if case["name"] == "half of a surrogate pair":
            continue  # no JSON for this program: the contract refuses it
        if any(one.get("timezone", "UTC") != "UTC" for one in case["encoder"].get("derived", {}).values()):
            continue  # test_an_encoder_that_the_program_cannot_follow_is_refused
        about = {"fields": case["fields"], "dense": case["dense"]}
        (got,) = answers(json.dumps({"columns": case["columns"]}), encoding=case["encoder"], about=about)
        if "error" in case:
            named = [f"column {case['error']['column']!r}" if case["error"]["column"] else "", f"row {case['error']['row']}"]
            fits = all(name in got.get("error", "") for name in named if not name.endswith("None"))
        else:
            bits = [[int(value, 16) for value in row] for row in case.get("dense_bits", [[]] * len(case["ids"]))]
            fits = got == {"ids": case["ids"], "dense": bits}
        if not fits:
            wrong.append((case["name"], got))
    assert not wrong


def test_a_shared_cell_is_that_of_every_row(answers):
    shared, repeated, alone = answers(
        '{"columns": {"price": [2, 3.5, null]}, "shared": {"city": "Oslo", "tags": ["", "a"]}}',
        '{"columns": {"price": [2, 3.5, null], "city": ["Oslo", "Oslo", "Oslo"], "tags": [["a"], ["a"], ["a"]]}}',
        '{"shared": {"price": 2, "city": "Oslo", "tags": ["a"]}}',
    )
    assert shared == repeated
    assert shared["ids"] == [[2, 2, 1], [2, 2, 1], [2, 0, 1]]
    assert alone == {"ids": shared["ids"][:1], "dense": shared["dense"][:1]}


BAD = {
    "18446744073709551616": "the JSON is 18446744073709551616, expected an object",
    '{"shared": {"city": ["a"], "price": 1, "tags": []}}': "shared column 'city' holds [\"a\"], expected one value",
    '{"shared": {"city": "a", "price": 1, "tags": "a|b"}}': "shared column 'tags' holds \"a|b\", expected a list",
    '{"columns": {"city": ["a", true], "price": [1, 1], "tags": [[], []]}}': "column 'city', row 2: holds true, expected text or null",
    '{"columns": {"price": [1, "x"], "city": ["a", "a"], "tags": [[], []]}}': 'row 2: holds "x", expected an integer or null',
    '{"columns": {"price": [9007199254740993], "city": ["a"], "tags": [[]]}}': "holds 9007199254740993, expected an integer within",
    '{"columns": {"price": [1e300], "city": ["a"], "tags": [[]]}}': "row 1: holds 1e+300, which is too far from the train",
    '{"columns": {"tags": [["a"], [1]], "city": ["a", "a"], "price": [1, 1]}}': "column 'tags', row 2: holds [1], and not all",
    '{"columns": {"tags": [[["a"]]], "city": ["a"], "price": [1]}}': "column 'tags', row 1: holds [\"a\"] in a list",
    '{"columns": {"tags": [[18446744073709551616]], "city": ["a"], "price": [1]}}': "expected an integer of 64",
}


def test_a_bad_request_is_refused_in_words_that_name_the_place(answers):
    for request, words, got in zip(BAD, BAD.values(), answers(*BAD), strict=True):
        assert words in got["error"], request
    long = {"price": ["\u00e9\n" * 1000], "city": ["a"], "tags": [[]], "\n" * 500: [1]}
    (got,) = answers(json.dumps({"columns": long}, ensure_ascii=False))
    assert len(got["error"]) < 200
    assert "\n" not in got["error"]


DERIVED = {
    "vocabulary": {"x": ["<oov>", "a|1"], "h": ["<oov>", "0"]},
    "scaling": {},
    "derived": {"x": {"cross": ["city", "n"]}, "h": {"column": "time", "as": "hour", "unit": "s"}},
}
DERIVED_ABOUT = {"fields": [["x", 2], ["h", 2]], "dense": []}


def test_a_shared_cell_that_a_cross_would_repeat_without_bound_is_refused(answers):
    rows = 5000
    one, many = (
        json.dumps({"columns": {"n": ["1"] * rows, "time": [0] * rows}, "shared": {"city": city}}) for city in ("a", "|" * 100_000)
    )
    right, refused = answers(one, many, encoding=DERIVED, about=DERIVED_ABOUT)
    assert right["ids"] == [[1, 1]] * rows
    assert "shared column 'city' holds 100000 characters for each of 5000 rows" in refused["error"]


def test_a_time_too_far_from_now_is_refused(answers):
    columns = ({"city": ["a"], "n": ["1"], "time": [time]} for time in (-(2**63), 2**63 - 1, -(10**11), 10**11))
    for got in answers(*(json.dumps({"columns": one}) for one in columns), encoding=DERIVED, about=DERIVED_ABOUT):
        assert "expected a time within 3,000 years of 1970" in got["error"]


@pytest.mark.parametrize(
    ("encoding", "about", "words"),
    [
        ({**SHOP, "more": {}}, ABOUT, "the key 'more', which this program does not know"),
        (SHOP, {**ABOUT, "fields": [["city", 6]]}, "field 'city' has 6 ids, and its vocabulary has"),
        ({**SHOP, "derived": {"h": {"column": "t", "as": "hour", "timezone": "Europe/Oslo"}}}, ABOUT, "column 'h' has the time zone"),
        ({**SHOP, "derived": {"h": {"column": "t", "as": "year"}}}, ABOUT, "column 'h' has the key 'as' with \"year\""),
        ({**SHOP, "derived": {"a": {"cross": ["a", "b"]}}}, ABOUT, "column 'a' needs itself"),
    ],
)
def test_an_encoder_that_the_program_cannot_follow_is_refused(binary, tmp_path, encoding, about, words):
    with pytest.raises(AssertionError) as caught:
        encoder.run(binary, encoding, about, [], tmp_path)
    assert words in str(caught.value)
