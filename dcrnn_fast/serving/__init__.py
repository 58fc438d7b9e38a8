"""Score rows with the model of a run. Needs the extra ``train``.

    from dcrnn_fast import Ranker

    ranker = Ranker.load("runs/shop")
    ranker.predict({"user_id": ["u7", "u7"], "item_id": ["i1", "i2"]})["click"]

``dcrnn-fast predict`` scores files, ``dcrnn-fast export`` writes a model as one file.
"""

from .export.export import export
from .export.load import ExportedRanker, load_exported
from .ranker import Ranker, model_id
from .scoring import score_files

__all__ = ["ExportedRanker", "Ranker", "export", "load_exported", "model_id", "score_files"]
