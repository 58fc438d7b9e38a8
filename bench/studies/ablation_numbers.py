"""What if a number among the defaults were another one? ``make study NAME=ablation_numbers`` trains with each of them changed.

This is the ablation of sizes, rates and ratios: the same data sets, rows and rules as :mod:`bench.studies.ablation`, of parts. Each of the
two has its own runs of the defaults, since each is of one machine.
"""

from __future__ import annotations

from argparse import Namespace
from pathlib import Path
from typing import Any

from . import ablation


def run(data: str, setting: str, seed: int, *, options: Namespace, folder: Path) -> dict[str, Any]:
    """The scores of the kept weights on the validation rows, by task."""
    return ablation.run(data, setting, seed, options=options, folder=folder)


STUDY = ablation.study_of("ablation_numbers", run, {ablation.DEFAULT: {}, **ablation.NUMBERS}, quick="1 step")
