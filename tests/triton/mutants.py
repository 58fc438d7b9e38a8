"""Copies of the kernels with a planted defect, for tests that prove that a checker can fail."""

import importlib
import itertools
import shutil
import sys
from pathlib import Path

import dcrnn_fast.kernels

KERNELS = Path(dcrnn_fast.kernels.__file__).parent
_numbers = itertools.count()


def mutant(folder: Path, file: str, right: str, wrong: str):
    """The module ``cross_rnn_op`` of a copy of the kernels whose ``file`` has ``wrong`` in the place of ``right``."""
    name = f"mutant_kernels_{next(_numbers)}"
    copy = folder / name
    shutil.copytree(KERNELS, copy, ignore=shutil.ignore_patterns("__pycache__"))
    text = (copy / file).read_text(encoding="utf-8")
    assert text.count(right) == 1, f"{file} has {text.count(right)} places for the defect: {right}"
    (copy / file).write_text(text.replace(right, wrong), encoding="utf-8")
    for path in copy.glob("*_op.py"):  # operators of the copy's own
        text = path.read_text(encoding="utf-8").replace("dcrnn_fast::", f"{name}::").replace("torch.ops.dcrnn_fast.", f"torch.ops.{name}.")
        path.write_text(text, encoding="utf-8")
    sys.path.insert(0, str(folder))
    try:
        return importlib.import_module(f"{name}.cross_rnn_op")
    finally:
        sys.path.remove(str(folder))
