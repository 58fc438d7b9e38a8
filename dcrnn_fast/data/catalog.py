"""The embedded data sets, and `prepare`, which encodes a table once and caches the result."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..errors import DataError, shown
from ..support.files import path_of
from .packed.arrays import META, PackedDataset, file_sha256, open_packed
from .packed.meta import FORMAT_VERSION, check_encoding
from .packed.writer import open_or_discard, remove_leftovers

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
) -> PackedDataset:
    """The packed form of a data set, encoded on the first call and opened from the cache afterwards.

    `data` is the name of an embedded data set, the path of a schema YAML, or a folder that `prepare_folder` wrote; the latter is opened as
    it is, whatever `seed` and `valid_fraction` say. If the data has no validation split, `valid_fraction` in [0, 1) of the train rows,
    drawn with `seed`, become one. `encoding` is that of another data set's `meta`: this data is then encoded alike, and fits a model
    trained on the other. Without it, vocabularies and scales are learned from the train rows. The cache key covers the schema, the
    checksums of the source files, `seed`, `valid_fraction`, `encoding` and the format version. A damaged cache entry is built again, and
    what a killed process left half-written is deleted.

    Raises DataError for an argument outside its range, an unknown data set, an invalid schema, a file that cannot be used, an
    `encoding` of other columns, a cache that cannot be written, or a missing package of the extra `train`.
    """
    _check_draw(seed, valid_fraction)
    if encoding is not None:
        check_encoding(encoding)
    if (folder := _packed_folder(data)) is not None:
        return _opened(folder, encoding)
    path = _schema_path(data)
    with _extra_packages():
        from .build.build import build
        from .read.sources import source_paths
        from .schema.table import load_schema

        cache = path_of("cache_dir", cache_dir) if cache_dir is not None else default_cache_dir()

    schema = load_schema(path)
    paths = source_paths(schema, path.parent)
    sources = {role: [file_sha256(file) for file in files] for role, files in paths.items()}
    key = {
        "format": FORMAT_VERSION,
        "spelling": 2,  # the rules by which cells become texts and numbers
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
    build(target, schema, paths, seed=seed, valid_fraction=valid_fraction, encoding=encoding)
    return open_packed(target)


def prepare_folder(
    schema: str | Path,
    output: str | Path,
    *,
    inputs: Sequence[str] = (),
    seed: int = 0,
    valid_fraction: float = 0.1,
    progress: Callable[[str, int, int | None], None] = lambda what, done, total: None,
) -> PackedDataset:
    """Encode a table into the folder `output`, which must not exist. `prepare(output)` opens it, and so does a run with `data: output`.

    `schema` is the path of a schema YAML. `inputs`, paths, patterns or folders relative to the working directory, replace the `all` of its
    `files`. `seed` and `valid_fraction` are those of `prepare`. `progress` is called with what is being done, how much of it is done, and
    how much there is, or None if that is not known. Rejected rows are in the folder's rejects.parquet. Memory does not grow with the
    table, but for a few bytes a row; while it works, the disk holds the columns twice.

    Raises DataError as `prepare` does, and for an `output` that exists.
    """
    _check_draw(seed, valid_fraction)
    path, target = _schema_path(schema), path_of("output", output).absolute()
    with _extra_packages():
        from .build.build import build
        from .read.sources import source_paths, with_inputs
        from .schema.table import load_schema
    if os.path.lexists(target):
        raise DataError(f"{output} exists; delete it, or choose another folder")
    table = load_schema(path)
    if inputs:
        table = with_inputs(table, inputs)
    remove_leftovers(target.parent, target.name)
    build(target, table, source_paths(table, path.parent), seed=seed, valid_fraction=valid_fraction, progress=progress)
    return open_packed(target)


def _packed_folder(data: str | Path) -> Path | None:
    """`data` as a path, if it is a packed folder."""
    if not isinstance(data, (str, os.PathLike)) or "\0" in os.fspath(data) or str(data) in known_data_sets():
        return None
    return Path(data) if os.path.isfile(Path(data) / META) else None


def _opened(folder: Path, encoding: Mapping[str, Any] | None) -> PackedDataset:
    packed = open_packed(folder)
    if encoding is not None and encoding != packed.meta.encoding:
        raise DataError(
            f"{folder} has another encoding than the one asked for: a packed folder keeps its own; give the schema of its table instead"
        )
    return packed


def _check_draw(seed: int, valid_fraction: float) -> None:
    if not isinstance(valid_fraction, (int, float)) or not 0 <= valid_fraction < 1:
        raise DataError(f"valid_fraction is {shown(valid_fraction)}, expected a number in [0, 1)")
    if not isinstance(seed, int) or isinstance(seed, bool) or not 0 <= seed < 2**64:
        raise DataError(f"seed is {shown(seed)}, expected a whole number of at least 0 and less than 2**64")


@contextmanager
def _extra_packages() -> Iterator[None]:
    try:
        yield
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in {"duckdb", "pyarrow", "pydantic", "yaml", "platformdirs"}:
            raise
        raise DataError(f"preparing data needs the package {error.name}: pip install 'dcrnn_fast[train]'") from error


def _schema_path(data: str | Path) -> Path:
    if str(data) in known_data_sets():
        return EMBEDDED / f"{data}.yaml"
    try:
        path = path_of("data", data)
    except ValueError as error:
        raise DataError(f"{error}; known data sets are {', '.join(known_data_sets())}") from None
    if path.suffix in {".yaml", ".yml"} and os.path.isfile(path):
        return path
    if path.name.endswith((".csv", ".csv.gz", ".parquet")) and os.path.isfile(path):
        name = path.name.partition(".")[0]
        raise DataError(
            f"{path} is a table: draft its schema by `dcrnn-fast inspect --input {path} > {name}.yaml`, check that, and name {name}.yaml"
        )
    raise DataError(
        f"unknown data set {str(data)!r}; known are {', '.join(known_data_sets())}, and the path of a schema YAML (.yaml) of your own "
        "table or of a packed folder works too (docs/guide/schema.md)"
    )
