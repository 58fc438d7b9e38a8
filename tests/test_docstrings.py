"""What ``dcrnn_fast``, its reference and its operators offer has an example in each docstring; every example in the package runs."""

import doctest
import inspect
from importlib import import_module
from pathlib import Path

import pytest

import dcrnn_fast
from dcrnn_fast import functional, reference
from dcrnn_fast.sharing import PlanCost

ROOT = Path(dcrnn_fast.__file__).parent
WITH_EXAMPLES = [
    ".".join(path.relative_to(ROOT.parent).with_suffix("").parts).removesuffix(".__init__")
    for path in sorted(ROOT.rglob("*.py"))
    if ">>>" in path.read_text(encoding="utf-8")
]
PUBLIC = {
    f"{module.__name__}.{name}": value
    for module, names in (
        (dcrnn_fast, (*dcrnn_fast.__all__, "Ranker")),
        (reference, reference.__all__),
        (functional, ("cross_rnn", "param_gather")),
    )
    for name in names
    if not inspect.ismodule(value := getattr(module, name))
} | {"dcrnn_fast.sharing.PlanCost": PlanCost}


@pytest.mark.parametrize("thing", PUBLIC.values(), ids=PUBLIC)
def test_a_public_class_or_function_has_an_example(thing):
    assert doctest.DocTestParser().get_examples(thing.__doc__ or "")


@pytest.mark.parametrize("module", WITH_EXAMPLES)
def test_the_examples_run_as_they_stand(module):
    """Examples of the package's face import what they use; those of data and training use the names of their own module."""
    if module.startswith("dcrnn_fast.torchrec"):
        pytest.importorskip("torchrec")
    inner = module.startswith(("dcrnn_fast.data", "dcrnn_fast.training"))
    assert doctest.testmod(import_module(module), globs=None if inner else {}).failed == 0
