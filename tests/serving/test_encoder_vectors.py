"""The vectors by which encoders in other languages are tested are those of the Python encoder."""

import pytest

from .encoder_vectors import CASES, FILE, RESULTS, content, result


@pytest.mark.parametrize("one", CASES, ids=[one["name"] for one in CASES])
def test_the_python_encoder_gives_the_vectors(one):
    assert result(one) == {key: one[key] for key in RESULTS if key in one}


def test_the_file_is_what_its_command_writes():
    assert FILE.read_text(encoding="ascii") == content(), "run: python -m tests.serving.encoder_vectors"


def test_most_vectors_tell_ids_apart():
    """Otherwise an encoder that gives 0 everywhere would pass."""
    same = [one["name"] for one in CASES if "ids" in one and len(one["ids"]) > 1 and not any(any(row) for row in one["ids"])]
    assert len(same) <= 2, same
