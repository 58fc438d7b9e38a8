"""Small tables, and the schema that describes them, in a folder of a test."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from dcrnn_fast.data import PackedDataset, prepare


class TableFolder:
    """A folder with small files and a schema. What writes a file returns the folder, so that ``prepare`` can follow."""

    def __init__(self, folder: Path, **schema: Any) -> None:
        self.folder = folder
        self.schema = {"name": "shop", "tasks": [{"name": "click", "column": "click"}], **schema}
        folder.mkdir(exist_ok=True)

    def write(self, file: str, header: str, rows: Any) -> TableFolder:
        """Write a CSV file. Rows are tuples of cells or whole lines."""
        lines = [row if isinstance(row, str) else ",".join(map(str, row)) for row in rows]
        (self.folder / file).write_text("\n".join([header, *lines, ""]))
        return self

    def parquet(self, file: str, columns: Any) -> TableFolder:
        """Write a Parquet file of columns, or of an Arrow table."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        pq.write_table(columns if isinstance(columns, pa.Table) else pa.table(columns), self.folder / file)
        return self

    def save(self, **changes: Any) -> Path:
        """Write the schema with some keys changed; returns its path."""
        path = self.folder / f"{self.schema['name']}.yaml"
        path.write_text(yaml.safe_dump(self.schema | changes))
        return path

    def prepare(self, *, seed: int = 0, valid_fraction: float = 0.0, encoding: Any = None, **changes: Any) -> PackedDataset:
        options = {"cache_dir": self.folder / "cache", "seed": seed, "valid_fraction": valid_fraction}
        return prepare(self.save(**changes), encoding=encoding, **options)
