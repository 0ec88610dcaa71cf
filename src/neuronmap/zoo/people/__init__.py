"""People: accounts, organisations, tokens, what they may do, what they add."""

from __future__ import annotations
