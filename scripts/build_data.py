"""Builds the two embedded data sets of dcrnn_fast from their raw CSV files.

    python scripts/build_data.py --census-train census_income_train.csv.gz --census-test census_income_test.csv.gz \
        --hillstrom hillstrom.csv.gz --output dcrnn_fast/data/embedded

The script checks every raw file against the SHA-256 that dcrnn_fast/data/embedded/README.md lists. It keeps all columns, all rows and
their order. The same version of pyarrow writes the same bytes every time.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from dcrnn_fast.data.packed.arrays import file_sha256
from dcrnn_fast.support.files import replacing

RAW_SHA256 = {
    "census_train": "3eb097c9457da31aa328ec6a159692d1b6b21fcfe5ec0ed2f6ed1538c790108a",
    "census_test": "48703b61e05c4dc75305b40f154946007cc7e094be8991090329dc7a8518d064",
    "hillstrom": "2f8ab737ab4540b8d0a82614c8cc837d441f94b2a85add8fd1f2c5c38cd95bc4",
}
CENTS = pa.decimal128(9, 2)
TWO_DECIMALS = {"instance_weight": CENTS, "history": CENTS, "spend": CENTS}


def read_raw(path: Path, expected_sha256: str) -> pa.Table:
    """The raw table with every text as it is: "?" and "NA" are values, not missing ones."""
    found = file_sha256(path)
    if found != expected_sha256:
        raise SystemExit(f"{path}: sha256 is {found}, expected {expected_sha256}; the data set is built from another file")
    convert = pa_csv.ConvertOptions(column_types=TWO_DECIMALS, strings_can_be_null=False, null_values=[])
    return pa_csv.read_csv(path, convert_options=convert)


def compact(table: pa.Table) -> pa.Table:
    """The same values in smaller types: text as a sorted dictionary, integers in the narrowest type that holds them."""
    return pa.table({name: _compact_column(table.column(name).combine_chunks()) for name in table.column_names})


def _compact_column(column: pa.Array) -> pa.Array:
    if pa.types.is_string(column.type):
        values = pc.unique(column).sort()
        index_type = pa.int8() if len(values) <= 127 else pa.int16()
        return pa.DictionaryArray.from_arrays(pc.index_in(column, values).cast(index_type), values)
    if pa.types.is_integer(column.type):
        smallest, largest = pc.min_max(column).as_py().values()
        for candidate, bound in ((pa.int8(), 2**7), (pa.int16(), 2**15), (pa.int32(), 2**31)):
            if -bound <= smallest and largest < bound:
                return column.cast(candidate)
    return column


def write(table: pa.Table, path: Path) -> None:
    """Write one row group with zstd. Decimals get no dictionary: nearly all their values differ, so it would make them larger."""
    dictionary = [field.name for field in table.schema if not pa.types.is_decimal(field.type)]
    compression = {"compression": "zstd", "compression_level": 22, "use_dictionary": dictionary}
    layout = {"row_group_size": len(table), "data_page_size": 8 << 20, "write_statistics": False, "store_decimal_as_integer": True}
    pq.write_table(table, path, **compression, **layout)


def build_census(train: Path, test: Path) -> pa.Table:
    """The official train rows, then the official test rows; the column `split` tells them apart."""
    parts = []
    for path, split in ((train, "train"), (test, "test")):
        table = read_raw(path, RAW_SHA256[f"census_{split}"])
        parts.append(table.append_column("split", pa.array([split] * len(table))))
    return compact(pa.concat_tables(parts))


def main(arguments: list[str] | None = None) -> int:
    """Read, check and write the files, and return the exit code."""
    parser = argparse.ArgumentParser(description="Build the embedded data sets from the raw CSV files.")
    parser.add_argument("--census-train", type=Path, required=True, help="census_income_train.csv.gz")
    parser.add_argument("--census-test", type=Path, required=True, help="census_income_test.csv.gz")
    parser.add_argument("--hillstrom", type=Path, required=True, help="hillstrom.csv.gz")
    parser.add_argument("--output", type=Path, required=True, help="folder for the two Parquet files")
    options = parser.parse_args(arguments)
    options.output.mkdir(parents=True, exist_ok=True)
    tables = {
        "census-income.parquet": build_census(options.census_train, options.census_test),
        "hillstrom.parquet": compact(read_raw(options.hillstrom, RAW_SHA256["hillstrom"])),
    }
    for name, table in tables.items():
        path = options.output / name
        with replacing(path) as beside:
            write(table, beside)
        print(f"{name}: {len(table):,} rows x {table.num_columns} columns, {path.stat().st_size:,} bytes, sha256 {file_sha256(path)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
