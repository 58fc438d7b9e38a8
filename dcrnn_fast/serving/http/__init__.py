"""The server of a ranker over HTTP, in Python."""
