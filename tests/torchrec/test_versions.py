"""Without a torchrec that fits, the import says why and what to install. These tests need no torchrec."""

import sys
from importlib import import_module

import pytest

from dcrnn_fast.errors import DcrnnFastError, MissingExtra

PART = "dcrnn_fast.torchrec"
INSTALL = r"torchrec 1\.8\.0 with fbgemm-gpu-cpu 1\.8\.0 was tested with PyTorch 2\.13; install these: pip install 'dcrnn_fast\[torchrec\]'"


@pytest.fixture
def _unimported(monkeypatch):
    for name in [name for name in sys.modules if name.startswith((PART, "torchrec"))]:
        monkeypatch.delitem(sys.modules, name)


@pytest.mark.usefixtures("_unimported")
def test_without_torchrec_the_message_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "torchrec", None)
    with pytest.raises(
        MissingExtra, match=rf"^dcrnn_fast.torchrec cannot be used: importing torchrec fails with ModuleNotFoundError: .*\. {INSTALL}"
    ) as caught:
        import_module(PART)
    assert isinstance(caught.value, ImportError)
    assert isinstance(caught.value, DcrnnFastError)


@pytest.mark.usefixtures("_unimported")
def test_a_library_that_does_not_fit_is_named(monkeypatch, tmp_path):
    (tmp_path / "torchrec.py").write_text("raise OSError('Could not load this library: /lib/fbgemm_gpu_tbe.so')")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(MissingExtra, match=r"importing torchrec fails with OSError: .*fbgemm_gpu_tbe"):
        import_module(PART)
