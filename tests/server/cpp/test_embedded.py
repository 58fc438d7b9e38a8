"""An embedded data set from training to the server in C++: it scores raw rows as the run does."""

import pyarrow.parquet as pq

from dcrnn_fast import Ranker
from dcrnn_fast.data import catalog
from dcrnn_fast.serving import export
from dcrnn_fast.training import load_config, train

from ..calls import score
from ..contract import assert_scores
from ..process import CppServer

SMALL = {
    "threads": 1,
    "device": "cpu",
    "model.embedding_dim": 2,
    "model.steps": 1,
    "model.tower_dims": [4],
    "optimiser.epochs": 1,
    "optimiser.batch_size": 8192,
}


def test_it_is_trained_exported_served_and_scored(cpp_program, tmp_path):
    train(load_config(None, {"data": "census-income"} | SMALL), tmp_path / "run")
    export(tmp_path / "run", tmp_path / "model.pt2", format="aoti", rows=1000)
    ranker = Ranker.load(tmp_path / "run")
    file = pq.read_table(catalog.EMBEDDED / "census-income.parquet", columns=list(ranker.columns)).slice(1000, 40)
    rows = file.to_pydict()
    server = CppServer(cpp_program, tmp_path / "model.pt2", tmp_path / "errors")
    try:
        assert_scores(score(server.url, {"columns": rows}), ranker.predict(rows))
    finally:
        assert server.stop() == 0
