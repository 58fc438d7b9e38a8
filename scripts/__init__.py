"""Development tools. Each runs from the root of the repository: ``python -m scripts.NAME``."""
