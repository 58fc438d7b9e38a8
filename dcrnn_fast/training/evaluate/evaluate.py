"""A run that exists, opened with its best weights and data, and its metrics: :func:`evaluate`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
import torch
from torch import nn

from ...data import PackedDataset, PackedMeta, PackedSplit
from ...data.inspect.base_rates import event_labels
from ...data.packed.arrays import Progress, no_progress
from ...errors import ConfigError, DataError, shown
from ...nn.model import DCRNN
from ...support.files import output_path, path_of, writing_output
from ..config import RunConfig
from ..data import check_same_columns, data_to_evaluate, evaluation_warnings
from ..device import deterministic, select_device
from ..folder.layout import RunFolder, stored_config
from ..folder.weights import load_sealed
from .calibration_file import read_calibration
from .metrics import FEWEST, Array, bootstrap_intervals, quantiles, resampled, unsampled_rates, with_constant
from .plots import reliability_plot
from .predict import finite_predictions, metrics_of, write_predictions
from .ranking import K, check_k, ranking_intervals
from .segments import check_fields, metrics_by

ROWS = 20_000
"""Rows, drawn from the split, on which the importance of inputs is measured."""


def evaluate(
    run: str | Path,
    *,
    data: Any = None,
    split: str = "test",
    device: str | None = None,
    backend: str | None = None,
    as_served: bool = False,
    bootstrap: int | None = None,
    k: int = K,
    predictions: str | Path | None = None,
    plot: str | Path | None = None,
    by: Sequence[str] = (),
    importance: bool = False,
    progress: Progress = no_progress,
) -> dict[str, Any]:
    """Metrics of a run's best weights.

    Args:
        run: the run folder.
        data: name or schema of other data with the same columns; by default the run's own. Or a table with its labels, a DataFrame, an
            Arrow table or the path of a .parquet or .csv file: its rows are the test rows, which results call "given", and the schema of
            the run's data reads them. It is encoded as the run's data was, so ids and dense values mean what they meant in training. Or
            what :func:`dcrnn_fast.data.prepare` made, encoded so already.
        split: ``train``, ``valid`` or ``test``.
        device: replaces the run's device.
        backend: replaces the run's backend.
        as_served: evaluate the probabilities that :class:`dcrnn_fast.Ranker` gives: calibrated, if the run is, and corrected by its
            ``negative_rate``, for rows from which none were left out, with fields that are known in training alone read as it reads them.
            Otherwise evaluate the model's own on rows sampled like the run's.
        bootstrap: resample the rows this often, at least 100 times, for 95% intervals of AUC, log loss and calibration, and the groups for
            those of GAUC, NDCG, MRR and hit rate: in the metrics ``intervals``, by name, each with its low and high end.
        k: the ranks that NDCG and the hit rate look at, where the data has a group.
        predictions: a .parquet file to write: the predictions of the split's rows, in their order, and the labels (``{task}_label``).
        plot: a .svg file to write: each task's reliability plot, see :func:`dcrnn_fast.training.evaluate.plots.reliability_plot`.
        by: fields of the data, such as ``["colour"]``, for the metrics of the rows with each of their values; with ``bootstrap`` these
            have intervals too.
        importance: also measure by how much each task's AUC falls when one input is shuffled among the rows, or among 20,000 of them.
        progress: called with what is done, how much of it, and how much there is, or None if that is not known.

    Returns:
        ``{"data": name, "split": split, "metrics": {task: {...}}, "warnings": [...]}``; docs/guide/metrics.md defines the metrics.
        The warnings name fields that the run's encoding reads on these rows far less than on its training rows, and labels that say
        little. With ``by`` also ``"by"``: what :func:`dcrnn_fast.training.evaluate.segments.metrics_by` returns. With ``importance``
        also ``"importance"``: by input a dict of the falls by task; and ``"importance_intervals"``: likewise their 95% intervals.

    Raises:
        DcrnnFastError: one of the classes of :mod:`dcrnn_fast.errors`; the message says what to change.

    Example::

        evaluate("runs/census", split="valid")["metrics"]["income"]["auc"]
    """
    if bootstrap is not None and (isinstance(bootstrap, bool) or not isinstance(bootstrap, int) or bootstrap < FEWEST):
        raise ConfigError(f"bootstrap={shown(bootstrap)}: expected an integer of at least {FEWEST}, the number of resamples")
    table = None if predictions is None else output_path("predictions", predictions, ".parquet")
    check_k(k)
    figure = None if plot is None else output_path("plot", plot, ".svg")
    opened = open_run(run, data=data, split=split, device=device, backend=backend, progress=progress)
    about, meta, rows = opened.about, opened.dataset.meta, opened.dataset.split(split)
    fields = check_fields(by, meta)
    predicted, rates = predictions_of(opened, split, as_served=as_served)
    metrics = metrics_of(predicted, rows, meta, weighted=opened.config.loss.sample_weight, k=k)
    labels = np.asarray(rows.labels)
    events = event_labels(labels, meta.tasks, funnel=meta.funnel)
    if bootstrap is not None:
        for name, entry in metrics.items():
            entry["intervals"] = bootstrap_intervals(events[name], predicted[name], bootstrap, progress=progress)
            entry["intervals"] |= ranking_intervals(events[name], predicted[name], rows.group, k, bootstrap)
    if table is not None:
        write_predictions(table, predicted, labels, meta.tasks)
    if figure is not None:
        with writing_output("plot", figure) as beside:
            beside.write_bytes(reliability_plot(f"{meta.name}, {rows.name} rows", predicted, {name: events[name] for name in metrics}))
    result = {
        "data": meta.name,
        "split": rows.name,
        "metrics": with_constant(metrics, rates),
        "warnings": evaluation_warnings(about, opened.dataset, split, metrics),
    }
    if importance:
        found = importance_of(opened.model, rows, meta, opened.device, opened.config.threads, progress)
        result["importance"], result["importance_intervals"] = found
    if fields:
        result["by"] = metrics_by(fields, rows, meta, {name: events[name] for name in metrics}, predicted, bootstrap=bootstrap)
    return result


class OpenRun(NamedTuple):
    """A run with its best weights, their digest, and the data to evaluate them on."""

    folder: RunFolder
    config: RunConfig
    model: nn.Module
    about: dict[str, Any]
    weights: str
    dataset: PackedDataset
    device: torch.device
    progress: Progress


def predictions_of(run: OpenRun, split: str, *, as_served: bool) -> tuple[dict[str, Array], dict[str, float]]:
    """What a run predicts for the rows of a split, and the constant's rates for such rows; ``as_served`` as :func:`evaluate` takes it.

    A run of weighted rows is not a model of the rows as they are, so no constant of these is compared with it.
    """
    about, meta = run.about, run.dataset.meta
    rates, negative_rate = {} if run.config.loss.sample_weight else about["base_rates"], about["negative_rate"]
    cast(DCRNN, run.model).negative_rate = negative_rate if as_served else 1.0
    with deterministic(run.config.threads):
        rows = run.dataset.split(split)
        predicted = finite_predictions(run.model, rows, meta, run.device, progress=run.progress, as_served=as_served)
    if as_served:
        rates = unsampled_rates(rates, meta.tasks, negative_rate)
        if calibration := read_calibration(run.folder.calibration, about, run.weights):
            predicted = calibration.apply(predicted, meta.tasks, negative_rate)
    return predicted, rates


def open_run(
    run: str | Path,
    *,
    data: Any = None,
    split: str = "test",
    device: str | None = None,
    backend: str | None = None,
    progress: Progress = no_progress,
) -> OpenRun:
    """Open a run as :func:`evaluate` does, with the same arguments and errors."""
    folder = RunFolder(path_of("run", run))
    config = stored_config(folder.root)
    chosen = {"device": device, "backend": backend}
    config = config.model_copy(update={key: value for key, value in chosen.items() if value is not None})
    place = select_device(config.device)
    model, about, weights = load_sealed(folder.weights, device=place, backend=config.backend)
    dataset = data_to_evaluate(config, folder, about, data, progress)
    meta = dataset.meta
    check_same_columns(about, meta, [[name, size] for name, size in meta.fields.items()], folder.weights, "evaluate on")
    if data is None and about["data"]["digest"] != meta.digest:
        raise DataError(f"the rows of {meta.name} are not those that {folder.root} was trained on; use --data to evaluate on them anyway")
    if not len(dataset.split(split)):
        raise DataError(f"{meta.name} has no {split} rows to evaluate on; choose another --split, or other data")
    return OpenRun(folder, config, model, about, weights, dataset, place, progress)


def some_rows(split: PackedSplit, rng: np.random.Generator) -> PackedSplit:
    """At most 20,000 drawn rows of a split, in their order and in memory."""
    chosen = np.sort(rng.permutation(len(split))[:ROWS])
    ids, labels = np.array(split.ids[chosen]), np.array(split.labels[chosen])
    dense = None if split.dense is None else np.array(split.dense[chosen])
    return PackedSplit(split.name, ids=ids, dense=dense, labels=labels, weight=None, group=None)


def importance_of(
    model: nn.Module,
    split: PackedSplit,
    meta: PackedMeta,
    device: torch.device,
    threads: int | None = None,
    progress: Progress = no_progress,
) -> tuple[dict[str, dict[str, float]], dict[str, dict[str, Any]]]:
    """By input, the AUC of each task less that with the input shuffled among :func:`some_rows`; and the 95% intervals of these.

    An input is a column of the table or a derived one, which the model may read as a field and as a number. Inputs that say the same share
    what they bring: each may seem to bring nothing. The source is Breiman's permutation importance (Random Forests, 2001).
    """
    rng = np.random.default_rng(0)
    rows = some_rows(split, rng)
    columns = list(meta.fields)
    fields = {name: meta.pooled[name]["columns"] if name in meta.pooled else [first] for name, first in meta.first_columns.items()}
    inputs: dict[str, tuple[list[int], list[int]]] = {
        name: ([columns.index(column) for column in of_field], []) for name, of_field in fields.items()
    }
    for at, name in enumerate(meta.dense):
        inputs.setdefault(name, ([], []))[1].append(at)

    def predicted_for(of: PackedSplit) -> tuple[dict[str, Array], dict[str, dict[str, Any]]]:
        with deterministic(threads):
            predicted = finite_predictions(model, of, meta, device)
        return predicted, metrics_of(predicted, of, meta)

    events, falls, intervals = event_labels(rows.labels, meta.tasks, funnel=meta.funnel), {}, {}
    predicted, whole = predicted_for(rows)
    before = {name: resampled(events[name], predicted[name], FEWEST) for name, one in whole.items() if one["auc"] is not None}
    for at, (name, (of_ids, of_dense)) in enumerate(inputs.items(), 1):
        order, ids, dense = rng.permutation(len(rows)), rows.ids.copy(), None if rows.dense is None else rows.dense.copy()
        ids[:, of_ids] = ids[order][:, of_ids]
        if dense is not None:
            dense[:, of_dense] = dense[order][:, of_dense]
        shuffled, found = predicted_for(replace(rows, ids=ids, dense=dense))
        falls[name] = {task: whole[task]["auc"] - found[task]["auc"] for task in before}
        after = {task: resampled(events[task], shuffled[task], FEWEST) for task in before}
        intervals[name] = {task: quantiles((before[task] - after[task])[:, 0]) for task in before}
        progress("shuffling inputs", at, len(inputs))
    return falls, intervals
