"""A field's embeddings as a Parquet file of its column and a column ``vector``: written from a run, and where a run starts from them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import torch
from torch import Tensor

from ..data import PackedMeta
from ..data.codes.numbers import Place
from ..data.codes.texts import MISSING, Categories, Hashes, text_ids
from ..data.encoder.run_folder import read_encoding
from ..data.read.columns import texts_of, without_views
from ..errors import ConfigError, DataError, did_you_mean, one_line
from ..nn.features import EMBEDDING
from ..support.fields import first_columns, table_rows
from ..support.files import output_path, path_of, writing_output
from .folder.layout import RunFolder
from .folder.weights import load_sealed

VECTOR = "vector"
BATCH_ROWS = 65_536


def write_embeddings(run: str | Path, field: str, output: str | Path) -> int:
    """Write the ids of a categorical field of a run's best weights and their embeddings, and return how many they are.

    Args:
        run: the run folder.
        field: a field with a vocabulary.
        output: the .parquet file to write: a column of the field's name with the ids as texts, null for the missing one, and a column
            ``vector`` with lists of ``embedding_dim`` float32. The embedding of unseen ids is not in it.

    Raises DcrnnFastError: the run or the file cannot be used, or the field's ids have no texts.

    Example::

        write_embeddings("runs/shop", "item_id", "item_vectors.parquet")
    """
    path, folder = output_path("output", output, ".parquet"), RunFolder(path_of("run", run))
    model, about, _ = load_sealed(folder.weights, device="cpu", backend="reference")
    encoding, sizes = read_encoding(folder.encoder, about), dict(about["fields"])
    columns, shared = first_columns(encoding.get("pooled", {}), list(sizes)), encoding.get("shared", {})
    if field not in columns:
        names = ", ".join(columns)
        raise ConfigError(f"field {field!r}: the run has no such field; it has {names}{did_you_mean(field, list(columns))}")
    texts = encoding["vocabulary"][columns[field]]
    if not isinstance(text_ids(texts, sizes[columns[field]]), Categories):
        raise ConfigError(f"field {field!r}: its ids are buckets, which have no texts; name a field with a vocabulary")
    _, starts = table_rows(list(sizes), list(sizes.values()), shared)
    start = starts[list(sizes).index(columns[field])]
    vectors = model.get_parameter(EMBEDDING).detach()[start + 1 : start + len(texts)].to(torch.float32).contiguous()
    lists = pa.FixedSizeListArray.from_arrays(pa.array(vectors.numpy().reshape(-1)), vectors.shape[1])
    keys = pa.array([None if text == MISSING else text for text in texts[1:]], pa.string())
    with writing_output("output", path) as beside:
        pq.write_table(pa.table({field: keys, VECTOR: lists}), str(beside))
    return len(keys)


def start_from_vectors(table: Tensor, files: Mapping[str, str], meta: PackedMeta) -> list[str]:
    """Copy the vectors of ``files``, by field, into the embedding table [ids of all fields, embedding_dim]; other rows stay.

    A key counts as text, as the field's column does; one that the field does not know is left out, and the last of equal ones counts.

    Returns:
        A line for each field that says how many of its ids start from the file.

    Raises:
        ConfigError: a field that the data does not have, that has the embeddings of another, or whose ids are buckets of numbers.
        DataError: a file that cannot be read, has other columns, a vector of another length or with a number that is not finite, or no key
            that the field knows.
    """
    columns, lines = meta.first_columns, []
    _, rows = table_rows(list(meta.fields), list(meta.fields.values()), meta.shared)
    starts = dict(zip(meta.fields, rows, strict=True))
    for field, file in files.items():
        if field not in columns:
            raise ConfigError(f"pretrained.{field}: {meta.name} has no field {field!r}; its fields are {', '.join(columns)}")
        column = columns[field]
        if column in meta.shared:
            named = next(name for name, first in columns.items() if first == meta.shared[column])
            raise ConfigError(f"pretrained.{field}: the field has the embeddings of {named!r}; name that one")
        start, size = starts[column], meta.fields[column]
        ids = text_ids(meta.vocabulary[column], size)
        if ids is None:
            raise ConfigError(f"pretrained.{field}: the field's ids are buckets of numbers; name a categorical field")
        known, vectors = _read(Path(file), field, ids, size, table.shape[1])
        table[start : start + size][torch.from_numpy(known)] = torch.from_numpy(vectors[known]).to(table)
        lines.append(f"{field}: {known.sum():,} of {size:,} ids start from {file}")
    return lines


def _read(path: Path, field: str, ids: Categories | Hashes, size: int, width: int) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.float32]]:
    """Which ids the file knows, and their vectors [size, width]; id 0 is none of a text."""
    known, vectors = np.zeros(size, dtype=bool), np.zeros((size, width), np.float32)
    place = Place(path, 0)
    try:
        with pq.ParquetFile(path) as file:
            if missing := {field, VECTOR} - set(file.schema_arrow.names):
                raise DataError(
                    f"{path} lacks the column {min(missing)!r}; pretrained.{field} needs the columns {field!r} and {VECTOR!r}, and it has "
                    f"{', '.join(file.schema_arrow.names)}"
                )
            for batch in map(without_views, file.iter_batches(BATCH_ROWS, columns=[field, VECTOR])):
                codes, texts = texts_of(batch.column(field), field, place)
                of_rows = np.array(ids.ids(texts.to_pylist()), np.int64)[codes]
                vectors[of_rows] = _vectors(batch.column(VECTOR), width, place)
                known[of_rows] = True
                place = Place(path, place.before + batch.num_rows)
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read: {one_line(error, 500)}") from error
    known[0] = False
    if not known.any():
        raise DataError(
            f"{path}: the field knows none of its {place.before:,} keys; write column {field!r} as the table's, such as 7 and not 007"
        )
    return known, vectors


def _vectors(column: pa.Array, width: int, place: Place) -> npt.NDArray[np.float32]:
    """The vectors of a batch [rows, width]."""
    kind = column.type
    lists = pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
    if not lists or not (pa.types.is_floating(kind.value_type) or pa.types.is_integer(kind.value_type)):
        raise place.error(f"is of type '{kind}', expected lists of {width} floats (model.embedding_dim)", column=VECTOR)
    lengths = pc.fill_null(pc.list_value_length(column), -1).to_numpy(zero_copy_only=False)
    if (lengths != width).any():
        row = (lengths != width).argmax()
        held = f"{lengths[row]:,} numbers" if lengths[row] >= 0 else "no list"
        raise place.error(f"holds {held}, expected {width} (model.embedding_dim)", row, VECTOR)
    values = column.flatten().cast(pa.float32(), safe=False).to_numpy(zero_copy_only=False).reshape(-1, width)
    if not np.isfinite(values).all():
        row = (~np.isfinite(values)).any(axis=1).argmax()
        raise place.error("holds a number that is missing, infinite or too large for float32; correct it", row, VECTOR)
    return values
