"""scripts/tree.py: a copy of the sources, without what was built from them."""

import pytest


@pytest.fixture
def copy(script, sources, tmp_path):
    """Copies the sources to the same folder each time, and returns their hash and the folder."""
    return lambda: (script("tree").copy(tmp_path / "copy"), tmp_path / "copy")


@pytest.mark.parametrize("linked", [False, True])
def test_a_copy_has_the_kernels_once_as_a_folder_in_the_package(sources, copy, linked):
    if linked:
        (sources / "dcrnn_fast" / "kernels").symlink_to("../kernels")
    _, folder = copy()
    assert not (folder / "dcrnn_fast" / "kernels").is_symlink()
    assert (folder / "dcrnn_fast" / "kernels" / "one.py").read_text() == "kernels"
    assert not (folder / "kernels").exists()


def test_a_copy_has_no_license_that_an_older_setuptools_refuses(sources, copy):
    (sources / "pyproject.toml").write_text('name = "x"\nlicense = "Apache-2.0"\nlicense-files = ["LICENSE"]\nversion = "1"\n')
    assert (copy()[1] / "pyproject.toml").read_text() == 'name = "x"\nversion = "1"\n'


@pytest.mark.parametrize("name", ["_C.so", "one.pyc", "_build_failure.txt", "_build_failure_cuda.txt"])
def test_what_was_built_is_neither_copied_nor_deleted_in_the_copy(sources, copy, name):
    (sources / "dcrnn_fast" / name).write_text("built in the checkout")
    first, folder = copy()
    assert not (folder / "dcrnn_fast" / name).exists()
    (folder / "dcrnn_fast" / name).write_text("built in the copy")
    assert copy() == (first, folder)
    assert (folder / "dcrnn_fast" / name).read_text() == "built in the copy"


def test_unchanged_files_keep_their_times_and_files_that_are_gone_are_deleted(sources, copy):
    first, folder = copy()
    before = (folder / "csrc" / "one.py").stat().st_mtime_ns
    (sources / "kernels" / "one.py").rename(sources / "kernels" / "two.py")
    assert copy()[0] != first
    assert (folder / "csrc" / "one.py").stat().st_mtime_ns == before
    assert [path.name for path in (folder / "dcrnn_fast" / "kernels").iterdir()] == ["two.py"]
