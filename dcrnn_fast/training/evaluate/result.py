"""What a run gives back: its metrics, which a notebook shows as a table."""

from __future__ import annotations

from html import escape
from typing import Any


class Result(dict[str, Any]):
    """What ``metrics.json`` holds but its digest: ``test`` and ``valid`` (metrics by task), ``train``, ``model``, ``data``, ``config``.

    >>> metrics = {"click": {"auc": 0.75, "log_loss": 0.5, "constant_log_loss": None}}
    >>> about = {"best_step": 9, "steps": 20, "stopped": "all epochs are trained"}
    >>> print(Result(valid=metrics, test={}, train=about, data={"name": "shop"})._repr_html_())  # doctest: +ELLIPSIS
    <table>...<tr><td>click</td><td>0.7500</td><td>0.5000</td><td>-</td></tr></table>
    """

    def _repr_html_(self) -> str:
        splits = [split for split in ("valid", "test") if self[split]]
        heads = [f"{split}: {name}" for split in splits for name in ("AUC (the constant has 0.5)", "log loss", "the constant's log loss")]
        cells = [["task", *heads]]
        for task in self["valid"]:
            found = [self[split].get(task, {}).get(name) for split in splits for name in ("auc", "log_loss", "constant_log_loss")]
            cells.append([task, *("-" if value is None else f"{value:.4f}" for value in found)])
        at = self["train"]
        about = f"{self['data']['name']}: the weights of step {at['best_step']} of {at['steps']} are kept; "
        about += f"the run ended, as {at['stopped']}"
        rows = (f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>" for row in cells)
        return f"<table><caption>{escape(about)}</caption>{''.join(rows)}</table>"
