"""Tables as packed, memory-mapped arrays, and the loader that batches them.

`prepare`, `prepare_folder` and `draft_schema` need the extra `train`. Opening and reporting on packed data needs NumPy alone, loading it
PyTorch too::

    from dcrnn_fast.data import BlockLoader, prepare

    data = prepare("census-income")
    for ids, dense, labels, weight in BlockLoader(data.split("train"), 512, shuffle=True).batches(epoch=0):
        ...
"""

from .catalog import default_cache_dir, draft_schema, known_data_sets, prepare, prepare_folder
from .encoder.encoder import Encoded, Encoder
from .inspect.report import data_report
from .packed.arrays import PackedDataset, PackedSplit, join_packed, open_packed
from .packed.loader import Batch, BlockLoader
from .packed.meta import PackedMeta

__all__ = [
    "Batch",
    "BlockLoader",
    "Encoded",
    "Encoder",
    "PackedDataset",
    "PackedMeta",
    "PackedSplit",
    "data_report",
    "default_cache_dir",
    "draft_schema",
    "join_packed",
    "known_data_sets",
    "open_packed",
    "prepare",
    "prepare_folder",
]
