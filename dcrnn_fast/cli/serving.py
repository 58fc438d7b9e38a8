"""What `dcrnn-fast serve` does: loads a model, listens, and serves it until it is stopped."""

from __future__ import annotations

import gc
from functools import partial
from pathlib import Path

from ..errors import ConfigError


def run_serve(
    run: Path | None,
    package: Path | None,
    *,
    host: str,
    port: int,
    max_body_bytes: int,
    max_rows: int,
    max_queue_rows: int,
    max_batch_rows: int,
    threads: int,
    grace: float,
    device: str,
    backend: str,
) -> None:
    """Serve until SIGTERM or SIGINT. Raises ConfigError, MissingExtra, and the errors of what loads the model."""
    path = run or package
    if path is None or (run is not None and package is not None):
        raise ConfigError("give either --run, a run folder, or --package, a .pt2 file of `dcrnn-fast export`")
    if max_queue_rows < max_rows:
        raise ConfigError(f"--max-queue-rows {max_queue_rows}: expected at least --max-rows, {max_rows}, or a large request is never taken")
    if package is not None and (device, backend) != ("auto", "auto"):
        raise ConfigError("--device and --backend are for --run; a --package computes as it was exported")
    from ..serving.http import check_packages

    check_packages()
    from ..serving.http.app import Application, Limits
    from ..serving.http.model import load_package, load_run
    from ..serving.http.server import Server, bind, keep_hangups

    keep_hangups()
    bound = bind(host, port)
    limits = Limits(max_body_bytes, max_rows, max_queue_rows, max_batch_rows)
    load = partial(load_package, path) if run is None else partial(load_run, path, device=device, backend=backend)
    gc.collect()
    gc.freeze()  # what was imported stays, and is not walked through again for every request with many cells
    try:
        Server(Application(load, limits, threads=threads), bound, grace=grace).serve_until_stopped()
    finally:
        gc.unfreeze()
