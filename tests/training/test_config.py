import re
from pathlib import Path

import pytest

from dcrnn_fast.errors import ConfigError
from dcrnn_fast.training.config import RunConfig, describe_differences, load_config

DOCS = Path(__file__).parents[2] / "docs" / "guide" / "configuration.md"


def write(tmp_path, text):
    path = tmp_path / "run.yaml"
    path.write_text(text)
    return path


def flat(values, prefix=""):
    for key, value in values.items():
        if isinstance(value, dict) and value:
            yield from flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def spelled(value):
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def allowed(dotted):
    """The values that a key of the configuration accepts, as the page says them, such as ``"number in [0, 1]"``."""
    schema = RunConfig.model_json_schema()
    node = schema
    for key in dotted.split("."):
        if key.isdigit():
            continue
        node = node.get("properties", {}).get(key) or node.get("additionalProperties")
        if "$ref" in node:
            node = schema["$defs"][node["$ref"].rsplit("/", 1)[1]]
    return in_words(node)


def in_words(node):
    if "anyOf" in node:
        return " or ".join(in_words(option) for option in node["anyOf"])
    if "const" in node:
        return str(node["const"])
    if "enum" in node:
        return "one of " + ", ".join(map(str, node["enum"]))
    if "pattern" in node:  # only that of paths
        return "text without a null character"
    if isinstance(node.get("additionalProperties"), dict):
        return f"a mapping of fields to {in_words(node['additionalProperties'])}"
    kind = {"null": "null", "object": "a section of keys", "string": "text", "boolean": "true or false"}.get(node["type"], node["type"])
    if node["type"] == "array":
        most = f"a list of at most {node['maxItems']}" if "maxItems" in node else "a list of"
        return f"{most}: {in_words(node['items'])}"
    low = next(((sign, node[name]) for name, sign in (("minimum", "["), ("exclusiveMinimum", "(")) if name in node), None)
    high = next(((node[name], sign) for name, sign in (("maximum", "]"), ("exclusiveMaximum", ")")) if name in node), None)
    if low and high:
        return f"{kind} in {low[0]}{low[1]:g}, {high[0]:.10g}{high[1]}"
    return f"{kind} {'>=' if low[0] == '[' else '>'} {low[1]:g}" if low else str(kind)


def test_a_configuration_survives_being_written_and_read(tmp_path):
    config = load_config(None, {"data": "hillstrom", "optimiser.lr": 1e-5, "model.tower_dims": [3, 2], "loss.task_weight": [1, 0.5]})
    assert load_config(write(tmp_path, config.to_yaml())) == config


