"""Compiles the encoder of server/encoder/ into build/, once for all tests, whole or with planted defects."""

from __future__ import annotations

import hashlib
import json
import os
import shlex
import shutil
import subprocess
from importlib.util import find_spec
from pathlib import Path

import pytest

from dcrnn_fast.support.locks import locked

ROOT = Path(__file__).parents[3]
SERVER = ROOT / "server"
SOURCES = [
    SERVER / "json/json_text.cpp",
    *(SERVER / "encoder" / name for name in ["cells.cpp", "derived.cpp", "encoder.cpp"]),
    Path(__file__).with_name("encode_main.cpp"),
]
FLAGS = ["-std=c++20", "-O0", "-w"]

DEFECTS = {
    "a value on an edge belongs to the bucket below": (
        "encoder.cpp",
        "std::ranges::upper_bound(bucketed.edges, values[row])",
        "std::ranges::lower_bound(bucketed.edges, values[row])",
    ),
    "reserved texts get no backslash": ("cells.cpp", "is_reserved(cell.text_)", "false"),
    "only the texts without a backslash are reserved": ("cells.cpp", "text.find_first_not_of('\\\\')", "std::size_t{0}"),
    "an exponent begins at 1e11": ("cells.cpp", "size < 1e10", "size < 1e11"),
    "a whole float has an exponent": ("cells.cpp", "value == std::floor(value)", "false"),
    "a float that lost digits is an id": ("cells.cpp", "std::abs(cell.number_) >= kExact", "false"),
    "the zeros behind a point make another text": ("cells.cpp", "text.ends_with('0')", "false"),
    "an empty text is a category": ("cells.cpp", "cell.kind == Cell::text && cell.text_.empty() ? Cell() : cell", "cell"),
    "an underscore ends a number": ("cells.cpp", "text[i] != '_'", "true"),
    "integers are rounded to float64": ("cells.cpp", "cell.integer_ <= kExact", "true"),
    "the empty text takes a place": ("cells.cpp", "!(cell.kind == Cell::text && cell.text_.empty())", "true"),
    "the hash is of other bytes of the digest": ("encoder.cpp", "hash.result().data() + 8", "hash.result().data()"),
    "a truth value has one spelling": ("encoder.cpp", "ids_.contains(text)", "false"),
    "a missing value of several has an id": ("encoder.cpp", "several && text == kMissing", "false"),
    "a cross has no backslashes": ("derived.cpp", "c == '\\\\' || c == '|'", "false"),
    "time before 1970 is rounded up": ("derived.cpp", "(value % by < 0)", "0"),
    "log1p forgets the sign": ("encoder.cpp", "std::copysign(std::log1p(std::abs(value)), value)", "std::log1p(std::abs(value))"),
    "log1p keeps negative zero": ("encoder.cpp", "value == 0", "false"),
}
"""What is wrong: the file, the text that stands once in it, and what takes its place."""


def skip_unless_buildable() -> None:
    """Skip the test where Boost's headers or a compiler are missing."""
    if find_spec("libboost_headers") is None:
        pytest.skip("the encoder in C++ needs Boost's headers: pip install 'dcrnn_fast[server]'")
    if shutil.which(_compiler()[0]) is None:
        pytest.skip(f"no C++ compiler {_compiler()[0]} on this machine; install g++")


def program(*, planted: bool = False) -> Path:
    """The compiled program. With ``planted`` it has the defect whose number is in the environment variable PLANTED."""
    sources = {path.name: path.read_text() for path in SOURCES}
    if planted:
        for number, (file, right, wrong) in enumerate(DEFECTS.values()):
            assert sources[file].count(right) == 1, f"{file} holds {right!r} {sources[file].count(right)} times"
            sources[file] = sources[file].replace(right, f"(planted == {number} ? {wrong} : {right})")
        sources = {"planted.h": '#include <cstdlib>\nstatic const int planted = std::atoi(std::getenv("PLANTED"));\n', **sources}
    whole = "".join(f'#line 1 "{name}"\n{text}\n'.replace("#pragma once", "") for name, text in sources.items())
    boost = _compiled("boost", '#include "boost_json.cpp"\n')
    return _compiled("encode", whole, boost)


def run(binary: Path, encoding: dict, about: dict, requests: list[str], folder: Path, **environment: str) -> list[dict]:
    """The program's answers to requests in JSON."""
    for name, value in [("encoder.json", encoding), ("about.json", about)]:
        (folder / name).write_text(json.dumps(value))
    done = subprocess.run(
        [binary, folder / "encoder.json", folder / "about.json"],
        input="".join(f"{request}\n" for request in requests).encode("utf-8", "surrogateescape"),
        capture_output=True,
        timeout=60,
        env=os.environ | environment,
        check=False,
    )
    assert done.returncode == 0, done.stderr.decode()
    return [json.loads(line) for line in done.stdout.decode().splitlines()]


def _compiled(name: str, text: str, *others: Path) -> Path:
    """The object file of a text, or with other object files the program; kept in build/ under the digest of all that it is made of."""
    includes = [f"-I{SERVER / 'json'}", f"-I{SERVER / 'encoder'}", f"-I{Path(find_spec('libboost_headers').origin).parent / 'include'}"]
    command = [*_compiler(), *FLAGS, *includes, "-x", "c++", "-", *([] if others else ["-c"])]
    headers = "".join(file.read_text() for file in sorted(SERVER.rglob("*.h")))
    version = subprocess.run([*_compiler(), "--version"], capture_output=True, text=True, check=True).stdout
    digest = hashlib.sha256("\0".join([*command, headers, version, text, *map(str, others)]).encode()).hexdigest()[:16]
    folder = ROOT / "build/server-encoder"
    folder.mkdir(parents=True, exist_ok=True)
    out = folder / f"{name}-{digest}"
    with locked(folder / f"{out.name}.lock", wait=True):
        if not out.exists():
            part = out.with_suffix(".part")
            linked = ["-x", "none", *map(str, others)]
            done = subprocess.run([*command, *linked, "-o", str(part)], input=text, capture_output=True, text=True, check=False)
            assert done.returncode == 0, done.stderr
            part.rename(out)
    return out


def _compiler() -> list[str]:
    return shlex.split(os.environ.get("CXX", "c++"))
