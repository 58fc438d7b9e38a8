"""From a DataFrame to a ranker: an estimator by scikit-learn's conventions. It drafts the schema, trains, and scores."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
import warnings
import weakref
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import NoneType
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
import yaml
from sklearn.base import BaseEstimator
from sklearn.metrics import roc_auc_score
from sklearn.utils import check_random_state, estimator_html_repr
from sklearn.utils.validation import check_is_fitted

from ..cli.progress import choose_report
from ..data import PackedDataset, prepare
from ..data.codes.numbers import Place
from ..data.encoder.memory import arrow_table
from ..data.inspect.draft import draft_schema
from ..data.inspect.sample import MISSING_TEXTS, SAMPLE_ROWS
from ..data.read.columns import check_one_unit, labels_of, times_of
from ..errors import ConfigError, DataError, RunFolderError, one_line, shown
from ..serving.ranker import Ranker
from ..support.checks import label_columns
from ..support.files import path_of, scratch_folder
from ..training import Report, load_config, train
from ..training.folder.layout import RunFolder
from ..training.init import continued_data, read_earlier
from .arguments import breaks_funnel, check_column, fields_of, names_of, readable_table, texts_held
from .notes import notes_of

NAME = "frame"
"""Of the data, in the run's files."""
PLACE = r"tables\[(train|valid)\], row ([\d,]+)"
"""Where prepare says that a cell is."""
NUMBER = {"buckets": 32, "dense": "log1p"}
"""How a column that is named in ``numeric`` is read where the draft does not take it for a number."""


