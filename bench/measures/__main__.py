"""``make measure NAME=requests`` runs a measurement, on an idle machine, and replaces its part of bench/results/measures.json.

A measurement is a module here: ``run(options)`` measures, prints, and gives that part without the machine, or None if nothing is kept.
It may have SECONDS (how long each case is measured), THREADS (PyTorch's; as many as it chooses without) and ``add_options``.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

import torch

from dcrnn_fast.errors import DcrnnFastError

from .. import results

NAMES = ("compiled_step", "embedding_step", "load", "requests", "scale", "sizing", "spark", "step_parts", "training_step")


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the measurement that the first argument names."""
    first = argparse.ArgumentParser("python -m bench.measures", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    first.add_argument("name", type=lambda name: name.replace("-", "_"), choices=NAMES, metavar="NAME", help=", ".join(NAMES))
    first.add_argument("options", nargs=argparse.REMAINDER, metavar="OPTION", help="NAME --help lists those of a measurement")
    given = first.parse_args(arguments)
    asked = import_module(f"{__package__}.{given.name}")
    parser = argparse.ArgumentParser(
        f"python -m bench.measures {given.name}", description=asked.__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    if hasattr(asked, "SECONDS"):
        parser.add_argument("--seconds", type=float, default=asked.SECONDS, help=f"of each case; default: {asked.SECONDS}")
    file = results.COMMITTED / results.MEASURES
    parser.add_argument("--output", type=Path, default=file, help=f"where what is kept goes; default: bench/results/{file.name}")
    if hasattr(asked, "add_options"):
        asked.add_options(parser)
    options = parser.parse_args(given.options)
    if hasattr(asked, "THREADS"):
        torch.set_num_threads(asked.THREADS)
    try:
        content = asked.run(options)
    except DcrnnFastError as error:
        raise SystemExit(f"error: {error}") from None
    if content is not None:
        results.write_part(options.output, given.name, content)
        print(f"written to {options.output}")


if __name__ == "__main__":
    main()
