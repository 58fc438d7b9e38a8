"""Compiles every Triton or CUDA kernel, without a GPU, and checks what each takes of one.

    python scripts/resources.py triton      # writes bench/results/triton_resources.json
    python scripts/resources.py cuda        # writes bench/results/cuda_resources.json; without nvcc it checks nothing and exits with 0

The exit code is 1 if a check fails. The last lines of the output name each failure. docs/inside/gpu-reports.md explains the results.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import cuda_report
import report
import triton_report
from multiprocessor import MULTIPROCESSORS
from sources import ROOT


def main(arguments: list[str] | None = None) -> int:
    """Compile, check, write and print the result, and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    languages = parser.add_subparsers(required=True, metavar="triton|cuda")
    archs = list(MULTIPROCESSORS)
    for name, module in (("triton", triton_report), ("cuda", cuda_report)):
        language = languages.add_parser(name, description=module.__doc__)
        path = ROOT / "bench" / "results" / f"{name}_resources.json"
        language.add_argument("--output", type=Path, default=path, help=f"where the result goes (default: bench/results/{path.name})")
        language.add_argument("--archs", nargs="+", type=int, choices=archs, default=archs, help="only these GPUs")
        module.add_options(language)
        language.set_defaults(module=module)
    options = parser.parse_args(arguments)
    result = options.module.report(options)
    return 0 if result is None else report.conclude(result, options.module.COLUMNS, options.output)


if __name__ == "__main__":
    raise SystemExit(main())
