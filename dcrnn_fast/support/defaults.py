"""The default model: :class:`dcrnn_fast.DCRNN`, its reference and the trainer read these numbers, and `train --help` without PyTorch."""

EMBEDDING_DIM, EMBEDDING_INIT_STD = 8, 0.05
DENSE_BINS = 32
STEPS, RANK, SHARE_RATIO = 2, 32, 0.5
TOWER_DIMS, DROPOUT = (64, 32), 0.3
