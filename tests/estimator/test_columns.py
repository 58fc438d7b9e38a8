"""Which columns FunnelClassifier reads, and as what."""

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from dcrnn_fast.errors import DataError
from dcrnn_fast.training import evaluate

from .conftest import quick

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:dcrnn_fast")  # of small tables


def test_numbers_with_fractions_score_alike_in_a_frame_a_row_and_a_file(frame, tmp_path):
    rows = frame.assign(rate=np.random.default_rng(0).choice(np.array([1e-6, 0.1, 0.7], np.float32), 3000))
    model = quick(time="ts").fit(rows)
    expected = model.predict_proba(rows[:30])["click"]
    one_by_one = [model.ranker_.predict(rows.iloc[row].to_dict())["click"][0] for row in range(30)]
    np.testing.assert_allclose(one_by_one, expected, rtol=1e-6)
    rows[:30].to_csv(tmp_path / "rows.csv", index=False)
    np.testing.assert_allclose(model.predict_proba(pd.read_csv(tmp_path / "rows.csv"))["click"], expected, rtol=1e-6)


@pytest.mark.parametrize("made", [tuple, pd.Index, pd.Series, np.array, pa.array])
def test_names_of_columns_may_be_any_list(frame, made):
    model = quick(tasks=made(["click", "order"]), categorical=made(["city", "item_id"]), numeric=made(["price"])).fit(frame)
    assert sorted(model.feature_names_in_) == ["city", "item_id", "price"]
    assert 0 < model.score(frame) < 1


def test_a_named_index_is_a_column(frame):
    """As `set_index` makes one."""
    rows, indexed = frame, frame.set_index("user_id")
    models = [quick(tasks=["click"]).fit(one) for one in (rows[["user_id", *indexed]], indexed)]
    assert models[0].schema_ == models[1].schema_
    expected = models[0].predict_proba(rows)
    for scores in (models[1].predict_proba(indexed), models[1].predict_proba(indexed.set_index("ts", append=True))):
        np.testing.assert_array_equal(scores["click"], expected["click"])


def test_text_and_numbers_are_read_in_any_layout(frame):
    rows = pa.Table.from_pandas(frame[["click", "city", "item_id", "price"]])
    city, item = rows["city"].combine_chunks(), rows["item_id"].combine_chunks()
    swapped = frame["price"].to_numpy().astype(">f8")
    others = [
        {"city": city.cast(pa.string_view()), "price": swapped},
        {"city": city.dictionary_encode(), "item_id": item.to_numpy().astype(">i4"), "price": pd.Series(swapped)},
        rows.set_column(1, "city", pc.run_end_encode(city)).set_column(2, "item_id", pc.run_end_encode(item)),
    ]
    model = quick(tasks=["click"]).fit(rows)
    for other in others:
        other = dict(zip(rows.column_names, rows.columns, strict=True)) | other if isinstance(other, dict) else other
        assert quick(tasks=["click"]).fit(other).schema_ == model.schema_
        np.testing.assert_array_equal(model.ranker_.predict(other)["click"], model.ranker_.predict(rows)["click"])


def test_where_all_fields_are_named_no_other_column_is_converted(frame):
    """So a column that no field could hold, or whose name no file could, does no harm."""
    polars = pytest.importorskip("polars")
    huge = polars.from_pandas(frame).with_columns(huge=polars.lit(1).cast(polars.Int128))
    with pytest.raises(DataError, match="X: column 'huge' is of type 'Int128', which no field can hold"):
        quick().fit(huge)
    assert 0 < quick(categorical=["item_id"], numeric=["price"]).fit(huge).score(huge) < 1
    rows = frame.assign(mixed=[1, "a"] * 1500, band=pd.cut(frame["price"], 5), seven=object()).rename(columns={"seven": 7})
    history = {"name": "last", "of": "item_id", "by": "user_id", "time": "ts", "last": 3}
    named = {"categorical": ["item_id"], "numeric": ["price"], "histories": [history], "weight": "weight"}
    model = quick(**named).fit(rows.assign(weight=1.0), eval_set=rows[:200].assign(weight=1.0))
    assert sorted(model.feature_names_in_) == ["item_id", "last", "price"]
    assert 0 < model.score(rows.assign(last=[[]] * 3000)) < 1


