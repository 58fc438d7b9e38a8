"""PyTorch's .pt2 archives, read so that nothing in them is unpickled or evaluated.

``torch.export.load`` unpickles some entries, evaluates the texts of sizes and guards as Python, and its programs call whatever the graph
names. So :func:`check_program` first looks at every entry. It allows those entries, operators and texts alone that exports of this package
have.
"""

from __future__ import annotations

import json
import re
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch.export.pt2_archive import PT2ArchiveReader

from ..errors import ExportError
from .package import ABOUT, ENCODER, not_exported

SAMPLES, GRAPH = "data/sample_inputs/model.pt", "models/model.json"
CONFIGS = {
    "data/weights/model_weights_config.json": re.compile(r"weight_\d+"),
    "data/constants/model_constants_config.json": re.compile(r"tensor_\d+"),
}
_ENTRY = re.compile(
    rf"archive_format|archive_version|byteorder|\.data/(version|serialization_id)|extra/({re.escape(ABOUT)}|{re.escape(ENCODER)})"
    rf"|{re.escape(GRAPH)}|{re.escape(SAMPLES)}|{'|'.join(map(re.escape, CONFIGS))}|data/weights/weight_\d+|data/constants/tensor_\d+"
)
_CALL = re.compile(
    r"torch\.ops\.(aten|dcrnn_fast)\.([A-Za-z_]\w*)\.([A-Za-z_]\w*)|_operator\.(add|sub|mul|floordiv|eq|ne|lt|le|gt|ge|getitem)"
)
_SIZE = re.compile(r"(Symbol\('[su]\d+'(, [a-z]+=(True|False))*\)|Mul|Add|Integer|FloorDiv|Max|Min|-?\d{1,19}|[(), ])*")
_TEXTS = {"rounding_mode", "approximate"}
"""The only text arguments that an aten operator may have; others are names of files and the like."""


def read_extra(path: Path) -> dict[str, str]:
    """The texts that describe an exported file, by name. Every byte of the file is read, and compared with its checksum.

    Raises ExportError: the file is missing, damaged, or no archive.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
            named = {name.partition("/")[2]: name for name in archive.namelist()}
            if damaged is None:
                return {name: archive.read(named[f"extra/{name}"]).decode() for name in (ABOUT, ENCODER) if f"extra/{name}" in named}
    except FileNotFoundError as error:
        raise ExportError(f"{path} does not exist; write it with `dcrnn-fast export`") from error
    except (zipfile.BadZipFile, EOFError, NotImplementedError, ValueError, RuntimeError) as error:
        raise ExportError(f"{path} is damaged, or no file of `dcrnn-fast export`; export the run again") from error
    except OSError as error:
        raise ExportError(f"{path} cannot be read: {error.strerror or error}") from error
    raise ExportError(f"{path} is damaged: its entry {damaged} does not have its checksum; export the run again")


def check_program(file: BinaryIO, path: Path) -> None:
    """Raise ExportError unless the archive holds a program that can be loaded without unpickling or evaluating anything of the file's."""
    try:
        reader = PT2ArchiveReader(file)
        names = set(reader.get_file_names())
        fits = all(map(_ENTRY.fullmatch, names)) and reader.read_bytes(SAMPLES) == b""
        for name, entry in CONFIGS.items():
            fits = fits and all(_is_plain(one, entry) for one in json.loads(reader.read_bytes(name))["config"].values())
        fits = fits and _is_plain_graph(json.loads(reader.read_bytes(GRAPH)))
    except (RuntimeError, AssertionError, KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise not_exported(path) from error
    if not fits:
        raise not_exported(path)


def _is_plain(weight: Mapping[str, Any], entry: re.Pattern[str]) -> bool:
    return weight["use_pickle"] is False and entry.fullmatch(weight["path_name"]) is not None


def _is_plain_graph(program: Mapping[str, Any]) -> bool:
    fits = program.get("guards_code") in (None, [])
    for key, value in _entries(program):
        if key == "target":
            fits = fits and _is_known(value)
        elif key == "expr_str":
            fits = fits and len(value) < 500 and _SIZE.fullmatch(value) is not None
        elif key == "metadata":
            fits = fits and value == {}
        elif key in ("in_spec", "out_spec"):
            fits = fits and (value in (None, "") or all(map(_is_plain_tree, _trees(json.loads(value)[1]))))
        elif key in ("as_graph", "as_custom_obj", "as_operator"):
            fits = False
    return fits


def _entries(value: Any) -> Iterator[tuple[str, Any]]:
    """Every key of nested JSON, at any depth, with its value."""
    waiting = [value]
    while waiting:
        one = waiting.pop()
        if isinstance(one, dict):
            yield from one.items()
            waiting.extend(one.values())
        elif isinstance(one, list):
            waiting.extend(one)


def _trees(tree: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    yield tree
    for child in tree["children_spec"]:
        yield from _trees(child)


def _is_plain_tree(tree: Mapping[str, Any]) -> bool:
    """Tuples and dicts by texts alone: PyTorch imports the modules that other trees name."""
    if tree["type"] in (None, "builtins.tuple"):
        return tree["context"] in (None, "null")
    return tree["type"] == "builtins.dict" and all(isinstance(key, str) for key in json.loads(tree["context"]))


def _is_known(target: str) -> bool:
    call = _CALL.fullmatch(target)
    if call is None:
        return False
    namespace, name, overload = call.group(1), call.group(2), call.group(3)
    if namespace is None:
        return True
    found = getattr(getattr(getattr(torch.ops, namespace), name, None), overload, None)
    if found is None:
        return False
    texts = {argument.name for argument in found._schema.arguments if "str" in str(argument.type)}
    return namespace == "dcrnn_fast" or texts <= _TEXTS
