"""Files of raw rows become files of scores, batch by batch."""

import shutil

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from typer.testing import CliRunner

from dcrnn_fast.cli.commands import app
from dcrnn_fast.data.read import row_files
from dcrnn_fast.errors import DataError
from dcrnn_fast.serving import score_files, scoring
from tests.damage import fill_disk


@pytest.mark.parametrize("kind", ["csv", "csv.gz", "parquet"])
def test_files_are_scored_as_the_same_rows_in_memory(ranker, table, tmp_path, kind):
    file = tmp_path / f"today.{kind}"
    table.to_parquet(file) if kind == "parquet" else table.to_csv(file, index=False)
    assert score_files(ranker, [file], tmp_path / "scores.parquet", keys=["user", "colour", "size"]) == (len(table), 0)
    found = pd.read_parquet(tmp_path / "scores.parquet")
    assert list(found.columns) == ["user", "colour", "size", *ranker.names]
    assert (found[["user", "colour"]] == table[["user", "colour"]]).all().all()
    assert found["size"].to_numpy() == pytest.approx(table["size"].to_numpy())
    for name, values in ranker.predict(table).items():
        assert found[name].to_numpy() == pytest.approx(values, rel=1e-6), name


def test_many_files_and_batches_keep_the_order_of_the_rows(ranker, table, tmp_path, monkeypatch):
    monkeypatch.setattr(row_files, "BATCH_ROWS", 250)
    monkeypatch.setattr(scoring, "PART_ROWS", 100)
    for part in range(3):
        table[part * 500 : (part + 1) * 500].to_parquet(tmp_path / f"part-{part}.parquet")
    done = []
    score_files(
        ranker, [f"{tmp_path}/part-*.parquet"], tmp_path / "scores.csv", progress=lambda what, rows, total: done.append((rows, total))
    )
    assert done[0] == (100, 1500)
    assert done[-1] == (1500, 1500)
    found = pd.read_csv(tmp_path / "scores.csv")
    for name, values in ranker.predict(table).items():
        assert found[name].to_numpy() == pytest.approx(values, rel=1e-4), name
    table.loc[456, "size"] = float("inf")
    table.to_parquet(tmp_path / "today.parquet")
    with pytest.raises(DataError, match=r"today\.parquet, row 457: column 'size' holds an infinite value"):
        score_files(ranker, [tmp_path / "today.parquet"], tmp_path / "scores.parquet")


def test_a_key_of_a_csv_file_that_counts_as_missing_is_warned_of(ranker, table, tmp_path):
    (tmp_path / "today.csv").write_text("colour,shape,size,country\n" + "".join(f"c1,s1,1,{text}\n" for text in ("NA", "DE", "")))
    options = {"keys": ["country", "colour"], "missing_values": ("", "NA", "NULL")}
    with pytest.warns(UserWarning, match=r"today\.csv: key column 'country' holds 'NA', which `missing_values` names: such") as said:
        score_files(ranker, [tmp_path / "today.csv"], tmp_path / "scores.parquet", **options)
    assert len(said) == 1
    assert pq.read_table(tmp_path / "scores.parquet").column("country").to_pylist() == [None, "DE", None]


def test_csv_rows_that_cannot_be_read_are_kept_in_a_file_of_their_own(ranker, table, tmp_path):
    lines = table.to_csv(index=False).splitlines()
    lines[3] = lines[3].rsplit(",", 2)[0] + ",big,u1"
    (tmp_path / "today.csv").write_text("\n".join(lines) + "\n")
    with pytest.raises(
        DataError, match=r"line 4: column 'size' holds 'big', expected a number.* such rows go to scores\.parquet\.rejects\.parquet"
    ):
        score_files(ranker, [tmp_path / "today.csv"], tmp_path / "scores.parquet")
    assert not (tmp_path / "scores.parquet").exists()
    assert score_files(ranker, [tmp_path / "today.csv"], tmp_path / "scores.parquet", max_rejects=1) == (len(table) - 1, 1)
    assert pq.read_table(tmp_path / "scores.parquet.rejects.parquet").column("line").to_pylist() == [4]


