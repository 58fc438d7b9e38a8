"""A schema YAML says what it means or is refused with the place and the remedy."""

from pathlib import Path

import pytest

from dcrnn_fast.data.schema.table import load_schema
from dcrnn_fast.errors import DataError


def test_a_column_name_that_yaml_reads_as_a_number_must_be_quoted(table):
    path = table.save()
    path.write_text(path.read_text().replace("- city", "- 109_14"))
    with pytest.raises(DataError, match="got 10914: put it in quotes"):
        load_schema(path)
    path.write_text(path.read_text().replace("109_14", "'109_14'"))
    assert [column.column for column in load_schema(path).categorical] == ["109_14"]


def test_a_bare_column_name_and_no_relation_mean_the_usual(table):
    schema = load_schema(table.save(categorical=["city", {"column": "shop", "min_count": 7}]))
    assert [(c.column, c.min_count) for c in schema.categorical] == [("city", None), ("shop", 7)]
    funnel = {"tasks": [{"name": "click", "column": "click"}, {"name": "buy", "column": "click"}], "funnel": True}
    for changes, relation in (({}, "independent"), (funnel, "chain"), (funnel | {"relation": "transfer"}, "transfer")):
        assert load_schema(table.save(**changes)).suggested_relation == relation


def test_the_documented_example_is_a_valid_schema(tmp_path):
    page = (Path(__file__).resolve().parents[3] / "docs" / "guide" / "schema.md").read_text()
    example = tmp_path / "example.yaml"
    example.write_text(page.split("```yaml\n")[1].split("```")[0])
    schema = load_schema(example)
    assert [task.name for task in schema.tasks] == ["click", "long_view", "order"]
    assert schema.missing_values == ("", "NA")
