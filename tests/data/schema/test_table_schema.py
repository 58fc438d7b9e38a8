"""A schema YAML says what it means or is refused with the place and the remedy."""

from __future__ import annotations

from pathlib import Path

import pytest

from dcrnn_fast.data.schema.table import load_schema
from dcrnn_fast.errors import DataError


def refusal(table, **changes):
    with pytest.raises(DataError) as caught:
        load_schema(table.save(**changes))
    assert "shop.yaml" in str(caught.value)
    return str(caught.value)


def test_an_unknown_key_is_named_with_the_known_ones(table):
    message = refusal(table, catagorical=["city"])
    assert "'catagorical'" in message
    assert "categorical" in message.replace("catagorical", "")


def test_an_unknown_nested_key_is_named_with_its_place(table):
    message = refusal(table, numeric=[{"column": "price", "bukets": 4}])
    assert "numeric.0" in message
    assert "'bukets'" in message
    assert "buckets" in message


def test_a_column_name_that_yaml_reads_as_a_number_must_be_quoted(table):
    path = table.save()
    path.write_text(path.read_text().replace("- city", "- 109_14"))
    with pytest.raises(DataError, match="got 10914: put it in quotes"):
        load_schema(path)


def test_a_bare_column_name_is_short_for_a_mapping(table):
    schema = load_schema(table.save(categorical=["city", {"column": "shop", "min_count": 7}]))
    assert [(c.column, c.min_count) for c in schema.categorical] == [("city", None), ("shop", 7)]


def task(**rule):
    return {"tasks": [{"name": "click", "column": "click", **rule}]}


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"categorical": ["city", "click"]}, "'click' is a label"),
        ({"weight": "city"}, "'city' is the weight"),
        ({"files": {"all": "train.csv", "split_column": "city"}}, "'city' is the split column"),
        ({"files": {"train": "train.csv"}}, "`train` and `test`"),
        ({"files": {"all": "t.csv"}}, "`split_column`"),
        ({"files": {"all": "t.csv", "split_column": "s", "test_fraction": 0.3}}, "`split_column` and `test_fraction` exclude each other"),
        ({"files": {"all": "t.csv", "train": "train.csv", "test_fraction": 0.3}}, "exclude each other"),
        ({"files": {"train": "a.csv", "test": "b.csv", "test_fraction": 0.3}}, "belong to files given as `all`"),
        ({"files": {"all": "t.csv", "test_fraction": 1.0}}, "less than 1"),
        ({"numeric": [{"column": "price"}]}, "needs `buckets`, `dense` or both"),
        ({"categorical": ["price"]}, "field named twice: price"),
        ({"categorical": [], "numeric": [{"column": "price", "dense": "log1p"}]}, "no field"),
        (task(positive="1", threshold=1), "`positive` and `threshold` exclude each other"),
        (task(positive=0.5), "put it in quotes"),
        ({"funnel": True}, "at least two tasks"),
        ({"name": "My Shop"}, "name: got 'My Shop', expected lower-case letters, digits and . _ -, a letter or digit first"),
        ({"tasks": [{"name": "1st", "column": "click"}]}, "tasks.0.name: got '1st', expected letters, digits and _, a letter first"),
        ({"min_count": 0}, "min_count: got 0: input should be greater than or equal to 1"),
        ({"csv": {"decimal": ";"}}, "csv.decimal: got ';', expected a point or a comma"),
    ],
)
def test_a_schema_that_contradicts_itself_is_refused_with_the_reason(table, changes, reason):
    assert reason in refusal(table, **changes)


def test_the_suggested_relation_follows_the_funnel_unless_stated(table):
    tasks = [{"name": "click", "column": "click"}, {"name": "buy", "column": "click"}]
    assert load_schema(table.save()).suggested_relation == "independent"
    assert load_schema(table.save(tasks=tasks, funnel=True)).suggested_relation == "chain"
    assert load_schema(table.save(tasks=tasks, funnel=True, relation="transfer")).suggested_relation == "transfer"


@pytest.mark.parametrize("content", ["a: [1", "- a list\n", "", "a: !!python/object/apply:os.getcwd []\n"])
def test_what_is_no_plain_yaml_mapping_is_refused(tmp_path, content):
    path = tmp_path / "broken.yaml"
    path.write_text(content)
    with pytest.raises(DataError, match=r"broken\.yaml"):
        load_schema(path)


def test_the_documented_example_is_a_valid_schema(tmp_path):
    page = (Path(__file__).resolve().parents[3] / "docs" / "guide" / "schema.md").read_text()
    example = tmp_path / "example.yaml"
    example.write_text(page.split("```yaml\n")[1].split("```")[0])
    schema = load_schema(example)
    assert [task.name for task in schema.tasks] == ["click", "long_view", "order"]
    assert schema.missing_values == ("", "NA")
