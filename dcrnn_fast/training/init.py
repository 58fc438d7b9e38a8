"""Going on with new data: a run that starts from an earlier run's weights and vocabulary, and how the new rows differ from the old ones."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from ..data import PackedDataset, PackedMeta, PackedSplit
from ..data.encoder.run_folder import read_encoding
from ..data.inspect.oov import id_shares, is_categorical, lost_fields, missing_id
from ..data.packed.meta import OOV
from ..errors import ConfigError, DataError
from ..nn.model import DCRNN
from ..support.model_inputs import table_rows
from .config import ModelConfig, RunConfig
from .data import check_same_columns, prepare_data
from .evaluate.metrics import with_constant
from .evaluate.predict import evaluate_split
from .folder.layout import RunFolder, stored_config
from .folder.optimiser_file import Known, moved, read_known
from .folder.tensors import load_tensors
from .folder.weights import load_model, read_weights
from .ranks import ONE, Ranks

EMBEDDING = "embedding.weight"
TABLES = (EMBEDDING, "first_order.table.weight")
MAY_DIFFER = ("dropout", "embedding_init_std", "relation")
"""Keys of the section ``model`` that change neither a weight's shape nor what it means. The relation is compared with the data's own."""


class Earlier(NamedTuple):
    """An earlier run: its folder, the description, the tensors and the digest of its best weights, and its encoding."""

    folder: RunFolder
    about: dict[str, Any]
    tensors: dict[str, Tensor]
    encoding: dict[str, Any]
    digest: str


def read_earlier(root: Path) -> Earlier:
    """The run in ``root``. Raises :class:`dcrnn_fast.errors.CheckpointError` if there is none, or it has no whole weights."""
    stored_config(root)
    folder = RunFolder(root)
    tensors, about, digest = read_weights(folder.weights)
    return Earlier(folder, about, tensors, read_encoding(folder.encoder, about), digest)


def continued_data(
    config: RunConfig, earlier: Earlier, prepared: Callable[[Mapping[str, Any] | None], PackedDataset] | None = None
) -> PackedDataset:
    """The configuration's data in the earlier run's encoding, with an id for each category of the train rows that it did not know.

    New categories must occur ``min_count`` times, as in any data. Their ids follow the earlier run's ids, which keep their meaning.
    A field of scenarios gets no new ids, because each scenario has weights of its own. ``prepared`` prepares other rows in an encoding, or
    for None in their own. Raises what :func:`prepare` raises, :class:`DataError` for other tasks or columns than the earlier run's, and
    :class:`ConfigError` for another model.
    """
    prepared = prepared or partial(prepare_data, config)
    meta = prepared(None).meta
    check_continues(config, earlier, meta)
    return prepared(grown_encoding(earlier.encoding, meta.vocabulary, but=config.model.scenario))


def check_continues(config: RunConfig, earlier: Earlier, meta: PackedMeta) -> None:
    """Raise DataError for data of other tasks or columns than the earlier run's, and ConfigError for a configuration of another model."""
    about, weights = earlier.about, earlier.folder.weights
    check_same_columns(about | {"fields": [name for name, _ in about["fields"]]}, meta, list(meta.fields), weights, "go on with")
    sizes, hashed = dict(about["fields"]), {name for name, known in earlier.encoding["vocabulary"].items() if not known}
    for name in sorted(hashed & meta.fields.keys()):
        if meta.fields[name] != sizes[name]:
            buckets = f"{sizes[name] - 1:,} hash_buckets of {name!r}, but {meta.name} has {meta.fields[name] - 1:,}"
            raise DataError(f"{weights} was trained with {buckets}, in which an id has another row; go on with as many")
    models = (ModelConfig.model_validate(values).model_dump() for values in (about["model"], config.model.model_dump()))
    before, now = ({key: value for key, value in model.items() if key not in MAY_DIFFER} for model in models)
    before["relation"], now["relation"] = about["relation"], config.model.relation or meta.relation
    if differing := "; ".join(f"model.{key} is {now[key]!r} and was {before[key]!r}" for key in now if now[key] != before[key]):
        raise ConfigError(f"{weights} is of another model: {differing}; go on with its model, or start a new run without init")


def grown_encoding(encoding: Mapping[str, Any], vocabulary: Mapping[str, list[Any]], *, but: str | None = None) -> dict[str, Any]:
    """``encoding`` with the categories of ``vocabulary`` that it lacks, behind its own; the field ``but``, and those with its ids, stay.

    >>> known = {"vocabulary": {"city": ["<oov>", "a", "b"], "price": [1.0]}, "scaling": {}}
    >>> grown_encoding(known, {"city": ["<oov>", "c", "a"], "price": [7.0]})["vocabulary"]
    {'city': ['<oov>', 'a', 'b', 'c'], 'price': [1.0]}
    """
    grown, shared = {}, encoding.get("shared", {})
    fixed = shared.get(but, but)
    for field, known in encoding["vocabulary"].items():
        now = vocabulary.get(field, [])
        grows = shared.get(field, field) != fixed and known[:1] == now[:1] == [OOV]
        new = set(now).difference(known) if grows else set()
        grown[field] = [*known, *(text for text in now if text in new)]
    return {**encoding, "vocabulary": grown}


def load_earlier(model: nn.Module, earlier: Earlier, fields: Mapping[str, int]) -> None:
    """Copy the earlier run's weights into a model of ``fields`` (the number of ids by field). Rows of new ids keep what they start with.

    Raises :class:`dcrnn_fast.errors.CheckpointError` if other weights than the tables' do not fit.
    """
    state = model.state_dict()
    tables = {name: state[name].clone() for name in TABLES if name in state}
    for before, now, size in _places(earlier, fields)[0].values():
        for name, table in tables.items():
            table[now : now + size] = earlier.tensors[name][before : before + size]
    load_tensors(model, earlier.tensors | tables, earlier.folder.weights)


