"""What users hold on to, as JSON values. Public paths alone are imported: an older version can write what a newer one is tested by."""

import contextlib
import hashlib
import importlib
import inspect
import io
import json
import math
import os
import re
from importlib.util import find_spec
from pathlib import Path
from unittest import mock

import safetensors.torch
import torch
import yaml

import dcrnn_fast
from dcrnn_fast import DCRNN, SharingPlan, cli, functional, reference
from dcrnn_fast.serving import load_exported
from dcrnn_fast.training import evaluate, load_config, train

MODULES = ("dcrnn_fast", "dcrnn_fast.reference", "dcrnn_fast.data", "dcrnn_fast.training", "dcrnn_fast.serving")
INSIDE = {
    "features", "dense_features", "scenarios_of", "logits_of", "cross_rnn", "param_gather", "operands", "extra_repr", "no_rows",
    "encode_pieces", "computed_digest", "first_columns",
}  # fmt: skip
"""Methods that one part of the package has for another: no page and no example names them, so they are no promise."""


def public_names():
    """``__all__`` of the public modules, and the signature of each name in them."""
    modules = {name: importlib.import_module(name) for name in MODULES}
    names = {module: {name: _interface(getattr(one, name)) for name in sorted(one.__all__)} for module, one in modules.items()}
    names["dcrnn_fast.functional"] = {name: _interface(getattr(functional, name)) for name in ("cross_rnn", "param_gather")}
    errors = inspect.getmembers(importlib.import_module("dcrnn_fast.errors"), inspect.isclass)
    names["dcrnn_fast.errors"] = {name: _interface(one) for name, one in errors}
    torchrec = Path(find_spec("dcrnn_fast.torchrec").origin).read_text()  # importing it needs torchrec
    return names | {"dcrnn_fast.torchrec": sorted(re.findall(r'"(\w+)"', torchrec.partition("__all__ = ")[2]))}


def _interface(one):
    """Of a function, its parameters and defaults without annotations; of a class also its own public methods and properties."""
    if inspect.ismodule(one) or isinstance(one, property):
        return type(one).__name__
    if inspect.isclass(one) and issubclass(one, Exception):
        return [base.__name__ for base in one.__mro__[1:-1]]
    signature = inspect.signature(one)
    parameters = [parameter.replace(annotation=inspect.Parameter.empty) for parameter in signature.parameters.values()]
    text = str(signature.replace(parameters=parameters, return_annotation=inspect.Signature.empty))
    text = re.sub(r"<function .*? at 0x\w+>", "<function>", text)
    if not inspect.isclass(one):
        return text
    owned = {name for owner in one.__mro__ if owner.__module__.startswith("dcrnn_fast") for name in vars(owner)}
    members = {name: getattr(one, name) for name in sorted(owned.difference(INSIDE)) if not name.startswith("_") and hasattr(one, name)}
    kept = {name: _interface(member) for name, member in members.items() if isinstance(member, property) or inspect.isroutine(member)}
    return {"signature": text, "members": kept}


FIELDS = {"user": 7, "item": 11, "hour": 4, "last_item": 11, "tag[0]": 5, "tag[1]": 5}
FUNNEL = ("see", "click", "buy")
TAGS = {"columns": ["tag[0]", "tag[1]"], "pooling": "mean"}
POOLED = {"pooled": {"tag": TAGS}, "shared_embeddings": {"tag[1]": "tag[0]"}}
MODELS = {
    "default start": {"embedding_init_std": 0.05},
    "gated rows": {},
    "cross untied": {"cell": "cross", "tied": False, "share_ratio": 0.25},
    "low rank": {"rank": 3},
    "low rank untied cross": {"rank": 2, "tied": False, "cell": "cross"},
    "trunk": {"sharing": "trunk", "steps": 2, "tasks": FUNNEL},
    "trunk low rank": {"sharing": "trunk", "rank": 3, "share_ratio": 0.75},
    "scenarios": {"sharing": "trunk", "scenario": "hour"},
    "scenarios low rank": {"sharing": "trunk", "scenario": "hour", "rank": 3, "tied": False},
    "shared embeddings": {"shared_embeddings": {"last_item": "item"}},
    "pooled mean": POOLED,
    "pooled sum": POOLED | {"pooled": {"tag": TAGS | {"pooling": "sum"}}},
    "dense projected": {"num_dense": 2, "steps": 1},
    "dense bins": {"num_dense": 2, "dense_bins": 3},
    "dense alone": {"num_embeddings": [], "num_dense": 2, "dense_bins": 3, "share_ratio": 1.0},
    "transfer": {"relation": "transfer", "tasks": FUNNEL},
    "independent": {"relation": "independent", "share_ratio": 0.0},
    "one task without towers": {"tasks": ("click",), "tower_dims": ()},
    "sparse": {"sparse": True},
    "float64": {"dtype": torch.float64},
    "dropout": {"dropout": 0.4},
    "all at once": {
        "sharing": "trunk", "scenario": "hour", "rank": 3, "share_ratio": 0.4, "steps": 2,
        "num_dense": 2, "dense_bins": 3, "tasks": FUNNEL, **POOLED,
    },
}  # fmt: skip


