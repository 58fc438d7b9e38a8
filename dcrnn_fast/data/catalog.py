"""The embedded data sets, and `prepare`, which encodes a table once and caches the result."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from numbers import Integral, Real
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import DataError, shown
from ..support.checks import check_count, label_columns
from ..support.files import path_of, scratch_folder
from .packed.arrays import PackedDataset, Progress, file_sha256, no_progress, open_packed, open_whole
from .packed.folders import remove_leftovers
from .packed.meta import FORMAT_VERSION, META, check_encoding
from .packed.remote import is_remote, open_remote

if TYPE_CHECKING:
    from .schema.table import TableSchema

EMBEDDED = Path(__file__).parent / "embedded"
ROLES = {"all", "train", "valid", "test", "past"}


@contextmanager
def _extra_packages() -> Iterator[None]:
    try:
        yield
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in {"duckdb", "pyarrow", "pydantic", "yaml", "platformdirs"}:
            raise
        raise DataError(f"preparing data needs the package {error.name}: pip install 'dcrnn_fast[train]'") from error


def known_data_sets() -> tuple[str, ...]:
    """Names of the embedded data sets."""
    return tuple(sorted(path.stem for path in EMBEDDED.glob("*.yaml")))


def default_cache_dir() -> Path:
    """$DCRNN_FAST_CACHE, or else the user's cache folder on this platform: ~/.cache/dcrnn_fast on Linux."""
    if chosen := os.environ.get("DCRNN_FAST_CACHE"):
        return Path(chosen)
    from platformdirs import user_cache_path

    return user_cache_path("dcrnn_fast")


@_extra_packages()
def prepare(
    data: str | Path | Mapping[str, Any] | TableSchema,
    tables: Any = None,
    *,
    cache_dir: str | Path | None = None,
    seed: int = 0,
    valid_fraction: float = 0.1,
    encoding: Mapping[str, Any] | None = None,
    progress: Progress = no_progress,
) -> PackedDataset:
    """The packed form of a data set, encoded on the first call and opened from the cache afterwards.

    `data` is the name of an embedded data set, a schema (the path of a YAML file, or a dict of what it holds), or a folder that
    `prepare_folder` wrote; the latter is opened as it is, whatever `seed` and `valid_fraction` say. One that lies elsewhere, at an address
    that pyarrow reads, such as s3://bucket/packed, is fetched into the cache first. `tables` has the rows in place of the
    schema's `files`: a pandas or polars DataFrame, an Arrow table, a mapping of columns to lists or arrays, or the path of a file. A
    mapping whose keys are train, valid, test or past has one of these for each, however the schema splits; test may be left
    out where train is not a path.

    If the data has no validation split, `valid_fraction` in [0, 1) of the train rows, drawn with `seed`, become one. `encoding` is that of
    another data set's `meta`: this data is then encoded alike, and fits a model trained on the other. Without it, vocabularies and scales
    are learned from the train rows. The cache key covers the schema, the checksums of the rows, `seed`, `valid_fraction`, `encoding` and
    the format version. A damaged cache entry is built again. `progress` is called as :func:`prepare_folder` calls it, while rows are
    encoded or files fetched.

    Raises DataError for an argument outside its range, an unknown data set, an invalid schema, a file or table that cannot be used, an
    `encoding` of other columns, a cache that cannot be written, or a missing package of the extra `train`.

    >>> schema = {"name": "shop", "split": {"time": "ts", "test": 0.25}, "categorical": ["item"]}
    >>> schema["tasks"] = [{"name": "buy", "column": "buy"}]
    >>> prepare(schema, {"ts": range(8), "item": [3, 5] * 4, "buy": [0, 1] * 4}).meta.rows
    {'train': 5, 'valid': 1, 'test': 2}
    """
    draw = _checked_draw(seed, valid_fraction)
    if encoding is not None:
        check_encoding(encoding)
    cache = path_of("cache_dir", cache_dir) if cache_dir is not None else default_cache_dir()
    is_path = isinstance(data, (str, os.PathLike)) and str(data) not in known_data_sets()
    if tables is None and (is_remote(data) or (is_path and os.path.isfile(os.path.join(str(data), META)))):
        packed = opened(str(data), cache, progress)
        if encoding not in (None, packed.meta.encoding):
            raise DataError(
                f"{data} has another encoding than the one asked for: a packed folder keeps its own; give the schema of its table instead"
            )
        return packed
    key = draw | ({} if encoding is None else {"encoding": encoding})
    if tables is None:
        return _cached(*table_schema(data), cache, key, progress)
    with scratch_folder() as folder:
        schema = _in_files(data, tables, folder)
        try:
            return _cached(schema, folder, cache, key, progress)
        except DataError as error:
            if error.table and Path(error.table).parent == folder:
                error.table = f"tables[{Path(error.table).stem}]"
            raise


