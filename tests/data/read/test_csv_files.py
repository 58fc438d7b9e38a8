"""CSV files: how they may be written, and what becomes of rows that cannot be read."""

import errno
import gzip
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from dcrnn_fast.errors import DataError


def test_rows_that_cannot_be_read_go_to_a_file_with_line_and_reason(table):
    (table.folder / "train.csv").write_bytes(b'city,price,click\na,1,0\nb,dear,1\nc,3\n\nd,4,0,9\n\xff,5,0\ne,6,1\n"f" g,7,1\nz,8,0\n')
    data = table.prepare(max_rejects=5)
    assert data.meta.rows["train"] == 3
    assert data.meta.vocabulary["city"] == ["<oov>", "a", "e", "z"]
    found = pq.read_table(data.path / "rejects.parquet").to_pylist()
    assert {reject["file"] for reject in found} == {str(table.folder / "train.csv")}
    assert [(reject["line"], reject["column"], reject["reason"]) for reject in found] == [
        (3, "price", "column 'price' holds 'dear', expected a number"),
        (4, None, "it has 2 cells, expected 3"),
        (6, None, "it has 4 cells, expected 3"),
        (7, "city", "it holds bytes that are not utf-8; save the file as UTF-8, or name `csv: encoding`"),
        (9, "city", 'a quote (") is not closed, or text follows the closing one'),
    ]
    assert found[0]["text"] == "b,dear,1"


@pytest.mark.parametrize("allowed", [0, 1])
def test_more_rejected_rows_than_allowed_stop_and_leave_nothing(table, allowed):
    table.write("train.csv", "city,price,click", [("a", 1, 0), ("b", "dear", 1), ("c", "cheap", 1)])
    with pytest.raises(DataError, match=rf"train\.csv, line 3: .* line is 'b,dear,1'; correct .* `max_rejects`, now {allowed}"):
        table.prepare(max_rejects=allowed)
    assert [path.suffix for path in (table.folder / "cache").iterdir()] == [".lock"]


def test_columns_that_the_schema_does_not_use_may_have_one_name(table):
    before = table.prepare()
    for name in ("train.csv", "test.csv"):
        header, *rows = (table.folder / name).read_text().splitlines()
        table.write(name, f"x,{header},x", [f"1,{row},2" for row in rows])
    assert table.prepare().meta.digest == before.meta.digest


def test_other_delimiters_quotes_decimals_and_encodings_give_the_same_data(table):
    rows = [("Z;rich", "1,5", 0), ("Köln", "2,25", 1), ("Köln", "", 1)]
    table.write("train.csv", "city,price,click", [f'"{city}",{price.replace(",", ".")},{click}' for city, price, click in rows])
    table.write("test.csv", "city,price,click", ['"Köln",2.25,1'])
    plain = table.prepare()
    for name, lines in (("train.csv", rows), ("test.csv", rows[1:2])):
        text = "city;price;click\r\n" + "".join(f"'{city}';{price};{click}\r\n" for city, price, click in lines)
        (table.folder / name).write_bytes(text.encode("latin-1"))
    written = {"delimiter": ";", "quote": "'", "decimal": ",", "encoding": "latin-1"}
    assert table.prepare(csv=written).meta.digest == plain.meta.digest


def test_a_mark_of_byte_order_blank_lines_and_quoted_line_breaks_are_read(table):
    (table.folder / "train.csv").write_bytes(b'\xef\xbb\xbf\n"city","price","click"\n\n"two\nlines",1,0\n\nb,2,1\n')
    assert table.prepare().meta.vocabulary["city"] == ["<oov>", "b", "two\nlines"]


@pytest.mark.parametrize("end", ["\n", "\r\n"], ids=repr)
@pytest.mark.parametrize("inside", ["\n", "\r\n"], ids=repr)
def test_a_line_break_in_a_name_of_the_header_costs_no_row(table, inside, end):
    rows = (table.folder / "train.csv").read_text().splitlines()
    header = f'{rows[0]},"re{inside}mark"'
    (table.folder / "train.csv").write_bytes(end.join([header, *(f"{row},x" for row in rows[1:]), ""]).encode())
    assert table.prepare().meta.rows["train"] == len(rows) - 1


def test_files_whose_names_hold_marks_of_patterns_are_read(table):
    (table.folder / "a[1]*'?.csv").write_bytes((table.folder / "train.csv").read_bytes())
    assert table.prepare(files={"train": "a[1]*'?.csv", "test": "test.csv"}).meta.digest == table.prepare().meta.digest


def test_part_files_are_read_in_the_order_of_their_names(table):
    table.write("part-2.csv", "click,price,city", [(1, 3, "c")])
    table.write("part-1.csv", "city,price,click", [("b", 2, 0)])
    for files in ("part-*.csv", ["part-1.csv", "part-2.csv"]):
        data = table.prepare(files={"train": files, "test": "test.csv"})
        assert [data.meta.vocabulary["city"][i] for i in data.split("train").ids[:, 0]] == ["b", "c"]
        assert data.split("train").labels[:, 0].tolist() == [0, 1]
    table.write("part-2.csv", "city,price,click", [("a", 1, 0), ("a", "inf", 0)])
    with pytest.raises(DataError, match=r"part-2\.csv, row 2: column 'price' holds an infinite value"):
        table.prepare(files={"train": "part-*.csv", "test": "test.csv"})


def test_a_folder_is_its_files(table):
    (table.folder / "parts").mkdir()
    for name in ("train.csv", "test.csv"):
        (table.folder / "parts" / name).write_bytes((table.folder / name).read_bytes())
    for name in ("README.txt", ".train.csv", "_test.csv"):  # such as other programs hide, or still write
        (table.folder / "parts" / name).write_text("no table")
    assert table.prepare(files={"train": "parts", "test": "test.csv"}).meta.rows["train"] == 10


def test_gzipped_csv_gives_the_same_data(table):
    plain = table.prepare()
    for name in ("train", "test"):
        (table.folder / f"{name}.csv.gz").write_bytes(gzip.compress((table.folder / f"{name}.csv").read_bytes()))
    zipped = table.prepare(files={"train": "train.csv.gz", "test": "test.csv.gz"})
    assert (zipped.path != plain.path, zipped.meta.digest) == (True, plain.meta.digest)


def test_a_csv_of_many_read_blocks_is_encoded_whole(table):
    rows = [f"c{i % 300},{i % 1000},{i % 2},{'x' * 40}" for i in range(60_000)]
    data = table.write("train.csv", "city,price,click,pad", rows).prepare()
    cities = np.array([int(text[1:]) for text in data.meta.vocabulary["city"][1:]])
    np.testing.assert_array_equal(cities[data.split("train").ids[:, 0] - 1], np.arange(60_000) % 300)
    np.testing.assert_array_equal(data.split("train").labels[:, 0], np.arange(60_000) % 2)


def test_a_file_that_the_system_does_not_read_is_named(table, monkeypatch):
    real = Path.open

    def refuse(path, *arguments, **options):
        if path.suffix == ".csv":
            raise OSError(errno.EIO, "Input/output error", str(path))
        return real(path, *arguments, **options)

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(DataError, match=r"train\.csv cannot be read: Input/output error"):
        table.prepare()
