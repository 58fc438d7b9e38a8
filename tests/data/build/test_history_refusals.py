"""Histories that would show a model labels of rows on which it is tested are refused."""

from __future__ import annotations

import pytest

from dcrnn_fast.errors import DataError
from tests.data.event_logs import HISTORY, histories_of, split_log

SPLITS = {
    "time": {"split": {"time": "time", "valid": 0.1, "test": 0.2}},
    "user": {"split": {"hash": "user", "valid": 0.2, "test": 0.2}},
    "item": {"split": {"hash": "item", "valid": 0.2, "test": 0.2}},
    "time, drawn validation rows": {"split": {"time": "time", "test": 0.2}},
    "drawn test rows": {"files": {"all": "all.parquet", "test_fraction": 0.3}},
}


@pytest.mark.parametrize("split", SPLITS)
def test_labels_of_held_out_rows_do_not_get_into_train_rows(log, split):
    """Which is so where no train row comes after a row of its user that is held out: a split by time, and one by the user."""
    changes = split_log(log, SPLITS[split]) | {"valid_fraction": 0.1}
    if split in ("time", "user"):
        assert any(histories_of(log.prepare(**changes)))
        return
    with pytest.raises(DataError, match=r"shows labels of validation and test rows .*`where` reads a label, and \d+ train rows .* Cut the"):
        log.prepare(**changes)
    assert any(histories_of(log.prepare(**changes | {"histories": [HISTORY]}))), "the items alone say nothing of a label"


def test_data_on_which_a_run_is_only_tested_may_be_split_in_any_way(log):
    encoding = log.prepare(**split_log(log, SPLITS["time"])).meta.encoding
    data = log.prepare(encoding=encoding, **split_log(log, SPLITS["drawn test rows"]))
    assert any(histories_of(data, "test"))
