from ..operators.conftest import backend

__all__ = ["backend"]
