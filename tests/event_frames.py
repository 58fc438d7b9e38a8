"""A drawn log of events as a DataFrame."""

import numpy as np
import pandas as pd


def events(rows: int, seed: int = 0, **columns: object) -> pd.DataFrame:
    """Rows of a shop: ts, user_id, item_id, price, city, and the labels click and order, of which an order implies a click."""
    rng = np.random.default_rng(seed)
    frame = pd.DataFrame(
        {
            "ts": pd.Timestamp("2024-05-01") + pd.to_timedelta(np.sort(rng.integers(0, 30 * 86_400, rows)), unit="s"),
            "user_id": rng.integers(0, 200, rows),
            "item_id": rng.integers(0, 60, rows),
            "price": rng.normal(size=rows).round(3),
            "city": rng.choice(np.array(["Oslo", "Rome", "Lima", None], dtype=object), rows),
        }
    )
    wanted = 1 / (1 + np.exp(2 - frame["price"] - (frame["item_id"] % 7) / 2))
    frame["click"] = (rng.random(rows) < wanted).astype(int)
    frame["order"] = frame["click"] * (rng.random(rows) < 0.3 + 0.4 * (frame["city"] == "Oslo"))
    return frame.assign(**columns)
