import pytest
import torch

from dcrnn_fast.errors import CheckpointError
from dcrnn_fast.training.folder.tensors import load_tensors, pack_tensors, read_safetensors


def test_tensors_of_another_shape_are_named_with_both_shapes_and_the_model_is_left_alone():
    module = torch.nn.Linear(3, 2)
    before = module.weight.detach().clone()
    with pytest.raises(CheckpointError) as caught:
        load_tensors(module, {"weight": torch.zeros(2, 4), "scale": torch.zeros(1)}, "model.safetensors")
    message = str(caught.value)
    assert message.startswith("model.safetensors belongs to another model: ")
    assert "bias is missing in the file" in message
    assert "scale is unknown to the model" in message
    assert "weight has shape [2, 4] in the file and [2, 3] in the model" in message
    assert torch.equal(module.weight, before)


def test_views_of_the_same_memory_are_packed_as_tensors_of_their_own(tmp_path):
    base = torch.arange(12.0).reshape(3, 4)
    views = {"whole": base, "again": base, "rows": base[1:], "columns": base[:, 1:3], "empty": base[:0]}
    (tmp_path / "views").write_bytes(pack_tensors(views))
    found, _ = read_safetensors(tmp_path / "views")
    assert {name: value.tolist() for name, value in found.items()} == {name: value.tolist() for name, value in views.items()}
