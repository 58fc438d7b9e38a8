"""Ways to damage a file, and to fail at writing one."""

import errno
import json
import os

from dcrnn_fast.support import files


def truncate(path):
    path.write_bytes(path.read_bytes()[:-9])


def flip_a_bit(path):
    data = path.read_bytes()
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))


def edit_json(change):
    """The damage to a JSON file that ``change`` does to its content."""

    def damage(path):
        content = json.loads(path.read_text())
        change(content)
        path.write_text(json.dumps(content))

    return damage


def fill_disk(monkeypatch):
    """Let every file that is replaced meet a full disk when it is synced."""

    def refuse(path):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    monkeypatch.setattr(files, "sync", refuse)
