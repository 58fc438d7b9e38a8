"""Hypothesis strategies for damaged files: changed bytes, and changed content."""

from __future__ import annotations

import copy

from hypothesis import strategies as st

WRONG_VALUES = (
    *(None, True, 0, 1, -1, 2**31, 2**63, 10**19, 0.5, -0.0, 1e300),
    *("", "x", "ä" * 50, "\x00", "../x", "2001-13-45", [], [[]], {}, {"": {}}, [0] * 100),
)
"""Values of other types or sizes than a key expects."""


@st.composite
def changed_bytes(draw: st.DrawFn, data: bytes, other: bytes) -> bytes:
    """``data`` with bits flipped, cut short, with a piece of ``other`` or of its own in it, or ``other`` in its place."""
    changed = bytearray(data)
    for _ in range(draw(st.integers(1, 4))):
        place = draw(st.integers(0, max(0, len(changed) - 1)))
        way = draw(st.sampled_from(["flip", "flip early", "set", "cut", "splice", "repeat", "remove", "swap"]))
        if way in ("flip", "set") and changed:
            changed[place] = changed[place] ^ 1 << draw(st.integers(0, 7)) if way == "flip" else draw(st.integers(0, 255))
        elif way == "flip early" and changed:
            changed[place % 128 % len(changed)] ^= 1 << draw(st.integers(0, 7))
        elif way == "cut":
            del changed[place:]
        elif way == "remove":
            del changed[place : place + draw(st.integers(1, 40))]
        elif way == "swap":
            changed = bytearray(other)
        else:
            source = other if way == "splice" else bytes(changed)
            start = draw(st.integers(0, max(0, len(source) - 1)))
            changed[place:place] = source[start : start + draw(st.integers(1, 200))] * draw(st.sampled_from([1, 1, 3, 50]))
    return bytes(changed)


@st.composite
def changed_value(draw: st.DrawFn, value: object) -> object:
    """A value of dicts, lists and scalars in which one to three places hold something else, are gone, doubled, nested or renamed."""
    value = copy.deepcopy(value)
    for _ in range(draw(st.integers(1, 3))):
        container, key = None, None
        node = value
        while isinstance(node, (dict, list)) and node and (container is None or draw(st.integers(0, 3))):
            container, key = node, draw(st.sampled_from(sorted(node, key=str) if isinstance(node, dict) else range(len(node))))
            node = node[key]
        if container is None:
            break
        way = draw(st.sampled_from(["replace", "replace", "replace", "remove", "nest", "deep", "text", "grow"]))
        if way == "replace":
            container[key] = copy.deepcopy(draw(st.sampled_from(WRONG_VALUES)))
        elif way == "remove":
            del container[key]
        elif way == "nest":
            container[key] = [node, {"x": node}]
        elif way == "deep":
            for _ in range(draw(st.sampled_from([3, 60, 150]))):
                node = [node]
            container[key] = node
        elif way == "text":
            container[key] = str(node)
        elif isinstance(container, dict):
            container[draw(st.text(max_size=3))] = copy.deepcopy(draw(st.sampled_from(WRONG_VALUES)))
        else:
            container.extend(copy.deepcopy(container[:50]))
    return value
