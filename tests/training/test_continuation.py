"""A run that starts from an earlier run's weights and vocabulary, on the rows of another day."""

import json
import re
import shutil

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from dcrnn_fast.errors import CheckpointError, ConfigError, DataError
from dcrnn_fast.training import calibrate, evaluate, load_model, train
from dcrnn_fast.training.data import prepare_data
from dcrnn_fast.training.folder.layout import RunFolder
from dcrnn_fast.training.init import continued_data, read_earlier
from tests.training.runs import Notes, StoppedError, outcome, stop_at
from tests.training.tiny import newest_checkpoint, tiny_config, write_table


def config_of(schema, **changes):
    return tiny_config(schema, **{"model__first_order": True} | changes)


@pytest.fixture(scope="module")
def tomorrow(tmp_path_factory):
    """The schema of another day's rows, on which the colour c3 has given way to violet."""
    path = write_table(tmp_path_factory.mktemp("tomorrow"), seed=1)
    table = path.with_name("tiny.csv")
    table.write_text(re.sub("^c3,", "violet,", table.read_text(), flags=re.MULTILINE))
    return path


@pytest.fixture(scope="module")
def finished(schema, tmp_path_factory):
    """The folder of a finished run with the first-order term. Do not write into it."""
    folder = tmp_path_factory.mktemp("runs") / "finished"
    train(config_of(schema), folder)
    return folder


@pytest.fixture(scope="module")
def continued(finished, tomorrow, tmp_path_factory):
    """A finished run from the weights of ``finished``, its results and what it said. Do not write into it."""
    folder, notes = tmp_path_factory.mktemp("runs") / "continued", Notes()
    return folder, train(config_of(tomorrow), folder, init=finished, report=notes), notes.lines


@pytest.fixture
def yesterday(finished, tmp_path):
    """A copy of ``finished`` that can be taken away."""
    return shutil.copytree(finished, tmp_path / "yesterday")


def stopped(schema, folder, step, *, init, report=None, **changes):
    with pytest.raises(StoppedError):
        train(config_of(schema, **changes), folder, init=init, report=stop_at(step, report))


def test_old_ids_keep_their_numbers_and_new_ones_follow(finished, continued):
    old, new = (json.loads((folder / "encoder.json").read_text()) for folder in (finished, continued[0]))
    assert new["vocabulary"]["colour"] == [*old["vocabulary"]["colour"], "violet"]
    assert new["vocabulary"]["shape"] == old["vocabulary"]["shape"]
    assert (new["vocabulary"]["size"], new["scaling"]) == (old["vocabulary"]["size"], old["scaling"])


@pytest.mark.parametrize(("min_count", "new"), [(10, ["violet"]), (100, [])])
def test_the_new_days_own_min_count_admits_new_ids(finished, tmp_path, min_count, new):
    path = write_table(tmp_path / "data", seed=1, min_count=min_count)
    table = path.with_name("tiny.csv")
    table.write_text(re.sub("^c3,", "violet,", table.read_text(), count=60, flags=re.MULTILINE))
    meta = continued_data(config_of(path), read_earlier(finished)).meta
    old = json.loads((finished / "encoder.json").read_text())["vocabulary"]["colour"]
    assert meta.vocabulary["colour"] == old + new


def test_a_run_starts_from_the_earlier_weights_and_new_ids_start_afresh(yesterday, tomorrow, tmp_path):
    stopped(tomorrow, tmp_path / "run", 1, init=yesterday, seed=1)
    earlier, about = load_model(yesterday / "model.safetensors")
    start = {name.removeprefix("model."): value for name, value in newest_checkpoint(tmp_path / "run").tensors.items()}
    for name, value in earlier.state_dict().items():
        if name not in ("features.embedding.weight", "features.first_order.table.weight"):
            assert torch.equal(start[name], value), name
    sizes = dict(about["fields"])
    assert list(sizes) == ["shape", "colour", "size"]
    end = sizes["shape"] + sizes["colour"]
    table, old = start["features.embedding.weight"], earlier.features.embedding.weight
    assert torch.equal(torch.cat([table[:end], table[end + 1 :]]), old)
    first = start["features.first_order.table.weight"]
    assert torch.equal(torch.cat([first[:end], first[end + 1 :]]), earlier.features.first_order.table.weight)
    assert not first[end].any()
    assert 0 < table[end].abs().max() < 0.5
    assert not (old == table[end]).all(dim=1).any()


