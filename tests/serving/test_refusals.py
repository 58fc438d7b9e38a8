"""What a ranker, `score_files`, an export and an exported file do not take."""

import torch

import dcrnn_fast
from dcrnn_fast import Ranker
from dcrnn_fast.data import Encoder
from dcrnn_fast.errors import BackendUnavailable, ConfigError, DataError, ExportError
from dcrnn_fast.serving import export, load_exported, score_files
from dcrnn_fast.serving.export import export as exporting
from dcrnn_fast.serving.export import package
from dcrnn_fast.serving.export.archive import GRAPH
from tests.refusals import refused, row, rows
from tests.serving import test_score
from tests.serving.archives import rewritten, with_json
from tests.serving.test_export_refused import WEIGHTS, setting
from tests.serving.test_score import TABLE as ITEMS
from tests.serving.test_score import USER


def calling(name):
    return lambda about: about.__setitem__("operators", {name: "()"})


CELLS = [
    None, 7, [7], [["colour", 0, 1, 0.0]], [["colour", 9, 1, 0.0, 0.0, None, None]], [["colour", 0, -1, 0.0, 0.0, None, None]],
    [["colour", 0, 1, 1.5, 0.0, None, None]], [["colour", 0, 1, 0.0, "0", None, None]], [[None] * 7],
]  # fmt: skip
ABOUT, ENCODER = "extra/dcrnn_fast.json", "extra/encoder.json"


def the_comparison_finds_a_single_wrong_probability(value, shop):
    ranker = Ranker.load(shop / "run", device="cpu")

    def wrong(ids, dense):
        scores = ranker.predict_encoded(ids, dense)
        if len(ids) > 100:
            scores["buy"][77] = value
        return scores

    assert exporting.compare(ranker, ranker.predict_encoded, rows=300, seed=0) == 0
    exporting.compare(ranker, wrong, rows=300, seed=0)


def arguments_that_cannot_be_used(changes, ranker, table, tmp_path):
    table.to_parquet(tmp_path / "today.parquet")
    (tmp_path / "folder.csv").mkdir()
    given = {"inputs": [tmp_path / "today.parquet"], "output": "scores.parquet"} | changes
    score_files(ranker, output=tmp_path / given.pop("output"), **given)


