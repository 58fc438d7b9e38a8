"""Compiles every Triton or CUDA kernel, without a GPU, and checks what each takes of one.

    python -m scripts.resources triton      # writes bench/results/triton_resources.json
    python -m scripts.resources cuda        # writes bench/results/cuda_resources.json; without nvcc it checks nothing and exits with 0

The exit code is 1 if a check fails. The last lines of the output name each failure. docs/inside/kernels.md explains the results.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from pathlib import Path
from typing import Any

from bench.results import as_json

from ..sources import ROOT
from . import SHARED_MEMORY, cuda_report, triton_report

KEY = ("source", "kernel", "kind", "arch", "rank", "tile", "warps", "stages", "variant")
"""What tells a row from the others, where it has it."""


def digest_of(report: Any, options: argparse.Namespace, versions: dict[str, str]) -> str:
    """A digest of all that decides a result: the bytes of the kernels and of these scripts, the versions, and the options."""
    scripts = [Path(__file__).with_name("__init__.py"), Path(report.__file__)]
    found = hashlib.sha256(json.dumps([sorted(options.archs), options.only, versions]).encode())
    for file in [*sorted(report.files_of(options)), *scripts]:
        found.update(file.name.encode() + b"\0" + file.read_bytes() + b"\0")
    return found.hexdigest()


def conclude(result: dict[str, Any], path: Path) -> int:
    """Print whatever has ``failures``, and return the exit code."""
    sections = {name: section for name, section in result.items() if isinstance(section, list)}
    failed = [row for section in sections.values() for row in section if row.get("failures")]
    for row in failed:
        names = [row[name] if isinstance(row[name], str) else f"{name}={row[name]}" for name in KEY if name in row]
        print(f"FAILED: {' '.join(names)}: {'; '.join(row['failures'])}")
    print(f"{', '.join(f'{len(section)} {name}' for name, section in sections.items())}, {len(failed)} failed; see {path}")
    return int(bool(failed))


def main(arguments: list[str] | None = None) -> int:
    """Compile, check, write and print the result, and return the exit code."""
    parser = argparse.ArgumentParser(
        "python -m scripts.resources", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    languages, archs = parser.add_subparsers(required=True, metavar="triton|cuda"), list(SHARED_MEMORY)
    for name, module in (("triton", triton_report), ("cuda", cuda_report)):
        language = languages.add_parser(name, description=module.__doc__)
        path = ROOT / "bench" / "results" / f"{name}_resources.json"
        language.add_argument("--output", type=Path, default=path, help=f"where the result goes (default: bench/results/{path.name})")
        language.add_argument("--recorded", action="store_true", help="compile nothing if that file is of the same sources and versions")
        language.add_argument("--archs", nargs="+", type=int, choices=archs, default=archs, help="only these GPUs")
        language.add_argument("--only", default="", metavar="REGEX", help=module.ONLY)
        language.add_argument("--sources", type=Path, default=module.SOURCES, metavar="FOLDER", help="the kernels, or a copy of them")
        language.set_defaults(report=module)
    options = parser.parse_args(arguments)
    versions = options.report.versions()
    if versions is None:
        return 0
    digest, path = digest_of(options.report, options, versions), options.output
    if options.recorded and path.is_file():
        recorded = json.loads(path.read_text(encoding="utf-8"))
        if recorded["digest"] == digest:
            return conclude(recorded, path)
        print(f"{path} is not of these sources, scripts, options and versions: compiling all")
    result = {"digest": digest, "versions": versions, **options.report.report(options)}
    if not options.recorded:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(as_json(result) + "\n", encoding="utf-8")
    return conclude(result, path)


if __name__ == "__main__":
    raise SystemExit(main())
