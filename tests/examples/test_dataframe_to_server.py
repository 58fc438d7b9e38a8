"""examples/dataframe_to_server.py plays a new user: from a DataFrame to an answer over HTTP."""

import json
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from dcrnn_fast import Ranker
from dcrnn_fast.serving.http import PACKAGES
from tests.event_frames import events
from tests.page import Reader, blocks

EXAMPLE = Path(__file__).parents[2] / "examples" / "dataframe_to_server.py"
pytestmark = pytest.mark.skipif(
    any(find_spec(name) is None for name in PACKAGES), reason="needs the extra serve: pip install 'dcrnn_fast[serve]'"
)


def test_a_frame_becomes_a_run_that_answers_over_http(tmp_path):
    events(4000).drop(columns="city").to_parquet(tmp_path / "log.parquet")
    done = subprocess.run(
        [sys.executable, EXAMPLE, tmp_path / "log.parquet", tmp_path / "monday"], capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout.splitlines()[-1])
    expected = Ranker.load(tmp_path / "monday").predict({"user_id": [7, 7], "item_id": [1, 2], "price": [9.5, 12.0]})
    assert answer["scores"]["order"] == pytest.approx(expected["order"].tolist(), rel=1e-5)


def test_the_page_runs_as_printed(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").mkdir()
    reader = Reader(None, capsys)
    for block in blocks("guide/dataframe.md"):
        reader.follow(block)
