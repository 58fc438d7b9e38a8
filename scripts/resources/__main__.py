"""Compiles every Triton or CUDA kernel, without a GPU, and checks what each takes of one.

    python -m scripts.resources triton      # writes bench/results/triton_resources.json
    python -m scripts.resources cuda        # writes bench/results/cuda_resources.json; without nvcc it checks nothing and exits with 0

The exit code is 1 if a check fails. The last lines of the output name each failure. docs/inside/gpu-reports.md explains the results.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from bench.results import as_json

from ..sources import ROOT
from . import SHARED_MEMORY, cuda_report, triton_report

KEY = ("source", "kernel", "kind", "arch", "rank", "tile", "warps", "stages", "variant")
"""What tells a row from the others, where it has it."""


def conclude(result: dict[str, Any], path: Path, *, recorded: bool) -> int:
    """Write the result unless it is a recorded one, print whatever has ``failures``, and return the exit code."""
    if not recorded:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(as_json(result) + "\n", encoding="utf-8")
    sections = {name: section for name, section in result.items() if isinstance(section, list)}
    failed = [row for section in sections.values() for row in section if row.get("failures")]
    for row in failed:
        names = [row[name] if isinstance(row[name], str) else f"{name}={row[name]}" for name in KEY if name in row]
        print(f"FAILED: {' '.join(names)}: {'; '.join(row['failures'])}")
    counted = ", ".join(f"{len(section)} {name}" for name, section in sections.items())
    print(f"{counted}, {len(failed)} failed; {'see' if recorded else 'written to'} {path}")
    return int(bool(failed))


def main(arguments: list[str] | None = None) -> int:
    """Compile, check, write and print the result, and return the exit code."""
    parser = argparse.ArgumentParser(
        "python -m scripts.resources", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    languages = parser.add_subparsers(required=True, metavar="triton|cuda")
    archs = list(SHARED_MEMORY)
    for name, module in (("triton", triton_report), ("cuda", cuda_report)):
        language = languages.add_parser(name, description=module.__doc__)
        path = ROOT / "bench" / "results" / f"{name}_resources.json"
        language.add_argument("--output", type=Path, default=path, help=f"where the result goes (default: bench/results/{path.name})")
        language.add_argument("--recorded", action="store_true", help="compile a part and compare, if that file is of the same sources")
        language.add_argument("--archs", nargs="+", type=int, choices=archs, default=archs, help="only these GPUs")
        module.add_options(language)
        language.set_defaults(module=module)
    options = parser.parse_args(arguments)
    result = options.module.report(options)
    return 0 if result is None else conclude(result, options.output, recorded=options.recorded)


if __name__ == "__main__":
    raise SystemExit(main())
