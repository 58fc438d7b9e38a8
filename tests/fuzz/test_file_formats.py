"""Files that were damaged or made up: reading one ends in a value or in an error of the package, and takes memory like its size.

By default a few seconds. `FUZZ_MINUTES=5` runs five minutes with a fresh seed, `FUZZ_SEED=7` repeats a run of that seed.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import random
import shutil
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
import pytest
import torch
import yaml
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from bench.machine import memory_growth
from dcrnn_fast import DcrnnFastError
from dcrnn_fast.data import BlockLoader, Encoder, PackedMeta, open_packed, prepare
from dcrnn_fast.data.encoder.run_folder import read_encoding
from dcrnn_fast.data.schema.table import load_schema
from dcrnn_fast.support.strict_json import json_digest
from dcrnn_fast.training import Report, load_config, load_model, train
from dcrnn_fast.training.data import prepare_data
from dcrnn_fast.training.evaluate.calibration_file import read_calibration
from dcrnn_fast.training.folder.layout import RunFolder
from dcrnn_fast.training.folder.tensors import canonical_json
from dcrnn_fast.training.folder.weights import export_weights, read_weights
from dcrnn_fast.training.loop.job import Job
from dcrnn_fast.training.loop.trainer import Trainer
from tests.fuzz.damaged import changed_bytes, changed_value
from tests.training.tiny import tiny_config, tiny_values, write_table

SECONDS = 60 * float(os.environ.get("FUZZ_MINUTES", 0)) or 3.0
SEED = int(os.environ.get("FUZZ_SEED") or (random.SystemRandom().getrandbits(32) if os.environ.get("FUZZ_MINUTES") else 0))
MEMORY = 300 << 20
"""Bytes by which the process may grow in one call; every file here has less than 100 KB."""


class Originals:
    """A schema with its table, its packed data, a run on it, and a run configuration. Copies are damaged, these stay whole."""

    def __init__(self, folder: Path) -> None:
        self.schema = write_table(folder / "table", rows=300)
        self.config = tiny_config(self.schema, optimiser__epochs=1)
        self.dataset = prepare_data(self.config)
        train(self.config, folder / "run")
        self.run = RunFolder(folder / "run")
        self.packed = shutil.copytree(self.dataset.path, folder / "packed")
        self.settings = folder / "run.yaml"
        self.settings.write_text(yaml.safe_dump(load_config(None, tiny_values(self.schema)).to_dict()))
        self.work = folder / "work"

    def copy(self, path: Path) -> Path:
        """A copy of a file or folder, alone in the folder `work`."""
        shutil.rmtree(self.work, ignore_errors=True)
        self.work.mkdir()
        to = self.work / path.name
        return Path(shutil.copytree(path, to) if path.is_dir() else shutil.copy(path, to))


@pytest.fixture(scope="module")
def originals(tmp_path_factory: pytest.TempPathFactory) -> Originals:
    return Originals(tmp_path_factory.mktemp("originals"))


def read_packed(folder: Path) -> None:
    """Open packed data and read all of it, as training does."""
    data = open_packed(folder, verify=True)
    for split in data.splits.values():
        if len(split):
            list(BlockLoader(split, 512, shuffle=True).batches())


def packed_bytes(originals: Originals, draw: st.DrawFn) -> Callable[[], Any]:
    folder = originals.copy(originals.packed)
    file = draw(st.sampled_from(sorted(folder.iterdir())))
    other = draw(st.sampled_from(sorted(folder.iterdir())))
    file.write_bytes(draw(changed_bytes(file.read_bytes(), other.read_bytes())))
    return lambda: read_packed(folder)


def packed_meta(originals: Originals, draw: st.DrawFn) -> Callable[[], Any]:
    file = originals.copy(originals.packed) / "meta.json"
    content = draw(changed_value(json.loads(file.read_text())))
    with contextlib.suppress(AttributeError, TypeError, ValueError):  # Without all keys it cannot be sealed.
        content["digest"] = PackedMeta(**content).computed_digest()
    file.write_text(json.dumps(content))
    return lambda: read_packed(file.parent)


def weight_bytes(originals: Originals, draw: st.DrawFn) -> Callable[[], Any]:
    file = originals.copy(originals.run.weights)
    file.write_bytes(draw(changed_bytes(file.read_bytes(), originals.run.encoder.read_bytes())))
    return lambda: load_model(file)


def weight_content(originals: Originals, draw: st.DrawFn) -> Callable[[], Any]:
    tensors, about, _ = read_weights(originals.run.weights)
    if draw(st.booleans()):
        about = draw(changed_value(about))
    else:
        tensors = changed_tensors(tensors, draw)
    file = originals.copy(originals.run.weights)
    export_weights(file, tensors, about)
    return lambda: load_model(file)


def changed_tensors(tensors: dict[str, torch.Tensor], draw: st.DrawFn) -> dict[str, torch.Tensor]:
    name = draw(st.sampled_from(sorted(tensors)))
    dtypes = [torch.int8, torch.bool, torch.complex64, torch.float64, torch.bfloat16, torch.uint16]
    change = draw(st.sampled_from(["drop", "rename", "flatten", "grow", "empty", *dtypes]))
    tensors = dict(tensors)
    value = tensors.pop(name)
    if change == "drop":
        return tensors
    if change == "rename":
        return tensors | {name + "x": value}
    ways = {"flatten": lambda: value.flatten(), "grow": lambda: value[None], "empty": lambda: value.flatten()[:0]}
    return tensors | {name: ways[change]() if change in ways else value.to(change)}


def encoder_bytes(originals: Originals, draw: st.DrawFn) -> Callable[[], Any]:
    file = originals.copy(originals.run.encoder)
    file.write_bytes(draw(changed_bytes(file.read_bytes(), originals.run.metrics.read_bytes())))
    about = read_weights(originals.run.weights)[1]
    return lambda: read_encoding(file, about)


def encoder_content(originals: Originals, draw: st.DrawFn) -> Callable[[], Any]:
    content = draw(changed_value(json.loads(originals.run.encoder.read_text())))
    file = originals.copy(originals.run.encoder)
    file.write_text(json.dumps(content))
    about = read_weights(originals.run.weights)[1] | {"encoding": hashlib.sha256(canonical_json(content)).hexdigest()}
    return lambda: prepare(originals.schema, cache_dir=file.parent / "cache", encoding=read_encoding(file, about))


def encode_with(folder: Path) -> None:
    """Encode rows as a server of the model does."""
    Encoder.load(folder).encode({"shape": ["s1", None], "colour": ["c1", "c9"], "size": [0.5, None]})


def packed_encoder(originals: Originals, draw: st.DrawFn) -> Callable[[], Any]:
    packed_meta(originals, draw)
    return lambda: encode_with(originals.work / originals.packed.name)


def run_encoder(originals: Originals, draw: st.DrawFn) -> Callable[[], Any]:
    tensors, about, _ = read_weights(originals.run.weights)
    content = json.loads(originals.run.encoder.read_text())
    if draw(st.booleans()):
        about = draw(changed_value(about))
    else:
        content = draw(changed_value(content))
        about["encoding"] = hashlib.sha256(canonical_json(content)).hexdigest()
    folder = originals.copy(originals.run.encoder).parent
    (folder / "encoder.json").write_text(json.dumps(content))
    export_weights(folder / "model.safetensors", tensors, about)
    if draw(st.booleans()):
        file = folder / draw(st.sampled_from(["encoder.json", "model.safetensors"]))
        file.write_bytes(draw(changed_bytes(file.read_bytes(), originals.run.metrics.read_bytes())))
    return lambda: encode_with(folder)


def calibration_content(originals: Originals, draw: st.DrawFn) -> Callable[[], Any]:
    line = {"method": "platt", "rows": 9, "positives": 3, "slope": 0.5, "intercept": -1.0}
    steps = {"method": "isotonic", "rows": 9, "positives": 3, "knots": [-1.0, 1.0], "calibrated": [-2.0, 0.0]}
    content = draw(changed_value({"weights": "", "split": "valid", "maps": {"click": line, "buy_given_click": steps}}))
    file = originals.copy(originals.run.encoder).with_name("calibration.json")
    file.write_text(json.dumps({**content, "digest": json_digest(content)} if isinstance(content, dict) else [content]))
    if draw(st.booleans()):
        file.write_bytes(draw(changed_bytes(file.read_bytes(), originals.run.metrics.read_bytes())))
    half = np.full(3, 0.5, dtype=np.float32)

    def score() -> None:
        calibration = read_calibration(file, {"tasks": ["click", "buy"], "relation": "chain"}, "")
        if calibration is not None:
            calibration.apply({"click": half, "buy": half, "buy_given_click": half}, ("click", "buy"), 0.1)

    return score


def resume_from(originals: Originals, file: Path) -> None:
    Trainer.resumed(Job(originals.config, originals.dataset, originals.run, Report(), torch.device("cpu")), file)


def checkpoint_bytes(originals: Originals, draw: st.DrawFn) -> Callable[[], Any]:
    file = originals.copy(originals.run.newest_checkpoint())
    file.write_bytes(draw(changed_bytes(file.read_bytes(), originals.run.weights.read_bytes())))
    return lambda: resume_from(originals, file)


def settings_bytes(originals: Originals, draw: st.DrawFn) -> Callable[[], Any]:
    file = originals.copy(originals.settings)
    file.write_bytes(draw(changed_bytes(file.read_bytes(), originals.schema.read_bytes())))
    return lambda: load_config(file).to_yaml()


def settings_content(originals: Originals, draw: st.DrawFn) -> Callable[[], Any]:
    file = originals.copy(originals.settings)
    file.write_text(yaml.safe_dump(draw(changed_value(yaml.safe_load(file.read_text())))))
    return lambda: load_config(file).to_yaml()


def schema_bytes(originals: Originals, draw: st.DrawFn) -> Callable[[], Any]:
    file = originals.copy(originals.schema)
    file.write_bytes(draw(changed_bytes(file.read_bytes(), originals.settings.read_bytes())))
    return lambda: load_schema(file)


def schema_content(originals: Originals, draw: st.DrawFn) -> Callable[[], Any]:
    file = originals.copy(originals.schema.parent) / "tiny.yaml"
    file.write_text(yaml.safe_dump(draw(changed_value(yaml.safe_load(file.read_text())))))
    return lambda: prepare(file, cache_dir=file.parent / "cache")


def table_bytes(originals: Originals, draw: st.DrawFn) -> Callable[[], Any]:
    folder = originals.copy(originals.schema.parent)
    file = folder / "tiny.csv"
    file.write_bytes(draw(changed_bytes(file.read_bytes(), originals.settings.read_bytes())))
    return lambda: prepare(folder / "tiny.yaml", cache_dir=folder / "cache")


def parquet_bytes(originals: Originals, draw: st.DrawFn) -> Callable[[], Any]:
    folder = originals.copy(originals.schema.parent)
    file = folder / "tiny.parquet"
    pq.write_table(pa_csv.read_csv(folder / "tiny.csv"), file)
    file.write_bytes(draw(changed_bytes(file.read_bytes(), originals.settings.read_bytes())))
    schema = yaml.safe_load(originals.schema.read_text()) | {"files": {"all": "tiny.parquet", "test_fraction": 0.3}}
    (folder / "tiny.yaml").write_text(yaml.safe_dump(schema))
    return lambda: prepare(folder / "tiny.yaml", cache_dir=folder / "cache")


FORMATS = (
    packed_bytes,
    packed_meta,
    weight_bytes,
    weight_content,
    encoder_bytes,
    encoder_content,
    packed_encoder,
    run_encoder,
    calibration_content,
    checkpoint_bytes,
    settings_bytes,
    settings_content,
    schema_bytes,
    schema_content,
    table_bytes,
    parquet_bytes,
)


def finding_of(call: Callable[[], Any]) -> str | None:
    """What is wrong with the end of a call: another exception than the documented ones, or too much memory."""
    grown = memory_growth()
    try:
        call()
    except DcrnnFastError as error:
        if len(str(error)) > 3000:
            return f"a message of {len(str(error))} characters: {str(error)[:200]}..."
    except Exception:
        return traceback.format_exc(limit=-4)
    return f"the process grew by {grown() >> 20} MiB" if grown() > MEMORY else None


def fuzz(make: Callable[[Originals, st.DrawFn], Callable[[], Any]], originals: Originals, number: int, findings: list[str | None]) -> None:
    """Damage and read ten files of a format, and append how each ended."""

    @seed(SEED + number)
    @settings(max_examples=10, database=None, derandomize=False, phases=[Phase.generate], suppress_health_check=list(HealthCheck))
    @given(st.data())
    def once(data: st.DataObject) -> None:
        findings.append(finding_of(make(originals, data.draw)))

    once()


@pytest.mark.filterwarnings("ignore")
def test_damaged_and_made_up_files_end_in_an_error_of_the_package(originals, capsys):
    ends: list[str | None] = []
    distinct: dict[str, str] = {}
    number, stop = 0, time.monotonic() + SECONDS
    while time.monotonic() < stop:
        make, before = FORMATS[number % len(FORMATS)], len(ends)
        fuzz(make, originals, number, ends)
        for finding in filter(None, ends[before:]):
            distinct.setdefault(f"{make.__name__}: {finding.strip().splitlines()[-1]}", f"round {number}\n{finding}")
        number += 1
    with capsys.disabled():
        sys.stdout.write("".join(f"\n{name}\n{finding}" for name, finding in distinct.items()))
        sys.stdout.write(f"\nFUZZ file_formats: {len(ends)} calls, {len(distinct)} findings (FUZZ_SEED={SEED})\n")
    assert not distinct


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: {}["absent"], "KeyError"),
        (lambda: bytearray(b"1") * (2 * MEMORY), "the process grew by"),
    ],
)
def test_the_fuzzer_finds_another_exception_and_too_much_memory(call, said):
    assert said in finding_of(call)
