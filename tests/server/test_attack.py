"""The attacks of `make attack` tell a right answer from wrong and late ones."""

import json

import numpy as np
import pytest

from .attack import run
from .attacks import FULL, Found, Target, told

SCORES = {"a" * 12: [0.25, 0.5], "b" * 12: [0.75, 0.125]}
TARGET = Target("none", [], (), {model: {"click": np.array(scores)} for model, scores in SCORES.items()})


def answer(model, scores):
    return json.dumps({"model": model, "scores": {"click": scores}}).encode()


def test_scores_beside_the_id_of_their_model_are_right():
    assert [TARGET.check(200, answer(*one)) for one in SCORES.items()] == list(SCORES)


@pytest.mark.parametrize(
    ("status", "body", "words"),
    [
        (500, answer("a" * 12, [0.25, 0.5]), "a request was answered with 500"),
        (200, answer("c" * 12, [0.25, 0.5]), "an answer has the id c{12}, expected one of"),
        (200, answer("a" * 12, [0.75, 0.125]), "beside the id a{12} the scores click are"),
        (200, answer("a" * 12, [0.25]), "beside the id a{12} the scores click are"),
    ],
)
def test_another_answer_is_found_and_fails_the_attack(status, body, words, capsys):
    with pytest.raises(Found, match=words):
        TARGET.check(status, body)
    assert not run("replace", lambda folder: TARGET.check(status, body))
    assert "replace: FOUND: " in capsys.readouterr().out


@pytest.mark.parametrize("seconds", [[0.3] * 3, [0.01] * 9 + [0.6]], ids=["all", "one"])
def test_late_answers_are_found(seconds):
    assert told([0.1] * 3, FULL)
    with pytest.raises(Found, match=r"expected 0\.2 s and 0\.5 s"):
        told(seconds, FULL)
