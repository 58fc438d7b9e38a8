"""Writes the tables of README.md and of the pages in docs/ from bench/results/: ``python -m bench.readme``. A test compares both."""

from __future__ import annotations

import re
from pathlib import Path

from dcrnn_fast.support import files

from .tables import quality, serving, sizes, speed

ROOT = Path(__file__).parents[1]

SECTIONS = {
    ROOT / "README.md": {"quality": quality.comparison, "speed": speed.full_cell, "low rank": speed.low_rank},
    ROOT / "docs" / "guide" / "data-format.md": {"scale": sizes.scale},
    ROOT / "docs" / "evidence" / "performance.md": {
        "losses": speed.losses,
        "training step": speed.training_step,
        "step parts": speed.step_parts,
    },
    ROOT / "docs" / "guide" / "choosing.md": {
        "budget": quality.costs,
        "ablation": quality.ablation,
        "embedding start": quality.embedding_start,
        "rank": quality.rank,
        "scenarios": quality.scenarios,
    },
    ROOT / "docs" / "guide" / "training.md": {
        "compiled step": speed.compiled_step,
        "selection bias": quality.selection_bias,
        "embedding step": speed.embedding_step,
    },
    ROOT / "docs" / "guide" / "sizing.md": {"sizing": sizes.sizing},
    ROOT / "docs" / "guide" / "serving.md": {"requests": serving.requests},
    ROOT / "docs" / "guide" / "server.md": {"load": serving.load},
    ROOT / "docs" / "evidence" / "quality.md": {
        "quality protocol": quality.protocol,
        "weightings": quality.weightings,
        "synthetic": quality.synthetic,
    },
}


def render(page: Path) -> str:
    """The page's text with every marked section written anew."""
    text = page.read_text(encoding="utf-8")
    for name, content in SECTIONS[page].items():
        pattern = rf"(<!-- {name}: [^>]*-->\n).*?(<!-- /{name} -->)"
        text, found = re.subn(pattern, lambda marks, content=content: f"{marks[1]}{content()}\n{marks[2]}", text, flags=re.DOTALL)
        if found != 1:
            raise SystemExit(f"{page}: expected one section marked {name!r}, found {found}")
    return text


if __name__ == "__main__":
    for page in SECTIONS:
        files.write_text(page, render(page))
