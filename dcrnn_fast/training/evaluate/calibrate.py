"""Fits a run's calibration: isotonic regression or Platt's line for each task, on rows that the weights were not trained on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from ...data.inspect.base_rates import event_labels, label_counts
from ...data.packed.arrays import Progress, no_progress
from ...errors import ConfigError, DataError, shown
from ..data import MORE_ROWS, evaluation_warnings, is_table
from ..folder.run_files import write_with_digest
from .calibration_file import Array, Calibration, Isotonic, Platt, calibrated_names, logits
from .evaluate import open_run, predictions_of
from .predict import metrics_of

METHODS = ("platt", "isotonic")


def fit_isotonic(z: Array, labels: Array, weight: Array) -> Isotonic:
    """The isotonic regression of labels [N] in {0, 1} on logits z [N], with the rows' weights [N], 1 on the mean.

    One more row at the base rate keeps 0 and 1 out: its positive part lies below all rows and its negative part above them.

    >>> fit_isotonic(np.array([-2.0, -1.0, 1.0, 2.0]), np.array([0, 0, 1, 1]), np.ones(4)).knots
    [-2.0, -1.0, 1.0, 2.0]
    """
    from sklearn.isotonic import IsotonicRegression  # here: a ranker imports this package, and scikit-learn takes a second

    rate = float(np.average(labels, weights=weight))
    below, above = z.min(), z.max()
    regression = IsotonicRegression(out_of_bounds="clip")
    weight = np.append(weight, [rate, 1 - rate])
    # They share the lowest and the highest logit with rows, so that there is no knot where no row is.
    regression.fit(np.append(z, [below, above]), np.append(labels, [1, 0]), sample_weight=weight)
    calibrated = np.maximum.accumulate(logits(regression.y_thresholds_))
    return Isotonic(
        method="isotonic", rows=len(z), positives=int(labels.sum()), knots=regression.X_thresholds_.tolist(), calibrated=calibrated.tolist()
    )


def fit_platt(z: Array, labels: Array, weight: Array) -> Platt:
    """Platt's line through logits z [N] for labels [N] in {0, 1}, which never falls; with Platt's targets, so that it stays finite.

    ``weight`` as in :func:`fit_isotonic`.

    >>> line = fit_platt(np.array([-2.0, -1.0, 1.0, 2.0]), np.array([0, 1, 0, 1]), np.ones(4))
    >>> 0 < line.slope < 1, abs(line.intercept) < 1e-6
    (True, True)
    """
    from sklearn.linear_model import LogisticRegression

    rows, positives = len(z), int(labels.sum())
    target = np.where(labels == 1, (positives + 1) / (positives + 2), 1 / (rows - positives + 2))
    middle, spread = float(z.mean()), float(z.std())
    slope, intercept = 0.0, float(logits(np.array(np.average(target, weights=weight))))
    if spread > 1e-9:
        scaled = np.tile((z - middle) / spread, 2)[:, None]
        line = LogisticRegression(C=1e9, max_iter=1000)
        line.fit(scaled, np.repeat([1, 0], rows), sample_weight=np.concatenate([weight * target, weight * (1 - target)]))
        if line.coef_[0, 0] > 0:
            slope = float(line.coef_[0, 0]) / spread
            intercept = float(line.intercept_[0]) - slope * middle
    return Platt(method="platt", rows=rows, positives=positives, slope=slope, intercept=intercept)


def calibrate(
    run: str | Path,
    *,
    data: Any = None,
    method: str = "platt",
    split: str | None = None,
    device: str | None = None,
    backend: str | None = None,
    progress: Progress = no_progress,
) -> dict[str, Any]:
    """Fit the calibration of a run's weights, and write it into the run folder, where :class:`dcrnn_fast.Ranker` finds it.

    Args:
        run: the run folder.
        data: other data to fit to, as :func:`.evaluate.evaluate` takes it; by default the run's own.
        method: "platt", a line through the logits, or "isotonic".
        split: the rows to fit to: ``valid``, ``test`` or ``train``; by default ``valid``, or all of a table.
        device: replaces the run's device.
        backend: replaces the run's backend.
        progress: as :func:`.evaluate.evaluate` takes it.

    Returns:
        A dict: "data", the data set's name; "split"; "file", the path that was written; "maps", by name a dict of "method", "rows" and
        "positives"; "before" and "after", the metrics of :func:`dcrnn_fast.training.evaluate` on the test rows without and with it;
        "warnings", of the rows that it was fitted to, such as a field that is lost there.

    With ``loss.sample_weight``, the weights of the rows count.

    Raises:
        DcrnnFastError: one of the classes of :mod:`dcrnn_fast.errors`; the message says what to change.

    Example::

        result = calibrate("runs/census")
        result["after"]["income"]["calibration"]
    """
    if method not in METHODS:
        raise ConfigError(f"method={shown(method)}: expected one of {', '.join(METHODS)}")
    split = split or ("test" if is_table(data) else "valid")
    opened = open_run(run, data=data, split=split, device=device, backend=backend, progress=progress)
    tasks, meta = opened.about["tasks"], opened.dataset.meta
    fitted_to, _ = predictions_of(opened, split, as_served=False)
    events = event_labels(np.asarray(opened.dataset.split(split).labels), tasks, funnel=opened.about["relation"] == "chain")
    weighted, rows = opened.config.loss.sample_weight, opened.dataset.split(split)
    weight = np.asarray(rows.weight, np.float64) if weighted and rows.weight is not None else np.ones(len(rows))
    maps = {name: _fit(name, fitted_to[name], events[name], weight, method, rows.name) for name in calibrated_names(opened.about)}
    calibration = Calibration(weights=opened.weights, split=split, maps=maps)  # type: ignore[arg-type]
    (before, _), test = predictions_of(opened, "test", as_served=False), opened.dataset.split("test")
    result: dict[str, Any] = {
        "data": meta.name,
        "split": rows.name,
        "file": str(opened.folder.calibration),
        "maps": {name: {"method": fit.method, "rows": fit.rows, "positives": fit.positives} for name, fit in maps.items()},
        "before": metrics_of(before, test, meta, weighted=weighted),
        "after": metrics_of(calibration.apply(before, tasks), test, meta, weighted=weighted),
        "warnings": evaluation_warnings(opened.about, opened.dataset, split, metrics_of(fitted_to, rows, meta, weighted=weighted)),
    }
    if weighted and rows.weight is None:
        result["warnings"].append("the run learned from weighted rows, and these have no weight: each counts once")
    write_with_digest(opened.folder.calibration, calibration.model_dump(), "calibrate again")
    return result


def _fit(name: str, predicted: Array, labels: Array, weight: Array, method: str, split: str) -> Platt | Isotonic:
    labels = np.where(weight > 0, labels, np.nan)
    rows, positives = label_counts(labels)
    if positives in (0, rows):
        raise DataError(
            f"{name}: the {rows:,} {split} rows with a known label hold {positives:,} positive ones; a calibration needs both classes: "
            f"{MORE_ROWS}, or choose others by --split or --data"
        )
    known = ~np.isnan(labels)
    z, observed, each = logits(predicted[known]), labels[known].astype(np.int64), weight[known] / weight[known].mean()
    return fit_isotonic(z, observed, each) if method == "isotonic" else fit_platt(z, observed, each)
