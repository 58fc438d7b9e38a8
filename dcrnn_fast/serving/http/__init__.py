"""The server of a ranker over HTTP, in Python. Needs the extra ``serve``."""

PACKAGES = ("fastapi", "fastapi_offline", "httptools", "orjson", "prometheus_client", "uvicorn", "uvloop")
"""The packages of the extra, which the modules of this folder import."""
