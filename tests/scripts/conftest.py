"""The scripts as modules, and sources for them to copy."""

import importlib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


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
        else:
            (root / name).mkdir(parents=True)
            (root / name / "one.py").write_text(name)
    monkeypatch.setattr(tree, "ROOT", root)
    return root
