"""A small funnel with a group, a weight, a dense column and unknown labels, and runs on it that take a second or two."""

import json
from itertools import cycle

import numpy as np

from dcrnn_fast.training import load_config, run
from dcrnn_fast.training.folder.checkpoint import load_checkpoint
from dcrnn_fast.training.folder.layout import RunFolder
from dcrnn_fast.training.folder.run_files import write_file
from dcrnn_fast.training.loop import trainer
from dcrnn_fast.training.ranks import ONE
from tests.tables import TableFolder

SCHEMA = {
    "name": "tiny",
    "files": {"all": "tiny.csv", "test_fraction": 0.3},
    "funnel": True,
    "tasks": [{"name": "click", "column": "clicked"}, {"name": "buy", "column": "bought"}],
    # Not in alphabetical order, and each of another size: offsets of a wrong order must not go unnoticed.
    "categorical": ["shape", "colour"],
    "numeric": [{"column": "size", "buckets": 8, "dense": "standardise"}],
    "group": "user",
    "weight": "importance",
}


def write_table(folder, *, rows=1500, seed=0, broken_funnel=False, **changes):
    """Write tiny.csv and tiny.yaml; returns the schema's path. ``changes`` replace keys of the schema."""
    rng = np.random.default_rng(seed)
    colour, shape, size = rng.integers(0, 9, rows), rng.integers(0, 5, rows), rng.normal(size=rows)
    click = rng.random(rows) < 1 / (1 + np.exp(-(0.5 * (colour - 4) + size * (shape - 2))))
    wanted = rng.random(rows) < 1 / (1 + np.exp(-(shape - 2 + 0.5 * size)))
    buy = wanted if broken_funnel else click & wanted
    unknown = rng.random(rows) < 0.05
    lines = [
        f"c{colour[row]},s{shape[row]},{size[row]:.4f},u{row % 40},{1 + row % 3},{click[row]:d},{'' if unknown[row] else int(buy[row])}"
        for row in range(rows)
    ]
    table = TableFolder(folder, **SCHEMA | changes)
    return table.write("tiny.csv", "colour,shape,size,user,importance,clicked,bought", lines).save()


def tiny_values(schema, **overrides):
    """Dotted settings of a run of 3 epochs of 8 steps, with dropout, a checkpoint every 3 steps, an evaluation an epoch and one thread.

    Without the first-order term it starts at the constant: so few steps are no better than logistic regression.
    """
    return {
        "data": str(schema),
        "threads": 1,
        "device": "cpu",
        "backend": "reference",
        "checkpoint_every": 3,
        "log_every": 2,
        "model.embedding_dim": 4,
        "model.tower_dims": [8],
        "model.dropout": 0.3,
        "model.first_order": False,
        "optimiser.batch_size": 128,
        "optimiser.epochs": 3,
        "optimiser.warmup_steps": 4,
        "optimiser.lr": 0.02,
        "early_stopping.every_steps": 10**9,
        "early_stopping.patience": 2,
    } | overrides


def tiny_config(schema, **overrides):
    """The :class:`RunConfig` of :func:`tiny_values`; a dot in a key is written as two underscores."""
    return load_config(None, tiny_values(schema, **{key.replace("__", "."): value for key, value in overrides.items()}))


def newest_checkpoint(folder):
    """The content of the newest checkpoint of a run."""
    return load_checkpoint(RunFolder(folder).newest_checkpoint())


def fake_validation(monkeypatch, aucs, log_losses=()):
    """Validation AUCs and log losses (one minus the AUC if not given) as given, one an epoch; before the first step 0.5 and 1.

    Returns a list that receives the split's name and the embeddings of each other evaluation.
    """
    log_losses = log_losses or [1 - auc for auc in aucs]
    asked, values, real = [], iter(zip(aucs, log_losses, strict=True)), trainer.evaluate_split

    def evaluate(model, split, meta, device, ranks=ONE, *, weighted=False, shifted=False, k=None, predictions=None):
        at_start = split.name == "valid" and not model.towers.head.private_weight.any()
        if not at_start:
            asked.append((split.name, model.features.embedding.weight.detach().clone()))
        if split.name != "valid":
            return real(model, split, meta, device, ranks, weighted=weighted, shifted=shifted, k=k)
        auc, log_loss = (0.5, 1.0) if at_start else next(values)
        entry = {"rows": 1, "positives": 1, "auc": auc, "log_loss": log_loss, "calibration": 1.0, "shifted_log_loss": log_loss}
        return {task: dict(entry) for task in meta.tasks}

    monkeypatch.setattr(trainer, "evaluate_split", evaluate)
    monkeypatch.setattr(run, "evaluate_split", evaluate)
    return asked


def files_below(folder):
    """Relative path -> bytes of every file below a folder."""
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def write_numbers(path, title, loss, history, kept, constants):
    """Takes the place of ``dcrnn_fast.training.run.write_curves``, whose drawing takes longer than all other work of a tiny run."""
    write_file(path, json.dumps([title, loss, history, kept, constants]).encode())


def with_splits(folder, splits, change, **options):
    """A table whose rows are of these splits in turn; ``change(split, click, buy)`` gives the labels that are written."""
    path = write_table(folder, files={"all": "tiny.csv", "split_column": "split"}, **options)
    header, *lines = (table := path.with_name("tiny.csv")).read_text().splitlines()
    written = [header + ",split"]
    for split, line in zip(cycle(splits), lines, strict=False):
        *cells, click, buy = line.split(",")
        written.append(",".join([*cells, *change(split, click, buy), split]))
    table.write_text("\n".join(written) + "\n")
    return path


def opposite(*turned):
    """The change of :func:`with_splits` after which a click in these splits says the opposite, and no buy is known."""
    return lambda split, click, buy: (str(int(click == "0")) if split in turned else click, "")
