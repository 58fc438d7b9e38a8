"""Writes the pages of bench/results/ and the marked tables of README.md and docs/, all from the files of bench/results/.

``python -m bench.pages``. A test compares them with the files.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

from dcrnn_fast.support import files

from . import results
from .quality import report
from .quality.data_sets import NAMES
from .studies.__main__ import STUDIES
from .studies.tables import section
from .tables import serving, speed

ROOT = Path(__file__).parents[1]
Content = Callable[[], str]


def study(name: str) -> Content:
    """The table of a study."""
    return lambda: section(name, STUDIES[name], results.read(f"{name}.json"))


def finished(title: str) -> Content:
    """The tables of a study that has ended, as bench/results/finished.md has them."""
    parts = (results.COMMITTED / "finished.md").read_text(encoding="utf-8").split("\n## ")
    return lambda: next(part for part in parts if part.startswith(f"{title}\n")).partition("\n")[2].strip()


def excerpt(table: Content, *, lines: str = "", columns: str = "") -> Content:
    """The lines of a table that start with one of ``lines`` and the columns of these names, after the first column. None named: all.

    Names stand between semicolons. A line is its cells with " | " behind each.
    """
    starts, names = (names.split("; ") if names else [] for names in (lines, columns))

    def render() -> str:
        text = table()
        header, _, *rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.split("\n\n")[0].splitlines()]
        joined = [" | ".join([*row, ""]) for row in rows]
        if missing := [start for start in starts if not any(line.startswith(start) for line in joined)]:
            raise SystemExit(f"no line starts with {missing} in this table:\n{text}")
        kept = [row for row, line in zip(rows, joined, strict=True) if not starts or line.startswith(tuple(starts))]
        positions = [0, *map(header.index, names)] if names else range(len(header))
        shown = results.markdown([header[at] for at in positions], [[row[at] for at in positions] for row in kept])
        machine = re.sub(r", PyTorch .*?(?=;)", "", text.rpartition(". ")[2])  # the whole table names the versions
        return f"{shown}\n\n{machine}"

    return render


PAGES: dict[str, tuple[str, Mapping[str, Content]]] = {
    "speed.md": (
        "Speed",
        {
            "The full cell": speed.full_cell,
            "The low-rank cell": speed.low_rank,
            "Cases in which ours takes longer": speed.losses,
            "Whole training steps": speed.training_step,
            "Parts of steps": speed.step_parts,
            "Compiled training steps": speed.compiled_step,
            "Growing embedding tables": speed.embedding_step,
        },
    ),
    "models.md": (
        "Models",
        {
            "All models": report.comparison,
            "All models, untuned": partial(report.comparison, "quality_untuned"),
            "The variants of DCRNN": report.variants,
        },
    ),
    "options.md": (
        "Options of DCRNN",
        {"Each default changed": study("ablation"), "The start of a run": study("first_order"), "Going on": study("continuing")},
    ),
    "quality.md": ("Every size and task", {data: partial(report.of_set, results.read("quality.json"), data) for data in NAMES}),
    "serving.md": ("Requests and servers", {"Requests": serving.requests, "Servers under load": serving.load}),
}
"""The pages of bench/results/ with all tables: title, and the tables by heading."""

GUIDE, EVIDENCE = ROOT / "docs" / "guide", ROOT / "docs" / "evidence"
SECTIONS: dict[Path, Mapping[str, Content]] = {
    ROOT / "README.md": {"speed": speed.headline},
    GUIDE / "encoding.md": {"scale": excerpt(speed.scale, columns="cores; seconds; rows/s; most memory")},
    GUIDE / "choosing.md": {
        "variants": excerpt(
            report.variants, lines="DCRNN, small |; DCRNN, medium |; DCRNN, hard sharing, medium |; DCRNN, full cell, medium |"
        )
    },
    GUIDE / "scale.md": {"embedding step": excerpt(speed.embedding_step, columns="dense: AdamW; sparse: row-wise Adagrad; sparse / dense")},
    EVIDENCE / "performance.md": {
        "full cell": excerpt(
            speed.full_cell,
            columns="forward: eager; forward: torch.compile; training: torch.compile; training: product floor",
        ),
        "low rank": excerpt(
            speed.low_rank,
            lines="D = 320, rank 32, B = 512,; D = 624, rank 64, B = 4096,",
            columns="training: our full cell; training: torch.compile; training: product floor",
        ),
        "training step": excerpt(speed.training_step, lines="training rows/s, B = 512; request; forward: FLOPs"),
        "requests": excerpt(serving.requests, columns="prepared; eager; AOTInductor; ONNX Runtime"),
        "load": excerpt(
            serving.load,
            lines="; ".join(
                f"{rows} | 8 | {server} |" for rows in (1, 200) for server in ("C++, AOTInductor", "C++, ONNX Runtime", "Python")
            ),
            columns="server; requests/s; p50 / p99 / p99.9, ms",
        ),
        "losses": speed.losses_summary,
    },
    EVIDENCE / "quality.md": {
        "models": excerpt(
            report.comparison,
            lines="DCRNN |; DCRNN by `dcrnn-fast train`, untuned; DCN-v2; GDCN; a DCRNN for each task; SharedBottom; MMoE; PLE; AITM; "
            "LightGBM; CatBoost; logistic regression",
            columns="census-income; hillstrom; movielens-100k; id-log; mean rank; training rows/s, bfloat16",
        ),
        "redrawn": excerpt(
            finished("Drawn again"),
            lines="DCRNN by `dcrnn-fast train`, untuned; DCN-v2; GDCN; MMoE; PLE; LightGBM; CatBoost; logistic regression",
            columns="hillstrom; id-log",
        ),
        "large log": excerpt(finished("A million rows"), lines="best possible; DCRNN by; DCN-v2; LightGBM; CatBoost; logistic regression"),
        "synthetic": excerpt(
            finished("Tasks of known relation"),
            lines="DCRNN, rows 0.5; DCRNN, hard sharing; DCRNN, no sharing; MMoE; PLE; logistic regression",
            columns="cosine 0.0; cosine 1.0",
        ),
    },
    EVIDENCE / "defaults.md": {
        "ablation": excerpt(
            study("ablation"),
            lines="the defaults; no first-order term; full cell |; no gate; hard sharing; no sharing; relation independent; "
            "relation transfer; one projection",
            columns="mean of the sets; above the defaults",
        ),
        "rank": excerpt(
            finished("The rank"),
            lines="census-income | 8; census-income | 32; census-income | 128; census-income | full",
            columns="rank; parameters; test AUC; step over the full cell's",
        ),
    },
    EVIDENCE / "daily-logs.md": {
        "first order": excerpt(study("first_order"), columns="adds up; title, session; groceries; movielens-100k"),
        "late labels": excerpt(finished("Cut labels"), lines="labels cut"),
        "continuing": excerpt(
            study("continuing"),
            lines="; ".join(
                f"{log}: {task} |"
                for log, tasks in {
                    "shop": ("click", "cart", "order"),
                    "news": ("click", "cart", "order"),
                    "groceries": ("again", "soon"),
                    "flights": ("late", "very_late"),
                    "movielens-100k": ("like", "love"),
                }.items()
                for task in tasks
            ),
            columns="going on; never again; everything",
        ),
    },
}
"""The marked tables of README.md and docs/."""


def render(page: Path) -> str:
    """The text of README.md or of a page of docs/ with every marked section written anew."""
    text = page.read_text(encoding="utf-8")
    for name, content in SECTIONS[page].items():
        pattern = rf"(<!-- {name}: [^>]*-->\n).*?(<!-- /{name} -->)"
        text, found = re.subn(pattern, lambda marks, content=content: f"{marks[1]}{content()}\n{marks[2]}", text, flags=re.DOTALL)
        if found != 1:
            raise SystemExit(f"{page}: expected one section marked {name!r}, found {found}")
    return text


def whole(name: str) -> str:
    """The text of a page of bench/results/."""
    title, tables = PAGES[name]
    return f"# {title}\n\n" + "\n\n".join(f"## {heading}\n\n{content()}" for heading, content in tables.items()) + "\n"


if __name__ == "__main__":
    for page in SECTIONS:
        files.write_text(page, render(page))
    for name in PAGES:
        files.write_text(results.COMMITTED / name, whole(name))
