import pytest
import torch

import dcrnn_fast
from dcrnn_fast.training import train
from dcrnn_fast.training.config import OptimiserConfig
from dcrnn_fast.training.folder.weights import build_model, describe
from dcrnn_fast.training.loop.optim import build_optimiser, learning_rate
from dcrnn_fast.training.loop.state import EarlyStopping
from tests.training.runs import UNCERTAINTY
from tests.training.tiny import newest_checkpoint, tiny_config


@pytest.mark.parametrize(
    ("larger", "values", "best_step", "stops_at"),
    [
        (True, [0.5, 0.7, 0.6, 0.65, 0.9], 2, 4),
        (False, [0.5, 0.4, 0.4, 0.6], 2, 4),
        (True, [0.5, 0.6, 0.7], 3, None),
        (True, [0.5, 0.4, 0.6, 0.5, 0.4], 3, 5),
    ],
)
def test_early_stopping_keeps_the_best_evaluation_and_waits(larger, values, best_step, stops_at):
    stopping = EarlyStopping(larger, patience=2)
    stopped = None
    for step, value in enumerate(values, start=1):
        stopping.update(value, step)
        if stopping.should_stop:
            stopped = step
            break
    assert (stopping.best_step, stopped) == (best_step, stops_at)


def test_the_learning_rate_warms_up_then_falls_as_a_half_cosine_to_its_end():
    config = OptimiserConfig(lr=1.0, warmup_steps=10, final_lr_ratio=0.1)
    rates = [learning_rate(config, step, 110) for step in range(111)]
    assert rates[:10] == pytest.approx([(step + 1) / 10 for step in range(10)])
    assert rates[10] == 1.0
    assert rates[60] == pytest.approx(0.55)
    assert rates[110] == pytest.approx(0.1)
    assert rates[10:] == sorted(rates[10:], reverse=True)
    constant = OptimiserConfig(lr=0.5, warmup_steps=0, final_lr_ratio=1)
    assert {learning_rate(constant, step, 5) for step in range(5)} == {0.5}
    assert learning_rate(OptimiserConfig(lr=1.0, warmup_steps=100), 3, 4) == pytest.approx(0.04), "a run shorter than its warm-up"


def test_uncertainty_weighting_trains_its_log_variances(run_of):
    saved = newest_checkpoint(run_of(UNCERTAINTY).folder).tensors
    log_variance = saved["weighting.log_variance"]
    assert log_variance.shape == (2,)
    assert (log_variance != 0).all()
    assert log_variance[0] != log_variance[1]


def test_a_task_of_weight_zero_does_not_move_its_own_parameters(schema, tmp_path):
    common = {"model__relation": "independent", "model__share_ratio": 0.0, "optimiser__weight_decay": 0.0, "model__dropout": 0.0}
    train(tiny_config(schema, loss__task_weight=[1, 0], **common), tmp_path / "run")
    saved = newest_checkpoint(tmp_path / "run").tensors
    moved = saved["optimiser.model.cross.private_weight.exp_avg_sq"]
    assert moved[0].any()
    assert not moved[1].any()


def test_the_embeddings_have_a_learning_rate_and_a_decay_of_their_own(schema, dataset):
    options = {"optimiser__lr": 0.02, "optimiser__embedding_lr": 0.005, "optimiser__embedding_weight_decay": 0.7}
    config, cpu = tiny_config(schema, model__first_order=True, **options), torch.device("cpu")
    model = build_model(describe(config, dataset), device=cpu, backend="reference")
    groups = build_optimiser(config, torch.nn.ModuleDict({"model": model}), cpu).param_groups
    (own,) = [group for group in groups if any(parameter is model.features.embedding.weight for parameter in group["params"])]
    assert len(own["params"]) == 1
    assert (own["lr_scale"], own["weight_decay"]) == (0.25, 0.7)
    (first,) = [group for group in groups if any(parameter is model.features.first_order.table.weight for parameter in group["params"])]
    assert (first["lr_scale"], first["weight_decay"]) == (config.optimiser.first_order_lr / 0.02, 0.0)
    assert {group["lr_scale"] for group in groups if group is not own and group is not first} == {1.0}


def test_biases_and_log_variances_do_not_decay_and_everything_else_does(schema, dataset):
    config, cpu = tiny_config(schema, model__embedding="dense"), torch.device("cpu")
    model = build_model(describe(config, dataset), device=cpu, backend="reference")
    weighting = dcrnn_fast.UncertaintyWeighting(2)
    optimiser = build_optimiser(config, torch.nn.ModuleDict({"model": model, "weighting": weighting}), cpu)
    names = {id(parameter): name for module in (model, weighting) for name, parameter in module.named_parameters()}
    decays = {names[id(parameter)]: group["weight_decay"] for group in optimiser.param_groups for parameter in group["params"]}
    assert set(decays) == set(names.values())
    for name, decay in decays.items():
        exempt = name.endswith(("bias", "log_variance")) or name == "features.first_order.table.weight"
        assert decay == (0.0 if exempt else config.optimiser.weight_decay), name
