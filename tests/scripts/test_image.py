"""What the Dockerfile names is there. It was built by hand: no machine that runs these tests needs an engine for containers."""

import re

import pytest

from scripts.tree import ROOT

DOCKERFILE = (ROOT / "Dockerfile").read_text()


def names(pattern, text):
    found = set(re.findall(pattern, text))
    assert found, f"the Dockerfile names nothing like {pattern}"
    return found


def test_its_extras_are_the_packages():
    assert names(r'"/src\[(\w+)\]"', DOCKERFILE) <= names(r"(?m)^(\w+) = \[", (ROOT / "pyproject.toml").read_text())


def test_its_cmake_options_are_the_projects():
    of_project = names(r"(?m)^(?:option|set)\((DCRNN_FAST_\w+)", (ROOT / "CMakeLists.txt").read_text())
    assert names(r"-D(DCRNN_FAST_\w+)=", DOCKERFILE) <= of_project


@pytest.mark.parametrize("target", ["python", "cpp"])
def test_the_page_on_servers_builds_its_images(target):
    assert f" AS {target}\n" in DOCKERFILE
    assert f"docker build --target {target} " in (ROOT / "docs/guide/server.md").read_text()