def test_a_failed_run_leaves_the_earlier_scores_and_no_other_file(ranker, table, tmp_path):
    table.to_parquet(tmp_path / "a.parquet")
    table.assign(size=["text"] * len(table)).to_parquet(tmp_path / "b.parquet")
    score_files(ranker, [tmp_path / "a.parquet"], tmp_path / "scores.parquet")
    before = (tmp_path / "scores.parquet").read_bytes()
    with pytest.raises(DataError, match=r"b\.parquet.*'size'"):
        score_files(ranker, [tmp_path / "a.parquet", tmp_path / "b.parquet"], tmp_path / "scores.parquet")
    assert (tmp_path / "scores.parquet").read_bytes() == before
    assert {path.name for path in tmp_path.iterdir()} == {"a.parquet", "b.parquet", "scores.parquet"}


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_no_input_file_is_overwritten(ranker, table, tmp_path, kind):
    file = tmp_path / f"today.{kind}"
    table.to_parquet(file) if kind == "parquet" else table.to_csv(file, index=False)
    before = file.read_bytes()
    (tmp_path / f"link.{kind}").symlink_to(file)
    for inputs, output in ((file, file), (tmp_path, tmp_path / f"link.{kind}")):
        with pytest.raises(DataError, match="is one of the input files"):
            score_files(ranker, [inputs], output)
    assert file.read_bytes() == before


def test_a_full_disk_is_an_error_that_names_the_output(ranker, table, tmp_path, monkeypatch):
    table.to_parquet(tmp_path / "today.parquet")
    fill_disk(monkeypatch)
    with pytest.raises(DataError, match=r"output .*scores\.csv cannot be written: No space left on device; name another path"):
        score_files(ranker, [tmp_path / "today.parquet"], tmp_path / "scores.csv")
    assert [path.name for path in tmp_path.iterdir()] == ["today.parquet"]


def test_a_key_is_written_that_is_of_one_type_in_every_file(ranker, table, tmp_path):
    rows = pa.Table.from_pandas(table, preserve_index=False)
    place = rows.column_names.index("user")
    for name, cells in {"a": rows["user"], "b": rows["user"].cast(pa.large_string()), "c": pa.array(range(len(rows)))}.items():
        pq.write_table(rows.set_column(place, "user", cells), tmp_path / f"{name}.parquet")
    score_files(ranker, [tmp_path / "a.parquet", tmp_path / "b.parquet"], tmp_path / "scores.parquet", keys=["user"])
    assert pq.read_table(tmp_path / "scores.parquet")["user"].to_pylist() == 2 * rows["user"].to_pylist()
    with pytest.raises(DataError, match=r"column 'user': .*string, then int64; write them alike"):
        score_files(ranker, [tmp_path / "a.parquet", tmp_path / "c.parquet"], tmp_path / "scores.parquet", keys=["user"])


@pytest.mark.parametrize("cell", [[1, 2], {"a": 1}, b"\xff"])
def test_a_key_that_csv_cannot_hold_is_named_and_parquet_keeps_it(ranker, table, tmp_path, cell):
    table.assign(cell=[cell] * len(table)).to_parquet(tmp_path / "today.parquet")
    with pytest.raises(DataError, match=r"'cell' .* write \.parquet"):
        score_files(ranker, [tmp_path / "today.parquet"], tmp_path / "scores.csv", keys=["user", "cell"])
    score_files(ranker, [tmp_path / "today.parquet"], tmp_path / "scores.parquet", keys=["cell"])
    assert pq.read_table(tmp_path / "scores.parquet").column("cell")[0].as_py() == cell


def test_the_command_reads_csv_as_the_runs_own_schema_says(shop, table, tmp_path):
    run, options = shutil.copytree(shop / "run", tmp_path / "run"), ["--input", str(tmp_path / "today.csv")]
    schema = yaml.safe_load((run / "schema.yaml").read_text())
    (run / "schema.yaml").write_text(yaml.safe_dump(schema | {"csv": {"delimiter": ";", "decimal": ","}, "missing_values": ["NULL"]}))
    table.to_csv(tmp_path / "today.csv", index=False, sep=";", decimal=",", na_rep="NULL")
    for name, more in (("own", []), ("same", ["--schema", str(run / "schema.yaml")])):
        found = CliRunner().invoke(app, ["predict", "--run", str(run), *options, "--output", str(tmp_path / f"{name}.parquet"), *more])
        assert (found.exit_code, "1,500 rows scored: click, buy, buy_given_click" in found.output) == (0, True), found.output
    assert pq.read_table(tmp_path / "own.parquet").equals(pq.read_table(tmp_path / "same.parquet"))
