"""A table whose rows belong to scenarios that differ by a known amount."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from .id_heavy_data import write_table

SHARES = (0.55, 0.25, 0.15, 0.03, 0.02)
FIELDS, VALUES = 8, 12


def write_scenarios(seed: int, folder: Path, *, cosine: float, rows: int = 50_000) -> str:
    """Impressions of five channels with clicks and consumes; every other seed draws another table.

    The logit of a click and that of a consume after a click each add up an effect of every field's value. Each channel has effects of its
    own. Those of two channels have an expected cosine of ``cosine`` in [0, 1]: at 1 the channels do not differ. Returns the schema.
    """
    rng = np.random.default_rng([seed, 17])
    channel = rng.choice(len(SHARES), rows, p=SHARES)
    values = rng.integers(0, VALUES, (FIELDS, rows))
    events = []
    for base in (-1.0, -0.5):
        common, own = rng.normal(0, 0.5, (FIELDS, VALUES)), rng.normal(0, 0.5, (len(SHARES), FIELDS, VALUES))
        effects = np.sqrt(cosine) * common + np.sqrt(1 - cosine) * own
        logit = base + sum(effects[channel, field, values[field]] for field in range(FIELDS))
        events.append(rng.random(rows) < 1 / (1 + np.exp(-logit)))
    click, consume = events[0], events[0] & events[1]
    table = zip(channel, *values, click.astype(int), consume.astype(int), strict=True)
    columns = ["channel", *(f"field_{field}" for field in range(FIELDS))]
    name = f"drawn-{cosine:g}-{seed}"
    return write_table(folder, name, columns, ("click", "consume"), table, valid=0.3, test=0.01, group=None)