TABLE = [
    *rows("the comparison finds a single wrong probability",
        the_comparison_finds_a_single_wrong_probability, ExportError, said="buy differs by", values=[
        float("nan"), 0.5,
    ]),
    row("portable code that could not run here is not compiled",
        lambda shop, tmp_path, monkeypatch: (monkeypatch.setattr(package, "_instructions", lambda: ["sse2"]),
            export(shop / "run", tmp_path / "shop.pt2", format="aoti", cpu="portable")),
        ConfigError, r"cpu='portable': .*must run here to be compared: this one lacks abm, avx.*use 'native'"),
    *rows("a file that does not fit is refused with the remedy",
        lambda changes, file, tmp_path: load_exported(rewritten(file, tmp_path / "other.pt2", changes)), ExportError, cases=[
        ({ABOUT: with_json(setting("format", 2))}, "has format 2, and dcrnn_fast .* reads format 1; export the run again"),
        ({ABOUT: with_json(setting("format", {}))}, "has format {}"),
        ({ABOUT: with_json(setting("kind", "tflite"))}, "not a file of"),
        ({ABOUT: with_json(setting("names", [1]))}, "not a file of"),
        ({ABOUT: with_json(setting("fields", [["shape"]]))}, "not a file of"),
        ({ABOUT: with_json(lambda about: about.update(fields=[["shape", 6]], cells=[]))}, "cannot load it"),
        ({ABOUT: with_json(setting("names", ["click", "other"]))}, "not a file of"),
        ({ABOUT: with_json(setting("names", ["click", "buy", "buy_given_shop"]))}, "not a file of"),
        ({ABOUT: with_json(calling("dcrnn_fast::cross_rnn"))}, "takes other arguments than here.*export the run again"),
        ({ABOUT: with_json(calling("elsewhere::cross"))}, "not registered here.*--backend reference"),
        ({ABOUT: with_json(calling("__class__::__init__"))}, "not registered here"),
        ({ABOUT: with_json(calling("aten::pow"))}, "not registered here"),
        ({ABOUT: with_json(setting("cpu", {"instructions": 5}))}, "not a file of"),
        ({ABOUT: with_json(setting("cpu", {"instructions": [5]}))}, "not a file of"),
        *(({ABOUT: with_json(setting(*one))}, "not a file of") for one in [("model", 5), ("model", None), ("calibrated", [])]),
        *(({ABOUT: with_json(setting("cells", cells))}, "is not a file of `dcrnn-fast export`") for cells in CELLS),
        ({ABOUT: lambda _: b"[]"}, "not a file of"),
        ({ABOUT: lambda _: b"\xff"}, "is damaged, or no file of"),
        ({ABOUT: lambda _: None}, "not a file of"),
        ({ENCODER: lambda content: content.replace(b"c1", b"c9", 1)}, "not a file of"),
        ({ENCODER: lambda _: None}, "not a file of"),
        ({GRAPH: lambda _: None}, "not a file of"),
        ({GRAPH: lambda _: b"{}"}, "not a file of"),
        ({WEIGHTS: lambda _: b"{}"}, "not a file of"),
    ]),
    *rows("arguments that cannot be used", arguments_that_cannot_be_used, ValueError, cases=[
        ({"output": "scores.json"}, r"expected the path of a \.parquet or \.csv file"),
        ({"output": "nowhere/scores.csv"}, "in a folder that exists"),
        ({"inputs": []}, "expected at least one file"),
        ({"inputs": ["absent.csv"]}, r"^the input file absent\.csv does not exist or cannot be read$"),
        ({"keys": ["user", "user"]}, "'user' is given twice"),
        ({"keys": ["click"]}, "'click' is given twice, or is the name of a score"),
        ({"keys": ["country"]}, "lacks the columns country that the run or a key uses"),
        ({"keys": "user"}, "keys: got 'user', expected a list"),
        ({"inputs": "today.parquet"}, "inputs: got 'today.parquet', expected a list"),
        ({"keys": None}, "keys: got None, expected a list"),
        ({"csv": ";"}, r"csv: got ';', expected a dcrnn_fast\.data\.schema\.files\.Csv"),
        ({"keys": [3]}, "keys: got 3, expected the name of a column"),
        ({"inputs": None}, "inputs: got None, expected a list"),
        ({"missing_values": "NULL"}, "missing_values: got 'NULL', expected a list"),
        ({"max_rejects": -1}, "max_rejects=-1: expected at least 0"),
        ({"output": "folder.csv"}, r"folder\.csv: expected the path of a \.parquet or \.csv file"),
    ]),
    row("a file that is named twice",
        lambda ranker, table, tmp_path: (table.to_parquet(tmp_path / "today.parquet"),
            score_files(ranker, [tmp_path, tmp_path / "today.parquet"], tmp_path.with_suffix(".csv"))),
        DataError, r"today\.parquet twice; name each file once"),
    row("a model and an encoder of other fields",
        lambda shop: Ranker(dcrnn_fast.DCRNN({"colour": 3}, num_dense=1), Encoder.load(shop / "run")), DataError, "do not fit"),
    *rows("a row of single cells that cannot be read", lambda cells, ranker: ranker.predict(cells), DataError, cases=[
        ({"colour": "c1", "shape": ["s0"], "size": [0.5]}, "column 'colour' is 'c1', expected a list"),
        ({"colour": "c1", "shape": "s0"}, "lacks the columns size, .*; it has (colour|shape), "),
        ({"colour": "c1", "shape": "s0", "size": "large"}, "row 1: column 'size' .* holds 'large'"),
    ]),
    row("a folder of no run", lambda tmp_path: Ranker.load(tmp_path), DataError, "not a run folder"),
    *rows("a user and items that do not fit", lambda user, items: test_score.made().score(user, items), DataError, cases=[
        ({"city": "Rome", "age": 31}, ITEMS, "items lacks the columns time"),
        ({**USER, "age": "old"}, ITEMS, "user: column 'age' .* holds 'old'"),
        ({**USER, "city": ["Rome", "Oslo"]}, ITEMS, "user: .*column 'city'"),
        (USER, {**ITEMS, "price": [1, 2, float("inf"), 3]}, "items, row 3: column 'price' holds an infinite value"),
        (USER, {**ITEMS, "price": [1]}, "items has columns of unequal length"),
        (USER, [1, 2], "items is of type list"),
        ({**USER, **{name: cells[0] for name, cells in ITEMS.items()}}, {}, "user has every column that is read"),
    ]),
    *rows("ids and dense values that an exported file does not take",
        lambda ids, dense, file: load_exported(file).predict_encoded(torch.tensor(ids), None if dense is None else torch.tensor(dense)),
        None, cases=[
        ([[0, 10, 0]], [[0.0]], IndexError, "field 'colour' .* has id 10"),
        ([[-1, 0, 0]], [[0.0]], IndexError, "field 'shape' .* has id -1"),
        ([[0, 0]], [[0.0]], ValueError, "ids: got shape"),
        ([[0.0, 0, 0]], [[0.0]], TypeError, "ids: got dtype"),
        ([[0, 0, 0]], None, ValueError, "dense: got None"),
        ([[0, 0, 0]], [[float("nan")]], ValueError, "holds NaN or infinity"),
    ]),
    *rows("arguments of an export that cannot be used",
        lambda changes, shop, tmp_path: export(**{"run": shop / "run", "output": tmp_path / "shop.pt2"} | changes), None, cases=[
        ({"output": "shop.bin"}, DataError, r"expected the path of a \.pt2 file"),
        ({"output": "nowhere/shop.pt2"}, DataError, "in a folder that exists"),
        ({"output": "shop.onnx"}, ConfigError, r"shop\.onnx', and format 'pt2' writes a \.pt2 file: give format='onnx' \(--format onnx\)"),
        ({"format": "tflite"}, ConfigError, "expected one of pt2, aoti, onnx"),
        ({"cpu": "avx2"}, ConfigError, "cpu='avx2': expected one of native, portable"),
        ({"cpu": "portable"}, ConfigError, "cpu='portable': it chooses the CPUs of format aoti"),
        ({"format": ["pt2"]}, ConfigError, "expected one of pt2, aoti"),
        ({"seed": -1}, ConfigError, "seed=-1: expected an integer from 0"),
        ({"rows": 0}, ConfigError, "rows=0: expected an integer from 1 to 10,000"),
        ({"run": "nowhere"}, DataError, "not a run folder"),
        ({"run": 3}, TypeError, "run=3: expected a path"),
        ({"backend": "cuda"}, BackendUnavailable, "backend='cuda' cannot be used"),
    ]),
    row("a missing column",
        lambda shop: Ranker.load(shop / "run").predict({"colour": ["c1"], "shape": ["s1"]}), DataError, "lacks the columns size"),
    row("a user that is no mapping", lambda: test_score.made().score(["Rome"], ITEMS),
        TypeError, "user: got list, expected a mapping"),
]  # fmt: skip

test_it_is_refused = refused(TABLE)
