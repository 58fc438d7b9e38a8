"""The fast model and the reference, compared in all that they give: initial weights, logits, gradients, losses, probabilities."""

import itertools

import torch
from torch import nn

from dcrnn_fast import DCRNN, UncertaintyWeighting, reference
from tests.nn.models import PLAIN, SIZES

SMALL = PLAIN | {"embedding_dim": 3, "num_dense": 2, "steps": 3, "tower_dims": (5, 4), "dtype": torch.float64}
SEVERAL = {"tag": 5, "tag[0]": 5, "tag[1]": 5, "user": 3, "last[0]": 4}
CONFIGURATIONS = {
    "binned numbers": {"dense_bins": 3},
    "no numbers": {"num_dense": 0},
    "numbers alone": {"num_embeddings": {}},
    "one tower layer": {"tower_dims": (4,)},
    "no tower": {"tower_dims": ()},
    "no first-order term": {"first_order": False},
    "sparse table": {"sparse": True, "embedding_init_std": 0.3},
    "shared embeddings": {"num_embeddings": {"last": 11, **SIZES}, "shared_embeddings": {"last": "item"}},
    "several values": {
        "num_embeddings": SEVERAL,
        "shared_embeddings": {"tag[0]": "tag", "tag[1]": "tag"},
        "pooled": {"tags": {"columns": ["tag[0]", "tag[1]"], "pooling": "mean"}, "lasts": {"columns": ["last[0]"], "pooling": "sum"}},
    },
    "a field of the first-order term alone": {"first_order_only": ["item"]},
    "funnel of sampled rows": {"negative_rate": 0.1},
}
CONFIGURATIONS |= {
    f"{relation} of {len(tasks)}": {"relation": relation, "tasks": tasks}
    for relation, tasks in itertools.product(("chain", "independent", "transfer"), (("click",), ("see", "click", "consume")))
}
CONFIGURATIONS |= {
    f"scenarios, {'tied' if tied else 'untied'}, rank {rank}, share {share}": {
        "sharing": "trunk", "scenario": "hour", "tied": tied, "rank": rank, "share_ratio": share
    }
    for tied, rank, share in ((True, None, 0.5), (False, 2, 0.5), (True, 2, 0), (False, None, 0.75))
}  # fmt: skip
CONFIGURATIONS |= {
    f"{sharing}, {cell}, {'tied' if tied else 'untied'}, share {share}": {
        "sharing": sharing,
        "cell": cell,
        "tied": tied,
        "share_ratio": share,
    }
    for sharing, cell, tied, share in itertools.product(("rows", "trunk"), ("gated", "cross"), (True, False), (0, 0.4, 1))
}
CONFIGURATIONS |= {
    f"{sharing}, rank 2, {cell}, {'tied' if tied else 'untied'}": {"sharing": sharing, "cell": cell, "tied": tied, "rank": 2}
    for sharing, (cell, tied) in itertools.product(("rows", "trunk"), (("gated", True), ("gated", False), ("cross", False)))
}  # fmt: skip


def built(model: type[nn.Module], negative_rate: float = 1.0, num_embeddings=SIZES, **options):
    """A model of a configuration, from a seed."""
    torch.manual_seed(0)
    found = model(num_embeddings, **{**SMALL, **options})
    found.negative_rate = negative_rate
    return found


def rows(model, number=40):
    """ids, dense, labels of a funnel some of which are unknown, and weights of rows."""
    ids = torch.stack([torch.zeros(number), *[torch.randint(0, size, (number,)) for size in model.num_embeddings]], dim=1).long()[:, 1:]
    dense = torch.randn(number, model.num_dense, dtype=torch.float64) if model.num_dense else None
    labels = torch.randint(0, 2, (number, len(model.tasks))).cumprod(dim=1).double()
    labels[: number // 4, -1] = torch.nan
    return ids, dense, labels, torch.rand(number)


def results(model, ids, dense, labels, weight):
    """All that a model gives for a batch, by name."""
    model.zero_grad()
    logits, tasks = model(ids, dense), len(model.tasks)
    losses = {
        "loss": model.loss(logits, labels),
        "loss by row": model.loss(logits, labels, sample_weight=weight),
        "loss by task": model.loss(logits, labels, task_weight=[1.5 + task for task in range(tasks)]),
        "loss by a module": model.loss(logits, labels, task_weight=UncertaintyWeighting(tasks).double()),
    }
    sum(losses.values()).backward()
    gradients = {f"gradient of {name}": value.grad for name, value in model.named_parameters() if value.requires_grad}
    gradients = {name: value.to_dense() if value is not None else torch.zeros(()) for name, value in gradients.items()}
    return {"logits": logits.detach(), **losses, **gradients, **model.predict(ids, dense)}


def same(found, expected):
    """Raise AssertionError, with the name, where two results differ."""
    assert list(found) == list(expected)
    for name, value in expected.items():
        tolerance = {"rtol": 1e-9, "atol": 1e-11} if value.dtype == torch.float64 else {"rtol": 1e-6, "atol": 1e-7}
        torch.testing.assert_close(found[name], value, **tolerance, msg=lambda text, name=name: f"{name}: {text}")


def compare(configuration):
    """Raise AssertionError unless the fast model and the reference agree in everything."""
    fast, plain, swapped = (built(model, **configuration) for model in (DCRNN, reference.DCRNN, DCRNN))
    shapes = [{name: value.shape for name, value in model.state_dict().items()} for model in (fast, plain)]
    assert shapes[0] == shapes[1]
    same(fast.state_dict(), plain.state_dict())
    for model in (fast, plain):
        torch.manual_seed(2)
        model.reset_parameters()
    same(fast.state_dict(), plain.state_dict())
    torch.manual_seed(1)
    with torch.no_grad():
        for value in (*fast.parameters(), *[buffer for buffer in fast.buffers() if buffer.is_floating_point()]):
            value.uniform_(-1, 1)
    plain.load_state_dict(fast.state_dict(), strict=True)
    swapped.load_state_dict(plain.state_dict(), strict=True)
    batch = rows(plain)
    same(results(swapped, *batch), results(plain, *batch))


def compare_dropout(rows=4000):
    """Raise AssertionError unless both drop as much: of one row that is repeated, logits vary by the masks alone."""
    fast, plain = (built(model, dropout=0.4, tower_dims=(16, 8), dtype=torch.float32) for model in (DCRNN, reference.DCRNN))
    ids, dense = torch.tensor([[3, 4, 1]]).expand(rows, -1), torch.tensor([[0.5, -1.0]]).expand(rows, -1)
    (mean, spread), (expected, deviation) = ((z.mean(dim=0), z.std(dim=0)) for z in (fast(ids, dense), plain(ids, dense)))
    assert (deviation > 0).all()
    assert ((mean - expected).abs() < 6 * deviation * (2 / rows) ** 0.5).all(), "means of the logits differ"
    assert ((spread / deviation - 1).abs() < 0.1).all(), "deviations of the logits differ"
    fast.eval(), plain.eval()
    same({"logits": fast(ids[:1], dense[:1])}, {"logits": plain(ids[:1], dense[:1])})