def known_before(earlier: Earlier, fields: Mapping[str, int]) -> Known | None:
    """What the earlier run's optimisers know, in the tables of a model of ``fields``; None if it has no file of that."""
    known = read_known(earlier.folder.optimiser, earlier.digest)
    return None if known is None else moved(known, *_places(earlier, fields))


def _places(earlier: Earlier, fields: Mapping[str, int]) -> tuple[dict[str, tuple[int, int, int]], int, int]:
    """By field, the first row of its ids in the earlier run's tables and in those of ``fields``, and its size; and both tables."""
    sizes, shared = dict(earlier.about["fields"]), earlier.about["shared"]
    (before, old), (now, new) = (table_rows(list(fields), list(sized.values()), shared) for sized in (sizes, fields))
    return {name: (start, target, size) for (name, size), start, target in zip(sizes.items(), old, new, strict=True)}, before, now


class _KnownIds:
    """The ids of a split as an earlier run reads them: it takes ids that it did not know for out of vocabulary."""

    def __init__(self, ids: npt.NDArray[np.int32], sizes: list[int]) -> None:
        self._ids, self._sizes = ids, np.array(sizes, dtype=np.int64)
        self.shape, self.dtype = ids.shape, ids.dtype

    def __getitem__(self, rows: slice) -> npt.NDArray[np.int32]:
        ids = np.asarray(self._ids[rows])
        return np.where(ids < self._sizes, ids, 0).astype(ids.dtype)


def compare(config: RunConfig, earlier: Earlier, dataset: PackedDataset, device: torch.device, ranks: Ranks = ONE) -> dict[str, Any]:
    """Evaluate the earlier run's weights on new rows, before they are trained further, and compare the rows with its own.

    ``dataset`` is the result of :func:`continued_data`. Ids that the earlier run did not know count as out of vocabulary for its weights.

    Several ranks, which must all call this, evaluate together. Returns JSON values:
        run: the earlier run's folder.
        metrics: for the ``train`` rows and, if there are any, the ``test`` rows, the metrics of every task; ``constant_log_loss`` is that
            of the base rates of the earlier run's train rows.
        base_rates: by task, the part of positive labels among the ``earlier`` run's train rows, and among the train rows ``now``.
        oov: by categorical field, the share of the rows that are out of vocabulary: of the ``earlier`` run's train rows, of the train rows
            ``now`` by its vocabulary, and of these ``with_new_ids``; and the number of ``new_ids``.
        warnings: fields that nearly all of the new train rows lose.
    """
    about, meta = earlier.about, dataset.meta
    sizes = dict(about["fields"])

    def as_before(split: PackedSplit) -> PackedSplit:
        return replace(split, ids=cast(Any, _KnownIds(split.ids, list(sizes.values()))))

    model, _ = load_model(earlier.folder.weights, device=device, backend=config.backend)
    cast(DCRNN, model).negative_rate = 1.0  # The log's rows are scored as they are.
    rates, shares = about["base_rates"], about["id_shares"]
    metrics = {
        name: with_constant(evaluate_split(model, as_before(split), meta, device, ranks), rates)
        for name in ("train", "test")
        if (split := dataset.splits.get(name))
    }
    train = dataset.split("train")
    known, grown = id_shares(as_before(train), meta), id_shares(train, meta)
    for field, column in meta.first_columns.items():
        if (missing_id(meta, field) or 0) >= sizes[column]:  # the earlier run reads a missing cell as out of vocabulary
            known[field]["missing"] = None
    return {
        "run": str(earlier.folder.root),
        "metrics": metrics,
        "base_rates": {
            task: {"earlier": rates.get(task), "now": entry["positives"] / entry["rows"] if entry["rows"] else None}
            for task, entry in metrics["train"].items()
        },
        "oov": {
            field: {
                "earlier": shares.get(field, {}).get("oov"),
                "now": known[field]["oov"],
                "with_new_ids": grown[field]["oov"],
                "new_ids": meta.fields[column] - sizes[column],
            }
            for field, column in meta.first_columns.items()
            if is_categorical(meta, field)
        },
        "warnings": lost_fields(shares, known, "new train", len(train)),
    }


def in_words(start: Mapping[str, Any]) -> list[str]:
    """The lines that a run prints of :func:`compare`'s result before it trains."""

    def number(value: float | None, form: str) -> str:
        return "unknown" if value is None else format(value, form)

    lines = [f"starting from the weights of {start['run']}; on the train rows, before training, they have:"]
    for task, entry in start["metrics"]["train"].items():
        rate = start["base_rates"].get(task, {})
        lines.append(
            f"  {task}: auc {number(entry['auc'], '.4f')}, log loss {number(entry['log_loss'], '.4f')}, "
            f"calibration {number(entry['calibration'], '.4f')}; base rate {number(rate.get('now'), '.4f')}, "
            f"was {number(rate.get('earlier'), '.4f')}"
        )
    lines += [
        f"  {field}: {number(share['now'], '.1%')} of the rows out of vocabulary, was {number(share['earlier'], '.1%')}; "
        f"{number(share['with_new_ids'], '.1%')} with {share['new_ids']:,} new ids"
        for field, share in start["oov"].items()
    ]
    return lines + [f"warning: {line}" for line in start["warnings"]]
