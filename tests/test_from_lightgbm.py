"""docs/guide/from-lightgbm.md: its code runs as printed, and prints both models' AUC of both tasks."""

import re

from tests.page import blocks


def test_the_page_trains_both_on_one_table(capsys):
    (code,) = [block.text for block in blocks("guide/from-lightgbm.md") if block.kind == "python"]
    exec(compile(code, "from-lightgbm.md", "exec"), {})
    found = re.findall(r"^(click|order) LightGBM (0\.\d+), DCRNN (0\.\d+)$", capsys.readouterr().out, re.MULTILINE)
    assert [task for task, *_ in found] == ["click", "order"]
    assert all(float(auc) > 0.7 for _, *aucs in found for auc in aucs)
