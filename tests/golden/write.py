"""Rewrites golden.json: ``python -m tests.golden.write``. Do so after a change that users are told of, and read the diff.

files.zip holds a run and an export of it that later versions must read. ``--files`` replaces it too: only where the format of files
changes on purpose. The first golden files were written by the version before the package's modules moved.
"""

import json
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

from .compare import merged
from .contents import contents, train_run

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
