"""Finding artefacts: one document for each version, SQLite and PostgreSQL behind one interface."""

from __future__ import annotations
