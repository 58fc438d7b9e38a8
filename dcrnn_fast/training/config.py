"""The run configuration: the keys of ``run.yaml``, their defaults and their ranges.

Unknown keys are errors: if a misspelt key were ignored, the run would train another model than the user asked for.
"""

from __future__ import annotations

import math
import os
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ..data import known_data_sets
from ..errors import ConfigError, did_you_mean, shown
from ..support import strict_yaml
from ..support.defaults import DENSE_BINS, DROPOUT, EMBEDDING_DIM, EMBEDDING_INIT_STD, RANK, SHARE_RATIO, STEPS, TOWER_DIMS
from ..support.files import path_of

Ratio = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[int, Field(ge=1, le=10**9)]
Seed = Annotated[int, Field(ge=0, le=2**32 - 1)]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class ModelConfig(_Section):
    """Arguments of :class:`dcrnn_fast.DCRNN` that do not follow from the data."""

    embedding: Literal["dense", "sparse"] = Field(
        default="sparse", description="gradient and optimiser of the embeddings: of the whole table, or of the rows that a step reads"
    )
    embedding_dim: Annotated[int, Field(ge=1, le=4096)] = Field(default=EMBEDDING_DIM, description="width of a field's embedding")
    embedding_init_std: Annotated[float, Field(ge=0, le=10)] = Field(
        default=EMBEDDING_INIT_STD, description="standard deviation with which the embeddings start; 0 starts all ids equal"
    )
    first_order: bool = Field(default=True, description="a number for each id and task, added to the logits")
    steps: Annotated[int, Field(ge=1, le=64)] = Field(default=STEPS, description="applications of the cross cell")
    cell: Literal["gated", "cross"] = Field(default="gated", description="cross cell with or without the gate")
    tied: bool = Field(default=True, description="the same weights at every step")
    sharing: Literal["rows", "trunk"] = Field(default="rows", description="share parameters, or computation too")
    share_ratio: Ratio = Field(default=SHARE_RATIO, description="shared part of the units: 1 is hard sharing, 0 none")
    rank: Annotated[int, Field(ge=1, le=65536)] | None = Field(default=RANK, description="rank of the cell; null: the full cell")
    scenario: str | None = Field(
        default=None, description="categorical field whose ids are scenarios with a trunk each, with sharing: trunk; null: no scenarios"
    )
    dense_bins: Annotated[int, Field(ge=0, le=65536)] = Field(
        default=DENSE_BINS, description="bins of each dense column's own embedding; 0: one projection of all dense columns"
    )
    tower_dims: tuple[Annotated[int, Field(ge=1, le=65536)], ...] = Field(
        default=TOWER_DIMS, max_length=64, description="hidden widths of a task's tower"
    )
    dropout: Annotated[float, Field(ge=0, lt=1)] = Field(default=DROPOUT, description="dropout in the towers")
    relation: Literal["chain", "independent", "transfer"] | None = Field(
        default=None, description="how the tasks depend; null: the data set's own"
    )


class OptimiserConfig(_Section):
    """AdamW and its learning-rate schedule."""

    lr: Annotated[float, Field(gt=0, le=10)] = Field(default=5e-3, description="peak learning rate")
    weight_decay: Annotated[float, Field(ge=0, le=10)] = Field(default=0.3, description="decoupled decay; biases are exempt")
    batch_size: Positive | None = Field(
        default=None, description="rows a step; null: 512, halved while an epoch has fewer than 64 steps, but at least 32"
    )
    epochs: Positive | None = Field(
        default=None, description="passes over the training rows, at most; null: as many as have 2,000 steps, but 6 to 20"
    )
    warmup_steps: Annotated[int, Field(ge=0, le=10**9)] = Field(default=50, description="steps of linear warm-up")
    final_lr_ratio: Ratio = Field(default=0.05, description="where the half cosine after the warm-up ends, as a part of lr; 1: lr stays")
    embedding_lr: Annotated[float, Field(gt=0, le=10)] | None = Field(
        default=None, description="peak learning rate of the embeddings; null: 0.1, or lr for dense embeddings"
    )
    embedding_weight_decay: Annotated[float, Field(ge=0, le=10)] | None = Field(
        default=None, description="decoupled decay of the embeddings; null: 0, or weight_decay for dense embeddings"
    )
    first_order_lr: Annotated[float, Field(gt=0, le=10)] = Field(
        default=0.1, description="peak learning rate of the first-order term's table, which row-wise Adagrad trains"
    )
    clip_norm: Annotated[float, Field(gt=0)] | None = Field(default=None, description="largest gradient norm; null: no clipping")

    def rows_a_step(self, train_rows: int) -> int:
        """``batch_size``; where that is null, 512, halved while an epoch has fewer than 64 steps, but at least 32."""
        if self.batch_size is not None:
            return self.batch_size
        rows = 512
        while rows > 32 and train_rows < 64 * rows:
            rows //= 2
        return rows

    def epochs_of(self, steps: int) -> int:
        """``epochs``; where that is null, as many of ``steps`` steps as have 2,000 steps, but 6 to 20."""
        return self.epochs or min(20, max(6, math.ceil(2000 / steps)))


