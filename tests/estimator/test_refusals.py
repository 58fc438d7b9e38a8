"""What FunnelClassifier and the classifier of one of its tasks refuse, and in which words."""

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from sklearn.exceptions import NotFittedError

from dcrnn_fast import FunnelClassifier
from dcrnn_fast.errors import CheckpointError, ConfigError, DataError
from dcrnn_fast.training import evaluate
from tests.refusals import refused, row, rows

from .conftest import quick

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:dcrnn_fast")  # of small tables

MONTHS = pa.array([(1, 2, 3)] * 3000, pa.month_day_nano_interval())


TABLE = [
    row("before it is fitted", lambda: quick().predict_proba({"city": ["Oslo"]}), NotFittedError, "is not fitted yet"),
    *rows("an argument of another kind", lambda argument, given, frame: quick(**{argument: given}).fit(frame), None, cases=[
        ("tasks", None, DataError, "tasks=None: expected a list"),
        ("tasks", ["clik"], DataError, r"X has no column 'clik', which `tasks` names; it has .*; did you mean 'click'\?"),
        ("tasks", "click", DataError, "tasks='click': expected a list; put a single one in a list"),
        ("tasks", [{"name": "click"}], DataError, "list of different columns of 0 and 1"),
        ("tasks", ["click", "click"], DataError, "expected a list of different columns"),
        ("categorical", 7, DataError, "categorical=7: expected a list"),
        ("categorical", iter(["city"]), DataError, "expected a list"),
        ("categorical", [1], DataError, "categorical holds 1, expected names of columns"),
        ("categorical", ["ts"], DataError,
         "categorical: column 'ts' is of type timestamp.*, which has another text in each unit; make its hour, or a text, of it"),
        ("numeric", "price", DataError, "numeric='price': expected a list; put a single"),
        ("numeric", [None], DataError, "numeric holds None, expected names of columns"),
        ("numeric", [{"name": "price"}], DataError, "numeric holds {'name': 'price'}, expected names of columns, or what a schema"),
        ("histories", [{"of": "item_id"}], DataError, "histories holds {'of': 'item_id'}, expected"),
        ("time", ["ts"], DataError, r"time=\['ts'\]: expected the name of a column"),
        ("time", "when", DataError, "X lacks the columns when that"),
        ("group", 1, DataError, "group=1: expected the name of a column"),
        ("group", "usr_id", DataError, r"did you mean 'user_id'\?"),
        ("config", "a", ConfigError, "config='a': expected values by dotted key, such as {'model.steps': 3}"),
        ("config", {"split_seed": 1}, ConfigError, "split_seed has no effect here; random_state is the seed"),
        ("config", [1], ConfigError, r"config=\[1\]: expected values by dotted key"),
        ("config", {"model.stepps": 3}, ConfigError, "model.stepps"),
        ("config", {"valid_fraction": 0.9999}, DataError,
         "X has 3000 rows, too few to keep 0.9999 of them for validation and to train on the others; give more, another valid_fraction"),
    ]),
    *rows("a label in another role", lambda argument, frame: quick(**{argument: "click"}).fit(frame), DataError,
        values=["group", "weight", "time"],
        said="schema of these arguments is not valid .*: `(group|weight|split)` and `tasks` both name column 'click'"),
    *rows("to go on from a run with other columns",
        lambda argument, given, fitted, frame: quick(**{argument: given}).fit(frame, init=fitted), None, cases=[
        ("group", "city", DataError, "group='city': init has 'user_id', and its schema reads X; give the same, or fit without"),
        ("weight", "price", DataError, "weight='price': init has None"),
        ("funnel", False, DataError, "funnel=False: init has True"),
        ("categorical", ["city"], DataError, r"categorical=\['city'\]: init has \['city', 'item_id', 'user_id'\]"),
        ("numeric", [], DataError, r"numeric=\[\]: init has \['price'\]"),
        ("histories", [{"name": "last", "of": "item_id"}], DataError, r"histories=\['last'\]: init has \[\]"),
        ("tasks", ["click"], DataError, "tasks=.*: init has"),
        ("categorical", ["city", "item_id", {"column": "user_id", "min_count": 9}], DataError, "'min_count': 9.*: init has .*, and its"),
        ("train_only", [{"column": "city", "score_as": "x"}], DataError, "train_only=.*: init has None"),
        ("config", {"model.steps": 3}, ConfigError, "^init is of another model: model.steps is 3 and was 2"),
    ]),
    row("to go on from one before it is fitted", lambda frame: quick().fit(frame, init=quick()), NotFittedError, "is not fitted yet"),
    row("to load no run", lambda tmp_path: FunnelClassifier.load(tmp_path), CheckpointError, "holds no run .*; name the --output folder"),
    row("to go on from no run", lambda frame, tmp_path: quick().fit(frame, init=tmp_path), CheckpointError, "holds no run"),
    *rows("a table that cannot be learned", lambda rows, frame: quick().fit(rows(frame)), DataError, cases=[
        (lambda frame: pa.Table.from_pandas(frame).append_column("x", MONTHS),
         "X: column 'x' is of type 'month_day_nano_interval', which no field can hold; make text or numbers of it, or leave it out"),
        (lambda frame: frame.assign(band=pd.cut(frame["price"], 5)), "X: column 'band' is of type '.*', which no field can hold"),
        (lambda frame: frame.assign(month=pd.period_range("2024-01", periods=3000, freq="h")),
         r"X: column 'month' is of type period\[h\], which no field can hold; make text or numbers of it"),
        (lambda frame: frame.assign(city=[1, "a"] * 1500), "column 'city'"),
        (lambda frame: frame.rename(columns={"city": 7}), "X has the column 7, expected"),
        (lambda frame: frame[["click", "order"]], "X has no column to learn from, apart from those of tasks$"),
        (lambda frame: frame["click"], "X is of type Series, expected a pandas"),
        (lambda frame: frame[:4], "X has 4 rows, too few to keep 0.1 of them"),
        (lambda frame: {}, "X has no columns; give it those of the tasks and of the features"),
        (lambda frame: "nope.parquet", "X is 'nope.parquet', and there is no such file; expected a table, or"),
    ]),
    *rows("a table of one task", lambda rows, frame: quick(tasks=["click"]).fit(rows(frame)), DataError, cases=[
        (lambda frame: frame[["click"]].assign(id=range(3000)),
         'X has no column to learn from, apart from those of tasks: it leaves out "id": bigint, .*: every row another'),
        (lambda frame: frame.assign(click=frame["click"] * 2 - 1), "make a column of 0 and 1 of it"),
        (lambda frame: {"click": [0, 1], "city": ["a"]}, "X has columns of unequal length: 'click' has 2, 'city' has 1 rows"),
    ]),
    row("a duration as a category",
        lambda frame: quick(categorical=["stay"]).fit(frame.assign(stay=pd.to_timedelta(frame.index % 7, unit="h"))), DataError,
        "X: column 'stay' is used as text and is of type 'duration.*': a duration has another text in each unit; make a number of it"),
    *rows("a table that is split by time", lambda rows, frame: quick(time="ts").fit(rows(frame)), DataError, cases=[
        (lambda frame: frame.assign(ts=frame["ts"].iloc[0]),
         "data set 'frame': column 'ts' splits the rows by time, but all rows have one time, .* none are left to train on"),
        (lambda frame: frame.assign(ts=frame["ts"].where(frame["price"] > 0)),
         "X, row [0-9,]+: column 'ts' splits the rows by time and is empty; fill it, or leave the row out"),
        (lambda frame: frame.assign(ts=1714521600 + frame.index + 10**12 * (frame.index < 9)),
         "column 'ts' splits the rows by time and holds 2,991 numbers like seconds .* and 9 numbers like milliseconds"),
        (lambda frame: frame.assign(price=frame["price"].where(frame.index != 2345, np.inf)),
         "X, row 2,346: column 'price' holds an infinite value"),
    ]),
    *rows("validation rows", lambda rows, frame: quick().fit(frame, eval_set=rows(frame)), DataError, cases=[
        (lambda frame: frame.drop(columns="order"), "eval_set lacks the columns order"),
        (lambda frame: frame.assign(click="maybe"), "eval_set, row 1: column 'click' is used as a label and holds 'maybe'"),
        (lambda frame: frame[:0], "eval_set has no rows; give rows, or"),
        (lambda frame: 7, "eval_set is of type int, expected a pandas"),
        (lambda frame: [(frame, frame["click"])], "eval_set has its labels apart, expected them as columns of its table"),
        (lambda frame: [(frame, None), (frame, None)], "eval_set is a list of 2 tuples, expected one"),
    ]),
    row("no Parquet file", lambda: quick().fit(__file__, eval_set=__file__), DataError, "expected the path of a Parquet file"),
    row("labels apart", lambda frame: quick().fit(frame, frame["click"]), DataError, "the labels are columns of X, which tasks names"),
    row("a broken funnel", lambda frame: quick(funnel=True, tasks=["order", "click"]).fit(frame), DataError,
        "click = 1 and order = 0; correct such rows, or set `funnel` to false"),
    row("weights given twice", lambda frame: quick(weight="w").fit(frame.assign(w=1.0), sample_weight=np.ones(3000)), DataError,
        "sample_weight and weight='w': give one of the two"),
    row("weights of other rows", lambda frame: quick().fit(frame, sample_weight=[1, 2]), DataError,
        r"sample_weight: got shape \[2\], expected \[3000\]"),
    *rows("a score", lambda rows, fitted, frame: fitted.score(rows(frame)), DataError, cases=[
        (lambda frame: frame[frame["click"] == 0], "labels of one class alone in click, order"),
        (lambda frame: frame.assign(click=frame["click"] * 3),
         r"X, row \d+: column 'click' holds 3, expected 0 and 1 \(empty: unknown\) of task 'click'; make a column of 0 and 1 of it"),
        (lambda frame: frame.drop(columns="order"), "X has no column 'order'"),
    ]),
    row("scoring without a column", lambda fitted, frame: fitted.predict_proba(frame[["city"]]), DataError, "lacks the columns"),
    row("its run without a table", lambda fitted, tmp_path: evaluate(fitted.save(tmp_path / "r")), DataError, "--data ROWS.parquet"),
    row("its run on a table without a label",
        lambda fitted, frame, tmp_path: evaluate(fitted.save(tmp_path / "r"), data=frame.drop(columns="order")),
        DataError, "data lacks the columns order"),
    *rows("a task that cannot be learned", lambda fit, frame: fit(quick().task("order"), frame), ValueError, cases=[
        (lambda task, rows: task.set_params(task="buy").fit(rows), "task='buy': expected one of click, order"),
        (lambda task, rows: task.fit(rows.drop(columns="order")), "has no column 'order', the labels of the task"),
        (lambda task, rows: task.fit(rows, rows["item_id"]), "Only binary classification is supported"),
        (lambda task, rows: task.fit(rows, rows["order"] * 0), "y has the one class 0, expected two"),
        (lambda task, rows: task.fit(rows.drop(columns="click"), rows["order"]), "click"),
    ]),
]  # fmt: skip

test_it_is_refused = refused(TABLE)
