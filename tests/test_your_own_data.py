"""docs/guide/your-own-data.md, followed from the top in an empty folder: everything runs as printed, and prints what the page shows."""

import pytest

from tests.page import ROOT, Block, Reader, blocks


def test_the_page_runs_as_printed(tmp_path, monkeypatch, command, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DCRNN_FAST_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("COLUMNS", raising=False)
    reader = Reader(command, capsys)
    for block in blocks("guide/your-own-data.md"):
        reader.follow(block)


def test_every_fence_and_every_command_of_the_page_is_a_block():
    found, page = blocks("guide/your-own-data.md"), (ROOT / "docs" / "guide" / "your-own-data.md").read_text(encoding="utf-8")
    assert {block.kind for block in found} == {"python", "yaml", "text", "commands"}
    assert 2 * len([block for block in found if block.kind != "commands"]) == page.count("```")
    assert "".join(block.text for block in found if block.kind == "commands").count("dcrnn-fast ") == page.count("\n    dcrnn-fast ")


@pytest.mark.parametrize(
    "shown", ["| user | 15.2% |", "no warnings", "user\n...\nitem", "item\n| user", "user | 15.1% |", "it...warnings."]
)
def test_what_was_not_printed_is_found_out(command, capsys, shown):
    reader = Reader(command, capsys)
    reader.printed = "item\n| user | 15.1% |  \nNo warnings.\n"
    reader.follow(Block("text", "| user | ...% |\nNo warnings.\n"))
    with pytest.raises(AssertionError, match="the page shows"):
        reader.follow(Block("text", shown))
