"""The embedded data sets, and `prepare`, which encodes a table once and caches the result."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import DataError, shown
from ..files import path_of
from .meta import FORMAT_VERSION, PackedMeta, check_encoding
from .packed import PackedDataset, file_sha256, open_or_discard, open_packed, remove_leftovers, write_packed

if TYPE_CHECKING:
    from .encode import Encoder
    from .schema import TableSchema

MAX_TABLE_GB = 1.0
"""The GB that the tables of a data set may take as Arrow arrays; `prepare` then takes several times as much."""

EMBEDDED = Path(__file__).parent / "embedded"


def known_data_sets() -> tuple[str, ...]:
    """Names of the embedded data sets."""
    return tuple(sorted(path.stem for path in EMBEDDED.glob("*.yaml")))


def default_cache_dir() -> Path:
    """$DCRNN_FAST_CACHE, or else the user's cache folder on this platform: ~/.cache/dcrnn_fast on Linux."""
    if chosen := os.environ.get("DCRNN_FAST_CACHE"):
        return Path(chosen)
    from platformdirs import user_cache_path

    return user_cache_path("dcrnn_fast")


def prepare(
    data: str | Path,
    *,
    cache_dir: str | Path | None = None,
    seed: int = 0,
    valid_fraction: float = 0.1,
    encoding: Mapping[str, Any] | None = None,
    max_table_gb: float | None = None,
) -> PackedDataset:
    """The packed form of a data set, encoded on the first call and opened from the cache afterwards.

    `data` is the name of an embedded data set or the path of a schema YAML. If the data has no validation split, `valid_fraction` in [0, 1)
    of the train rows, drawn with `seed`, become one. `encoding` holds the `vocabulary` and `scaling` of another data set's meta: this data
    is then encoded alike, and fits a model trained on the other. Without it, both are learned from the train rows. The cache key covers the
    schema, the checksums of the source files, `seed`, `valid_fraction`, `encoding` and the format version. A damaged cache entry is built
    again, and what a killed process left half-written is deleted.

    `max_table_gb` (above 0; by default $DCRNN_FAST_MAX_TABLE_GB, or else 1) bounds the GB that the tables take as Arrow arrays;
    docs/data-format.md says how much memory that needs.

    Raises DataError for an argument outside its range, an unknown data set, an invalid schema, a file that cannot be used, a table beyond
    `max_table_gb`, an `encoding` of other columns, a cache that cannot be written, or a missing package of the extra `train`.
    """
    if not isinstance(valid_fraction, (int, float)) or not 0 <= valid_fraction < 1:
        raise DataError(f"valid_fraction is {shown(valid_fraction)}, expected a number in [0, 1)")
    if not isinstance(seed, int) or isinstance(seed, bool) or not 0 <= seed < 2**64:
        raise DataError(f"seed is {shown(seed)}, expected a whole number of at least 0 and less than 2**64")
    limit = _table_limit(max_table_gb)
    if encoding is not None:
        check_encoding(encoding)
    path = _schema_path(data)
    try:
        from .encode import Encoder
        from .schema import load_schema
        from .tables import read_splits, source_paths

        cache = path_of("cache_dir", cache_dir) if cache_dir is not None else default_cache_dir()
    except ModuleNotFoundError as error:
        if error.name not in {"pyarrow", "pydantic", "yaml", "platformdirs"}:
            raise
        raise DataError(f"preparing data needs the package {error.name}: pip install 'dcrnn_fast[train]'") from error

    schema = load_schema(path)
    sources = {role: file_sha256(file) for role, file in source_paths(schema, path.parent).items()}
    key = {
        "format": FORMAT_VERSION,
        "schema": schema.model_dump(mode="json"),
        "sources": sources,
        "seed": seed,
        "valid_fraction": valid_fraction,
    }
    if encoding is not None:
        key["encoding"] = encoding
    digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()
    target = cache / f"{schema.name}-{digest[:16]}"
    try:
        cached = target.exists()
    except OSError as error:
        raise DataError(
            f"the cache folder {cache} cannot be read: {error.strerror or error}; choose another cache folder (DCRNN_FAST_CACHE)"
        ) from error
    remove_leftovers(cache)
    if cached and (data_set := open_or_discard(target)):
        return data_set
    tables = read_splits(schema, path.parent, seed=seed, valid_fraction=valid_fraction, max_gb=limit)
    with _naming(schema, "train"):
        encoder = Encoder.fit(schema, tables["train"]) if encoding is None else Encoder.restore(schema, encoding)
    splits = {}
    for split, table in tables.items():
        with _naming(schema, split):
            splits[split] = encoder.transform(table)
    write_packed(target, _meta(schema, encoder, {split: table.num_rows for split, table in tables.items()}), splits)
    return open_packed(target)


def _table_limit(given: float | None) -> float:
    name, value = "max_table_gb", given if given is None else str(given)
    if value is None:
        name, value = "the environment variable DCRNN_FAST_MAX_TABLE_GB", os.environ.get("DCRNN_FAST_MAX_TABLE_GB") or str(MAX_TABLE_GB)
    try:
        limit = float(value)
    except ValueError:
        limit = 0.0
    if not limit > 0:
        raise DataError(f"{name} is {shown(value)}, expected a number above 0: the GB that a table may take as Arrow arrays")
    return limit


@contextmanager
def _naming(schema: TableSchema, split: str) -> Iterator[None]:
    try:
        yield
    except DataError as error:
        raise DataError(f"data set {schema.name!r}, {split} rows: {error}") from error


def _schema_path(data: str | Path) -> Path:
    if str(data) in known_data_sets():
        return EMBEDDED / f"{data}.yaml"
    try:
        path = path_of("data", data)
    except ValueError as error:
        raise DataError(f"{error}; known data sets are {', '.join(known_data_sets())}") from None
    if path.suffix in {".yaml", ".yml"} and os.path.isfile(path):
        return path
    raise DataError(
        f"unknown data set {str(data)!r}; known are {', '.join(known_data_sets())}, and the path of a schema YAML (.yaml) of your own "
        "table works too (docs/data-format.md)"
    )


def _meta(schema: TableSchema, encoder: Encoder, rows: dict[str, int]) -> PackedMeta:
    return PackedMeta(
        name=schema.name,
        tasks=tuple(task.name for task in schema.tasks),
        funnel=schema.funnel,
        relation=schema.suggested_relation,
        fields={field.column: field.num_embeddings for field in encoder.fields},
        dense=tuple(scale.column for scale in encoder.dense),
        group=schema.group,
        has_weight=schema.weight is not None,
        rows=rows,
        vocabulary={field.column: field.entries() for field in encoder.fields},
        scaling={scale.column: {"treatment": scale.treatment, "mean": scale.mean, "std": scale.std} for scale in encoder.dense},
        checksums={},
        format_version=FORMAT_VERSION,
    )
