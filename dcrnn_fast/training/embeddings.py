"""A field's embeddings as a file: :func:`write_embeddings`. A later run starts from it, see :mod:`.pretrained`."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import torch

from ..data.codes.texts import MISSING, Categories, text_ids
from ..data.encoder.run_folder import read_encoding
from ..errors import ConfigError, did_you_mean
from ..support.files import output_path, path_of, writing_output
from ..support.model_inputs import table_rows
from ..support.pooled_fields import first_columns
from .folder.layout import RunFolder
from .folder.weights import load_sealed
from .init import EMBEDDING
from .pretrained import VECTOR


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
    vectors = model.state_dict()[EMBEDDING][start + 1 : start + len(texts)].to(torch.float32).contiguous()
    lists = pa.FixedSizeListArray.from_arrays(pa.array(vectors.numpy().reshape(-1)), vectors.shape[1])
    keys = pa.array([None if text == MISSING else text for text in texts[1:]], pa.string())
    with writing_output("output", path) as beside:
        pq.write_table(pa.table({field: keys, VECTOR: lists}), str(beside))
    return len(keys)
