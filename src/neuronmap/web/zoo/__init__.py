"""The zoo over HTTP: its API, and the server of a zoo that people share."""

from __future__ import annotations

__all__ = ["PREFIX"]

PREFIX = "/api/zoo"
"""Under which all routes of its API lie."""
