from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import yaml

from dcrnn_fast.data import PackedDataset, prepare

from .event_logs import Log

REPOSITORY = Path(__file__).resolve().parents[2]


class TableFolder:
    """A folder with small CSV files and the schema that describes them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.schema: dict[str, Any] = {
            "name": "shop",
            "files": {"train": "train.csv", "test": "test.csv"},
            "categorical": ["city"],
            "numeric": [{"column": "price", "buckets": 4, "dense": "standardise"}],
            "tasks": [{"name": "click", "column": "click"}],
            "min_count": 1,
        }
        train = [("a", 1, 0), ("b", 2, 1), ("a", 3, 0), ("c", 4, 1), ("a", 5, 0), ("b", 6, 1), ("a", 7, 0), ("b", 8, 1)]
        self.write("train.csv", "city,price,click", train)
        self.write("test.csv", "city,price,click", [("a", 2, 1), ("d", 9, 0)])

    def write(self, name: str, header: str, rows: list[Any]) -> Path:
        """Rows are tuples of cells or whole lines."""
        lines = [row if isinstance(row, str) else ",".join(map(str, row)) for row in rows]
        path = self.folder / name
        path.write_text("\n".join([header, *lines, ""]))
        return path

    def save(self, **changes: Any) -> Path:
        path = self.folder / "shop.yaml"
        path.write_text(yaml.safe_dump({**self.schema, **changes}))
        return path

    def prepare(self, *, seed: int = 0, valid_fraction: float = 0.0, **changes: Any) -> PackedDataset:
        return prepare(self.save(**changes), cache_dir=self.folder / "cache", seed=seed, valid_fraction=valid_fraction)


@pytest.fixture
def table(tmp_path: Path) -> TableFolder:
    return TableFolder(tmp_path)


@pytest.fixture
def log(tmp_path: Path) -> Log:
    """Two test rows of a user of their own; a test writes the train rows."""
    log = Log(tmp_path)
    log.fill([("tester", "a", 1, 0), ("tester", "b", 2, 1)], "test.parquet")
    return log


@pytest.fixture(scope="session")
def shared_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="session")
def census(shared_cache: Path) -> PackedDataset:
    return prepare("census-income", cache_dir=shared_cache)


@pytest.fixture(scope="session")
def hillstrom(shared_cache: Path) -> PackedDataset:
    return prepare("hillstrom", cache_dir=shared_cache)


def _data_folder(name: str) -> Path:
    root = Path(os.environ.get("DCRNN_FAST_SAMPLES") or REPOSITORY.parent / "shared" / "data")
    if not (root / name).is_dir():
        pytest.skip(f"{root / name} is not there; set DCRNN_FAST_SAMPLES to the folder that holds {name}")
    return root / name


@pytest.fixture
def samples() -> Path:
    return _data_folder("tiny_schema_samples")


@pytest.fixture
def raw_files() -> dict[str, Path]:
    census, hillstrom = _data_folder("census_income_kdd"), _data_folder("hillstrom_email")
    return {
        "--census-train": census / "census_income_train.csv.gz",
        "--census-test": census / "census_income_test.csv.gz",
        "--hillstrom": hillstrom / "hillstrom.csv.gz",
    }