class LossConfig(_Section):
    """How the losses of the tasks become one number."""

    weighting: Literal["fixed", "uncertainty"] = Field(default="fixed", description="fixed weights, or learnt ones (Kendall et al. 2018)")
    task_weight: tuple[Annotated[float, Field(ge=0)], ...] | None = Field(
        default=None, description="fixed weight of each task; null: 1 each"
    )
    sample_weight: bool = Field(default=False, description="weight the rows by the data set's weight column")
    strict_funnel: bool = Field(default=True, description="refuse a batch in which a later event happens without the earlier one")
    cvr: Literal["entire_space", "ipw"] = Field(
        default="entire_space", description="loss of a chain's conditionals: none of their own, or by inverse propensities"
    )


class StoppingConfig(_Section):
    """Early stopping, on the validation rows alone."""

    monitor: Literal["auc", "log_loss"] = Field(
        default="log_loss",
        description="mean over the tasks on the validation rows; of log_loss, that after the best intercept of each task",
    )
    patience: Positive = Field(default=8, description="evaluations without a better value before the run stops")
    ema_half_life: Annotated[float, Field(ge=0, le=10**9)] = Field(
        default=0.25,
        description="epochs after which weights count half as much in the running mean that is evaluated and kept, at most a twelfth of "
        "the run so far; 0: the newest weights alone",
    )
    every_steps: Positive | None = Field(
        default=None, description="steps between evaluations, apart from that at the end of each epoch; null: four evaluations an epoch"
    )


class RunConfig(_Section):
    """Everything that decides the outcome of a run; docs/guide/configuration.md lists the keys.

    >>> config = RunConfig(data="hillstrom", optimiser={"lr": 0.001})
    >>> config.optimiser.lr, config.model.steps
    (0.001, 2)
    """

    data: str = Field(pattern=r"^[^\x00]*$", description="name of an embedded data set, or path of a schema")
    init: Annotated[str, Field(pattern=r"^[^\x00]*$")] | None = Field(
        default=None, description="run folder whose weights and vocabulary the run starts from; null: it starts anew"
    )
    pretrained: dict[str, Annotated[str, Field(pattern=r"^[^\x00]*$")]] = Field(
        default={}, description="Parquet files of vectors from which the embeddings of categorical fields start, by field"
    )
    negative_rate: Annotated[float, Field(gt=0, le=1)] | None = Field(
        default=None,
        description="part of the rows without the first event that the log kept, by which predictions are corrected; null: all",
    )
    valid_fraction: Annotated[float, Field(gt=0, lt=1)] = Field(
        default=0.1, description="part of the training rows held out for validation"
    )
    split_seed: Seed = Field(default=0, description="seed of the validation split")
    seed: Seed = Field(default=0, description="seed of weights, row order and dropout")
    device: str = Field(default="auto", description="auto, cpu, cuda or cuda:N")
    backend: str = Field(default="auto", description="backend of the operators, see `dcrnn-fast info`")
    threads: Annotated[int, Field(ge=1, le=4096)] | None = Field(
        default=None, description="CPU threads; null: PyTorch's choice, within a container's limit"
    )
    precision: Literal["auto", "float32", "bfloat16"] = Field(
        default="auto", description="what a training step multiplies in; auto: bfloat16 where the device is fast in it"
    )
    compile: bool = Field(default=False, description="let torch.compile make a graph of the training step's model")
    cuda_graph: bool = Field(default=True, description="launch a training step on a GPU as one CUDA graph; false: kernel by kernel")
    oov_dropout: Annotated[float, Field(ge=0, le=10**6)] | Literal["auto"] = Field(
        default="auto",
        description="an id seen n times is read as out of vocabulary with probability oov_dropout / (oov_dropout + n); auto: of each field "
        "at least 10, or less where its ids tell much of the labels, and such that training reads as many cells as unseen as the "
        "validation rows hold",
    )
    checkpoint_every: Positive | None = Field(
        default=None, description="steps between checkpoints; null: 200, or more while writing takes long. One more after every epoch"
    )
    log_every: Positive = Field(default=50, description="steps between points of the training curve")
    model: ModelConfig = ModelConfig()
    optimiser: OptimiserConfig = OptimiserConfig()
    loss: LossConfig = LossConfig()
    early_stopping: StoppingConfig = StoppingConfig()

    @property
    def monitored(self) -> str:
        """The metric that early stopping watches: by the rows' weights where the loss has them."""
        if self.early_stopping.monitor == "log_loss":
            return "shifted_log_loss"
        return "weighted_auc" if self.loss.sample_weight else "auc"

    def to_dict(self) -> dict[str, Any]:
        """The configuration as plain JSON types, every key present."""
        return self.model_dump(mode="json")

    def to_yaml(self) -> str:
        """The configuration as YAML that :func:`load_config` reads back to an equal one."""
        return yaml.safe_dump(self.to_dict(), sort_keys=False)


