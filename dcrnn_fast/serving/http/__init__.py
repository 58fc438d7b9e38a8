"""The server of a ranker over HTTP, in Python. Needs the extra ``serve``."""

PACKAGES = ("fastapi", "fastapi_offline", "prometheus_client", "uvicorn")
"""The packages of the extra, which the modules of this folder import."""