def opened(path: str | Path, cache: Path | None = None, progress: Progress = no_progress) -> PackedDataset:
    """The packed folder at a path or an address, whose files go to `cache`."""
    return open_remote(str(path), cache or default_cache_dir(), progress) if is_remote(path) else open_packed(path)


def _cached(schema: TableSchema, folder: Path, cache: Path, options: dict[str, Any], progress: Progress) -> PackedDataset:
    from .build.build import build
    from .read.row_files import source_paths

    paths = source_paths(schema, folder)
    key = options | {
        "format": FORMAT_VERSION,
        "spelling": 4,  # the rules by which cells become texts and numbers, a column its scale, and what is learned of times
        "schema": schema.model_dump(mode="json"),
        "sources": {role: [file_sha256(file) for file in files] for role, files in paths.items()},
    }
    digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()
    target = cache / f"{schema.name}-{digest[:16]}"
    data_set = open_whole(target)
    remove_leftovers(cache)
    if data_set is not None:
        return data_set
    build(target, schema, paths, **options, progress=progress)
    return open_packed(target)


def _in_files(data: Any, tables: Any, folder: Path) -> TableSchema:
    """The schema with the rows of tables, which this writes into a folder, in place of its files."""
    from .encoder.memory import arrow_table, write_parquet
    from .schema.table import schema_of

    content = data if isinstance(data, Mapping) else table_schema(data)[0].model_dump(mode="json", by_alias=True, exclude_unset=True)
    given, by_role = content.get("files"), dict(tables) if isinstance(tables, Mapping) and tables.keys() <= ROLES else {"all": tables}
    files = {key: value for key, value in given.items() if key not in ROLES} if isinstance(given, Mapping) and "all" in by_role else {}
    rows = {role: table for role, table in by_role.items() if not isinstance(table, (str, os.PathLike))}
    files |= {role: f"{role}.parquet" if role in rows else os.path.abspath(table) for role, table in by_role.items()}
    if has_no_test := "train" in rows and "test" not in files:
        files["test"] = "test.parquet"
    content = {key: value for key, value in content.items() if key != "split" or "all" in by_role}
    schema = schema_of({**content, "files": files}, "given as data")
    wanted = set().union(*schema.file_columns())
    written = {role: arrow_table(table, f"tables[{role}]", wanted) for role, table in rows.items()}
    if has_no_test:
        written["test"] = written["train"].slice(0, 0)
    for role, table in written.items():
        write_parquet(table, f"tables[{role}]", folder / f"{role}.parquet")
    return schema


@_extra_packages()
def draft_schema(inputs: str | Path | Sequence[str | Path], *, tasks: Sequence[str] | None = None) -> str:
    """A schema YAML for the files that `inputs` name: paths, patterns or folders, CSV or Parquet, relative to the working directory.

    `tasks` are the label columns, in the order of the funnel; without them, columns that hold 0 and 1 alone and are named like labels. If
    each event implies the one before it in all rows that are read, the draft has `funnel: true`. Whole numbers whose labels jump from value
    to value, as those of a code do, are a category and a number. Ids that hardly repeat are left out. It reads at most the first 1,000,000
    rows: of the CSV files if the first file is one, else of the Parquet files, and of the first file alone if that is not UTF-8.

    Raises TypeError for an input that is not a path. Raises DataError for no input or an empty text, for files that cannot be read or hold
    no rows, for `tasks` that are not a list of different columns of the table, and for a table without a column that holds 0 and 1 alone,
    or true and false: nothing in it is a label as it is.
    """
    from .inspect.draft import as_yaml, draft

    given = list(inputs) if isinstance(inputs, Iterable) and not isinstance(inputs, (str, bytes)) else [inputs]
    paths = [str(path_of("inputs", one)) for one in given]
    if not paths or "" in given:
        raise DataError(f"inputs={given}: expected paths, patterns or folders, at least one, and no empty text")
    return as_yaml(draft(paths, tasks=None if tasks is None else label_columns("tasks", tasks)))


