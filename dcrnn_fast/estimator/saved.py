"""What a fitted :class:`~dcrnn_fast.FunnelClassifier` keeps of its run: the files, the arguments that they say, and validation rows."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import yaml

from ..data import PackedMeta, PackedSplit
from ..data.packed.arrays import no_progress
from ..nn.model import DCRNN
from ..training.evaluate.evaluate import ROWS, OpenRun, importance_of
from ..training.folder.layout import RunFolder
from .arguments import names_of

OWN_KEYS = {"data", "init", "seed", "split_seed", "loss.sample_weight"}
"""The keys of a run's configuration that are no setting of an estimator."""


def files_of(run: Path, *, without: Path | None = None) -> dict[str, bytes]:
    """By path in a run folder the content of its files, but for those in a folder below it."""
    files = [file for file in run.rglob("*") if file.is_file() and (without is None or without not in file.parents)]
    return {str(file.relative_to(run)): file.read_bytes() for file in files}


def arguments_of(run: RunFolder, result: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """The schema of a saved run, and the arguments with which an estimator would train it again; ``result`` is what metrics.json holds."""
    schema: dict[str, Any] = yaml.safe_load(run.schema.read_text("utf-8")) if run.schema.is_file() else {}
    arguments = {key: schema.get(key) for key in ("group", "weight", "categorical", "numeric", "histories", "train_only")}
    arguments |= {"time": (schema.get("split") or {}).get("time"), "funnel": schema.get("funnel", False)}
    arguments |= {"tasks": names_of(schema.get("tasks", ())) or [name for name in result["valid"] if "_given_" not in name]}
    return schema, arguments | {"random_state": result["config"]["seed"], "config": _by_dotted_keys(result["config"])}


def _by_dotted_keys(config: Mapping[str, Any], before: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in config.items():
        if isinstance(value, Mapping) and key != "pretrained":
            found |= _by_dotted_keys(value, f"{before}{key}.")
        elif f"{before}{key}" not in OWN_KEYS:
            found[f"{before}{key}"] = value
    return found


def some_rows(split: PackedSplit) -> PackedSplit:
    """At most 20,000 rows of a split, in memory."""
    chosen = np.sort(np.random.default_rng(0).permutation(len(split))[:ROWS])
    ids, labels = np.array(split.ids[chosen]), np.array(split.labels[chosen])
    dense = None if split.dense is None else np.array(split.dense[chosen])
    return PackedSplit("valid", ids=ids, dense=dense, labels=labels, weight=None, group=None)


def falls_of(model: DCRNN, meta: PackedMeta, rows: PackedSplit) -> dict[str, dict[str, float]]:
    """By input and task the fall of the AUC when the input is shuffled among the rows, as `evaluate --importance` measures it."""
    dataset, device = SimpleNamespace(meta=meta, split=lambda name: rows), model.features.embedding.weight.device
    run = SimpleNamespace(dataset=dataset, config=SimpleNamespace(threads=None), model=model, device=device, progress=no_progress)
    return importance_of(cast(OpenRun, run), "valid")[0]