def load_config(path: str | Path | None = None, overrides: Mapping[str, Any] | None = None) -> RunConfig:
    """Read a YAML file and apply overrides with dotted keys.

    Args:
        path: the file; None starts from the defaults.
        overrides: values by dotted key; ``data`` has no default and must be here or in the file.

    Raises:
        TypeError: ``path`` or ``overrides`` is of another type.
        ConfigError: names the file, the key, the value and the allowed range.

    >>> load_config(None, {"data": "hillstrom", "model.steps": 3}).model.steps
    3
    """
    values: dict[str, Any] = {} if path is None else _read_yaml(path_of("path", path))
    if overrides is not None and not (isinstance(overrides, Mapping) and all(isinstance(key, str) for key in overrides)):
        raise TypeError(f"overrides={shown(overrides)}: expected values by dotted key, such as {{'optimiser.lr': 0.001}}")
    for dotted, value in (overrides or {}).items():
        section = values
        *parents, key = dotted.split(".")
        for parent in parents:
            if section.get(parent) is None:  # in a file also a section without lines
                section[parent] = {}
            section = section[parent]
            if not isinstance(section, dict):
                raise ConfigError(f"{dotted}={shown(value)}: {parent} is not a section of the configuration")
        section[key] = value
    return read_config(values, "the settings" if path is None else str(path))


def read_config(values: Any, source: str) -> RunConfig:
    """The configuration of plain JSON types. Raises :class:`ConfigError` that names ``source``, the key, the value and its range."""
    try:
        config = RunConfig.model_validate(values)
    except ValidationError as error:
        problems = [_explain(source, dict(problem)) for problem in error.errors()]
        more = f"; and {len(problems) - 5} more" if len(problems) > 5 else ""
        raise ConfigError("; ".join(problems[:5]) + more) from None
    if (relation := config.model.relation) not in (None, "chain") and config.loss.cvr != "entire_space":
        raise ConfigError(f"{source}: {no_conditionals(config.loss.cvr, f'model.relation is {relation!r}')}")
    return config


def no_conditionals(cvr: str, why: str) -> str:
    """The message where ``loss.cvr`` adds losses of conditionals, and there are none."""
    return (
        f"loss.cvr is {cvr!r}, a loss of each event given the one before it, but {why}; it needs several tasks and model.relation: chain. "
        "Otherwise leave it at entire_space"
    )


def located(config: RunConfig) -> RunConfig:
    """The configuration with its paths so that they mean the same in every working directory: absolute, and ``data`` where it is one."""
    pretrained = {field: os.path.abspath(path) for field, path in config.pretrained.items()}
    init = None if config.init is None else os.path.abspath(config.init)
    config = config.model_copy(update={"init": init, "pretrained": pretrained})
    if config.data in known_data_sets() or not os.path.exists(config.data):
        return config
    return config.model_copy(update={"data": os.path.abspath(config.data)})


def describe_differences(before: RunConfig, now: RunConfig, *, but: Collection[str] = ()) -> str:
    """The keys in which two configurations differ, except some, with both values in words; empty if they do not."""
    old, new = dict(flat(before.to_dict())), dict(flat(now.to_dict()))
    return "; ".join(f"{key} is {new[key]!r} and was {old[key]!r}" for key in old if key not in but and new[key] != old[key])


def flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """What :meth:`RunConfig.to_dict` gives, by dotted key."""
    for key, value in values.items():
        if isinstance(value, Mapping) and key != "pretrained":
            yield from flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        values = strict_yaml.load(path)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror}); give the path of a YAML run configuration") from error
    except ValueError as error:
        raise ConfigError(f"{path}: is not valid YAML: {error}") from error
    if values is None:
        return {}
    if not isinstance(values, dict) or not all(isinstance(key, str) for key in values):
        raise ConfigError(f"{path}: holds {type(values).__name__}, expected `key: value` lines such as `seed: 0`")
    return values


_BRANCHES = ("constrained-float", "literal['auto']")
"""How pydantic names the types of ``oov_dropout`` behind the key: it reports a value that fits neither of them once for each."""


def in_words(problem: Mapping[str, Any], whole: str = "the whole") -> str:
    """The place of a problem that pydantic found, what stands there, and what is wrong with it; ``whole`` is the place of the whole value.

    >>> from pydantic import TypeAdapter
    >>> try:
    ...     TypeAdapter(dict[str, int]).validate_python({"rows": "many"}, strict=True)
    ... except ValidationError as error:
    ...     print(in_words(error.errors()[0]))
    rows is 'many': Input should be a valid integer
    """
    place = ".".join(str(part) for part in problem["loc"] if part not in _BRANCHES) or whole
    if problem["type"] == "missing":
        return f"{place} is missing"
    return f"{place} is {shown(problem['input'])}: {problem['msg'].removeprefix('Value error, ')}"


def _explain(source: str, problem: Mapping[str, Any]) -> str:
    if problem["type"] != "extra_forbidden":
        return f"{source}: {in_words(problem)}"
    *sections, key = problem["loc"]
    section: Any = RunConfig
    for part in sections:
        section = section.model_fields[part].annotation
    known = list(section.model_fields)
    hint = did_you_mean(key, known) or f"; known keys: {', '.join(known)}"
    return f"{source}: {'.'.join(problem['loc'])} (value {shown(problem['input'])}) is an unknown key{hint}"
