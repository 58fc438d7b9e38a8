"""``make measure NAME=requests`` runs a measurement, on an idle machine, and replaces its file of bench/results/."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from dcrnn_fast.errors import DcrnnFastError

from .. import machine, results
from .measure import NAMES, measure


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the measurement that the first argument names."""
    first = argparse.ArgumentParser("python -m bench.measures", description=__doc__)
    first.add_argument("name", type=lambda name: name.replace("-", "_"), choices=NAMES, metavar="NAME", help=", ".join(NAMES))
    first.add_argument("options", nargs=argparse.REMAINDER, metavar="OPTION", help="NAME --help lists those of a measurement")
    given = first.parse_args(arguments)
    asked = measure(given.name)
    parser = argparse.ArgumentParser(
        f"python -m bench.measures {asked.name}",
        description=sys.modules[asked.run.__module__].__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    if asked.seconds is not None:
        parser.add_argument(
            "--seconds", type=float, default=asked.seconds, help=f"how long each case is measured; default: {asked.seconds}"
        )
    if asked.file:
        parser.add_argument("--output", type=Path, default=results.COMMITTED / asked.file, help=f"default: bench/results/{asked.file}")
        parser.add_argument("--dry", action="store_true", help="print the figures and write no file")
    if asked.add_options is not None:
        asked.add_options(parser)
    options = parser.parse_args(given.options)
    if asked.threads is not None:
        torch.set_num_threads(asked.threads)
    try:
        content = asked.run(options)
    except DcrnnFastError as error:
        raise SystemExit(f"error: {error}") from None
    if content is not None and not options.dry:
        results.write(options.output, {"machine": machine.description(), **content})
        print(f"written to {options.output}")


if __name__ == "__main__":
    main()
