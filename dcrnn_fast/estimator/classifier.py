"""From a DataFrame to a ranker: an estimator by scikit-learn's conventions. It drafts the schema, trains, and scores."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from types import NoneType
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from sklearn.base import BaseEstimator
from sklearn.utils import check_random_state, estimator_html_repr
from sklearn.utils.validation import check_is_fitted

from ..cli.progress import choose_report
from ..data import PackedDataset, prepare
from ..data.codes.numbers import Place
from ..data.encoder.memory import arrow_table
from ..data.inspect.sample import MISSING_TEXTS
from ..data.past import kept_rows, read_rows, with_all_columns
from ..data.read.columns import labels_of
from ..data.schema.table import schema_of
from ..errors import ConfigError, DataError, RunFolderError, shown
from ..serving.ranker import Ranker, Scores
from ..support.checks import label_columns
from ..support.files import path_of, scratch_folder
from ..support.locks import locked
from ..training import Report, calibrate, evaluate, load_config, train
from ..training.evaluate.evaluate import importance_of, some_rows
from ..training.evaluate.metrics import binary_metrics, mean_over_tasks
from ..training.evaluate.report import Result
from ..training.folder.layout import PAST, RunFolder, stored_config
from ..training.folder.run_files import run_folder_errors
from ..training.init import continued_data, read_earlier
from .arguments import Quiet, fields_of, names_of, only_eval_set, parquet_file, texts_held, with_column
from .drafting import NAME, drafted_schema, earlier_schema, wanted_columns
from .saved import arguments_of, files_of, scores_of, without_histories, write_histories

if TYPE_CHECKING:
    from .. import FunnelTaskClassifier

CONFIG = "config__"
WEIGHT = "sample_weight"
"""The column of the weights that `fit` is given."""


class FunnelClassifier(BaseEstimator):
    """One model for the events of a table's rows, such as click and order, with scikit-learn's interface. Trains like ``dcrnn-fast train``.

    Args:
        tasks: the label columns in funnel order, with 0 and 1 or true and false; a missing label is unknown.
        time: a column of times, which is not a feature. The latest tenth of the rows become the validation rows; without ``time`` they are
            drawn. ``valid_fraction`` in ``config`` sets another share.
        group: a column such as the user or the request, for GAUC and ranking metrics.
        weight: a column of row weights >= 0.
        funnel: whether each event implies the one before it; the model then multiplies conditional probabilities. None finds out from the
            rows.
        categorical, numeric: columns, or what a schema holds under these keys. None: those that
            :func:`dcrnn_fast.data.draft_schema` finds, without the columns that the other argument names.
        histories, train_only: what a schema holds under these keys. A fitted model keeps what histories read of the latest 2,000,000
            rows, users and items included: rows to score, and a next :meth:`fit` with ``init``, go on from there. Rows may also bring
            their lists as columns, as a server's rows must.
        config: values by the dotted keys of a run's configuration, such as ``{"model.steps": 3}``. A search may set one of them, as
            ``config__model.steps``.
        random_state: seed of the run and of the validation rows, or what else scikit-learn accepts.
        verbose: show the progress. Otherwise a run's warnings become UserWarnings.

    Leave out columns that are known only after the event, such as the revenue: they give away the label.

    Attributes of a fitted model: ``ranker_`` is the :class:`dcrnn_fast.Ranker` that scores, ``schema_`` the schema as a dict, ``metrics_``
    the validation metrics by task, ``history_`` the records of all evaluations, ``feature_importances_`` what each column brings, and
    ``feature_names_in_`` the columns that it reads. It holds the run's files in memory, without checkpoints, and can be pickled and copied.
    Unpickle only files that you trust: a pickle can run any code.

    :meth:`task` returns a binary classifier for one event, which obeys all of scikit-learn's rules.

    Example::

        model = FunnelClassifier(tasks=["click", "order"], time="ts", group="user_id").fit(frame)
        model.predict_proba(new_frame)["order"]
        model.save("runs/monday")  # for Ranker.load, and for dcrnn-fast predict, export and serve
    """

    def __init__(
        self,
        tasks: Sequence[str] = ("click",),
        *,
        time: str | None = None,
        group: str | None = None,
        weight: str | None = None,
        funnel: bool | None = None,
        categorical: Sequence[Any] | None = None,
        numeric: Sequence[Any] | None = None,
        histories: Sequence[Any] | None = None,
        train_only: Sequence[Any] | None = None,
        config: Mapping[str, Any] | None = None,
        random_state: Any = 0,
        verbose: bool = True,
    ) -> None:
        self.tasks, self.time, self.group, self.weight, self.funnel = tasks, time, group, weight, funnel
        self.categorical, self.numeric, self.histories, self.train_only = categorical, numeric, histories, train_only
        self.config, self.random_state, self.verbose = config, random_state, verbose

    def set_params(self, **params: Any) -> FunnelClassifier:
        """As in scikit-learn; ``config__KEY`` sets one key of ``config``."""
        keys = {name: name.removeprefix(CONFIG) for name in params if name.startswith(CONFIG)}
        super().set_params(**{name: value for name, value in params.items() if name not in keys})
        if keys:
            self.config = dict(self.config or {}) | {key: params[name] for name, key in keys.items()}
        return self

    def fit(
        self,
        X: Any,
        y: Any = None,
        sample_weight: Any = None,
        *,
        eval_set: Any = None,
        init: FunnelClassifier | str | Path | None = None,
    ) -> FunnelClassifier:
        """Train on the rows of a table that holds the labels. Ctrl-C ends the training, keeps the best weights so far, and warns.

        Args:
            X: a pandas or polars DataFrame, an Arrow table, a mapping of column names to lists or arrays, or the path of a Parquet file.
            y: None.
            sample_weight: a weight >= 0 for each row, instead of the column ``weight``.
            eval_set: validation rows, as ``X`` or as ``[(table, None)]``.
            init: a fitted estimator or a saved run to go on from, with new ids for what it did not know. Its schema reads ``X``, and its
                settings count unless ``config`` changes them.

        Raises:
            DataError, ConfigError: a column or a value of ``config`` is missing or cannot be used; the message names it.
            CheckpointError: ``init`` is not a complete run.
        """
        if y is not None:
            told = "the labels are columns of X, which tasks names; leave y out, or take task(...), which has one label"
            raise DataError(f"y is a {type(y).__name__}, expected None: {told}")
        if isinstance(eval_set := only_eval_set(eval_set), tuple):
            raise DataError("eval_set has its labels apart, expected them as columns of its table, which tasks names: eval_set=table")
        self._weight = self.weight if sample_weight is None else WEIGHT
        if sample_weight is not None:
            if self.weight is not None:
                raise DataError(f"sample_weight and weight={self.weight!r}: give one of the two")
            X = with_column(X, "X", WEIGHT, sample_weight)
            if eval_set is not None:
                eval_set = with_column(eval_set, "eval_set", WEIGHT)
        given = {argument: fields_of(argument, getattr(self, argument)) for argument in ("categorical", "numeric", "histories")}
        tasks = label_columns("tasks", self.tasks)
        for argument in ("time", "group", "weight"):
            if not isinstance(name := getattr(self, argument), (str, NoneType)):
                raise DataError(f"{argument}={shown(name)}: expected the name of a column")
        if not isinstance(self.config, (Mapping, NoneType)):
            raise ConfigError(f"config={shown(self.config)}: expected values by dotted key, such as {{'model.steps': 3}}")
        if "split_seed" in (self.config or {}):
            raise ConfigError("config: split_seed has no effect here; random_state is the seed of the validation rows too")
        with scratch_folder() as root:
            try:
                self._train(root, X, eval_set, init, tasks, given)
            except DataError as error:
                if error.table and Path(error.table).parent == root:  # a file that this wrote
                    error.table = Path(error.table).stem
                raise
        return self

    def _train(self, root: Path, X: Any, eval_set: Any, init: Any, tasks: list[str], given: Mapping[str, Any]) -> None:
        run, report = RunFolder(root / "run"), self._report()
        report.keeps_interrupted, self.history_ = True, list[dict[str, Any]]()
        report.evaluation = self._noting(report.evaluation)  # type: ignore[method-assign]
        is_seed = isinstance(self.random_state, (int, np.integer))
        seed = int(self.random_state) if is_seed else check_random_state(self.random_state).randint(2**31)
        before = None if init is None else init._write(root / "init") if isinstance(init, FunnelClassifier) else path_of("init", init)
        earlier = None if before is None else read_earlier(before)
        own = {"data": NAME, "seed": seed} | ({} if self._weight is None else {"loss.sample_weight": True})
        config = load_config(None if before is None else RunFolder(before).config, own | dict(self.config or {}))
        schema = None if before is None else earlier_schema(self, before, tasks, given, self._weight)
        wanted = wanted_columns(self, tasks, given, self._weight) if schema is None else None
        rows = {"train": parquet_file(X, "X", root, wanted)}
        if eval_set is not None:
            rows["valid"] = parquet_file(eval_set, "eval_set", root, wanted)
            if not pq.read_metadata(root / rows["valid"]).num_rows:
                raise DataError("has no rows; give rows, or leave it out: a part of X is then kept for validation", table="eval_set")
        elif not 0 < round(config.valid_fraction * (count := pq.read_metadata(root / rows["train"]).num_rows)) < count:
            kept = f"too few to keep {config.valid_fraction:g} of them for validation and to train on the others"
            raise DataError(f"has {count} rows, {kept}; give more, another valid_fraction in config, or eval_set", table="X")
        paths = [root / file for file in rows.values()]
        schema = schema or drafted_schema(self, paths, tasks, given, self._weight, report)
        # for CSV files that are scored: pandas reads these texts as missing, but the table may hold one
        held = set[str]().union(*(texts_held(path, MISSING_TEXTS) for path in paths))
        missing = schema.get("missing_values", [""]) if before else ("", *MISSING_TEXTS)
        schema["missing_values"] = [text for text in missing if text not in held]
        if eval_set is None and self.time is not None:
            of_files: dict[str, Any] = {
                "files": {"all": rows["train"]},
                "split": {"time": self.time, "valid": config.valid_fraction, "test": 0},
            }
        else:  # no rows are for a test: each one teaches, or tells when to stop
            pq.write_table(pq.read_schema(root / rows["train"]).empty_table(), root / "test.parquet")
            of_files = {"files": rows | {"test": "test.parquet"}}
        seen = None if before is None or not schema.get("histories") else RunFolder(before).past
        past = root / PAST if seen is not None and seen.is_file() else None
        if past is not None:
            of_files["files"] |= {"past": PAST}
        read_by = schema_of(schema | of_files, "of these arguments")
        if seen is not None and past is not None:
            pq.write_table(with_all_columns(read_rows(seen), read_by), past)
        dataset = root / f"{NAME}.yaml"
        dataset.write_text(read_by.to_yaml(), "utf-8")

        def prepared(encoding: Mapping[str, Any] | None = None) -> PackedDataset:
            draw: dict[str, Any] = {"seed": seed, "valid_fraction": config.valid_fraction}
            return prepare(dataset, cache_dir=root / "cache", encoding=encoding, progress=report.preparing, **draw)

        data = prepared() if earlier is None else continued_data(config, earlier, prepared)
        result = train(config, run.root, init=before, dataset=data, report=report)
        if read_by.histories:
            pq.write_table(kept_rows(read_by, paths, past), run.past)
        self._valid = some_rows(data.split("valid"), np.random.default_rng(0)), data.meta
        self._take(run, schema, result, device=config.device, backend=config.backend)

    def _take(self, run: RunFolder, schema: dict[str, Any], result: Result, **placement: Any) -> None:
        """Become the model of a run, whose files this then holds."""
        self._run, self._placement = files_of(run), placement
        for name in ("ranker_", "_falls"):  # those of an earlier fit
            self.__dict__.pop(name, None)
        self.schema_, self.metrics_, self._result = schema, result["valid"], result
        self.feature_names_in_ = np.array(self.ranker_.columns, dtype=object)

    def _report(self) -> Report:
        return choose_report() if self.verbose else Quiet()

    def _noting(self, shows: Callable[..., None]) -> Callable[..., None]:
        def evaluation(record: Mapping[str, Any], **of_the_run: Any) -> None:
            self.history_.append(dict(record))
            shows(record, **of_the_run)

        return evaluation

    def task(self, name: str) -> FunnelTaskClassifier:
        """An unfitted binary classifier of one task, with the same parameters."""
        from .. import FunnelTaskClassifier

        return FunnelTaskClassifier(**self.get_params(deep=False) | {"task": name})

    @classmethod
    def load(cls, path: str | Path, *, device: str = "auto", backend: str = "auto") -> FunnelClassifier:
        """A fitted estimator from a saved run, without ``history_`` and ``feature_importances_``. Raises what :meth:`Ranker.load` does."""
        folder = RunFolder(path_of("path", path))
        stored_config(folder.root)
        result = Result(folder.read_metrics())
        schema, arguments = arguments_of(folder, result)
        model = cls(**arguments)
        model._take(folder, schema, result, device=device, backend=backend)
        model.history_ = []
        return model

    def calibrate(self, X: Any, *, method: str = "platt") -> FunnelClassifier:
        """Calibrate the probabilities on labelled rows that were not used in training. Raises what :meth:`score` does."""
        with scratch_folder() as folder:
            run = self._write(folder / "run")
            found = calibrate(run, data=X, method=method)
            self._run = files_of(RunFolder(run))
        for line in found["warnings"]:
            self._report().note(f"warning: {line}")
        self.__dict__.pop("ranker_", None)
        return self

    @property
    def feature_importances_(self) -> Any:
        """For each column, how much the mean AUC of the tasks falls when it is shuffled among the validation rows."""
        return self._importances(None)

    def _importances(self, task: str | None) -> Any:
        check_is_fitted(self, "_valid")
        if "_falls" not in self.__dict__:
            model = self.ranker_.model
            self._falls, _ = importance_of(model, *self._valid, model.features.embedding.weight.device)
        found = [self._falls.get(name, {}) for name in self.feature_names_in_]
        values = [[fall for name, fall in one.items() if name == task or (task is None and name in self.metrics_)] for one in found]
        return np.array([float(np.mean(falls)) if falls else 0.0 for falls in values])

    def predict_proba(self, X: Any) -> Any:
        """A column of probabilities for each task, and in a funnel for each later task given the one before it.

        It is a pandas DataFrame with the same index for one of pandas, a polars DataFrame for one of polars, otherwise an Arrow table.
        Raises DataError for rows that cannot be read, and NotFittedError before :meth:`fit`.
        """
        scores = self._scores(X)
        libraries = {base.__module__.partition(".")[0] for base in type(X).__mro__}
        if "pandas" in libraries:
            import pandas as pd

            return pd.DataFrame(scores, index=[X.name] if isinstance(X, pd.Series) else X.index)
        if "polars" in libraries:
            import polars as pl

            return pl.DataFrame(scores)
        return pa.table(scores)

    def write_histories(self, folder: str | Path) -> list[Path]:
        """Write what each history has now, after the rows of :meth:`fit`, for a feature store: a Parquet file NAME.parquet for each.

        It has a row for each value of ``by``: that value, and the list of its last values of ``of``, the latest first. Served rows bring
        this list as their column NAME. Raises DataError where the model keeps no rows of its histories.
        """
        with scratch_folder() as root:
            return write_histories(RunFolder(self._write(root / "run")), path_of("folder", folder))

    def score(self, X: Any, y: Any = None) -> float:
        """The mean AUC of the tasks on labelled rows, without unknown labels. Raises DataError if no task has labels of both classes."""
        check_is_fitted(self, "_run")
        columns, metrics, place = [task["column"] for task in self.schema_["tasks"]], dict[str, dict[str, Any]](), Place(Path("X"), 0)
        table = arrow_table(X, "X", {*columns, *self.ranker_.columns})
        if missing := [column for column in columns if column not in table.column_names]:
            raise DataError(f"has no column {missing[0]!r}, which holds labels; it has {', '.join(table.column_names)}", table="X")
        scores = self._scores(table)
        for task, column in zip(self.schema_["tasks"], columns, strict=True):
            labels = labels_of(table.column(column).combine_chunks(), column, place)
            for row in np.flatnonzero(~np.isnan(labels) & (labels != 0) & (labels != 1))[:1]:
                expected = f"expected 0 and 1 (empty: unknown) of task {task['name']!r}"
                raise place.error(f"holds {labels[row]:g}, {expected}; make a column of 0 and 1 of it", row, column)
            metrics[task["name"]] = binary_metrics(labels, scores[task["name"]])
        mean = mean_over_tasks(metrics, "auc", list(metrics))
        if mean is None:
            said = f"has labels of one class alone in {', '.join(columns)}: there is no AUC; give rows of both classes"
            raise DataError(said, table="X")
        return mean

    def evaluate(self, X: Any, *, k: int = 10) -> dict[str, dict[str, Any]]:
        """All metrics of rows that hold the labels, by task: those of :func:`dcrnn_fast.training.evaluate`, within groups too.

        ``k`` is the rank at which NDCG and the hit rate cut. Raises DataError for rows that cannot be read.
        """
        served = self.ranker_.calibration is not None
        with scratch_folder() as folder:
            found: dict[str, dict[str, Any]] = evaluate(self._write(folder / "run"), data=X, k=k, as_served=served)["metrics"]
        return found

    def save(self, path: str | Path, *, overwrite: bool = False) -> Path:
        """Write the run folder, without checkpoints, to ``path`` and return it. ``overwrite`` replaces a run that is there."""
        path = path_of("path", path)
        check_is_fitted(self, "_run")
        if path.exists():
            if not overwrite:
                raise ConfigError(f"{path} exists; choose another folder, or give overwrite=True")
            if not RunFolder(path).config.is_file():
                raise ConfigError(f"{path} holds no run, so overwrite=True does not delete it; choose another folder")
            beside, old = (path.with_name(f".{path.name}.{os.getpid()}.{kind}") for kind in ("new", "old"))
            with run_folder_errors(path, "save again"), locked(RunFolder(path).lock) as is_free:
                if not is_free:
                    raise RunFolderError(f"another run writes to {path} now; wait until it has ended, or choose another folder")
                try:
                    self._write(beside)
                    path.rename(old)
                    beside.rename(path)
                finally:
                    shutil.rmtree(beside, ignore_errors=True)
                shutil.rmtree(old)
            return path
        with run_folder_errors(path, "save again"):
            return self._write(path)

    @cached_property
    def ranker_(self) -> Ranker:
        """The ranker that scores. Raises NotFittedError before :meth:`fit`, and what :meth:`dcrnn_fast.Ranker.load` does."""
        with scratch_folder() as folder:
            return Ranker.load(self._write(folder / "run"), **self._placement)

    def _scores(self, X: Any) -> Scores:
        check_is_fitted(self, "_run")
        histories = names_of(self.schema_.get("histories") or ())
        if not histories or PAST not in self._run or not without_histories(X, histories):
            return self.ranker_.predict(X)
        with scratch_folder() as folder:
            return scores_of(self.ranker_, RunFolder(self._write(folder / "run")), X)

    def __getstate__(self) -> dict[str, Any]:
        """For pickle and copy: without the ranker, which the run's files make."""
        return {key: value for key, value in super().__getstate__().items() if key != "ranker_"}

    def _write(self, folder: Path) -> Path:
        """The folder, with the run's files. Raises NotFittedError without a run."""
        check_is_fitted(self, "_run")
        for name, content in self._run.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(content)
        return folder

    def _repr_html_(self) -> str:
        """In a notebook: scikit-learn's picture of it and, once it is fitted, the results."""
        return estimator_html_repr(self) + (self._result._repr_html_() if hasattr(self, "_result") else "")

    def _repr_mimebundle_(self, **_: Any) -> dict[str, str]:
        return {"text/plain": repr(self), "text/html": self._repr_html_()}
