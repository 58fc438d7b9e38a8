"""Entry point of ``dcrnn-fast``: checks that the ``train`` extra is installed, runs the command, prints a user's mistake as one line."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Sequence

from ..errors import DcrnnFastError, MissingExtra, RanksError, check_installed
from ..support.torchrun import is_first

NEEDED = ("duckdb", "matplotlib", "platformdirs", "pyarrow", "pydantic", "rich", "safetensors", "sklearn", "tensorboard", "typer", "yaml")
"""Modules of the ``train`` extra that the commands import."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run ``dcrnn-fast``; ``arguments`` default to the process's. Exits with 2 after an error that the user can correct."""
    try:
        check_installed("dcrnn-fast", "train", NEEDED)
    except MissingExtra as error:
        sys.stderr.write(f"error: {error}\n(`python -m dcrnn_fast info` works without)\n")
        sys.exit(2)
    from .commands import app

    try:
        app(args=arguments if arguments is None else list(arguments), prog_name="dcrnn-fast")
    except DcrnnFastError as error:
        shown_elsewhere = not is_first() if error.shown_by_another_rank is None else error.shown_by_another_rank
        if not shown_elsewhere:
            sys.stderr.write(f"error: {error}\n")
        if isinstance(error, RanksError) and "TORCHELASTIC_RUN_ID" in os.environ:
            # torchrun names the process that it sees end first: let that be the one that failed. Then it ends this one.
            sys.stderr.flush()
            time.sleep(5)
        sys.exit(2)
