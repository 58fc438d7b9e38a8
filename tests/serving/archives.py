"""Exported files with some of their entries changed, checksums and all."""

import io
import json
import pickle
import zipfile
from pathlib import Path

import torch


def rewritten(path, target, changes):
    """A copy of an archive in which ``changes`` maps names of entries, without the root, to functions of their bytes; None drops one."""
    with zipfile.ZipFile(path) as archive, zipfile.ZipFile(target, "w") as copy:
        root = archive.namelist()[0].partition("/")[0]
        entries = {name.partition("/")[2]: archive.read(name) for name in archive.namelist()}
        for name, change in changes.items():
            entries[name] = change(entries.get(name))
        for name, content in entries.items():
            if content is not None:
                copy.writestr(f"{root}/{name}", content)
    return target


def with_json(change):
    """A function of an entry's bytes that applies ``change`` to the JSON in it."""

    def changed(content):
        value = json.loads(content)
        change(value)
        return json.dumps(value).encode()

    return changed


class Touch:
    """Pickled, a call that writes a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def pickled(value):
    """The bytes that torch.save writes."""
    buffer = io.BytesIO()
    torch.save(value, buffer, pickle_module=pickle)
    return buffer.getvalue()
