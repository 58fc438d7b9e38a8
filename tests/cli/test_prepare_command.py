"""`dcrnn-fast prepare` and `dcrnn-fast inspect --input`: what they print, and where."""

from __future__ import annotations

import pytest
import yaml

from dcrnn_fast.data import open_packed


def test_prepare_writes_a_folder_that_inspect_reads(table, command):
    table.write("part-1.csv", "city,price,click,day", [("a", i, i % 2, i) for i in range(250)])
    table.write("part-2.csv", "city,price,click,day", [("b", i, i % 2, 250 + i) for i in range(249)] + [("b", "dear", 1, 499)])
    schema = table.save(files={"all": "elsewhere.csv"}, split={"time": "day", "valid": 0.1, "test": 0.2}, max_rejects=1)
    packed = table.folder / "out" / "packed"
    code, out, err = command("prepare", "--schema", schema, "--input", table.folder / "part-*.csv", "--output", packed)
    assert code == 0, err
    for text in ("shop: 349 train, 50 valid, 100 test rows", f"Rejected CSV rows: 1, in {packed / 'rejects.parquet'}", f"folder: {packed}"):
        assert text in out
    assert "reading rows: " in err
    assert "encoding rows: " in err
    assert sum(open_packed(packed, verify=True).meta.rows.values()) == 499
    code, out, _ = command("inspect", "--data", packed)
    assert code == 0
    assert "shop: 349 train, 50 valid, 100 test rows" in out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("prepare --schema shop.yaml --output shop.yaml", "shop.yaml exists; delete it, or choose another folder"),
        ("prepare --schema shop.yaml --output s3://bucket/packed", "output is s3://bucket/packed, an address; write to a folder of this"),
        ("prepare --schema shop.yaml --output packed --engine spark --seed 3", "--engine spark draws no rows"),
        ("prepare --schema shop.yaml --output packed --input train.csv", "other input files replace `files: {all: ...}`, but"),
        ("prepare --schema shop.yaml --output packed --valid-fraction 2", "valid_fraction is 2.0, expected a number in [0, 1)"),
        ("inspect --input ", "no empty text"),
        ("inspect", "either --data"),
    ],
)
def test_prepare_and_inspect_refuse_in_one_line(table, command, monkeypatch, words, said):
    monkeypatch.chdir(table.folder)
    table.save()
    code, out, err = command(*words.split(" "))
    assert (code, out) == (2, "")
    assert said in err


def test_inspect_drafts_a_schema_of_a_table(table, command):
    code, out, _ = command("inspect", "--input", table.folder / "train.csv")
    assert code == 0
    assert yaml.safe_load(out)["tasks"] == [{"name": "click", "column": "click"}]
