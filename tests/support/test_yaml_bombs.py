"""YAML that is made to blow up: it is refused in one short line, or read with work that grows as the text does."""

import sys
from itertools import pairwise

import pytest

from dcrnn_fast.data.schema.table import load_schema
from dcrnn_fast.errors import ConfigError, DataError
from dcrnn_fast.support import strict_yaml
from dcrnn_fast.training.config import load_config

LONG = "x" * 100_000
LAUGHS = "a: &a [ha, ha]\n" + "".join(f"{name}: &{name} [{', '.join([f'*{before}'] * 9)}]\n" for before, name in pairwise("abcdefg"))
REFUSED = {
    "billion laughs": (LAUGHS, r"line 2: aliases \(\*name\) are not supported"),
    "an alias of the value around it": ("a: &a {b: *a}", r"line 1: aliases \(\*name\) are not supported"),
    "an alias as a merged value": ("a: &a {b: 1}\nc: {<<: *a}", r"line 2: aliases \(\*name\) are not supported"),
    "an alias as a key": ("a: &a b\n*a : 1", r"line 2: aliases \(\*name\) are not supported"),
    "nested merges": ("{<<: " * 1000, "line 1: nested more than 50 levels deep"),
    "nested keys": ("? " * 1000, "line 1: nested more than 50 levels deep"),
    "nested items": ("- " * 1000, "line 1: nested more than 50 levels deep"),
    "a merge given twice": ("a: 1\n<<: {b: 1}\n<<: {c: 1}", "line 3: key '<<' is given twice, first in line 2"),
    "a key given twice in a merged mapping": ("<<: {a: 1, a: 2}", "line 1: key 'a' is given twice, first in line 1"),
    "a key given twice in a list of merged mappings": ("<<: [{b: 1},\n {a: 1, a: 2}]", "line 2: key 'a' is given twice, first in line 2"),
    "a mapping as a key": ("? {a: 1}\n: 2", "line 1: found unhashable key"),
    "a long tag": (f"a: !{LONG} b", "line 1: could not determine a constructor for the tag '!xxx"),
    "a long escaped tag": (f"a: !<{'%41' * 100_000}> b", "line 1: could not determine a constructor for the tag 'AAA"),
    "a long handle of a tag": (f"a: !{LONG}!b c", "line 1: found undefined tag handle '!xxx"),
    "a long key given twice": (f"? {LONG}\n: 1\n? {LONG}\n: 2", "line 3: key 'xxx"),
    "a long anchor given twice": (f"[&{LONG} 1, &{LONG} 2]", "line 1: second occurrence"),
    "a long number": (f"a: {'1' * 100_000}", "line 1: '111"),
    "a number of a million digits in base 60": (f"a: {'1:' * 500_000}1.5", "line 1: '1:1:"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_text_that_would_blow_up_is_refused_in_one_short_line(case):
    text, said = REFUSED[case]
    with pytest.raises(ValueError, match=said) as caught:
        strict_yaml.parse(text)
    assert len(str(caught.value).splitlines()) == 1
    assert len(str(caught.value)) < 400, "the line repeats what may be of any length"


GROWING = {
    "keys": lambda size: "{" + ", ".join(f"k{number}" for number in range(size)) + "}",
    "items": lambda size: "- \n" * size,
    "merged mappings": lambda size: "{<<: [" + "{a: 1}, " * size + "]}",
    "anchors": lambda size: "\n".join(f"- &a{number} 1" for number in range(size)),
    "handles of tags": lambda size: "".join(f"%TAG !a{number}! b\n" for number in range(size)) + "--- a",
    "pairs": lambda size: "!!omap [" + "{a: 1}, " * size + "]",
    "a plain scalar": lambda size: "a: " + "x " * size,
    "a scalar of many lines": lambda size: "a:\n" + " x\n" * size,
    "a block of many lines": lambda size: "a: |\n" + " x\n" * size,
    "an escaped scalar": lambda size: 'a: "' + "\\u0041" * size + '"',
    "a time": lambda size: "a: 2001-01-01T00:00:00." + "1" * size,
    "comments": lambda size: "#\n" * size + "a",
}


def work(text):
    """The calls, of functions in Python and in C, that reading a text takes."""
    calls = 0

    def count(*_):
        nonlocal calls
        calls += 1

    before = sys.getprofile()
    sys.setprofile(count)
    try:
        strict_yaml.parse(text)
    finally:
        sys.setprofile(before)
    return calls


@pytest.mark.parametrize("case", GROWING)
def test_twice_the_text_is_at_most_twice_the_work(case):
    once, twice = work(GROWING[case](500)), work(GROWING[case](1000))
    assert twice < 2.1 * once, f"{once:,} calls for a text, {twice:,} for one of twice its length"


@pytest.mark.parametrize(("read", "error"), [(load_schema, DataError), (load_config, ConfigError)])
@pytest.mark.parametrize("case", ["billion laughs", "nested merges", "a long tag", "a key given twice in a merged mapping"])
def test_a_schema_and_a_configuration_are_refused_with_the_line_and_the_file(tmp_path, case, read, error):
    text, said = REFUSED[case]
    (path := tmp_path / "settings.yaml").write_text(text)
    with pytest.raises(error, match=rf"settings\.yaml.* is not valid YAML: {said}"):
        read(path)
