"""What FunnelClassifier refuses, and in which words."""

import numpy as np
import pytest
from sklearn.exceptions import NotFittedError

from dcrnn_fast.errors import CheckpointError, ConfigError, DataError
from dcrnn_fast.training import evaluate
from tests.refusals import check, row

from .quick import quick

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:dcrnn_fast")  # of small tables

REFUSED = [
    row("before it is fitted", lambda: quick().predict_proba({"city": ["Oslo"]}), NotFittedError, "is not fitted yet"),
    row(
        "a task that is no column",
        lambda frame: quick(tasks=["clik"]).fit(frame),
        DataError,
        r"no column 'clik'; it has .*; did you mean 'click'\?",
    ),
    row(
        "a task that is no list",
        lambda frame: quick(tasks="click").fit(frame),
        DataError,
        "tasks='click': expected a list of different",
    ),
    row(
        "a task that is a mapping",
        lambda frame: quick(tasks=[{"name": "click"}]).fit(frame),
        DataError,
        "list of different columns of 0 and 1",
    ),
    row("a single column", lambda frame: quick(numeric="price").fit(frame), DataError, "numeric='price': expected a list; put a single"),
    row("a column as a table", lambda frame: quick().fit(frame["click"]), DataError, "X is of type Series, expected a pandas"),
    row(
        "rows without a time",
        lambda frame: quick(time="ts").fit(frame.assign(ts=frame["ts"].where(frame["price"] > 0))),
        DataError,
        "time: column 'ts' of X has no time in [0-9,]+ of 3,000 rows",
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
    row("a task twice", lambda frame: quick(tasks=["click", "click"]).fit(frame), DataError, "expected a list of different columns"),
    row("a group that is no column", lambda frame: quick(group="usr_id").fit(frame), DataError, r"did you mean 'user_id'\?"),
    row("too few rows", lambda frame: quick().fit(frame[:4]), DataError, "X has 4 rows, too few to keep 0.1 of them"),
    row("no Parquet file", lambda: quick().fit(__file__, eval_set=__file__), DataError, "expected the path of a Parquet file"),
    row("a table that is none", lambda frame: quick().fit(frame, eval_set=7), DataError, "eval_set is of type int, expected a pandas"),
    row("a score without labels", lambda fitted, frame: fitted.score(frame.drop(columns="order")), DataError, "X has no column 'order'"),
    row("a time that is no column", lambda frame: quick(time="when").fit(frame), DataError, "time: X has no column 'when'; it has ts"),
    row("labels apart", lambda frame: quick().fit(frame, frame["click"]), DataError, "the labels are columns of X, which tasks names"),
    row("a path alone", lambda tmp_path: quick().fit(tmp_path / "t.parquet"), DataError, "eval_set is None: X is a path, so give the path"),
    row(
        "a broken funnel",
        lambda frame: quick(funnel=True, tasks=["order", "click"]).fit(frame),
        DataError,
        "click = 1 and order = 0; correct such rows, or set funnel=False",
    ),
    row(
        "a cell that no split hides",
        lambda frame: quick(time="ts").fit(frame.assign(price=frame["price"].where(frame.index != 2345, np.inf))),
        DataError,
        "X, row 2,346: column 'price' holds an infinite value",
    ),
    row("a row of a frame", lambda fitted, frame: fitted.predict_proba(frame.iloc[0]), DataError, r"take frame\.iloc\[\[0\]\]"),
    row("a column of several types", lambda frame: quick().fit(frame.assign(city=[1, "a"] * 1500)), DataError, "column 'city'"),
    row("a name that is no text", lambda frame: quick().fit(frame.rename(columns={"city": 7})), DataError, "X has the column 7, expected"),
    row("an unknown key", lambda frame: quick(config={"model.stepps": 3}).fit(frame), ConfigError, "model.stepps"),
    row("to go on with other tasks", lambda fitted, frame: quick(tasks=["click"]).fit(frame, init=fitted), DataError, "has those of"),
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


@pytest.mark.parametrize(("call", "error", "said"), REFUSED)
def test_it_is_refused(request, call, error, said):
    check(request, call, error, said)
