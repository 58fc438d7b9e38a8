"""A drafted schema as YAML, with comments that say what a person should check."""

from __future__ import annotations

from typing import Any

from .draft import Draft
from .sample import json_text

COMMENTS = {
    "tasks": "in the order of the funnel",
    "funnel": "in these rows each event implies the one before it",
    "numeric": "name one that is a code, such as of a city, as categorical",
}


def as_yaml(draft: Draft) -> str:
    """The file of a drafted schema."""
    check = "Check every line: the labels and their order, and columns known only after the event."
    lines = [f"# Drafted from the first {draft.rows:,} rows. {check}"]
    for key, value in draft.schema.items():
        comment = f"  # {COMMENTS[key]}" if key in COMMENTS else ""
        if key not in ("tasks", "categorical", "numeric"):
            lines.append(f"{key}: {_flow(value) if isinstance(value, dict) else json_text(value)}{comment}")
            continue
        lines.append(f"{key}:{comment}")
        for field in value:
            remark = draft.remarks.get(field["column"], "") if key == "categorical" else ""
            lines.append(f"  - {_flow(field)}  # {draft.about[field['column']]}{': ' if remark else ''}{remark}")
    lines += ["# Left out:"] if draft.left else []
    lines += [f"#   {draft.left_out(column)}" for column in draft.left]
    return "\n".join(lines) + "\n"


def _flow(value: dict[str, Any]) -> str:
    """A mapping in one line; names of tasks, and how a number is read, need no quotes."""
    written = {key: one if key in ("name", "dense") else json_text(one) for key, one in value.items()}
    return f"{{{', '.join(f'{key}: {one}' for key, one in written.items())}}}"
