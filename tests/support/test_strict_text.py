"""Settings in YAML and files in JSON: any text ends in plain values or in one line."""

import json

import pytest

from dcrnn_fast.support import strict_json, strict_yaml


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("a: 1\nb: 2\na: 3", "line 3: key 'a' is given twice, first in line 1"),
        ("model: {steps: 1, steps: 2}", "line 1: key 'steps' is given twice"),
        ("a: 1\nday: 2001-13-45", "line 2: '2001-13-45' cannot be read as a date; put it in quotes"),
        ("a: " + "1" * 5000, "line 1: '111.* cannot be read as an integer"),
        ("[" * 100_000, "nested too deep"),
        ("a: &a [1]\nb: *a", r"line 2: aliases \(\*name\) are not supported"),
        ("!!bool maybe", "line 1: 'maybe' cannot be read as a bool"),
        ("!!int ''", "line 1: '' cannot be read as an integer"),
        ("a: !!python/object/apply:os.system [echo]", "line 1: could not determine a constructor"),
        ("a: \x00", "special characters are not allowed"),
        ("a: !" + "x" * 100_000 + " b", "line 1: could not determine a constructor for the tag '!xxx"),
        ("<<: {a: 1, a: 2}", "line 1: key 'a' is given twice, first in line 1"),
        ("? {a: 1}\n: 2", "line 1: found unhashable key"),
    ],
)
def test_a_yaml_text_that_is_no_settings_is_refused_with_its_line(text, said):
    with pytest.raises(ValueError, match=said) as caught:
        strict_yaml.parse(text)
    assert len(str(caught.value).splitlines()) == 1
    assert len(str(caught.value)) < 400


def test_a_merged_key_may_be_given_again():
    assert strict_yaml.parse("{<<: {a: 1, b: 2}, a: 3}") == {"a": 3, "b": 2}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[" * 100_000, "nested too deep"),
        ("1" * 5000, "4300 digits"),
        ('{"a": NaN}', "not JSON compliant"),
        ("[-1e999]", "not JSON compliant"),
        (r'{"\ud800": 1}', "surrogates not allowed"),
    ],
)
def test_a_json_text_beyond_the_bounds_is_refused(text, said):
    with pytest.raises(ValueError, match=said):
        strict_json.parse(text)


def test_what_is_within_the_bounds_is_read_as_python_reads_it():
    value = {"a": [1, 2.5, "ä", None, True, {"b": [2**63]}]}
    assert strict_json.parse(json.dumps(value)) == value
    assert strict_yaml.parse(json.dumps(value)) == value
