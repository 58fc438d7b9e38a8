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
from ..data.codes.texts import truth_ids
from ..data.encoder.run_folder import read_encoding
from ..data.inspect.oov import id_shares, is_categorical, lost_fields, missing_id
from ..data.packed.meta import MISSING, OOV, SCHEMA
from ..data.schema.table import load_schema
from ..errors import ConfigError, DataError
from ..nn.features import EMBEDDING, FIRST_ORDER
from ..nn.model import DCRNN
from ..support.fields import table_rows
from .config import ModelConfig, RunConfig
from .data import check_same_columns, prepare_data
from .evaluate.metrics import with_constant
from .evaluate.predict import evaluate_split
from .evaluate.ranking import K
from .folder.checkpoint import IDLE, Known, moved, read_known
from .folder.layout import RunFolder, stored_config
from .folder.tensors import load_tensors
from .folder.weights import load_model, read_weights
from .ranks import ONE, Ranks

TABLES = EMBEDDING, FIRST_ORDER
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

    New categories must occur ``min_count`` times, as in any data. :func:`next_encoding` says which ids they get. ``prepared`` prepares
    other rows in an encoding, or for None in their own. Raises what :func:`prepare` raises, :class:`DataError` for other tasks or columns
    than the earlier run's, and :class:`ConfigError` for another model.
    """
    prepared = prepared or partial(prepare_data, config)
    own = prepared(None)
    check_continues(config, earlier, own.meta)
    return prepared(next_encoding(config, earlier, own))


def check_continues(config: RunConfig, earlier: Earlier, meta: PackedMeta) -> None:
    """Raise DataError for data of other tasks or columns than the earlier run's, and ConfigError for a configuration of another model."""
    about, weights = earlier.about, config.init or "init"  # an estimator's earlier run lies in a folder that the user never saw
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


def next_encoding(config: RunConfig, earlier: Earlier, dataset: PackedDataset) -> dict[str, Any]:
    """The encoding of a run that goes on: the earlier one's, with an id for each category of ``dataset`` that it lacks.

    New categories first take the places of ids that the last ``forget`` runs did not see (a key of the schema of ``dataset``) and whose
    categories ``dataset`` does not have either, of the longest unseen first; then they follow behind. Other ids keep their meaning. A field
    of scenarios gets no new ids, because each scenario has weights of its own.
    """
    schema, unseen = dataset.path / SCHEMA, {}
    forget = load_schema(schema).forget if schema.is_file() else None
    if forget:
        known, sizes = read_known(earlier.folder.optimiser, earlier.digest), dict(earlier.about["fields"])
        for name, start in zip(sizes, table_rows(list(sizes), list(sizes.values()), earlier.about["shared"])[1], strict=True):
            idle = known.tensors[IDLE][start : start + sizes[name]].numpy()
            unseen[name] = np.argsort(-idle, kind="stable")[: np.count_nonzero(idle >= forget)]
    return grown_encoding(earlier.encoding, dataset.meta.vocabulary, but=config.model.scenario, unseen=unseen)


def grown_encoding(
    encoding: Mapping[str, Any],
    vocabulary: Mapping[str, list[Any]],
    *,
    but: str | None = None,
    unseen: Mapping[str, npt.NDArray[np.int64]] | None = None,
) -> dict[str, Any]:
    """``encoding`` with the categories of ``vocabulary`` that it lacks, behind its own; the field ``but``, and those with its ids, stay.

    Categories of ``unseen`` ids, by field, that ``vocabulary`` does not have either make room for new ones, the first of them first.

    >>> known = {"vocabulary": {"city": ["<oov>", "a", "b"], "price": [1.0]}, "scaling": {}}
    >>> grown_encoding(known, {"city": ["<oov>", "c", "a"], "price": [7.0]})["vocabulary"]
    {'city': ['<oov>', 'a', 'b', 'c'], 'price': [1.0]}
    >>> grown_encoding(known, {"city": ["<oov>", "c", "d", "a"]}, unseen={"city": np.array([1, 2])})["vocabulary"]["city"]
    ['<oov>', 'a', 'c', 'd']
    """
    grown, shared = {}, encoding.get("shared", {})
    fixed = shared.get(but, but)
    for field, known in encoding["vocabulary"].items():
        now = vocabulary.get(field, [])
        grows = shared.get(field, field) != fixed and known[:1] == now[:1] == [OOV]
        stay, added = {MISSING, *now}, set(now).difference(known) if grows else set()
        if added <= truth_ids(known).keys():  # other spellings of ids that are known
            added = set()
        new = [text for text in now if text in added]
        free = [at for at in (unseen or {}).get(field, ()) if known[at] not in stay] if new else []
        places = sorted(free[: len(new)])  # so that the same comes of a vocabulary that has grown already
        grown[field] = [*known, *new[len(places) :]]
        for at, text in zip(places, new, strict=False):
            grown[field][at] = text
    return {**encoding, "vocabulary": grown}


