"""scripts.gpu.resumed_tests: a later call of pytest leaves out the tests that passed, and begins with those that matter most."""

import os
import subprocess
import sys

import pytest

from .conftest import ROOT


def resumed_pytest(folder, *options):
    """What pytest prints with the plugin that leaves out what passed."""
    paths = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    plugins = ("-p", "scripts.gpu.resumed_tests", "--passed", "passed.txt", "-p", "no:cacheprovider")
    command = [sys.executable, "-m", "pytest", *plugins, *options]
    done = subprocess.run(command, cwd=folder, env={**os.environ, "PYTHONPATH": paths}, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout


@pytest.mark.parametrize("options", [(), ("-n", "2")], ids=["one process", "xdist"])
def test_a_later_call_leaves_out_the_tests_that_passed(script, tmp_path, monkeypatch, options):
    script("gpu.resumed_tests")
    (tmp_path / "test_one.py").write_text(
        "import os, pytest\n"
        "def test_passes(): pass\n"
        "@pytest.mark.skip\ndef test_skipped(): pass\n"
        "def test_fails_first(): assert 'LATER' in os.environ\n"
        "@pytest.fixture\ndef wrong():\n    yield\n    assert 'LATER' in os.environ\n"
        "def test_ends_wrong(wrong): pass\n"
    )
    code, said = resumed_pytest(tmp_path, *options)
    assert (code, "1 failed, 2 passed, 1 skipped, 1 error" in said) == (1, True), said
    monkeypatch.setenv("LATER", "1")
    code, said = resumed_pytest(tmp_path, *options)
    assert (code, "2 passed, 1 skipped" in said) == (0, True), said
    code, said = resumed_pytest(tmp_path, *options)
    assert (code, "passed" in said, "1 skipped" in said) == (0, False, True), "what is skipped may run another time"
    assert len((tmp_path / "passed.txt").read_text().splitlines()) == 3


def test_each_worker_begins_with_the_files_that_matter(script, tmp_path):
    script("gpu.resumed_tests")
    for name, count in (("test_aaa.py", 8), ("test_stack.py", 4)):
        (tmp_path / name).write_text(
            f"import os, pytest\n@pytest.mark.parametrize('n', range({count}))\ndef test_it(n):\n"
            f"    print('{name}', file=open(os.environ['PYTEST_XDIST_WORKER'], 'a'))\n"
        )
    code, said = resumed_pytest(tmp_path, "-n", "2", "--dist", "worksteal")
    assert code == 0, said
    assert {(tmp_path / worker).read_text().split()[0] for worker in ("gw0", "gw1")} == {"test_stack.py"}


def test_the_tests_that_come_first_are_there(script):
    assert [name for name in script("gpu.resumed_tests").FIRST if not (ROOT / "tests" / "operators" / name).is_file()] == []
