"""Compiles every Triton or CUDA kernel without a GPU, and checks what each takes of one. docs/triton.md and docs/cuda.md explain the results.

    python scripts/resources.py triton      # writes bench/results/triton_resources.json
    python scripts/resources.py cuda        # writes bench/results/cuda_resources.json; without nvcc it checks nothing and exits with 0

The exit code is 1 if a check fails. The last lines of the output name each failure.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import cuda_report
import triton_report
from multiprocessor import MULTIPROCESSORS
from sources import ROOT


def main(arguments: list[str] | None = None) -> int:
    """Compile, check, write the result, print it in short, and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    languages = parser.add_subparsers(required=True, metavar="triton|cuda")
    for name, module in (("triton", triton_report), ("cuda", cuda_report)):
        language = languages.add_parser(name, description=module.__doc__)
        result = ROOT / "bench" / "results" / f"{name}_resources.json"
        language.add_argument("--output", type=Path, default=result, help=f"the result's file (default: bench/results/{result.name})")
        language.add_argument(
            "--archs", nargs="+", type=int, choices=MULTIPROCESSORS, default=list(MULTIPROCESSORS), help="only these GPUs"
        )
        module.add_options(language)
        language.set_defaults(report=module.report)
    options = parser.parse_args(arguments)
    report = options.report(options)
    if report is None:
        return 0
    report.write(options.output)
    print(f"{report}; written to {options.output}")
    return int(bool(report.failed))


if __name__ == "__main__":
    raise SystemExit(main())
