"""What `evaluate`, `calibrate` and the file of a calibration do not take."""

import json

import numpy as np

from dcrnn_fast import DCRNN, Ranker
from dcrnn_fast.errors import CheckpointError, ConfigError, DataError
from dcrnn_fast.support.strict_json import json_digest
from dcrnn_fast.training import calibrate, evaluate, load_config
from dcrnn_fast.training.evaluate.predict import write_predictions
from tests.damage import edit_json
from tests.refusals import refused, row, rows
from tests.training.tiny import write_table


def a_sealed_calibration_that_does_not_fit(change, copied):
    calibrate(copied)
    path = copied / "calibration.json"
    values = json.loads(path.read_text())
    del values["digest"]
    change(values)
    path.write_text(json.dumps({**values, "digest": json_digest(values)}))
    Ranker.load(copied)


def a_rate_that_is_none(rate):
    DCRNN([9]).negative_rate = rate


TABLE = [
    *rows("a damaged calibration is refused with the remedy",
        lambda damage, copied: (calibrate(copied), damage(copied / "calibration.json"), Ranker.load(copied)),
        CheckpointError, within=r"calibration\.json {}.*; write it again with dcrnn-fast calibrate, or delete it", cases=[
        (lambda path: path.write_text("{"), "cannot be read"),
        (lambda path: path.write_text("[1]"), r"holds no calibration: the content is \[1\]"),
        (edit_json(lambda values: values["maps"]["click"].update(slope=9.0)), "was changed after it was written"),
    ]),
    *rows("a sealed calibration that does not fit", a_sealed_calibration_that_does_not_fit, CheckpointError, cases=[
        (lambda values: values.update(weights="0" * 64), "was fitted to other weights"),
        (lambda values: values["maps"].pop("click"), "has maps of buy_given_click, expected click, buy_given_click"),
        (lambda values: values["maps"]["click"].update(slope=-1.0), r"maps\.click\.platt\.slope is -1\.0"),
        (lambda values: values["maps"].update(click={"method": "magic"}), r"holds no calibration: maps\.click is"),
        (lambda values: values["maps"].update(click={"method": "isotonic", "rows": 1, "positives": 1, "knots": [0.0, 1.0],
            "calibrated": [1.0, 0.0]}),
         "calibrated logits that never fall"),
    ]),
    row("evaluating on data of other columns names what differs",
        lambda finished, tmp_path: evaluate(finished, data=str(write_table(tmp_path, categorical=["colour"]))),
        DataError, "was trained with fields"),
    *rows("a changed or missing encoder",
        lambda damage, copied, schema: (damage(copied / "encoder.json"), evaluate(copied, data=str(schema))),
        CheckpointError, within=r"encoder\.json {}", cases=[
        (edit_json(lambda encoder: encoder["scaling"]["size"].update(mean=0.5)), "was changed after it was written"),
        (lambda path: path.write_text("{"), "cannot be read"),
        (lambda path: path.write_text('{"a": NaN}'), "cannot be read"),
        (lambda path: path.unlink(), "cannot be read"),
    ]),
    *rows("a number of resamples that is none",
        lambda resamples, finished: evaluate(finished, bootstrap=resamples),
        ConfigError, said=r"bootstrap=.*: expected an integer of at least 100", values=[
        0, 99, 100.0, True,
    ]),
    *rows("a dump to no parquet file",
        lambda name, finished, tmp_path: evaluate(finished, predictions=tmp_path / name),
        DataError, said=r"expected the path of a \.parquet file in a folder that exists", values=[
        "valid.csv", "nowhere/valid.parquet",
    ]),
    row("a dump with two columns of one name",
        lambda tmp_path: write_predictions(tmp_path / "rows.parquet", {"a": np.zeros(1, np.float32), "a_label": np.zeros(1, np.float32)},
            np.zeros((1, 2), np.float32), ("a", "a_label")),
        DataError, "a_label is both a prediction and the label of the task a"),
    *rows("a rate that is none", a_rate_that_is_none, None, said=r"expected a number in \(0, 1\]", cases=[
        (0, ValueError),
        (1.5, ValueError),
        (float("nan"), ValueError),
        ("0.1", TypeError),
        (True, TypeError),
    ]),
    *rows("a configured rate outside its range",
        lambda rate: load_config(None, {"data": "hillstrom", "negative_rate": rate}),
        ConfigError, said=r"negative_rate is .*: Input should be ", values=[
        0, -0.1, 1.5, "a tenth",
    ]),
    *rows("what is no field is refused with the fields",
        lambda by, finished: evaluate(finished, by=by),
        ConfigError, said=r"by=.*: expected a .*field.* of tiny: shape, colour, size", values=[
        ["color"], [3], "colour", 3, ["importance"], [["colour"]],
    ]),
]  # fmt: skip

test_it_is_refused = refused(TABLE)