BUILT = {
    "num_embeddings": FIELDS, "embedding_dim": 3, "embedding_init_std": 1.0, "dense_bins": 0, "steps": 3, "rank": None,
    "tower_dims": (6, 4), "dropout": 0.0,
}  # fmt: skip


def make_model(cls, name):
    """A model from a fixed seed; its embeddings start large and its first-order term is not 0, so that no term is lost beside another."""
    torch.manual_seed(0)
    model = cls(**BUILT | MODELS[name])
    with torch.no_grad():
        for one in model.features.first_order.parameters():
            one.copy_(torch.arange(one.numel()).cos().reshape(one.shape))
    return model


def model_numbers(model):
    """Keys and shapes of the state_dict; logits, loss, gradients and predictions of one batch."""
    fields = list(enumerate(model.num_embeddings))
    ids = torch.tensor([[(row * 3 + field) % size for field, size in fields] for row in range(8)], dtype=torch.int64)
    dense = torch.stack([torch.linspace(-2.5, 1.5, 8), torch.linspace(1, -1, 8)], dim=1) if model.num_dense else None
    labels = torch.tensor([[row >= 2 * task for task in range(len(model.tasks))] for row in range(8)]).to(
        model.towers.head.shared_weight.dtype
    )
    labels[7, -1] = float("nan")
    torch.manual_seed(1)  # of dropout
    logits = model(ids, dense)
    loss = model.loss(logits, labels, sample_weight=torch.linspace(0.5, 2, 8).to(labels.dtype))
    loss.backward()
    model.eval().negative_rate = 0.5 if model.relation == "chain" else 1.0
    return {
        "state": {key: list(value.shape) for key, value in model.state_dict().items()},
        "logits": logits.tolist(),
        "loss": loss.item(),
        "gradients": {name: numbers(one.grad) for name, one in model.named_parameters()},
        "predictions": {name: one.tolist() for name, one in model.predict(ids, dense).items()},
    }


def numbers(tensor):
    """The norm of a tensor, and a sum that knows the places of its values; None of the gradient that an empty bank lacks."""
    if tensor is None:
        return None
    flat = (tensor.to_dense() if tensor.is_sparse else tensor).detach().double().flatten()
    return [flat.norm().item(), (flat * torch.arange(len(flat)).cos()).sum().item()]


def layer_numbers():
    """Of each public layer, its keys, output, parameters and gradients; of each operator, its output."""
    plan = SharingPlan.from_ratio("rows", 2, 6, 0.5, steps=2)
    scenarios = SharingPlan.from_ratio("trunk", 2, 8, 0.5, num_scenarios=2, scenario_ratio=0.25, rank=3)
    x = torch.linspace(-1, 1, 24).reshape(4, 6)
    layers = {
        "CrossRNN": (lambda: dcrnn_fast.CrossRNN(plan, recompute=True), x),
        "ScenarioCrossRNN": (lambda: dcrnn_fast.ScenarioCrossRNN(scenarios), x.reshape(3, 8), torch.tensor([0, 2, 1])),
        "DCNv2": (lambda: dcrnn_fast.DCNv2(6, 2), x),
        "GDCN": (lambda: dcrnn_fast.GDCN(6, 2, rank=2), x),
        "PiecewiseLinearEmbedding": (lambda: reference.PiecewiseLinearEmbedding(6, 3, 4), x),
        "UncertaintyWeighting": (lambda: dcrnn_fast.UncertaintyWeighting(3), torch.tensor([0.3, 0.5, 2.0])),
    }
    found = {}
    for name, (make, *inputs) in layers.items():
        torch.manual_seed(0)
        layer = make()
        output = layer(*inputs)
        output.square().sum().backward()
        parameters = {key: [list(one.shape), numbers(one), numbers(one.grad)] for key, one in layer.named_parameters()}
        found[name] = {"state": sorted(layer.state_dict()), "output": numbers(output), "parameters": parameters}
    shapes = (1, 4, 2, 9), (1, 4, 2), (2, 1, 2, 2, 9), (2, 1, 2, 2)
    weights = [torch.linspace(-1, 1, math.prod(shape)).cos().reshape(shape) for shape in shapes]
    index = torch.tensor([[0, 1, 2, 3, 4, 5], [5, 4, 3, 2, 1, 0]], dtype=torch.int32)
    states = functional.cross_rnn(x, *weights, steps=3, context=torch.linspace(0, 1, 36).reshape(3, 4, 3), return_states=True)
    rows = functional.param_gather(weights[1][0], weights[3][:, 0], index)
    return found | {"cross_rnn": numbers(states), "param_gather": numbers(rows)}


def help_pages():
    """What ``--help`` prints, of the program and of each command: a line for each option, however wide the terminal is."""
    page = _help()
    first = page.index("Commands:") + 1
    commands = [line.split()[0] for line in page[first:]]  # what follows is cut off, and is in the command's own page
    return {"": page[:first] + commands} | {name: _help(name) for name in commands}


