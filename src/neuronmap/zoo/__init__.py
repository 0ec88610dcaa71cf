"""The zoo: artefacts that people publish, find, check, depend on and build on."""

from __future__ import annotations
