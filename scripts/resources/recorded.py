"""A recorded result in place of a new one, where nothing that decides it has changed.

To compile every kernel takes minutes. What comes of it depends on the sources, the compiler, the options, and these scripts. So a result
names the digest of them all. With the same digest, a part is compiled again, which must be as recorded.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

LANGUAGES = {"triton", "cuda"}
NO_CAUSE = ("output", "recorded", "module", "kernels", "sources")
"""Options that do not decide the result. Of a folder of sources the content counts, not the name."""


def digest_of(language: str, sources: Iterable[Path], versions: Mapping[str, str], options: argparse.Namespace) -> str:
    """A digest of all that decides a language's result. It is of the files' bytes: a changed comment changes it too."""
    found, others = hashlib.sha256(), LANGUAGES - {language}
    here = Path(__file__)
    scripts = (file for file in here.parent.glob("*.*") if file != here and file.name.partition("_")[0] not in others)
    for file in [*sorted(sources), *sorted(scripts)]:
        found.update(file.name.encode() + b"\0" + file.read_bytes() + b"\0")
    chosen = {name: value for name, value in vars(options).items() if name not in NO_CAUSE}
    found.update(json.dumps([chosen, versions], sort_keys=True).encode())
    return found.hexdigest()


def recorded_result(options: argparse.Namespace, digest: str) -> dict[str, Any] | None:
    """With the option ``recorded``, the result in the file ``output`` if it has this digest; otherwise None."""
    if not options.recorded:
        return None
    result: dict[str, Any] = json.loads(options.output.read_text(encoding="utf-8")) if options.output.is_file() else {}
    if result.get("digest") == digest:
        return result
    print(f"{options.output} is not of these sources, scripts, options and versions: compiling all")
    return None


def with_differences(recorded: dict[str, Any], again: dict[str, Any]) -> dict[str, Any]:
    """The recorded result; a row that was compiled again and is not as recorded stands in it as a failure."""
    differing = [row for row in json.loads(json.dumps(again["rows"])) if row not in recorded["rows"]]
    print(f"{len(again['rows'])} of {len(recorded['rows'])} recorded rows compiled again, {len(differing)} not as recorded")
    failed = [row | {"failures": [*row["failures"], "compiled again, this is not as recorded"]} for row in differing]
    files = [file for file in again.get("files", []) if file["failures"]]
    return recorded | {"rows": [*recorded["rows"], *failed]} | ({"files": [*recorded["files"], *files]} if files else {})
