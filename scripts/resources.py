"""Compiles every Triton or CUDA kernel without a GPU, and checks what each takes of one. docs/triton.md and docs/cuda.md explain the results.

    python scripts/resources.py triton      # writes bench/results/triton_resources.json
    python scripts/resources.py cuda        # writes bench/results/cuda_resources.json; without nvcc it checks nothing and exits with 0

The exit code is 1 if a check fails. The last lines of the output name each failure.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import cuda_report
import triton_report
from multiprocessor import MULTIPROCESSORS
from sources import ROOT


def aligned(lines: list[tuple[str, ...]]) -> str:
    """A table of lines that have equally many words."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join("  ".join(word.ljust(width) for word, width in zip(line, widths, strict=True)).rstrip() for line in lines)


def main(arguments: list[str] | None = None) -> int:
    """Compile, check, write the result and print it in short. Returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    languages = parser.add_subparsers(dest="language", required=True)
    for name, module in (("triton", triton_report), ("cuda", cuda_report)):
        language = languages.add_parser(name, description=module.__doc__, help=f"the kernels in {name}")
        result = ROOT / "bench" / "results" / f"{name}_resources.json"
        language.add_argument("--output", type=Path, default=result, help=f"the result's file (default: bench/results/{result.name})")
        language.add_argument("--archs", nargs="+", type=int, choices=MULTIPROCESSORS, default=list(MULTIPROCESSORS), help="only these GPUs")
        module.add_options(language)
        language.set_defaults(report=module.report)
    options = parser.parse_args(arguments)
    content = options.report(options)
    if content is None:
        return 0
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps(content.result, indent=1) + "\n", encoding="utf-8")
    print(aligned(content.table))
    for name, failures in content.failed:
        print(f"FAILED: {name}: {'; '.join(failures)}")
    print(f"{content.counted}, {len(content.failed)} failed; written to {options.output}")
    return int(bool(content.failed))


if __name__ == "__main__":
    raise SystemExit(main())
