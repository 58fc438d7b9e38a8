"""A whole model under the transforms of torch.func: a model that computes by kernels gives what the reference gives."""

import pytest
import torch
from torch.func import functional_call, grad, jvp, stack_module_state, vmap

from dcrnn_fast import DCRNN, BackendUnavailable, backends, reference

from .models import SIZES, batch

OPTIONS = {"embedding_dim": 4, "num_dense": 2, "tower_share_ratio": 0.5}


def models(number: int = 1):
    """Models on ``auto``, and the reference with the same weights."""
    fast = [DCRNN(SIZES, **OPTIONS) for _ in range(number)]
    plain = [reference.DCRNN(SIZES, **OPTIONS) for _ in range(number)]
    for source, target in zip(fast, plain, strict=True):
        target.load_state_dict(source.state_dict())
    return fast, plain


def loss_of(model, ids, dense, labels):
    return lambda state: model.loss(functional_call(model, state, (ids, dense)), labels)


def test_the_directional_derivative_of_a_model_is_that_of_the_reference():
    (fast,), (plain,) = models()
    ids, dense, labels = batch(num_dense=2)
    state = {name: value.detach() for name, value in fast.named_parameters()}
    direction = {name: torch.randn_like(value) for name, value in state.items()}
    found, expected = (jvp(loss_of(model, ids, dense, labels), (state,), (direction,))[1] for model in (fast, plain))
    assert expected.abs() > 0.01
    torch.testing.assert_close(found, expected)


def test_a_models_gradients_of_each_sample_are_those_of_the_sample_alone():
    (fast,), (plain,) = models()
    ids, dense, labels = batch(rows=3, num_dense=2)
    state = {name: value.detach() for name, value in fast.named_parameters()}

    def sample_loss(state, ids, dense, labels):
        return loss_of(fast, ids[None], dense[None], labels[None])(state)

    found = vmap(grad(sample_loss), in_dims=(None, 0, 0, 0))(state, ids, dense, labels)
    for i in range(3):
        plain.zero_grad()
        plain.loss(plain(ids[i : i + 1], dense[i : i + 1]), labels[i : i + 1]).backward()
        for name, parameter in plain.named_parameters():
            if not parameter.numel():
                continue
            torch.testing.assert_close(found[name][i], parameter.grad, msg=lambda text, at=(i, name): f"{at}: {text}")


def test_an_ensemble_predicts_what_each_model_predicts():
    fast, _ = models(3)
    ids, dense, _ = batch(num_dense=2)
    parameters, buffers = stack_module_state(fast)
    found = vmap(lambda p, b: functional_call(fast[0], (p, b), (ids, dense)))(parameters, buffers)
    torch.testing.assert_close(found, torch.stack([model(ids, dense) for model in fast]))


@pytest.mark.skipif(backends.REASONS["cpp"] is not None, reason="the backend cpp cannot run here")
def test_a_model_on_a_kernel_refuses_forward_mode():
    model = DCRNN(SIZES, **OPTIONS, backend="cpp")
    ids, dense, labels = batch(num_dense=2)
    state = {name: value.detach() for name, value in model.named_parameters()}
    with pytest.raises(BackendUnavailable, match=r"no forward-mode derivatives .* backend='reference'"):
        jvp(loss_of(model, ids, dense, labels), (state,), (state,))
