"""The zoo over HTTP: its API, and the server of a zoo that people share."""

from __future__ import annotations

__all__ = ["COOKIE", "PREFIX"]

PREFIX = "/api/zoo"
"""Under which all routes of its API lie."""
COOKIE = "neuronmap_zoo_session"
"""Cookie of a browser that signed in to a zoo with accounts."""
