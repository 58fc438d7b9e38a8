"""Two pages, followed as a reader does: what they show runs as printed, and prints what they show."""

import re

from tests.page import Reader, blocks


def test_your_own_data_runs_as_printed(tmp_path, monkeypatch, command, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DCRNN_FAST_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("COLUMNS", raising=False)
    reader = Reader(command, capsys)
    for block in blocks("guide/your-own-data.md"):
        reader.follow(block)


def test_from_lightgbm_trains_both_on_one_table(capsys):
    (code,) = [block.text for block in blocks("guide/from-lightgbm.md") if block.kind == "python"]
    exec(compile(code, "from-lightgbm.md", "exec"), {})
    found = re.findall(r"^(click|order) LightGBM (0\.\d+), DCRNN (0\.\d+)$", capsys.readouterr().out, re.MULTILINE)
    assert [task for task, *_ in found] == ["click", "order"]
    assert all(float(auc) > 0.7 for _, *aucs in found for auc in aucs)
