"""Schemathesis asks a running server what its description allows and forbids; one of the attacks of `make attack`.

No answer may be a 5xx but 503, none may differ from the description, what the description forbids must be refused, and some requests must
be scored. The seed is fixed: what fails fails again.
"""

import json
import subprocess
import sys

from dcrnn_fast.serving.http.schema import describe_api

from .calls import get, metrics

# Descriptions cannot say that all lists have one length, so what follows them may be refused.
LEFT_OUT = "positive_data_acceptance"
SETTINGS = """[checks]
not_a_server_error.expected-statuses = ["2xx", "3xx", "4xx", "503"]
negative_data_rejection.expected-statuses = ["400", "404", "405", "413", "415", "503"]
"""
CALL = "from schemathesis.cli import schemathesis; schemathesis()"


def fuzz(url, folder, *, examples, seed):
    """Returns how many answers the server counts by status, and what is wrong, with the words of schemathesis, or nothing."""
    description, settings = folder / "openapi.json", folder / "schemathesis.toml"
    description.write_text(json.dumps(describe_api(get(url, "/v1/model").json)))
    settings.write_text(SETTINGS)
    before = _requests(url)
    options = ["--url", url, "--seed", str(seed), "--max-examples", str(examples), "--exclude-checks", LEFT_OUT, "--warnings", "off"]
    options += ["--no-color", "--generation-database", "none", "--request-timeout", "30"]
    words = [sys.executable, "-c", CALL, "--config-file", settings, "run", description, *options]
    done = subprocess.run(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    counted = {status: int(count - before.get(status, 0)) for status, count in _requests(url).items() if count > before.get(status, 0)}
    if done.returncode:
        return counted, "\n".join([f"schemathesis ended with {done.returncode}:", *(line[:500] for line in done.stdout.splitlines())])
    wrong = [status for status in counted if status.startswith("5") and status != "503"]
    if wrong or min(counted.get("200", 0), counted.get("400", 0)) < examples // 10:
        return counted, f"answers by status are {counted}, expected no 5xx but 503, and that part is scored and part refused"
    return counted, ""


def _requests(url):
    found = {name: value for name, value in metrics(url).items() if name.startswith("dcrnn_fast_requests_total")}
    return {name.split('"')[1]: value for name, value in found.items()}
