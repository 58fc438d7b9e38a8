"""Attacks servers, each a process on loopback: `make attack`.

    python -m tests.server.attack                              # the server in Python, some minutes
    python -m tests.server.attack --program PROGRAM            # and the one in C++
    python -m tests.server.attack --short --only python        # the same attacks on one of them, smaller
    python -m tests.server.attack --url http://127.0.0.1:8000  # any server that runs already: the fuzz, which needs no process

Each attack prints a line with what it measured. If a server breaks a promise, the line says which, and the exit code is 1.
"""

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from http.client import HTTPException
from pathlib import Path

from .attacks import ATTACKS, FULL, HOSTILE, SHORT, Found, Target, fuzz_at
from .contract import ROWS


def run(name, attack):
    """Print what an attack measured, or what it found. Returns whether it found nothing."""
    with tempfile.TemporaryDirectory(prefix="dcrnn_fast-attack-") as folder:
        start = time.monotonic()
        try:
            words = attack(Path(folder))
        except (Found, OSError, HTTPException, KeyError, ValueError, subprocess.TimeoutExpired) as error:
            print(f"{name}: FOUND: {error if isinstance(error, Found) else repr(error)}", flush=True)
            return False
        print(f"{name}: {words} ({time.monotonic() - start:.0f} s)", flush=True)
        return True


def targets(folder, program, only):
    """The server in Python of a run folder and of an exported file, and the one in C++ of a compiled file."""
    from dcrnn_fast import Ranker
    from dcrnn_fast.serving import export
    from dcrnn_fast.training import train
    from tests.training.tiny import tiny_config, write_table

    os.environ.setdefault("DCRNN_FAST_CACHE", str(folder / "cache"))
    runs = [folder / "run-0", folder / "run-1"]
    for seed, path in enumerate(runs):
        train(tiny_config(write_table(folder / f"table-{seed}", seed=seed), optimiser__epochs=1), path)
    rankers = [Ranker.load(path) for path in runs]
    expected = {ranker.id[:12]: ranker.predict(ROWS) for ranker in rankers}

    def exported(kind, **options):
        paths = [path.with_suffix(f".{kind}.pt2") for path in runs]
        for path, file in zip(runs, paths, strict=True):
            export(path, file, format=kind, **options)
        return tuple(paths)

    serve = [sys.executable, "-m", "dcrnn_fast", "serve", "--port", "0"]
    if only != "cpp":
        yield Target("Python", [*serve, "--run"], tuple(runs), expected), [name for name in ATTACKS if name not in HOSTILE]
        yield Target("Python, exported file", [*serve, "--package"], exported("pt2", backend="reference"), expected), ["replace"]
    if only != "python" and program:
        words = [program, "--port", "0", "--transfer-seconds", "5", "--model"]
        yield Target("C++", words, exported("aoti", backend="cpp", cpu="native"), expected, taking=5.0), list(ATTACKS)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--url", help="of a server that runs already: only the fuzz, whose requests fit any model")
    parser.add_argument("--program", default=os.environ.get("DCRNN_FAST_SERVER_PROGRAM"), help="the server in C++")
    parser.add_argument("--only", choices=["python", "cpp"], help="one of the two servers")
    parser.add_argument("--attack", choices=list(ATTACKS), help="one of the attacks")
    parser.add_argument("--requests", type=int, help="of the memory attack: millions soak a server for hours")
    parser.add_argument("--reloads", type=int, help="of the memory attack")
    parser.add_argument("--short", action="store_true", help="less of each, in about a minute a server")
    given = parser.parse_args()
    if given.only == "cpp" and not given.program:
        parser.error("--only cpp needs --program or DCRNN_FAST_SERVER_PROGRAM")
    if given.only != "python" and given.program and not Path(given.program).is_file():
        parser.error(f"--program {given.program}: there is no such file; `make server` builds build/server/dcrnn_fast_server")
    form = SHORT if given.short else FULL
    form = form._replace(requests=given.requests or form.requests, reloads=given.reloads or form.reloads)
    if given.url:
        return int(not run(given.url, lambda folder: fuzz_at(given.url.rstrip("/"), folder, form.examples)))
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, 4096)), hard))
    good = True
    with tempfile.TemporaryDirectory(prefix="dcrnn_fast-attack-") as folder:
        for target, names in targets(Path(folder), given.program, given.only):
            for name in names if given.attack is None else [one for one in names if one == given.attack]:
                good &= run(f"{target.name}: {name}", lambda folder, name=name, target=target: ATTACKS[name](target, form, folder))
    return int(not good)


if __name__ == "__main__":
    sys.exit(main())
