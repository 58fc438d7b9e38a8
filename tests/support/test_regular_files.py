"""What is read as a file of a run or of packed data is one: a folder, a pipe, a socket and a device are refused before they are opened."""

import os
import socket
from pathlib import Path

import pytest

from dcrnn_fast.data.packed.arrays import file_sha256
from dcrnn_fast.data.read.row_files import expand
from dcrnn_fast.errors import CheckpointError, DataError
from dcrnn_fast.support import strict_json
from dcrnn_fast.support.files import regular_file
from dcrnn_fast.training.folder.tensors import read_safetensors


@pytest.fixture
def places(tmp_path, monkeypatch):
    """One of each kind in the working directory."""
    monkeypatch.chdir(tmp_path)  # the name of a socket may have 107 characters
    os.mkfifo("pipe")
    Path("folder").mkdir()
    Path("device").symlink_to("/dev/null")
    Path("file").write_text("{}")
    Path("link").symlink_to("file")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("socket")
        yield


def test_a_file_and_a_link_to_one_are_read(places):
    for name in ("file", "link"):
        assert strict_json.load(regular_file(Path(name))) == {}
    with pytest.raises(FileNotFoundError):
        regular_file(Path("absent"))


@pytest.mark.parametrize("name", ["pipe", "socket", "device", "folder"])
def test_what_is_no_file_is_refused_with_its_name_and_what_is_wrong(places, name):
    """What read them would wait for a writer for ever, or read on."""
    wrong = "it is a folder" if name == "folder" else "it is no regular file"
    for read in (regular_file, strict_json.load):
        with pytest.raises(OSError, match=f"{wrong}: '{name}'"):
            read(Path(name))
    with pytest.raises(CheckpointError, match=f"^{name} is damaged or no safetensors file .*{wrong}"):
        read_safetensors(Path(name))
    with pytest.raises(DataError, match=f"^{name}.*({wrong}|no regular file)"):
        file_sha256(Path(name))
    if name != "folder":
        with pytest.raises(DataError, match=f"^the input file {name} is no regular file$"):
            expand("the input", Path(name))