def test_overrides_win_over_the_file_and_keep_its_other_keys(tmp_path):
    path = write(tmp_path, "data: hillstrom\nmodel:\noptimiser: {lr: 0.5, epochs: 2}\n")
    config = load_config(path, {"optimiser.lr": 0.25, "model.steps": 3})
    assert (config.data, config.optimiser.lr, config.optimiser.epochs, config.model.steps) == ("hillstrom", 0.25, 2, 3)
    with pytest.raises(ConfigError, match="seed is not a section"):
        load_config(None, {"data": "x", "seed": 1, "seed.more": 2})
    with pytest.raises(ConfigError, match=r"absent\.yaml: cannot be read"):
        load_config(tmp_path / "absent.yaml")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("data: x\nmodel: {share_ratio: 1.5}", "model.share_ratio is 1.5: Input should be less than or equal to 1"),
        ("data: x\nmodel: {share_ratio: .nan}", "model.share_ratio is nan: Input should be a finite number"),
        ("data: x\nmodel: {tower_dims: [8, 0]}", "model.tower_dims.1 is 0: Input should be greater than or equal to 1"),
        ("data: x\nmodel: {tower_dims: [8, 65537]}", "model.tower_dims.1 is 65537: Input should be less than or equal to 65536"),
        ("data: x\nmodel: {embedding_dim: 100000000}", "model.embedding_dim is 100000000: Input should be less than or equal to 4096"),
        ("data: x\nmodel: {embedding_init_std: -1}", "model.embedding_init_std is -1: Input should be greater than or equal to 0"),
        ("data: x\nmodel: {embedding_init_std: .inf}", "model.embedding_init_std is inf: Input should be a finite number"),
        ("data: x\nmodel: {relation: esmm}", "model.relation is 'esmm': Input should be 'chain', 'independent' or 'transfer'"),
        ("data: x\npretrained: {city: 3}", "pretrained.city is 3: Input should be a valid string"),
        ("data: x\npretrained: v.parquet", "pretrained is 'v.parquet': Input should be a valid dictionary"),
        ("data: x\nmodel: 3", "model is 3: Input should be a valid dictionary"),
        ("data: x\noov_dropout: often", "oov_dropout is 'often': Input should be a valid number"),
        ("data: x\noptimiser: {lr: 0}", "optimiser.lr is 0: Input should be greater than 0"),
        ("data: x\noptimiser: {lr: quick}", "optimiser.lr is 'quick': Input should be a valid number"),
        ("data: x\nthreads: 0", "threads is 0: Input should be greater than or equal to 1"),
        ("data: x\nloss: {task_weight: [1, -1]}", "loss.task_weight.1 is -1: Input should be greater than or equal to 0"),
        ("data: x\nmodel: {embeding_dim: 4}", "model.embeding_dim (value 4) is an unknown key; did you mean 'embedding_dim'?"),
        ("data: x\nzzz: 4", "zzz (value 4) is an unknown key; known keys: data, "),
        ("seed: 1", "data is missing"),
        ('data: "a\\0b"', "data is 'a\\x00b': String should match pattern"),
        ("[1, 2]", "holds list, expected `key: value` lines"),
        ("data: [x", "is not valid YAML"),
        ("data: !!python/object/apply:os.system [echo]", "is not valid YAML"),
    ],
)
def test_an_error_names_the_file_the_key_the_value_and_what_is_allowed(tmp_path, text, expected):
    path = write(tmp_path, text)
    with pytest.raises(ConfigError) as caught:
        load_config(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert expected in str(caught.value)


@pytest.mark.parametrize(
    ("one", "other", "said"),
    [
        ({"model.steps": 2}, {"model.steps": 3, "seed": 9}, "seed is 9 and was 0; model.steps is 3 and was 2"),
        ({}, {"pretrained.city": "v.parquet"}, "pretrained is {'city': 'v.parquet'} and was {}"),
    ],
)
def test_differing_keys_are_listed_with_both_values(one, other, said):
    assert describe_differences(*(load_config(None, {"data": "x"} | values) for values in (one, other))) == said


def test_the_documentation_lists_every_key_with_its_default_and_range():
    keys = DOCS.read_text(encoding="utf-8").partition("## Environment variables")[0]
    rows = dict(re.findall(r"^\| `([\w.]+)` \| (.+) \|$", keys, flags=re.MULTILINE))
    documented = {key: [cell.strip() for cell in row.split("|")][:2] for key, row in rows.items()}
    expected = {key: [f"`{spelled(value)}`", allowed(key)] for key, value in flat(RunConfig(data="required").to_dict())}
    expected["data"][0] = "required"
    assert documented == expected


@pytest.mark.parametrize(("rows", "size"), [(1, 32), (2047, 32), (4096, 64), (32_767, 256), (32_768, 512), (10**9, 512)])
def test_a_step_has_512_rows_or_so_few_that_an_epoch_has_64_steps(rows, size):
    assert load_config(None, {"data": "shop"}).optimiser.rows_a_step(rows) == size
    assert size == 32 or rows >= 64 * size
    assert load_config(None, {"data": "shop", "optimiser.batch_size": 7}).optimiser.rows_a_step(rows) == 7


@pytest.mark.parametrize(("steps", "epochs"), [(1, 20), (100, 20), (101, 20), (106, 19), (200, 10), (334, 6), (10**9, 6)])
def test_a_run_has_as_many_epochs_as_have_two_thousand_steps_but_6_to_20(steps, epochs):
    assert load_config(None, {"data": "shop"}).optimiser.epochs_of(steps) == epochs
    assert load_config(None, {"data": "shop", "optimiser.epochs": 3}).optimiser.epochs_of(steps) == 3
