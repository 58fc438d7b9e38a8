"""Plants defects in the package's Python, one at a time, and counts those that the tests find.

    python -m pytest tests --cov=dcrnn_fast --cov-context=test        # writes .coverage, by pytest-cov
    python -m scripts.checks.planted --defects 40 --output planted.json

Each defect changes one comparison, operator, constant or condition in a line that a test runs. The files of tests that ran it run again, at
most for two minutes; the defect is found if one fails. ``--known FILE`` plants those of an earlier result again, where the lines still
stand.
"""

from __future__ import annotations

import argparse
import ast
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
from collections import defaultdict
from pathlib import Path
from typing import Any

from ..sources import ROOT

SWAPPED: dict[type, type] = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq, ast.Is: ast.IsNot,
    ast.IsNot: ast.Is, ast.In: ast.NotIn, ast.NotIn: ast.In, ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Add, ast.And: ast.Or,
    ast.Or: ast.And,
}  # fmt: skip
SECONDS = 120


def defects_of(file: Path) -> list[dict[str, Any]]:
    """The changes that can be made to a file, each with its line, the text of the node, and what takes its place."""
    found, text = list[dict[str, Any]](), file.read_text(encoding="utf-8")
    for node in ast.walk(ast.parse(text)):
        if not isinstance(node, (ast.Compare, ast.BinOp, ast.BoolOp, ast.UnaryOp, ast.Constant)) or node.lineno != node.end_lineno:
            continue
        before = ast.get_source_segment(text, node) or ""
        changed: Any = ast.parse(before.strip(), mode="eval").body
        if isinstance(changed, ast.Compare) and type(changed.ops[0]) in SWAPPED:
            changed.ops[0] = SWAPPED[type(changed.ops[0])]()
        elif isinstance(changed, (ast.BinOp, ast.BoolOp)) and type(changed.op) in SWAPPED:
            changed.op = SWAPPED[type(changed.op)]()
        elif isinstance(changed, ast.UnaryOp) and isinstance(changed.op, ast.Not):
            changed = changed.operand
        elif isinstance(changed, ast.Constant) and isinstance(changed.value, int):
            changed.value = not changed.value if isinstance(changed.value, bool) else changed.value + 1
        else:
            continue
        line = text.splitlines()[node.lineno - 1]
        found.append({"line": node.lineno, "text": line, "column": node.col_offset, "before": before, "after": ast.unparse(changed)})
    return found


def tests_by_line(data: Path) -> dict[str, dict[int, list[str]]]:
    """By file and line the tests that ran it."""
    import coverage  # type: ignore[import-not-found, unused-ignore]

    measured, found = coverage.CoverageData(str(data)), dict[str, dict[int, list[str]]]()
    measured.read()
    for file in measured.measured_files():
        name = f"dcrnn_fast/{file.rpartition('/dcrnn_fast/')[2]}"
        by_line = defaultdict(list, measured.contexts_by_lineno(file))
        found[name] = {line: sorted({one.partition("|")[0] for one in tests if "::" in one}) for line, tests in by_line.items()}
    return found


def is_found(tree: Path, defect: dict[str, Any], tests: list[str]) -> bool | None:
    """Whether one of the tests fails with the defect in the tree; None if they take too long to tell."""
    file = tree / defect["file"]
    whole = file.read_text(encoding="utf-8")
    lines = whole.splitlines(keepends=True)
    line, at = lines[defect["line"] - 1].encode(), defect["column"]
    lines[defect["line"] - 1] = (line[:at] + defect["after"].encode() + line[at + len(defect["before"].encode()) :]).decode()
    file.write_text("".join(lines), encoding="utf-8")
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", *tests]
    env = os.environ | {"PYTHONPATH": str(tree)}  # of the processes that tests start elsewhere, too
    try:
        return {0: False, 1: True}.get(subprocess.run(command, cwd=tree, env=env, capture_output=True, timeout=SECONDS).returncode)
    except subprocess.TimeoutExpired:
        return None
    finally:
        file.write_text(whole, encoding="utf-8")


def main() -> None:
    """Plant, test, and write which defects were found."""
    parser = argparse.ArgumentParser("python -m scripts.checks.planted", description=__doc__.partition("\n")[0])
    parser.add_argument("--coverage", type=Path, default=ROOT / ".coverage")
    parser.add_argument("--defects", type=int, default=40)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--known", type=Path, help="an earlier result")
    parser.add_argument("--output", type=Path, required=True)
    given = parser.parse_args()
    tests, draw = tests_by_line(given.coverage), random.Random(given.seed)
    every = [one | {"file": name} for name in sorted(tests) for one in defects_of(ROOT / name) if tests[name].get(one["line"])]
    chosen = draw.sample(every, given.defects) if given.known is None else []
    for known in json.loads(given.known.read_text(encoding="utf-8")) if given.known is not None else ():
        same = [one for one in every if all(one[key] == known[key] for key in ("file", "text", "column", "after"))]
        chosen += same if len(same) == 1 else []
    done = list[dict[str, Any]]()
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder) / "tree"
        left_out = {".git", ".venv", "build", "dist"}
        shutil.copytree(ROOT, tree, symlinks=True, ignore=lambda of, names: left_out if Path(of) == ROOT else [])
        for number, defect in enumerate(chosen, 1):
            files = {test.partition("::")[0] for test in tests[defect["file"]][defect["line"]]}
            near = Path(defect["file"]).stem
            done.append(defect | {"found": is_found(tree, defect, sorted(files, key=lambda file: (near not in file, file)))})
            said = {True: "found", False: "MISSED", None: "not decided"}[done[-1]["found"]]
            print(f"{number}/{len(chosen)} {said} {defect['file']}:{defect['line']}", flush=True)
            given.output.write_text(json.dumps(done, indent=1) + "\n", encoding="utf-8")
    decided = [one["found"] for one in done if one["found"] is not None]
    print(f"{sum(decided)} of {len(decided)} planted defects found, {len(done) - len(decided)} not decided")


if __name__ == "__main__":
    main()
