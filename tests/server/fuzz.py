"""Schemathesis asks a running server what its description allows and forbids: `make serve-fuzz`.

    python -m tests.server.fuzz                             # the server in Python, of a small run
    python -m tests.server.fuzz --url http://127.0.0.1:8000 # any server of the contract, with the same description

No answer may be a 5xx but 503, none may differ from the description, what the description forbids must be refused, and some requests must
be scored. The seed is fixed: what fails fails again.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

from dcrnn_fast.serving.http.schema import describe_api

from .calls import get, metrics

# Descriptions cannot say that all lists have one length, so what follows them may be refused.
LEFT_OUT = "positive_data_acceptance"
SETTINGS = '[checks]\nnot_a_server_error.expected-statuses = ["2xx", "3xx", "4xx", "503"]\n'
CALL = "from schemathesis.cli import schemathesis; schemathesis()"


def fuzz(url, folder, *, examples, seed):
    """Returns the exit code of schemathesis, or 1 where the server counts what may not be."""
    description, settings = folder / "openapi.json", folder / "schemathesis.toml"
    description.write_text(json.dumps(describe_api(get(url, "/v1/model").json)))
    settings.write_text(SETTINGS)
    before = _requests(url)
    options = ["--url", url, "--seed", str(seed), "--max-examples", str(examples), "--exclude-checks", LEFT_OUT, "--warnings", "off"]
    options += ["--no-color", "--generation-database", "none", "--request-timeout", "30"]
    code = subprocess.run([sys.executable, "-c", CALL, "--config-file", settings, "run", description, *options], check=False).returncode
    counted = {status: count - before.get(status, 0) for status, count in _requests(url).items()}
    print(f"answers by status: {counted}")
    wrong = [status for status in counted if status.startswith("5") and status != "503"]
    if wrong or min(counted.get("200", 0), counted.get("400", 0)) < examples // 10:
        print("expected no 5xx but 503, and that part of the requests is scored and part refused")
        return 1
    return code


def _requests(url):
    found = {name: value for name, value in metrics(url).items() if name.startswith("dcrnn_fast_requests_total")}
    return {name.split('"')[1]: value for name, value in found.items()}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--url", help="of a running server; without it, one is started on a small run")
    parser.add_argument("--examples", type=int, default=300, help="requests of an operation, at most")
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if given.url:
            return fuzz(given.url.rstrip("/"), folder, examples=given.examples, seed=given.seed)
        from dcrnn_fast.training import train
        from tests.training.tiny import tiny_config, write_table

        from .on_a_thread import OnAThread

        train(tiny_config(write_table(folder / "shop"), optimiser__epochs=1), folder / "run")
        server = OnAThread(folder / "run")
        code = fuzz(server.url, folder, examples=given.examples, seed=given.seed)
        return code or server.stop()


if __name__ == "__main__":
    sys.exit(main())
