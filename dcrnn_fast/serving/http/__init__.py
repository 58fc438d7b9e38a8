"""The server of a ranker over HTTP, in Python. Needs the extra ``serve``."""

from __future__ import annotations

from importlib.util import find_spec

from ...errors import MissingExtra

PACKAGES = ("fastapi", "fastapi_offline", "prometheus_client", "uvicorn")


def check_packages() -> None:
    """Raise MissingExtra where a package of the extra ``serve`` is not installed. Call it before you import a module of this folder."""
    if missing := [name for name in PACKAGES if find_spec(name) is None]:
        raise MissingExtra(f"serve needs {', '.join(missing)}; run: pip install 'dcrnn_fast[serve]'")
