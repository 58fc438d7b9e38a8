"""Runs scripts.resources for each line of standard input, a list of its arguments, in a fork of a process that has imported everything.

Importing takes seconds, and so does Triton's digest of itself, by which it names what it caches. An answer is an exit code and an output.
"""

import json
import os
import sys
import tempfile
from importlib.util import find_spec

os.environ.pop("TRITON_INTERPRET", None)

from scripts.resources.__main__ import main

if find_spec("triton"):
    from triton.runtime.cache import triton_key

    triton_key()

for line in sys.stdin:
    with tempfile.TemporaryFile() as printed:
        child = os.fork()
        if child == 0:
            os.dup2(printed.fileno(), 1)
            os.dup2(printed.fileno(), 2)
            raise SystemExit(main(json.loads(line)))
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        printed.seek(0)
        sys.stdout.write(json.dumps([code, printed.read().decode()]) + "\n")
        sys.stdout.flush()
