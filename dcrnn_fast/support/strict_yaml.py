"""YAML for settings, read so that any text ends in plain values or in a ValueError of one line that names the line of the text.

PyYAML's safe loader lets more through than a settings file needs: of a key given twice the last wins, an alias (``*name``) can stand for
billions of values, deep nesting exhausts Python's stack, and a number or date that Python refuses raises whatever Python raises.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from ..errors import shown
from .files import regular_file

MAX_BYTES = 1 << 20
MAX_DEPTH = 50
MAX_DIGITS = 100
LARGEST_INT = 2**64


def load(path: Path) -> Any:
    """The content of a YAML file. Raises OSError if it cannot be read, ValueError for anything but plain YAML of at most 1 MiB."""
    with regular_file(path).open("rb") as stream:
        content = stream.read(MAX_BYTES + 1)
    if len(content) > MAX_BYTES:  # before it is decoded: what was cut off must not be taken for the whole
        raise ValueError(f"it is longer than {MAX_BYTES:,} bytes, which settings never are")
    return parse(content.decode("utf-8"))


def parse(text: str) -> Any:
    """The value of a YAML text. Raises ValueError that names the line.

    >>> from dcrnn_fast.support import strict_yaml
    >>> strict_yaml.parse("optimiser: {lr: 0.5}")
    {'optimiser': {'lr': 0.5}}
    """
    if len(text) > MAX_BYTES:
        raise ValueError(f"it is longer than {MAX_BYTES:,} characters, which settings never are")
    try:
        return yaml.load(text, _Loader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        problem = " ".join(str(getattr(error, "problem", error)).split())[:300]  # PyYAML repeats tags of any length
        raise ValueError(f"line {mark.line + 1}: {problem}" if mark else problem) from error


class _Loader(yaml.SafeLoader):
    depth = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        mark = self.peek_event().start_mark
        if self.check_event(yaml.AliasEvent):
            raise yaml.composer.ComposerError(None, None, "aliases (*name) are not supported; write the value itself", mark)
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise yaml.composer.ComposerError(None, None, f"nested more than {MAX_DEPTH} levels deep", mark)
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node

    def flatten_mapping(self, node: Any) -> None:
        first: dict[Any, Any] = {}
        for key_node, _ in node.value:
            if not isinstance(key_node, yaml.ScalarNode):
                continue
            key = "<<" if key_node.tag == "tag:yaml.org,2002:merge" else self.construct_object(key_node, deep=True)
            if first.setdefault(key, key_node) is not key_node:
                problem = f"key {shown(key)} is given twice, first in line {first[key].start_mark.line + 1}; remove one of them"
                raise yaml.constructor.ConstructorError(None, None, problem, key_node.start_mark)
        super().flatten_mapping(node)

    def construct_object(self, node: Any, deep: bool = False) -> Any:
        if isinstance(node, yaml.ScalarNode) and node.tag == "tag:yaml.org,2002:int" and len(node.value) > MAX_DIGITS:
            raise _unreadable(node)  # Python would take long to read it.
        try:
            value = super().construct_object(node, deep=deep)
        except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
            raise _unreadable(node) from error
        if isinstance(value, int) and abs(value) >= LARGEST_INT:
            raise _unreadable(node)
        return value


def _unreadable(node: Any) -> yaml.YAMLError:
    kind = {"int": "an integer of at most 64 bits", "timestamp": "a date"}.get(name := node.tag.rpartition(":")[2], f"a {name}")
    problem = f"{shown(node.value)} cannot be read as {kind}; put it in quotes if it is text"
    return yaml.constructor.ConstructorError(None, None, problem, node.start_mark)
