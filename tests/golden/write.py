"""Compares golden values with found ones, and rewrites golden.json: ``python -m tests.golden.write``.

Rewrite it after a change that users are told of, and read the diff. files.zip holds a run and an export of it that later versions must
read. ``--files`` replaces it too: only where the format of files changes on purpose. The first golden files were written by the version
before the package's modules moved.
"""

import json
import math
import os
import re
import shutil
import sys
import tempfile
import zipfile
from pathlib import Path
from unittest import mock

from dcrnn_fast.serving import export
from dcrnn_fast.training import calibrate

from .contents import contents, train_run


def _same_number(one, other):
    return {type(one), type(other)} <= {int, float} and math.isclose(one, other, rel_tol=1e-4, abs_tol=2e-6)


def differences(golden, found, place=""):
    """A line for each place in which ``found`` is not as ``golden``. A class may have more members than it had."""
    if isinstance(golden, dict) and isinstance(found, dict):
        new = () if place.endswith("/members") else found.keys() - golden.keys()
        lines = [f"{place}/{key} is gone" for key in golden.keys() - found.keys()] + [f"{place}/{key} is new" for key in new]
        return sorted(lines) + [line for key in golden if key in found for line in differences(golden[key], found[key], f"{place}/{key}")]
    if isinstance(golden, list) and isinstance(found, list):
        if all(isinstance(one, str) for one in golden + found) and set(golden) != set(found):
            gone, new = [one for one in golden if one not in found], [one for one in found if one not in golden]
            return [f"{place} lacks {one!r}" for one in gone] + [f"{place} has {one!r}" for one in new]
        if len(golden) == len(found):
            return [line for at, pair in enumerate(zip(golden, found, strict=True)) for line in differences(*pair, f"{place}[{at}]")]
    return [] if golden == found or _same_number(golden, found) else [f"{place} was {golden!r}, is {found!r}"]


def merged(golden, found):
    """``found``, but numbers that differ from ``golden`` by rounding alone are as they were: a rewritten file shows what changed."""
    if isinstance(found, dict):
        return {key: merged(golden.get(key) if isinstance(golden, dict) else None, one) for key, one in found.items()}
    if isinstance(found, list):
        before = golden if isinstance(golden, list) and len(golden) == len(found) else [None] * len(found)
        return [merged(*pair) for pair in zip(before, found, strict=True)]
    return golden if _same_number(golden, found) else float(f"{found:.7g}") if type(found) is float else found


GOLDEN, FILES = Path(__file__).with_name("golden.json"), Path(__file__).with_name("files.zip")
RUN = ("config.yaml", "encoder.json", "model.safetensors", "calibration.json")


def write_files(folder):
    """Train, calibrate and export in an empty folder, and pack it."""
    run = train_run(folder)
    calibrate(run, method="platt")
    export(run, folder / "shop.pt2", backend="reference", rows=100)
    config = run / "config.yaml"
    config.write_text(re.sub("(?m)^data: .*$", "data: shop.yaml", config.read_text()))  # not where this machine had it
    with zipfile.ZipFile(FILES, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in ("shop.csv", "shop.yaml", "shop.pt2", *(f"run/{name}" for name in RUN)):
            archive.writestr(zipfile.ZipInfo(path), (folder / path).read_bytes(), zipfile.ZIP_DEFLATED, 9)


def main(arguments):
    """Write golden.json, and with ``--files`` files.zip before it."""
    with tempfile.TemporaryDirectory() as scratch, mock.patch.dict(os.environ, DCRNN_FAST_CACHE=scratch):
        folder = Path(scratch)
        for name in ("files", "new"):
            (folder / name).mkdir()
        if "--files" in arguments:
            write_files(folder / "files")
        shutil.unpack_archive(FILES, folder / "kept")
        found = merged(json.loads(GOLDEN.read_text()) if GOLDEN.exists() else {}, contents(folder))
    entries = {name: [f" {json.dumps(key)}: {json.dumps(one)}" for key, one in part.items()] for name, part in found.items()}
    sections = [f'"{name}": {{\n' + ",\n".join(lines) + "\n}" for name, lines in entries.items()]  # a line for each entry
    GOLDEN.write_text("{\n" + ",\n".join(sections) + "\n}\n")


if __name__ == "__main__":
    main(sys.argv[1:])
