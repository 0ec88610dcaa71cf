"""The explorer: HTTP API and pages. Reads stored data only; what needs torch runs in processes of its own (jobs, live)."""

from __future__ import annotations

from neuronmap.web.settings import ServerSettings

__all__ = ["ServerSettings"]
