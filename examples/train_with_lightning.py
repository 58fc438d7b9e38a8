"""Trains a DCRNN in a Lightning trainer, on batches of the package's own loader, and prints the AUC of each task on the test rows.

pip install -e '.[lightning]'
python examples/train_with_lightning.py hillstrom
"""

import sys

import pytorch_lightning as lightning
import torch
from sklearn.metrics import roc_auc_score

from dcrnn_fast import DCRNN
from dcrnn_fast.data import BlockLoader, prepare


class Epochs:
    """What Lightning iterates over: all batches, in another order in each epoch."""

    def __init__(self, loader):
        self.loader, self.epochs = loader, 0

    def __len__(self):
        return len(self.loader)

    def __iter__(self):
        self.epochs += 1  # at the first batch: Lightning also calls iter() to see whether it can
        yield from self.loader.batches(self.epochs - 1)


class Ranking(lightning.LightningModule):
    """The model, its loss, and its optimiser."""

    def __init__(self, meta, lr=0.005):
        super().__init__()
        fields = {"num_embeddings": meta.fields, "shared_embeddings": meta.shared, "pooled": meta.pooled}
        self.lr, self.model = lr, DCRNN(**fields, num_dense=len(meta.dense), tasks=meta.tasks, relation=meta.relation)

    def training_step(self, batch, _):
        return self.model.loss(self.model(batch.ids, batch.dense), batch.labels)

    def configure_optimizers(self):
        return torch.optim.AdamW(self.parameters(), lr=self.lr)


def fit(data, *, epochs=2, seed=0):
    """The model, trained on the train rows of packed data."""
    lightning.seed_everything(seed)
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False}
    trainer = lightning.Trainer(max_epochs=epochs, accelerator="auto", devices=1, **quiet)
    ranking = Ranking(data.meta)
    trainer.fit(ranking, Epochs(BlockLoader(data.split("train"), 512, shuffle=True, seed=seed)))
    return ranking.model.cpu().eval()


def test_auc(model, data):
    """The AUC of each task on the test rows, of labels that are all known."""
    rows = data.split("test")
    (batch,) = BlockLoader(rows, len(rows)).batches()
    scores = model.predict(batch.ids, batch.dense)
    return {task: float(roc_auc_score(batch.labels[:, at], scores[task])) for at, task in enumerate(data.meta.tasks)}


if __name__ == "__main__":
    packed = prepare(sys.argv[1])
    print({task: round(auc, 4) for task, auc in test_auc(fit(packed), packed).items()})
