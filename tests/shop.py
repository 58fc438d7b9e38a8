"""Fixtures of what is served and exported: a run, the same calibrated, and that compiled. Do not write into their folders."""

import os
import shutil

import pytest
from torch._inductor import config as inductor

from dcrnn_fast.serving import export
from dcrnn_fast.serving.export import package
from dcrnn_fast.support.locks import locked
from dcrnn_fast.training import calibrate, train
from dcrnn_fast.training.folder.weights import read_weights

from .training.tiny import tiny_config, write_table

CHOOSES_CPUS = hasattr(inductor.cpp, "march")
"""Whether AOTInductor can be told for which CPUs it compiles: from PyTorch 2.13 on."""


@pytest.fixture(scope="session")
def shop(tmp_path_factory):
    """A folder with tiny.csv, its schema and ``run``, a run on it."""
    folder = tmp_path_factory.mktemp("shop")
    train(tiny_config(write_table(folder)), folder / "run")
    return folder


@pytest.fixture(scope="session")
def calibrated_shop(shop, tmp_path_factory):
    """The same, of which the run is calibrated."""
    folder = shutil.copytree(shop, tmp_path_factory.mktemp("calibrated") / "shop")
    calibrate(folder / "run", method="platt")
    return folder


@pytest.fixture(scope="session")
def compiled(calibrated_shop, tmp_path_factory):
    """Its calibrated run, compiled for many CPUs if this is one of them, once for all processes of pytest-xdist: their runs are equal."""
    base = tmp_path_factory.getbasetemp()
    folder = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    digest = read_weights(calibrated_shop / "run" / "model.safetensors")[2]
    path = folder / f"shop-{digest[:16]}.pt2"
    with locked(folder / "compiled.lock", wait=True):
        if not path.exists():
            cpu = "portable" if CHOOSES_CPUS and not package.missing_here(package.portable_kind()) else "native"
            export(calibrated_shop / "run", path, format="aoti", backend="cpp", cpu=cpu)
    return path
