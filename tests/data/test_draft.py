"""A drafted schema: what it makes of each kind of column, and that it prepares the table it was drafted from."""

from __future__ import annotations

import pytest
import yaml

from dcrnn_fast.data import prepare
from dcrnn_fast.data.draft import draft_schema
from dcrnn_fast.errors import DataError


def shop(table, header="user_id;city;price;hour;click;paid;day;constant;token"):
    rows = [
        ";".join(
            [
                f"u{i % 70}",
                "ABC"[i % 3],
                f"{i * 7 % 101}.5",
                f"{i % 24}",
                f"{i % 2}",
                str(i % 4 == 1),
                f"2024-01-{1 + i % 28:02}",
                "x",
                f"{i:x}-t",
            ]
        )
        for i in range(600)
    ]
    return table.write("shop log.csv", header, rows)


def test_a_draft_names_labels_time_groups_fields_and_numbers(table):
    draft = yaml.safe_load(draft_schema([str(shop(table))]))
    assert draft["name"] == "shop-log"
    assert draft["csv"] == {"delimiter": ";"}
    assert [task["column"] for task in draft["tasks"]] == ["click", "paid"]
    assert draft["split"] == {"time": "day", "valid": 0.1, "test": 0.2}
    assert draft["group"] == "user_id"
    assert [column["column"] for column in draft["categorical"]] == ["user_id", "city", "hour"]
    assert draft["numeric"] == [{"column": "price", "buckets": 32, "dense": "log1p"}]


def test_a_drafted_schema_prepares_its_table_as_csv_and_as_parquet(table):
    import pyarrow.csv as pa_csv
    import pyarrow.parquet as pq

    path = shop(table)
    pq.write_table(pa_csv.read_csv(path, parse_options=pa_csv.ParseOptions(delimiter=";")), table.folder / "shop.parquet")
    drafted = table.folder / "drafted.yaml"
    for file in (path, table.folder / "shop.parquet"):
        drafted.write_text(draft_schema([str(file)]))
        data = prepare(drafted, cache_dir=table.folder / "cache")
        assert sum(data.meta.rows.values()) == 600
        assert data.meta.tasks == ("click", "paid")


def test_a_table_without_a_label_is_refused(table):
    path = table.write("t.csv", "a,b", [("x", 5), ("y", 7)])
    with pytest.raises(DataError, match=r"t\.csv: no column holds 0 and 1 alone, or true and false"):
        draft_schema([str(path)])
