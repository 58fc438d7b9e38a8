"""DCRNN under torch.compile and torch.export: one graph, any batch size, the same numbers, and no silent read of a stray id."""

import pytest
import torch

from dcrnn_fast import DCRNN

from .models import SIZES, batch


@pytest.fixture(autouse=True)
def _fresh_compiler():
    torch._dynamo.reset()


@pytest.mark.parametrize(("sharing", "relation"), [("rows", "chain"), ("trunk", "transfer")])
def test_a_whole_training_step_compiles_into_one_graph_with_a_dynamic_batch(sharing, relation):
    model = DCRNN(SIZES, embedding_dim=4, num_dense=2, sharing=sharing, relation=relation, steps=2)

    def loss(ids, dense, labels):
        return model.loss(model(ids, dense), labels)

    compiled = torch.compile(loss, fullgraph=True, dynamic=True)
    for rows in (5, 12):
        arguments = batch(rows, num_dense=2)
        expected, got = loss(*arguments), compiled(*arguments)
        torch.testing.assert_close(got, expected)
        parameters = {name: value for name, value in model.named_parameters() if value.requires_grad}
        gradients = (torch.autograd.grad(value, list(parameters.values())) for value in (got, expected))
        for name, a, b in zip(parameters, *gradients, strict=True):
            torch.testing.assert_close(a, b, msg=lambda text, name=name: f"gradient of {name}: {text}")


def test_a_stray_id_is_no_silent_read_in_a_compiled_model():
    """Id 11 of the second field is a row of the third in the merged table: the lookup must fail, not read it."""
    model = DCRNN(SIZES, embedding_dim=4, steps=1, tower_dims=(4,))
    compiled = torch.compile(model, fullgraph=True)
    ids = batch()[0]
    compiled(ids)
    ids[0, 1] = 11
    with pytest.raises((IndexError, RuntimeError), match="out of"):
        compiled(ids)


def test_an_exported_program_takes_any_batch_size():
    model = DCRNN(SIZES, embedding_dim=4, num_dense=2).eval()
    ids, dense, _ = batch(5, num_dense=2)
    rows = torch.export.Dim("rows")
    program = torch.export.export(model, (ids, dense), dynamic_shapes=({0: rows}, {0: rows}))
    ids, dense, _ = batch(17, num_dense=2)
    torch.testing.assert_close(program.module()(ids, dense), model(ids, dense))
