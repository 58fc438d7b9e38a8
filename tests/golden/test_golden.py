"""What users hold on to is as it was. After a change that they are told of: ``python -m tests.golden.write``, and read the diff."""

import json
import shutil

import pytest
import torch

from dcrnn_fast import DCRNN, reference

from . import contents
from .write import FILES, GOLDEN, differences

golden = json.loads(GOLDEN.read_text())


def check(section, found):
    expected = golden[section]
    lines = differences({key: expected.get(key) for key in found} if section == "models" else expected, json.loads(json.dumps(found)))
    assert not lines, f"{section} differs from tests/golden/golden.json:\n" + "\n".join(lines[:40])


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    """A run and its export, of the version that wrote the golden files."""
    folder = tmp_path_factory.mktemp("golden")
    shutil.unpack_archive(FILES, folder)
    return folder


def test_names_and_signatures():
    check("names", contents.public_names())


@pytest.mark.parametrize("name", contents.MODELS)
def test_the_model(name):
    check("models", {name: contents.model_numbers(contents.make_model(DCRNN, name))})


@pytest.mark.parametrize("name", [name for name in contents.MODELS if name != "dropout"])  # each draws dropout's numbers in its own way
def test_the_reference_with_the_weights_of_the_model(name):
    model = contents.make_model(reference.DCRNN, name)
    model.load_state_dict(contents.make_model(DCRNN, name).state_dict())
    check("models", {name: contents.model_numbers(model)})


def test_layers_and_operators():
    check("layers", contents.layer_numbers())


def test_help_of_every_command():
    check("help", contents.help_pages())


def test_vectors_of_the_encoder():
    check("encoder", {"vectors": contents.encoder_vectors()})


def test_a_new_run(tmp_path):
    check("run", contents.run_layout(contents.train_run(tmp_path)))


def test_a_run_that_is_kept(kept):
    check("kept", contents.kept_scores(kept))


@pytest.mark.skipif(not torch.__version__.startswith("2.13."), reason="PyTorch loads the exports of its own version alone")
def test_an_exported_file_that_is_kept(kept):
    check("exported", contents.exported_scores(kept / "shop.pt2"))
