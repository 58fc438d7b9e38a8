"""The scripts as modules. Where the tests lie without the scripts, their tests are skipped."""

import importlib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
collect_ignore_glob = [] if (ROOT / "scripts" / "tree.py").is_file() else ["test_*.py"]


@pytest.fixture
def script():
    """Imports a script by its name in scripts/."""
    return lambda name: importlib.import_module(f"scripts.{name}")


@pytest.fixture
def sources(script, tmp_path, monkeypatch):
    """The root of a small tree of sources, which scripts/tree.py copies instead of this repository."""
    tree, root = script("tree"), tmp_path / "root"
    for name in tree.COPIED:
        if (ROOT / name).is_file():
            (root / name).write_text(name)
        else:  # a folder; in a copy that scripts/tree.py made, kernels/ lies elsewhere
            (root / name).mkdir(parents=True)
            (root / name / "one.py").write_text(name)
    monkeypatch.setattr(tree, "ROOT", root)
    return root
