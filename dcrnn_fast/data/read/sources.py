"""The files of a schema: paths, patterns and folders as a list of files for each role."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from glob import glob, has_magic
from pathlib import Path

from ...errors import DataError
from ..schema.table import TableSchema

KINDS = (".csv", ".csv.gz", ".parquet")


def source_paths(schema: TableSchema, folder: Path) -> dict[str, tuple[Path, ...]]:
    """The files of each role, a pattern's and a folder's in the order of their names; relative paths start at `folder`.

    Of a folder, the files of a known kind count, not those of its subfolders. Raises DataError for a path, pattern or folder without such
    files, for a file named twice, and for one of the past that has another role.
    """
    found = {
        role: tuple(file for given in paths for file in expand(f"data set {schema.name!r}: the {role}", folder / given, in_schema=True))
        for role, paths in schema.files.roles().items()
    }
    for role, files in found.items():
        if twice := named_twice(files):
            raise DataError(f"data set {schema.name!r}: the {role} files name {twice} twice; name each file once")
    past = set(found.get("past", ()))
    for role, files in found.items():
        if role != "past" and (both := next((file for file in files if file in past), None)):
            raise DataError(f"data set {schema.name!r}: the past files and the {role} files name {both}; its rows are one or the other")
    return found


def with_inputs(schema: TableSchema, inputs: Sequence[str]) -> TableSchema:
    """The schema with the rows of other files: `inputs`, relative to the working directory, replace the `all` of its `files`.

    Raises DataError for a schema whose files have roles of their own.
    """
    if schema.files.all is None:
        raise DataError(
            f"data set {schema.name!r}: other input files replace `files: {{all: ...}}`, but the schema names train and test files; "
            "give it `all` and a `split`"
        )
    files = schema.files.model_copy(update={"all": tuple(os.path.abspath(path) for path in inputs)})
    return schema.model_copy(update={"files": files})


def named_twice(files: Sequence[Path]) -> Path | None:
    """The first file that is there more than once, if there is one."""
    return next((file for file, times in Counter(files).items() if times > 1), None)


def expand(where: str, path: Path, *, in_schema: bool = False) -> list[Path]:
    """The files of a path, pattern or folder. Raises DataError that says `where` it was given, such as "the input"."""
    hint = "; `files` is relative to the schema YAML" if in_schema else ""
    if os.path.isdir(path):
        if not (files := sorted(file for file in path.iterdir() if file.name.endswith(KINDS) and file.is_file())):
            raise DataError(f"{where} folder {path} holds no {', '.join(KINDS)} file")
        return files
    if not os.path.isfile(path) and has_magic(str(path)):
        if not (files := sorted(Path(name) for name in glob(str(path), recursive=True) if os.path.isfile(name))):
            raise DataError(f"{where} pattern {path} fits no file{hint}")
    elif os.path.isfile(path):
        files = [path]
    else:
        problem = "is no regular file" if os.path.exists(path) else "does not exist or cannot be read"
        raise DataError(f"{where} file {path} {problem}{hint}")
    for file in files:
        if not file.name.endswith(KINDS):
            raise DataError(f"{where} file {file} is of an unknown kind; expected {', '.join(KINDS[:-1])} or {KINDS[-1]}")
    return files
