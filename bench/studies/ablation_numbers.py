"""What if a number among the defaults were another one? ``make study NAME=ablation_numbers`` trains with each of them changed.

This is the ablation of sizes, rates and ratios: the same data sets, rows and rules as :mod:`bench.studies.ablation`, of parts. Each of the
two has its own runs of the defaults, since each is of one machine.
"""

from __future__ import annotations

from .ablation import DEFAULT, NUMBERS, run, study_of

STUDY = study_of("ablation_numbers", run, {DEFAULT: {}, **NUMBERS}, quick="1 step")
