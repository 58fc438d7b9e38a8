"""What the pages name is there: links, paths, files and make targets."""

import json
import re
from pathlib import Path

import pytest

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


def headings(path):
    """The anchors of a page: its headings in lower case, without punctuation, with hyphens for spaces."""
    found = re.findall(r"^#+ (.*)$", prose(path), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in found}


@pytest.mark.parametrize("path", LISTS, ids=page_id)
def test_links_lead_to_files_and_headings(path):
    for link, _, anchor in re.findall(r"\]\(([^)#]*)(#([\w-]+))?\)", prose(path)):
        if "://" not in link:
            target = path.parent / link if link else path
            assert target.exists(), f"no file {link}"
            assert not anchor or anchor in headings(target), f"no heading {anchor} in {link}"


@pytest.mark.parametrize("path", LISTS, ids=page_id)
def test_lines_of_prose_have_at_most_140_characters(path):
    generated = re.sub(r"<!-- [^/].*?<!-- /", "", path.read_text(encoding="utf-8"), flags=re.DOTALL)
    assert not [line for line in generated.splitlines() if len(line) > 140 and not line.startswith("|")]


def test_the_readme_is_short():
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 80
    assert len(text.split()) <= 700
    assert len(re.findall(r"\]\(", text)) <= 8


def test_no_page_is_longer_than_15_kilobytes():
    assert not [page_id(path) for path in PAGES if path.stat().st_size > 15 * 1024]


def test_the_index_names_every_page():
    index = ROOT / "docs" / "README.md"
    for path in [*ROOT.glob("docs/*/*.md"), *ROOT.glob("docs/*/*.ipynb")]:
        assert f"({path.relative_to(index.parent).as_posix()})" in index.read_text(encoding="utf-8"), f"not in the index: {path.name}"


@pytest.mark.parametrize("path", sorted(ROOT.glob("docs/notebooks/*.ipynb")), ids=page_id)
def test_a_notebook_has_no_outputs_and_its_links_lead_to_files(path):
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    assert not [cell for cell in cells if cell.get("outputs") or cell.get("execution_count")]
    for link in re.findall(r"\]\(([^)#]+)\)", "".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")):
        assert (path.parent / link).exists(), f"no file {link}"


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