class FunnelClassifier(BaseEstimator):
    """One model for the events of a table's rows, such as click and order, as ``dcrnn-fast train`` trains it.

    Args:
        tasks: the label columns, in the order of the funnel: 0 and 1, or true and false; missing is unknown.
        time: a column of times, which is no feature. The latest tenth of the rows are then the validation rows; otherwise they are drawn.
            ``valid_fraction`` in ``config`` is another part than a tenth.
        group: a column such as the user, by which GAUC groups rows.
        weight: a column of numbers >= 0 that weight the rows.
        funnel: whether each event implies the one before it, so that the model multiplies conditional probabilities. None: whether it is
            so in the rows, of a table larger than memory in the first million.
        categorical, numeric: columns, or what a schema holds under these keys. None: those that
            :func:`dcrnn_fast.data.draft_schema` finds, without the columns that the other argument names.
        histories: what a schema holds under this key.
        config: values by the dotted keys of a run's configuration, such as ``{"model.steps": 3}``.
        random_state: the seed of the run, and of the validation rows; also what else scikit-learn takes for one.
        verbose: show the progress; if not, a run's warnings are UserWarnings.

    Leave out columns that are known only after the event, such as a revenue: they would tell the label.

    Once it is fitted, ``ranker_`` is the :class:`dcrnn_fast.Ranker` that scores, ``schema_`` the schema as a dict, ``metrics_`` are those
    of the validation rows by task, and ``feature_names_in_`` the columns that it reads.

    Example::

        model = FunnelClassifier(tasks=["click", "order"], time="ts", group="user_id").fit(frame)
        model.predict_proba(new_frame)["order"]
        model.save("runs/monday")  # for Ranker.load, and for dcrnn-fast predict, export and serve

    A fitted one can be pickled and copied. It then holds the run's files, without its checkpoints. Unpickle what you trust alone: pickle
    runs whatever a file says, where :meth:`dcrnn_fast.Ranker.load` of a saved run unpickles nothing. Until it is deleted, its run lies in
    the system's temporary folder, as ``dcrnn_fast.estimator-*``; a process that is killed leaves it there.
    """

    _delete_run: Callable[[], Any]
    """Deletes the folder of the last fit."""

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
        config: Mapping[str, Any] | None = None,
        random_state: Any = 0,
        verbose: bool = True,
    ) -> None:
        self.tasks, self.time, self.group, self.weight, self.funnel = tasks, time, group, weight, funnel
        self.categorical, self.numeric, self.histories = categorical, numeric, histories
        self.config, self.random_state, self.verbose = config, random_state, verbose

    def fit(self, X: Any, y: Any = None, *, eval_set: Any = None, init: FunnelClassifier | str | Path | None = None) -> FunnelClassifier:
        """Train on the rows of a table, which holds the labels.

        Args:
            X: a pandas or polars DataFrame, an Arrow table, or a mapping of column names to lists or arrays; of a table larger than
                memory the path of its Parquet file, which needs ``eval_set``.
            y: None.
            eval_set: validation rows, as ``X``.
            init: an earlier fitted estimator, or its saved run: go on from its weights and its ids, with new ids for what it did not know.
                ``X`` is read by its schema, and its settings count, but for those in ``config``.

        Raises:
            DataError: a column is missing or cannot be used; the message names it.
            ConfigError: a value of ``config`` cannot be used, or ``init`` is of another model.
            CheckpointError: ``init`` holds no whole run.
        """
        if y is not None:
            raise DataError(f"y is a {type(y).__name__}, expected None: the labels are columns of X, which tasks names; leave y out")
        given = {argument: fields_of(argument, getattr(self, argument)) for argument in ("categorical", "numeric", "histories")}
        tasks = label_columns("tasks", self.tasks)
        for argument in ("time", "group", "weight"):
            if not isinstance(name := getattr(self, argument), (str, NoneType)):
                raise DataError(f"{argument}={shown(name)}: expected the name of a column")
        if not isinstance(self.config, (Mapping, NoneType)):
            raise ConfigError(f"config={shown(self.config)}: expected values by dotted key, such as {{'model.steps': 3}}")
        if "split_seed" in (self.config or {}):
            raise ConfigError("config: split_seed has no effect here; random_state is the seed of the validation rows too")
        root, delete = self._new_folder()
        try:
            self._train(root, X, eval_set, init, tasks, given)
        except BaseException:
            delete()
            raise
        if hasattr(self, "_delete_run"):
            self._delete_run()
        self._delete_run = delete
        return self

    def _train(self, root: Path, X: Any, eval_set: Any, init: Any, tasks: list[str], given: Mapping[str, Any]) -> None:
        run, report = root / "run", choose_report() if self.verbose else _Quiet()
        is_seed = isinstance(self.random_state, (int, np.integer))
        seed = int(self.random_state) if is_seed else check_random_state(self.random_state).randint(2**31)
        before = None if init is None else init._whole_run() if isinstance(init, FunnelClassifier) else path_of("init", init)
        earlier = None if before is None else read_earlier(before)
        own = {"data": NAME, "seed": seed} | ({} if self.weight is None else {"loss.sample_weight": True})
        config = load_config(None if before is None else RunFolder(before).config, own | dict(self.config or {}))
        schema = None if before is None else self._earlier_schema(before, tasks, given)
        tables, rows = self._tables(X, eval_set, self._wanted(tasks, given) if schema is None else None, seed, config.valid_fraction)
        schema = schema or self._schema(tables, tasks, given, report)
        # for CSV files that are scored: pandas reads these texts as missing, but the table may hold one
        held = set[str]().union(*(texts_held(table, MISSING_TEXTS) for table in tables.values()))
        missing = schema.get("missing_values", [""]) if before else ("", *MISSING_TEXTS)
        schema["missing_values"] = [text for text in missing if text not in held]

        def prepared(encoding: Mapping[str, Any] | None = None) -> PackedDataset:
            return prepare(schema, tables, cache_dir=root / "cache", encoding=encoding, progress=report.preparing)

        try:
            dataset = prepared() if earlier is None else continued_data(config, earlier, prepared)
        except DataError as error:
            names = ("X", "eval_set") if eval_set is not None else ("the train rows of X", "the validation rows of X")
            said = str(error)
            if rows:
                said = re.sub(PLACE, lambda found: f"X, row {rows[found[1]][int(found[2].replace(',', '')) - 1] + 1:,}", said)
            if self.funnel is None and before is None:
                said = said.replace("the data set is declared a funnel", "the first train rows are a funnel")
            said = said.replace("tables[train]", names[0]).replace("tables[valid]", names[1]).replace("`funnel: false`", "funnel=False")
            raise DataError(said.replace("use `threshold` or `positive`", "make a column of 0 and 1 of it")) from error
        result = train(config, run, init=before, dataset=dataset, report=report)
        shutil.rmtree(root / "cache")
        ranker = Ranker.load(run, device=config.device, backend=config.backend)
        self.schema_, self.metrics_, self.ranker_, self._run, self._result = schema, result["valid"], ranker, run, result
        self._placement: dict[str, Any] = {"device": config.device, "backend": config.backend}
        self.feature_names_in_ = np.array(ranker.columns, dtype=object)

    def predict_proba(self, X: Any) -> Any:
        """A column of probabilities for each task, and in a funnel for each task given the one before it.

        Of a pandas DataFrame it is one with the same index, of a polars DataFrame one of polars, otherwise an Arrow table. Raises
        DataError for rows that cannot be read, and NotFittedError before :meth:`fit`.
        """
        check_is_fitted(self, "ranker_")
        scores = self.ranker_.predict(X)
        libraries = {base.__module__.partition(".")[0] for base in type(X).__mro__}
        if "pandas" in libraries:
            import pandas as pd

            return pd.DataFrame(scores, index=X.index)
        if "polars" in libraries:
            import polars as pl

            return pl.DataFrame(scores)
        return pa.table(scores)

    def score(self, X: Any, y: Any = None) -> float:
        """The mean of the tasks' AUC on rows that hold the labels. Unknown labels do not count, nor does a task of one class.

        Raises DataError where no task has labels of both classes.
        """
        check_is_fitted(self, "ranker_")
        columns, found, place = [task["column"] for task in self.schema_["tasks"]], list[float](), Place(Path("X"), 0)
        X = pa.table(X) if hasattr(X, "__arrow_c_stream__") and not hasattr(X, "columns") else X  # a stream can be read once
        scores, table = self.ranker_.predict(X), arrow_table(X, "X", columns)
        for task, column in zip(self.schema_["tasks"], columns, strict=True):
            check_column("tasks", column, table.column_names)
            labels = labels_of(table.column(column).combine_chunks(), column, place)
            known = ~np.isnan(labels)
            for row in np.flatnonzero(known & (labels != 0) & (labels != 1))[:1]:
                held = f"column {column!r} holds {labels[row]:g}, expected 0 and 1 (empty: unknown)"
                raise DataError(f"{place.row(int(row))}: task {task['name']!r}: {held}; make a column of 0 and 1 of it")
            if len(np.unique(labels[known])) == 2:
                found.append(roc_auc_score(labels[known], scores[task["name"]][known]))
        if not found:
            raise DataError(f"X has labels of one class alone in {', '.join(columns)}: there is no AUC; give rows of both classes")
        return float(np.mean(found))

    def save(self, path: str | Path) -> Path:
        """Copy the run folder to ``path``, which must not exist, and return it. Raises RunFolderError if something deleted its files."""
        path = path_of("path", path)
        if path.exists():
            raise ConfigError(f"{path} exists; delete it, or choose another folder")
        shutil.copytree(self._whole_run(), path)
        return path

    def __getstate__(self) -> dict[str, Any]:
        """For pickle and copy: the files of the run, but for its checkpoints, in place of the ranker that reads them."""
        state = dict(super().__getstate__())
        state.pop("_delete_run", None)
        if state.pop("ranker_", None) is not None:
            state["_run"] = {path.name: path.read_bytes() for path in self._whole_run().iterdir() if path.is_file()}
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Write the run's files to a folder of its own, and load the ranker from there. Raises what :meth:`dcrnn_fast.Ranker.load` does."""
        super().__setstate__(state)
        if "_run" in state:
            folder, self._delete_run = self._new_folder()
            self._run = folder / "run"
            self._run.mkdir()
            for name, content in state["_run"].items():
                if Path(name).name != name:
                    raise DataError(f"the state has a file {name!r}, expected a name without a folder; pickle the estimator again")
                (self._run / name).write_bytes(content)
            self.ranker_ = Ranker.load(self._run, **self._placement)

    def _new_folder(self) -> tuple[Path, Callable[[], Any]]:
        """A folder that lives as long as this object in this process, and what deletes it earlier."""
        folder = Path(tempfile.mkdtemp(prefix="dcrnn_fast.estimator-"))
        return folder, weakref.finalize(self, _delete, folder, os.getpid())

    def _whole_run(self) -> Path:
        check_is_fitted(self, "ranker_")
        run = RunFolder(self._run)
        if lost := [file.name for file in (run.config, run.encoder, run.weights, run.metrics) if not file.is_file()]:
            raise RunFolderError(f"{self._run} has lost {', '.join(lost)}: something cleaned the temporary folder; fit again, and save")
        return self._run

    def _repr_html_(self) -> str:
        """In a notebook: scikit-learn's picture of it and, once it is fitted, the results."""
        return estimator_html_repr(self) + (self._result._repr_html_() if hasattr(self, "_result") else "")

    def _repr_mimebundle_(self, **_: Any) -> dict[str, str]:
        return {"text/plain": repr(self), "text/html": self._repr_html_()}

    def _wanted(self, tasks: list[str], given: Mapping[str, Any]) -> set[Any] | None:
        """The columns that the arguments name, if they name all fields."""
        if given["categorical"] is None or given["numeric"] is None:
            return None
        fields = [one for several in given.values() for one in several or ()]
        fields += [one["where"] for one in fields if isinstance(one.get("where"), Mapping)]
        return {*tasks, self.time, self.group, self.weight, *(one.get(key) for one in fields for key in ("column", "by", "time"))} - {None}

    def _tables(self, X: Any, eval_set: Any, wanted: set[Any] | None, seed: int, fraction: float) -> tuple[dict[str, Any], dict[str, Any]]:
        """The train and the validation rows, and none for a test: every row teaches or tells when to stop. Where both come from X, also
        which of its rows they are."""
        if isinstance(X, (str, Path)):
            if not isinstance(eval_set, (str, Path)):
                raise DataError(f"eval_set is {shown(eval_set)}: X is a path, so give the path of the validation rows' Parquet file")
            try:
                return {"train": X, "valid": eval_set, "test": pq.read_schema(X).empty_table()}, {}
            except (pa.ArrowException, OSError) as error:
                raise DataError(f"X is {str(X)!r}, expected the path of a Parquet file: {one_line(error, 200)}") from error
        table = readable_table(X, "X", wanted)
        if eval_set is not None:
            if not len(valid := readable_table(eval_set, "eval_set", wanted)):
                raise DataError("eval_set has no rows; give rows, or leave it out: a part of X is then kept for validation")
            return {"train": table, "valid": valid, "test": table.slice(0, 0)}, {}
        is_valid = self._is_valid(table, seed, fraction)
        rows = {"train": np.flatnonzero(~is_valid), "valid": np.flatnonzero(is_valid)}
        return {"train": table.filter(pa.array(~is_valid)), "valid": table.filter(pa.array(is_valid)), "test": table.slice(0, 0)}, rows

    def _is_valid(self, rows: pa.Table, seed: int, valid_fraction: float) -> npt.NDArray[np.bool_]:
        count = round(valid_fraction * len(rows))
        if not 0 < count < len(rows):
            kept = f"too few to keep {valid_fraction:g} of them for validation and to train on the others"
            raise DataError(f"X has {len(rows)} rows, {kept}; give more, another valid_fraction in config, or eval_set")
        order = np.random.default_rng(seed).permutation(len(rows))
        if self.time is not None:
            check_column("time", self.time, rows.column_names)
            found = times_of(rows.column(self.time).combine_chunks(), self.time, Place(Path("X"), 0))
            check_one_unit(found, f"time: column {self.time!r} of X orders the rows")
            times = found.values
            if missing := int(np.isnan(times).sum()):
                raise DataError(f"time: column {self.time!r} of X has no time in {missing:,} of {len(rows):,} rows; leave these out")
            order = np.argsort(times, kind="stable")
        is_valid = np.zeros(len(rows), bool)
        is_valid[order[-count:]] = True
        return is_valid

    def _schema(self, tables: Mapping[str, Any], tasks: list[str], given: Mapping[str, Any], report: Report) -> dict[str, Any]:
        """The schema of the rows: drafted, but for what the arguments say. Reports what is read, and what the draft leaves out."""
        kinds = {field.name: field.type for field in tables["test"].schema}
        for argument in ("group", "weight", "time"):
            if (name := getattr(self, argument)) is not None:
                check_column(argument, name, list(kinds))
        with scratch_folder() as folder:
            rows = tables["train"]
            if isinstance(rows, pa.Table):
                pq.write_table(rows.slice(0, SAMPLE_ROWS + 1), folder / "X.parquet")
                rows = folder / "X.parquet"
            try:
                draft = draft_schema([str(rows)], tasks=tasks)
            except DataError as error:
                raise DataError(str(error).replace(str(folder / "X.parquet"), "X")) from error
        schema: dict[str, Any] = yaml.safe_load(draft) | {"name": NAME}
        for key in ("files", "split"):
            schema.pop(key, None)
        numbers = {one["column"]: one for one in schema.get("numeric", ())}
        named = [one["column"] for kind in ("categorical", "numeric") for one in given[kind] or ()]
        for kind, value in given.items():
            drafted = [one for one in schema.get(kind, ()) if one["column"] not in (self.time, self.weight, *named)]
            schema[kind] = drafted if value is None else value
        schema["numeric"] = [one if one.keys() - {"column"} else numbers.get(one["column"], one | NUMBER) for one in schema["numeric"]]
        if not any(schema[kind] for kind in given):
            left = " ".join(line.strip("# ") for line in draft.partition("# Left out:\n")[2].splitlines())
            raise DataError(f"X has no column to learn from beside those of tasks{f': it leaves out {left}' if left else ''}")
        for one in schema["numeric"]:
            if one["column"] in names_of(schema["categorical"]) and one not in (given["numeric"] or ()):
                one.pop("buckets", None)  # one field says which cells are missing
        if not schema["categorical"] and schema["numeric"] and not any("buckets" in one for one in schema["numeric"]):
            schema["numeric"][0]["buckets"] = NUMBER["buckets"]  # a schema needs a field
        for column in (one["column"] for one in schema["categorical"]):
            if pa.types.is_temporal(kind := kinds.get(column, pa.null())) and not pa.types.is_date(kind):
                text = "which has another text in each unit; make its hour, or a text, of it"
                raise DataError(f"categorical: column {column!r} is of type {kind}, {text}")
        others = {"group": self.group, "weight": self.weight, "funnel": self.funnel}
        schema |= {key: value for key, value in others.items() if value is not None}
        if self.funnel is None and "funnel" in schema and any(breaks_funnel(table, tasks) for table in tables.values()):
            del schema["funnel"]
        for line in notes_of(draft, schema, given, kinds, (self.time, self.weight, self.group)):
            report.note(line)
        return schema

    def _earlier_schema(self, run: Path, tasks: list[str], given: Mapping[str, Any]) -> dict[str, Any]:
        """The schema of an earlier run. Raises DataError where the arguments say something else."""
        if not (file := RunFolder(run).schema).is_file():
            raise DataError(f"init: the run in {run} keeps no schema ({file.name}), so nothing says how to read X")
        schema: dict[str, Any] = yaml.safe_load(file.read_text(encoding="utf-8"))
        was = {"group": None, "weight": None, "funnel": False} | schema | {"tasks": names_of(schema["tasks"])}
        was |= {kind: sorted(names_of(schema.get(kind, ()))) for kind in given}
        now = {"tasks": tasks, "group": self.group, "weight": self.weight, "funnel": self.funnel}
        now |= {kind: sorted(names_of(value)) for kind, value in given.items() if value is not None}
        for argument, value in now.items():
            if value is not None and value != was[argument]:
                has = f"the run in {run} has {shown(was[argument])}, and its schema reads X"
                raise DataError(f"{argument}={shown(value)}: {has}; give the same, or fit without init")
        return schema


class _Quiet(Report):
    """Turns a run's warnings into Python's, and says nothing else."""

    def note(self, text: str) -> None:
        if text.startswith("warning: "):
            warnings.warn(text.removeprefix("warning: "), stacklevel=2)


def _delete(folder: Path, maker: int) -> None:
    if os.getpid() == maker:  # A forked child has the object too, but not the folder.
        shutil.rmtree(folder, ignore_errors=True)