def test_new_ids_start_from_the_vectors_of_a_file_and_old_ones_go_on(finished, tomorrow, tmp_path):
    vectors = pa.table({"colour": ["violet", "c1"], "vector": [[1.0, 2.0, 3.0, 4.0]] * 2})
    pq.write_table(vectors, tmp_path / "v.parquet")
    stopped(tomorrow, tmp_path / "run", 1, init=finished, pretrained__colour=str(tmp_path / "v.parquet"))
    earlier, about = load_model(finished / "model.safetensors")
    table = newest_checkpoint(tmp_path / "run").tensors["model.features.embedding.weight"]
    end = sum(size for name, size in about["fields"] if name != "size")
    assert table[end].tolist() == [1, 2, 3, 4]
    assert torch.equal(torch.cat([table[:end], table[end + 1 :]]), earlier.features.embedding.weight)


def test_the_earlier_weights_are_judged_on_the_new_rows_and_drift_is_told(finished, continued, tomorrow):
    drift, rows = continued[1]["init"], prepare_data(config_of(tomorrow)).split("train")
    for split in ("train", "test"):
        assert drift["metrics"][split] == evaluate(finished, data=str(tomorrow), split=split)["metrics"]
    about = load_model(finished / "model.safetensors")[1]
    assert drift["base_rates"]["click"] == {"earlier": about["base_rates"]["click"], "now": float((rows.labels[:, 0] == 1).mean())}
    own = prepare_data(config_of(tomorrow)).meta.vocabulary["colour"].index("violet")
    violet = float(np.mean(rows.ids[:, 1] == own))
    assert violet > 0.05
    assert drift["oov"]["colour"] == {"earlier": 0.0, "now": violet, "with_new_ids": 0.0, "new_ids": 1}
    assert drift["oov"]["shape"]["new_ids"] == 0
    assert "size" not in drift["oov"]
    assert f"colour: {violet:.1%} of the rows out of vocabulary, was 0.0%" in "\n".join(continued[2])


@pytest.mark.parametrize(
    ("cell", "said"),
    [
        ("colour 1,", "warning: field 'colour': 100.0% of the new train cells"),
        (",", "field 'colour': 100.0% of the new train cells are out of vocabulary or missing, but 0.0% of the train cells"),
    ],
    ids=["another spelling", "missing"],
)
def test_a_field_that_no_longer_says_anything_is_warned_of(finished, tmp_path, cell, said):
    path = write_table(tmp_path / "data", seed=1)
    table = path.with_name("tiny.csv")
    table.write_text(re.sub("^c[0-9]+,", cell, table.read_text(), flags=re.MULTILINE))
    notes = Notes()
    stopped(path, tmp_path / "run", 1, init=finished, report=notes)
    assert [line for line in notes.lines if said in line]


@pytest.mark.parametrize("step", [1, 5])
def test_a_stopped_run_goes_on_to_the_same_bits_without_the_earlier_one(continued, yesterday, tomorrow, tmp_path, step):
    stopped(tomorrow, tmp_path / "run", step, init=yesterday)
    shutil.rmtree(yesterday)
    train(config_of(tomorrow), tmp_path / "run", init=yesterday, resume=True)
    assert without_names(outcome(tmp_path / "run"), yesterday) == without_names(outcome(continued[0]), continued[1]["init"]["run"])


def without_names(files, init):
    """An outcome in which the earlier run's folder has no name."""
    files["metrics.json"] = json.dumps(files["metrics.json"]).encode()
    return {name: data.replace(str(init).encode(), b"") for name, data in files.items()}


