"""The registry: publications, versions, aliases, lineage and housekeeping over a database and a store of blobs."""

from __future__ import annotations
