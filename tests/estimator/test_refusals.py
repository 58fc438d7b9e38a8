"""What FunnelClassifier refuses, and in which words."""

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from sklearn.exceptions import NotFittedError

from dcrnn_fast.errors import CheckpointError, ConfigError, DataError
from dcrnn_fast.training import evaluate
from tests.refusals import refused, row, rows

from .quick import quick

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:dcrnn_fast")  # of small tables


MONTHS = pa.array([(1, 2, 3)] * 3000, pa.month_day_nano_interval())
REFUSED = [
    row("before it is fitted", lambda: quick().predict_proba({"city": ["Oslo"]}), NotFittedError, "is not fitted yet"),
    row(
        "a task that is no column",
        lambda frame: quick(tasks=["clik"]).fit(frame),
        DataError,
        r"X has no column 'clik', which `tasks` names; it has .*; did you mean 'click'\?",
    ),
    row(
        "a task that is no list",
        lambda frame: quick(tasks="click").fit(frame),
        DataError,
        "tasks='click': expected a list; put a single one in a list",
    ),
    row(
        "a task that is a mapping",
        lambda frame: quick(tasks=[{"name": "click"}]).fit(frame),
        DataError,
        "list of different columns of 0 and 1",
    ),
    *rows(
        "an argument of another kind",
        lambda argument, given, frame: quick(**{argument: given}).fit(frame),
        None,
        cases=[
            ("tasks", None, DataError, "tasks=None: expected a list"),
            ("categorical", 7, DataError, "categorical=7: expected a list"),
            ("categorical", iter(["city"]), DataError, "expected a list"),
            ("categorical", [1], DataError, "categorical holds 1, expected names of columns"),
            ("numeric", [None], DataError, "numeric holds None, expected names of columns"),
            ("numeric", [{"name": "price"}], DataError, "numeric holds {'name': 'price'}, expected names of columns, or what a schema"),
            ("histories", [{"of": "item_id"}], DataError, "histories holds {'of': 'item_id'}, expected"),
            ("time", ["ts"], DataError, r"time=\['ts'\]: expected the name of a column"),
            ("group", 1, DataError, "group=1: expected the name of a column"),
            ("config", "a", ConfigError, "config='a': expected values by dotted key, such as {'model.steps': 3}"),
            ("config", {"split_seed": 1}, ConfigError, "split_seed has no effect here; random_state is the seed"),
            ("config", [1], ConfigError, r"config=\[1\]: expected values by dotted key"),
        ],
    ),
    *rows(
        "to go on from a run with other columns",
        lambda argument, given, fitted, frame: quick(**{argument: given}).fit(frame, init=fitted),
        DataError,
        cases=[
            ("group", "city", "group='city': the run in .* has 'user_id', and its schema reads X; give the same, or fit without init"),
            ("weight", "price", "weight='price': the run in .* has None"),
            ("funnel", False, "funnel=False: the run in .* has True"),
            ("categorical", ["city"], r"categorical=\['city'\]: the run in .* has \['city', 'item_id', 'user_id'\]"),
            ("numeric", [], r"numeric=\[\]: the run in .* has \['price'\]"),
            ("histories", [{"name": "last", "of": "item_id"}], r"histories=\['last'\]: the run in .* has \[\]"),
        ],
    ),
    row(
        "a category that has a text in each unit of time",
        lambda frame: quick(categorical=["ts"]).fit(frame),
        DataError,
        "categorical: column 'ts' is of type timestamp.*, which has another text in each unit; make its hour, or a text, of it",
    ),
    row(
        "a column that no field can hold",
        lambda frame: quick().fit(pa.Table.from_pandas(frame).append_column("x", MONTHS)),
        DataError,
        "X: column 'x' is of type 'month_day_nano_interval', which no field can hold; make text or numbers of it, or leave it out",
    ),
    row(
        "a duration as a category",
        lambda frame: quick(categorical=["stay"]).fit(frame.assign(stay=pd.to_timedelta(frame.index % 7, unit="h"))),
        DataError,
        "X: column 'stay' is used as text and is of type 'duration.*': a duration has another text in each unit; make a number of it",
    ),
    row(
        "rows of one time",
        lambda frame: quick(time="ts").fit(frame.assign(ts=frame["ts"].iloc[0])),
        DataError,
        "data set 'frame': column 'ts' splits the rows by time, but all rows have one time, .* none are left to train on; split by another",
    ),
    *rows(
        "a label in another role",
        lambda argument, frame: quick(**{argument: "click"}).fit(frame),
        DataError,
        values=["group", "weight", "time"],
        said="schema of these arguments is not valid .*: `(group|weight|split)` and `tasks` both name column 'click'",
    ),
    row(
        "labels alone",
        lambda frame: quick().fit(frame[["click", "order"]]),
        DataError,
        "X has no column to learn from beside those of tasks$",
    ),
    row(
        "a label and an id of each row",
        lambda frame: quick(tasks=["click"]).fit(frame[["click"]].assign(id=range(3000))),
        DataError,
        'X has no column to learn from beside those of tasks: it leaves out "id": bigint, .*: every row another',
    ),
    row(
        "a column of intervals",
        lambda frame: quick().fit(frame.assign(band=pd.cut(frame["price"], 5))),
        DataError,
        "X: column 'band' is of type '.*', which no field can hold",
    ),
    row(
        "a column of periods",
        lambda frame: quick().fit(frame.assign(month=pd.period_range("2024-01", periods=3000, freq="h"))),
        DataError,
        r"X: column 'month' is of type period\[h\], which no field can hold; make text or numbers of it",
    ),
    row("a single column", lambda frame: quick(numeric="price").fit(frame), DataError, "numeric='price': expected a list; put a single"),
    row("a column as a table", lambda frame: quick().fit(frame["click"]), DataError, "X is of type Series, expected a pandas"),
    row(
        "rows without a time",
        lambda frame: quick(time="ts").fit(frame.assign(ts=frame["ts"].where(frame["price"] > 0))),
        DataError,
        "X, row [0-9,]+: column 'ts' splits the rows by time and is empty; fill it, or leave the row out",
    ),
    row(
        "labels that are not 0 and 1",
        lambda frame: quick(tasks=["click"]).fit(frame.assign(click=frame["click"] * 2 - 1)),
        DataError,
        "make a column of 0 and 1 of it",
    ),
    row(
        "a score on one class",
        lambda fitted, frame: fitted.score(frame[frame["click"] == 0]),
        DataError,
        "labels of one class alone in click, order",
    ),
    row(
        "a score on labels that are not 0 and 1",
        lambda fitted, frame: fitted.score(frame.assign(click=frame["click"] * 3)),
        DataError,
        r"X, row \d+: column 'click' holds 3, expected 0 and 1 \(empty: unknown\) of task 'click'; make a column of 0 and 1 of it",
    ),
    row("no column", lambda: quick().fit({}), DataError, "X has no columns; give it those of the tasks and of the features"),
    row(
        "columns of unequal length",
        lambda: quick(tasks=["click"]).fit({"click": [0, 1], "city": ["a"]}),
        DataError,
        "X has columns of unequal length: 'click' has 2, 'city' has 1 rows",
    ),
    row("a task twice", lambda frame: quick(tasks=["click", "click"]).fit(frame), DataError, "expected a list of different columns"),
    row("a group that is no column", lambda frame: quick(group="usr_id").fit(frame), DataError, r"did you mean 'user_id'\?"),
    row("too few rows", lambda frame: quick().fit(frame[:4]), DataError, "X has 4 rows, too few to keep 0.1 of them"),
    row(
        "no row to train on",
        lambda frame: quick(config={"valid_fraction": 0.9999}).fit(frame),
        DataError,
        "X has 3000 rows, too few to keep 0.9999 of them for validation and to train on the others; give more, another valid_fraction",
    ),
    row(
        "validation rows without a label",
        lambda frame: quick().fit(frame, eval_set=frame.drop(columns="order")),
        DataError,
        "eval_set lacks the columns order",
    ),
    row(
        "a label of the validation rows",
        lambda frame: quick().fit(frame, eval_set=frame.assign(click="maybe")),
        DataError,
        "eval_set, row 1: column 'click' is used as a label and holds 'maybe'",
    ),
    row("no validation row", lambda frame: quick().fit(frame, eval_set=frame[:0]), DataError, "eval_set has no rows; give rows, or"),
    row("no Parquet file", lambda: quick().fit(__file__, eval_set=__file__), DataError, "expected the path of a Parquet file"),
    row("a table that is none", lambda frame: quick().fit(frame, eval_set=7), DataError, "eval_set is of type int, expected a pandas"),
    row("a score without labels", lambda fitted, frame: fitted.score(frame.drop(columns="order")), DataError, "X has no column 'order'"),
    row(
        "times of two units",
        lambda frame: quick(time="ts").fit(frame.assign(ts=1714521600 + frame.index + 10**12 * (frame.index < 9))),
        DataError,
        "column 'ts' splits the rows by time and holds 2,991 numbers like seconds .* and 9 numbers like milliseconds",
    ),
    row("a time that is no column", lambda frame: quick(time="when").fit(frame), DataError, "X lacks the columns when that"),
    row("labels apart", lambda frame: quick().fit(frame, frame["click"]), DataError, "the labels are columns of X, which tasks names"),
    row("no file", lambda: quick().fit("nope.parquet"), DataError, "X is 'nope.parquet', and there is no such file; expected a table, or"),
    row(
        "a broken funnel",
        lambda frame: quick(funnel=True, tasks=["order", "click"]).fit(frame),
        DataError,
        "click = 1 and order = 0; correct such rows, or set `funnel` to false",
    ),
    row(
        "a cell that no split hides",
        lambda frame: quick(time="ts").fit(frame.assign(price=frame["price"].where(frame.index != 2345, np.inf))),
        DataError,
        "X, row 2,346: column 'price' holds an infinite value",
    ),
    row("a column of several types", lambda frame: quick().fit(frame.assign(city=[1, "a"] * 1500)), DataError, "column 'city'"),
    row("a name that is no text", lambda frame: quick().fit(frame.rename(columns={"city": 7})), DataError, "X has the column 7, expected"),
    row("an unknown key", lambda frame: quick(config={"model.stepps": 3}).fit(frame), ConfigError, "model.stepps"),
    row(
        "to go on with other tasks",
        lambda fitted, frame: quick(tasks=["click"]).fit(frame, init=fitted),
        DataError,
        "tasks=.*: the run in .* has",
    ),
    row("to go on from one before it is fitted", lambda frame: quick().fit(frame, init=quick()), NotFittedError, "is not fitted yet"),
    row("to go on from no run", lambda frame, tmp_path: quick().fit(frame, init=tmp_path), CheckpointError, "holds no run"),
    row(
        "to go on with another model",
        lambda fitted, frame: quick(config={"model.steps": 3}).fit(frame, init=fitted),
        ConfigError,
        "model.steps is 3 and was 2",
    ),
    row("its run without a table", lambda fitted, tmp_path: evaluate(fitted.save(tmp_path / "r")), DataError, "--data ROWS.parquet"),
    row(
        "its run on a table without a label",
        lambda fitted, frame, tmp_path: evaluate(fitted.save(tmp_path / "r"), data=frame.drop(columns="order")),
        DataError,
        "data lacks the columns order",
    ),
    row("scoring without a column", lambda fitted, frame: fitted.predict_proba(frame[["city"]]), DataError, "lacks the columns"),
]

test_it_is_refused = refused(REFUSED)
