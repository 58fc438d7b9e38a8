"""The attacks of `make attack` find servers with planted defects, and nothing at a server without one."""

import json
import sys

import numpy as np
import pytest

from .attacks import Form, Found, Target, files_replaced, idle_clients, memory_kept

FEW = Form(lives=3, slow=2, reloads=5, requests=400, examples=0, median=30.0, longest=30.0)
STUB = r"""
import http.server, json, os, signal, sys
defect, served = sys.argv[1:]
state, kept = {"reloads": 0}, []

def load():
    content = json.load(open(served))
    if defect == "scores of the next model" and "model" in state:
        state["scores"] = content["scores"]
    else:
        state.update(content)

class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    timeout = 10

    def do_GET(self):
        if defect == "a line a request":
            print("a client came\n" * 50, file=sys.stderr, flush=True)
        ok, failed = 'dcrnn_fast_reloads_total{result="ok"}', 'dcrnn_fast_reloads_total{result="failed"}'
        self.answer(200, f"{ok} {state['reloads']}\n{failed} 0\n")

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if defect == "each request is kept":
            kept.append(os.urandom(1) * 65536)
        content = {name: state[name] for name in ("model", "scores")}
        state["posts"] = state.get("posts", 0) + 1
        fails = defect == "one in many fails" and state["posts"] % 4 == 0
        self.answer(400 if b'"no"' in body else 500 if fails else 200, json.dumps(content))

    def answer(self, status, text):
        self.send_response(status)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *_):
        pass

class Server(http.server.ThreadingHTTPServer):
    request_queue_size = 2000

def reload(*_):
    load()
    state["reloads"] += 1

load()
server = Server(("127.0.0.1", 0), Handler)
signal.signal(signal.SIGHUP, reload)
print("listening on http://127.0.0.1:%d" % server.server_port, flush=True)
server.serve_forever()
"""


def stub(folder, defect):
    """A server in few lines, which has the defect and answers every request with the scores of its model."""
    paths, expected = [folder / "0.json", folder / "1.json"], {}
    for path, model, scores in zip(paths, ["a" * 12, "b" * 12], [[0.25, 0.5], [0.75, 0.125]], strict=True):
        path.write_text(json.dumps({"model": model, "scores": {"click": scores}}))
        expected[model] = {"click": np.array(scores)}
    (folder / "server").mkdir()
    return Target("stub", [sys.executable, "-S", "-c", STUB, defect], tuple(paths), expected), folder / "server"


DEFECTS = {
    "a line a request": (idle_clients, "lines to stderr, expected fewer than 100"),
    "one in many fails": (files_replaced, "a request was answered with 500"),
    "scores of the next model": (files_replaced, "beside the id a{12} the scores click are"),
    "each request is kept": (memory_kept, "after 400 requests.*expected at most 8 MiB"),
}


@pytest.mark.parametrize("defect", DEFECTS)
def test_a_planted_defect_is_found(tmp_path, defect):
    attack, words = DEFECTS[defect]
    target, folder = stub(tmp_path, defect)
    with pytest.raises(Found, match=words):
        attack(target, FEW, folder)


@pytest.mark.parametrize("attack", dict.fromkeys(attack for attack, _ in DEFECTS.values()))
def test_a_server_without_a_defect_passes(tmp_path, attack):
    target, folder = stub(tmp_path, "none")
    assert attack(target, FEW, folder)