@pytest.mark.parametrize("made", ["List", "Array"])
def test_a_polars_frame_of_lists_and_structs_is_read_as_a_pandas_one(frame, made):
    polars = pytest.importorskip("polars")
    rows = frame[["click", "city"]].assign(tags=[[city, "x"] for city in frame["city"]])
    of_polars = polars.from_pandas(rows).with_columns(struct=polars.struct(polars.col("city")))
    of_polars = of_polars if made == "List" else of_polars.with_columns(polars.col("tags").list.to_array(2))
    model = quick(tasks=["click"]).fit(of_polars)
    assert list(model.feature_names_in_) == ["city", "tags"]
    assert model.predict_proba(of_polars)["click"].to_list() == model.predict_proba(rows)["click"].to_list()


def test_a_masked_cell_of_an_array_is_missing(frame):
    """As DuckDB's fetchnumpy gives columns with NULL: below the mask stands a number."""
    rows = frame[["click", "price", "city"]].assign(price=frame["price"].where(frame["click"] == 0))
    model = quick(tasks=["click"]).fit(rows)
    masked = np.ma.masked_array(frame["price"].to_numpy(), mask=frame["click"] == 1)
    found = model.predict_proba({"price": masked, "city": frame["city"].to_numpy()})["click"]
    np.testing.assert_array_equal(found, model.predict_proba(rows)["click"])


@pytest.mark.parametrize("text", ["NULL", "n/a", "#N/A", "<NA>", "-nan"])
def test_a_cell_that_pandas_takes_for_none_is_missing_in_the_file_too(frame, tmp_path, text):
    rows = frame[["click", "item_id"]].assign(city=frame["city"].where(frame["click"] == 0, text))
    rows.to_csv(tmp_path / "rows.csv", index=False)
    for as_text in (False, True):  # a table that holds the text means a city of this name
        rows = pd.read_csv(tmp_path / "rows.csv", keep_default_na=not as_text).astype({"city": "category" if text == "n/a" else "object"})
        model = quick(tasks=["click"]).fit(rows)
        assert (text in model.schema_["missing_values"]) is not as_text
        run = model.save(tmp_path / f"run{as_text}")
        assert evaluate(run, data=tmp_path / "rows.csv")["metrics"] == evaluate(run, data=rows)["metrics"]


def test_what_a_file_calls_missing_is_what_the_newest_rows_do_not_hold(frame, tmp_path):
    rows = frame[["click", "city"]]
    of_text = rows.assign(city=rows["city"].where(rows["click"] == 0, "NA"))
    of_text.to_parquet(tmp_path / "rows.parquet")
    before = quick(tasks=["click"]).fit(rows)
    for model in (
        quick(tasks=["click"]).fit(of_text, init=before),
        quick(tasks=["click"]).fit(rows, eval_set=of_text),
        quick(tasks=["click"]).fit(tmp_path / "rows.parquet", eval_set=tmp_path / "rows.parquet"),
    ):
        assert {"NA", "NULL"} & set(model.schema_["missing_values"]) == {"NULL"}
    assert "NA" in before.schema_["missing_values"]


def test_sparse_columns_are_read_as_dense_ones(frame):
    sparse, dense = (frame[["ts", "click", "price"]].join(pd.get_dummies(frame["city"], sparse=is_sparse)) for is_sparse in (True, False))
    models = [quick(tasks=["click"], time="ts").fit(rows) for rows in (sparse, dense)]
    assert models[0].schema_ == models[1].schema_
    pd.testing.assert_frame_equal(models[0].predict_proba(sparse), models[1].predict_proba(dense))


def with_codes():
    """Rows of a click that depends on the shop alone, whatever its number."""
    rng = np.random.default_rng(0)
    shop = rng.integers(0, 100, 6000)
    logits = 1.5 * rng.normal(size=100)[shop] - 1
    return pd.DataFrame({"shop": shop, "price": rng.random(6000), "click": (rng.random(6000) < 1 / (1 + np.exp(-logits))).astype(int)})