def _help(*command):
    environment = mock.patch.dict(os.environ, COLUMNS="160", TERM="dumb", NO_COLOR="1")
    with environment, contextlib.redirect_stdout(io.StringIO()) as output, contextlib.suppress(SystemExit):
        cli.main([*command, "--help"])
    joined = re.sub(r"\n {8,}", " ", output.getvalue())  # an option's text goes on below itself
    return [" ".join(line.split()) for line in joined.splitlines() if line.strip()]


def encoder_vectors():
    """The digest of the vectors that every encoder must reproduce, in whatever language it is written."""
    return hashlib.sha256(next(Path(__file__).parents[1].rglob("encoder_vectors.json")).read_bytes()).hexdigest()


SCHEMA = {
    "name": "shop", "files": {"all": "shop.csv", "test_fraction": 0.3}, "funnel": True, "group": "user",
    "tasks": [{"name": "click", "column": "clicked"}, {"name": "buy", "column": "bought"}],
    "categorical": ["shape", "colour"], "numeric": [{"column": "size", "buckets": 4, "dense": "standardise"}],
}  # fmt: skip
SETTINGS = {
    "threads": 1, "device": "cpu", "backend": "reference", "precision": "float32", "log_every": 2, "model.embedding_dim": 2,
    "model.embedding_init_std": 0.5, "model.tower_dims": [4], "model.rank": 2, "model.dense_bins": 2, "model.dropout": 0.1,
    "optimiser.batch_size": 64, "optimiser.epochs": 4, "optimiser.warmup_steps": 2, "optimiser.lr": 0.05, "optimiser.weight_decay": 0.0,
}  # fmt: skip
ROWS = {"colour": ["c1", "c4", "unseen"], "shape": ["s0", None, "s1"], "size": [0.5, -1.25, None]}


def train_run(folder):
    """Train on a small table in which nothing is random, shop.csv; returns the run's folder."""
    lines = ["colour,shape,size,user,clicked,bought"]
    for row in range(240):
        colour, shape, size = (row * 7 + row // 5) % 5, row * row % 3, row * 37 % 101 / 50 - 1
        click = colour + size * 2 + row % 7 / 3 > 2.5
        buy = click and shape + row % 5 / 2 > 1
        lines.append(f"c{colour},s{shape},{size:.2f},u{row % 12},{click:d},{'' if row % 17 == 0 else int(buy)}")
    (folder / "shop.csv").write_text("\n".join(lines) + "\n")
    (folder / "shop.yaml").write_text(yaml.safe_dump(SCHEMA))
    train(load_config(None, SETTINGS | {"data": str(folder / "shop.yaml")}), folder / "run")
    return folder / "run"


def run_layout(run):
    """Names of a run's files, keys and types in its JSON and YAML, names and shapes of its tensors, and the measures on its test rows."""
    files = {re.sub(r"tfevents.*", "tfevents", path.relative_to(run).as_posix()): path for path in sorted(run.rglob("*")) if path.is_file()}
    found = {"test": json.loads((run / "metrics.json").read_text())["test"]}
    for name, path in files.items():
        if path.suffix in (".json", ".yaml"):
            found[name] = _types(yaml.safe_load(path.read_text()))
        elif path.suffix == ".safetensors":
            found[name] = {key: list(one.shape) for key, one in sorted(safetensors.torch.load_file(path).items())}
        else:
            found[name] = None
    return found


def _types(value):
    """A value with the names of types in place of numbers and text; of a list, its first item."""
    if isinstance(value, dict):
        return {key: _types(one) for key, one in value.items()}
    if isinstance(value, list):
        return [_types(one) for one in value[:1]]
    return "number" if type(value) in (int, float) else type(value).__name__


def kept_scores(folder):
    """What the run that is kept scores. ``folder`` holds it beside its table."""
    scores = dcrnn_fast.Ranker.load(folder / "run").predict(ROWS)
    test = evaluate(folder / "run", data=str(folder / "shop.yaml"))["metrics"]
    return {"scores": {name: one.tolist() for name, one in scores.items()}, "test": test}


def exported_scores(path):
    """What an exported file says of itself, but for versions, and what it scores."""
    ranker = load_exported(path)
    about = {key: value for key, value in ranker.about.items() if key not in ("torch", "dcrnn_fast")}
    return {"about": about, "scores": {name: one.tolist() for name, one in ranker.predict(ROWS).items()}}


def contents(folder):
    """All of it. ``folder`` holds the files that are kept, in ``kept``, and an empty folder ``new``."""
    return {
        "names": public_names(),
        "models": {name: model_numbers(make_model(DCRNN, name)) for name in MODELS},
        "layers": layer_numbers(),
        "help": help_pages(),
        "encoder": {"vectors": encoder_vectors()},
        "run": run_layout(train_run(folder / "new")),
        "kept": kept_scores(folder / "kept"),
        "exported": exported_scores(folder / "kept" / "shop.pt2"),
    }
