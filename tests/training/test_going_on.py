"""What a run that goes on takes over beside the weights: what the optimisers know, and what is known of each id."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from dcrnn_fast.errors import CheckpointError
from dcrnn_fast.training import load_model, train
from dcrnn_fast.training.data import prepare_data
from dcrnn_fast.training.folder.checkpoint import KNOWN_KEY, READS
from dcrnn_fast.training.folder.layout import RunFolder
from dcrnn_fast.training.folder.tensors import write_sealed
from dcrnn_fast.training.loop.start import OOVDropout
from tests.damage import truncate
from tests.training.runs import Notes, StoppedError, stop_at
from tests.training.tiny import newest_checkpoint, opposite, tiny_config, with_splits, write_table

SUMS = "model.features.embedding.weight.sum"


@pytest.fixture(scope="module")
def sparse(tmp_path_factory):
    """A schema, and a finished run on it with sparse embeddings. Do not write into it."""
    folder = tmp_path_factory.mktemp("sparse")
    schema = write_table(folder / "data", rows=3000)
    train(config_of(schema), folder / "run")
    return schema, folder / "run"


@pytest.fixture
def earlier(sparse, tmp_path):
    """A copy of the run that may be damaged."""
    return shutil.copytree(sparse[1], tmp_path / "earlier")


def config_of(schema, **changes):
    return tiny_config(
        schema,
        **{"model__embedding": "sparse", "model__first_order": True, "optimiser__epochs": None, "optimiser__batch_size": 64} | changes,
    )


def known(folder):
    return load_file(RunFolder(folder).optimiser)


def went_on(schema, earlier, folder, **changes):
    notes = Notes()
    return train(config_of(schema, **changes), folder, init=earlier, report=notes), notes.lines


def test_reads_steps_and_sums_add_up_over_runs(sparse, tmp_path):
    schema, first = sparse
    found, _ = went_on(schema, first, tmp_path / "run")
    before, after = known(first), known(tmp_path / "run")
    ids, sizes = prepare_data(config_of(schema)).split("train").ids, [size for _, size in load_model(first)[1]["fields"]]
    held = np.concatenate([np.bincount(column, minlength=size) for column, size in zip(ids.T, sizes, strict=True)])
    assert before[READS].tolist() == held.tolist(), "how often the train rows hold each id"
    assert torch.equal(after[READS], 2 * before[READS])
    assert (after[SUMS] >= before[SUMS]).all()
    assert after[SUMS].sum() > before[SUMS].sum()
    steps, before = (json.loads(metadata_of(RunFolder(run).optimiser)[KNOWN_KEY])["about"]["steps"] for run in (tmp_path / "run", first))
    assert steps == before + found["train"]["steps"]


def metadata_of(path):
    with safe_open(path, framework="pt") as file:
        return file.metadata()


def test_a_new_id_starts_without_anything_known(sparse, tmp_path):
    schema = write_table(tmp_path / "data", seed=1)
    table = schema.with_name("tiny.csv")
    table.write_text(table.read_text().replace("c3,", "violet,"))
    with pytest.raises(StoppedError):
        train(config_of(schema), tmp_path / "run", init=sparse[1], report=stop_at(3))
    before, tensors = known(sparse[1])[READS], newest_checkpoint(tmp_path / "run").tensors
    reads = tensors[f"before.{READS}"]
    violet = load_model(sparse[1])[1]["fields"][0][1] + load_model(sparse[1])[1]["fields"][1][1]
    assert reads[violet] == 0
    assert torch.equal(torch.cat([reads[:violet], reads[violet + 1 :]]), before)


def test_going_on_with_the_same_rows_changes_little(sparse, tmp_path):
    schema, first = sparse
    went_on(schema, first, tmp_path / "run")
    rows = prepare_data(config_of(schema)).split("test")
    ids, dense = torch.from_numpy(np.array(rows.ids)).long(), torch.from_numpy(np.array(rows.dense))
    one, other = (load_model(run)[0].predict(ids, dense)["click"] for run in (first, tmp_path / "run"))
    assert float((one - other).abs().mean()) < 0.03
    assert float(torch.corrcoef(torch.stack([one, other]))[0, 1]) > 0.98


def changed(path):
    tensors, metadata = load_file(path), metadata_of(path)
    tensors[READS][1] += 1
    save_file(tensors, path, metadata)


def of_another_version(path):
    known, about = load_file(path), json.loads(metadata_of(path)[KNOWN_KEY])["about"]
    write_sealed(path, known, about | {"format": 1}, KNOWN_KEY)


def of_other_weights(path):
    known, about = load_file(path), json.loads(metadata_of(path)[KNOWN_KEY])["about"]
    write_sealed(path, known, about | {"weights": "0" * 64}, KNOWN_KEY)


def without_metadata(path):
    save_file(load_file(path), path)


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (Path.unlink, r"optimiser.safetensors does not exist; train that run with --resume, which writes it, or restore it"),
        (of_other_weights, "belongs to other weights than the run's; train that run with --resume"),
        (truncate, "is damaged or no safetensors file"),
        (changed, "was changed after it was written"),
        (of_another_version, "has format 1, this version reads format 2; train that run with --resume"),
        (without_metadata, "is not a file of optimisers; train that run with --resume"),
    ],
)
def test_a_file_that_is_missing_damaged_or_another_runs_is_refused(sparse, earlier, tmp_path, damage, said):
    damage(RunFolder(earlier).optimiser)
    with pytest.raises(CheckpointError, match=said):
        went_on(sparse[0], earlier, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_ids_that_are_known_from_before_are_not_dropped_as_rare_ones(sparse):
    """OOV dropout counts the rows of all runs."""
    schema, first = sparse
    dataset, device = prepare_data(config_of(schema)), torch.device("cpu")
    new, further = OOVDropout(dataset, 5.0, device), OOVDropout(dataset, 5.0, device, known(first)[READS])
    seen = new.probability > 0
    assert (further.probability[seen] < new.probability[seen]).all()


def test_effects_go_back_if_the_validation_rows_are_clearly_worse_off(sparse, tmp_path):
    schema = with_splits(tmp_path / "data", ("valid", "train", "test"), opposite("train", "test"))
    found, lines = went_on(schema, sparse[1], tmp_path / "run")
    assert found["train"]["best_step"] == 0
    assert [line for line in lines if "these are kept" in line]
    before, after = (load_model(run)[0].features.first_order.table.weight for run in (sparse[1], tmp_path / "run"))
    torch.testing.assert_close(after, before)