def test_whole_numbers_whose_labels_jump_are_read_as_codes_and_as_numbers(capsys):
    rows = with_codes()
    model = quick(tasks=["click"], verbose=True).fit(rows)
    assert "reads shop as codes and as numbers: name one in categorical or numeric to read it in one way" in capsys.readouterr().err
    assert [one["column"] for one in model.schema_["categorical"]] == ["shop"]
    assert model.schema_["numeric"] == [{"column": "shop", "dense": "log1p"}, {"column": "price", "dense": "log1p"}]
    scores = model.predict_proba(rows[:50])
    pd.testing.assert_frame_equal(model.predict_proba(rows[:50].astype({"shop": float})), scores)
    assert model.predict_proba(rows.iloc[7].to_dict())["click"] == pytest.approx(scores["click"][7])


BOTH, LOG = {"buckets": 32, "dense": "log1p"}, {"dense": "log1p"}


@pytest.mark.parametrize(
    ("named", "categorical", "numeric"),
    [
        ({"categorical": ["shop"]}, ["shop"], {"price": LOG}),
        ({"numeric": ["shop"], "categorical": ["price"]}, ["price"], {"shop": LOG}),
        ({"categorical": ["shop"], "numeric": ["shop", "price"]}, ["shop"], {"shop": LOG, "price": LOG}),
        ({"categorical": [{"column": "shop", "hash_buckets": 100}], "numeric": []}, ["shop"], {}),
        ({"categorical": [], "numeric": ["price", "shop"]}, [], {"price": BOTH, "shop": LOG}),
    ],
    ids=str,
)
def test_columns_that_arguments_name_are_read_in_that_way_alone(named, categorical, numeric):
    schema = quick(tasks=["click"], **named).fit(with_codes()).schema_
    assert [one["column"] for one in schema.get("categorical", [])] == categorical
    assert {one.pop("column"): one for one in schema.get("numeric", [])} == numeric


SAID = {
    "durations": (lambda rows: rows.assign(stay=[f"{row % 7} days 01:00:00" for row in range(3000)]), {},
        ["reads stay as categories, which hold durations? As a number"], []),
    "named": (lambda rows: rows, {"categorical": ["city"], "time": "ts"},
        ["leaves out user_id, item_id: categorical and numeric, if given, name all columns of their kind"], []),
    "two values": (lambda rows: rows.assign(vip=rows["click"] == 0, is_paid=rows["click"]), {},
        ["reads vip, each of two values: leave out those that are known only after the event", 'leaves out "is_paid"'], []),
    "whole numbers": (lambda rows: rows.assign(brand=np.arange(3000) % 700), {},
        ["reads brand as numbers: name those that are codes, such as of a city, in categorical"], []),
    "named numbers": (lambda rows: rows.assign(brand=np.arange(3000) % 700), {"numeric": ["brand"]}, [], ["that are codes"]),
    "nearly unique": (lambda rows: rows.assign(session_id=np.random.default_rng(0).integers(0, 2700, 3000)), {},
        ["\nsession_id is nearly unique: it groups the rows and is not a feature\n"], []),
    "control characters": (lambda rows: rows[["click", "city"]].assign(**{"a\x1b[2Jb": rows["price"], "c\rd": 1}), {},
        ["reads city, a\\x1b[2Jb"], ["\x1b", "\r"]),
    "a day": (lambda rows: rows.assign(day=rows["ts"].dt.date), {"categorical": ["day"]},
        ["reads day", 'leaves out "ts"'], ['leaves out "day"']),
    "a name that is no word": (lambda rows: rows.rename(columns={"click": "my click"}), {"tasks": ["my click"]},
        ["reads user_id, item_id, city, price", "calls the task of column 'my click' my_click", "leaves out", "epoch 1/1"], []),
}  # fmt: skip


@pytest.mark.parametrize(("rows", "arguments", "said", "unsaid"), SAID.values(), ids=SAID)
def test_it_says_which_columns_it_reads_and_which_it_leaves_out(frame, capsys, rows, arguments, said, unsaid):
    quick(**{"tasks": ["click"], "verbose": True} | arguments).fit(rows(frame))
    found = capsys.readouterr().err
    assert [words for words in said if words not in found] == []
    assert [words for words in unsaid if words in found] == []
