"""Scores rows with an exported file, which holds all that a run folder gives to a :class:`Ranker`."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np
import torch
from torch import Tensor

from ...errors import ExportError, shown
from ...support.files import path_of
from ...support.model_inputs import check_dense, check_ids
from ..ranker import BATCH, Scores, as_table
from ..unseen import Unseen
from .archive import NO_ROOM, check_program, errors_alone, opened, read_extra
from .package import Package, not_exported, read_package

Program = Callable[..., Mapping[str, Tensor]]


class ExportedRanker:
    """Scores rows as the :class:`Ranker` does whose run was exported. Take one from :func:`load_exported`.

    ``encoder`` encodes its rows, ``columns`` are what a table must hold, ``names`` what :meth:`predict` returns, and ``about`` is the
    file's description: its ``kind``, the versions that wrote it, the ``backend``, and the ``operators`` that it calls. ``id`` is the
    run's :func:`dcrnn_fast.serving.model_id`. ``unseen`` counts the cells of scored rows that the model does not know.
    """

    def __init__(self, program: Program, package: Package, *, strict: bool = False) -> None:
        self.about, self.encoder, cells, ranges = package
        self.columns, self.names = list(self.encoder.columns), tuple(self.about["names"])
        self.id: str = self.about["model"]
        self.unseen = Unseen(self.encoder, cells, ranges, strict=strict)
        self._program = program

    def predict(self, table: Any) -> Scores:
        """Probabilities [B] in float32 by name, for the rows of a table in their order; see :meth:`Ranker.predict`."""
        return self.predict_encoded(*self.encoder.encode(as_table(table, self.encoder)))

    def predict_encoded(self, ids: Tensor, dense: Tensor | None) -> Scores:
        """Probabilities, as :meth:`predict` gives them, of encoded rows: ids [B, F] int64, dense [B, Nd] float32 or None.

        Raises:
            IndexError: an id outside its field's range; the message names the field.
            TypeError, ValueError: a wrong dtype or shape, or a dense value that is not finite.
        """
        sizes = self.encoder.num_embeddings
        check_ids(ids, list(sizes.values()), list(sizes))
        check_dense(dense, len(ids), len(self.encoder.dense))
        parts: list[Mapping[str, Tensor]] = []
        with torch.inference_mode():
            for start in range(0, len(ids), BATCH):
                rows = slice(start, start + BATCH)
                parts.append(self._program(*inputs_of(ids[rows], None if dense is None else dense[rows])))
        return {name: np.concatenate([np.empty(0, np.float32), *(part[name].numpy() for part in parts)]) for name in self.names}


def inputs_of(ids: Tensor, dense: Tensor | None) -> tuple[Tensor, ...]:
    """The inputs of a program: int64 and float32, contiguous in memory."""
    return (ids.long().contiguous(),) if dense is None else (ids.long().contiguous(), dense.float().contiguous())


def load_exported(path: str | Path, *, strict: bool = False) -> ExportedRanker:
    """The ranker of a file that ``dcrnn-fast export --format pt2`` or ``aoti`` wrote.

    Args:
        path: the file. Nothing in it is unpickled. A file of format aoti holds machine code: load one only if you would run a program
            from its author. Of a file of format pt2, the graph is checked first: it may call PyTorch's and this package's operators alone.
        strict: a field that has lost the ids which it had in the train rows is an error of ``predict``, and not a warning.

    Raises:
        TypeError, ValueError: ``path`` is not a path.
        ExportError: the file is missing, damaged, of another format version, or does not fit this machine; the message says what to do.
        DataError: its encoder needs a package that is not installed.

    Example::

        ranker = load_exported("shop.pt2")
        ranker.predict({"user_id": ["u7"], "item_id": ["i1"], "price": [9.5]})["click"]
    """
    path = path_of("path", path)
    if path.suffix == ".onnx":
        raise ExportError(f"{path}: ONNX Runtime loads files of format onnx; give a .pt2 file of `dcrnn-fast export`")
    with opened(path) as file:
        return _load(file, path, strict)


def _load(file: BinaryIO, path: Path, strict: bool) -> ExportedRanker:
    package = read_package(read_extra(file, path), path)
    loaders: dict[str, Callable[[BinaryIO, Path], Program]] = {"pt2": _load_program, "aoti": _load_compiled}
    if package.about["kind"] not in loaders:
        raise not_exported(path)
    file.seek(0)
    try:
        ranker = ExportedRanker(loaders[package.about["kind"]](file, path), package, strict=strict)
        fields, dense = len(package.encoder.num_embeddings), len(package.encoder.dense)
        ranker.predict_encoded(torch.zeros(1, fields, dtype=torch.int64), torch.zeros(1, dense) if dense else None)
    except ExportError:
        raise
    except Exception as error:
        if isinstance(error, OSError) and error.errno in NO_ROOM:
            raise ExportError(
                f"{path} cannot be loaded through the temporary folder {tempfile.gettempdir()}: {error.strerror}; make room there, or name "
                "another folder in the environment variable TMPDIR"
            ) from error
        theirs = shown(package.about["torch"])
        raise ExportError(
            f"{path} was written with PyTorch {theirs}, and PyTorch {torch.__version__} cannot load it: they do not fit, or the file was "
            "changed; export the run again with the PyTorch that is installed here"
        ) from error
    return ranker


def _load_program(file: BinaryIO, path: Path) -> Program:
    from torch.export.pt2_archive._package import load_pt2

    check_program(file, path)
    file.seek(0)
    return cast(Program, load_pt2(file).exported_programs["model"].module())


def _load_compiled(file: BinaryIO, path: Path) -> Program:
    # PyTorch warns where this CPU has other instruction sets than the file's code, even if it has more; read_package has compared them.
    with errors_alone("torch.export.pt2_archive._package"):
        return cast(Program, torch._inductor.aoti_load_package(file))