@pytest.mark.parametrize("lost", [["checkpoints", "encoder.json"], ["encoder.json"]], ids=["killed at once", "lost encoder"])
def test_what_a_run_lacks_is_made_again_from_the_earlier_one(continued, finished, tomorrow, tmp_path, lost):
    run = tmp_path / "run"
    if "checkpoints" in lost:
        stopped(tomorrow, run, 1, init=finished)
        shutil.rmtree(run / "checkpoints")
    else:
        shutil.copytree(continued[0], run)
    (run / "encoder.json").unlink()
    train(config_of(tomorrow), run, init=finished, resume=True)
    assert outcome(run) == outcome(continued[0])


def test_a_continued_run_is_evaluated_and_continued_in_its_turn(continued, schema, tmp_path):
    folder, metrics, _ = continued
    assert evaluate(folder)["metrics"] == metrics["test"]
    train(config_of(schema, optimiser__epochs=1), tmp_path / "third", init=folder)
    vocabulary = json.loads((tmp_path / "third" / "encoder.json").read_text())["vocabulary"]
    assert vocabulary == json.loads((folder / "encoder.json").read_text())["vocabulary"]


FIELDS = "was trained with fields ['shape', 'colour', 'size'], but tiny has ['colour', 'size']"


@pytest.mark.parametrize(
    ("error", "changes", "columns", "said"),
    [
        (ConfigError, {"model__steps": 3}, {}, "model.steps is 3 and was 2; go on with its model"),
        (ConfigError, {"model__relation": "independent"}, {}, "model.relation is 'independent' and was 'chain'"),
        (DataError, {}, {"categorical": ["colour"]}, FIELDS),
        (DataError, {}, {"numeric": [{"column": "size", "buckets": 8}]}, "was trained with dense ['size'], but tiny has []"),
    ],
)
def test_another_model_and_other_columns_are_refused(finished, tmp_path, error, changes, columns, said):
    config = config_of(write_table(tmp_path / "data", **columns), **changes)
    with pytest.raises(error) as caught:
        train(config, tmp_path / "run", init=finished)
    assert said in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_another_number_of_hash_buckets_is_refused(tmp_path):
    tables = [write_table(tmp_path / f"{n}", categorical=["shape", {"column": "colour", "hash_buckets": n}]) for n in (50, 60)]
    train(config_of(tables[0], optimiser__epochs=1), tmp_path / "run")
    with pytest.raises(DataError, match="was trained with 50 hash_buckets of 'colour', but tiny has 60"):
        train(config_of(tables[1]), tmp_path / "next", init=tmp_path / "run")


def test_it_says_that_a_calibration_does_not_go_on(yesterday, tomorrow, tmp_path):
    calibrate(yesterday)
    notes = Notes()
    train(config_of(tomorrow, optimiser__epochs=1), tmp_path / "run", init=yesterday, report=notes)
    assert f"note: {yesterday} is calibrated, and this run is not; calibrate it when it has ended" in notes.lines


def test_init_needs_a_run_and_packed_data_in_its_encoding(finished, schema, tomorrow, tmp_path):
    with pytest.raises(CheckpointError, match="absent holds no run"):
        train(config_of(schema), tmp_path / "run", init=tmp_path / "absent")
    with pytest.raises(DataError, match=r"dataset is not encoded as the run .* was, with new ids behind its own"):
        train(config_of(schema), tmp_path / "run", init=finished, dataset=prepare_data(config_of(tomorrow)))
    assert not (tmp_path / "run").exists()


def test_the_command_takes_the_settings_of_the_earlier_run(finished, tomorrow, tmp_path, command):
    arguments = ["train", "--init", finished, "--output", tmp_path / "run"]
    assert command(*arguments)[0] == 2
    code, out, err = command(*arguments, "--data", tomorrow, "--epochs", 1)
    assert code == 0, err
    assert f"starting from the weights of {finished}; " in err
    assert re.findall("^tiny, .*?(?= *$)", out, flags=re.MULTILINE) == ["tiny, test rows, before training", "tiny, test rows"]
    config = RunFolder(tmp_path / "run").config.read_text()
    assert f"init: {finished}" in config
    assert "batch_size: 128" in config
