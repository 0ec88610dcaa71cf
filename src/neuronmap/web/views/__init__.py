"""What pages and API show: typed, built from stored data, without HTML."""

from __future__ import annotations
