"""How Sphinx makes the site: ``make site``. Its sources are README.md, the pages of docs/ as they stand, and the docstrings."""

import re
import shutil
from pathlib import Path

import dcrnn_fast

ROOT = Path(__file__).parents[2]
MODULES = {
    "dcrnn_fast": "BackendUnavailable, DcrnnFastError, SharingPlan",  # which other pages describe
    **dict.fromkeys(
        f"dcrnn_fast.{name}" for name in ("functional", "reference", "sharing", "data", "data.spark", "training", "serving", "torchrec")
    ),
    "dcrnn_fast.errors": "did_you_mean, shown",
}
"""Those whose names are public: each gets a page, without these names."""
ARGS = ("what it reads", "the recurrence and what tasks share of it", "towers and the relation between tasks", "scenarios", "where it runs")
"""Sections of arguments in docstrings."""

project = "dcrnn_fast"
release = dcrnn_fast.__version__
html_show_copyright = False
html_title = f"dcrnn_fast {release}"
html_theme = "furo"
html_static_path = ["static"]
html_css_files = ["site.css"]
extensions = ["myst_nb", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
root_doc = "README"
include_patterns = ["README.md", "CHANGELOG.md", "CONTRIBUTING.md", "docs/**", "bench/results/*.md", "dcrnn_fast/data/embedded/README.md"]
exclude_patterns = ["docs/site"]
default_role = "code"

myst_heading_anchors = 4
nb_execution_mode = "force"
nb_execution_raise_on_error = True
nb_execution_timeout = 300
nb_merge_streams = True

autodoc_mock_imports = ["torchrec"]
autodoc_member_order = "bysource"
napoleon_custom_sections = [*((f"Args for {part}", "params_style") for part in ARGS), ("Returns a dict of", "params_style")]


def index() -> dict[str, list[str]]:
    """By section of docs/README.md, the index of all pages, its pages as paths from the root."""
    sections = (ROOT / "docs" / "README.md").read_text(encoding="utf-8").split("\n## ")[1:]
    links = {section.partition(":")[0]: re.findall(r"\]\(([^)#]+\.(?:md|ipynb))\)", section) for section in sections}
    return {title: [(ROOT / "docs" / link).resolve().relative_to(ROOT).as_posix() for link in found] for title, found in links.items()}


def write_module_pages() -> None:
    """docs/api/NAME.rst for each public module."""
    folder = ROOT / "docs" / "api"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for name, without in MODULES.items():
        but = f"   :exclude-members: {without}\n" if without else ""
        page = f"{name}\n{'=' * len(name)}\n\n.. automodule:: {name}\n   :members:\n{but}"
        (folder / f"{name}.rst").write_text(page, encoding="utf-8")


def add_contents(app, page, source) -> None:
    """Below the first page stands the table of contents, which a browser shows at the side."""
    if page == root_doc:
        source[0] += "\n```{toctree}\n:hidden:\n\ndocs/README\n```\n"
        for title, pages in index().items():
            source[0] += f"\n```{{toctree}}\n:hidden:\n:caption: {title}\n\n" + "\n".join(pages) + "\n```\n"


def write_entrances(app, error) -> None:
    """Where a browser begins, and llms.txt: the pages as text, for programs that read."""
    if error is None:
        folder = Path(app.outdir)
        (folder / "index.html").write_text(f'<meta http-equiv="refresh" content="0; url={root_doc}.html">\n', encoding="utf-8")
        parts = [f"# {project} {release}"]
        for title, pages in index().items():
            parts.append(f"## {title}\n\n" + "\n".join(f"- [{page}](_sources/{page}.txt)" for page in pages))
        (folder / "llms.txt").write_text("\n\n".join(parts) + "\n", encoding="utf-8")


def setup(app) -> None:
    """Sphinx calls this first."""
    write_module_pages()
    app.connect("source-read", add_contents)
    app.connect("build-finished", write_entrances)
