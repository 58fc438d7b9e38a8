"""The README tells the truth: its example runs as printed, its tables are those of bench/results/, its links lead somewhere."""

import os
import re
import subprocess
import sys

import pytest

from bench.readme import README, render

TEXT = README.read_text(encoding="utf-8")


def test_the_tables_are_those_of_the_result_files():
    assert render(TEXT) == TEXT, "run: python -m bench.readme"


@pytest.mark.parametrize("code", re.findall(r"```python\n(.*?)```", TEXT, flags=re.DOTALL))
@pytest.mark.parametrize("module", ["dcrnn_fast", "dcrnn_fast.reference"])
def test_the_example_runs_as_printed_and_with_the_import_swapped(code, module):
    swapped = code.replace("from dcrnn_fast import DCRNN", f"from {module} import DCRNN")
    done = subprocess.run([sys.executable, "-c", swapped], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "consume_given_click" in done.stdout


def test_the_commands_are_targets_of_the_makefile():
    makefile = (README.parent / "Makefile").read_text(encoding="utf-8")
    for target in set(re.findall(r"`?make ([\w-]+)", TEXT)):
        assert f"\n{target}:" in makefile, f"README names `make {target}`"


@pytest.mark.parametrize("page", ["README.md", *sorted(str(path.relative_to(README.parent)) for path in README.parent.glob("docs/*.md"))])
def test_links_lead_to_files(page):
    path = README.parent / page
    for link in re.findall(r"\]\(([^)#]+)\)", path.read_text(encoding="utf-8")):
        if "://" not in link:
            assert os.path.exists(path.parent / link), f"{page} links to {link}"
