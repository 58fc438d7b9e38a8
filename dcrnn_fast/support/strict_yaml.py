"""YAML for settings, read so that a mistake ends in a ValueError of one line that names the line of the text.

PyYAML's safe loader lets more through than a settings file needs: of a key given twice the last wins, an alias (``*name``) can stand for
billions of values, and a number or date that Python refuses raises whatever Python raises.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from ..errors import shown


def load(path: Path) -> Any:
    """The content of a YAML file. Raises OSError if it cannot be read, ValueError as :func:`parse` does."""
    return parse(path.read_text(encoding="utf-8"))


def parse(text: str) -> Any:
    """The value of a YAML text. Raises ValueError that names the line."""
    try:
        return yaml.load(text, _Loader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        problem = " ".join(str(getattr(error, "problem", error)).split())[:300]  # PyYAML repeats tags of any length
        raise ValueError(f"line {mark.line + 1}: {problem}" if mark else problem) from error
    except RecursionError:
        raise ValueError("it is nested too deep") from None


class _Loader(yaml.SafeLoader):
    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            mark = self.peek_event().start_mark
            raise yaml.composer.ComposerError(None, None, "aliases (*name) are not supported; write the value itself", mark)
        return super().compose_node(parent, index)

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
        try:
            return super().construct_object(node, deep=deep)
        except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
            kind = {"int": "an integer", "timestamp": "a date"}.get(name := node.tag.rpartition(":")[2], f"a {name}")
            problem = f"{shown(node.value)} cannot be read as {kind}; put it in quotes if it is text"
            raise yaml.constructor.ConstructorError(None, None, problem, node.start_mark) from error