def load_earlier(model: nn.Module, earlier: Earlier, meta: PackedMeta) -> None:
    """Copy the earlier run's weights into a model of the data ``meta``. Rows of new ids keep what they start with.

    Raises :class:`dcrnn_fast.errors.CheckpointError` if other weights than the tables' do not fit.
    """
    state, sources = model.state_dict(), torch.from_numpy(_sources(earlier, meta))
    tables, kept = {name: state[name].to("cpu", copy=True) for name in TABLES if name in state}, sources >= 0
    for name, table in tables.items():
        table[kept] = earlier.tensors[name][sources[kept]]
    load_tensors(model, earlier.tensors | tables, earlier.folder.weights)


def known_before(earlier: Earlier, meta: PackedMeta) -> Known:
    """What the earlier run's optimisers know, in the tables of a model of the data ``meta``. Raises what :func:`read_known` does."""
    return moved(read_known(earlier.folder.optimiser, earlier.digest), torch.from_numpy(_sources(earlier, meta)))


def _sources(earlier: Earlier, meta: PackedMeta) -> npt.NDArray[np.int64]:
    """For each row of the table of ids of ``meta``, the row of the same id in the earlier run's table; -1 for a new id."""
    sizes, known = dict(earlier.about["fields"]), earlier.encoding["vocabulary"]
    (_, old), (rows, new) = (table_rows(list(meta.fields), list(sized.values()), meta.shared) for sized in (sizes, meta.fields))
    found = np.full(rows, -1)
    for name, start, target in zip(meta.fields, old, new, strict=True):
        if name not in meta.shared:
            texts = zip(known[name], meta.vocabulary[name], strict=False)
            found[target : target + sizes[name]] = np.arange(start, start + sizes[name])
            found[[target + at for at, (before, now) in enumerate(texts) if before != now]] = -1
    return found


class _KnownIds:
    """The ids of a split as an earlier run reads them: it takes ids that it did not know for out of vocabulary."""

    def __init__(self, ids: npt.NDArray[np.int32], starts: list[int], known: npt.NDArray[np.bool_]) -> None:
        self._ids, self._starts, self._known = ids, np.array(starts), known
        self.shape, self.dtype = ids.shape, ids.dtype

    def __getitem__(self, rows: slice) -> npt.NDArray[np.int32]:
        ids = np.asarray(self._ids[rows])
        return np.where(self._known[ids + self._starts], ids, 0).astype(ids.dtype)


def compare(config: RunConfig, earlier: Earlier, dataset: PackedDataset, device: torch.device, ranks: Ranks = ONE) -> dict[str, Any]:
    """Evaluate the earlier run's weights on new rows, before they are trained further, and compare the rows with its own.

    ``dataset`` is the result of :func:`continued_data`. Ids that the earlier run did not know count as out of vocabulary for its weights.

    Several ranks, which must all call this, evaluate together. Returns JSON values:
        run: the earlier run's folder.
        metrics: for the ``train`` rows and, if there are any, the ``test`` rows, the metrics of every task; ``constant_log_loss`` is that
            of the base rates of the earlier run's train rows.
        base_rates: by task, the part of positive labels among the ``earlier`` run's train rows, and among the train rows ``now``.
        oov: by categorical field, the share of the rows that are out of vocabulary: of the ``earlier`` run's train rows, of the train rows
            ``now`` by its vocabulary, and of these ``with_new_ids``; the number of ``new_ids``; and if any, that of ids that are
            ``gone``, whose rows serve new ids.
        warnings: fields that nearly all of the new train rows lose.
    """
    about, meta = earlier.about, dataset.meta
    sizes, is_known = dict(about["fields"]), _sources(earlier, meta) >= 0
    _, starts = table_rows(list(meta.fields), list(meta.fields.values()), meta.shared)
    known_of = {name: is_known[start : start + meta.fields[name]] for name, start in zip(meta.fields, starts, strict=True)}

    def as_before(split: PackedSplit) -> PackedSplit:
        return replace(split, ids=cast(Any, _KnownIds(split.ids, starts, is_known)))

    model, _ = load_model(earlier.folder.weights, device=device, backend=config.backend)
    cast(DCRNN, model).negative_rate = 1.0  # The log's rows are scored as they are.
    rates, shares = about["base_rates"], about["id_shares"]
    metrics = {
        name: with_constant(evaluate_split(model, as_before(split), meta, device, ranks, k=K), rates)
        for name in ("train", "test")
        if (split := dataset.splits.get(name))
    }
    train = dataset.split("train")
    known, grown = id_shares(as_before(train), meta), id_shares(train, meta)
    for field, column in meta.first_columns.items():
        if not known_of[column][missing_id(meta, field) or 0]:  # the earlier run reads a missing cell as out of vocabulary
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
                "new_ids": (new := int(np.count_nonzero(~known_of[column]))),
                **({"gone": gone} if (gone := new - (meta.fields[column] - sizes[column])) else {}),
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
        + (f", {share['gone']:,} of them in the rows of ids that are gone" if "gone" in share else "")
        for field, share in start["oov"].items()
    ]
    return lines + [f"warning: {line}" for line in start["warnings"]]
