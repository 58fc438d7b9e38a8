"""The picture of a batch's way in docs/inside/architecture.svg is the way that a batch goes."""

import re
import sys
import threading
from pathlib import Path

from tests.estimator.conftest import quick
from tests.event_frames import events

ROOT = Path(__file__).parent.parent
FILES = re.findall(r'class="file"[^>]*>([^<]+)<', (ROOT / "docs/inside/architecture.svg").read_text())


def test_each_file_in_the_picture_exists():
    assert len(FILES) == 16
    assert [file for file in FILES if not (ROOT / file).is_file()] == []


def test_training_enters_the_files_in_the_order_of_the_picture():
    backends = ("csrc/", "kernels/", "dcrnn_fast/reference/")
    way, entered = [file for file in FILES if not file.startswith(backends)], []

    def note(frame, event, _):
        if event == "call" and len(entered) < len(way) and frame.f_code.co_filename == str(ROOT / way[len(entered)]):
            entered.append(way[len(entered)])

    threading.setprofile(note)
    sys.setprofile(note)
    try:
        quick(tasks=["click"]).fit(events(300))
    finally:
        sys.setprofile(None)
        threading.setprofile(None)
    assert entered == way
