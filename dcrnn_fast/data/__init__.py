"""Tables as packed, memory-mapped arrays, and the loader that batches them.

`prepare` and `prepare_folder` need the extra `train`; opening, reporting on and loading packed data needs NumPy and PyTorch only.

    from dcrnn_fast.data import BlockLoader, prepare

    data = prepare("census-income")
    for ids, dense, labels, weight in BlockLoader(data.split("train"), 512, shuffle=True).batches(epoch=0):
        ...
"""

from typing import TYPE_CHECKING

from .catalog import default_cache_dir, known_data_sets, prepare, prepare_folder
from .encoder.encoder import Encoded, Encoder
from .inspect.report import data_report
from .packed.arrays import PackedDataset, PackedSplit, open_packed
from .packed.loader import Batch, BlockLoader
from .packed.meta import PackedMeta

if TYPE_CHECKING:
    from .inspect.draft import draft_schema as draft_schema  # not in __all__: `import *` must work without the extra `train`

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
    "known_data_sets",
    "open_packed",
    "prepare",
    "prepare_folder",
]


def __getattr__(name: str) -> object:
    """Import `draft_schema` when it is asked for. Raises MissingExtra where the packages of the extra `train` are missing."""
    if name != "draft_schema":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        from .inspect.draft import draft_schema
    except ModuleNotFoundError as error:
        from ..errors import MissingExtra

        raise MissingExtra(f"dcrnn_fast.data.draft_schema needs the package {error.name}: pip install 'dcrnn_fast[train]'") from error
    return draft_schema


def __dir__() -> list[str]:
    return sorted({*globals(), "draft_schema"})
