"""What `evaluate`, `calibrate` and the file of a calibration do not take."""

import hashlib
import json
import shutil

import numpy as np
import pandas as pd

from dcrnn_fast import DCRNN, Ranker
from dcrnn_fast.data import prepare_folder
from dcrnn_fast.errors import CheckpointError, ConfigError, DataError
from dcrnn_fast.support.strict_json import json_digest
from dcrnn_fast.training import calibrate, compare, evaluate, load_config, train, write_report
from dcrnn_fast.training.evaluate.predict import write_predictions
from dcrnn_fast.training.folder.tensors import canonical_json
from dcrnn_fast.training.folder.weights import export_weights, read_weights
from tests.damage import edit_json
from tests.refusals import refused, row, rows
from tests.training.tiny import tiny_config, write_table


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


def without_weights(finished, tmp_path):
    shutil.copy(finished / "config.yaml", tmp_path)
    evaluate(tmp_path)


def a_table_without_a_schema(schema, tmp_path):
    prepare_folder(schema, tmp_path / "packed")
    (tmp_path / "packed" / "schema.yaml").unlink()
    train(tiny_config(tmp_path / "packed", optimiser__epochs=1), tmp_path / "run")
    evaluate(tmp_path / "run", data=schema.parent / "tiny.csv")


def a_sealed_encoder_of_wrong_types(copied, schema):
    weights = copied / "model.safetensors"
    (copied / "encoder.json").write_text('{"vocabulary": {"shape": 3}, "scaling": {}}')
    tensors, about, _ = read_weights(weights)
    digest = hashlib.sha256(canonical_json(json.loads((copied / "encoder.json").read_text()))).hexdigest()
    export_weights(weights, tensors, about | {"encoding": digest})
    evaluate(copied, data=str(schema))


TABLE = [
    *rows("a damaged calibration is refused with the remedy",
        lambda damage, copied: (calibrate(copied), damage(copied / "calibration.json"), Ranker.load(copied)),
        CheckpointError, within=r"calibration\.json {}.*; write it again with dcrnn-fast calibrate, or delete it", cases=[
        (lambda path: path.write_text("{"), "cannot be read"),
        (lambda path: path.write_text("[1]"), r"cannot be read \(it holds \[1\]\)"),
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
    row("a folder without a run", lambda tmp_path: evaluate(tmp_path), CheckpointError, "holds no run"),
    row("a folder without weights", without_weights, CheckpointError, r"model\.safetensors does not exist"),
    row("a table that is not there",
        lambda finished: evaluate(finished, data="none.csv"), DataError, r"data: there is no file .*none\.csv"),
    row("a table without rows", lambda finished, schema: evaluate(finished, data=pd.read_csv(schema.parent / "tiny.csv")[:0]),
        DataError, "^data has no rows; give a table of rows with their labels$"),
    row("a table without a schema",
        a_table_without_a_schema, DataError, "data is a table, which the schema of .*run is to read: .* is a folder"),
    row("a sealed encoder of wrong types", a_sealed_encoder_of_wrong_types,
        CheckpointError, r"encoder\.json: encoding: vocabulary is {'shape': 3}, expected a list of texts"),
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
    *rows("runs to compare", lambda runs: compare(runs), ConfigError, cases=[
        (["one"], "runs: got 1, expected at least 2 run folders; `evaluate` is for one"),
    ]),
    *rows("a report", lambda runs, output, tmp_path: write_report(runs, tmp_path / output), None, cases=[
        ("runs/a", "report.html", ConfigError, "expected a sequence of run folders"),
        ([], "report.html", ConfigError, "expected at least 1 run folders"),
        (["one"], "report.pdf", DataError, r"output .*expected the path of a \.html file"),
    ]),
    *rows("no number of ranks", lambda k, finished: evaluate(finished, k=k),
        ConfigError, said="k=.*expected an integer of at least 1", values=[0, -1, 2.0, True, "10"]),
    *rows("what is no field is refused with the fields",
        lambda by, finished: evaluate(finished, by=by),
        ConfigError, said=r"by=.*: expected a .*field.* of tiny: shape, colour, size", values=[
        ["color"], [3], "colour", 3, ["importance"], [["colour"]],
    ]),
]  # fmt: skip

test_it_is_refused = refused(TABLE)
