"""Impressions of which it is known whether each would consume after a click, clicked or not."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np

from .id_heavy_data import write_table

FIELDS, VALUES = 6, 10
TEST, VALID = 0.4, 0.15
KINDS = ("one taste", "other rules", "hidden taste")
"""What ties clicks to consumes. One taste, which the fields tell, raises both. Or the rows below the median click rate consume by effects
of their own. Or a taste raises both that no field tells."""


class Impressions(NamedTuple):
    """Values of the fields [F, N]; by row P(click), P(consume after a click), the click, and whether the row would consume if clicked."""

    values: np.ndarray
    propensity: np.ndarray
    conversion: np.ndarray
    click: np.ndarray
    would_consume: np.ndarray


def draw(kind: str, seed: int, rows: int = 50_000) -> Impressions:
    """Impressions of one of :data:`KINDS`; every other seed draws other effects and rows."""
    rng = np.random.default_rng([seed, 23])
    values = rng.integers(0, VALUES, (FIELDS, rows))

    def effect(scale: float) -> np.ndarray:
        of = rng.normal(0, scale, (FIELDS, VALUES))
        return sum(of[field, values[field]] for field in range(FIELDS))  # type: ignore[return-value]

    taste, own_of_click, own_of_consume, other = effect(0.5), effect(0.2), effect(0.2), effect(0.5)
    hidden = rng.normal(0, 1.2, rows)
    of_both = hidden if kind == "hidden taste" else taste
    click_logit = -2.2 + of_both + own_of_click
    consume_logit = -0.8 + of_both + own_of_consume
    if kind == "other rules":
        rare = click_logit < np.median(click_logit)
        consume_logit = np.where(rare, -0.8 + other, consume_logit)
    propensity, conversion = (1 / (1 + np.exp(-logit)) for logit in (click_logit, consume_logit))
    click, would_consume = rng.random(rows) < propensity, rng.random(rows) < conversion
    return Impressions(values, propensity, conversion, click, would_consume)


def write_log(drawn: Impressions, folder: Path) -> str:
    """The log: fields, clicks, and consumes of clicked rows. The last rows are the test rows. Returns the schema."""
    consume = drawn.click & drawn.would_consume
    table = zip(*drawn.values, drawn.click.astype(int), consume.astype(int), strict=True)
    columns = [f"field_{field}" for field in range(FIELDS)]
    return write_table(folder, "impressions", columns, ("click", "consume"), table, valid=VALID, test=TEST, group=None)


def held_out_rows(drawn: Impressions) -> Impressions:
    """Those of :func:`write_log`."""
    start = round(drawn.click.size * (1 - TEST))
    return Impressions(*(part[..., start:] for part in drawn))
