"""Tables and encodings that an encoder, a report or a draft cannot use."""

from dcrnn_fast.data import Encoder, data_report, draft_schema
from dcrnn_fast.errors import DataError
from tests.data.inspect.test_data_report import packed, some, sound
from tests.refusals import refused, row, rows


def an_encoding_that_does_not_fit_its_fields(changes):
    whole = {
        "tasks": ["click"],
        "num_embeddings": {"city": 3},
        "dense": ["price"],
        "vocabulary": {"city": ["<oov>", "a", "b"], "price": []},
        "scaling": {"price": {"treatment": "log1p", "mean": 0.0, "std": 1.0}},
    }
    assert Encoder(**whole).columns == ("city", "price")
    Encoder(**whole | changes)


TABLE = [
    *rows("an encoding that does not fit its fields", an_encoding_that_does_not_fit_its_fields, DataError, cases=[
        ({"num_embeddings": {"city": 4}}, r"field 'city' has 4 ids, and its vocabulary is \['<oov>', 'a', 'b'\]"),
        ({"num_embeddings": {"town": 3}}, "field 'town' has 3 ids, and its vocabulary is None"),
        ({"num_embeddings": {"town": 1}}, "field 'town' has 1 ids, and its vocabulary is None"),
        ({"num_embeddings": {"city": 3, "price": 1}}, r"field 'price' has 1 ids, and its vocabulary is \[\]"),
        ({"scaling": {}}, "dense column 'price' has the scaling None"),
        ({"scaling": {"price": {"treatment": "log2", "mean": 0.0, "std": 1.0}}}, "dense column 'price' has the scaling .*log2"),
    ]),
    row("a folder that is neither packed nor a run 1",
        lambda tmp_path: Encoder.load(tmp_path),
        DataError, r"is neither a packed folder, which holds meta\.json, nor a run folder, which holds encoder\.json"),
    row("a folder that is neither packed nor a run 2", lambda: Encoder.load(5), TypeError, "path=5: expected a path"),
    row("an id outside its field and a wrong argument 1",
        lambda: data_report(packed(sound(ids=some(0) + 1))), DataError, "field 'city' holds the id 4 in its test rows, expected 0 to 3"),
    row("an id outside its field and a wrong argument 2",
        lambda: data_report("hillstrom"), TypeError, "data='hillstrom': expected a PackedDataset"),
    *rows("a table without a label or without rows",
        lambda rows, table: draft_schema([str(table.write("t.csv", "a,b", rows).folder / "t.csv")]), DataError, cases=[
        ([("x", 5), ("y", 7)], r"t\.csv has no column that holds 0 and 1 alone, .* a task such as \{name: click, column: event"),
        ([], r"t\.csv holds no rows; expected a header"),
    ]),
    *rows("a file that cannot be read",
        lambda name, content, tmp_path: ((tmp_path / name).write_bytes(content), draft_schema([str(tmp_path / name)])), DataError, cases=[
        ("t.parquet", b"no parquet at all", r"t\.parquet cannot be read: (?!.*read_parquet)"),
        ("t.csv", bytes(range(256)) * 10, r"t\.csv cannot be read: no delimiter and quote cut its lines into cells; write it as CSV"),
    ]),
    *rows("inputs that are no paths", lambda inputs: draft_schema(inputs), TypeError, cases=[
        (5, "inputs=5: expected a path, got int"), (None, "inputs=None: expected a path, got NoneType"),
        (b"t.csv", "inputs=b't.csv': expected a path, got bytes"), (["t.csv", 5], "inputs=5: expected a path, got int"),
    ]),
    *rows("tasks that are no list of different columns",
        lambda tasks, table: draft_schema([str(table.write("t.csv", "click,x", [(0, 1)]).folder / "t.csv")], tasks=tasks),
        DataError, cases=[
        ("click", "tasks='click': expected a list; put a single one in a list"), ([], r"tasks=\[\]: expected a list of different columns"),
        (["click", "click"], "expected a list of different columns"), (["order"], "has no column 'order', which `tasks` names"),
    ]),
    *rows("inputs without a path",
        lambda inputs: draft_schema(inputs), DataError, within="inputs={}: expected paths, patterns or folders", cases=[
        ([], r"\[\]"), ("", r"\[''\]"), (["t.csv", ""], r"\['t.csv', ''\]"),
    ]),
]  # fmt: skip

test_it_is_refused = refused(TABLE)
