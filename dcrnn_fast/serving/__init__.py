"""Score rows with the model of a run. Needs the extra ``train``.

    from dcrnn_fast import Ranker

    ranker = Ranker.load("runs/shop")
    ranker.predict({"user_id": ["u7", "u7"], "item_id": ["i1", "i2"]})["click"]

``dcrnn-fast predict`` scores files.
"""

from .ranker import Ranker
from .scoring import score_files

__all__ = ["Ranker", "score_files"]
