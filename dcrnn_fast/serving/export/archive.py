"""PyTorch's .pt2 archives, read so that nothing in them is unpickled or evaluated.

``torch.export.load`` unpickles some entries, evaluates the texts of sizes and guards as Python, and its programs call whatever the graph
names. So :func:`check_program` first looks at every entry. It allows those entries, operators and texts alone that exports of this package
have.
"""

from __future__ import annotations

import errno
import io
import json
import logging
import re
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import torch

from ...errors import ExportError
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
_SIZE = re.compile(r"(Symbol\('[su]\d+'(, [a-z]+=(True|False))*\)|Mul|Add|Integer|FloorDiv|Max|Min|-?\d{1,19}(?!\d)|[(), ])*")
_NAME = re.compile(r"[A-Za-z0-9_.:+-]{0,1000}")
"""A text that is not code, whatever reads it: without brackets nothing is called."""
_FORBIDDEN = {"as_graph", "as_custom_obj", "as_operator", "stack_trace", "nn_module_stack", "source_fn_stack"}
_TEXTS = {"rounding_mode", "approximate"}
"""The only text arguments that an aten operator may have; others are names of files and the like."""


NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)


class _Archive(io.BufferedWriter):
    """PyTorch's writer ends the process if a write fails. So the failure is kept, and the writer does not see it."""

    problem: OSError | None = None

    def write(self, data: Any) -> int:
        try:
            return super().write(data)
        except OSError as error:
            self.problem = self.problem or error
            return memoryview(data).nbytes


@contextmanager
def archive_file(path: Path) -> Iterator[BinaryIO]:
    """A file to write an archive to. Raises OSError in the end if not all was written."""
    with _Archive(io.FileIO(path, "w")) as file:
        yield file
    if file.problem is not None:
        raise file.problem


@contextmanager
def errors_alone(name: str) -> Iterator[None]:
    """The logger of that name, which is PyTorch's, logs no warnings in the block."""
    logger = logging.getLogger(name)
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


@contextmanager
def opened(path: Path) -> Iterator[BinaryIO]:
    """An exported file, opened once: all that is read of it is of one file, even if another one takes its place.

    Raises ExportError: the file is missing, or cannot be read, there or in the block.
    """
    if path.exists() and not path.is_file():
        raise ExportError(f"{path} cannot be read: it is not a regular file")  # a pipe might never end, and cannot be read twice
    try:
        with path.open("rb") as file:
            yield file
    except FileNotFoundError as error:
        raise ExportError(f"{path} does not exist; write it with `dcrnn-fast export`") from error
    except OSError as error:
        raise ExportError(f"{path} cannot be read: {error.strerror or error}") from error


def read_extra(file: BinaryIO, path: Path) -> dict[str, str]:
    """The texts that describe an exported file, by name. Every byte of the file is read, and compared with its checksum.

    Raises ExportError that names ``path``: the file is damaged, or no archive.
    """
    try:
        with zipfile.ZipFile(file) as archive:
            if any(entry.compress_type != zipfile.ZIP_STORED for entry in archive.infolist()):
                raise ValueError("an export compresses nothing, so that no entry is larger than the file")
            damaged, names = archive.testzip(), archive.namelist()
            named = {name.partition("/")[2]: name for name in names}
            if len(named) < len(names):
                raise ValueError("it has an entry twice, and readers differ in which one they take")
            if damaged is None:
                return {name: archive.read(named[f"extra/{name}"]).decode() for name in (ABOUT, ENCODER) if f"extra/{name}" in named}
    except (zipfile.BadZipFile, EOFError, NotImplementedError, ValueError, RuntimeError) as error:
        raise ExportError(f"{path} is damaged, or no file of `dcrnn-fast export`; export the run again") from error
    raise ExportError(f"{path} is damaged: its entry {damaged} does not have its checksum; export the run again")


def check_program(file: BinaryIO, path: Path) -> None:
    """Raise ExportError unless the archive holds a program that can be loaded without unpickling or evaluating anything of the file's."""
    from torch.export.pt2_archive import PT2ArchiveReader  # here: a ranker of a run imports this package, and it imports the compiler

    try:
        reader = PT2ArchiveReader(file)
        names = set(reader.get_file_names())
        fits = all(map(_ENTRY.fullmatch, names)) and reader.read_bytes(SAMPLES) == b""
        for name, entry in CONFIGS.items():
            fits = fits and _is_plain(json.loads(reader.read_bytes(name)), entry)
        fits = fits and _is_plain_graph(json.loads(reader.read_bytes(GRAPH)))
    except (RuntimeError, AssertionError, KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise not_exported(path) from error
    if not fits:
        raise not_exported(path)


def _is_plain(config: Mapping[str, Any], entry: re.Pattern[str]) -> bool:
    """Whether all weights are bytes in entries of their own: a pickle is none."""
    if not all(_NAME.fullmatch(text) for _, text in _texts(config)):
        return False
    return all(weight["use_pickle"] is False and entry.fullmatch(weight["path_name"]) for weight in config["config"].values())


def _is_plain_graph(program: Mapping[str, Any]) -> bool:
    """Whether a graph calls known operators alone, and none of its texts could be code: PyTorch writes names into code that it runs."""
    if program.get("guards_code") not in (None, []) or program["graph_module"].get("treespec_namedtuple_fields") not in (None, {}):
        return False
    return all(_CHECKS.get(key, _is_name)(text) for key, text in _texts(program)) and _FORBIDDEN.isdisjoint(
        text for key, text in _texts(program) if not key
    )


def _texts(value: Any) -> Iterator[tuple[str, str]]:
    """Every text of nested JSON: each key, as the pair ("", key), and each value, with the last key that leads to it."""
    waiting = [("", value)]
    while waiting:
        key, one = waiting.pop()
        if isinstance(one, str):
            yield key, one
        elif isinstance(one, list):
            waiting.extend((key, item) for item in one)
        elif isinstance(one, dict):
            yield from (("", name) for name in one)
            waiting.extend(one.items())


def _is_name(text: str) -> bool:
    return _NAME.fullmatch(text) is not None


def _is_size(text: str) -> bool:
    return len(text) < 500 and _SIZE.fullmatch(text) is not None


def _is_plain_spec(text: str) -> bool:
    return text == "" or all(map(_is_plain_tree, _trees(json.loads(text)[1])))


def _trees(tree: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    yield tree
    for child in tree["children_spec"]:
        yield from _trees(child)


def _is_plain_tree(tree: Mapping[str, Any]) -> bool:
    """Tuples and dicts by texts alone: PyTorch imports the modules that other trees name."""
    if tree["type"] in (None, "builtins.tuple"):
        return tree["context"] in (None, "null")
    return tree["type"] == "builtins.dict" and all(map(_is_name, json.loads(tree["context"])))


def _is_known(target: str) -> bool:
    call = _CALL.fullmatch(target)
    if call is None:
        return False
    namespace, name, overload = call.group(1), call.group(2), call.group(3)
    if namespace is None:
        return True
    found = getattr(getattr(getattr(torch.ops, namespace), name, None), overload, None)
    if not isinstance(found, torch._ops.OpOverload):
        return False
    texts = {argument.name for argument in found._schema.arguments if "str" in str(argument.type)}
    return namespace == "dcrnn_fast" or texts <= _TEXTS


_CHECKS: dict[str, Callable[[str], bool]] = {
    "target": _is_known,
    "expr_str": _is_size,
    "in_spec": _is_plain_spec,
    "out_spec": _is_plain_spec,
}
"""The texts of a graph that are more than names, by key."""
