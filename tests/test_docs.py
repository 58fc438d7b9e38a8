"""What the pages name is there: links, paths, files and make targets; and pre-commit runs what ``make lint`` runs."""

import re
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(ROOT.glob("docs/**/*.md"))]
LISTS = [*PAGES, ROOT / "dcrnn_fast" / "data" / "embedded" / "README.md"]
SOURCES = ("bench", "csrc", "dcrnn_fast", "examples", "kernels", "scripts", "server", "tests")
PRODUCED = ("build/", "runs/", "checkpoints/", "tensorboard/", ".venv/")
"""What commands write, and no checkout has."""


def page_id(path):
    return str(path.relative_to(ROOT))


def prose(path):
    return re.sub(r"```.*?```", "", path.read_text(encoding="utf-8"), flags=re.DOTALL)


@pytest.mark.parametrize("path", PAGES, ids=page_id)
def test_commands_are_targets_of_the_makefile(path):
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in set(re.findall(r"(?:`|^    )make ([\w-]+)", prose(path), flags=re.MULTILINE)):
        assert f"\n{target}:" in makefile, f"no target {target}"


@pytest.mark.parametrize("path", LISTS, ids=page_id)
def test_links_lead_to_files(path):
    for link in re.findall(r"\]\(([^)#]+)\)", prose(path)):
        assert "://" in link or (path.parent / link).exists(), f"no file {link}"


@pytest.mark.parametrize("path", PAGES, ids=page_id)
def test_named_paths_exist(path):
    text = path.read_text(encoding="utf-8")
    for name in re.findall(r"`([\w.-]+/[\w./*-]*)`", prose(path)) + re.findall(r"python3? (\w+/\w+\.py)", text):
        if not name.startswith(PRODUCED) and not re.search("NAME|CARD", name):
            assert list(ROOT.glob(name.rstrip("/"))), f"no path {name}"


@pytest.mark.parametrize("path", PAGES, ids=page_id)
def test_named_source_files_exist(path):
    for name in re.findall(r"`([\w*]+\.(?:py|h|cpp|cu))`", prose(path)):
        assert any(True for folder in SOURCES for _ in (ROOT / folder).rglob(name)), f"no file {name}"


def test_the_tests_behind_each_promise_exist():
    path = ROOT / "docs" / "evidence" / "reliability.md"
    every = "\n".join(file.read_text(encoding="utf-8") for file in (ROOT / "tests").rglob("test_*.py"))
    for name in re.findall(r"`(test_\w+)`", prose(path)):
        assert f"\ndef {name}(" in every, f"no test {name}"


def test_pre_commit_runs_what_make_lint_runs():
    recipe = re.search(r"^lint:.*\n((?:\t.*\n)+)", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.MULTILINE)[1]
    linted = {line.replace("$(BIN)/", "").partition("$")[0].strip() for line in recipe.splitlines()}
    (local,) = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))["repos"]
    assert {hook["entry"] for hook in local["hooks"]} == linted