@_extra_packages()
def prepare_folder(
    schema: str | Path | Mapping[str, Any] | TableSchema,
    output: str | Path,
    *,
    inputs: Sequence[str] = (),
    seed: int = 0,
    valid_fraction: float = 0.1,
    workers: int | None = None,
    progress: Progress = no_progress,
) -> PackedDataset:
    """Encode a table into the folder `output`, which must not exist. `prepare(output)` opens it, and so does a run with `data: output`.

    `schema` is one as `prepare` takes it. `inputs`, paths, patterns or folders relative to the working directory, replace the `all` of its
    `files`. `seed` and `valid_fraction` are those of `prepare`. `workers` threads learn and encode at the same time, by default one for
    each core that the process may use, at most 8; their number changes no bit. `progress` is called with what is being done, how much of it
    is done, and how much there is, or None if that is not known. Rejected rows are in the folder's rejects.parquet. Memory does not grow
    with the table, except by a few bytes a row; while it works, the disk holds the columns twice. If the process is killed, the next call
    starts anew.

    Raises DataError as `prepare` does, and for an `output` that exists; TypeError or ValueError for `workers` outside 1 to 1024.
    """
    draw = _checked_draw(seed, valid_fraction)
    if workers is not None:
        check_count("workers", workers, maximum=1024)
    from .build.build import build
    from .read.row_files import source_paths, with_inputs

    if is_remote(output):
        raise DataError(f"output is {output}, an address; write to a folder of this machine and copy that, or use --engine spark")
    target = path_of("output", output).absolute()
    if os.path.lexists(target):
        raise DataError(f"{output} exists; delete it, or choose another folder")
    table, folder = table_schema(schema)
    if inputs:
        table = with_inputs(table, inputs)
    build(target, table, source_paths(table, folder), **draw, workers=workers, progress=progress)
    return open_packed(target)


def _checked_draw(seed: Any, valid_fraction: Any) -> dict[str, Any]:
    is_number, is_whole = isinstance(valid_fraction, Real), isinstance(seed, Integral) and not isinstance(seed, bool)
    if not is_number or not 0 <= valid_fraction < 1:
        raise DataError(f"valid_fraction is {shown(valid_fraction)}, expected a number in [0, 1)")
    if not is_whole or not 0 <= seed < 2**64:
        raise DataError(f"seed is {shown(seed)}, expected a whole number of at least 0 and less than 2**64")
    return {"seed": int(seed), "valid_fraction": float(valid_fraction)}


def table_schema(data: Any) -> tuple[TableSchema, Path]:
    """The schema that `data` is or names, and the folder where its relative paths start."""
    from .schema.table import TableSchema, load_schema, schema_of

    if isinstance(data, (Mapping, TableSchema)):
        return data if isinstance(data, TableSchema) else schema_of(data, "given as data"), Path.cwd()
    if not isinstance(data, (str, os.PathLike)):
        expected = "expected a path, a schema or the name of a data set; a table comes behind its schema: prepare(schema, table)"
        raise TypeError(f"data is of type {type(data).__name__}, {expected}")
    try:
        path = EMBEDDED / f"{data}.yaml" if str(data) in known_data_sets() else path_of("data", data)
    except ValueError as error:
        raise DataError(f"{error}; known data sets are {', '.join(known_data_sets())}") from None
    if path.suffix in {".yaml", ".yml"} and os.path.isfile(path):
        return load_schema(path), path.parent
    if path.suffix in {".yaml", ".yml", ".csv", ".gz", ".parquet"} and not os.path.exists(path):
        raise DataError(f"there is no file {path}, a path that is relative to {Path.cwd()}")
    if path.name.endswith((".csv", ".csv.gz", ".parquet")) and os.path.isfile(path):
        name = path.name.partition(".")[0]
        raise DataError(
            f"{path} is a table: draft its schema by `dcrnn-fast inspect --input {path} > {name}.yaml`, check that, and name {name}.yaml"
        )
    found = f"{path} is a folder" if os.path.isdir(path) else f"unknown data set {str(data)!r}"
    raise DataError(
        f"{found}; known are {', '.join(known_data_sets())}, and the path of a schema YAML (.yaml) of your own "
        f"table or of a packed folder, which holds {META}, works too (docs/guide/schema.md)"
    )
